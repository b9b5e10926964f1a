"""batch_norm, batch_norm_inference and moments agree with the definition, on every target and in every shape."""

import numpy as np
import pytest
import shapes
from tolerances import assert_same_bits, assert_y, tolerance

import fastbn
from fastbn import reference

DTYPES = [np.float32, np.float64]


def problem(rng, shape, axis, dtype, mean=3.0):
    x = (rng.standard_normal(shape) + mean).astype(dtype)
    gamma, beta = rng.uniform(0.5, 1.5, shape[axis]), rng.standard_normal(shape[axis])
    return x, gamma, beta


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), shapes.ALL.values(), ids=shapes.ALL.keys())
def test_forward_is_the_definition(target, rng, shape, axis, dtype):
    x, gamma, beta = problem(rng, shape, axis, dtype)
    y, cache = fastbn.batch_norm(x, gamma, beta, channel_axis=axis)
    want, wanted = reference.batch_norm(x, gamma, beta, channel_axis=axis)
    assert_y(y, want, dtype)
    assert_moments(cache.moments, wanted.moments, dtype)
    np.testing.assert_allclose(cache.invstd, wanted.invstd, rtol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), shapes.ALL.values(), ids=shapes.ALL.keys())
def test_inference_is_the_definition(target, rng, shape, axis, dtype):
    x, gamma, beta = problem(rng, shape, axis, dtype)
    mean, var = rng.standard_normal(shape[axis]), rng.uniform(0.5, 2, shape[axis])
    y = fastbn.batch_norm_inference(x, mean, var, gamma, beta, channel_axis=axis)
    assert_y(y, reference.batch_norm_inference(x, mean, var, gamma, beta, channel_axis=axis), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), shapes.ALL.values(), ids=shapes.ALL.keys())
def test_moments_are_the_definition_and_those_of_forward(target, rng, shape, axis, dtype):
    x, _, _ = problem(rng, shape, axis, dtype)
    m = fastbn.moments(x, channel_axis=axis)
    assert_moments(m, reference.moments(x, channel_axis=axis), dtype)
    _, cache = fastbn.batch_norm(x, channel_axis=axis)
    assert m.count == cache.moments.count
    assert_same_bits(m.mean, cache.moments.mean)
    assert_same_bits(m.m2, cache.moments.m2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("params", [np.float32, np.float64])
@pytest.mark.parametrize("with_gamma", [False, True])
@pytest.mark.parametrize("with_beta", [False, True])
@pytest.mark.parametrize("layout", ["first", "last"])
def test_gamma_and_beta_are_optional_and_of_either_dtype(rng, dtype, params, with_gamma, with_beta, layout):
    shape, axis = ((6, 5, 300), 1) if layout == "first" else ((40, 5), -1)
    x, gamma, beta = problem(rng, shape, axis, dtype)
    gamma = gamma.astype(params) if with_gamma else None
    beta = beta.astype(params) if with_beta else None
    y, cache = fastbn.batch_norm(x, gamma, beta, channel_axis=axis)
    assert_y(y, reference.batch_norm(x, gamma, beta, channel_axis=axis)[0], dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    _, dgamma, dbeta = fastbn.batch_norm_backward(dy, cache)
    assert (None if dgamma is None else dgamma.dtype) == (params if with_gamma else None)
    assert (None if dbeta is None else dbeta.dtype) == (params if with_beta else None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), [((9, 4, 300), 1), ((50, 7), 1)])
def test_given_moments_normalize(target, rng, shape, axis, dtype):
    x, gamma, beta = problem(rng, shape, axis, dtype)
    given = fastbn.Moments(10, rng.standard_normal(shape[axis]), rng.uniform(5, 20, shape[axis]))
    y, cache = fastbn.batch_norm(x, gamma, beta, channel_axis=axis, moments=given)
    assert cache.moments is given
    assert_same_bits(
        y, fastbn.batch_norm_inference(x, given.mean, given.var(), gamma, beta, channel_axis=axis)
    )


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-3, 10.0])
def test_eps_is_inside_the_root(rng, eps):
    x, gamma, beta = problem(rng, (30, 4), 1, np.float64)
    y, _ = fastbn.batch_norm(x, gamma, beta, eps=eps)
    assert_y(y, gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + beta, np.float64)


@pytest.mark.parametrize("function", ["forward", "inference"])
@pytest.mark.parametrize(("shape", "axis"), [*shapes.LARGE.values(), ((5, 4, 3), 1)])
def test_out_gives_the_same_bits(rng, function, shape, axis):
    """In place and into another array, where the stores may differ."""
    x, gamma, beta = problem(rng, shape, axis, np.float32)
    mean, var = np.full(shape[axis], 2.5), np.full(shape[axis], 1.5)

    def call(x, out):
        if function == "forward":
            return fastbn.batch_norm(x, gamma, beta, channel_axis=axis, out=out)[0]
        return fastbn.batch_norm_inference(x, mean, var, gamma, beta, channel_axis=axis, out=out)

    y = call(x, None)
    out = np.full_like(x, 77)
    assert call(x, out) is out
    assert_same_bits(out, y)
    z = x.copy()
    assert call(z, z) is z
    assert_same_bits(z, y)


def assert_moments(got, want, dtype):
    count, mean, m2 = want
    assert got.count == count
    if np.dtype(dtype) == np.float32:
        ulp = np.spacing(np.abs(mean).astype(np.float32)).astype(np.float64)
        assert (np.abs(got.mean - mean) <= tolerance("mean", dtype) * ulp).all()
    else:
        assert (np.abs(got.mean - mean) <= tolerance("mean", dtype) * (np.abs(mean) + np.sqrt(m2 / count))).all()
    assert (np.abs(got.m2 - m2) <= tolerance("var", dtype) * m2).all()
