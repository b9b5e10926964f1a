# One task of one sweep: channels [c0, c1) x blocks [b0, b1), by runs or by columns.

cdef inline Py_ssize_t block_start(const Plan *p, Py_ssize_t block) noexcept nogil:
    # first wide row of a block
    return min(block // p.segments * p.block_rows, p.rows)


cdef inline floating centre_of(const Job *job, Py_ssize_t c, floating first) noexcept nogil:
    # what is subtracted from the values of channel c in a sum
    return first if job.reduce == MOMENTS else <floating> job.mean[c]


cdef inline void reduce_runs(
    const Job *job, const floating *x, Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t b0, Py_ssize_t b1, char *scratch
) noexcept nogil:
    cdef const Plan *p = &job.plan
    cdef const floating *dy = <const floating *> job.dy
    cdef double *s = <double *> scratch
    cdef double *q = s + (c1 - c0) * LANES
    cdef Py_ssize_t b, c, n, i, at, start, length
    for b in range(b0, b1):
        start = b % p.segments * p.segment
        length = min(p.segment, job.inner - start)
        memset(s, 0, 2 * (c1 - c0) * LANES * sizeof(double))
        for c in range(c0, c1):
            slot(job, b, 0)[c] = centre_of(job, c, x[(block_start(p, b) * job.channels + c) * job.inner + start])
        for n in range(block_start(p, b), block_start(p, b + p.segments)):
            for c in range(c0, c1):
                at = (n * job.channels + c) * job.inner + start
                i = (c - c0) * LANES
                if job.reduce == MOMENTS:
                    row_moments(x + at, length, slot(job, b, 0)[c], s + i, q + i)
                else:
                    row_grads(x + at, dy + at, length, slot(job, b, 0)[c], s + i, q + i)
        for c in range(c0, c1):
            slot(job, b, 1)[c] = sum_lanes(s + (c - c0) * LANES, LANES)
            slot(job, b, 2)[c] = sum_lanes(q + (c - c0) * LANES, LANES)


cdef inline void map_runs(
    const Job *job, const floating *x, Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t ahead
) noexcept nogil:
    cdef const Plan *p = &job.plan
    cdef const floating *dy = <const floating *> job.dy
    cdef floating *out = <floating *> job.out
    cdef floating hi, lo, ghi, glo, slope, scale
    cdef Py_ssize_t b, c, n, at, start, length
    for b in range(b0, b1):
        start = b % p.segments * p.segment
        length = min(p.segment, job.inner - start)
        for n in range(block_start(p, b), block_start(p, b + p.segments)):
            for c in range(c0, c1):
                at = (n * job.channels + c) * job.inner + start
                split(job.mean[c], job.mean_lo[c], &hi, &lo)
                scale = <floating> scale_of(job, c)
                if job.map == AFFINE:
                    row_affine(out + at, x + at, length, hi, lo, scale, <floating> shift_of(job, c), job.stream, ahead)
                elif job.frozen:
                    row_gradient(out + at, x + at, dy + at, length, hi, lo, hi, lo, hi, scale, True, job.stream, ahead)
                else:
                    split(mean_dy(job, c), 0.0, &ghi, &glo)
                    slope = <floating> slope_of(job, c)
                    row_gradient(
                        out + at, x + at, dy + at, length, hi, lo, ghi, glo, slope, scale, False, job.stream, ahead)


cdef inline void spread(floating *dst, floating v, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        dst[i] = v


cdef inline void repeat(floating *v, Py_ssize_t n, Py_ssize_t times) noexcept nogil:
    # v[0:n] again and again, `times` in all
    cdef Py_ssize_t i
    for i in range(1, times):
        memcpy(v + i * n, v, n * sizeof(floating))


cdef inline void centres(
    const Job *job, floating *hi, floating *lo, Py_ssize_t c0, Py_ssize_t c1
) noexcept nogil:
    # hi, lo of every column
    cdef Py_ssize_t c, i, inner = job.inner
    cdef floating h, l
    for c in range(c0, c1):
        split(job.mean[c], job.mean_lo[c], &h, &l)
        i = (c - c0) * inner
        spread(hi + i, h, inner)
        spread(lo + i, l, inner)
    repeat(hi, (c1 - c0) * inner, job.plan.tile)
    repeat(lo, (c1 - c0) * inner, job.plan.tile)


cdef inline void fold_columns(
    double *total, const double *v, Py_ssize_t channels, Py_ssize_t inner, Py_ssize_t tile
) noexcept nogil:
    # total[c] = sum of the columns of channel c, row after row of the tile
    cdef Py_ssize_t c, t
    memset(total, 0, channels * sizeof(double))
    for t in range(tile):
        if inner == 1:
            for c in range(channels):
                total[c] += v[c]
        else:
            for c in range(channels):
                total[c] += sum_lanes(v + c * inner, inner)
        v += channels * inner


cdef inline void sum_columns(
    const Job *job, const floating *x, Py_ssize_t at, Py_ssize_t rows, Py_ssize_t width,
    const floating *centre, double *s, double *q
) noexcept nogil:
    # wide rows that start at x[at]
    cdef Py_ssize_t stride = job.plan.tile * job.channels * job.inner
    if job.reduce == MOMENTS:
        cols_moments(x + at, stride, rows, width, centre, s, q)
    else:
        cols_grads(x + at, <const floating *> job.dy + at, stride, rows, width, centre, s, q)


cdef inline void reduce_columns(
    const Job *job, const floating *x, Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t b0, Py_ssize_t b1, char *scratch
) noexcept nogil:
    cdef const Plan *p = &job.plan
    cdef Py_ssize_t stride = p.tile * job.channels * job.inner
    cdef Py_ssize_t width = p.tile * (c1 - c0) * job.inner
    cdef double *s = <double *> scratch
    cdef double *q = s + width
    cdef floating *centre = <floating *> (q + width)
    cdef Py_ssize_t b, c, r, i, at, last
    for b in range(b0, b1):
        last = block_start(p, b + 1)
        memset(s, 0, 2 * width * sizeof(double))
        at = block_start(p, b) * stride
        for c in range(c0, c1):
            i = (c - c0) * job.inner
            spread(centre + i, centre_of(job, c, x[at + c * job.inner]), job.inner)
            slot(job, b, 0)[c] = centre[i]
        repeat(centre, (c1 - c0) * job.inner, p.tile)
        r = block_start(p, b)
        while r < last:
            sum_columns(job, x, r * stride + c0 * job.inner, min(ROWS_AT_ONCE, last - r), width, centre, s, q)
            r += ROWS_AT_ONCE
        if last == p.rows and p.leftover > 0:
            sum_columns(job, x, last * stride, 1, p.leftover * job.channels * job.inner, centre, s, q)
        fold_columns(slot(job, b, 1) + c0, s, c1 - c0, job.inner, p.tile)
        fold_columns(slot(job, b, 2) + c0, q, c1 - c0, job.inner, p.tile)


cdef inline void map_columns(
    const Job *job, const floating *x, Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t b0, Py_ssize_t b1,
    Py_ssize_t ahead, char *scratch
) noexcept nogil:
    cdef const Plan *p = &job.plan
    cdef const floating *dy = <const floating *> job.dy
    cdef floating *out = <floating *> job.out
    cdef Py_ssize_t row = (c1 - c0) * job.inner
    cdef Py_ssize_t stride = p.tile * job.channels * job.inner
    cdef Py_ssize_t width = p.tile * row
    cdef floating *hi = <floating *> scratch
    cdef floating *lo = hi + width
    cdef floating *scale = lo + width
    cdef floating *shift = scale + width
    cdef floating *ghi = shift
    cdef floating *glo = ghi + width
    cdef floating *slope = glo + width
    cdef floating h, l
    cdef Py_ssize_t r, c, i, at
    cdef Py_ssize_t last = block_start(p, b1)
    centres(job, hi, lo, c0, c1)
    for c in range(c0, c1):
        i = (c - c0) * job.inner
        spread(scale + i, <floating> scale_of(job, c), job.inner)
        if job.map == AFFINE:
            spread(shift + i, <floating> shift_of(job, c), job.inner)
        elif not job.frozen:
            split(mean_dy(job, c), 0.0, &h, &l)
            spread(ghi + i, h, job.inner)
            spread(glo + i, l, job.inner)
            spread(slope + i, <floating> slope_of(job, c), job.inner)
    repeat(scale, row, p.tile)
    if job.map == AFFINE:
        repeat(shift, row, p.tile)
    elif not job.frozen:
        repeat(ghi, row, p.tile)
        repeat(glo, row, p.tile)
        repeat(slope, row, p.tile)
    for r in range(block_start(p, b0), last + (last == p.rows and p.leftover > 0)):
        at = r * stride + c0 * job.inner
        if r == p.rows:
            width = p.leftover * row
        if job.map == AFFINE:
            cols_affine(out + at, x + at, width, hi, lo, scale, shift, job.stream, ahead)
        elif job.frozen:
            cols_gradient(out + at, x + at, dy + at, width, hi, lo, hi, lo, hi, scale, True, job.stream, ahead)
        else:
            cols_gradient(out + at, x + at, dy + at, width, hi, lo, ghi, glo, slope, scale, False, job.stream, ahead)


cdef inline void reduce(
    const Job *job, const floating *x, Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t b0, Py_ssize_t b1, char *scratch
) noexcept nogil:
    if job.plan.by_rows:
        reduce_runs(job, x, c0, c1, b0, b1, scratch)
    else:
        reduce_columns(job, x, c0, c1, b0, b1, scratch)


cdef inline void map(
    const Job *job, const floating *x, Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t b0, Py_ssize_t b1,
    Py_ssize_t ahead, char *scratch
) noexcept nogil:
    if job.plan.by_rows:
        map_runs(job, x, c0, c1, b0, b1, ahead)
    else:
        map_columns(job, x, c0, c1, b0, b1, ahead, scratch)
