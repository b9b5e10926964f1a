"""Statistics that outlive a batch: moments that merge, and running averages of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastbn import _check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Moments:
    """Count, mean and sum of squared deviations of each channel. Immutable.

    Parameters
    ----------
    count : int
        Values per channel, at least 0. A float without a fraction is accepted, as it comes back from a float64
        all-reduce.
    mean, m2 : array_like, shape (C,)
        Mean, and sum of ``(x - mean)**2``. Stored as float64 copies that are read-only.

    Notes
    -----
    Moments of two batches merge into the moments of both, so that workers that each saw a part can normalize with
    the statistics of the whole: ``batch_norm(x, moments=mine.merge(theirs))``.

    Examples
    --------
    >>> import numpy as np, fastbn
    >>> mine, theirs = fastbn.moments(np.array([[1.0]])), fastbn.moments(np.array([[2.0], [6.0]]))
    >>> mine.merge(theirs)
    Moments(count=3, mean=[3.], m2=[14.])
    >>> mine.merge(theirs).var(ddof=1)
    array([7.])
    """

    __slots__ = ("_count", "_m2", "_mean")

    _count: int
    _mean: NDArray[np.float64]
    _m2: NDArray[np.float64]

    def __init__(self, count: int, mean: ArrayLike, m2: ArrayLike) -> None:
        self._set(*_check.moments_fields(count, mean, m2))

    @classmethod
    def _of(cls, count: int, mean: NDArray[np.float64], m2: NDArray[np.float64]) -> Moments:
        """Unchecked and uncopied: the two float64 arrays belong to the new object and become read-only."""
        self = cls.__new__(cls)
        self._set(count, mean, m2)
        return self

    def _set(self, count: int, mean: NDArray[np.float64], m2: NDArray[np.float64]) -> None:
        mean.flags.writeable = False
        m2.flags.writeable = False
        self._count, self._mean, self._m2 = count, mean, m2

    @property
    def count(self) -> int:
        """Values per channel."""
        return self._count

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel, shape (C,), read-only."""
        return self._mean

    @property
    def m2(self) -> NDArray[np.float64]:
        """Sum of squared deviations from the mean of each channel, shape (C,), read-only."""
        return self._m2

    def var(self, ddof: int = 0) -> NDArray[np.float64]:
        """Variance of each channel, ``m2 / (count - ddof)``; ddof=0 is the one that normalizes.

        Raises
        ------
        ValueError
            If count is not above ddof.
        """
        _check.ddof(ddof, self._count)
        return self._m2 / (self._count - ddof)

    def merge(self, other: Moments) -> Moments:
        """Moments of both batches together (Chan, Golub and LeVeque 1983).

        Moments with count 0 are the neutral element. The last bits depend on the order of merging: for equal bits
        everywhere, merge in the same order everywhere.
        """
        _check.moments_match(other, Moments, len(self._mean))
        if other._count == 0:
            return self
        if self._count == 0:
            return other
        count = self._count + other._count
        share = other._count / count
        delta = other._mean - self._mean
        return Moments._of(
            count,
            self._mean + delta * share,
            self._m2 + other._m2 + delta * delta * (self._count * share),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Through __init__, because pickled arrays come back writeable.
        return Moments, (self._count, self._mean, self._m2)

    def __repr__(self) -> str:
        mean, m2 = (np.array2string(v, precision=6, threshold=8) for v in (self._mean, self._m2))
        return f"Moments(count={self._count}, mean={mean}, m2={m2})"


class RunningStats:
    """Running mean and variance of each channel, for inference. They start as 0 and 1.

    Parameters
    ----------
    num_channels : int
        Number of channels C.
    momentum : float in [0, 1] or None, default 0.1
        Weight of the *new* value, ``running += momentum * (batch - running)``, as in PyTorch; Keras, Flax and ONNX
        call one minus this number momentum. None: the plain average of all updates so far, that is weight 1/k for
        the k-th. It averages per-batch variances; for the variance of all values pooled, merge `Moments`.
    unbiased : bool, default True
        Average ``m2 / (n - 1)`` (Bessel's correction, as PyTorch, Chainer and Caffe) or ``m2 / n`` (as Keras, Flax
        and ONNX).

    Examples
    --------
    >>> import numpy as np, fastbn
    >>> running = fastbn.RunningStats(1, momentum=0.5)
    >>> running.update(fastbn.moments(np.array([[1.0], [3.0]])))
    >>> running.mean, running.var
    (array([1.]), array([1.5]))
    """

    _stats: Moments
    _count: int

    def __init__(self, num_channels: int, *, momentum: float | None = 0.1, unbiased: bool = True) -> None:
        self._num_channels: int = _check.positive_int(num_channels, "num_channels")
        self._momentum: float | None = _check.momentum(momentum)
        self._unbiased = bool(unbiased)
        self.reset()

    @property
    def num_channels(self) -> int:
        """Number of channels C."""
        return self._num_channels

    @property
    def momentum(self) -> float | None:
        """Weight of the new value; None for the plain average."""
        return self._momentum

    @property
    def unbiased(self) -> bool:
        """Whether the variances averaged are ``m2 / (n - 1)``."""
        return self._unbiased

    @property
    def mean(self) -> NDArray[np.float64]:
        """Running mean, shape (C,), read-only; an update makes a new array."""
        return self._stats.mean

    @property
    def var(self) -> NDArray[np.float64]:
        """Running variance, shape (C,), read-only; an update makes a new array."""
        return self._stats.m2

    @property
    def count(self) -> int:
        """Number of updates so far."""
        return self._count

    @property
    def moments(self) -> Moments:
        """The running statistics as constants for ``batch_norm(x, moments=...)``: count 1, m2 = var."""
        return self._stats

    def update(self, moments: Moments) -> None:
        """Take in the statistics of one batch, usually ``cache.moments``.

        NaN in one channel of the batch makes that channel NaN and no other. momentum 0 changes nothing but the
        count; momentum 1 replaces.

        Raises
        ------
        ValueError
            If the number of channels differs, or the batch has too few values for its variance (2 where unbiased).
            Nothing is changed then.
        """
        _check.moments_match(moments, Moments, self._num_channels)
        if self._unbiased:
            _check.count_for_bessel(moments.count)
        var = moments.var(ddof=int(self._unbiased))
        weight = 1 / (self._count + 1) if self._momentum is None else self._momentum
        self._stats = Moments._of(1, _blend(self.mean, moments.mean, weight), _blend(self.var, var, weight))
        self._count += 1

    def load(self, mean: ArrayLike, var: ArrayLike, count: int) -> None:
        """Replace the statistics, by those of a checkpoint, say. Checked whole before anything is changed."""
        new_mean = _check.channel_vector(mean, "mean", self._num_channels)
        new_var = _check.channel_vector(var, "var", self._num_channels)
        new_count = _check.whole_number(count, "count")
        self._stats, self._count = Moments(1, new_mean, new_var), new_count

    def reset(self) -> None:
        """Back to mean 0, variance 1, count 0."""
        self._stats = Moments._of(1, np.zeros(self._num_channels), np.ones(self._num_channels))
        self._count = 0

    def __repr__(self) -> str:
        return (
            f"RunningStats({self._num_channels}, momentum={self._momentum}, unbiased={self._unbiased}, "
            f"count={self._count})"
        )


def _blend(old: NDArray[np.float64], new: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """old + weight * (new - old), exact at the weights 0 and 1, where NaN in the unused value must not spread."""
    if weight == 0:
        return old
    if weight == 1:
        return new
    return old + weight * (new - old)
