# The memory limit that the sweeps are measured against: dst = a, and dst = a + b, with the stores of the sweeps.

cdef void yardstick_task(
    floating *dst, const floating *a, const floating *b, Py_ssize_t n, bint stream
) noexcept nogil:
    cdef floating t[LANES]
    cdef Py_ssize_t j, i = min(n, line_head(dst)) if stream else 0
    for j in range(i):
        dst[j] = a[j] if b == NULL else a[j] + b[j]
    while i + LANES <= n:
        for j in range(LANES):
            t[j] = a[i + j] if b == NULL else a[i + j] + b[i + j]
        store_lanes(dst + i, t, stream)
        i += LANES
    for j in range(i, n):
        dst[j] = a[j] if b == NULL else a[j] + b[j]
    stream_fence()


cdef void yardstick(floating *dst, const floating *a, const floating *b, Py_ssize_t n, int threads) noexcept nogil:
    cdef Py_ssize_t i, tasks = ceil_div(n, BLOCK)
    cdef bint stream = n * <Py_ssize_t> sizeof(floating) >= STREAM_MIN
    for i in prange(tasks, schedule="static", num_threads=threads, use_threads_if=threads > 1):
        yardstick_task(
            dst + i * BLOCK, a + i * BLOCK, b + i * BLOCK if b != NULL else NULL, min(BLOCK, n - i * BLOCK), stream)
