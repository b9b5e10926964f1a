"""Any array and its channel axis as the view (outer, channels, inner) of dense memory.

The only file that knows which axis is which. (N, C, H, W) is (N, C, H*W); (N, H, W, C), and the (N, C, H, W) view of
such memory, are (N*H*W, C, 1).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbn import _check

View = tuple[int, int, int]


def place(x: NDArray[Any], channel_axis: int) -> tuple[NDArray[Any], View]:
    """x, or one dense copy of it, and its view. Copied: x with gaps, repeats or reversed axes, unaligned or
    byte-swapped."""
    axis = _check.axis(channel_axis, x.shape)
    flags = x.flags
    if not (flags.aligned and x.dtype.isnative):
        x = np.array(x, dtype=x.dtype.newbyteorder("="), order="K")
        flags = x.flags
    if flags.c_contiguous:
        return x, split(x.shape, axis)
    order = memory_order(x)
    if not x.transpose(order).flags.c_contiguous:
        x = np.array(x, order="K")
        order = memory_order(x)
    return x, split([x.shape[i] for i in order], order.index(axis))


def memory_order(x: NDArray[Any]) -> list[int]:
    """Axes from the slowest in memory to the fastest. Where an axis of length 1 comes does not matter."""
    return sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))


def split(shape: Any, axis: int) -> View:
    if len(shape) == 2:
        return (shape[0], shape[1], 1) if axis == 1 else (1, shape[0], shape[1])
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def same_order(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether a can stand beside b, which is dense, in a kernel: same dtype and strides, aligned, native."""
    if a.strides == b.strides or all(s == t or n < 2 for s, t, n in zip(a.strides, b.strides, a.shape, strict=True)):
        return a.flags.aligned and a.dtype == b.dtype
    return False


def beside(a: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """a, or a copy of it in the memory order of `like`."""
    if same_order(a, like):
        return a
    copy = np.empty_like(like)
    copy[...] = a
    return copy


def target(out: NDArray[Any] | None, like: NDArray[Any]) -> NDArray[Any]:
    """The array that a kernel writes: out itself where it has the memory order of `like`, else a new one."""
    if out is None:
        return np.empty_like(like)
    return out if out is like or same_order(out, like) else np.empty_like(like)
