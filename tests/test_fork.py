"""Processes: a child works whether it was forked before or after threads were in use, or was not forked."""

import multiprocessing
import os

import numpy as np
import pytest
from processes import fresh

import fastbn
from fastbn._kernels import runtime

SERIAL = not runtime.openmp_version()
needs_openmp = pytest.mark.skipif(SERIAL, reason="built without OpenMP: one thread always")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")

FORK = """
import os, numpy as np, fastbn
x = np.random.default_rng(5).standard_normal((32, 16, 40, 40)).astype(np.float32)
def step(threads):
    y, cache = fastbn.batch_norm(x, num_threads=threads)
    return y.tobytes() + fastbn.batch_norm_backward(x, cache, num_threads=threads)[0].tobytes()
want = step({parent})
def child(depth):
    pid = os.fork()
    if pid == 0:
        same = step(2) == want
        if depth:
            same = same and child(depth - 1)
        os._exit(0 if same and (fastbn.get_num_threads() == 1) == {alone} else 1)
    return os.waitpid(pid, 0)[1] == 0
print(child({depth}))
"""


@needs_fork
@pytest.mark.parametrize("depth", [0, 1])
def test_a_child_forked_after_a_parallel_call_works_alone(depth):
    assert fresh(FORK.format(parent=2, alone=True, depth=depth)).endswith("True")


@needs_fork
@needs_openmp
def test_a_child_forked_before_keeps_its_threads():
    assert fresh(FORK.format(parent=1, alone=False, depth=0), OMP_NUM_THREADS="2").endswith("True")


def work(x):
    return fastbn.batch_norm(x, num_threads=2)[0].tobytes()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pools_of_processes(method):
    x = np.random.default_rng(5).standard_normal((32, 16, 40, 40)).astype(np.float32)
    want = work(x)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(work, [x] * 2).get(timeout=60) == [want] * 2


@needs_fork
@needs_openmp
def test_asking_for_the_number_opens_no_threads():
    code = """
import os, fastbn
fastbn.get_num_threads()
if os.fork() == 0:
    print(fastbn.get_num_threads(), flush=True)
    os._exit(0)
os.wait()
"""
    assert fresh(code, OMP_NUM_THREADS="2") == "2"
