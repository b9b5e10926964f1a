"""batch_norm_backward agrees with the definition and with finite differences of it."""

import numpy as np
import pytest
import shapes
from tolerances import assert_grad, assert_same_bits

import fastbn
from fastbn import reference

DTYPES = [np.float32, np.float64]


def problem(rng, shape, axis, dtype):
    x = (2 * rng.standard_normal(shape) - 1).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    return x, dy, rng.uniform(0.5, 1.5, shape[axis]), rng.standard_normal(shape[axis])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("shape", "axis"), shapes.ALL.values(), ids=shapes.ALL.keys())
def test_backward_is_the_definition(target, rng, shape, axis, frozen, dtype):
    x, dy, gamma, beta = problem(rng, shape, axis, dtype)
    given = (4, rng.standard_normal(shape[axis]), rng.uniform(2, 8, shape[axis])) if frozen else None
    _, cache = fastbn.batch_norm(
        x, gamma, beta, channel_axis=axis, moments=fastbn.Moments(*given) if frozen else None
    )
    _, wanted = reference.batch_norm(x, gamma, beta, channel_axis=axis, moments=given)
    got = fastbn.batch_norm_backward(dy, cache)
    want = reference.batch_norm_backward(dy, wanted)
    assert got[0].dtype == dtype
    # dgamma sums n products of size 1: where they cancel, the error is relative to their root mean square sum
    n = x.size // shape[axis]
    typical = np.sqrt(n)
    # Two values per channel: dx is what eps leaves of a difference that is zero without it
    cancelled = np.abs(gamma * wanted.invstd).max() * np.abs(dy).max() if n == 2 else 0
    assert_grad(got[0], want[0], dtype, scale=max(np.abs(want[0]).max(), cancelled))
    assert_grad(got[1], want[1], dtype, scale=max(np.abs(want[1]).max(), typical))
    assert_grad(got[2], want[2], dtype, scale=max(np.abs(want[2]).max(), typical))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((7, 3), 1), ((3, 2, 11), 1), ((2, 2, 260), 1), ((4, 5, 3), -1)])
def test_gradients_by_finite_differences(target, rng, shape, axis, frozen):
    """Of the loss sum(y * dy): fourth-order central differences along random directions."""
    x, dy, gamma, beta = problem(rng, shape, axis, np.float64)
    given = fastbn.Moments(4, rng.standard_normal(shape[axis]), rng.uniform(2, 8, shape[axis])) if frozen else None

    def loss(x, gamma, beta):
        return (fastbn.batch_norm(x, gamma, beta, channel_axis=axis, moments=given)[0] * dy).sum()

    _, cache = fastbn.batch_norm(x, gamma, beta, channel_axis=axis, moments=given)
    gradients = fastbn.batch_norm_backward(dy, cache)
    arguments = [x, gamma, beta]
    for i, gradient in enumerate(gradients):
        d = rng.standard_normal(arguments[i].shape)

        def along(h, i=i, d=d):
            return loss(*(a + h * d if j == i else a for j, a in enumerate(arguments)))

        h = 1e-3
        slope = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        scale = np.linalg.norm(gradient) * np.linalg.norm(d)
        assert abs(slope - (gradient * d).sum()) <= 1e-8 * scale


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_do_not_depend_on_offsets(target, rng, dtype):
    """x with mean/std = 1e4 and dy with mean/std = 1e3: both are centred before anything is multiplied."""
    for shape in [(64, 3), (8, 3, 300)]:
        x = (rng.standard_normal(shape) + 1e4).astype(dtype)
        dy = (rng.standard_normal(shape) + 1e3).astype(dtype)
        _, cache = fastbn.batch_norm(x)
        dx, _, _ = fastbn.batch_norm_backward(dy, cache)
        want, _, _ = reference.batch_norm_backward(dy, reference.batch_norm(x)[1])
        # the sums of dy * xhat carry the size of dy: 1e3 instead of 1
        assert_grad(dx, want, dtype, scale=np.abs(want).max() * (1 if dtype is np.float32 else 1e3))


def test_the_sum_of_dx_vanishes(rng):
    x, dy, gamma, beta = problem(rng, (40, 6, 50), 1, np.float64)
    _, cache = fastbn.batch_norm(x, gamma, beta)
    dx, _, _ = fastbn.batch_norm_backward(dy, cache)
    assert np.abs(dx.sum((0, 2))).max() <= 1e-12


@pytest.mark.parametrize(("shape", "axis"), [*shapes.LARGE.values(), ((5, 4, 3), 1)])
def test_out_gives_the_same_bits(rng, shape, axis):
    x, dy, gamma, beta = problem(rng, shape, axis, np.float32)
    _, cache = fastbn.batch_norm(x, gamma, beta, channel_axis=axis)
    dx, dgamma, dbeta = fastbn.batch_norm_backward(dy, cache)
    for out in (np.full_like(dy, 77), dy.copy()):
        given = dy if out[0].flat[0] == 77 else out
        result = fastbn.batch_norm_backward(given, cache, out=out)
        assert result[0] is out
        for got, want in zip(result, (dx, dgamma, dbeta), strict=True):
            assert_same_bits(got, want)
    result = fastbn.batch_norm_backward(dy, cache, out=x)
    assert_same_bits(result[0], dx)


def test_a_cache_can_be_used_again(rng):
    x, dy, gamma, beta = problem(rng, (40, 6), 1, np.float32)
    _, cache = fastbn.batch_norm(x, gamma, beta)
    for got, want in zip(*(fastbn.batch_norm_backward(dy, cache) for _ in range(2)), strict=True):
        assert_same_bits(got, want)
