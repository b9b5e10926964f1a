"""Every tolerance of the numeric tests, with its reason. u32 = 6e-8 and u64 = 1.1e-16 are half an ulp of 1."""

import numpy as np

TOLERANCE = {
    # y: relative to 1 + |y|. float32: x - hi, - lo, scale, product and sum each round once, 5 u32, worst where
    # beta cancels; float64: rounding of a mean and variance over up to 1e6 values on top.
    ("y", np.float32): 5e-7,
    ("y", np.float64): 1e-13,
    # mean, in ulps of its rounding to float32 (or relative to mean + std in float64): the sums are float64 and
    # shifted by a value of the channel.
    ("mean", np.float32): 1.0,
    ("mean", np.float64): 1e-14,
    # variance, relative. float64 sums of squares shifted by a value at most sqrt(n) std away.
    ("var", np.float32): 1e-7,
    ("var", np.float64): 1e-13,
    # dx, dgamma, dbeta: relative to the largest of the vector. float32: (x - mean) and the map round in float32.
    ("grad", np.float32): 2e-6,
    ("grad", np.float64): 1e-13,
}


def tolerance(quantity, dtype):
    return TOLERANCE[quantity, np.dtype(dtype).type]


def assert_y(got, want, dtype):
    assert got.dtype == dtype
    assert got.shape == want.shape
    error = np.abs(got - want) / (1 + np.abs(want))
    assert error.max(initial=0) <= tolerance("y", dtype)


def assert_grad(got, want, dtype, scale=None):
    """`scale`: the size that the error is relative to; by default the largest value wanted."""
    assert got.shape == want.shape
    scale = np.abs(want).max(initial=1e-300) if scale is None else scale
    assert np.abs(got - want).max(initial=0) <= tolerance("grad", dtype) * scale


def assert_same_bits(a, b):
    """Equal as integers: +0 is not -0, and NaN equals itself."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
