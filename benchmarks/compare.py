"""Time fastbn, its peers and the memory limit side by side: python benchmarks/compare.py --help

Every cell is one pass over one batch. All calls of a cell take turns, many short ones, and the best time of each
counts. Before it is timed, each peer's result is checked against `fastbn.reference`; a wrong one is reported instead.
"""

import argparse
import gc
import json
import math
import os
import sys
from pathlib import Path
from time import perf_counter, sleep

import numpy as np

if not __package__:  # run as a program
    sys.path.append(str(Path(__file__).resolve().parents[1]))

import fastbn
from benchmarks import limits, pictures, report
from benchmarks.peers import EPS, Fastbn, NumPy, Unsupported
from benchmarks.peers_jit import Jax, JaxOneSweep, Numba
from benchmarks.peers_torch import OneDnn, PyTorch
from fastbn import reference
from fastbn._bench import Batch, Case
from fastbn._progress import progress

PEERS = (Fastbn, PyTorch, OneDnn, Jax, JaxOneSweep, Numba, NumPy)
WITH_FRESH = (Fastbn, PyTorch, Jax, NumPy)  # that users call without outputs
PASSES = ("forward", "backward", "inference")
TOLERANCE = 1e-3  # of the largest value of a result, at least 1
BURST, CALLS, ROUNDS = 0.005, 2, 5  # one turn: at least so many seconds and calls; at least so many turns
SLICE, OTHERS = 0.4, 0.15  # seconds of turns in which other programs may use this much of a core
PATIENCE = 8  # times the seconds that a cell is meant to take
LARGE = 8e6  # bytes of x
SECONDS = {False: (0.8, 4.0), True: (0.2, 0.5)}  # for a cell, by --quick: small, large batches
RESERVE = 1 << 31  # bytes that malloc keeps: the arrays of the largest batch, several times

MAPS = ((64, 112), (64, 56), (256, 56), (128, 28), (512, 28), (256, 14), (1024, 14), (512, 7), (2048, 7))
ODD = (  # N, C, H, W: first layers and odd heads, one sample, one huge channel, thousands of tiny ones
    (32, 1, 224, 224), (32, 3, 224, 224), (32, 17, 112, 112), (32, 100, 28, 28), (32, 1000, 7, 7),
    (1, 64, 224, 224), (1, 1, 4096, 4096), (16, 8192, 2, 2),
)  # fmt: skip
MATRICES = ((65536, 256), (8192, 1024), (1024, 1024), (256, 128), (32, 64))


def first(n, c, h, w):
    return Case("NCHW", (n, c, h, w))


def last(n, c, h, w):
    return Case("NHWC", (n, h, w, c))


FULL = {
    "channels first": [first(32, c, s, s) for c, s in MAPS],
    "channels last": [last(32, c, s, s) for c, s in MAPS],
    "matrices and odd shapes": [
        *(Case("NC", shape) for shape in MATRICES), *(first(*s) for s in ODD), *(last(*s) for s in ODD)
    ],
}  # fmt: skip
QUICK = {
    "channels first": [first(32, 64, 56, 56), first(32, 256, 14, 14), first(32, 512, 7, 7)],
    "channels last": [last(32, 64, 56, 56), last(32, 256, 14, 14)],
    "matrices and odd shapes": [Case("NC", (1024, 1024)), Case("NC", (32, 64)), first(32, 3, 56, 56)],
}
FRESH = {
    False: [first(32, 64, 112, 112), first(32, 128, 28, 28), last(32, 64, 112, 112), Case("NC", (8192, 1024)),
            Case("NC", (32, 64))],
    True: [first(32, 256, 14, 14), Case("NC", (32, 64))],
}  # fmt: skip


def interleaved(calls, seconds):
    """The best time of each call, in ms, and whether the machine was idle but for them for so many seconds.

    After another call's turn the caches hold other arrays, so the first call of a turn warms up. A thread that shares
    its core with another program makes its whole team wait, in every single call: such time does not count.
    """
    best = dict.fromkeys(calls, math.inf)
    quiet, rounds, until = 0.0, 0, perf_counter() + seconds * PATIENCE
    gc.disable()
    try:
        while perf_counter() < until and (quiet < seconds or rounds < ROUNDS):
            watch = limits.Watch()
            while watch.seconds() < SLICE:
                for name, call in calls.items():
                    best[name] = min(best[name], turn(call))
                rounds += 1
            if watch.others() < OTHERS:
                quiet += watch.seconds()
            else:
                sleep(SLICE)
    finally:
        gc.enable()
    return {name: time * 1e3 for name, time in best.items()}, quiet >= seconds


def turn(call):
    best, begin, done = math.inf, perf_counter(), 0
    end = begin + BURST
    while begin < end or done < CALLS:
        call()
        now = perf_counter()
        best = min(best, now - begin)
        begin, done = now, done + 1
    return best


class Cell:
    """One batch: its arrays, what is expected of each pass, and the peers that can do it."""

    def __init__(self, case, classes, threads, fresh):
        self.case, self.batch = case, Batch(case, np.float32, threads)
        self.limits = limits.Limits(self.batch)
        self.fresh, self.calls, self.faults = fresh, {}, {}
        for make in classes:
            try:
                peer = make(self.batch, threads)
                self.calls[peer] = peer.fresh() if fresh else peer.calls()
            except Unsupported:
                pass
            except Exception as error:
                self.faults[make.name] = f"{type(error).__name__}: {error}"
        b = self.batch
        self.expected = {}
        y, cache = reference.batch_norm(b.x, b.gamma, b.beta, eps=EPS, channel_axis=b.axis)
        self.expected["forward"] = (y,)
        self.expected["backward"] = reference.batch_norm_backward(b.dy, cache)
        inference = reference.batch_norm_inference(b.x, b.mean, b.var, b.gamma, b.beta, eps=EPS, channel_axis=b.axis)
        self.expected["inference"] = (inference,)

    def fault(self, peer, name, call):
        """What is wrong with the result of a call; None if nothing."""
        self.batch.out.fill(np.nan)
        try:
            found = peer.arrays(call())
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        for what, wanted, got in zip(("y or dx", "dgamma", "dbeta"), self.expected[name], found, strict=False):
            bound = TOLERANCE * max(1.0, float(np.abs(wanted).max()))
            error = float(np.abs(np.reshape(got, wanted.shape) - wanted).max())
            if not error <= bound:
                return f"{what} is off by {error:.2g}, at most {bound:.2g} is allowed"
        return None

    def time(self, name, seconds):
        """Times in ms by peer, those of the sweeps of the limit, faults by peer, whether the machine was quiet."""
        calls, faults = {}, dict(self.faults)
        for peer, passes in self.calls.items():
            if name in passes:
                fault = self.fault(peer, name, passes[name])
                if fault is None:
                    calls[peer.name] = passes[name]
                else:
                    faults[peer.name] = fault
        sweeps = () if self.fresh else self.limits.of(name, self.case.layout != "NCHW")
        times, quiet = interleaved(calls | {sweep: self.limits.calls[sweep] for sweep in sweeps}, seconds)
        return times, {sweep: times.pop(sweep) for sweep in sweeps}, faults, quiet


def measured(groups, passes, classes, threads, quick, fresh):
    """One record for each pass over each batch."""
    plan = [(group, case, name) for group, cases in groups.items() for case in cases for name in passes]
    cell = None
    for group, case, name in progress(plan, lambda item: f"{item[1].layout} {item[1].shape} {item[2]}"):
        if cell is None or cell.case is not case:
            cell = None  # frees the arrays before there are new ones
            cell = Cell(case, classes, threads, fresh)
        size = cell.batch.x.nbytes
        times, sweeps, faults, quiet = cell.time(name, SECONDS[quick][size >= LARGE])
        yield {
            "group": group,
            "layout": case.layout,
            "shape": list(case.shape),
            "bytes": size,
            "pass": name,
            "ms": times,
            "limit": sweeps,
            "limit_ms": sum(sweeps.values()) or None,
            "faults": faults,
            "quiet": quiet,
        }


def installed(threads):
    """What is installed, by class, with its version, and the names of the others. Sets the number of threads."""
    found, missing = {}, []
    for peer in PEERS:
        try:
            found[peer] = peer.load(threads)
        except ImportError:
            missing.append(peer.name)
    return found, missing


def arguments(argv):
    cores = limits.machine()["cores"]
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".")
    parser.add_argument("--quick", action="store_true", help="a few shapes, about a minute")
    parser.add_argument("--only", default=",".join(PASSES), help="passes, with commas between; default: %(default)s")
    parser.add_argument("--threads", type=int, help="of everything that is compared; default: what fastbn uses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times there")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw limit.png and speedup.png there")
    options = parser.parse_args(argv)
    options.passes = [name for name in PASSES if name in options.only.split(",")]
    if not options.passes or set(options.only.split(",")) - set(PASSES):
        parser.error(f"--only takes {', '.join(PASSES)}, got {options.only!r}")
    options.threads = fastbn.get_num_threads() if options.threads is None else options.threads
    if not 1 <= options.threads <= cores:
        parser.error(f"--threads must be from 1 to {cores}, the cores at hand, got {options.threads}")
    return options


def main(argv=None):
    options = arguments(argv)
    about = limits.machine()
    if options.threads < about["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])  # JAX has no other setting
    versions, missing = installed(options.threads)

    def run(groups, classes, fresh):
        return list(measured(groups, options.passes, classes, options.threads, options.quick, fresh))

    # First, while malloc gives memory back: these calls pay for the pages of fresh outputs as those of users do.
    fresh = run({"fresh outputs": FRESH[options.quick]}, [peer for peer in versions if peer in WITH_FRESH], True)
    kept = limits.keep_freed_memory(RESERVE)
    records = run(QUICK if options.quick else FULL, versions, False)
    results = {
        "machine": about,
        "threads": options.threads,
        "versions": list(dict.fromkeys(versions.values())),
        "missing": missing,
        "malloc_keeps_memory": kept,
        "read": limits.READ_WITH,
        "peers": [peer.name for peer in versions],
        "records": records,
        "fresh": fresh,
    }
    print(report.markdown(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        pictures.limit(results, options.pictures / "limit.png")
        pictures.speedup(results, options.pictures / "speedup.png")


if __name__ == "__main__":
    main()
