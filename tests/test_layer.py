"""The layer: the functions with memory. What raises leaves it as it was."""

import copy
import pickle

import numpy as np
import pytest

import fastbn
from fastbn import BatchNorm, reference

KEYS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


@pytest.fixture
def x(rng):
    return rng.normal(5, 2, (8, 3, 6)).astype(np.float32)


@pytest.fixture
def dy(rng):
    return rng.normal(size=(8, 3, 6)).astype(np.float32)


@pytest.fixture
def bn(rng):
    """A layer with some history: no parameter or statistic is at its starting value."""
    layer = BatchNorm(3)
    layer.gamma[...] = rng.normal(size=3)
    layer.beta[...] = rng.normal(size=3)
    layer.running.load(rng.normal(4, 1, 3), rng.uniform(3, 5, 3), 7)
    return layer


def snapshot(layer):
    return [(name, value.tobytes()) for name, value in layer.state_dict().items()]


def test_start():
    bn = BatchNorm(3)
    np.testing.assert_array_equal(bn.gamma, np.ones(3))
    np.testing.assert_array_equal(bn.beta, np.zeros(3))
    assert bn.gamma.dtype == bn.beta.dtype == np.float32
    assert bn.dgamma is bn.dbeta is None
    assert bn.training
    assert bn.running.count == 0
    assert repr(bn) == (
        "BatchNorm(3, eps=1e-05, momentum=0.1, affine=True, unbiased=True, channel_axis=1, dtype=float32)"
    )


def test_training_is_the_reference(bn, x, dy):
    gamma, beta, old = bn.gamma, bn.beta, bn.running.moments
    y, dx = bn(x), bn.backward(dy)
    expected_y, cache = reference.batch_norm(x, gamma, beta)
    expected = reference.batch_norm_backward(dy, cache)
    np.testing.assert_allclose(y, expected_y, rtol=5e-7, atol=5e-7)
    for got, wanted in zip((dx, bn.dgamma, bn.dbeta), expected, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max())
    mean, var = reference.update_running(old.mean, old.m2, cache.moments, 0.1, True)
    np.testing.assert_allclose(bn.running.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(bn.running.var, var, rtol=1e-7)
    assert bn.running.count == 8


def test_inference_is_the_function(bn, x):
    before = snapshot(bn)
    y = bn.eval()(x)
    expected = fastbn.batch_norm_inference(x, bn.running.mean, bn.running.var, bn.gamma, bn.beta)
    np.testing.assert_array_equal(y.view(np.int32), expected.view(np.int32))
    assert snapshot(bn) == before


def test_backward_in_eval_mode_is_frozen(bn, x, dy):
    bn.eval()(x)
    dx = bn.backward(dy)
    _, cache = reference.batch_norm(x, bn.gamma, bn.beta, moments=(1, bn.running.mean, bn.running.var))
    for got, wanted in zip((dx, bn.dgamma, bn.dbeta), reference.batch_norm_backward(dy, cache), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max())


def test_eval_takes_any_batch(bn, x):
    bn.eval()
    np.testing.assert_array_equal(bn(x[:1, :, :1]), bn(x)[:1, :, :1])
    assert bn(x[:0]).shape == (0, 3, 6)
    assert bn.backward(x[:0]).shape == (0, 3, 6)
    np.testing.assert_array_equal(bn.dgamma, np.zeros(3))


def test_modes(bn):
    assert bn.eval() is bn
    assert not bn.training
    assert bn.train() is bn
    assert bn.training


def test_frozen_statistics_survive_a_later_update(bn, x, dy):
    """What the eval forward normalized with is what its backward uses."""
    bn.eval()(x)
    expected = bn.backward(dy)
    bn.running.update(fastbn.moments(x))
    np.testing.assert_array_equal(bn.backward(dy), expected)


def test_gradients_are_replaced(bn, x, dy):
    bn(x)
    bn.backward(dy)
    once = bn.dgamma
    bn.backward(dy)
    np.testing.assert_array_equal(bn.dgamma, once)


def test_out(bn, x, dy):
    twin = copy.deepcopy(bn)
    y, dx = np.empty_like(x), np.empty_like(x)
    assert bn(x, out=y) is y
    assert bn.backward(dy, out=dx) is dx
    np.testing.assert_array_equal(y, twin(x))
    np.testing.assert_array_equal(dx, twin.backward(dy))


@pytest.mark.parametrize("shape", [(9, 3), (2, 5, 3), (2, 4, 4, 3)])
def test_channels_last(rng, shape):
    x = rng.normal(size=shape)
    bn = BatchNorm(3, channel_axis=-1, dtype=np.float64)
    np.testing.assert_allclose(bn(x), reference.batch_norm(x, channel_axis=-1)[0], atol=1e-13)


def test_without_affine(x, dy):
    bn = BatchNorm(3, affine=False)
    assert bn.gamma is bn.beta is None
    np.testing.assert_allclose(bn(x), reference.batch_norm(x)[0], rtol=5e-7, atol=5e-7)
    bn.backward(dy)
    assert bn.dgamma is bn.dbeta is None
    assert list(bn.state_dict()) == KEYS[2:]
    bn.load_state_dict(bn.state_dict())
    assert "affine=False" in repr(bn)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("x_dtype", [np.float32, np.float64])
def test_dtypes(x, dy, dtype, x_dtype):
    bn = BatchNorm(3, dtype=dtype)
    assert bn(x.astype(x_dtype)).dtype == x_dtype
    assert bn.backward(dy.astype(x_dtype)).dtype == x_dtype
    assert bn.gamma.dtype == bn.dgamma.dtype == bn.dbeta.dtype == dtype
    assert bn.running.mean.dtype == np.float64


def test_options_reach_the_functions(x):
    bn = BatchNorm(3, eps=0.5, momentum=None, unbiased=False)
    np.testing.assert_allclose(bn(x), reference.batch_norm(x, eps=0.5)[0], atol=2e-6)
    np.testing.assert_allclose(bn.running.var, x.astype(float).var(axis=(0, 2)), rtol=1e-7)


def test_backward_before_forward(dy):
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        BatchNorm(3).backward(dy)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda bn, x: bn(x[:, :2]), ValueError, r"x must have 3 channels at axis 1, got shape \(8, 2, 6\)"),
        (lambda bn, x: bn(x[0, :, 0]), ValueError, r"x must have at least 2 dimensions, .* got shape \(3,\)"),
        (lambda bn, x: bn(x[:1, :, :1]), ValueError, r"Expected more than 1 value per channel .* \(1, 3, 1\)"),
        (lambda bn, x: bn(x[:0]), ValueError, r"Expected more than 1 value per channel .* \(0, 3, 6\)"),
        (lambda bn, x: bn(x.astype(np.int64)), TypeError, "x must be float32 or float64, got int64"),
        (lambda bn, x: bn(x, out=np.empty(3)), ValueError, "out must have the shape of x"),
        (lambda bn, x: bn(x, out=np.empty(x.shape)), TypeError, "out must have dtype float32, got float64"),
    ],
)
@pytest.mark.parametrize("affine", [True, False])
def test_a_forward_that_raises_changes_nothing(x, dy, call, error, text, affine):
    bn = BatchNorm(3, affine=affine)
    bn(x)
    before, dx = snapshot(bn), bn.backward(dy)
    with pytest.raises(error, match=text):
        call(bn, x)
    assert snapshot(bn) == before
    np.testing.assert_array_equal(bn.backward(dy), dx)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"num_channels": -3}, ValueError, "num_channels must be at least 1, got -3"),
        ({"num_channels": "3"}, TypeError, "num_channels must be an integer, got str"),
        ({"eps": -1e-5}, ValueError, "eps must be finite and not negative, got -1e-05"),
        ({"eps": np.inf}, ValueError, "eps must be finite and not negative, got inf"),
        ({"eps": None}, TypeError, "eps must be a number, got NoneType"),
        ({"momentum": 2}, ValueError, "momentum must be from 0 to 1, or None, got 2"),
        ({"channel_axis": 1.0}, TypeError, "channel_axis must be an integer, got float"),
        ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64, got float16"),
        ({"dtype": np.int64}, TypeError, "dtype must be float32 or float64, got int64"),
    ],
)
def test_errors_of_the_constructor(arguments, error, text):
    with pytest.raises(error, match=text):
        BatchNorm(**{"num_channels": 3, **arguments})


# State


def test_state_dict(bn):
    state = bn.state_dict()
    assert list(state) == KEYS
    assert [state[key].dtype for key in KEYS] == ["float32", "float32", "float64", "float64", "int64"]
    assert state["num_batches_tracked"].shape == ()
    assert state["num_batches_tracked"] == 7
    before = snapshot(bn)
    for value in state.values():
        value[...] = 0
    assert snapshot(bn) == before


def test_state_dict_round_trip(bn, x):
    other = BatchNorm(3)
    gamma = other.gamma
    other.load_state_dict(bn.state_dict())
    assert other.gamma is gamma  # written in place: an optimizer's reference stays good
    assert snapshot(other) == snapshot(bn)
    np.testing.assert_array_equal(other.eval()(x), bn.eval()(x))


def test_state_of_other_dtypes():
    bn = BatchNorm(2)
    lists = {"weight": [1, 2], "bias": [0.5, 0], "running_mean": (0, 1), "running_var": [1.0, 4.0]}
    bn.load_state_dict({**lists, "num_batches_tracked": 3})
    assert bn.gamma.dtype == bn.beta.dtype == np.float32
    np.testing.assert_array_equal(bn.gamma, [1, 2])
    np.testing.assert_array_equal(bn.running.var, [1, 4])
    assert bn.running.count == 3


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"weight": np.zeros(4)}, ValueError, r"weight must have shape \(3,\), got \(4,\)"),
        ({"bias": np.zeros((1, 3))}, ValueError, r"bias must have shape \(3,\), got \(1, 3\)"),
        ({"running_mean": 0.0}, ValueError, r"running_mean must have shape \(3,\), got \(\)"),
        ({"running_var": ["a", "b", "c"]}, TypeError, "running_var must be an array of real numbers"),
        ({"num_batches_tracked": -1}, ValueError, "num_batches_tracked must be a whole number .* got -1"),
        ({"num_batches_tracked": "7"}, TypeError, "num_batches_tracked must be a number, got str"),
        ({"extra": np.zeros(3)}, ValueError, "state must have the keys weight, bias, .*extra"),
        ({"bias": None}, TypeError, "bias must be an array of real numbers, got object"),
    ],
)
def test_a_bad_state_changes_nothing(bn, change, error, text):
    state = {**BatchNorm(3).state_dict(), **change}
    before = snapshot(bn)
    with pytest.raises(error, match=text):
        bn.load_state_dict(state)
    assert snapshot(bn) == before


@pytest.mark.parametrize("missing", KEYS)
def test_a_missing_key_changes_nothing(bn, missing):
    state = BatchNorm(3).state_dict()
    del state[missing]
    before = snapshot(bn)
    with pytest.raises(ValueError, match="state must have the keys weight, bias, running_mean"):
        bn.load_state_dict(state)
    assert snapshot(bn) == before


@pytest.mark.parametrize("remake", [copy.copy, copy.deepcopy, lambda bn: pickle.loads(pickle.dumps(bn))])
def test_copies_leave_the_batch_out(bn, x, dy, remake):
    bn(x)
    again = remake(bn)
    assert repr(again) == repr(bn)
    assert snapshot(again) == snapshot(bn)
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        again.backward(dy)
    bn.backward(dy)


def test_deep_copies_go_their_own_way(bn, x):
    before = snapshot(bn)
    again = copy.deepcopy(bn)
    again(x)
    again.gamma += 1
    assert snapshot(bn) == before


def test_learning_makes_the_loss_smaller(bn, x, dy):
    """One small step of gradient descent on gamma, beta and x lowers the loss by what the gradients say."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    before = (bn(x) * dy).sum()
    dx = bn.backward(dy)
    rate = 1e-4
    expected = rate * ((dx**2).sum() + (bn.dgamma**2).sum() + (bn.dbeta**2).sum())
    bn.gamma -= rate * bn.dgamma
    bn.beta -= rate * bn.dbeta
    assert before - (bn(x - rate * dx) * dy).sum() == pytest.approx(expected, rel=0.01)
