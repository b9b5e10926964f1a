"""Fused batch normalization for NumPy arrays, forward and backward."""

from fastbn._version import __version__
from fastbn.config import get_num_threads, num_threads, set_num_threads, show_config, target
from fastbn.functional import Cache, batch_norm, batch_norm_backward, batch_norm_inference, moments
from fastbn.layers import BatchNorm
from fastbn.statistics import Moments, RunningStats

__all__ = [
    "BatchNorm",
    "Cache",
    "Moments",
    "RunningStats",
    "__version__",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "get_num_threads",
    "moments",
    "num_threads",
    "set_num_threads",
    "show_config",
    "target",
]
