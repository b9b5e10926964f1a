"""Same input, same bits: for any number of threads, on any target, at any alignment, run to run."""

import numpy as np
import pytest
import shapes
from tolerances import assert_same_bits

import fastbn
from fastbn import _kernels

SHAPES = shapes.ALL
THREADS = [1, 2, 3, 7]


def shifted(a, values):
    """A copy of a that begins `values` elements past a cache line."""
    room = np.empty(a.size + 64, a.dtype)
    start = (-room.ctypes.data % 64) // a.itemsize + values
    copy = room[start : start + a.size].reshape(a.shape)
    copy[...] = a
    return copy


def everything(x, dy, gamma, beta, axis, threads, shift=0):
    """All results of all functions, into arrays that begin `shift` elements past a cache line."""
    options = {"channel_axis": axis, "num_threads": threads}
    x, dy = shifted(x, shift), shifted(dy, 2 * shift)
    y, cache = fastbn.batch_norm(x, gamma, beta, out=shifted(x, 3 * shift), **options)
    gradients = fastbn.batch_norm_backward(dy, cache, out=shifted(dy, shift), num_threads=threads)
    moments = fastbn.moments(x, **options)
    z = fastbn.batch_norm_inference(x, cache.mean, moments.var(), gamma, beta, out=shifted(x, shift), **options)
    return y, cache.mean, cache.invstd, *gradients, moments.mean, moments.m2, z


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES.values(), ids=SHAPES.keys())
def test_threads_targets_and_alignment_change_no_bit(rng, monkeypatch, always_parallel, shape, axis, dtype):
    x = (rng.standard_normal(shape) * 3 + 100).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    gamma, beta = rng.uniform(0.5, 1.5, shape[axis]), rng.standard_normal(shape[axis])
    want = everything(x, dy, gamma, beta, axis, 1)
    for target in _kernels.FOUND:
        monkeypatch.setattr(_kernels, "kernel", _kernels.load(target))
        for threads in THREADS:
            for shift in (0, 1, 5):
                got = everything(x, dy, gamma, beta, axis, threads, shift)
                for a, b in zip(got, want, strict=True):
                    assert_same_bits(a, b)


def test_sixteen_threads_on_any_machine(rng, always_parallel):
    for shape, axis in [((64, 70, 9, 9), 1), ((3, 2, 140001), 1), ((5200, 203), 1)]:
        x = rng.standard_normal(shape).astype(np.float32)
        dy = rng.standard_normal(shape).astype(np.float32)
        want = everything(x, dy, None, None, axis, 1)
        for a, b in zip(everything(x, dy, None, None, axis, 16), want, strict=True):
            assert (a is None and b is None) or np.array_equal(a, b)


def test_every_path_is_in_the_grid():
    """The shapes take both kinds of arithmetic, both traversals, and every way to cut."""
    plans = []
    for shape, axis in SHAPES.values():
        axis %= len(shape)
        view = int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :]))
        for threads in THREADS:
            plans.append(_kernels.kernel.plan(view, True, 4, 2, threads))
    taken = {(p["by_rows"], p["slab"]) for p in plans}
    assert taken == {(by_rows, slab) for by_rows in (0, 1) for slab in (0, 1)}
    for condition in (
        lambda p: p["by_rows"] and p["segments"] > 1,
        lambda p: p["by_rows"] and p["segments"] == 1 and p["blocks"] > 1,
        lambda p: p["by_rows"] and p["slab"] and p["group"] > 1,
        lambda p: not p["by_rows"] and p["tile"] > 1 and p["leftover"] > 0 and p["blocks"] > 1,
        lambda p: not p["by_rows"] and p["tile"] == 1 and p["blocks"] > 1,
        lambda p: not p["by_rows"] and p["tile"] == 1 and p["groups"] > 1,
        lambda p: not p["slab"] and p["chunk"] > 1,
        lambda p: p["slab"] and p["chunk"] > 1,
    ):
        assert any(condition(p) for p in plans)
