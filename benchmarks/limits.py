"""How fast the machine moves a batch: what no batch normalization can be faster than, unless a cache holds the batch.

The copy and the sum of two arrays are the yardsticks of the kernels: vectors, and streaming stores for results that
no cache holds.
"""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np

try:
    import numba

    from benchmarks.numba_kernels import compiled, read
except ImportError:
    numba = None

READ_WITH = "a Numba sum over all threads" if numba else "np.add.reduce on a chunk per thread"


class Limits:
    """The sweeps over one batch; `of(name, last)` says which of them a pass cannot do without."""

    def __init__(self, batch):
        self.x, self.dy, threads = batch.x.reshape(-1), batch.dy.reshape(-1), batch.threads
        self.calls = {"copy": batch.copy, "add": batch.add, "read": self.read, "read two": self.read_two}
        if numba:
            self.sum = compiled(read, threads > 1)
        elif threads > 1:
            pool = ThreadPoolExecutor(threads)
            self.sum = lambda a: list(pool.map(np.add.reduce, np.array_split(a, threads)))
        else:
            self.sum = np.add.reduce

    def read(self):
        self.sum(self.x)

    def read_two(self):
        self.sum(self.x)
        self.sum(self.dy)

    @staticmethod
    def of(name, last):
        """Channels first, a channel stays in cache between its two sweeps; channels last, the batch does not."""
        write = "add" if name == "backward" else "copy"
        if name == "inference" or not last:
            return (write,)
        return ("read two" if name == "backward" else "read", write)


class Watch:
    """How busy other programs have kept the cores since it was made; on Linux, elsewhere it takes them for idle."""

    def __init__(self):
        self.begin, self.all, self.own = perf_counter(), self.busy(), sum(os.times()[:2])

    def seconds(self):
        return perf_counter() - self.begin

    def others(self):
        """In cores, and in cores that a hypervisor gave to others."""
        return (self.busy() - self.all - sum(os.times()[:2]) + self.own) / self.seconds() if self.all else 0.0

    @staticmethod
    def busy():
        try:
            ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except OSError:
            return 0.0
        user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def machine():
    """Processor, cores and caches, as far as the system says."""
    try:
        name = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                    if line.startswith("model name"))  # fmt: skip
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    caches = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / file).read_text().strip() for file in ("level", "type", "size"))
        if level != "1" and kind != "Instruction":
            caches[f"L{level}"] = int(size.rstrip("KM")) << (10 if size.endswith("K") else 20)
    return {"processor": name, "cores": cores, "caches": caches}


def keep_freed_memory(size):
    """Have malloc keep `size` bytes in huge pages and hand them out again; whether it could be arranged (glibc only).

    A peer that returns a new array from every call then pays for the call, and not for the page faults of a fresh
    array, which would double its time and more.
    """
    import ctypes
    import mmap

    trim_threshold, mmap_max, huge = -1, -4, 1 << 21  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h; bytes of a page
    try:
        libc = ctypes.CDLL(None)
        mallopt, madvise, malloc, free = libc.mallopt, libc.madvise, libc.malloc, libc.free
    except (AttributeError, OSError, TypeError):
        return False
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    free.argtypes = [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if not (mallopt(mmap_max, 0) and mallopt(trim_threshold, -1)):
        return False
    block = malloc(size)
    if not block:
        return False
    begin = -(-block // huge) * huge
    if hasattr(mmap, "MADV_HUGEPAGE"):
        madvise(begin, block + size - begin, mmap.MADV_HUGEPAGE)
    free(block)
    return True
