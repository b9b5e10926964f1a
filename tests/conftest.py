"""Fixtures of the grid: target x threads; dtype and layout are parameters of the tests."""

import numpy as np
import pytest

import fastbn
from fastbn import _kernels, _threads


@pytest.fixture(params=_kernels.TARGETS)
def target(request, monkeypatch):
    """Each compiled target in turn. One that was built and fails to load is an error, not a skip."""
    if request.param not in _kernels.BUILT:
        pytest.skip(f"target {request.param} is not built for this architecture")
    if request.param not in _kernels.FOUND:
        pytest.skip(f"this CPU does not run target {request.param}")
    monkeypatch.setattr(_kernels, "kernel", _kernels.load(request.param))
    assert fastbn.target() == request.param
    return request.param


@pytest.fixture
def always_parallel(monkeypatch):
    """As many threads as asked for, however small the array."""
    monkeypatch.setattr(_threads, "SERIAL_BELOW", 0)
    monkeypatch.setattr(_threads, "VALUES_PER_THREAD", 1)


@pytest.fixture
def rng():
    return np.random.default_rng(20260824)
