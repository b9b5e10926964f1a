"""Every error: its type, its exact text, and nothing written before it is raised."""

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import fastbn
from fastbn import _check, _kernels, _threads

SOURCE = Path(__file__).parents[1] / "fastbn"


class Given:
    """Good arguments for every function, and all that a call that fails must leave alone."""

    def __init__(self):
        rng = np.random.default_rng(5)
        self.x_room, self.dy_room = rng.standard_normal((2, 24)).astype(np.float32)
        self.x, self.dy = self.x_room[:18].reshape(6, 3), self.dy_room[:18].reshape(6, 3)
        self.x_part, self.dy_part = self.x_room[6:].reshape(6, 3), self.dy_room[6:].reshape(6, 3)
        self.vector = np.ones(3)
        self.out = np.full((6, 3), 77, np.float32)
        self.cache = fastbn.batch_norm(self.x, self.vector, self.vector)[1]
        self.moments = self.cache.moments
        self.running = fastbn.RunningStats(3)
        self.running.update(self.moments)
        self.layer = fastbn.BatchNorm(3)
        self.layer(self.x)
        self.layer.backward(self.dy)

    def state(self):
        layer, running, cache = self.layer, self.running, self.cache
        arrays = {
            **{name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)},
            **layer.state_dict(),
            "gradients": np.array([layer.dgamma, layer.dbeta]),
            "running": np.array([running.mean, running.var, np.full(3, running.count)]),
            "cache": np.array([cache.mean, cache.invstd]),
        }
        bits = {name: value.tobytes() for name, value in arrays.items()}
        return bits, layer.training, layer._cache, cache._overwritten, _threads._setting

    def forward(self, **options):
        defaults = {"x": self.x, "gamma": self.vector, "beta": self.vector, "out": self.out}
        return fastbn.batch_norm(**defaults | options)

    def inference(self, **options):
        defaults = {"x": self.x, "mean": self.vector, "var": self.vector, "out": self.out}
        return fastbn.batch_norm_inference(**defaults | options)

    def backward(self, **options):
        return fastbn.batch_norm_backward(**{"dy": self.dy, "cache": self.cache, "out": self.out} | options)

    def load(self, **changes):
        return self.layer.load_state_dict(self.layer.state_dict() | changes)


def read_only(a):
    a.flags.writeable = False
    return a


def repeating(a):
    return as_strided(a, strides=(0, 4))


def overwritten(x):
    return fastbn.batch_norm(x, out=x)[1]


MASKED = "must be an array without a mask, got a masked array; fill it first"
PART = "itself or not overlap it, got a part of its memory"
AXIS = "channel_axis must be from -2 to 1 for x of shape (6, 3)"
ONE_VALUE = "Expected more than 1 value per channel when training, got input size"
KEYS = "state must have the keys weight, bias, running_mean, running_var, num_batches_tracked, got"

TYPE_ERRORS = [
    (f"x {MASKED}", lambda g: g.forward(x=np.ma.array(g.x))),
    (f"gamma {MASKED}", lambda g: g.forward(gamma=np.ma.ones(3))),
    (f"dy {MASKED}", lambda g: g.backward(dy=np.ma.array(g.dy))),
    ("x must be float32 or float64, got int32", lambda g: g.forward(x=np.ones((6, 3), np.int32))),
    ("x must be float32 or float64, got object", lambda g: g.inference(x=None)),
    ("x must be float32 or float64, got bool", lambda g: fastbn.moments([[True, False]] * 2)),
    ("x must be float32 or float64, got float16", lambda g: g.layer(g.x.astype(np.float16))),
    ("dy must be float32 or float64, got complex64", lambda g: g.backward(dy=g.dy + 0j)),
    ("gamma must be float32 or float64, got bool", lambda g: g.forward(gamma=[True] * 3)),
    ("beta must be float32 or float64, got <U3", lambda g: g.forward(beta="123")),
    ("mean must be float32 or float64, got object", lambda g: g.inference(mean=None)),
    ("var must be float32 or float64, got float16", lambda g: g.inference(var=np.ones(3, np.float16))),
    ("channel_axis must be an integer, got float", lambda g: g.forward(channel_axis=1.0)),
    ("channel_axis must be an integer, got NoneType", lambda g: fastbn.moments(g.x, channel_axis=None)),
    ("channel_axis must be an integer, got str", lambda g: fastbn.BatchNorm(3, channel_axis="last")),
    ("dy must have the dtype of x, float32, got float64", lambda g: g.backward(dy=g.dy.astype(np.float64))),
    ("eps must be a number, got str", lambda g: g.forward(eps="1e-5")),
    ("eps must be a number, got NoneType", lambda g: g.inference(eps=None)),
    ("num_threads must be an integer, got float", lambda g: g.inference(num_threads=2.0)),
    ("num_threads must be an integer, got str", lambda g: fastbn.moments(g.x, num_threads="2")),
    ("n must be an integer, got NoneType", lambda g: fastbn.num_threads(None).__enter__()),
    ("num_channels must be an integer, got float", lambda g: fastbn.BatchNorm(3.0)),
    ("momentum must be a number, got str", lambda g: fastbn.BatchNorm(3, momentum="0.1")),
    ("dtype must be float32 or float64, got float16", lambda g: fastbn.BatchNorm(3, dtype=np.float16)),
    ("count must be a number, got list", lambda g: fastbn.Moments([1], [0.0], [0.0])),
    ("mean must be an array of real numbers, got <U1", lambda g: fastbn.Moments(1, ["a"], [0.0])),
    ("weight must be an array of real numbers, got complex128", lambda g: g.load(weight=g.vector + 0j)),
    ("moments must be a Moments, got tuple", lambda g: g.forward(moments=(6, 0, 1))),
    ("moments must be a Moments, got NoneType", lambda g: g.moments.merge(None)),
    ("state must be a mapping, got NoneType", lambda g: g.layer.load_state_dict(None)),
    ("ddof must be a number, got str", lambda g: g.moments.var(ddof="1")),
    ("cache must be the Cache that batch_norm returned, got Moments", lambda g: g.backward(cache=g.moments)),
]

VALUE_ERRORS = [
    ("x must have at least 2 dimensions, (N, C), got shape ()", lambda g: g.forward(x=np.float32(1))),
    ("x must have at least 2 dimensions, (N, C), got shape (3,)", lambda g: g.layer(g.x[0])),
    (f"{AXIS}, got 2", lambda g: g.forward(channel_axis=2)),
    (f"{AXIS}, got -3", lambda g: g.inference(channel_axis=-3)),
    ("gamma must have shape (3,), got (4,)", lambda g: g.forward(gamma=np.ones(4))),
    ("mean must have shape (3,), got (1, 3)", lambda g: g.inference(mean=np.ones((1, 3)))),
    ("var must have shape (3,), got (2,)", lambda g: g.inference(var=np.ones(2))),
    (f"{ONE_VALUE} (1, 3)", lambda g: g.forward(x=g.x[:1], out=g.out[:1])),
    (f"{ONE_VALUE} (0, 3)", lambda g: g.forward(x=g.x[:0], out=g.out[:0])),
    (f"{ONE_VALUE} (1, 3, 1, 1)", lambda g: g.layer(g.x[:1, :, None, None])),
    (f"{ONE_VALUE} (1, 1, 3)", lambda g: g.forward(x=g.x[None, :1], channel_axis=-1)),
    ("dy must have the shape of x, (6, 3), got (5, 3)", lambda g: g.backward(dy=g.dy[:5])),
    (f"out must be x {PART}", lambda g: g.backward(out=g.x_part)),
    (f"out must be dy {PART}", lambda g: g.backward(out=g.dy_part)),
    (f"out must be x {PART}", lambda g: g.layer(g.x, out=g.x_part)),
    (f"out must be x {PART}", lambda g: g.inference(out=g.x[::-1])),
    ("out must not overlap gamma", lambda g: g.forward(gamma=g.out[1])),
    ("out must not overlap beta", lambda g: g.forward(beta=g.out[5])),
    ("out must not overlap mean", lambda g: g.inference(mean=g.out[0])),
    ("out must not overlap var", lambda g: g.inference(var=g.out[2])),
    ("out must not overlap gamma", lambda g: g.backward(cache=fastbn.batch_norm(g.x, g.out[2])[1])),
    ("eps must be finite and not negative, got -1e-05", lambda g: g.forward(eps=-1e-5)),
    ("eps must be finite and not negative, got nan", lambda g: g.inference(eps=np.nan)),
    ("eps must be finite and not negative, got inf", lambda g: fastbn.BatchNorm(3, eps=np.inf)),
    (
        "moments must have a count of at least 1, got 0",
        lambda g: g.forward(moments=fastbn.Moments(0, np.zeros(3), np.zeros(3))),
    ),
    ("num_threads must be at least 1, got 0", lambda g: g.forward(num_threads=0)),
    ("num_threads must be at least 1, got 0", lambda g: g.backward(num_threads=0, out=g.x)),
    ("num_threads must be at most 1024, got 1025", lambda g: g.forward(num_threads=1025)),
    ("n must be at least 1, got 0", lambda g: fastbn.set_num_threads(0)),
    (f"n must be at most 1024, got {10**30}", lambda g: fastbn.num_threads(10**30).__enter__()),
    ("FASTBN_NUM_THREADS must be an integer, got 'two'", lambda g: _check.threads_variable("two")),
    ("FASTBN_NUM_THREADS must be at least 1, got 0", lambda g: _check.threads_variable("0")),
    ("num_channels must be at least 1, got 0", lambda g: fastbn.RunningStats(0)),
    ("momentum must be from 0 to 1, or None, got 1.5", lambda g: fastbn.RunningStats(3, momentum=1.5)),
    ("momentum must be from 0 to 1, or None, got nan", lambda g: fastbn.BatchNorm(3, momentum=np.nan)),
    ("mode must be 'stdout' or 'dicts', got 'text'", lambda g: fastbn.show_config("text")),
    ("count must be a whole number from 0 on, got 1.5", lambda g: fastbn.Moments(1.5, [0.0], [0.0])),
    ("mean must have shape (C,), got ()", lambda g: fastbn.Moments(1, 0.0, 0.0)),
    ("m2 must have shape (1,), got (2,)", lambda g: fastbn.Moments(1, [0.0], [0.0, 0.0])),
    ("moments must have 3 channels, got 1", lambda g: g.forward(moments=fastbn.Moments(6, [0.0], [1.0]))),
    ("moments must have 3 channels, got 1", lambda g: g.moments.merge(fastbn.Moments(6, [0.0], [1.0]))),
    ("moments must have 3 channels, got 1", lambda g: g.running.update(fastbn.Moments(6, [0.0], [1.0]))),
    ("ddof must be less than the count, 6, got 6", lambda g: g.moments.var(ddof=6)),
    (
        "an unbiased variance needs moments of at least 2 values per channel, got count 1",
        lambda g: g.running.update(fastbn.moments(g.x[:1])),
    ),
    ("var must have shape (3,), got (2,)", lambda g: g.running.load(g.vector, np.ones(2), 1)),
    ("count must be a whole number from 0 on, got 0.5", lambda g: g.running.load(g.vector, g.vector, 0.5)),
    ("running_mean must have shape (3,), got (2,)", lambda g: g.load(running_mean=np.ones(2))),
    (
        "num_batches_tracked must be a whole number from 0 on, got -1",
        lambda g: g.load(weight=2 * g.vector, num_batches_tracked=-1),
    ),
    (f"{KEYS} bias", lambda g: g.layer.load_state_dict({"bias": g.vector})),
    ("x must have 3 channels at axis 1, got shape (3, 6)", lambda g: g.layer(g.x.T)),
]

RUNTIME_ERRORS = [
    ("backward needs a forward call before it", lambda g: fastbn.BatchNorm(3).backward(g.dy)),
    (
        "backward needs x, but out=x overwrote it; call batch_norm with another out",
        lambda g: g.backward(cache=overwritten(g.x.copy())),
    ),
]

OUT = [
    (TypeError, "out must be an ndarray, got list", lambda g: g.out.tolist()),
    (TypeError, "out must be an ndarray, got MaskedArray", lambda g: np.ma.array(g.out)),
    (TypeError, "out must have dtype float32, got float64", lambda g: np.zeros((6, 3))),
    (TypeError, "out must have dtype float32, got >f4", lambda g: g.out.view(">f4")),
    (ValueError, "out must have the shape of {input}, (6, 3), got (5, 3)", lambda g: g.out[:5]),
    (ValueError, "out must have the shape of {input}, (6, 3), got (3, 6)", lambda g: g.out.T),
    (ValueError, "out must be writeable, got a read-only array", lambda g: read_only(g.out)),
    (ValueError, "out must not repeat memory, got strides (0, 4)", lambda g: repeating(g.out)),
]


def to_out(method, make):
    return lambda g: getattr(g, method)(out=make(g))


KINDS = [(TypeError, TYPE_ERRORS), (ValueError, VALUE_ERRORS), (RuntimeError, RUNTIME_ERRORS)]
ROWS = [(error, text, call) for error, rows in KINDS for text, call in rows]
ROWS += [
    (error, text.format(input=name), to_out(method, make))
    for method, name in [("forward", "x"), ("inference", "x"), ("backward", "dy")]
    for error, text, make in OUT
]


@pytest.mark.parametrize(("error", "text", "call"), ROWS, ids=[text for _, text, _ in ROWS])
def test_text_and_nothing_written(error, text, call):
    given = Given()
    before = given.state()
    with pytest.raises(error, match=f"^{re.escape(text)}$") as raised:
        call(given)
    assert raised.type is error
    assert given.state() == before


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("eps", lambda g: g.forward(eps=10**400)),
        ("eps", lambda g: g.inference(eps=-(10**400))),
        ("momentum", lambda g: fastbn.RunningStats(3, momentum=10**400)),
        ("count", lambda g: fastbn.Moments(np.inf, [0.0], [0.0])),
        ("count", lambda g: fastbn.Moments(np.nan, [0.0], [0.0])),
        ("count", lambda g: fastbn.Moments(10**400, [0.0], [0.0])),
        ("ddof", lambda g: g.moments.var(ddof=10**400)),
        ("moments", lambda g: g.forward(moments=fastbn.Moments(0, np.zeros(3), np.zeros(3)))),
        ("state", lambda g: g.layer.load_state_dict({1: g.vector, "weight": g.vector})),
        ("state", lambda g: g.layer.load_state_dict(list(g.layer.state_dict()))),
        ("cache", lambda g: g.backward(cache=None)),
    ],
)
def test_odd_values_get_an_error_that_names_the_argument(name, call):
    given = Given()
    before = given.state()
    with pytest.raises((TypeError, ValueError), match=f"^{name} must "):
        call(given)
    assert given.state() == before


BOTH = ("avx2", "baseline")


@pytest.mark.parametrize(
    ("name", "built", "found", "why"),
    [
        ("sse9", BOTH, BOTH, "known"),
        ("AVX2", BOTH, BOTH, "known"),
        ("avx512", BOTH, BOTH, "built"),
        ("avx512", _kernels.TARGETS, BOTH, "supported by this CPU"),
    ],
)
def test_a_target_that_cannot_be_loaded(monkeypatch, name, built, found, why):
    monkeypatch.setattr(_kernels, "BUILT", built)
    monkeypatch.setattr(_kernels, "FOUND", found)
    text = f"FASTBN_TARGET must be one of avx2, baseline, got {name!r}, which is not {why}"
    with pytest.raises(ImportError, match=f"^{re.escape(text)}$"):
        _kernels.load(name)


def test_every_text_has_a_row():
    """The rows together run every line of _check.py that makes an exception."""
    run = set()
    code = _check.array.__code__.co_filename

    def trace(frame, event, argument):
        if frame.f_code.co_filename != code:
            return None
        run.add(frame.f_lineno)
        return trace

    for error, _, call in ROWS:
        given = Given()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with pytest.raises(error):
                call(given)
        finally:
            sys.settrace(before)
    source = Path(_check.__file__).read_text()
    made = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and error_name(n.func)]
    missed = [ast.unparse(n) for n in made if run.isdisjoint(range(n.lineno, n.end_lineno + 1))]
    assert len(made) > 30
    assert missed == []


def error_name(node):
    return isinstance(node, ast.Name) and node.id.endswith("Error")


def test_no_other_module_has_error_texts():
    """Apart from two: loading a target, and the arguments of the command line."""
    raising = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and not ast.unparse(node).startswith("raise _check."):
                raising.add(path.relative_to(SOURCE).as_posix())
    assert raising <= {"_check.py", "_kernels/__init__.py", "__main__.py"}
    for path in (SOURCE / "_kernels").glob("*.p[yx]?"):
        assert not re.search(r"^\s*raise\b", path.read_text(), re.MULTILINE), path
