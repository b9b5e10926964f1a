"""NaN, infinity, no variance, no values, one value, the largest and the smallest: what each of them does."""

import numpy as np
import pytest
from tolerances import assert_grad, assert_same_bits, assert_y, tolerance

import fastbn
from fastbn import reference

LAYOUTS = {
    "runs": ((4, 5, 300), 1),
    "columns": ((6, 5, 3, 7), 1),
    "channels last": ((33, 5), -1),
    "wide rows": ((33, 300), -1),
}
BAD = [np.nan, np.inf, -np.inf]
BAD_CHANNEL = 2

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_layout = pytest.mark.parametrize(("shape", "axis"), LAYOUTS.values(), ids=LAYOUTS.keys())


def problem(rng, shape, axis, dtype):
    x, dy = (rng.standard_normal((2, *shape)) + 0.5).astype(dtype)
    return x, dy, rng.uniform(0.5, 1.5, shape[axis]), rng.standard_normal(shape[axis])


def channel(a, axis, c=BAD_CHANNEL):
    """A view of one channel of a."""
    return np.moveaxis(a, axis, 0)[c]


def training(x, dy, gamma, beta, axis, eps=1e-5):
    """All results of a training step, channels in front."""
    y, cache = fastbn.batch_norm(x, gamma, beta, eps=eps, channel_axis=axis)
    dx, dgamma, dbeta = fastbn.batch_norm_backward(dy, cache)
    running = fastbn.RunningStats(len(gamma))
    running.update(cache.moments)
    return {
        "y": np.moveaxis(y, axis, 0),
        "mean": cache.mean,
        "m2": cache.moments.m2,
        "invstd": cache.invstd,
        "running mean": running.mean,
        "running var": running.var,
        "dx": np.moveaxis(dx, axis, 0),
        "dgamma": dgamma,
        "dbeta": dbeta,
    }


def assert_only_changed(got, want, names):
    """The results named are NaN or infinite all over the bad channel; all else has the bits of `want`."""
    for name in got:
        if name in names:
            assert not np.isfinite(got[name][BAD_CHANNEL]).any(), name
            assert_same_bits(*(np.delete(r[name], BAD_CHANNEL, axis=0) for r in (got, want)))
        else:
            assert_same_bits(got[name], want[name])


@pytest.mark.parametrize("bad", BAD)
@every_dtype
@every_layout
def test_a_bad_value_in_x_spoils_its_channel_alone(target, rng, shape, axis, dtype, bad):
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    want = training(x, dy, gamma, beta, axis)
    spoiled = {"y", "mean", "m2", "invstd", "running mean", "running var", "dx", "dgamma"}
    for where in (0, 20, -1):
        z = x.copy()
        channel(z, axis).flat[where] = bad
        got = training(z, dy, gamma, beta, axis)
        assert_only_changed(got, want, spoiled)
        for name in ("y", "m2", "invstd", "running var", "dx", "dgamma"):
            assert np.isnan(got[name][BAD_CHANNEL]).all(), name


@pytest.mark.parametrize("bad", BAD)
@every_dtype
@every_layout
def test_a_bad_value_in_dy_spoils_its_channel_alone(target, rng, shape, axis, dtype, bad):
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    want = training(x, dy, gamma, beta, axis)
    for where in (0, 20, -1):
        g = dy.copy()
        channel(g, axis).flat[where] = bad
        got = training(x, g, gamma, beta, axis)
        assert_only_changed(got, want, {"dx", "dgamma", "dbeta"})
        if np.isnan(bad):
            assert np.isnan(got["dgamma"][BAD_CHANNEL])
            assert np.isnan(got["dbeta"][BAD_CHANNEL])


@pytest.mark.parametrize(("parameter", "spoiled"), [("gamma", {"y", "dx"}), ("beta", {"y"})])
@every_dtype
@every_layout
def test_a_bad_parameter_spoils_its_channel_alone(rng, shape, axis, dtype, parameter, spoiled):
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    want = training(x, dy, gamma, beta, axis)
    {"gamma": gamma, "beta": beta}[parameter][BAD_CHANNEL] = np.nan
    assert_only_changed(training(x, dy, gamma, beta, axis), want, spoiled)


@pytest.mark.parametrize("bad", BAD)
@every_dtype
@every_layout
def test_with_given_statistics_a_bad_value_spoils_itself_alone(target, rng, shape, axis, dtype, bad):
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    given = fastbn.Moments(1, rng.standard_normal(shape[axis]), rng.uniform(1, 2, shape[axis]))

    def results(x, dy):
        y, cache = fastbn.batch_norm(x, gamma, beta, channel_axis=axis, moments=given)
        z = fastbn.batch_norm_inference(x, given.mean, given.var(), gamma, beta, channel_axis=axis)
        return y, z, fastbn.batch_norm_backward(dy, cache)[0]

    want = results(x, dy)
    bad_x, bad_dy, where = x.copy(), dy.copy(), np.zeros(shape, bool)
    for a, value in [(bad_x, bad), (bad_dy, bad), (where, True)]:
        channel(a, axis).flat[20] = value
    for got, good in zip(results(bad_x, bad_dy), want, strict=True):
        assert_same_bits(got[where], np.array([bad], dtype))
        assert_same_bits(got[~where], good[~where])


@pytest.mark.parametrize("value", [0.0, 0.1, -123.456, 1e30, 1e-40])
@every_dtype
@every_layout
def test_a_constant_channel_gives_beta_to_the_bit(target, rng, shape, axis, dtype, value):
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    channel(x, axis)[...] = value
    y, cache = fastbn.batch_norm(x, gamma, beta, channel_axis=axis)
    got = channel(y, axis)
    assert_same_bits(got, np.full_like(got, beta[BAD_CHANNEL]))
    assert_same_bits(cache.mean[BAD_CHANNEL], np.float64(dtype(value)))
    assert_same_bits(cache.moments.m2[BAD_CHANNEL], np.float64(0))
    dx, dgamma, _ = fastbn.batch_norm_backward(dy, cache)
    want = reference.batch_norm_backward(dy, reference.batch_norm(x, gamma, beta, channel_axis=axis)[1])[0]
    assert_grad(dx, want, dtype)
    assert dgamma[BAD_CHANNEL] == 0


@every_dtype
@every_layout
def test_without_eps_a_constant_channel_is_nan(target, rng, shape, axis, dtype):
    """1 / sqrt(0) is infinite and 0 * inf is NaN, as IEEE arithmetic says."""
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    want = training(x, dy, gamma, beta, axis, eps=0)
    channel(x, axis)[...] = 0.1
    got = training(x, dy, gamma, beta, axis, eps=0)
    assert np.isposinf(got["invstd"][BAD_CHANNEL])
    for name in ("y", "dx", "dgamma"):
        assert np.isnan(got[name][BAD_CHANNEL]).all()
        assert_same_bits(*(np.delete(r[name], BAD_CHANNEL, axis=0) for r in (got, want)))


@pytest.mark.parametrize("factor", [2.0**-20, 0.5, 2.0**30])
@every_dtype
@every_layout
def test_without_eps_the_scale_of_x_does_not_matter(target, rng, shape, axis, dtype, factor):
    """A power of two changes no mantissa: the same bits."""
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    want = training(x, dy, gamma, beta, axis, eps=0)
    got = training(x * dtype(factor), dy, gamma, beta, axis, eps=0)
    for name in ("y", "dgamma", "dbeta"):
        assert_same_bits(got[name], want[name])
    for name, power in [("mean", 1), ("m2", 2), ("invstd", -1), ("dx", -1)]:
        assert_same_bits(got[name], want[name] * want[name].dtype.type(factor**power))


@every_dtype
@every_layout
def test_gamma_zero_stops_x_and_can_recover(target, rng, shape, axis, dtype):
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    want = training(x, dy, gamma, beta, axis)
    gamma[BAD_CHANNEL] = 0
    got = training(x, dy, gamma, beta, axis)
    y = got["y"][BAD_CHANNEL]
    assert_same_bits(y, np.full_like(y, beta[BAD_CHANNEL]))
    assert (got["dx"][BAD_CHANNEL] == 0).all()
    assert got["dgamma"][BAD_CHANNEL] != 0
    assert_same_bits(got["dgamma"], want["dgamma"])


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float32, 1e30), (np.float64, 1e150), (np.float32, 1e-30), (np.float64, 1e-150)]
)
@every_layout
def test_very_large_and_very_small_values(target, rng, shape, axis, dtype, scale):
    x, dy, gamma, beta = problem(rng, shape, axis, np.float64)
    x, dy = (x * scale).astype(dtype), dy.astype(dtype)
    y, cache = fastbn.batch_norm(x, gamma, beta, eps=0, channel_axis=axis)
    want, wanted = reference.batch_norm(x, gamma, beta, eps=0, channel_axis=axis)
    assert_y(y, want, dtype)
    np.testing.assert_allclose(cache.moments.m2, wanted.moments[2], rtol=tolerance("var", dtype))
    dx, dgamma, _ = fastbn.batch_norm_backward(dy, cache)
    want_dx, want_dgamma, _ = reference.batch_norm_backward(dy, wanted)
    assert_grad(dx, want_dx, dtype, scale=np.abs(want_dx).max())
    assert_grad(dgamma, want_dgamma, dtype)


@every_dtype
@every_layout
def test_subnormal_values(target, rng, shape, axis, dtype):
    """Their variance is nothing beside eps, and y is x as good as unscaled: nothing is flushed to zero."""
    x, _, gamma, _ = problem(rng, shape, axis, np.float64)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    x = (x * 1e6).round() * smallest
    y, _ = fastbn.batch_norm(x.astype(dtype), gamma, channel_axis=axis)
    want, _ = reference.batch_norm(x, gamma, channel_axis=axis)
    assert np.abs(y - want).max() <= 2e3 * smallest  # y is about 300 x, and rounds in steps of 300 `smallest`
    assert np.abs(y).max() > 1e8 * smallest


@every_dtype
@every_layout
def test_a_negative_variance_is_nan(target, rng, shape, axis, dtype):
    x, _, gamma, beta = problem(rng, shape, axis, dtype)
    mean, var = np.zeros(shape[axis]), np.ones(shape[axis])
    want = fastbn.batch_norm_inference(x, mean, var, gamma, beta, channel_axis=axis)
    var[BAD_CHANNEL] = -1
    got = fastbn.batch_norm_inference(x, mean, var, gamma, beta, channel_axis=axis)
    assert np.isnan(channel(got, axis)).all()
    assert_same_bits(*(np.delete(y, BAD_CHANNEL, axis=axis) for y in (got, want)))


@every_dtype
def test_one_value_per_channel(target, rng, dtype):
    """No variance, so refused in training (test_errors.py); with statistics from elsewhere it is a batch."""
    x, dy, gamma, beta = problem(rng, (1, 5), 1, dtype)
    own = fastbn.moments(x)
    assert own.count == 1
    assert_same_bits(own.mean, x[0].astype(np.float64))
    assert_same_bits(own.m2, np.zeros(5))
    both = own.merge(fastbn.moments(dy))
    y, cache = fastbn.batch_norm(x, gamma, beta, moments=both)
    assert_y(y, reference.batch_norm(x, gamma, beta, moments=(2, both.mean, both.m2))[0], dtype)
    assert_grad(fastbn.batch_norm_backward(dy, cache)[0], gamma * cache.invstd * dy, dtype)


@pytest.mark.parametrize(("shape", "axis"), [((0, 5), 1), ((0, 5, 4), 1), ((3, 5, 0), 1), ((2, 0, 5), -1)])
@every_dtype
def test_no_values(target, shape, axis, dtype):
    """Refused in training (test_errors.py); neutral elsewhere."""
    x, vector = np.empty(shape, dtype), np.arange(1.0, 6)
    m = fastbn.moments(x, channel_axis=axis)
    assert m.count == 0
    other = fastbn.Moments(3, vector, vector)
    assert m.merge(other) is other
    y = fastbn.batch_norm_inference(x, vector, vector, vector, channel_axis=axis)
    assert (y.shape, y.dtype) == (shape, dtype)
    y, cache = fastbn.batch_norm(x, vector, vector, channel_axis=axis, moments=other)
    dx, dgamma, dbeta = fastbn.batch_norm_backward(x, cache)
    assert y.shape == dx.shape == shape
    assert_same_bits(dgamma, np.zeros(5))
    assert_same_bits(dbeta, np.zeros(5))
    assert_same_bits(cache.mean, vector)
    assert_same_bits(cache.invstd, 1 / np.sqrt(vector / 3 + 1e-5))


@pytest.mark.parametrize("shape", [(4, 0), (4, 0, 3), (2**40, 0)])
@every_dtype
def test_no_channels(target, shape, dtype):
    x, none = np.empty(shape, dtype), np.empty(0)
    y, cache = fastbn.batch_norm(x, none, none)
    dx, dgamma, dbeta = fastbn.batch_norm_backward(x, cache)
    z = fastbn.batch_norm_inference(x, none, none)
    assert y.shape == dx.shape == z.shape == shape
    assert dgamma.shape == dbeta.shape == cache.mean.shape == fastbn.moments(x).mean.shape == (0,)


@pytest.mark.parametrize("momentum", [0, 1])
def test_momentum_zero_keeps_and_one_replaces(rng, momentum):
    running = fastbn.RunningStats(3, momentum=momentum)
    running.load(np.arange(3.0), np.full(3, np.nan), 5)
    m = fastbn.moments(rng.standard_normal((7, 3)))
    running.update(m)
    assert running.count == 6
    assert_same_bits(running.mean, m.mean if momentum else np.arange(3.0))
    assert_same_bits(running.var, m.var(ddof=1) if momentum else np.full(3, np.nan))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float16, np.complex64, object])
@pytest.mark.parametrize("name", ["x", "gamma", "beta", "mean", "var"])
def test_other_dtypes_are_refused_everywhere(name, dtype):
    arguments = {"x": np.ones((4, 3)), **dict.fromkeys(("gamma", "beta", "mean", "var"), np.ones(3))}
    arguments[name] = arguments[name].astype(dtype)
    with pytest.raises(TypeError, match=f"^{name} must be float32 or float64, got {np.dtype(dtype)}$"):
        fastbn.batch_norm_inference(**arguments)
