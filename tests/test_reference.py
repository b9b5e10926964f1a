"""The reference is the definition: gradients by finite differences, accuracy by exact arithmetic, and identities."""

import math
from fractions import Fraction

import numpy as np
import pytest

from fastbn import reference

EPS = 1e-3

LAYOUTS = [
    pytest.param((12, 3), 1, id="rows"),
    pytest.param((4, 3, 5), 1, id="channels-first"),
    pytest.param((3, 2, 2, 4), -1, id="channels-last"),
    pytest.param((3, 6, 2), 0, id="channels-leading"),
]


def reduced(values, channel_axis):
    """Sum over everything but the channels."""
    return np.moveaxis(values, channel_axis, 0).reshape(values.shape[channel_axis], -1).sum(axis=1)


def central_difference(loss, h=1e-3):
    """Fourth-order d loss(t) / dt at t = 0."""
    return (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)


def assert_gradient(loss, gradient, direction):
    """loss(t) is taken at argument + t * direction. An error of 1e-8 is meant in units of a typical slope."""
    scale = np.linalg.norm(gradient) * np.linalg.norm(direction) / math.sqrt(gradient.size)
    assert abs(central_difference(loss) - (gradient * direction).sum()) <= 1e-8 * scale


# Gradients


@pytest.mark.parametrize(("shape", "channel_axis"), LAYOUTS)
@pytest.mark.parametrize("frozen", [False, True], ids=["training", "frozen"])
@pytest.mark.parametrize("wanted", ["dx", "dgamma", "dbeta"])
def test_backward_against_finite_differences(rng, shape, channel_axis, frozen, wanted):
    channels = shape[channel_axis]
    x, dy = rng.normal(2, 3, shape), rng.normal(0.5, 1, shape)
    gamma, beta = rng.normal(1, 0.5, channels), rng.normal(size=channels)
    moments = (7, rng.normal(size=channels), rng.uniform(3, 30, channels)) if frozen else None
    _, cache = reference.batch_norm(x, gamma, beta, eps=EPS, channel_axis=channel_axis, moments=moments)
    gradients = dict(zip(("dx", "dgamma", "dbeta"), reference.batch_norm_backward(dy, cache), strict=True))
    for _ in range(3):
        direction = rng.normal(size=gradients[wanted].shape)

        def loss(t, direction=direction):
            moved = {"dx": x, "dgamma": gamma, "dbeta": beta}
            moved[wanted] = moved[wanted] + t * direction
            y, _ = reference.batch_norm(*moved.values(), eps=EPS, channel_axis=channel_axis, moments=moments)
            return (dy * y).sum()

        assert_gradient(loss, gradients[wanted], direction)


@pytest.mark.parametrize("has_gamma", [False, True])
@pytest.mark.parametrize("has_beta", [False, True])
def test_gamma_and_beta_are_optional(rng, has_gamma, has_beta):
    x, dy = rng.normal(size=(2, 6, 4, 3))
    ones, zeros = np.ones(4), np.zeros(4)
    y, cache = reference.batch_norm(x, ones if has_gamma else None, zeros if has_beta else None)
    full_y, full_cache = reference.batch_norm(x, ones, zeros)
    np.testing.assert_array_equal(y, full_y)
    dx, dgamma, dbeta = reference.batch_norm_backward(dy, cache)
    full_dx, full_dgamma, full_dbeta = reference.batch_norm_backward(dy, full_cache)
    np.testing.assert_array_equal(dx, full_dx)
    for has, got, full in ((has_gamma, dgamma, full_dgamma), (has_beta, dbeta, full_dbeta)):
        if has:
            np.testing.assert_array_equal(got, full)
        else:
            assert got is None


@pytest.mark.parametrize(("shape", "channel_axis"), LAYOUTS)
@pytest.mark.parametrize("eps", [0.0, EPS])
def test_identities_of_the_gradient(rng, shape, channel_axis, eps):
    """sum(dx) = 0 and sum(dx * xhat) = gamma * s * b * eps * s^2."""
    channels = shape[channel_axis]
    x, dy, gamma = rng.normal(3, 2, shape), rng.normal(size=shape), rng.normal(size=channels)
    _, cache = reference.batch_norm(x, gamma, eps=eps, channel_axis=channel_axis)
    xhat, _ = reference.batch_norm(x, eps=eps, channel_axis=channel_axis)
    dx, b, _ = reference.batch_norm_backward(dy, cache)
    np.testing.assert_allclose(reduced(dx, channel_axis), 0, atol=1e-14)
    expected = gamma * cache.invstd * b * eps * cache.invstd**2
    np.testing.assert_allclose(reduced(dx * xhat, channel_axis), expected, rtol=1e-12, atol=1e-14)


def test_gradient_of_a_scaled_input(rng):
    """dx(4 x) = dx(x) / 4 to the bit when eps = 0, because 4 only moves exponents."""
    x, dy = rng.normal(5, 2, (2, 9, 3))
    small, big = (reference.batch_norm_backward(dy, reference.batch_norm(scale * x, eps=0)[1])[0] for scale in (1, 4))
    np.testing.assert_array_equal(4 * big, small)


# Accuracy


def exact(values):
    """mean, variance and xhat (eps = 0) of floats, from rational arithmetic, each rounded at the end."""
    rational = [Fraction(v) for v in values.tolist()]
    mean = sum(rational) / len(rational)
    var = sum((v - mean) ** 2 for v in rational) / len(rational)
    root = math.sqrt(var)
    return float(mean), float(var), np.array([float(v - mean) / root for v in rational])


@pytest.mark.parametrize("kappa", [0, 1, 1e2, 1e4, 1e6, 1e9])
@pytest.mark.parametrize("n", [2, 3, 50, 700])
def test_accuracy_against_rational_arithmetic(rng, kappa, n):
    values = rng.normal(kappa, 1, n)
    mean, var, xhat = exact(values)
    count, got_mean, m2 = reference.moments(values[:, None])
    assert count == n
    assert abs(got_mean[0] - mean) <= max(np.spacing(abs(mean)), 1e-15)
    assert m2[0] / n == pytest.approx(var, rel=1e-14)
    y, _ = reference.batch_norm(values[:, None], eps=0)
    np.testing.assert_allclose(y[:, 0], xhat, rtol=1e-14, atol=2e-14)


@pytest.mark.parametrize("kind", ["pixels", "outlier first", "tiny", "huge"])
def test_accuracy_of_hard_data(rng, kind):
    values = {
        "pixels": rng.integers(0, 256, 500).astype(float),
        "outlier first": np.concatenate([[1e9], rng.normal(size=499)]),
        "tiny": 1e-150 * rng.normal(1, 1, 500),
        "huge": 1e150 * rng.normal(1, 1, 500),
    }[kind]
    mean, var, xhat = exact(values)
    _, got_mean, m2 = reference.moments(values[:, None])
    np.testing.assert_allclose([got_mean[0], m2[0] / 500], [mean, var], rtol=1e-14)
    y, _ = reference.batch_norm(values[:, None], eps=0)
    np.testing.assert_allclose(y[:, 0], xhat, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kappa", [1, 1e6])
def test_accuracy_of_a_million_values(rng, kappa):
    values = rng.normal(kappa, 1, 1_000_000)
    left = values - values[0]
    mean_left = math.fsum(left) / len(left)
    var = math.fsum((left - mean_left) ** 2) / len(left)
    _, mean, m2 = reference.moments(values[None, :], channel_axis=0)
    assert mean[0] == pytest.approx(math.fsum(values) / len(values), rel=2.3e-16)
    assert m2[0] / len(values) == pytest.approx(var, rel=1e-14)


@pytest.mark.parametrize("kappa", [0, 1e3, 1e6])
def test_gradients_against_rational_arithmetic(rng, kappa):
    n = 60
    x, dy = rng.normal(kappa, 1, n), rng.normal(size=n)
    _, var, xhat = exact(x)
    a, b = (sum(map(Fraction, terms.tolist())) for terms in (dy, dy * xhat))
    expected = [float(Fraction(g) - a / n - Fraction(t) * b / n) for g, t in zip(dy, xhat, strict=True)]
    _, cache = reference.batch_norm(x[:, None], np.ones(1), np.zeros(1), eps=0)
    dx, dgamma, dbeta = reference.batch_norm_backward(dy[:, None], cache)
    np.testing.assert_allclose(dx[:, 0], np.array(expected) / math.sqrt(var), atol=1e-14)
    np.testing.assert_allclose([dgamma[0], dbeta[0]], [float(b), float(a)], rtol=1e-13, atol=1e-13)


# Layouts and moments


@pytest.mark.parametrize(("shape", "channel_axis"), LAYOUTS)
def test_channel_axis_only_names_an_axis(rng, shape, channel_axis):
    x, dy = rng.normal(size=(2, *shape))
    channels = shape[channel_axis]
    gamma, beta = rng.normal(size=(2, channels))
    y, cache = reference.batch_norm(x, gamma, beta, channel_axis=channel_axis)
    dx, dgamma, dbeta = reference.batch_norm_backward(dy, cache)
    for c in range(channels):
        one_x, one_dy = (np.take(v, c, axis=channel_axis).reshape(-1, 1) for v in (x, dy))
        one_y, one_cache = reference.batch_norm(one_x, gamma[c : c + 1], beta[c : c + 1])
        one_dx, one_dgamma, one_dbeta = reference.batch_norm_backward(one_dy, one_cache)
        np.testing.assert_allclose(np.take(y, c, axis=channel_axis).reshape(-1, 1), one_y, atol=1e-15)
        np.testing.assert_allclose(np.take(dx, c, axis=channel_axis).reshape(-1, 1), one_dx, atol=1e-14)
        np.testing.assert_allclose([dgamma[c], dbeta[c]], [one_dgamma[0], one_dbeta[0]], atol=1e-14)
    assert y.shape == dx.shape == shape
    assert y.dtype == dx.dtype == dgamma.dtype == np.float64


def test_result_is_a_copy(rng):
    x = rng.normal(size=(5, 3))
    y, cache = reference.batch_norm(x)
    before = reference.batch_norm_backward(x, cache)[0]
    y[...] = 0
    np.testing.assert_array_equal(reference.batch_norm_backward(x, cache)[0], before)


@pytest.mark.parametrize("kappa", [0, 1e6])
def test_merged_parts_equal_the_whole(rng, kappa):
    x = rng.normal(kappa, 1, (17, 4))
    parts = [reference.moments(part) for part in np.split(x, [1, 6])]
    count, mean, m2 = reference.merge(reference.merge(parts[0], parts[1]), parts[2])
    whole_count, whole_mean, whole_m2 = reference.moments(x)
    assert count == whole_count == 17
    np.testing.assert_allclose(mean, whole_mean, rtol=2.3e-16, atol=1e-16)
    # A part's mean is a float64: at mean/std = 1e6 each is known to 1e-10 standard deviations only.
    np.testing.assert_allclose(m2, whole_m2, rtol=1e-14 if kappa == 0 else 1e-9)


def test_no_values_are_the_neutral_element(rng):
    empty, some = reference.moments(np.empty((0, 3))), reference.moments(rng.normal(0.1, 1, (4, 3)))
    for merged in (reference.merge(empty, some), reference.merge(some, empty)):
        for got, expected in zip(merged, some, strict=True):
            np.testing.assert_array_equal(got, expected)
    assert reference.merge(empty, empty)[0] == 0


def test_own_moments_given_back(rng):
    x = rng.normal(size=(8, 3, 2))
    given, _ = reference.batch_norm(x, moments=reference.moments(x))
    np.testing.assert_allclose(given, reference.batch_norm(x)[0], atol=1e-15)


def test_inference_is_elementwise(rng):
    x, mean, var = rng.normal(size=(6, 3)), rng.normal(size=3), rng.uniform(1, 2, 3)
    gamma, beta = rng.normal(size=(2, 3))
    y = reference.batch_norm_inference(x, mean, var, gamma, beta, eps=EPS)
    np.testing.assert_allclose(y, gamma * (x - mean) / np.sqrt(var + EPS) + beta, atol=1e-15)
    assert reference.batch_norm_inference(np.empty((0, 3)), mean, var).shape == (0, 3)
    assert np.isnan(reference.batch_norm_inference(x, mean, -var)).all()


# Edges


@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e6 + 0.1, 1e300])
@pytest.mark.parametrize("n", [1, 2, 7, 49, 1000, 12345])
def test_constant_channel_gives_beta(value, n):
    gamma, beta = np.array([1.7, -0.3]), np.array([0.1, -5.3])
    y, cache = reference.batch_norm(np.full((n, 2), value), gamma, beta)
    np.testing.assert_array_equal(y, np.broadcast_to(beta, (n, 2)))
    np.testing.assert_array_equal(cache.moments[2], 0)
    np.testing.assert_array_equal(cache.mean, value)


def test_one_value_per_channel_has_no_gradient(rng):
    _, cache = reference.batch_norm(rng.normal(size=(1, 4)), rng.normal(size=4))
    dx, dgamma, _ = reference.batch_norm_backward(rng.normal(size=(1, 4)), cache)
    np.testing.assert_array_equal(dx, 0)
    np.testing.assert_array_equal(dgamma, 0)


def test_eps_zero_and_constant_channel_is_nan(rng):
    x = rng.normal(size=(5, 2))
    x[:, 0] = 3
    y, _ = reference.batch_norm(x, eps=0)
    assert np.isnan(y[:, 0]).all()
    assert np.isfinite(y[:, 1]).all()


def test_gamma_zero_can_recover(rng):
    x, dy = rng.normal(size=(2, 7, 2))
    y, cache = reference.batch_norm(x, np.zeros(2), np.array([1.0, 2.0]))
    dx, dgamma, _ = reference.batch_norm_backward(dy, cache)
    np.testing.assert_array_equal(y, np.broadcast_to([1.0, 2.0], (7, 2)))
    np.testing.assert_array_equal(dx, 0)
    assert (dgamma != 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_values_stay_in_their_channel(rng, bad):
    x, dy = rng.normal(size=(2, 6, 3))
    x[2, 1] = bad
    y, cache = reference.batch_norm(x, np.ones(3), np.zeros(3))
    dx, dgamma, dbeta = reference.batch_norm_backward(dy, cache)
    _, mean, m2 = cache.moments
    assert np.isnan([mean[1], m2[1], dgamma[1]]).all()
    assert np.isnan(y[:, 1]).all()
    assert np.isnan(dx[:, 1]).all()
    assert np.isfinite(dbeta).all()
    for values in (mean, m2, dgamma, y.T, dx.T):
        assert np.isfinite(values[[0, 2]]).all()


def test_bad_values_stay_in_their_element_at_inference(rng):
    x = rng.normal(size=(6, 3))
    x[2, 1] = np.nan
    y = reference.batch_norm_inference(x, np.zeros(3), np.ones(3))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


def test_bad_gradient_stays_in_its_channel(rng):
    x, dy = rng.normal(size=(2, 6, 3))
    dy[0, 2] = np.nan
    _, cache = reference.batch_norm(x, np.ones(3), np.zeros(3))
    dx, dgamma, dbeta = reference.batch_norm_backward(dy, cache)
    for values in (dx.T, dgamma, dbeta):
        assert np.isnan(values[2]).all()
        assert np.isfinite(values[:2]).all()


def test_running_update(rng):
    mean, var = rng.normal(size=2), rng.uniform(1, 2, 2)
    batch = (5, rng.normal(size=2), rng.uniform(1, 9, 2))
    new_mean, new_var = reference.update_running(mean, var, batch, 0.1, True)
    np.testing.assert_allclose(new_mean, 0.9 * mean + 0.1 * batch[1], rtol=1e-14)
    np.testing.assert_allclose(new_var, 0.9 * var + 0.1 * batch[2] / 4, rtol=1e-14)
    _, biased = reference.update_running(mean, var, batch, 0.1, False)
    np.testing.assert_allclose(biased, 0.9 * var + 0.1 * batch[2] / 5, rtol=1e-14)
    for momentum, expected in ((0, (mean, var)), (1, (batch[1], batch[2] / 4))):
        np.testing.assert_array_equal(reference.update_running(mean, var, batch, momentum, True), expected)
