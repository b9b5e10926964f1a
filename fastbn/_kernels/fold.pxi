# The algebra of one channel, in float64: lanes -> block, blocks -> channel, channel -> constants of the map.
#
# slots[block] holds three vectors of length `channels`: centre k, s = sum(x - k), q = sum((x - k)^2), with k the
# first value of the channel in the block; for gradients s = sum(dy), q = sum(dy * (x - k)), with k the mean rounded
# to the dtype of x.

cdef inline double *slot(const Job *job, Py_ssize_t block, int field) noexcept nogil:
    return job.slots + (block * 3 + field) * job.channels


cdef inline Py_ssize_t block_count(const Job *job, Py_ssize_t block) noexcept nogil:
    # values of one channel in one block
    cdef const Plan *p = &job.plan
    cdef Py_ssize_t part = block // p.segments, segment = block % p.segments
    cdef Py_ssize_t rows = min(p.block_rows, p.rows - part * p.block_rows) * p.tile
    if part * p.block_rows + p.block_rows >= p.rows:
        rows += p.leftover
    if p.by_rows:
        return rows * min(p.segment, job.inner - segment * p.segment)
    return rows * job.inner


cdef inline double sum_lanes(const double *v, Py_ssize_t n) noexcept nogil:
    # the n values in LANES lanes, the lanes in pairs
    cdef double t[LANES]
    cdef Py_ssize_t i = LANES, j, half = LANES // 2
    for j in range(LANES):
        t[j] = v[j] if j < n else 0.0
    while i + LANES <= n:
        for j in range(LANES):
            t[j] += v[i + j]
        i += LANES
    for j in range(n - i):
        t[j] += v[i + j]
    while half > 0:
        for j in range(half):
            t[j] += t[j + half]
        half //= 2
    return t[0]


cdef void fold_moments(const Job *job, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    # mean and m2 = sum((x - mean)^2): blocks merged in order by Chan's formula. Means are kept as offsets
    # from the first pilot, so that mean + mean_lo holds more than float64 at any mean/std.
    cdef Py_ssize_t b, c
    cdef const double *k
    cdef const double *s
    cdef const double *q
    cdef const double *k0 = slot(job, 0, 0)
    cdef double *offset = job.mean_lo
    cdef double *m2 = job.m2
    cdef double part, count = 0.0, share, cross, m, delta, v
    for b in range(job.plan.blocks):
        k = slot(job, b, 0)
        s = slot(job, b, 1)
        q = slot(job, b, 2)
        part = block_count(job, b)
        cross = count * part / (count + part)
        count += part
        share = part / count
        if b == 0:
            for c in range(c0, c1):
                offset[c] = s[c] / part
                m2[c] = q[c] - s[c] * (s[c] / part)
        else:
            for c in range(c0, c1):
                m = s[c] / part
                delta = (k[c] - k0[c]) + m - offset[c]
                offset[c] += delta * share
                m2[c] += (q[c] - s[c] * m) + delta * delta * cross
    for c in range(c0, c1):
        delta = offset[c]
        m = k0[c] + delta
        v = m - k0[c]
        job.mean[c] = m
        job.mean_lo[c] = (k0[c] - (m - v)) + (delta - v)
        m2[c] = 0.0 if m2[c] < 0.0 else m2[c]
        job.invstd[c] = 1.0 / sqrt(m2[c] / count + job.eps)


cdef void fold_grads(const Job *job, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    # sum_dy = sum(s);  sum(dy * xhat) = (sum(q) - (mean - k) * sum_dy) * invstd
    cdef Py_ssize_t b, c
    cdef const double *k = slot(job, 0, 0)
    cdef const double *s
    cdef const double *q
    cdef double low
    for b in range(job.plan.blocks):
        s = slot(job, b, 1)
        q = slot(job, b, 2)
        for c in range(c0, c1):
            job.sum_dy[c] = s[c] if b == 0 else job.sum_dy[c] + s[c]
            job.sum_dyxhat[c] = q[c] if b == 0 else job.sum_dyxhat[c] + q[c]
    for c in range(c0, c1):
        low = (job.mean[c] - k[c]) + job.mean_lo[c]
        job.sum_dyxhat[c] = (job.sum_dyxhat[c] - low * job.sum_dy[c]) * job.invstd[c]


cdef inline void fold(const Job *job, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    if job.reduce == MOMENTS:
        fold_moments(job, c0, c1)
    else:
        fold_grads(job, c0, c1)


# Constants of the map of channel c. A value v becomes the pair (hi, lo) with hi + lo = v, so that x - v keeps
# its accuracy when |v| is much larger than what remains.

cdef inline void split(double v, double v_lo, floating *hi, floating *lo) noexcept nogil:
    hi[0] = <floating> v
    lo[0] = <floating> ((v - <double> hi[0]) + v_lo)


cdef inline double scale_of(const Job *job, Py_ssize_t c) noexcept nogil:
    return job.gamma[c] * job.invstd[c] if job.gamma != NULL else job.invstd[c]


cdef inline double shift_of(const Job *job, Py_ssize_t c) noexcept nogil:
    return job.beta[c] if job.beta != NULL else 0.0


cdef inline double mean_dy(const Job *job, Py_ssize_t c) noexcept nogil:
    return job.sum_dy[c] / (<double> job.outer * <double> job.inner)


cdef inline double slope_of(const Job *job, Py_ssize_t c) noexcept nogil:
    # dx contains - xhat * mean(dy * xhat) = - (x - mean) * slope
    return job.sum_dyxhat[c] / (<double> job.outer * <double> job.inner) * job.invstd[c]


cdef inline floating affine(floating x, floating hi, floating lo, floating scale, floating shift) noexcept nogil:
    return ((x - hi) - lo) * scale + shift


cdef inline floating gradient(
    floating x, floating dy, floating hi, floating lo, floating ghi, floating glo, floating slope, floating scale
) noexcept nogil:
    return (((dy - ghi) - glo) - ((x - hi) - lo) * slope) * scale
