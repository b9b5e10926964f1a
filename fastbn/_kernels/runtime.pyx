"""What the machine, the OpenMP runtime and memory say. Compiled with baseline flags, so that it runs anywhere."""

cimport numpy as cnp

cnp.import_array()

cdef extern from *:
    """
    #if defined(_OPENMP)
    #include <omp.h>
    #define fastbn_openmp _OPENMP
    #else
    #define fastbn_openmp 0
    static int omp_get_max_threads(void) { return 1; }
    #endif

    #if defined(__x86_64__) && defined(__GNUC__)
    static int fastbn_has_avx2(void)
    {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") != 0;
    }
    static int fastbn_has_avx512(void)
    {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    }
    #else
    static int fastbn_has_avx2(void) { return 0; }
    static int fastbn_has_avx512(void) { return 0; }
    #endif

    #if defined(_WIN32)
    static void fastbn_at_fork(void (*child)(void)) { (void)child; }
    #else
    #include <pthread.h>
    static void fastbn_at_fork(void (*child)(void)) { pthread_atfork(NULL, NULL, child); }
    #endif
    """
    int fastbn_openmp
    int omp_get_max_threads() nogil
    bint fastbn_has_avx2()
    bint fastbn_has_avx512()
    void fastbn_at_fork(void (*child)() noexcept nogil)

cdef bint opened = False        # a parallel region has been opened in this process
cdef bint orphaned = False      # ... or in the process that this one was forked from


cdef void in_child() noexcept nogil:
    global orphaned
    orphaned = opened or orphaned


fastbn_at_fork(in_child)


def cpu_targets():
    """Names of the targets that this CPU runs, best first."""
    return ("avx512",) * fastbn_has_avx512() + ("avx2",) * fastbn_has_avx2() + ("baseline",)


def openmp_version():
    """Date of the OpenMP specification compiled against, such as 201511; 0 for a serial build."""
    return fastbn_openmp


def openmp_max_threads():
    """What OMP_NUM_THREADS, threadpoolctl and the affinity mask allow."""
    return omp_get_max_threads()


def allowed(int n):
    """n, or 1 where a region of several threads would hang or could not be: OpenMP's threads do not survive a fork."""
    return 1 if n <= 1 or orphaned or not fastbn_openmp else n


def team(int n):
    """As `allowed`, for a region that is opened next."""
    global opened
    n = allowed(n)
    opened = opened or n > 1
    return n


cdef inline void bounds(cnp.ndarray a, char **first, char **last):
    # of the bytes that a may touch: [first, last)
    cdef int i
    cdef Py_ssize_t reach
    first[0] = <char *> cnp.PyArray_DATA(a)
    last[0] = first[0] + cnp.PyArray_ITEMSIZE(a)
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, i) == 0:
            last[0] = first[0]
            return
        reach = (cnp.PyArray_DIM(a, i) - 1) * cnp.PyArray_STRIDE(a, i)
        if reach > 0:
            last[0] += reach
        else:
            first[0] += reach


def apart(cnp.ndarray target not None, tuple others):
    """Whether the memory of target lies outside the bounds of every array in others; None counts as no array.

    The quick half of np.may_share_memory, for many arrays in one call.
    """
    cdef char *first
    cdef char *last
    cdef char *begin
    cdef char *end
    bounds(target, &first, &last)
    for other in others:
        if other is not None:
            bounds(<cnp.ndarray?> other, &begin, &end)
            if begin < last and first < end:
                return False
    return True
