"""The definition of everything fastbn computes: plain NumPy, float64, written to be read.

Per channel, over the n values that share it (Goodfellow, Bengio, Courville, *Deep Learning*, section 8.7.1)::

    mu = mean(x)      v = mean((x - mu)^2)      xhat = (x - mu) / sqrt(v + eps)      y = gamma * xhat + beta

and backward, through mu and v (Ioffe and Szegedy 2015, section 3), with a = sum(dy) and b = sum(dy * xhat)::

    dbeta = a      dgamma = b      dx = gamma / sqrt(v + eps) * (dy - a/n - xhat * b/n)

The compiled kernels are tested against this file and never call it. It takes good arguments for granted (no error
texts, no ``out=``), returns float64 only, and needs nothing but NumPy. Moments are plain triples
``(count, mean, m2)`` with m2 = sum((x - mean)^2).
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]
Triple: TypeAlias = tuple[int, Array, Array]

# NaN and infinity are data here: they spread through their own channel and are nobody's warning.
_silent = np.errstate(invalid="ignore", divide="ignore", over="ignore")


class Cache(NamedTuple):
    """What backward needs of a forward."""

    xhat: Array  # (C, n)
    invstd: Array  # (C,)
    gamma: Array | None  # (C,)
    has_beta: bool
    moments: Triple
    frozen: bool  # the moments were given, so they are constants and no gradient passes through them
    channel_axis: int

    @property
    def mean(self) -> Array:
        return self.moments[1]


def _rows(x: ArrayLike, channel_axis: int) -> Array:
    """x as a float64 matrix (C, n), one contiguous row per channel: NumPy then sums each row pairwise."""
    x = np.moveaxis(np.asarray(x, dtype=np.float64), channel_axis, 0)
    return np.ascontiguousarray(x).reshape(x.shape[0], math.prod(x.shape[1:]))


def _unrows(rows: Array, shape: tuple[int, ...], channel_axis: int) -> Array:
    """The inverse of `_rows`, as a new array of the given shape."""
    others = list(shape)
    channels = others.pop(channel_axis)
    return np.moveaxis(rows.reshape(channels, *others), 0, channel_axis).copy()


def _vector(v: ArrayLike | None) -> Array | None:
    return None if v is None else np.array(v, dtype=np.float64)


def _centre(rows: Array) -> tuple[Array, Array]:
    """Split rows (C, n) into their mean (C,) and what is left of them (C, n), in two steps.

    The computed mean is wrong by a rounding of itself: 1e-10 standard deviations where mean/std is 1e6. The
    subtraction that follows is as exact as its result, so the mean of what it leaves is that error; the second
    subtraction takes it away. In a constant channel every step but the first is exact, and what is left is 0.
    """
    if rows.shape[1] == 0:
        return np.zeros(rows.shape[0]), rows
    mean = rows.mean(axis=1)
    left = rows - mean[:, None]
    error = left.mean(axis=1)
    return mean + error, left - error[:, None]


@_silent
def moments(x: ArrayLike, *, channel_axis: int = 1) -> Triple:
    """(count, mean, m2) of each channel; (0, 0, 0) for no values, the neutral element of `merge`."""
    mean, centred = _centre(_rows(x, channel_axis))
    return centred.shape[1], mean, (centred**2).sum(axis=1)


@_silent
def merge(a: Triple, b: Triple) -> Triple:
    """Moments of two batches together (Chan, Golub and LeVeque 1983)::

    n = na + nb      mean = ma + delta * nb/n      m2 = m2a + m2b + delta^2 * na * nb/n      delta = mb - ma
    """
    (na, mean_a, m2_a), (nb, mean_b, m2_b) = a, b
    if na == 0 or nb == 0:
        return a if nb == 0 else b
    n, delta = na + nb, mean_b - mean_a
    return n, mean_a + delta * (nb / n), m2_a + m2_b + delta**2 * (na * (nb / n))


@_silent
def update_running(mean: Array, var: Array, moments: Triple, momentum: float, unbiased: bool) -> tuple[Array, Array]:
    """Running mean and variance after one more batch: ``r + momentum * (new - r)``.

    `momentum` is the weight of the new value: 0 keeps r, 1 replaces it, both exactly and whatever the other holds.
    For the plain average of all batches so far (`RunningStats` with momentum None) the caller passes 1/k with the
    k-th batch. `unbiased` stores m2 / (n - 1), otherwise m2 / n.
    """
    count, batch_mean, m2 = moments
    batch_var = m2 / (count - 1 if unbiased else count)
    if momentum == 0:
        return mean, var
    if momentum == 1:
        return batch_mean, batch_var
    return mean + momentum * (batch_mean - mean), var + momentum * (batch_var - var)


@_silent
def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    channel_axis: int = 1,
    moments: Triple | None = None,
) -> tuple[Array, Cache]:
    """``y = gamma * (x - mu) / sqrt(v + eps) + beta`` and the cache for `batch_norm_backward`.

    mu and v = m2 / count are those of the batch, or of `moments` where given. A channel of equal values (a single
    one, too) gives y == beta exactly when eps > 0, and NaN when eps == 0. NaN or infinity makes its own channel NaN;
    with given moments, its own element.
    """
    rows = _rows(x, channel_axis)
    if moments is None:
        mean, centred = _centre(rows)
        stats = rows.shape[1], mean, (centred**2).sum(axis=1)
    else:
        stats = moments
        centred = rows - stats[1][:, None]
    count, _, m2 = stats
    invstd = 1 / np.sqrt(m2 / count + eps)
    xhat = centred * invstd[:, None]

    gamma, beta = _vector(gamma), _vector(beta)
    y = xhat
    if gamma is not None:
        y = y * gamma[:, None]
    if beta is not None:
        y = y + beta[:, None]
    cache = Cache(xhat, invstd, gamma, beta is not None, stats, moments is not None, channel_axis)
    return _unrows(y, np.shape(x), channel_axis), cache


@_silent
def batch_norm_backward(dy: ArrayLike, cache: Cache) -> tuple[Array, Array | None, Array | None]:
    """(dx, dgamma, dbeta) from dy; None for a gamma or beta that was not there. See the top of the file.

    Where the moments were given, mu and v are constants: dx = gamma / sqrt(v + eps) * dy.
    """
    g = _rows(dy, cache.channel_axis)
    n = g.shape[1]
    a = g.sum(axis=1)
    b = (g * cache.xhat).sum(axis=1)

    dx = g
    if not cache.frozen:
        dx = dx - (a / n)[:, None] - cache.xhat * (b / n)[:, None]
    dx = dx * cache.invstd[:, None]
    if cache.gamma is not None:
        dx = dx * cache.gamma[:, None]
    dgamma = None if cache.gamma is None else b
    dbeta = a if cache.has_beta else None
    return _unrows(dx, np.shape(dy), cache.channel_axis), dgamma, dbeta


def batch_norm_inference(
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    channel_axis: int = 1,
) -> Array:
    """``y = gamma * (x - mean) / sqrt(var + eps) + beta`` with the running statistics of training."""
    constants = 1, np.asarray(mean, dtype=np.float64), np.asarray(var, dtype=np.float64)
    return batch_norm(x, gamma, beta, eps=eps, channel_axis=channel_axis, moments=constants)[0]
