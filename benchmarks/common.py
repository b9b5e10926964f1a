"""The batches of the suite: the arrays and calls that `python -m fastbn bench` times, every page written."""

import os

from fastbn._bench import Batch, Case

SHAPES = {"NC": (4096, 512), "NCHW": (32, 64, 56, 56), "NHWC": (32, 56, 56, 64)}
SMALL = {"NC": (32, 64), "NCHW": (8, 16, 8, 8), "NHWC": (8, 8, 8, 16)}
LAYOUTS = list(SHAPES)
DTYPES = ["float32", "float64"]
THREADS = [1, 2]


class Passes:
    """Base of what is measured for each layout and dtype, and for fastbn for each number of threads."""

    shapes = SHAPES
    params = (LAYOUTS, DTYPES, THREADS)
    param_names = ("layout", "dtype", "threads")

    def setup(self, layout, dtype, threads=1):
        if threads > os.cpu_count():
            raise NotImplementedError(f"{threads} threads on {os.cpu_count()} cores")
        self.batch = Batch(Case(layout, self.shapes[layout]), dtype, threads)
        self.plain = self.batch.plain


class SerialPasses(Passes):
    """The same on one thread only."""

    params = (LAYOUTS, DTYPES)
    param_names = ("layout", "dtype")
