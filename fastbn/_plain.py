"""Batch normalization in NumPy alone, as fast as NumPy allows: what `bench` and the benchmarks compare with.

Large results go to arrays that exist already, a pass over the batch is one ufunc or one einsum, and no pass is made
that algebra can save. Statistics have the dtype of x, as NumPy code has them, so float32 is less accurate than
fastbn, and much less where the mean is large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbn import _layout

Array = NDArray[Any]


class Plain:
    """The passes over one batch x with gradient dy, both dense, written to `out`.

    Channels first is handled as (N, C, H*W) with vectors (C, 1), channels last as (N*H*W, C) with vectors (C,).
    """

    def __init__(self, x: Array, dy: Array, gamma: Array, beta: Array, out: Array, channel_axis: int) -> None:
        _, (outer, channels, inner) = _layout.place(x, channel_axis)
        last = inner == 1
        shape, vector = ((outer, channels), (channels,)) if last else ((outer, channels, inner), (channels, 1))
        self.x, self.dy, self.out = (a.reshape(shape) for a in (x, dy, out))
        self.gamma, self.beta = gamma.reshape(vector), beta.reshape(vector)
        self.axes = (0,) if last else (0, 2)
        self.dot = "rc,rc->c" if last else "nci,nci->c"
        self.count = outer * inner
        self.centred = np.zeros_like(self.x)  # x - mean, kept by forward for backward
        self.invstd = np.ones_like(self.gamma)

    def moments(self) -> tuple[Array, Array]:
        """mean and var; x - mean stays in `centred`."""
        mean = self.x.mean(self.axes).reshape(self.gamma.shape)
        np.subtract(self.x, mean, out=self.centred)
        return mean, self._dot(self.centred, self.centred) / self.count

    def forward(self, eps: float = 1e-5) -> None:
        """out = y"""
        _, var = self.moments()
        self.invstd = 1 / np.sqrt(var + eps)
        np.multiply(self.centred, self.gamma * self.invstd, out=self.out)
        np.add(self.out, self.beta, out=self.out)

    def backward(self) -> tuple[Array, Array]:
        """dgamma and dbeta; out = dx = gamma * invstd * (dy - dbeta/n - (x - mean) * invstd * dgamma/n)"""
        dbeta = self.dy.sum(self.axes).reshape(self.gamma.shape)
        dgamma = self._dot(self.dy, self.centred) * self.invstd
        np.multiply(self.centred, dgamma * self.invstd / -self.count, out=self.out)
        np.add(self.out, self.dy, out=self.out)
        np.subtract(self.out, dbeta / self.count, out=self.out)
        np.multiply(self.out, self.gamma * self.invstd, out=self.out)
        return dgamma, dbeta

    def inference(self, mean: Array, var: Array, eps: float = 1e-5) -> None:
        """out = y = x * scale + shift, two passes; cancels where |mean| is much larger than the deviation"""
        scale = self.gamma / np.sqrt(var.reshape(self.gamma.shape) + eps)
        np.multiply(self.x, scale, out=self.out)
        np.add(self.out, self.beta - mean.reshape(self.gamma.shape) * scale, out=self.out)

    def _dot(self, a: Array, b: Array) -> Array:
        found: Array = np.einsum(self.dot, a, b)
        return found.reshape(self.gamma.shape)
