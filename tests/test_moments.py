"""Moments merge into the moments of the whole; running statistics change only when told, and then wholly."""

import copy
import pickle

import numpy as np
import pytest

import fastbn
from fastbn import Moments, RunningStats, reference


def moments_of(rng, count=5, channels=3):
    return Moments(count, rng.normal(size=channels), rng.uniform(1, 9, channels))


def state(running):
    return running.count, running.mean.tobytes(), running.var.tobytes()


# Moments


def test_fields(rng):
    mean, m2 = [1, 2, 3], np.array([4, 5, 6], dtype=np.float32)
    m = Moments(np.int32(4), mean, m2)
    assert type(m.count) is int
    assert m.count == 4
    for values, expected in ((m.mean, mean), (m.m2, m2)):
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, expected)


def test_count_from_an_all_reduce():
    assert Moments(17.0, [0.0], [1.0]).count == 17
    assert Moments(np.array(17.0), [0.0], [1.0]).count == 17


def test_immutable(rng):
    mean, m2 = rng.normal(size=3), rng.uniform(1, 2, 3)
    m = Moments(5, mean, m2)
    with pytest.raises(AttributeError):
        m.mean = mean
    with pytest.raises(ValueError, match="read-only"):
        m.mean[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        m.m2[0] = 1
    before = m.mean.copy()
    mean[...] = 7  # the caller's own array stays the caller's
    np.testing.assert_array_equal(m.mean, before)


@pytest.mark.parametrize("remake", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_immutable(rng, remake):
    m = moments_of(rng)
    again = remake(m)
    assert again.count == m.count
    np.testing.assert_array_equal(again.mean, m.mean)
    np.testing.assert_array_equal(again.m2, m.m2)
    assert not again.mean.flags.writeable


def test_repr():
    assert repr(Moments(3, [0.5, 1], [2, 0])) == "Moments(count=3, mean=[0.5 1. ], m2=[2. 0.])"
    assert len(repr(Moments(3, np.zeros(4096), np.zeros(4096)))) < 100


def test_var(rng):
    m = moments_of(rng, count=5)
    np.testing.assert_array_equal(m.var(), m.m2 / 5)
    np.testing.assert_array_equal(m.var(ddof=1), m.m2 / 4)


def test_moments_of_parts_merge_into_the_whole(rng):
    x = rng.normal(3, 2, (17, 4, 3))
    parts = [fastbn.moments(part) for part in np.split(x, [1, 6])]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    whole = reference.moments(x)
    assert merged.count == whole[0] == 51
    np.testing.assert_allclose(merged.mean, whole[1], rtol=1e-15)
    np.testing.assert_allclose(merged.m2, whole[2], rtol=1e-14)


def test_merge_is_the_reference(rng):
    a, b = moments_of(rng, 3), moments_of(rng, 1000)
    merged = a.merge(b)
    count, mean, m2 = reference.merge((a.count, a.mean, a.m2), (b.count, b.mean, b.m2))
    assert merged.count == count
    np.testing.assert_array_equal(merged.mean, mean)
    np.testing.assert_allclose(merged.m2, m2, rtol=1e-15)


def test_no_values_are_the_neutral_element(rng):
    m = moments_of(rng)
    empty = fastbn.moments(np.empty((0, 3)))
    assert empty.count == 0
    assert m.merge(empty) is m
    assert empty.merge(m) is m
    assert empty.merge(empty).count == 0


def test_merged_constant_channels_stay_constant():
    parts = [fastbn.moments(np.full((n, 1), 0.1)) for n in (1, 5, 11)]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.mean[0] == 0.1
    assert merged.m2[0] == 0


def test_normalizing_with_merged_moments(rng):
    """Two workers that exchange moments produce what one does."""
    x = rng.normal(50, 3, (16, 4, 5))
    shared = fastbn.moments(x[:5]).merge(fastbn.moments(x[5:]))
    whole, _ = fastbn.batch_norm(x)
    parts = [fastbn.batch_norm(part, moments=shared)[0] for part in (x[:5], x[5:])]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Moments(-1, [0.0], [0.0]), ValueError, "count must be a whole number"),
        (lambda: Moments(2.5, [0.0], [0.0]), ValueError, "count must be a whole number"),
        (lambda: Moments(np.inf, [0.0], [0.0]), ValueError, "count must be a whole number"),
        (lambda: Moments(np.nan, [0.0], [0.0]), ValueError, "count must be a whole number"),
        (lambda: Moments("3", [0.0], [0.0]), TypeError, "count must be a number, got str"),
        (lambda: Moments(None, [0.0], [0.0]), TypeError, "count must be a number, got NoneType"),
        (lambda: Moments(np.array([3.0, 4.0]), [0.0], [0.0]), TypeError, "count must be a number"),
        (lambda: Moments(3, 0.0, [0.0]), ValueError, r"mean must have shape \(C,\), got \(\)"),
        (lambda: Moments(3, [0.0, 1.0], [0.0]), ValueError, r"m2 must have shape \(2,\), got \(1,\)"),
        (lambda: Moments(3, [1j], [0.0]), TypeError, "mean must .* got complex128"),
        (lambda: Moments(3, ["a"], [0.0]), TypeError, "mean must .* got <U1"),
        (lambda: Moments(3, [0.0], [0.0]).var(ddof=3), ValueError, "ddof must be less than the count, 3, got 3"),
        (lambda: Moments(0, [0.0], [0.0]).var(), ValueError, "ddof must be less than the count, 0, got 0"),
        (lambda: Moments(3, [0.0], [0.0]).merge((3, [0.0], [0.0])), TypeError, "moments must be a Moments, got tuple"),
        (
            lambda: Moments(3, [0.0], [0.0]).merge(Moments(0, [0.0, 0.0], [0.0, 0.0])),
            ValueError,
            "moments must have 1 channels, got 2",
        ),
    ],
)
def test_errors_of_moments(make, error, text):
    with pytest.raises(error, match=text):
        make()


# Running statistics


def test_start():
    running = RunningStats(3)
    np.testing.assert_array_equal(running.mean, np.zeros(3))
    np.testing.assert_array_equal(running.var, np.ones(3))
    assert running.mean.dtype == running.var.dtype == np.float64
    assert (running.count, running.momentum, running.unbiased, running.num_channels) == (0, 0.1, True, 3)
    assert repr(running) == "RunningStats(3, momentum=0.1, unbiased=True, count=0)"


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.5, 1.0, None])
@pytest.mark.parametrize("unbiased", [False, True])
def test_update_is_the_reference(rng, momentum, unbiased):
    running = RunningStats(3, momentum=momentum, unbiased=unbiased)
    mean, var = np.zeros(3), np.ones(3)
    for k in range(1, 6):
        m = moments_of(rng, count=3 + k)
        running.update(m)
        weight = 1 / k if momentum is None else momentum
        mean, var = reference.update_running(mean, var, (m.count, m.mean, m.m2), weight, unbiased)
        np.testing.assert_allclose(running.mean, mean, rtol=1e-15)
        np.testing.assert_allclose(running.var, var, rtol=1e-15)
        assert running.count == k


def test_no_momentum_is_the_plain_average(rng):
    running = RunningStats(3, momentum=None)
    batches = [moments_of(rng, count=n) for n in (4, 9, 16)]
    for m in batches:
        running.update(m)
    np.testing.assert_allclose(running.mean, np.mean([m.mean for m in batches], axis=0), rtol=1e-14)
    np.testing.assert_allclose(running.var, np.mean([m.var(ddof=1) for m in batches], axis=0), rtol=1e-14)


def test_momentum_zero_keeps_and_one_replaces(rng):
    bad = Moments(4, np.full(3, np.nan), np.full(3, np.nan))
    good = moments_of(rng)
    keeping, replacing = RunningStats(3, momentum=0), RunningStats(3, momentum=1)
    for m in (bad, good):
        keeping.update(m)
        replacing.update(m)
    np.testing.assert_array_equal(keeping.mean, np.zeros(3))
    np.testing.assert_array_equal(keeping.var, np.ones(3))
    np.testing.assert_array_equal(replacing.mean, good.mean)
    np.testing.assert_array_equal(replacing.var, good.var(ddof=1))
    assert keeping.count == replacing.count == 2


def test_nan_stays_in_its_channel(rng):
    running, clean = RunningStats(3), RunningStats(3)
    m = moments_of(rng)
    running.update(Moments(m.count, np.where([0, 1, 0], np.nan, m.mean), np.where([0, 1, 0], np.nan, m.m2)))
    clean.update(m)
    for got, expected in ((running.mean, clean.mean), (running.var, clean.var)):
        np.testing.assert_array_equal(got, np.where([0, 1, 0], np.nan, expected))


def test_arrays_handed_out_do_not_change(rng):
    running = RunningStats(3)
    mean, frozen = running.mean, running.moments
    running.update(moments_of(rng))
    np.testing.assert_array_equal(mean, np.zeros(3))
    np.testing.assert_array_equal(frozen.var(), np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        running.mean[0] = 1
    with pytest.raises(AttributeError):
        running.mean = mean


def test_running_moments_are_constants_with_the_running_variance(rng):
    running = RunningStats(3)
    running.update(moments_of(rng))
    assert running.moments.count == 1
    np.testing.assert_array_equal(running.moments.mean, running.mean)
    np.testing.assert_array_equal(running.moments.var(), running.var)


def test_load_and_reset(rng):
    running = RunningStats(3)
    mean, var = rng.normal(size=3).astype(np.float32), rng.uniform(1, 2, 3)
    running.load(mean, var, 12)
    np.testing.assert_array_equal(running.mean, mean)
    np.testing.assert_array_equal(running.var, var)
    assert running.count == 12
    var[...] = 0
    assert (running.var != 0).all()
    running.reset()
    assert state(running) == state(RunningStats(3))


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies_go_their_own_way(rng, remake):
    running = RunningStats(3, momentum=None, unbiased=False)
    running.update(moments_of(rng))
    again = remake(running)
    assert state(again) == state(running)
    assert repr(again) == repr(running)
    again.update(moments_of(rng))
    assert state(again) != state(running)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda r: r.update(Moments(1, np.zeros(3), np.zeros(3))), ValueError, "at least 2 values .* got count 1"),
        (lambda r: r.update(Moments(0, np.zeros(3), np.zeros(3))), ValueError, "at least 2 values .* got count 0"),
        (lambda r: r.update(Moments(5, np.zeros(2), np.zeros(2))), ValueError, "moments must have 3 channels, got 2"),
        (lambda r: r.update(np.zeros(3)), TypeError, "moments must be a Moments, got ndarray"),
        (lambda r: r.load(np.zeros(2), np.zeros(3), 0), ValueError, r"mean must have shape \(3,\), got \(2,\)"),
        (lambda r: r.load(np.zeros(3), np.zeros((3, 1)), 0), ValueError, r"var must have shape \(3,\), got \(3, 1\)"),
        (lambda r: r.load(np.zeros(3), np.zeros(3), -1), ValueError, "count must be a whole number .* got -1"),
        (lambda r: r.load(np.zeros(3), None, 0), TypeError, "var must be an array of real numbers, got object"),
    ],
)
def test_what_raises_changes_nothing(rng, change, error, text):
    running = RunningStats(3)
    running.update(moments_of(rng))
    before = state(running)
    with pytest.raises(error, match=text):
        change(running)
    assert state(running) == before


def test_biased_statistics_of_one_value():
    running = RunningStats(1, momentum=1, unbiased=False)
    running.update(Moments(1, [5.0], [0.0]))
    assert (running.mean[0], running.var[0]) == (5.0, 0.0)
    with pytest.raises(ValueError, match="ddof must be less than the count, 0"):
        running.update(Moments(0, [5.0], [0.0]))
    assert running.count == 1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"num_channels": 0}, ValueError, "num_channels must be at least 1, got 0"),
        ({"num_channels": 2.0}, TypeError, "num_channels must be an integer, got float"),
        ({"num_channels": 2, "momentum": 1.5}, ValueError, "momentum must be from 0 to 1, or None, got 1.5"),
        ({"num_channels": 2, "momentum": -0.1}, ValueError, "momentum must be from 0 to 1, or None, got -0.1"),
        ({"num_channels": 2, "momentum": np.nan}, ValueError, "momentum must be from 0 to 1, or None, got nan"),
        ({"num_channels": 2, "momentum": "0.1"}, TypeError, "momentum must be a number, got str"),
    ],
)
def test_errors_of_running_stats(arguments, error, text):
    with pytest.raises(error, match=text):
        RunningStats(**arguments)
