"""What `python -m fastbn bench` times: fastbn, NumPy and a streaming copy of the same arrays, in turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from fastbn import _kernels, _threads
from fastbn._plain import Plain
from fastbn._progress import progress
from fastbn.functional import batch_norm, batch_norm_backward, batch_norm_inference, moments

SECONDS_QUICK, SECONDS_FULL = 1.5, 3.0  # of timing for one case
BURST = 0.005  # seconds that one call is repeated for before it is the next one's turn
LAYOUTS = {"NC": 1, "NCHW": 1, "NHWC": -1}  # and their channel axis


class Case(NamedTuple):
    layout: str
    shape: tuple[int, ...]


QUICK = (
    Case("NCHW", (32, 64, 56, 56)),
    Case("NCHW", (32, 256, 14, 14)),
    Case("NCHW", (32, 2048, 7, 7)),
    Case("NHWC", (32, 56, 56, 64)),
    Case("NC", (4096, 1024)),
)
FULL = (  # feature maps of ResNet-50 at batch 32, then the hidden layers of multilayer perceptrons
    Case("NCHW", (32, 64, 112, 112)),
    Case("NCHW", (32, 64, 56, 56)),
    Case("NCHW", (32, 256, 56, 56)),
    Case("NCHW", (32, 128, 28, 28)),
    Case("NCHW", (32, 512, 28, 28)),
    Case("NCHW", (32, 256, 14, 14)),
    Case("NCHW", (32, 1024, 14, 14)),
    Case("NCHW", (32, 512, 7, 7)),
    Case("NCHW", (32, 2048, 7, 7)),
    Case("NHWC", (32, 112, 112, 64)),
    Case("NHWC", (32, 56, 56, 256)),
    Case("NHWC", (32, 14, 14, 1024)),
    Case("NHWC", (32, 7, 7, 2048)),
    Case("NC", (4096, 1024)),
    Case("NC", (256, 1024)),
    Case("NC", (32, 64)),
)


class Batch:
    """The arrays of one case, every page of them written, and the calls on them."""

    def __init__(self, case: Case, dtype: Any = np.float32, threads: int | None = None) -> None:
        rng = np.random.default_rng(0)
        self.axis = LAYOUTS[case.layout]
        self.x, self.dy = (np.empty(case.shape, dtype) for _ in range(2))
        self.x[...] = rng.standard_normal(case.shape, dtype=np.float32)
        self.dy[...] = rng.standard_normal(case.shape, dtype=np.float32)
        channels = case.shape[self.axis]
        self.out = np.zeros_like(self.x)
        self.gamma, self.var = (rng.uniform(0.5, 1.5, channels).astype(dtype) for _ in range(2))
        self.beta, self.mean = (rng.standard_normal(channels).astype(dtype) for _ in range(2))
        self.threads = _threads.resolve(threads, self.x.size)
        self.plain = Plain(self.x, self.dy, self.gamma, self.beta, self.out, self.axis)
        self.plain.forward()
        self.forward()

    def forward(self) -> None:
        _, self.cache = batch_norm(
            self.x, self.gamma, self.beta, channel_axis=self.axis, out=self.out, num_threads=self.threads
        )

    def backward(self) -> None:
        batch_norm_backward(self.dy, self.cache, out=self.out, num_threads=self.threads)

    def inference(self) -> None:
        batch_norm_inference(
            self.x, self.mean, self.var, self.gamma, self.beta,
            channel_axis=self.axis, out=self.out, num_threads=self.threads,
        )  # fmt: skip

    def moments(self) -> None:
        moments(self.x, channel_axis=self.axis, num_threads=self.threads)

    def plain_inference(self) -> None:
        self.plain.inference(self.mean, self.var)

    def copy(self) -> None:
        """out = x: what forward and inference read and write, once."""
        _kernels.kernel.copy(self.out, self.x, self.threads)

    def add(self) -> None:
        """out = x + dy: what backward reads and writes, once."""
        _kernels.kernel.add(self.out, self.x, self.dy, self.threads)


def best(calls: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """The shortest time of each call. Calls take turns, so that what disturbs the machine disturbs all of them."""
    shortest = [math.inf] * len(calls)
    end, rounds = perf_counter() + seconds, 0
    while rounds < 3 or perf_counter() < end:
        for i, call in enumerate(calls):
            begin = perf_counter()
            burst = begin + BURST
            while begin < burst:
                call()
                now = perf_counter()
                shortest[i] = min(shortest[i], now - begin)
                begin = now
        rounds += 1
    return shortest


def bench(cases: Sequence[Case], threads: int | None, seconds: float) -> Iterator[dict[str, Any]]:
    """One record for each pass over each case, after `seconds` of timing it."""
    for case in progress(cases, lambda case: f"{case.layout} {case.shape}"):
        batch = Batch(case, np.float32, threads)
        passes: dict[str, tuple[Callable[[], object], ...]] = {
            "forward": (batch.forward, batch.plain.forward, batch.copy),
            "backward": (batch.backward, batch.plain.backward, batch.add),
            "inference": (batch.inference, batch.plain_inference, batch.copy),
        }
        times = iter(best([call for calls in passes.values() for call in calls], seconds))
        for name in passes:
            ours, numpys, streaming = next(times), next(times), next(times)
            yield {
                "layout": case.layout,
                "shape": list(case.shape),
                "dtype": "float32",
                "threads": batch.threads,
                "pass": name,
                "ms": ours * 1e3,
                "numpy_ms": numpys * 1e3,
                "copy_ms": streaming * 1e3,
                "numpy_ratio": numpys / ours,
                "copy_fraction": streaming / ours,
            }
