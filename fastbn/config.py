"""What runs, and on how many threads."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastbn import _check, _kernels, _threads
from fastbn._kernels import runtime
from fastbn._version import __version__


def target() -> str:
    """Name of the kernels in use: "avx512", "avx2" or "baseline". FASTBN_TARGET forces one before import.

    Examples
    --------
    >>> import fastbn
    >>> fastbn.target() in ("avx512", "avx2", "baseline")
    True
    """
    return _kernels.kernel.__name__.rpartition(".")[2]


def get_num_threads() -> int:
    """How many threads a large call uses if it does not say.

    The first of these that is set: ``with num_threads(n)``, ``set_num_threads(n)``, the variable FASTBN_NUM_THREADS,
    each taken as given; else what OpenMP allows (OMP_NUM_THREADS, threadpoolctl), but, where OMP_NUM_THREADS is not
    set, no more than the cores of the affinity mask and of a container's quota. One in a serial build, and in a
    child forked after threads were in use. Small calls use one thread whatever is set.

    Examples
    --------
    >>> import fastbn
    >>> with fastbn.num_threads(1):
    ...     fastbn.get_num_threads()
    1
    """
    return _threads.default()


def set_num_threads(n: int | None) -> None:
    """Set the number of threads for calls that do not say; None returns to the default.

    Parameters
    ----------
    n : int or None
        From 1 to 1024. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        For anything else.

    Examples
    --------
    >>> import fastbn
    >>> fastbn.set_num_threads(1)
    >>> fastbn.get_num_threads()
    1
    >>> fastbn.set_num_threads(None)
    """
    _threads.set_default(None if n is None else _check.threads(n, "n"))


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set the number of threads inside a ``with`` block, for this thread or task of asyncio alone.

    Parameters
    ----------
    n : int
        From 1 to 1024.

    Examples
    --------
    >>> import numpy as np, fastbn
    >>> with fastbn.num_threads(1):
    ...     m = fastbn.moments(np.ones((4, 2)))
    """
    token = _threads.in_context.set(_check.threads(n, "n"))
    try:
        yield
    finally:
        _threads.in_context.reset(token)


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print versions, targets and threads, or return them.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dictionary of dictionaries.

    Returns
    -------
    dict or None
        With ``mode="dicts"``.

    Examples
    --------
    >>> import fastbn
    >>> fastbn.show_config(mode="dicts")["targets"]["used"] == fastbn.target()
    True
    """
    openmp = runtime.openmp_version()
    variables = ("FASTBN_TARGET", "FASTBN_NUM_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    found: dict[str, Any] = {
        "versions": {"fastbn": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "machine": {"platform": sys.platform, "architecture": platform.machine()},
        "targets": {"used": target(), "found": list(_kernels.FOUND), "built": list(_kernels.BUILT)},
        "threads": {
            "default": get_num_threads(),
            "openmp": openmp or "not built in",
            "openmp maximum": runtime.openmp_max_threads(),
            "affinity": _threads.affinity(),
            "quota": _threads.quota() if _threads.quota() < 1 << 20 else "none",
        },
        "environment": {name: os.environ[name] for name in variables if name in os.environ},
    }
    if _check.mode(mode) == "dicts":
        return found
    for section, values in found.items():
        print(section)
        for name, value in values.items():
            print(f"  {name:15} {', '.join(value) if isinstance(value, list) else value}")
    return None
