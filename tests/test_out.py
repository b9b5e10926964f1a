"""out=: any layout, in place, interleaved with the input; a part of the input is refused."""

import numpy as np
import pytest
from tolerances import assert_same_bits

import fastbn

SHAPE = (6, 5, 4, 7)
GUARD = 77


def forward(x, out=None):
    return fastbn.batch_norm(x, np.full(x.shape[1], 1.5), np.full(x.shape[1], 0.5), out=out)[0]


def inference(x, out=None):
    return fastbn.batch_norm_inference(x, np.full(x.shape[1], 0.5), np.full(x.shape[1], 2.0), out=out)


def backward(dy, out=None):
    x = np.sin(np.arange(dy.size)).reshape(dy.shape).astype(dy.dtype)
    return fastbn.batch_norm_backward(dy, fastbn.batch_norm(x)[1], out=out)[0]


every_function = pytest.mark.parametrize("function", [forward, inference, backward])


# Layouts of out, as a view of guarded memory


def unaligned(room, shape):
    return room.view(np.uint8)[1 : 1 + room.itemsize * int(np.prod(shape))].view(room.dtype).reshape(shape)


def crop(room, shape):
    """The corner of a larger array."""
    larger = tuple(n + 1 for n in shape)
    return room[: int(np.prod(larger))].reshape(larger)[tuple(map(slice, shape))]


def transposed(room, shape):
    return room[: int(np.prod(shape))].reshape(shape[::-1]).T


LAYOUTS = {
    "contiguous": lambda room, shape: room[: int(np.prod(shape))].reshape(shape),
    "every second value": lambda room, shape: room[: 2 * int(np.prod(shape)) : 2].reshape(shape),
    "reversed": lambda room, shape: room[: int(np.prod(shape))].reshape(shape)[::-1, :, ::-1],
    "with gaps": crop,
    "transposed": transposed,
    "unaligned": unaligned,
}
every_layout = pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS.keys())


@every_function
@every_layout
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_of_any_layout(rng, function, make, dtype):
    x = rng.standard_normal(SHAPE).astype(dtype)
    room, inside = np.full((2, 4 * x.size), GUARD, dtype)
    out = make(room, SHAPE)
    make(inside, SHAPE)[...] = 1
    want = function(x)
    assert function(x, out=out) is out
    assert_same_bits(out, want)
    make(room, SHAPE)[...] = 1
    assert_same_bits(room, inside)


@every_function
@every_layout
def test_in_place_in_any_layout(rng, function, make):
    x = make(np.zeros(4 * np.prod(SHAPE)), SHAPE)
    x[...] = rng.standard_normal(SHAPE)
    want = function(x)
    assert function(x, out=x) is x
    assert_same_bits(x, want)


@every_function
@pytest.mark.parametrize("kind", ["memmap", "recarray"])
def test_out_of_a_subclass_is_returned_as_it_is(rng, tmp_path, function, kind):
    x = rng.standard_normal(SHAPE)
    out = np.zeros(SHAPE).view(np.recarray)
    if kind == "memmap":
        out = np.memmap(tmp_path / "y", x.dtype, "w+", shape=SHAPE)
    assert function(x, out=out) is out
    assert_same_bits(np.asarray(out), function(x))


@every_function
def test_in_place_through_another_view(rng, function):
    x = rng.standard_normal(SHAPE)
    want = function(x)
    function(x, out=x[:])
    assert_same_bits(x, want)


@every_function
def test_in_place_whatever_the_strides_of_axes_of_length_one(rng, function):
    x = rng.standard_normal((4, 1, 5))
    want = function(x)
    out = x.reshape(4, 5)[:, None, :]
    assert out.strides != x.strides
    function(x, out=out)
    assert_same_bits(x, want)


@every_function
@pytest.mark.parametrize("axis", range(4))
def test_out_between_the_values_of_the_input(rng, function, axis):
    """Their bounds overlap and their memory does not."""
    room = np.repeat(rng.standard_normal(SHAPE).astype(np.float32), 2, axis=axis)
    even, odd = (room[(slice(None),) * axis + (slice(start, None, 2),)] for start in (0, 1))
    x, want = even.copy(), function(even.copy())
    assert function(even, out=odd) is odd
    assert_same_bits(odd, want)
    assert_same_bits(even, x)


PARTS = {
    "shifted by a row": lambda room: (room[:6], room[1:7]),
    "shifted by a value": lambda room: (room.ravel()[:36].reshape(6, 6), room.ravel()[1:37].reshape(6, 6)),
    "one value in common": lambda room: (room.ravel()[:36].reshape(6, 6), room.ravel()[35:71].reshape(6, 6)),
    "transposed": lambda room: (room[:6], room[:6].T),
    "reversed": lambda room: (room[:6], room[:6, ::-1]),
    "every second row, and all": lambda room: (room[::2], room[:6]),
    "other rows of the same memory": lambda room: (room[0:12:2], room[2:8]),
}


@every_function
@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS.keys())
def test_a_part_of_the_input_is_refused(rng, function, make):
    room = rng.standard_normal((12, 6))
    before = room.copy()
    for a, b in (make(room), make(room)[::-1]):
        with pytest.raises(ValueError, match=r"^out must be d?[xy] itself or not overlap it, got a part "):
            function(a, out=b)
    assert_same_bits(room, before)


@every_function
def test_no_values(function):
    x = np.empty((4, 0, 3), np.float32)
    out = np.empty_like(x)
    assert function(x, out=out) is out
    assert function(x, out=x) is x


# Backward needs x


def batch(rng, dtype=np.float32):
    x, dy = rng.standard_normal((2, *SHAPE)).astype(dtype)
    return x, dy, rng.uniform(0.5, 1.5, SHAPE[1])


def assert_unusable(cache, dy):
    with pytest.raises(RuntimeError, match=r"^backward needs x, but out=x overwrote it"):
        fastbn.batch_norm_backward(dy, cache)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 1, 3, 0)])
@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[:]], ids=["x", "a view"])
def test_backward_after_a_forward_in_place_says_so(rng, order, view):
    x, dy, gamma = batch(rng)
    x, dy = x.transpose(order), dy.transpose(order)
    _, cache = fastbn.batch_norm(x, gamma, out=view(x))
    assert_unusable(cache, dy)


def test_the_layer_says_so_too(rng):
    x, dy, _ = batch(rng)
    layer = fastbn.BatchNorm(SHAPE[1])
    want = layer(x.copy())
    assert layer(x, out=x) is x
    assert_same_bits(x, want)
    with pytest.raises(RuntimeError, match="overwrote"):
        layer.backward(dy)
    layer(x)
    layer.backward(dy)


def test_backward_after_a_forward_in_place_of_memory_that_was_copied(rng):
    """The cache has the copy, which is x as it was."""
    x, dy, gamma = batch(rng)
    want = fastbn.batch_norm_backward(dy, fastbn.batch_norm(x, gamma)[1])[0]
    x = np.repeat(x, 2, axis=-1)[..., ::2]
    _, cache = fastbn.batch_norm(x, gamma, out=x)
    assert_same_bits(fastbn.batch_norm_backward(dy, cache)[0], want)
    assert_same_bits(fastbn.batch_norm_backward(dy, cache, out=x)[0], want)
    assert_same_bits(fastbn.batch_norm_backward(dy, cache)[0], want)


def test_backward_over_dy_leaves_the_cache_usable(rng):
    x, dy, gamma = batch(rng)
    cache = fastbn.batch_norm(x, gamma)[1]
    want = fastbn.batch_norm_backward(dy, cache)
    for _ in range(2):
        g = dy.copy()
        dx, dgamma, _ = fastbn.batch_norm_backward(g, cache, out=g)
        assert dx is g
        assert_same_bits(dx, want[0])
        assert_same_bits(dgamma, want[1])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("same", [False, True], ids=["dy apart", "dy is x"])
def test_backward_over_x_uses_the_cache_up(rng, frozen, same):
    x, dy, gamma = batch(rng)
    moments = fastbn.moments(x) if frozen else None
    cache = fastbn.batch_norm(x, gamma, moments=moments)[1]
    dy = x if same else dy
    want = fastbn.batch_norm_backward(dy.copy(), cache)
    dx, dgamma, _ = fastbn.batch_norm_backward(dy, cache, out=x)
    assert dx is x
    assert_same_bits(dx, want[0])
    assert_same_bits(dgamma, want[1])
    assert_unusable(cache, dy)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_backward_over_x_or_dy_of_different_layouts(rng, order):
    """x in the given order of axes, dy in C order: the result goes to either, element for element."""
    x, dy, gamma = batch(rng)
    want = fastbn.batch_norm_backward(dy, fastbn.batch_norm(x, gamma)[1])[0]
    for over in ("x", "dy"):
        a = {"x": x.transpose(order).copy().transpose(np.argsort(order)), "dy": dy.copy()}
        cache = fastbn.batch_norm(a["x"], gamma)[1]
        dx = fastbn.batch_norm_backward(a["dy"], cache, out=a[over])[0]
        assert dx is a[over]
        np.testing.assert_allclose(dx, want, rtol=0, atol=2e-6 * np.abs(want).max())
