"""Any layout gives the results of the C-contiguous array; dense ones without a copy, others through one."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from tolerances import assert_grad, assert_same_bits, assert_y

import fastbn
from fastbn import reference

SHAPE = (6, 5, 4, 7)


def problem(rng, shape, axis, dtype=np.float32):
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    return x, dy, rng.uniform(0.5, 1.5, shape[axis]), rng.standard_normal(shape[axis])


def everything(x, dy, gamma, beta, axis):
    """Results of the shape of x, the others, and the cache."""
    y, cache = fastbn.batch_norm(x, gamma, beta, channel_axis=axis)
    dx, dgamma, dbeta = fastbn.batch_norm_backward(dy, cache)
    m = fastbn.moments(x, channel_axis=axis)
    z = fastbn.batch_norm_inference(x, m.mean, m.var(), gamma, beta, channel_axis=axis)
    return (y, dx, z), (dgamma, dbeta, m.mean, m.m2, cache.mean, cache.invstd), cache


def assert_equal_results(got, want):
    for results in zip(got[:2], want[:2], strict=True):
        for a, b in zip(*results, strict=True):
            assert_same_bits(a, b)


def memory_order(a):
    return sorted(range(a.ndim), key=lambda i: -a.strides[i])


# Dense memory


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5), (3, 4, 2, 5), (2, 3, 4, 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_order_of_axes_and_every_channel_axis(rng, shape, dtype):
    """A transposed view gives the bits of the array that it is a view of, and its results have its layout."""
    for axis in range(len(shape)):
        x, dy, gamma, beta = problem(rng, shape, axis, dtype)
        want = everything(x, dy, gamma, beta, axis)
        for order in permutations(range(len(shape))):
            view, dview, at = x.transpose(order), dy.transpose(order), order.index(axis)
            got = everything(view, dview, gamma, beta, at)
            assert got[2]._x is view
            assert_equal_results(got, (tuple(a.transpose(order) for a in want[0]), want[1]))
            for result in got[0]:
                assert result.strides == view.strides
            negative = fastbn.batch_norm(view, gamma, beta, channel_axis=at - len(shape))[0]
            assert_same_bits(negative, got[0][0])


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 1, 2, 0), (1, 0, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_order_is_the_definition(target, rng, order, dtype):
    x, dy, gamma, beta = problem(rng, SHAPE, order[1], dtype)
    x, dy = x.transpose(order), dy.transpose(order)
    (y, dx, _), _, _ = everything(x, dy, gamma, beta, 1)
    want, cache = reference.batch_norm(x, gamma, beta)
    assert_y(y, want, dtype)
    assert_grad(dx, reference.batch_norm_backward(dy, cache)[0], dtype)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_dy_in_another_order_than_x(rng, order):
    x, dy, gamma, beta = problem(rng, (4, 3, 5), 1)
    want = everything(x, dy, gamma, beta, 1)
    other = np.ascontiguousarray(dy.transpose(order)).transpose(np.argsort(order))
    got = everything(x, other, gamma, beta, 1)
    assert_equal_results(got, want)
    assert got[0][1].strides == x.strides


@pytest.mark.parametrize("shape", [(6, 1, 5), (1, 4, 1, 5), (4, 1), (1, 3, 5), (7, 3, 1, 1)])
def test_axes_of_length_one_have_no_stride(rng, shape):
    """Their strides mean nothing: any number there, even one that would leave memory."""
    x, dy, gamma, beta = problem(rng, shape, 1)
    want = everything(x, dy, gamma, beta, 1)
    for stride in (0, -4, 2**62, 3):
        strides = [stride if n == 1 else s for n, s in zip(shape, x.strides, strict=True)]
        odd = as_strided(x, strides=strides)
        got = everything(odd, as_strided(dy, strides=strides), gamma, beta, 1)
        assert got[2]._x is odd
        assert_equal_results(got, want)


# Everything else


def gaps(a):
    return np.repeat(a, 2, axis=-1)[..., ::2]


def unaligned(a):
    room = np.empty(a.nbytes + 1, np.uint8)[1:]
    copy = room.view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def field(a):
    records = np.zeros(a.shape, [("first", np.uint8), ("value", a.dtype)])
    records["value"] = a
    return records["value"]


def swapped(a):
    return a.astype(a.dtype.newbyteorder())


def far_apart(a):
    """Two halves, more than 2^31 bytes apart; what lies between is never touched."""
    half = len(a) // 2
    stride = 2**31 + 4096
    room = np.zeros(stride + a.nbytes, np.uint8)
    view = as_strided(room.view(a.dtype), (2, half, *a.shape[1:]), (stride, *a.strides))
    view[...] = a.reshape(view.shape)
    return view


COPIED = {
    "gaps in the last axis": gaps,
    "gaps in the first axis": lambda a: np.repeat(a, 3, axis=0)[::3],
    "gaps within": lambda a: np.concatenate([a, a], axis=1)[:, : a.shape[1]],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "reversed everywhere": lambda a: np.flip(np.flip(a).copy()),
    "unaligned": unaligned,
    "field of a record": field,
    "byte-swapped": swapped,
    "byte-swapped with gaps": lambda a: gaps(swapped(a)),
    "unaligned and reversed": lambda a: unaligned(a[..., ::-1])[..., ::-1],
}


@pytest.mark.parametrize("make", COPIED.values(), ids=COPIED.keys())
@pytest.mark.parametrize("axis", [0, 1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_layouts_go_through_a_copy(rng, make, axis, dtype):
    x, dy, gamma, beta = problem(rng, SHAPE, axis, dtype)
    want = everything(x, dy, gamma, beta, axis)
    x_before = make(x).tobytes()
    other = make(x)
    got = everything(other, make(dy), gamma, beta, axis)
    assert_equal_results(got, want)
    assert got[2]._x is not other
    assert other.tobytes() == x_before


@pytest.mark.parametrize("make", COPIED.values(), ids=COPIED.keys())
def test_other_layouts_of_transposed_memory_keep_its_order(rng, make):
    x, dy, gamma, beta = problem(rng, SHAPE, 3)
    view = make(x).transpose(0, 3, 1, 2)
    (y, dx, _), _, _ = everything(view, make(dy).transpose(0, 3, 1, 2), gamma, beta, 1)
    assert memory_order(y) == memory_order(dx) == [0, 2, 3, 1]
    assert_same_bits(y, fastbn.batch_norm(x, gamma, beta, channel_axis=3)[0].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("make", COPIED.values(), ids=COPIED.keys())
def test_one_copy_of_x_and_no_more(rng, make):
    x = make(rng.standard_normal((16, 16, 16, 16)))
    dense = np.array(x, x.dtype.newbyteorder("="), order="C")
    peaks = []
    for a in (dense, x):
        fastbn.batch_norm(a, out=np.empty_like(dense))
        out = np.empty_like(dense)
        tracemalloc.start()
        fastbn.batch_norm(a, out=out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < x.nbytes / 8
    assert peaks[1] - peaks[0] < x.nbytes * 9 / 8


@pytest.mark.parametrize(("repeated", "axis"), [(0, 1), (1, 1), (2, 1), (2, -1)])
def test_repeated_memory(rng, repeated, axis):
    shape = [6, 5, 4]
    shape[repeated] = 1
    x = np.broadcast_to(rng.standard_normal(shape), (6, 5, 4))
    dy = rng.standard_normal((6, 5, 4))
    y, cache = fastbn.batch_norm(x, channel_axis=axis)
    want, wanted = reference.batch_norm(x, channel_axis=axis)
    assert_y(y, want, np.float64)
    assert_grad(
        fastbn.batch_norm_backward(dy, cache)[0], reference.batch_norm_backward(dy, wanted)[0], np.float64
    )
    got = fastbn.batch_norm_backward(np.broadcast_to(np.float64(1), x.shape), cache)[0]
    assert np.abs(got).max() < 1e-12


def test_rows_more_than_two_gigabytes_apart(rng):
    x, dy, gamma, beta = problem(rng, (8, 5, 6), 1)
    want = everything(x.reshape(2, 4, 5, 6), dy.reshape(2, 4, 5, 6), gamma, beta, 2)
    assert_equal_results(everything(far_apart(x), dy.reshape(2, 4, 5, 6), gamma, beta, 2), want)


# What is taken for an array


def mapped(path, a, mode):
    a.tofile(path)
    return np.memmap(path, a.dtype, mode, shape=a.shape)


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_memory_maps(rng, tmp_path, mode):
    x, dy, gamma, beta = problem(rng, SHAPE, 1)
    got = everything(mapped(tmp_path / "x", x, mode), mapped(tmp_path / "dy", dy, mode), gamma, beta, 1)
    assert_equal_results(got, everything(x, dy, gamma, beta, 1))
    assert type(got[0][0]) is np.ndarray


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_other_subclasses_give_plain_arrays(rng):
    x, dy, gamma, beta = problem(rng, (6, 5), 1)
    want = everything(x, dy, gamma, beta, 1)
    for make in (np.matrix, lambda a: a.view(np.recarray)):
        got = everything(make(x), make(dy), gamma, beta, 1)
        assert_equal_results(got, want)
        assert {type(a) for results in got[:2] for a in results} == {np.ndarray}


def test_read_only_arrays_are_not_copied_or_written(rng):
    arguments = problem(rng, SHAPE, 1)
    want = everything(*arguments, 1)
    for a in arguments:
        a.flags.writeable = False
    got = everything(*arguments, 1)
    assert_equal_results(got, want)
    assert got[2]._x is arguments[0]
    assert got[0][0].flags.writeable


def test_lists_and_arrays_of_other_libraries(rng):
    class Foreign:
        def __init__(self, a):
            self.a = a

        def __array__(self, dtype=None, copy=None):
            return self.a

    arguments = problem(rng, SHAPE, 1, np.float64)
    want = everything(*arguments, 1)
    assert_equal_results(everything(*(a.tolist() for a in arguments), 1), want)
    assert_equal_results(everything(*map(Foreign, arguments), 1), want)


@pytest.mark.parametrize(
    "make",
    [swapped, gaps, unaligned, lambda a: a[::-1].copy()[::-1], np.float32, lambda a: a.astype(">f4"), list],
)
def test_vectors_of_any_layout(rng, make):
    """gamma, beta, mean and var; of float32 the values are those of float32."""
    x, dy, gamma, beta = problem(rng, SHAPE, 1)
    gamma, beta = (v.astype(np.float32).astype(np.float64) for v in (gamma, beta))
    (y, dx, _), _, _ = everything(x, dy, gamma, beta, 1)
    (got_y, got_dx, _), (dgamma, dbeta, *_), _ = everything(x, dy, make(gamma), make(beta), 1)
    assert_same_bits(got_y, y)
    assert_same_bits(got_dx, dx)
    assert dgamma.dtype == dbeta.dtype == np.asarray(make(gamma)).dtype.newbyteorder("=")
    z = fastbn.batch_norm_inference(x, beta, gamma, gamma, beta)
    assert_same_bits(fastbn.batch_norm_inference(x, make(beta), make(gamma), make(gamma), make(beta)), z)


@pytest.mark.parametrize("dtype", [object, complex, int, "U3", "M8[s]", [("a", np.float32)], "V4"])
def test_arrays_of_anything_else_are_refused(dtype):
    x = np.zeros((4, 3), dtype)
    for call in (fastbn.batch_norm, fastbn.moments, fastbn.BatchNorm(3)):
        with pytest.raises(TypeError, match=r"^x must be float32 or float64, got "):
            call(x)
