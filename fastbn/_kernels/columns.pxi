# The arithmetic of a few rows of neighbouring columns, one constant and one accumulator a column.
#
# A chunk of LANES columns keeps its accumulators in registers while `rows` rows pass; each column adds
# its rows in order.

cdef inline void cols_moments(
    const floating *x, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    const floating *pilot, double *s, double *q
) noexcept nogil:
    # s[col] += x - pilot[col],  q[col] += (x - pilot[col])^2
    cdef double ls[LANES]
    cdef double lq[LANES]
    cdef double lp[LANES]
    cdef const floating *xr
    cdef double d
    cdef Py_ssize_t i = 0, j, r
    while i + LANES <= width:
        for j in range(LANES):
            ls[j] = s[i + j]
            lq[j] = q[i + j]
            lp[j] = pilot[i + j]
        xr = x + i
        for r in range(rows):
            for j in range(LANES):
                d = <double> xr[j] - lp[j]
                ls[j] += d
                lq[j] += d * d
            xr += stride
        for j in range(LANES):
            s[i + j] = ls[j]
            q[i + j] = lq[j]
        i += LANES
    for r in range(rows):
        for j in range(i, width):
            d = <double> x[r * stride + j] - <double> pilot[j]
            s[j] += d
            q[j] += d * d


cdef inline void cols_grads(
    const floating *x, const floating *dy, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    const floating *centre, double *s, double *q
) noexcept nogil:
    # s[col] += dy,  q[col] += dy * (x - centre[col])
    cdef double ls[LANES]
    cdef double lq[LANES]
    cdef double lc[LANES]
    cdef const floating *xr
    cdef const floating *gr
    cdef double g
    cdef Py_ssize_t i = 0, j, r
    while i + LANES <= width:
        for j in range(LANES):
            ls[j] = s[i + j]
            lq[j] = q[i + j]
            lc[j] = centre[i + j]
        xr = x + i
        gr = dy + i
        for r in range(rows):
            for j in range(LANES):
                g = gr[j]
                ls[j] += g
                lq[j] += g * (<double> xr[j] - lc[j])
            xr += stride
            gr += stride
        for j in range(LANES):
            s[i + j] = ls[j]
            q[i + j] = lq[j]
        i += LANES
    for r in range(rows):
        for j in range(i, width):
            g = dy[r * stride + j]
            s[j] += g
            q[j] += g * (<double> x[r * stride + j] - <double> centre[j])


cdef inline void cols_affine(
    floating *y, const floating *x, Py_ssize_t width,
    const floating *hi, const floating *lo, const floating *scale, const floating *shift, bint stream, Py_ssize_t ahead
) noexcept nogil:
    # y[col] = affine(x[col])
    cdef floating t[LANES]
    cdef Py_ssize_t j, i = min(width, line_head(y)) if stream else 0
    for j in range(i):
        y[j] = affine(x[j], hi[j], lo[j], scale[j], shift[j])
    while i + LANES <= width:
        for j in range(LANES):
            t[j] = affine(x[i + j], hi[i + j], lo[i + j], scale[i + j], shift[i + j])
        if ahead:
            prefetch_lines(x + i + ahead, LANES * sizeof(floating))
        store_lanes(y + i, t, stream)
        i += LANES
    for j in range(i, width):
        y[j] = affine(x[j], hi[j], lo[j], scale[j], shift[j])


cdef inline void cols_gradient(
    floating *dx, const floating *x, const floating *dy, Py_ssize_t width,
    const floating *hi, const floating *lo, const floating *ghi, const floating *glo,
    const floating *slope, const floating *scale, bint frozen, bint stream, Py_ssize_t ahead
) noexcept nogil:
    # dx[col] = gradient(x[col], dy[col]);  frozen: dx[col] = dy[col] * scale[col]
    cdef floating t[LANES]
    cdef Py_ssize_t j, i = min(width, line_head(dx)) if stream else 0
    for j in range(i):
        dx[j] = (dy[j] * scale[j] if frozen
                 else gradient(x[j], dy[j], hi[j], lo[j], ghi[j], glo[j], slope[j], scale[j]))
    while i + LANES <= width:
        for j in range(LANES):
            t[j] = (dy[i + j] * scale[i + j] if frozen
                    else gradient(x[i + j], dy[i + j], hi[i + j], lo[i + j], ghi[i + j], glo[i + j],
                                  slope[i + j], scale[i + j]))
        if ahead:
            prefetch_lines(x + i + ahead, LANES * sizeof(floating))
            prefetch_lines(dy + i + ahead, LANES * sizeof(floating))
        store_lanes(dx + i, t, stream)
        i += LANES
    for j in range(i, width):
        dx[j] = (dy[j] * scale[j] if frozen
                 else gradient(x[j], dy[j], hi[j], lo[j], ghi[j], glo[j], slope[j], scale[j]))
