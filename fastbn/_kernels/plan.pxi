# How a view (outer, channels, inner) is cut.
#
# Blocks decide the order of sums: they follow from the shape and the constants below, and from nothing else.
# Groups of channels and the choice between one sweep and two only decide who does what and when; they may
# look at the number of threads, because no sum crosses a group.

cdef enum:
    LANES = 16                  # accumulators of a run; a multiple of every vector width in use
    ROWS_AT_ONCE = 8            # rows that pass while a chunk of columns holds its accumulators
    ROW_MIN = 256               # shortest inner size worth a run of its own; below, positions are columns
    WIDE = 256                  # narrower rows are joined until they are about this wide
    COLS_MAX = 2048             # columns of one group: their constants stay in L1/L2
    GROUP_MAX = 32              # channels of one group of runs
    BLOCK = 65536               # values of one block of runs of one channel
    BLOCK_ROWS_MIN = 64         # rows of one block of columns ...
    BLOCK_ROWS_MAX = 8192
    BLOCKS = 128                # ... and how many blocks there should be, between these bounds
    TASKS = 8                   # tasks a thread should have, so that a slow core can be helped
    FOLD = 256                  # channels folded by one task
    SLAB = 524288               # bytes of a slab that stay in a core's L2 between the two sweeps
    SLAB_MAX = 8388608          # a channel larger than this is swept twice from memory
    RUN_MIN = 512               # bytes; shorter runs waste what memory delivers
    STREAM_MIN = 4194304        # bytes of an output that is better written past the caches


cdef struct Plan:
    bint by_rows                # runs of one channel (rows.pxi), else columns (columns.pxi)
    Py_ssize_t tile             # rows joined into one wide row (columns only)
    Py_ssize_t rows             # full wide rows
    Py_ssize_t leftover         # the rows that fill no wide one
    Py_ssize_t block_rows       # wide rows of one block
    Py_ssize_t segments         # pieces of one run (runs only)
    Py_ssize_t segment          # values of one piece
    Py_ssize_t blocks
    bint slab                   # reduce and map a group before the next, else all are reduced first
    Py_ssize_t group            # channels of one group
    Py_ssize_t groups
    Py_ssize_t chunk            # groups of one task of a slab sweep, blocks of one task otherwise
    Py_ssize_t chunks
    Py_ssize_t scratch          # bytes of one thread


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t joined_rows(Py_ssize_t outer, Py_ssize_t row) noexcept nogil:
    # smallest tile such that tile * row is a multiple of LANES, repeated until it is WIDE
    cdef Py_ssize_t tile = LANES, part = row
    while tile > 1 and part % 2 == 0:
        tile //= 2
        part //= 2
    if tile * row > COLS_MAX:
        return 1
    return max(1, min(outer, tile * max(1, WIDE // (tile * row))))


cdef inline void cut_blocks(
    Plan *p, Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner, bint reducing
) noexcept nogil:
    p.by_rows = inner >= ROW_MIN
    p.tile = 1 if p.by_rows else joined_rows(outer, channels * inner)
    p.rows = outer // p.tile
    p.leftover = outer % p.tile
    p.segments = max(1, ceil_div(inner, BLOCK)) if p.by_rows else 1
    p.segment = ceil_div(ceil_div(inner, p.segments), LANES) * LANES
    if p.by_rows:
        p.block_rows = max(1, BLOCK // inner) if reducing else 1
    else:
        p.block_rows = max(BLOCK_ROWS_MIN, min(BLOCK_ROWS_MAX, ceil_div(p.rows, BLOCKS)))
        p.block_rows = max(p.block_rows, BLOCK // (p.tile * channels * inner))
        p.block_rows = ceil_div(p.block_rows, ROWS_AT_ONCE) * ROWS_AT_ONCE
    p.blocks = ceil_div(p.rows, p.block_rows) * p.segments


cdef inline void cut_groups(
    Plan *p, Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner, bint reducing,
    Py_ssize_t itemsize, int arrays, int threads
) noexcept nogil:
    cdef Py_ssize_t channel_bytes = outer * inner * itemsize * arrays
    cdef Py_ssize_t widest = channels
    cdef Py_ssize_t narrowest = ceil_div(RUN_MIN, inner * itemsize)
    if p.by_rows:
        widest = min(channels, GROUP_MAX)
    elif p.tile == 1:
        widest = min(channels, max(1, COLS_MAX // inner))
    p.group = max(1, min(widest, SLAB // channel_bytes))
    if threads > 1:
        p.group = min(p.group, max(narrowest, ceil_div(channels, 4 * threads)))
    p.slab = (
        reducing and p.tile == 1 and channel_bytes <= SLAB_MAX and (p.group >= narrowest or p.group == channels)
        and (threads == 1 or channels >= 2 * threads * p.group)
    )
    if not p.slab:
        p.group = widest
        if p.by_rows:
            p.group = 1 if reducing else max(1, min(channels, BLOCK // p.segment))
    p.groups = ceil_div(channels, p.group)
    p.chunks = p.groups if p.slab else p.blocks
    p.chunks = min(p.chunks, max(1, TASKS * threads // (1 if p.slab else p.groups)))
    p.chunk = ceil_div(p.groups if p.slab else p.blocks, p.chunks)
    p.chunks = ceil_div(p.groups if p.slab else p.blocks, p.chunk)
    if p.by_rows:
        p.scratch = p.group * 2 * LANES * <Py_ssize_t> sizeof(double)
    else:
        p.scratch = p.group * p.tile * inner * 6 * itemsize
    p.scratch = ceil_div(p.scratch, LINE) * LINE
