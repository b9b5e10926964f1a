"""Threads: who sets their number, what limits it, forks, and Python threads that call at once."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from tolerances import assert_same_bits

import fastbn
from fastbn import _threads
from fastbn._kernels import runtime

SERIAL = not runtime.openmp_version()
needs_openmp = pytest.mark.skipif(SERIAL, reason="built without OpenMP: one thread always")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")


@pytest.fixture(autouse=True)
def default_afterwards():
    yield
    fastbn.set_num_threads(None)


def fresh(code, **environment):
    """What a new process prints."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "FASTBN_NUM_THREADS", "FASTBN_TARGET")}
    result = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, timeout=60
    )
    return (result.stdout + result.stderr).strip()


def batch():
    return np.random.default_rng(5).standard_normal((32, 16, 40, 40)).astype(np.float32)


@needs_openmp
def test_the_nearest_setting_wins():
    fastbn.set_num_threads(3)
    assert fastbn.get_num_threads() == 3
    with fastbn.num_threads(5):
        assert fastbn.get_num_threads() == 5
        with fastbn.num_threads(2):
            assert fastbn.get_num_threads() == 2
        assert fastbn.get_num_threads() == 5
    assert fastbn.get_num_threads() == 3
    with pytest.raises(KeyError), fastbn.num_threads(4):
        raise KeyError
    assert fastbn.get_num_threads() == 3
    assert _threads.resolve(7, 1 << 30) == 7


def test_small_calls_use_one_thread():
    fastbn.set_num_threads(8)
    assert _threads.resolve(None, 100) == 1
    assert _threads.resolve(8, _threads.SERIAL_BELOW - 1) == 1


@needs_openmp
def test_a_context_is_of_its_own_thread_and_task():
    seen = []
    with fastbn.num_threads(9):
        other = threading.Thread(target=lambda: seen.append(fastbn.get_num_threads()))
        other.start()
        other.join()
    assert seen != [9]

    async def task(n):
        with fastbn.num_threads(n):
            await asyncio.sleep(0.01)
            return fastbn.get_num_threads()

    async def both():
        return await asyncio.gather(task(4), task(6))

    assert asyncio.run(both()) == [4, 6]


@needs_openmp
@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"FASTBN_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "1"}, "1"),
        ({"OMP_NUM_THREADS": "5"}, "5"),
        ({"OMP_NUM_THREADS": "1", "FASTBN_NUM_THREADS": "2"}, "2"),
    ],
)
def test_variables(environment, want):
    assert fresh("import fastbn; print(fastbn.get_num_threads())", **environment) == want


@pytest.mark.parametrize("value", ["none", "0", "1025"])
def test_a_bad_variable_is_named(value):
    assert "FASTBN_NUM_THREADS must be" in fresh("import fastbn", FASTBN_NUM_THREADS=value)


def test_target_variable():
    assert fresh("import fastbn; print(fastbn.target())", FASTBN_TARGET="baseline") == "baseline"
    assert "FASTBN_TARGET must be one of" in fresh("import fastbn", FASTBN_TARGET="sse9")


@needs_openmp
def test_threadpoolctl_is_honoured():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    with threadpoolctl.threadpool_limits(1):
        assert fastbn.get_num_threads() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no affinity masks")
def test_affinity_is_honoured():
    confine = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert fresh(f"{confine}; import fastbn; print(fastbn.get_num_threads())") == "1"


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "max 100000"}, 1 << 20),
        ({"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000"}, 2),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 1 << 20),
        ({}, 1 << 20),
    ],
)
def test_container_quota(monkeypatch, files, want):
    def read_text(path):
        if path.name not in files:
            raise FileNotFoundError(path)
        return files[path.name] + "\n"

    monkeypatch.setattr(_threads.Path, "read_text", read_text)
    assert _threads.quota.__wrapped__() == want


FORK = """
import os, numpy as np, fastbn
x = np.random.default_rng(5).standard_normal((32, 16, 40, 40)).astype(np.float32)
want = fastbn.batch_norm(x, num_threads={parent})[0].tobytes()
def child(depth):
    pid = os.fork()
    if pid == 0:
        same = fastbn.batch_norm(x, num_threads=2)[0].tobytes() == want
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
    x = batch()
    want = work(x)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(work, [x] * 2).get(timeout=60) == [want] * 2


def test_eight_python_threads_get_the_bits_of_one():
    x = batch()
    want, _ = fastbn.batch_norm(x, num_threads=1)
    results = [None] * 8

    def call(i):
        for _ in range(5):
            results[i] = fastbn.batch_norm(x, num_threads=2)[0]

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert_same_bits(result, want)


@pytest.mark.skipif(not SERIAL, reason="built with OpenMP")
def test_a_serial_build_has_one_thread():
    fastbn.set_num_threads(4)
    assert fastbn.get_num_threads() == 1
