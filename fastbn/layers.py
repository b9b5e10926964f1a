"""Layers: parameters, running statistics and the batch in flight, kept together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastbn import _check, functional
from fastbn.statistics import RunningStats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, DTypeLike, NDArray


class BatchNorm:
    """Batch normalization with learned scale and shift and running statistics.

    Training normalizes with the statistics of the batch and then updates the running ones; after `eval` the running
    statistics normalize, as constants, and nothing is updated. Place it before the nonlinearity, ``phi(bn(x @ w))``;
    a bias there would be subtracted again with the mean, and beta does its work.

    Parameters
    ----------
    num_channels : int
        Number of channels C.
    eps : float, default 1e-5
        Added to the variance inside the root, ``1 / sqrt(var + eps)``. (Keras: 1e-3.)
    momentum : float in [0, 1] or None, default 0.1
        Weight of the *new* value in the running statistics, as in PyTorch; Keras, Flax and ONNX call one minus this
        number momentum. None: the plain average over all batches since the start.
    affine : bool, default True
        Whether there are gamma and beta.
    unbiased : bool, default True
        Whether the running variance takes in ``m2 / (n - 1)`` of each batch, or ``m2 / n``. What normalizes in
        training is always the biased ``m2 / n``.
    channel_axis : int, default 1
        Axis of x that holds the channels; -1 for channels last.
    dtype : float32 or float64, default float32
        Of gamma and beta, and so of dgamma and dbeta. The outputs have the dtype of x.

    Attributes
    ----------
    gamma, beta : ndarray of shape (C,) or None
        Scale and shift, 1 and 0 at the start; update them in place or assign.
    dgamma, dbeta : ndarray of shape (C,) or None
        Gradients of the last `backward`, replaced (not added to) by the next.
    running : RunningStats
        Running mean and variance in float64, and the number of updates.
    training : bool
        Set by `train` and `eval`; True at the start.

    Notes
    -----
    The layer keeps the last batch for `backward` until the next forward. Copies and pickles leave it out.

    Examples
    --------
    >>> import numpy as np, fastbn
    >>> bn = fastbn.BatchNorm(2)
    >>> y = bn(np.array([[1.0, 10.0], [3.0, 30.0]]))
    >>> dx = bn.backward(np.ones((2, 2)))
    >>> bn.dbeta
    array([2., 2.], dtype=float32)
    >>> bn.running.mean
    array([0.2, 2. ])
    """

    def __init__(
        self,
        num_channels: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        unbiased: bool = True,
        channel_axis: int = 1,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.running = RunningStats(num_channels, momentum=momentum, unbiased=unbiased)
        self.num_channels = self.running.num_channels
        self.eps: float = _check.eps(eps)
        self.channel_axis: int = _check.integer(channel_axis, "channel_axis")
        self.dtype: np.dtype[Any] = _check.float_dtype(dtype)
        self.gamma: NDArray[Any] | None = np.ones(self.num_channels, self.dtype) if affine else None
        self.beta: NDArray[Any] | None = np.zeros(self.num_channels, self.dtype) if affine else None
        self.dgamma: NDArray[Any] | None = None
        self.dbeta: NDArray[Any] | None = None
        self.training = True
        self._cache: Any = None

    def forward(self, x: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Normalize x; see `batch_norm` for layouts and `out`. A forward that raises leaves the layer as it was."""
        _check.layer_channels(x, self.channel_axis, self.num_channels)
        y, cache = functional.batch_norm(
            x,
            self.gamma,
            self.beta,
            eps=self.eps,
            channel_axis=self.channel_axis,
            moments=None if self.training else self.running.moments,
            out=out,
        )
        if self.training:
            self.running.update(cache.moments)
        self._cache = cache
        return y

    __call__ = forward

    def backward(self, dy: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Gradient at x of the last forward; sets dgamma and dbeta.

        After a forward in eval mode the statistics are constants: no gradient passes through them.

        Raises
        ------
        RuntimeError
            If there was no forward.
        """
        if self._cache is None:
            raise _check.no_cache()
        dx, self.dgamma, self.dbeta = functional.batch_norm_backward(dy, self._cache, out=out)
        return dx

    def train(self) -> BatchNorm:
        """Normalize with the statistics of the batch from now on; returns the layer."""
        self.training = True
        return self

    def eval(self) -> BatchNorm:
        """Normalize with the running statistics from now on; returns the layer."""
        self.training = False
        return self

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of parameters and running statistics under the five names that other frameworks use.

        weight (gamma) and bias (beta) where the layer has them, running_mean and running_var in float64,
        num_batches_tracked as a 0-d int64 array.
        """
        state = {name: np.array(parameter) for name, parameter in self._parameters().items()}
        state["running_mean"] = self.running.mean.copy()
        state["running_var"] = self.running.var.copy()
        state["num_batches_tracked"] = np.array(self.running.count, dtype=np.int64)
        return state

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Take over the values of a `state_dict`, this library's or PyTorch's.

        Anything that ``np.asarray`` takes is a value. All keys and shapes are checked before anything is changed.
        gamma and beta are written in place, in the layer's dtype.
        """
        parameters = self._parameters()
        _check.state_keys(state, (*parameters, "running_mean", "running_var", "num_batches_tracked"))
        new = {
            name: _check.channel_vector(state[name], name, self.num_channels)
            for name in (*parameters, "running_mean", "running_var")
        }
        count = _check.whole_number(state["num_batches_tracked"], "num_batches_tracked")
        for name, parameter in parameters.items():
            parameter[...] = new[name]
        self.running.load(new["running_mean"], new["running_var"], count)

    def _parameters(self) -> dict[str, NDArray[Any]]:
        named = {"weight": self.gamma, "bias": self.beta}
        return {name: parameter for name, parameter in named.items() if parameter is not None}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def __repr__(self) -> str:
        return (
            f"BatchNorm({self.num_channels}, eps={self.eps}, momentum={self.running.momentum}, "
            f"affine={self.gamma is not None}, unbiased={self.running.unbiased}, "
            f"channel_axis={self.channel_axis}, dtype={self.dtype})"
        )
