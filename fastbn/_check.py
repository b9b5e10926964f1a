"""Every check of an argument and every error text.

A check returns the argument in the form that the rest of the package works with, or raises: TypeError for the wrong
kind or dtype, ValueError for the wrong value, with the name, what was expected and what came.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from fastbn._kernels import runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
FLOATS = (FLOAT32, FLOAT64)
MAX_THREADS = 1024


# Arrays


def array(value: Any, name: str) -> NDArray[Any]:
    """An array of float32 or float64, of any layout and byte order."""
    if type(value) is not np.ndarray:
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"{name} must be an array without a mask, got a masked array; fill it first")
        value = np.asarray(value)
    array: NDArray[Any] = value
    if array.dtype not in FLOATS and array.dtype.newbyteorder("=") not in FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    return array


def axis(channel_axis: Any, shape: tuple[int, ...]) -> int:
    """The channel axis, counted from the front."""
    if len(shape) < 2:
        raise ValueError(f"x must have at least 2 dimensions, (N, C), got shape {shape}")
    position = integer(channel_axis, "channel_axis")
    if not -len(shape) <= position < len(shape):
        raise ValueError(
            f"channel_axis must be from {-len(shape)} to {len(shape) - 1} for x of shape {shape}, got {position}"
        )
    return position % len(shape)


def required_vector(value: Any, name: str, channels: int) -> NDArray[Any]:
    """One value per channel, float32 or float64, contiguous and native."""
    v = array(value, name)
    if v.shape != (channels,):
        raise ValueError(f"{name} must have shape ({channels},), got {v.shape}")
    flags = v.flags
    if flags.c_contiguous and flags.aligned and v.dtype.isnative:
        return v
    return np.array(v, dtype=v.dtype.newbyteorder("="))


def vector(value: Any, name: str, channels: int) -> NDArray[Any] | None:
    return None if value is None else required_vector(value, name, channels)


def channel_vector(value: Any, name: str, channels: int) -> NDArray[np.float64]:
    """One value per channel of a checkpoint, any real dtype, as a new float64 array."""
    v = np.asarray(value)
    if v.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be an array of real numbers, got {v.dtype}")
    if v.shape != (channels,):
        raise ValueError(f"{name} must have shape ({channels},), got {v.shape}")
    return v.astype(np.float64)


def trainable(shape: tuple[int, ...], view: tuple[int, int, int]) -> None:
    if view[0] * view[2] < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {shape}")


def gradient(dy: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    g = array(dy, "dy")
    if g.shape != shape:
        raise ValueError(f"dy must have the shape of x, {shape}, got {g.shape}")
    if g.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"dy must have the dtype of x, {dtype}, got {g.dtype}")
    return g


def out(
    target: Any,
    like: NDArray[Any],
    name: str,
    others: tuple[NDArray[Any] | None, ...] = (),
    names: tuple[str, ...] = (),
    also: NDArray[Any] | None = None,
) -> bool:
    """Whether `target` is `like`, or `also` (which is x), element for element.

    Refused where it does not fit, covers a part of them, or overlaps one of the `others`.
    """
    if target is None:
        return False
    if type(target) is not np.ndarray and (
        not isinstance(target, np.ndarray) or isinstance(target, np.ma.MaskedArray)
    ):
        raise TypeError(f"out must be an ndarray, got {type(target).__name__}")
    if target.shape != like.shape:
        raise ValueError(f"out must have the shape of {name}, {like.shape}, got {target.shape}")
    if target.dtype is not like.dtype and target.dtype != like.dtype.newbyteorder("="):
        raise TypeError(f"out must have dtype {like.dtype.newbyteorder('=')}, got {target.dtype}")
    if not target.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    strides = target.strides
    if 0 in strides and target.size and any(s == 0 and n > 1 for s, n in zip(strides, target.shape, strict=True)):
        raise ValueError(f"out must not repeat memory, got strides {strides}")
    if runtime.apart(target, (like, also, *others)):
        return False
    for other, values in zip(names, others, strict=True):
        if values is not None and _overlap(target, values):
            raise ValueError(f"out must not overlap {other}")
    in_place = False
    for other, values in ((name, like), ("x", also)):
        if values is None or not _overlap(target, values):
            continue
        if not same_memory(target, values):
            raise ValueError(f"out must be {other} itself or not overlap it, got a part of its memory")
        in_place = True
    return in_place


def same_memory(a: Any, b: NDArray[Any]) -> bool:
    """Whether element i of a is element i of b."""
    if a is b:
        return True
    steps = zip(a.strides, b.strides, a.shape, strict=True)
    return (
        a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        and a.dtype == b.dtype
        and all(s == t or n == 1 for s, t, n in steps)
    )


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a is b or (np.may_share_memory(a, b) and np.shares_memory(a, b))


# Numbers


def integer(value: Any, name: str) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


def positive_int(value: Any, name: str) -> int:
    n = integer(value, name)
    if n < 1:
        raise ValueError(f"{name} must be at least 1, got {n}")
    return n


def whole_number(value: Any, name: str) -> int:
    """An integer from 0 on; a float or a 0-d array that holds one will do."""
    n = real(value, name)
    if not (n >= 0 and n.is_integer()):
        raise ValueError(f"{name} must be a whole number from 0 on, got {value}")
    return int(n)


def real(value: Any, name: str) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from None


def eps(value: Any) -> float:
    number = value if type(value) is float else real(value, "eps")
    if not 0.0 <= number < math.inf:
        raise ValueError(f"eps must be finite and not negative, got {value}")
    return number


def momentum(value: Any) -> float | None:
    if value is None:
        return None
    number = real(value, "momentum")
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"momentum must be from 0 to 1, or None, got {value}")
    return number


def threads(value: Any, name: str) -> int:
    n = positive_int(value, name)
    if n > MAX_THREADS:
        raise ValueError(f"{name} must be at most {MAX_THREADS}, got {n}")
    return n


def threads_variable(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"FASTBN_NUM_THREADS must be an integer, got {text!r}") from None
    return threads(value, "FASTBN_NUM_THREADS")


def float_dtype(value: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(value)
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    return dtype


def mode(value: Any) -> str:
    if value not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {value!r}")
    return str(value)


# Statistics and state


def moments_fields(count: Any, mean: Any, m2: Any) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    n = whole_number(count, "count")
    shape = np.shape(mean)
    if len(shape) != 1:
        raise ValueError(f"mean must have shape (C,), got {shape}")
    return n, channel_vector(mean, "mean", shape[0]), channel_vector(m2, "m2", shape[0])


def moments_match(value: Any, kind: type, channels: int) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"moments must be a Moments, got {type(value).__name__}")
    if len(value.mean) != channels:  # type: ignore[attr-defined]
        raise ValueError(f"moments must have {channels} channels, got {len(value.mean)}")  # type: ignore[attr-defined]


def constants(value: Any, kind: type, channels: int) -> None:
    """Moments to normalize with."""
    moments_match(value, kind, channels)
    if value.count < 1:
        raise ValueError(f"moments must have a count of at least 1, got {value.count}")


def ddof(value: Any, count: int) -> None:
    if not count > real(value, "ddof"):
        raise ValueError(f"ddof must be less than the count, {count}, got {value}")


def count_for_bessel(count: int) -> None:
    if count < 2:
        raise ValueError(f"an unbiased variance needs moments of at least 2 values per channel, got count {count}")


def layer_channels(x: Any, channel_axis: int, channels: int) -> None:
    shape = np.shape(x)
    if shape[axis(channel_axis, shape)] != channels:
        raise ValueError(f"x must have {channels} channels at axis {channel_axis}, got shape {shape}")


def state_keys(state: Any, expected: tuple[str, ...]) -> None:
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(state).__name__}")
    if set(state) != set(expected):
        raise ValueError(f"state must have the keys {', '.join(expected)}, got {', '.join(map(str, state))}")


def cache(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"cache must be the Cache that batch_norm returned, got {type(value).__name__}")
    if value._overwritten:  # type: ignore[attr-defined]
        raise RuntimeError("backward needs x, but out=x overwrote it; call batch_norm with another out")


def no_cache() -> RuntimeError:
    return RuntimeError("backward needs a forward call before it")
