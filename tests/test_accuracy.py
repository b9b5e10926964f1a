"""Accuracy does not depend on the data: mean/std up to 1e6, bad pilots, pixels, extreme scales, constants."""

import numpy as np
import pytest
from tolerances import assert_y, tolerance

import fastbn

KAPPAS = [0, 1, 1e2, 1e4, 1e6]
COUNTS = [2, 3, 1000, 1_000_000]


def exact(x):
    """Mean, sum of squared deviations and standardized values of one channel, in extended precision."""
    wide = x.astype(np.longdouble)
    mean = wide.mean()
    centred = wide - mean
    centred -= centred.mean()
    m2 = (centred**2).sum()
    return wide.mean() + (wide - wide.mean()).mean(), m2, centred


def layouts(column):
    """The values of one channel as channels last, as a matrix beside other channels, and as long runs."""
    n = column.size
    yield column.reshape(n, 1), 1, 0
    beside = np.stack([column, np.roll(column, 1), column], axis=1)
    yield beside, 1, 0
    rows = 2 if n % 2 == 0 else 1
    yield np.stack([column.reshape(rows, n // rows)] * 2, axis=1), 1, 1


def assert_channel(x, axis, channel, dtype):
    y, cache = fastbn.batch_norm(x, channel_axis=axis, eps=0)
    column = np.take(x, channel, axis=axis).ravel()
    mean, m2, centred = exact(column)
    got = cache.moments
    std = np.sqrt(m2 / column.size)
    if dtype is np.float32:
        assert abs(got.mean[channel] - mean) <= np.spacing(np.float32(abs(mean)))
    else:
        assert abs(got.mean[channel] - mean) <= tolerance("mean", dtype) * (abs(mean) + std)
    assert abs(got.m2[channel] - m2) <= tolerance("var", dtype) * m2
    assert_y(np.take(y, channel, axis=axis).ravel(), (centred / std).astype(np.float64), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_any_mean_to_std(rng, kappa, n, dtype):
    column = (rng.standard_normal(n) + kappa).astype(dtype)
    column[:2] += dtype(1), dtype(0)  # two different values, even where float32 is coarse
    for x, axis, channel in layouts(column):
        assert_channel(x, axis, channel, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kappa", [0, 1e4])
@pytest.mark.parametrize("n", [1000, 1_000_000])
def test_a_pilot_twenty_std_away(rng, kappa, n, dtype):
    """The first hundredth of the values, which shifts are taken from, are far outliers."""
    column = rng.standard_normal(n) + kappa
    column[: n // 100] += 20
    for x, axis, channel in layouts(column.astype(dtype)):
        assert_channel(x, axis, channel, dtype)


@pytest.mark.parametrize("n", [1000, 1_000_000])
def test_pixels(rng, n):
    """Values on a lattice, whose float32 squares would be biased."""
    for x, axis, channel in layouts(rng.integers(0, 256, n).astype(np.float32)):
        assert_channel(x, axis, channel, np.float32)


@pytest.mark.parametrize(("scale", "dtype"), [(1e30, np.float32), (1e-15, np.float32), (1e150, np.float64)])
def test_extreme_scales(rng, scale, dtype):
    for x, axis, channel in layouts(((rng.standard_normal(2000) + 3) * scale).astype(dtype)):
        assert_channel(x, axis, channel, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 1000, 200_000])
@pytest.mark.parametrize("value", [0.1, -7.3, 1e6 / 3, 1e30])
def test_a_constant_channel_is_beta_to_the_bit(target, value, n, dtype):
    for x, axis, _ in layouts(np.full(n, value, dtype)):
        beta = np.linspace(-1, 1, x.shape[axis]).astype(dtype)
        y, cache = fastbn.batch_norm(x, np.full_like(beta, 1.3), beta, channel_axis=axis)
        assert (cache.moments.m2 == 0).all()
        assert (cache.moments.mean == dtype(value)).all()
        assert (np.moveaxis(y, axis, -1) == beta).all()


def test_merged_moments_are_those_of_the_whole(rng):
    x = rng.standard_normal((17, 5, 40)) + 1e3
    whole = fastbn.moments(x)
    parts = [fastbn.moments(part) for part in (x[:1], x[1:6], x[6:6], x[6:])]
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-15)
    np.testing.assert_allclose(merged.m2, whole.m2, rtol=1e-12)
