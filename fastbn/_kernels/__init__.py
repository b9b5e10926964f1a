"""The compiled kernels: one source, one module per target, one choice at import.

`kernel` is the module in use. FASTBN_TARGET forces one by name.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

from fastbn._kernels import runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    View = tuple[int, int, int]


class Kernel(Protocol):
    """What every target offers; see kernels.pyx."""

    __name__: str

    def workspace(self, view: View, reducing: bool, itemsize: int, arrays: int, threads: int, /) -> int: ...
    def plan(self, view: View, reducing: bool, itemsize: int, arrays: int, threads: int, /) -> dict[str, int]: ...
    def forward(
        self,
        x: NDArray[Any],
        y: NDArray[Any] | None,
        view: View,
        gamma: NDArray[Any] | None,
        beta: NDArray[Any] | None,
        mean: NDArray[Any] | None,
        var: NDArray[Any] | None,
        stats: NDArray[Any] | None,
        work: NDArray[Any],
        eps: float,
        threads: int,
        /,
    ) -> None: ...
    def backward(
        self,
        dy: NDArray[Any],
        x: NDArray[Any],
        dx: NDArray[Any],
        view: View,
        gamma: NDArray[Any] | None,
        stats: NDArray[Any],
        sums: NDArray[Any],
        work: NDArray[Any],
        frozen: bool,
        threads: int,
        /,
    ) -> None: ...
    def add(self, dst: NDArray[Any], a: NDArray[Any], b: NDArray[Any] | None, threads: int, /) -> None: ...
    def copy(self, dst: NDArray[Any], src: NDArray[Any], threads: int, /) -> None: ...


TARGETS = ("avx512", "avx2", "baseline")  # best first
BUILT = tuple(name for name in TARGETS if find_spec(f"{__name__}.{name}"))
FOUND = tuple(name for name in runtime.cpu_targets() if name in BUILT)


def load(name: str) -> Kernel:
    """The module of a target; ImportError for one that is unknown, not built, or not for this CPU."""
    for what, names in (("known", TARGETS), ("built", BUILT), ("supported by this CPU", FOUND)):
        if name not in names:
            raise ImportError(f"FASTBN_TARGET must be one of {', '.join(FOUND)}, got {name!r}, which is not {what}")
    return cast(Kernel, import_module(f"{__name__}.{name}"))


kernel = load(os.environ.get("FASTBN_TARGET") or FOUND[0])
