"""The functions: check the arguments, lay the arrays out, call a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastbn import _check, _kernels, _layout, _threads
from fastbn.statistics import Moments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MEAN, MEAN_LO, M2, INVSTD = range(4)  # rows of what a kernel writes to `stats`


class Cache:
    """What `batch_norm_backward` needs of a forward call. Holds references to x and gamma, not copies.

    Attributes
    ----------
    moments : Moments
        Statistics of the batch, or those that were given.
    mean, invstd : ndarray of shape (C,), float64
        What x was normalized with, ``invstd = 1 / sqrt(var + eps)``.
    """

    __slots__ = ("_beta_dtype", "_gamma", "_given", "_overwritten", "_shape", "_stats", "_view", "_x")

    _x: NDArray[Any]
    _view: _layout.View
    _shape: tuple[int, ...]
    _gamma: NDArray[Any] | None
    _beta_dtype: np.dtype[Any] | None
    _stats: NDArray[np.float64]
    _given: Moments | None
    _overwritten: bool

    @property
    def mean(self) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = self._stats[MEAN]
        return mean

    @property
    def invstd(self) -> NDArray[np.float64]:
        invstd: NDArray[np.float64] = self._stats[INVSTD]
        return invstd

    @property
    def moments(self) -> Moments:
        if self._given is not None:
            return self._given
        return Moments._of(self._view[0] * self._view[2], self._stats[MEAN], self._stats[M2])

    def __repr__(self) -> str:
        how = "given moments" if self._given is not None else "batch moments"
        return f"Cache(shape={self._shape}, dtype={self._x.dtype}, {how})"


def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    channel_axis: int = 1,
    moments: Moments | None = None,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[NDArray[Any], Cache]:
    """Normalize each channel of a batch by its mean and variance, then scale and shift it.

    ``y = gamma * (x - mean) / sqrt(var + eps) + beta``, with mean and (biased) variance over all axes but the
    channels: section 8.7.1 of Goodfellow, Bengio and Courville, *Deep Learning* (2016).

    Parameters
    ----------
    x : array_like, float32 or float64, shape (N, C, ...)
        The batch; channels at `channel_axis`. Memory that is dense in any order of its axes is used as it is.
        Anything else (gaps, repeats, reversed or unaligned or byte-swapped memory) is copied once.
    gamma, beta : array_like, float32 or float64, shape (C,), optional
        Scale and shift, each optional by itself: one and zero.
    eps : float, default 1e-5
        Added to the variance inside the root; zero is allowed. In units of x squared.
    channel_axis : int, default 1
        Axis of x that holds the channels; -1 for channels last.
    moments : Moments, optional
        Normalize with these statistics instead of the batch's own. They are constants to `batch_norm_backward`
        (frozen batch norm).
    out : ndarray, optional
        Where to write y: shape and dtype of x, writeable; x itself, or without overlap with any input. After
        ``out=x`` the cache cannot be used for a backward call, since x is gone.
    num_threads : int, optional
        For this call; see `set_num_threads`. It never changes a bit of the result.

    Returns
    -------
    y : ndarray
        Shape, dtype and memory order of x; `out` if it was given.
    cache : Cache
        For `batch_norm_backward`; ``cache.moments`` for `RunningStats.update`. It refers to x and gamma: change
        them only after the backward call.

    Raises
    ------
    TypeError, ValueError
        For an argument that does not fit, named in the message, before anything is written. A batch with less than
        two values per channel has no variance and is refused, unless `moments` are given.

    Notes
    -----
    Statistics are float64 whatever the dtype of x, and y is centred with a mean of twice x's precision, so that
    the accuracy of y does not depend on the mean of x. A constant channel gives ``y == beta`` exactly. NaN and
    infinity spread over their channel and no further. With ``eps=0`` a constant channel gives NaN.

    Examples
    --------
    >>> import numpy as np, fastbn
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> y, cache = fastbn.batch_norm(x, eps=0)
    >>> y
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> cache.moments.mean
    array([ 2., 20.])
    """
    given = _check.array(x, "x")
    placed, view = _layout.place(given, channel_axis)
    channels = view[1]
    gamma = _check.vector(gamma, "gamma", channels)
    beta = _check.vector(beta, "beta", channels)
    eps = _check.eps(eps)
    mean = var = None
    if moments is None:
        _check.trainable(given.shape, view)
    else:
        _check.constants(moments, Moments, channels)
        mean, var = moments.mean, moments.var()
    in_place = _check.out(out, given, "x", (gamma, beta), ("gamma", "beta"))
    threads = _threads.resolve(num_threads, placed.size)

    y = _layout.target(out, placed)
    stats = np.empty((4, channels))
    _forward(placed, y, view, gamma, beta, mean, var, stats, eps, threads)
    stats.setflags(write=False)
    cache = Cache()
    cache._x = placed
    cache._view = view
    cache._shape = given.shape
    cache._gamma = gamma
    cache._beta_dtype = None if beta is None else beta.dtype
    cache._stats = stats
    cache._given = moments
    cache._overwritten = in_place and placed is given
    return _delivered(y, out), cache


def batch_norm_backward(
    dy: ArrayLike, cache: Cache, *, out: NDArray[Any] | None = None, num_threads: int | None = None
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """Gradients of `batch_norm`, through the mean and the variance of the batch.

    With ``xhat = (x - mean) * invstd`` and sums over the n values of a channel, ``dbeta = sum(dy)``,
    ``dgamma = sum(dy * xhat)`` and ``dx = gamma * invstd * (dy - dbeta / n - xhat * dgamma / n)`` (Ioffe and Szegedy,
    2015). Where the forward call was given `moments`, these are constants: ``dx = gamma * invstd * dy``.

    Parameters
    ----------
    dy : array_like
        Gradient at y: shape and dtype of x. Copied once if its memory order is not that of x.
    cache : Cache
        Of the forward call. Can be used again, as long as x is not overwritten.
    out : ndarray, optional
        Where to write dx: shape and dtype of dy, writeable; dy itself or x itself, or without overlap with any
        input. After ``out=x`` the cache cannot be used again.
    num_threads : int, optional
        For this call; see `set_num_threads`.

    Returns
    -------
    dx : ndarray
        Shape, dtype and memory order of x; `out` if it was given.
    dgamma, dbeta : ndarray of shape (C,), or None
        In the dtypes of gamma and beta; None where there was none.

    Raises
    ------
    TypeError, ValueError
        For an argument that does not fit, before anything is written.
    RuntimeError
        If x was overwritten by ``out=``.

    Examples
    --------
    >>> import numpy as np, fastbn
    >>> x = np.array([[1.0], [2.0], [6.0]])
    >>> y, cache = fastbn.batch_norm(x, gamma=np.ones(1), eps=0)
    >>> dx, dgamma, dbeta = fastbn.batch_norm_backward(np.array([[1.0], [0.0], [0.0]]), cache)
    >>> dx.round(4)
    array([[ 0.1763],
           [-0.2204],
           [ 0.0441]])
    >>> dgamma.round(4), dbeta
    (array([-0.9258]), None)
    """
    _check.cache(cache, Cache)
    x, view, gamma = cache._x, cache._view, cache._gamma
    given = _check.gradient(dy, cache._shape, x.dtype)
    in_place = _check.out(out, given, "dy", (gamma,), ("gamma",), also=x)
    threads = _threads.resolve(num_threads, x.size)
    if in_place and _check.same_memory(out, x):
        cache._overwritten = True
    dy = _layout.beside(given, x)

    dx = _layout.target(out, x)
    sums = np.empty((2, view[1]))
    frozen = cache._given is not None
    if x.size:
        kernel = _kernels.kernel
        work = np.empty(kernel.workspace(view, True, x.itemsize, 3, threads))
        kernel.backward(dy, x, dx, view, gamma, cache._stats, sums, work, frozen, threads)
    else:
        sums[...] = 0.0
    dgamma = None if gamma is None else sums[0].astype(gamma.dtype)
    dbeta = None if cache._beta_dtype is None else sums[1].astype(cache._beta_dtype)
    return _delivered(dx, out), dgamma, dbeta


def batch_norm_inference(
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    channel_axis: int = 1,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Normalize with given statistics, usually running averages: ``gamma * (x - mean) / sqrt(var + eps) + beta``.

    Parameters
    ----------
    x, gamma, beta, eps, channel_axis, out, num_threads
        As in `batch_norm`. Batches of any size, empty ones included.
    mean, var : array_like, float32 or float64, shape (C,)
        Statistics. A negative variance (below -eps) gives NaN.

    Returns
    -------
    y : ndarray
        Shape, dtype and memory order of x; `out` if it was given.

    Raises
    ------
    TypeError, ValueError
        For an argument that does not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastbn
    >>> fastbn.batch_norm_inference(np.array([[3.0, 7.0]]), mean=np.array([1.0, 1.0]), var=np.array([4.0, 9.0]), eps=0)
    array([[1., 2.]])
    """
    given = _check.array(x, "x")
    placed, view = _layout.place(given, channel_axis)
    channels = view[1]
    gamma = _check.vector(gamma, "gamma", channels)
    beta = _check.vector(beta, "beta", channels)
    mean = _check.required_vector(mean, "mean", channels)
    var = _check.required_vector(var, "var", channels)
    eps = _check.eps(eps)
    _check.out(out, given, "x", (gamma, beta, mean, var), ("gamma", "beta", "mean", "var"))
    threads = _threads.resolve(num_threads, placed.size)

    y = _layout.target(out, placed)
    _forward(placed, y, view, gamma, beta, mean, var, None, eps, threads)
    return _delivered(y, out)


def moments(x: ArrayLike, *, channel_axis: int = 1, num_threads: int | None = None) -> Moments:
    """Count, mean and sum of squared deviations of each channel, in float64.

    Parameters
    ----------
    x, channel_axis, num_threads
        As in `batch_norm`. A batch of any size: the moments of an empty one are neutral in a merge.

    Returns
    -------
    Moments

    Raises
    ------
    TypeError, ValueError
        For an argument that does not fit.

    Examples
    --------
    >>> import numpy as np, fastbn
    >>> fastbn.moments(np.array([[1.0, 5.0], [3.0, 5.0]]))
    Moments(count=2, mean=[2. 5.], m2=[2. 0.])
    """
    placed, view = _layout.place(_check.array(x, "x"), channel_axis)
    threads = _threads.resolve(num_threads, placed.size)
    stats = np.empty((4, view[1]))
    _forward(placed, None, view, None, None, None, None, stats, 0.0, threads)
    return Moments._of(view[0] * view[2], stats[MEAN], stats[M2])


def _forward(
    x: NDArray[Any],
    y: NDArray[Any] | None,
    view: _layout.View,
    gamma: NDArray[Any] | None,
    beta: NDArray[Any] | None,
    mean: NDArray[Any] | None,
    var: NDArray[Any] | None,
    stats: NDArray[np.float64] | None,
    eps: float,
    threads: int,
) -> None:
    if not x.size:
        if stats is not None:
            stats[...] = 0.0
            if mean is not None and var is not None:
                with np.errstate(divide="ignore", invalid="ignore"):
                    stats[MEAN], stats[M2], stats[INVSTD] = mean, var, 1.0 / np.sqrt(var + eps)
        return
    kernel = _kernels.kernel
    work = np.empty(kernel.workspace(view, mean is None, x.itemsize, 1 if y is None else 2, threads))
    kernel.forward(x, y, view, gamma, beta, mean, var, stats, work, eps, threads)


def _delivered(result: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    if out is None or result is out:
        return result
    out[...] = result
    return out
