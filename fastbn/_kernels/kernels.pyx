"""Drivers of the four sweeps: reduce to moments, reduce to gradient sums, map to y, map to dx.

This file is compiled once per target, through baseline.pyx, avx2.pyx and avx512.pyx. Arrays arrive as the
view (outer, channels, inner), checked and allocated; nothing here checks, allocates or raises.

A call is a reduction, a fold of each channel, and a map, over blocks of a plan (plan.pxi). With `slab`, a task
takes a group of channels through all three while their values are in cache: one read of memory, one write.
Otherwise all blocks are reduced, then folded, then mapped. Sums are formed per block and merged in block order,
so neither way, nor any number of threads, changes a bit.

What limits many threads: a slab sweep has no more tasks than groups of channels, so with fewer than two groups a
thread the other traversal is taken; its tasks are blocks (about 128 of a matrix; one per 65536 values of a long
channel), and between its two sweeps stands a fold of 24 bytes x blocks x channels, shared out by 256 channels.
"""
cimport numpy as cnp
from cython cimport floating
from cython.parallel cimport parallel, prange, threadid
from libc.math cimport sqrt
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

cnp.import_array()

cdef extern from "simd.h" nogil:
    enum: LINE "FASTBN_LINE"
    void stream_lines "fastbn_stream_lines"(void *dst, const void *src, size_t n)
    void prefetch_lines "fastbn_prefetch_lines"(const void *src, size_t n)
    void stream_fence "fastbn_stream_fence"()

cdef enum Reduction:
    NO_REDUCTION
    MOMENTS
    GRADS

cdef enum Map:
    NO_MAP
    AFFINE
    GRADIENT

include "plan.pxi"


cdef struct Job:
    Py_ssize_t outer, channels, inner
    const void *x
    const void *dy
    void *out
    const double *gamma         # NULL: ones
    const double *beta          # NULL: zeros
    double *mean                # mean + mean_lo: more than float64
    double *mean_lo
    double *m2                  # sum((x - mean)^2)
    double *invstd
    double *sum_dyxhat
    double *sum_dy
    double eps
    Reduction reduce
    Map map
    bint frozen                 # statistics are constants: gradients do not pass through them
    bint stream
    int threads
    double *slots
    char *scratch
    Plan plan


include "fold.pxi"


cdef inline Py_ssize_t line_head(const floating *p) noexcept nogil:
    # values before the next cache line begins
    return <Py_ssize_t> ((-<uintptr_t> p) % LINE // sizeof(floating))


cdef inline void store_lanes(floating *dst, const floating *src, bint stream) noexcept nogil:
    cdef Py_ssize_t j
    if stream:
        stream_lines(dst, src, LANES * sizeof(floating))
    else:
        for j in range(LANES):
            dst[j] = src[j]


include "rows.pxi"
include "columns.pxi"
include "sweeps.pxi"
include "yardstick.pxi"


cdef inline Py_ssize_t first_channel(const Plan *p, Py_ssize_t task) noexcept nogil:
    return task % p.groups * p.group


cdef void slab_task(const Job *job, const floating *x, Py_ssize_t task, int thread) noexcept nogil:
    # groups of channels one after the other; while one is written, the next is fetched
    cdef const Plan *p = &job.plan
    cdef Py_ssize_t g, c0, c1, ahead
    cdef Py_ssize_t last = min(task * p.chunk + p.chunk, p.groups)
    cdef char *scratch = job.scratch + thread * p.scratch
    for g in range(task * p.chunk, last):
        c0 = g * p.group
        c1 = min(c0 + p.group, job.channels)
        reduce(job, x, c0, c1, 0, p.blocks, scratch)
        fold(job, c0, c1)
        if job.map != NO_MAP:
            ahead = p.group * job.inner if g + 1 < last else 0
            map(job, x, c0, c1, 0, p.blocks, ahead, scratch)
    stream_fence()


cdef void sweep_task(const Job *job, const floating *x, Py_ssize_t task, bint mapping, int thread) noexcept nogil:
    cdef const Plan *p = &job.plan
    cdef Py_ssize_t c0 = first_channel(p, task)
    cdef Py_ssize_t c1 = min(c0 + p.group, job.channels)
    cdef Py_ssize_t b0 = task // p.groups * p.chunk
    cdef Py_ssize_t b1 = min(b0 + p.chunk, p.blocks)
    cdef char *scratch = job.scratch + thread * p.scratch
    if mapping:
        map(job, x, c0, c1, b0, b1, 0, scratch)
        stream_fence()
    else:
        reduce(job, x, c0, c1, b0, b1, scratch)


cdef void run_alone(const Job *job, const floating *x) noexcept nogil:
    # the tasks of `run` one after the other, without the cost of a parallel region
    cdef const Plan *p = &job.plan
    cdef Py_ssize_t i, tasks = p.chunks if p.slab else p.groups * p.chunks
    if p.slab:
        for i in range(tasks):
            slab_task(job, x, i, 0)
        return
    if job.reduce != NO_REDUCTION:
        for i in range(tasks):
            sweep_task(job, x, i, False, 0)
        fold(job, 0, job.channels)
    if job.map != NO_MAP:
        for i in range(tasks):
            sweep_task(job, x, tasks - 1 - i, True, 0)


cdef void run(const Job *job, const floating *x) noexcept nogil:
    cdef const Plan *p = &job.plan
    cdef Py_ssize_t i, tasks = p.chunks if p.slab else p.groups * p.chunks
    cdef Py_ssize_t folds = ceil_div(job.channels, FOLD)
    if p.slab:
        for i in prange(tasks, schedule="dynamic", num_threads=job.threads):
            slab_task(job, x, i, threadid())
        return
    with parallel(num_threads=job.threads):
        if job.reduce != NO_REDUCTION:
            for i in prange(tasks, schedule="dynamic"):
                sweep_task(job, x, i, False, threadid())
            for i in prange(folds, schedule="static"):
                fold(job, i * FOLD, min(i * FOLD + FOLD, job.channels))
        if job.map != NO_MAP:
            # last block first: its values are the likeliest to be in cache still
            for i in prange(tasks, schedule="dynamic"):
                sweep_task(job, x, tasks - 1 - i, True, threadid())


cdef void start(const Job *job, const floating *x) noexcept nogil:
    if job.threads > 1:
        run(job, x)
    else:
        run_alone(job, x)


cdef const double *widened(cnp.ndarray v, double *room):
    # a vector of float32 or float64 as float64
    cdef Py_ssize_t i
    if v is None:
        return NULL
    if cnp.PyArray_ITEMSIZE(v) == sizeof(double):
        return <const double *> cnp.PyArray_DATA(v)
    for i in range(cnp.PyArray_SIZE(v)):
        room[i] = (<const float *> cnp.PyArray_DATA(v))[i]
    return room


cdef Plan cut(tuple view, bint reducing, int itemsize, int arrays, int threads):
    cdef Plan p
    cdef Py_ssize_t outer, channels, inner
    outer, channels, inner = view
    cut_blocks(&p, outer, channels, inner, reducing)
    cut_groups(&p, outer, channels, inner, reducing, itemsize, arrays, threads)
    return p


cdef void prepare(Job *job, cnp.ndarray x, tuple view, int arrays, int threads):
    job.outer, job.channels, job.inner = view
    job.x = cnp.PyArray_DATA(x)
    job.threads = threads
    job.plan = cut(view, job.reduce != NO_REDUCTION, cnp.PyArray_ITEMSIZE(x), arrays, threads)


cdef void finish(Job *job, cnp.ndarray x, cnp.ndarray out, double *room):
    # `room` has what is left of the workspace: slots, then the threads' scratch
    cdef Py_ssize_t bytes = job.outer * job.channels * job.inner * cnp.PyArray_ITEMSIZE(x)
    cdef int itemsize = cnp.PyArray_ITEMSIZE(x)
    job.slots = room
    room += 3 * job.plan.blocks * job.channels * (job.reduce != NO_REDUCTION)
    job.scratch = <char *> room + (-<uintptr_t> room) % LINE
    if out is not None:
        job.out = cnp.PyArray_DATA(out)
        job.stream = bytes >= STREAM_MIN and job.out != job.x and job.out != job.dy
    with nogil:
        if itemsize == sizeof(float):
            start(job, <const float *> job.x)
        else:
            start(job, <const double *> job.x)


def workspace(tuple view, bint reducing, int itemsize, int arrays, int threads):
    """Length of the float64 workspace of a call on `arrays` arrays (x and y; x, dy and dx)."""
    cdef Plan p = cut(view, reducing, itemsize, arrays, threads)
    return (8 + 3 * p.blocks * reducing) * view[1] + (p.scratch * threads + LINE) // <Py_ssize_t> sizeof(double)


def plan(tuple view, bint reducing, int itemsize, int arrays, int threads):
    """The plan of a call, for tests and for the curious."""
    return cut(view, reducing, itemsize, arrays, threads)


def forward(cnp.ndarray x, cnp.ndarray y, tuple view, cnp.ndarray gamma, cnp.ndarray beta,
            cnp.ndarray mean, cnp.ndarray var, cnp.ndarray stats, cnp.ndarray work, double eps, int threads):
    """y = gamma * (x - mean) * invstd + beta; without `mean`, the statistics of x. Without y, these alone.

    stats, (4, channels) float64 or None, receives mean, its low part, m2 (var, where given) and invstd.
    """
    cdef Job job
    cdef const double *given
    cdef double *room = <double *> cnp.PyArray_DATA(work)
    cdef double *s
    cdef Py_ssize_t c
    memset(&job, 0, sizeof(Job))
    job.reduce = MOMENTS if mean is None else NO_REDUCTION
    job.map = NO_MAP if y is None else AFFINE
    prepare(&job, x, view, 1 if y is None else 2, threads)
    job.gamma = widened(gamma, room)
    job.beta = widened(beta, room + job.channels)
    s = room + 4 * job.channels if stats is None else <double *> cnp.PyArray_DATA(stats)
    job.mean = s
    job.mean_lo = s + job.channels
    job.m2 = s + 2 * job.channels
    job.invstd = s + 3 * job.channels
    job.eps = eps
    if mean is not None:
        memcpy(job.mean, widened(mean, room + 2 * job.channels), job.channels * sizeof(double))
        memset(job.mean_lo, 0, job.channels * sizeof(double))
        given = widened(var, room + 2 * job.channels)
        for c in range(job.channels):
            job.m2[c] = given[c]
            job.invstd[c] = 1.0 / sqrt(given[c] + eps)
    finish(&job, x, y, room + 8 * job.channels)


def backward(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dx, tuple view, cnp.ndarray gamma,
             cnp.ndarray stats, cnp.ndarray sums, cnp.ndarray work, bint frozen, int threads):
    """dx, and in sums, (2, channels) float64, dgamma = sum(dy * xhat) and dbeta = sum(dy)."""
    cdef Job job
    cdef double *room = <double *> cnp.PyArray_DATA(work)
    cdef double *s = <double *> cnp.PyArray_DATA(stats)
    memset(&job, 0, sizeof(Job))
    job.reduce = GRADS
    job.map = GRADIENT
    job.frozen = frozen
    prepare(&job, x, view, 3, threads)
    job.gamma = widened(gamma, room)
    job.dy = cnp.PyArray_DATA(dy)
    job.mean = s
    job.mean_lo = s + job.channels
    job.invstd = s + 3 * job.channels
    job.sum_dyxhat = <double *> cnp.PyArray_DATA(sums)
    job.sum_dy = job.sum_dyxhat + job.channels
    finish(&job, x, dx, room + 8 * job.channels)


def add(cnp.ndarray dst, cnp.ndarray a, cnp.ndarray b, int threads):
    """dst = a + b, dense and of one dtype, at the speed of memory; without b, a copy. For benchmarks."""
    cdef void *d = cnp.PyArray_DATA(dst)
    cdef const void *p = cnp.PyArray_DATA(a)
    cdef const void *q = NULL if b is None else cnp.PyArray_DATA(b)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(dst)
    cdef int itemsize = cnp.PyArray_ITEMSIZE(dst)
    with nogil:
        if itemsize == sizeof(float):
            yardstick(<float *> d, <const float *> p, <const float *> q, n, threads)
        else:
            yardstick(<double *> d, <const double *> p, <const double *> q, n, threads)


def copy(cnp.ndarray dst, cnp.ndarray src, int threads):
    """dst = src, as `add`."""
    add(dst, src, None, threads)
