"""How many threads a call uses: setting, OpenMP's maximum, affinity, cgroup quota, fork -> one positive integer."""

from __future__ import annotations

import math
import os
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from fastbn import _check
from fastbn._kernels import runtime

SERIAL_BELOW = 65536  # values of x; waking threads costs more than they save
VALUES_PER_THREAD = 32768

in_context: ContextVar[int | None] = ContextVar("fastbn_num_threads", default=None)
_setting: int | None = None
if os.environ.get("FASTBN_NUM_THREADS"):
    _setting = _check.threads_variable(os.environ["FASTBN_NUM_THREADS"])


def set_default(n: int | None) -> None:
    global _setting
    _setting = n


def default() -> int:
    """The count of a call that names none."""
    n = in_context.get() or _setting
    if n is None:
        n = runtime.openmp_max_threads()
        if "OMP_NUM_THREADS" not in os.environ:
            n = min(n, affinity(), quota())
    return runtime.allowed(n)


def resolve(num_threads: int | None, size: int) -> int:
    """The count for a call over `size` values."""
    if num_threads is not None:
        num_threads = _check.threads(num_threads, "num_threads")
    if size < SERIAL_BELOW:
        return 1
    n = default() if num_threads is None else num_threads
    return runtime.team(min(n, size // VALUES_PER_THREAD + 1))


def affinity() -> int:
    """Cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


@cache
def quota() -> int:
    """Cores that the cgroup of a container grants, rounded up; more than any machine has where none is set."""
    for paths in (
        ("/sys/fs/cgroup/cpu.max",),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            allowed, period = " ".join(Path(path).read_text() for path in paths).split()
        except (OSError, ValueError):
            continue
        if allowed not in ("max", "-1"):
            return max(1, math.ceil(int(allowed) / int(period)))
    return 1 << 20
