"""What `python -m fastbn check` proves on this machine: accuracy against the reference, and equal bits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbn import _kernels, _threads, functional, reference
from fastbn._kernels import runtime
from fastbn._progress import progress

Array = NDArray[Any]

THREADS = (1, 2, 3, 7)
OFFSETS = ((0, 0), (1, 3), (6, 0))  # values from the start of a cache line to that of the inputs, of the outputs
MEANS = (1e6, 0.0, 1e2, 1e4)  # of the channels in turn; their standard deviation is 1
CONSTANTS = (0.1, 1e6 + 0.1, -1e30, 0.0, 3.0)  # all values of a channel
SHAPES = (  # and channel axis: both sides of the thresholds in plan.pxi
    ((7, 3), 1),
    ((1003, 3), 1),
    ((515, 17), 1),
    ((40, 513), 1),
    ((70, 2049), 1),
    ((400, 2064), 1),
    ((40000, 16), 1),
    ((9, 33, 3, 1), 1),
    ((10, 8, 5, 51), 1),
    ((10, 8, 16, 16), 1),
    ((16, 512, 7, 7), 1),
    ((70, 2, 40, 40), 1),
    ((3, 2, 200, 350), 1),
    ((2, 1, 800, 800), 1),
    ((16, 64, 33, 33), 1),
    ((5, 17, 17, 1), -1),
    ((6, 9, 9, 300), -1),
    ((8, 32, 33, 128), -1),
)
BOUNDS = {  # what is promised for each dtype of x, and in which unit
    "float32": {
        "mean": (1.0, "ulp of float32"),
        "variance": (1e-7, "relative"),
        "y": (5e-7, "of 1 + |y|"),
        "inference": (5e-7, "of 1 + |y|"),
        "dx": (2e-6, "of max |dx|"),
        "dgamma, dbeta": (2e-6, "of the largest"),
    },
    "float64": {
        "mean": (1e-13, "of 1 + |mean|"),
        "variance": (1e-13, "relative"),
        "y": (1e-13, "of 1 + |y|"),
        "inference": (1e-13, "of 1 + |y|"),
        "dx": (1e-13, "of max |dx|"),
        "dgamma, dbeta": (1e-13, "of the largest"),
    },
}


class Claim(NamedTuple):
    name: str
    worst: float
    unit: str
    bound: float
    where: str  # the worst was found

    @property
    def holds(self) -> bool:
        return self.worst <= self.bound


class Claims:
    """The worst of everything seen, by name."""

    def __init__(self) -> None:
        self.errors: dict[str, Claim] = {}
        self.bits: dict[str, Claim] = {}
        self.compared: Counter[str] = Counter()

    def error(self, name: str, value: float, unit: str, bound: float, where: str) -> None:
        value = math.inf if math.isnan(value) else value
        if name not in self.errors or value > self.errors[name].worst:
            self.errors[name] = Claim(name, value, unit, bound, where)

    def same(self, name: str, same: bool, where: str) -> None:
        """Count what differs; `where` is the first that does."""
        self.compared[name] += 1
        differ, first = (self.bits[name].worst, self.bits[name].where) if name in self.bits else (0, "")
        unit = f"of {self.compared[name]} differ"
        self.bits[name] = Claim(name, differ + (not same), unit, 0, first or ("" if same else where))

    def __iter__(self) -> Iterator[Claim]:
        yield from self.errors.values()
        yield from self.bits.values()


class Case(NamedTuple):
    shape: tuple[int, ...]
    axis: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape} channel_axis={self.axis}"


class Inputs(NamedTuple):
    x: Array
    dy: Array
    gamma: Array
    beta: Array
    axis: int

    @classmethod
    def of(cls, case: Case) -> Inputs:
        rng = np.random.default_rng(1)
        channels = case.shape[case.axis]
        along = [1] * len(case.shape)
        along[case.axis] = channels
        x = rng.standard_normal(case.shape) + np.resize(MEANS, channels).reshape(along)
        dy = rng.standard_normal(case.shape)
        gamma, beta = rng.uniform(0.5, 1.5, channels), rng.standard_normal(channels)
        x, dy, gamma, beta = (a.astype(case.dtype) for a in (x, dy, gamma, beta))
        return cls(x, dy, gamma, beta, case.axis)

    def shifted(self, offset: int) -> Inputs:
        return self._replace(x=shifted(self.x, offset), dy=shifted(self.dy, offset))


class Results(NamedTuple):
    y: Array
    inference: Array
    dx: Array
    dgamma: Array
    dbeta: Array
    mean: Array
    m2: Array


@contextmanager
def kernels(kernel: _kernels.Kernel) -> Iterator[None]:
    """Run on these kernels, and on as many threads as are asked for, however small the array."""
    before = _kernels.kernel, _threads.SERIAL_BELOW, _threads.VALUES_PER_THREAD
    _kernels.kernel, _threads.SERIAL_BELOW, _threads.VALUES_PER_THREAD = kernel, 0, 1
    try:
        yield
    finally:
        _kernels.kernel, _threads.SERIAL_BELOW, _threads.VALUES_PER_THREAD = before


def shifted(a: Array, offset: int) -> Array:
    """A copy of a that starts `offset` values after the start of a cache line."""
    line = 64 // a.itemsize
    room = np.empty(a.size + 2 * line, a.dtype)
    start = -room.ctypes.data // a.itemsize % line + offset
    copy = room[start : start + a.size].reshape(a.shape)
    copy[...] = a
    return copy


def computed(inputs: Inputs, threads: int, offset: int) -> Results:
    """All four functions on the same inputs; arrays that are written start `offset` values into a cache line."""
    x, dy, gamma, beta, axis = inputs
    outs = [shifted(x, offset) for _ in range(3)]
    y, cache = functional.batch_norm(x, gamma, beta, channel_axis=axis, out=outs[0], num_threads=threads)
    dx, dgamma, dbeta = functional.batch_norm_backward(dy, cache, out=outs[1], num_threads=threads)
    moments = functional.moments(x, channel_axis=axis, num_threads=threads)
    inference = functional.batch_norm_inference(
        x, moments.mean, moments.var(), gamma, beta, channel_axis=axis, out=outs[2], num_threads=threads
    )
    assert dgamma is not None and dbeta is not None
    return Results(y, inference, dx, dgamma, dbeta, moments.mean, moments.m2)


def same_bits(a: tuple[Array, ...], b: tuple[Array, ...]) -> bool:
    return all(np.array_equal(u.view(f"u{u.itemsize}"), v.view(f"u{v.itemsize}")) for u, v in zip(a, b, strict=True))


def check_accuracy(claims: Claims, case: Case, inputs: Inputs, found: Results) -> None:
    x, dy, gamma, beta, axis = inputs
    y, cache = reference.batch_norm(x, gamma, beta, channel_axis=axis)
    dx, dgamma, dbeta = reference.batch_norm_backward(dy, cache)
    count, mean, m2 = cache.moments
    inference = reference.batch_norm_inference(x, found.mean, found.m2 / count, gamma, beta, channel_axis=axis)
    assert dgamma is not None and dbeta is not None
    unit_of_mean = np.spacing(np.abs(mean).astype(np.float32)) if case.dtype == "float32" else 1 + np.abs(mean)
    errors = {
        "mean": (found.mean - mean) / unit_of_mean,
        "variance": found.m2 / m2 - 1,
        "y": (found.y - y) / (1 + np.abs(y)),
        "inference": (found.inference - inference) / (1 + np.abs(inference)),
        "dx": (found.dx - dx) / np.abs(dx).max(),
        "dgamma, dbeta": np.concatenate(
            [(found.dgamma - dgamma) / np.abs(dgamma).max(), (found.dbeta - dbeta) / np.abs(dbeta).max()]
        ),
    }
    for name, error in errors.items():
        bound, unit = BOUNDS[case.dtype][name]
        claims.error(f"{case.dtype} {name}", float(np.abs(error).max()), unit, bound, str(case))


def check_constants(claims: Claims, dtype: str) -> None:
    """A channel of equal values gives beta."""
    for shape in ((600, len(CONSTANTS)), (6, len(CONSTANTS), 10, 30)):
        along = (-1,) + (1,) * (len(shape) - 2)
        x, expected = np.empty(shape, dtype), np.empty(shape, dtype)
        x[...] = np.array(CONSTANTS, dtype).reshape(along)
        beta = np.linspace(-1, 1, len(CONSTANTS)).astype(dtype)
        expected[...] = beta.reshape(along)
        y, _ = functional.batch_norm(x, np.full_like(beta, 3), beta)
        claims.same("a constant channel gives beta", same_bits((y,), (expected,)), f"{dtype} {shape}")


def check_bits(claims: Claims, case: Case, inputs: Inputs, first: Results) -> None:
    placed = [inputs.shifted(start) for start, _ in OFFSETS]
    counts = THREADS if runtime.openmp_version() else (1,)
    on_targets = f"same bits on {', '.join(_kernels.FOUND)}"
    on_threads = f"same bits on {', '.join(map(str, counts))} threads" if len(counts) > 1 else "same bits on 1 thread"
    claims.same("same bits run to run", same_bits(computed(inputs, 1, 0), first), str(case))
    for target in _kernels.FOUND:
        with kernels(_kernels.load(target)):
            serial = computed(placed[0], 1, 0)
            claims.same(on_targets, same_bits(serial, first), f"{case} {target}")
            for threads in counts:
                where = f"{case} {target} threads={threads}"
                aligned = computed(placed[0], threads, 0)
                claims.same(on_threads, same_bits(aligned, serial), where)
                for moved, (_, start) in zip(placed[1:], OFFSETS[1:], strict=True):
                    found = computed(moved, threads, start)
                    claims.same("same bits at any alignment", same_bits(found, aligned), where)


def selfcheck() -> list[Claim]:
    """Every claim with the worst that was found."""
    claims = Claims()
    cases = [Case(shape, axis, dtype) for dtype in BOUNDS for shape, axis in SHAPES]
    for case in progress(cases, str):
        inputs = Inputs.of(case)
        first = computed(inputs, 1, 0)
        check_accuracy(claims, case, inputs, first)
        check_bits(claims, case, inputs, first)
    for dtype in BOUNDS:
        check_constants(claims, dtype)
    return list(claims)
