"""Arrays beyond 2**31 elements. Slow, and 9 GiB of memory: `pytest -m slow`."""

import numpy as np
import pytest

import fastbn


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2**16 + 1, 2**15), (2**16 + 1, 2, 2**14)], ids=["columns", "runs"])
def test_beyond_two_to_the_31_in_place(shape):
    x = np.empty(shape, np.float32)
    x[0::2] = 0
    x[1::2] = 1  # per channel: n values, of which every second row is one
    n = x.size // shape[1]
    mean = (shape[0] // 2) / shape[0]
    y, cache = fastbn.batch_norm(x, out=x)
    assert cache.moments.count == n
    np.testing.assert_allclose(cache.moments.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(cache.moments.var(), mean * (1 - mean), rtol=1e-12)
    for row in (0, 1, shape[0] // 2, shape[0] - 2, shape[0] - 1):
        want = ((row % 2) - mean) / np.sqrt(mean * (1 - mean) + 1e-5)
        np.testing.assert_allclose(y[row], want, rtol=5e-7)
