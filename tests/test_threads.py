"""Threads: who sets their number, what limits it, and Python threads that call at once."""

import asyncio
import contextvars
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import fresh
from tolerances import assert_same_bits

import fastbn
from fastbn import _kernels, _threads
from fastbn._kernels import runtime

SERIAL = not runtime.openmp_version()
needs_openmp = pytest.mark.skipif(SERIAL, reason="built without OpenMP: one thread always")


@pytest.fixture(autouse=True)
def default_afterwards():
    yield
    fastbn.set_num_threads(None)


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
def test_a_copied_context_takes_the_setting_along():
    with fastbn.num_threads(9):
        context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(context.run, fastbn.get_num_threads).result() == 9


@needs_openmp
def test_the_setting_holds_in_every_python_thread():
    fastbn.set_num_threads(9)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fastbn.get_num_threads).result() == 9


OPENED = """
import os, numpy as np, fastbn
x = np.zeros((32, 16, 40, 40), np.float32)
def threads():
    return len(os.listdir("/proc/self/task"))
before = threads()
fastbn.{call}
print(threads() - before + 1)
"""


@needs_openmp
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="this platform does not list threads")
@pytest.mark.parametrize(
    ("call", "want"),
    [
        ("moments(x)", "5"),
        ("moments(x, num_threads=3)", "3"),
        ("batch_norm(x, num_threads=1)", "1"),
        ("batch_norm_inference(x, np.ones(16), np.ones(16), num_threads=2)", "2"),
        ("batch_norm_backward(x, fastbn.batch_norm(x, num_threads=1)[1], num_threads=4)", "4"),
        ("batch_norm(x[0], num_threads=4)", "1"),
        ("get_num_threads()", "1"),
    ],
)
def test_as_many_threads_as_were_asked_for(call, want):
    assert fresh(OPENED.format(call=call), FASTBN_NUM_THREADS="5") == want


@needs_openmp
@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"FASTBN_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "1"}, "1"),
        ({"OMP_NUM_THREADS": "5"}, "5"),
        ({"OMP_NUM_THREADS": "1", "FASTBN_NUM_THREADS": "2"}, "2"),
        ({"OMP_NUM_THREADS": "5", "FASTBN_NUM_THREADS": ""}, "5"),
    ],
)
def test_variables(environment, want):
    assert fresh("import fastbn; print(fastbn.get_num_threads())", **environment) == want


@pytest.mark.parametrize("value", ["none", "0", "1025"])
def test_a_bad_variable_is_named(value):
    assert "FASTBN_NUM_THREADS must be" in fresh("import fastbn", FASTBN_NUM_THREADS=value)


@pytest.mark.parametrize("name", ["", *_kernels.FOUND])
def test_target_variable(name):
    printed = fresh("import fastbn; print(fastbn.target())", FASTBN_TARGET=name)
    assert printed == (name or _kernels.FOUND[0])


def test_a_bad_target_is_an_import_error():
    printed = fresh("import fastbn", FASTBN_TARGET="sse9")
    known = ", ".join(_kernels.FOUND)
    assert f"ImportError: FASTBN_TARGET must be one of {known}, got 'sse9', which is not known" in printed


@needs_openmp
def test_threadpoolctl_is_honoured():
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    code = """
import fastbn, threadpoolctl
counts = [fastbn.get_num_threads()]
with threadpoolctl.threadpool_limits(1):
    counts.append(fastbn.get_num_threads())
print(*counts, fastbn.get_num_threads())
"""
    assert fresh(code, OMP_NUM_THREADS="3") == "3 1 3"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no affinity masks")
def test_affinity_is_honoured():
    confine = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    for order in (f"{confine}; import fastbn", f"import fastbn; {confine}"):
        assert fresh(f"{order}; print(fastbn.get_num_threads())") == "1"


@needs_openmp
def test_the_default_is_the_least_of_three_limits(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(_threads, "_setting", None)
    limits = {"affinity": 8, "quota": 8}
    for name in limits:
        monkeypatch.setattr(_threads, name, lambda name=name: limits[name])
    monkeypatch.setattr(runtime, "openmp_max_threads", lambda: 8)
    assert fastbn.get_num_threads() == 8
    for name in limits:
        limits[name] = 3
        assert fastbn.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "8")  # somebody's choice, and to be trusted
        assert fastbn.get_num_threads() == 8
        monkeypatch.delenv("OMP_NUM_THREADS")
        limits[name] = 8


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


def test_eight_python_threads_get_the_bits_of_one():
    x = batch()
    gamma = np.linspace(0.5, 1.5, 16)

    def step(shift, threads):
        """Of its own batch: forward, then backward."""
        y, cache = fastbn.batch_norm(x + np.float32(shift), gamma, num_threads=threads)
        return y, cache.mean, *fastbn.batch_norm_backward(x, cache, num_threads=threads)[:2]

    want = [step(shift, 1) for shift in range(8)]
    start = threading.Barrier(8)

    def call(shift):
        start.wait()
        return [step(shift, 2) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        for results, wanted in zip(pool.map(call, range(8)), want, strict=True):
            for result in results:
                for a, b in zip(result, wanted, strict=True):
                    assert_same_bits(a, b)


def test_other_python_threads_run_during_a_call():
    """Ticks of another thread in the middle half of a call, which with the GIL held would be one silence."""
    x = np.zeros((4, 4, 1 << 20), np.float32)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.wait(1e-4):
            ticks.append(time.perf_counter())

    def ticks_during_a_call():
        begin = time.perf_counter()
        fastbn.batch_norm_inference(x, [0.0] * 4, [1.0] * 4, out=x, num_threads=1)
        quarter = (time.perf_counter() - begin) / 4
        return any(begin + quarter < t < begin + 3 * quarter for t in ticks)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        assert any(ticks_during_a_call() for _ in range(20))
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not SERIAL, reason="built with OpenMP")
def test_a_serial_build_has_one_thread():
    fastbn.set_num_threads(4)
    assert fastbn.get_num_threads() == 1
