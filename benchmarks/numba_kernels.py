"""Batch normalization in Numba as one would plainly write it: two sweeps for the statistics, one for y.

Channels first is an array (N, C, H*W) with channels shared out among the threads, channels last (rows, C) with blocks
of rows, whose sums are merged. `fastmath` lets the compiler vectorize the sums.
"""

from functools import cache

import numpy as np

try:
    import numba
    from numba import prange
except ImportError:  # asv imports every module of this directory
    prange = range

ROWS = 256  # of a block in channels last
SERIAL_BELOW = 65536  # values; below, waking threads costs more than they save
FLOAT, ZERO = np.float32, np.float32(0)


def forward_first(x, gamma, beta, eps, y, mean, invstd):
    outer, channels, inner = x.shape
    for c in prange(channels):
        total = 0.0
        for n in range(outer):
            part = ZERO
            for i in range(inner):
                part += x[n, c, i]
            total += part
        mu = FLOAT(total / (outer * inner))
        total = 0.0
        for n in range(outer):
            part = ZERO
            for i in range(inner):
                part += (x[n, c, i] - mu) ** 2
            total += part
        mean[c] = mu
        invstd[c] = 1 / np.sqrt(total / (outer * inner) + eps)
        scale, shift = gamma[c] * invstd[c], beta[c]
        for n in range(outer):
            for i in range(inner):
                y[n, c, i] = (x[n, c, i] - mu) * scale + shift


def backward_first(dy, x, gamma, mean, invstd, dx, dgamma, dbeta):
    outer, channels, inner = x.shape
    count = outer * inner
    for c in prange(channels):
        mu, total, product = mean[c], 0.0, 0.0
        for n in range(outer):
            part, part_product = ZERO, ZERO
            for i in range(inner):
                part += dy[n, c, i]
                part_product += dy[n, c, i] * (x[n, c, i] - mu)
            total += part
            product += part_product
        dbeta[c] = total
        dgamma[c] = product * invstd[c]
        scale, shift = gamma[c] * invstd[c], FLOAT(total / count)
        slope = FLOAT(product * invstd[c] * invstd[c] / count)
        for n in range(outer):
            for i in range(inner):
                dx[n, c, i] = scale * (dy[n, c, i] - shift - (x[n, c, i] - mu) * slope)


def inference_first(x, mean, var, gamma, beta, eps, y):
    outer, channels, inner = x.shape
    for k in prange(outer * channels):
        n, c = k // channels, k % channels
        mu, scale, shift = mean[c], FLOAT(gamma[c] / np.sqrt(var[c] + eps)), beta[c]
        for i in range(inner):
            y[n, c, i] = (x[n, c, i] - mu) * scale + shift


def forward_last(x, gamma, beta, eps, y, mean, invstd):
    rows, channels = x.shape
    blocks = (rows + ROWS - 1) // ROWS
    sums, squares = np.zeros((blocks, channels), FLOAT), np.zeros((blocks, channels), FLOAT)
    for k in prange(blocks):
        for r in range(k * ROWS, min(rows, k * ROWS + ROWS)):
            for c in range(channels):
                sums[k, c] += x[r, c]
    for c in range(channels):
        total = 0.0
        for k in range(blocks):
            total += sums[k, c]
        mean[c] = total / rows
    for k in prange(blocks):
        for r in range(k * ROWS, min(rows, k * ROWS + ROWS)):
            for c in range(channels):
                squares[k, c] += (x[r, c] - mean[c]) ** 2
    scale = np.empty(channels, FLOAT)
    for c in range(channels):
        total = 0.0
        for k in range(blocks):
            total += squares[k, c]
        invstd[c] = 1 / np.sqrt(total / rows + eps)
        scale[c] = gamma[c] * invstd[c]
    for k in prange(blocks):
        for r in range(k * ROWS, min(rows, k * ROWS + ROWS)):
            for c in range(channels):
                y[r, c] = (x[r, c] - mean[c]) * scale[c] + beta[c]


def backward_last(dy, x, gamma, mean, invstd, dx, dgamma, dbeta):
    rows, channels = x.shape
    blocks = (rows + ROWS - 1) // ROWS
    sums, products = np.zeros((blocks, channels), FLOAT), np.zeros((blocks, channels), FLOAT)
    for k in prange(blocks):
        for r in range(k * ROWS, min(rows, k * ROWS + ROWS)):
            for c in range(channels):
                sums[k, c] += dy[r, c]
                products[k, c] += dy[r, c] * (x[r, c] - mean[c])
    scale, shift, slope = np.empty(channels, FLOAT), np.empty(channels, FLOAT), np.empty(channels, FLOAT)
    for c in range(channels):
        total, product = 0.0, 0.0
        for k in range(blocks):
            total += sums[k, c]
            product += products[k, c]
        dbeta[c] = total
        dgamma[c] = product * invstd[c]
        scale[c] = gamma[c] * invstd[c]
        shift[c] = total / rows
        slope[c] = product * invstd[c] * invstd[c] / rows
    for k in prange(blocks):
        for r in range(k * ROWS, min(rows, k * ROWS + ROWS)):
            for c in range(channels):
                dx[r, c] = scale[c] * (dy[r, c] - shift[c] - (x[r, c] - mean[c]) * slope[c])


def inference_last(x, mean, var, gamma, beta, eps, y):
    rows, channels = x.shape
    scale = np.empty(channels, FLOAT)
    for c in range(channels):
        scale[c] = gamma[c] / np.sqrt(var[c] + eps)
    for k in prange((rows + ROWS - 1) // ROWS):
        for r in range(k * ROWS, min(rows, k * ROWS + ROWS)):
            for c in range(channels):
                y[r, c] = (x[r, c] - mean[c]) * scale[c] + beta[c]


def read(x):
    """The sum of a vector, in lanes that round: every value is loaded, nothing is stored."""
    total = ZERO
    for i in prange(x.size):
        total += x[i]
    return total


@cache
def compiled(function, parallel):
    return numba.njit(parallel=parallel, fastmath=True)(function)


def kernels(last, size):
    """Forward, backward and inference for a batch of `size` values."""
    first = forward_first, backward_first, inference_first
    functions = (forward_last, backward_last, inference_last) if last else first
    return [compiled(function, size >= SERIAL_BELOW) for function in functions]
