"""python -m fastbn: what it prints, and that its check finds what is wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest

import fastbn
from fastbn import _bench, _kernels, _layout, _selfcheck, reference
from fastbn.__main__ import main
from fastbn._kernels import runtime
from fastbn._plain import Plain


class Altered:
    """A kernel module with another forward pass; `alter(y, threads)` changes y afterwards."""

    def __init__(self, kernel, alter):
        self.kernel, self.alter = kernel, alter

    def __getattr__(self, name):
        return getattr(self.kernel, name)

    def forward(self, x, y, *rest):
        self.kernel.forward(x, y, *rest)
        if y is not None:
            self.alter(y, rest[-1])


def step(y, *_):
    """The next number after the first."""
    y.flat[0] = np.nextafter(y.flat[0], np.inf, dtype=y.dtype)


@pytest.fixture
def few_shapes(monkeypatch):
    monkeypatch.setattr(_selfcheck, "SHAPES", (((515, 17), 1), ((10, 8, 16, 16), 1)))


def verdicts(capsys):
    """Claim -> "ok" or "FAILED, where" from the table that was printed."""
    lines = capsys.readouterr().out.splitlines()
    return {line.split("  ")[0]: line.split("  ")[-1] for line in lines if line.endswith("  ok") or "  FAILED" in line}


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "fastbn", *arguments], capture_output=True, text=True, timeout=300)


def test_check_holds_on_this_machine(capsys):
    assert main(["check"]) == 0
    found = verdicts(capsys)
    assert len(found) == 17
    assert set(found.values()) == {"ok"}


def test_check_covers_both_sides_of_every_threshold():
    plans, streamed = [], set()
    for shape, axis in _selfcheck.SHAPES:
        for itemsize in (4, 8):
            view = _layout.split(shape, axis % len(shape))
            streamed.add(int(np.prod(shape)) * itemsize >= 1 << 22)
            for arrays in (2, 3):
                plans += [_kernels.kernel.plan(view, True, itemsize, arrays, n) for n in _selfcheck.THREADS]
    assert streamed == {False, True}
    for by_rows in (False, True):
        assert {bool(p["slab"]) for p in plans if p["by_rows"] == by_rows} == {False, True}
        for part in ("blocks", "groups", "chunk"):
            assert {p[part] > 1 for p in plans if p["by_rows"] == by_rows} == {False, True}, part
    for part in ("tile", "segments"):
        assert {p[part] > 1 for p in plans} == {False, True}, part
    assert {p["leftover"] > 0 for p in plans if p["tile"] > 1} == {False, True}


@pytest.mark.parametrize("value", [1e-3, np.nan])
def test_check_finds_inaccuracy(few_shapes, monkeypatch, capsys, value):
    def alter(y, _):
        y.flat[0] += value

    monkeypatch.setattr(_kernels, "kernel", Altered(_kernels.kernel, alter))
    assert main(["check"]) == 1
    found = verdicts(capsys)
    for dtype in ("float32", "float64"):
        assert found[f"{dtype} y"].startswith(f"FAILED, {dtype} (")
        assert found[f"{dtype} dx"] == "ok"


def test_check_finds_a_target_that_differs(few_shapes, monkeypatch, capsys):
    load = _kernels.load
    worst = _kernels.FOUND[-1]
    monkeypatch.setattr(_kernels, "load", lambda name: Altered(load(name), step) if name == worst else load(name))
    assert main(["check"]) == 1
    failed = {name: verdict for name, verdict in verdicts(capsys).items() if verdict != "ok"}
    assert failed == {
        f"same bits on {', '.join(_kernels.FOUND)}": f"FAILED, float32 (515, 17) channel_axis=1 {worst}"
    }


@pytest.mark.skipif(not runtime.openmp_version(), reason="built without OpenMP")
def test_check_finds_a_thread_count_that_differs(few_shapes, monkeypatch, capsys):
    def alter(y, threads):
        if threads == 7:
            step(y)

    load = _kernels.load
    monkeypatch.setattr(_kernels, "load", lambda name: Altered(load(name), alter))
    assert main(["check"]) == 1
    failed = {name: verdict for name, verdict in verdicts(capsys).items() if verdict != "ok"}
    assert list(failed) == ["same bits on 1, 2, 3, 7 threads"]
    assert all(verdict.endswith("threads=7") for verdict in failed.values())


def test_check_finds_an_alignment_that_differs(few_shapes, monkeypatch, capsys):
    def alter(y, _):
        if y.ctypes.data % 64:
            step(y)

    load = _kernels.load
    monkeypatch.setattr(_kernels, "load", lambda name: Altered(load(name), alter))
    assert main(["check"]) == 1
    assert [name for name, verdict in verdicts(capsys).items() if verdict != "ok"] == ["same bits at any alignment"]


def test_check_leaves_settings_as_they_were(few_shapes):
    before = fastbn._threads.SERIAL_BELOW, fastbn._threads.VALUES_PER_THREAD, _kernels.kernel
    main(["check"])
    assert (fastbn._threads.SERIAL_BELOW, fastbn._threads.VALUES_PER_THREAD, _kernels.kernel) == before


@pytest.fixture
def few_cases(monkeypatch):
    cases = (_bench.Case("NCHW", (4, 3, 5, 6)), _bench.Case("NHWC", (4, 5, 6, 3)), _bench.Case("NC", (32, 64)))
    monkeypatch.setattr(_bench, "QUICK", cases)
    monkeypatch.setattr(_bench, "SECONDS_QUICK", 0.01)
    return cases


def test_bench_json(few_cases, capsys):
    assert main(["bench", "--quick", "--json", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert err == ""
    assert report["config"]["targets"]["used"] == fastbn.target()
    cells = [(r["layout"], tuple(r["shape"]), r["pass"], r["threads"]) for r in report["results"]]
    passes = ("forward", "backward", "inference")
    assert cells == [(case.layout, case.shape, name, 1) for case in few_cases for name in passes]
    for r in report["results"]:
        assert r["numpy_ratio"] == pytest.approx(r["numpy_ms"] / r["ms"])
        assert r["copy_fraction"] == pytest.approx(r["copy_ms"] / r["ms"])
        assert r["ms"] > 0


def test_bench_table_and_progress(few_cases, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["bench", "--quick"]) == 0
    out, err = capsys.readouterr()
    assert "\r" not in out
    assert [line.split()[0] for line in out.splitlines()[4::3]] == ["NCHW", "NHWC", "NC"]
    assert "[################........] 3/3 NC (32, 64)" in err
    assert err.endswith("\r")


@pytest.mark.parametrize("layout, shape", [("NCHW", (6, 5, 4, 3)), ("NHWC", (6, 4, 3, 5)), ("NC", (40, 5))])
def test_bench_compares_the_same_results(layout, shape):
    batch = _bench.Batch(_bench.Case(layout, shape), np.float64)
    options = {"channel_axis": batch.axis}
    y, cache = reference.batch_norm(batch.x, batch.gamma, batch.beta, **options)
    dx, dgamma, dbeta = reference.batch_norm_backward(batch.dy, cache)
    inference = reference.batch_norm_inference(batch.x, batch.mean, batch.var, batch.gamma, batch.beta, **options)
    near = {"rtol": 1e-12, "atol": 1e-12}
    for forward, backward, infer in (
        (batch.forward, batch.backward, batch.inference),
        (batch.plain.forward, batch.plain.backward, batch.plain_inference),
    ):
        for call, expected in ((forward, y), (backward, dx), (infer, inference)):
            batch.out[...] = 0
            call()
            np.testing.assert_allclose(batch.out, expected, **near)
    found = Plain(batch.x, batch.dy, batch.gamma, batch.beta, batch.out, batch.axis)
    np.testing.assert_allclose(found.moments()[1].ravel(), cache.moments[2] / cache.moments[0], **near)
    found.forward()
    for vector, expected in zip(found.backward(), (dgamma, dbeta), strict=True):
        np.testing.assert_allclose(vector.ravel(), expected, **near)
    batch.copy()
    np.testing.assert_array_equal(batch.out, batch.x)
    batch.add()
    np.testing.assert_array_equal(batch.out, batch.x + batch.dy)


def test_info(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    fastbn.show_config()
    assert printed == capsys.readouterr().out


def test_a_reader_that_leaves_is_no_traceback():
    command = [sys.executable, "-m", "fastbn", "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["bench", "--threads", "0"], "argument --threads: must be from 1 to 1024, got '0'"),
        (["bench", "--threads", "two"], "argument --threads: must be from 1 to 1024, got 'two'"),
        (["test"], "invalid choice: 'test'"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_without_arguments():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "ok: all 17 claims hold." in done.stdout
    assert done.stdout.count("forward") == len(_bench.QUICK)


def test_without_arguments_stops_at_a_failed_check(few_shapes, monkeypatch, capsys):
    monkeypatch.setattr(_kernels, "kernel", Altered(_kernels.kernel, step))
    assert main([]) == 1
    assert "NumPy ms" not in capsys.readouterr().out
