# The arithmetic of one run of one channel: n neighbouring values, the channel's constants in registers.
#
# Sums run in LANES lanes: value i goes to lane i % LANES, so the order of additions is written here and
# chosen neither by a compiler nor by a vector width. Lanes and totals are float64.

cdef inline void row_moments(const floating *x, Py_ssize_t n, double pilot, double *s, double *q) noexcept nogil:
    # s[lane] += x - pilot,  q[lane] += (x - pilot)^2
    cdef double ls[LANES]
    cdef double lq[LANES]
    cdef double d
    cdef Py_ssize_t i = 0, j
    for j in range(LANES):
        ls[j] = s[j]
        lq[j] = q[j]
    while i + LANES <= n:
        for j in range(LANES):
            d = <double> x[i + j] - pilot
            ls[j] += d
            lq[j] += d * d
        i += LANES
    for j in range(LANES):
        s[j] = ls[j]
        q[j] = lq[j]
    for j in range(n - i):
        d = <double> x[i + j] - pilot
        s[j] += d
        q[j] += d * d


cdef inline void row_grads(
    const floating *x, const floating *dy, Py_ssize_t n, double centre, double *s, double *q
) noexcept nogil:
    # s[lane] += dy,  q[lane] += dy * (x - centre)
    cdef double ls[LANES]
    cdef double lq[LANES]
    cdef double g
    cdef Py_ssize_t i = 0, j
    for j in range(LANES):
        ls[j] = s[j]
        lq[j] = q[j]
    while i + LANES <= n:
        for j in range(LANES):
            g = dy[i + j]
            ls[j] += g
            lq[j] += g * (<double> x[i + j] - centre)
        i += LANES
    for j in range(LANES):
        s[j] = ls[j]
        q[j] = lq[j]
    for j in range(n - i):
        g = dy[i + j]
        s[j] += g
        q[j] += g * (<double> x[i + j] - centre)


cdef inline void row_affine(
    floating *y, const floating *x, Py_ssize_t n,
    floating hi, floating lo, floating scale, floating shift, bint stream, Py_ssize_t ahead
) noexcept nogil:
    # y = affine(x)
    cdef floating t[LANES]
    cdef Py_ssize_t j, i = min(n, line_head(y)) if stream else 0
    for j in range(i):
        y[j] = affine(x[j], hi, lo, scale, shift)
    while i + LANES <= n:
        for j in range(LANES):
            t[j] = affine(x[i + j], hi, lo, scale, shift)
        if ahead:
            prefetch_lines(x + i + ahead, LANES * sizeof(floating))
        store_lanes(y + i, t, stream)
        i += LANES
    for j in range(i, n):
        y[j] = affine(x[j], hi, lo, scale, shift)


cdef inline void row_gradient(
    floating *dx, const floating *x, const floating *dy, Py_ssize_t n,
    floating hi, floating lo, floating ghi, floating glo, floating slope, floating scale,
    bint frozen, bint stream, Py_ssize_t ahead
) noexcept nogil:
    # dx = gradient(x, dy);  frozen: dx = dy * scale
    cdef floating t[LANES]
    cdef Py_ssize_t j, i = min(n, line_head(dx)) if stream else 0
    for j in range(i):
        dx[j] = dy[j] * scale if frozen else gradient(x[j], dy[j], hi, lo, ghi, glo, slope, scale)
    while i + LANES <= n:
        for j in range(LANES):
            t[j] = (dy[i + j] * scale if frozen
                    else gradient(x[i + j], dy[i + j], hi, lo, ghi, glo, slope, scale))
        if ahead:
            prefetch_lines(x + i + ahead, LANES * sizeof(floating))
            prefetch_lines(dy + i + ahead, LANES * sizeof(floating))
        store_lanes(dx + i, t, stream)
        i += LANES
    for j in range(i, n):
        dx[j] = dy[j] * scale if frozen else gradient(x[j], dy[j], hi, lo, ghi, glo, slope, scale)
