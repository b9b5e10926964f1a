"""The same numbers as PyTorch, where it is installed."""

import numpy as np
import pytest

import fastbn

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

SHAPES = [(32, 6), (8, 5, 40), (4, 3, 20, 21), (2, 3, 4, 5, 6)]
RTOL = {np.float32: 2e-5, np.float64: 1e-11}  # PyTorch folds scale and shift, and rounds its mean to float32


def problem(rng, shape, dtype):
    x, dy = ((rng.standard_normal(shape) * 2 + 0.5).astype(dtype) for _ in range(2))
    return x, dy, rng.uniform(0.5, 1.5, shape[1]).astype(dtype), rng.standard_normal(shape[1]).astype(dtype)


def assert_close(ours, theirs, dtype):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=RTOL[dtype], atol=RTOL[dtype] * np.abs(theirs).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_backward_and_running_statistics(rng, shape, training, dtype):
    x, dy, gamma, beta = problem(rng, shape, dtype)
    mean, var = rng.standard_normal(shape[1]).astype(dtype), rng.uniform(0.5, 2, shape[1]).astype(dtype)

    theirs = [torch.tensor(v, requires_grad=True) for v in (x, gamma, beta)]
    running = torch.tensor(mean), torch.tensor(var)
    y = torch.nn.functional.batch_norm(
        theirs[0], *running, weight=theirs[1], bias=theirs[2], training=training, momentum=0.1
    )
    y.backward(torch.tensor(dy))

    layer = fastbn.BatchNorm(shape[1], dtype=dtype)
    layer.load_state_dict(
        {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": var, "num_batches_tracked": 0}
    )
    layer.training = training
    assert_close(layer(x), y, dtype)
    assert_close(layer.backward(dy), theirs[0].grad, dtype)
    assert_close(layer.dgamma, theirs[1].grad, dtype)
    assert_close(layer.dbeta, theirs[2].grad, dtype)
    assert_close(layer.running.mean, running[0], dtype)
    assert_close(layer.running.var, running[1], dtype)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_checkpoints_round_trip(rng, momentum):
    theirs = torch.nn.BatchNorm2d(5, momentum=momentum, eps=1e-3)
    ours = fastbn.BatchNorm(5, momentum=momentum, eps=1e-3)
    for _ in range(3):
        x = rng.standard_normal((4, 5, 6, 7)).astype(np.float32)
        assert_close(ours(x), theirs(torch.tensor(x)), np.float32)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert set(state) == set(ours.state_dict())
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value, state[name], rtol=1e-5, atol=1e-6)

    fresh = fastbn.BatchNorm(5, eps=1e-3)
    fresh.load_state_dict(theirs.state_dict())
    theirs.load_state_dict({name: torch.as_tensor(value) for name, value in ours.state_dict().items()})
    x = rng.standard_normal((4, 5, 6, 7)).astype(np.float32)
    assert_close(fresh.eval()(x), theirs.eval()(torch.tensor(x)), np.float32)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_views_of_tensors_are_not_copied(rng, memory_format):
    t = torch.randn(4, 6, 5, 5).to(memory_format=memory_format)
    y, cache = fastbn.batch_norm(t.numpy())
    assert np.shares_memory(cache._x, t.numpy())
    assert y.strides == t.numpy().strides
    assert_close(y, torch.nn.functional.batch_norm(t, None, None, training=True), np.float32)
