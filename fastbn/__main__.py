"""python -m fastbn: check this machine, time it, say what runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbn import _bench, _check, _kernels, _threads, config
from fastbn._selfcheck import selfcheck
from fastbn._version import __version__

LARGE = 1 << 30  # values: enough for all threads
CHECK = "accuracy against fastbn.reference, and equal bits on every target, thread count and alignment"
BENCH = "time fastbn beside NumPy and a copy of the same arrays"
INFO = "versions, targets and threads: what fastbn.show_config() prints"


def headline(threads: int) -> str:
    return (
        f"fastbn {__version__}, target {config.target()} of {', '.join(_kernels.FOUND)}, "
        f"threads {threads}, NumPy {np.__version__}"
    )


def check() -> int:
    print(headline(config.get_num_threads()))
    print("batches of many shapes, channels first and last, mean/std from 0 to 1e6, against fastbn.reference")
    claims = selfcheck()
    width = max(len(claim.name) for claim in claims)
    print(f"{'':{width}}  {'worst':>8}  {'':16}  {'bound':>6}")
    for claim in claims:
        worst = f"{claim.worst:.1e}" if claim.bound else f"{claim.worst:.0f}"
        verdict = "ok" if claim.holds else f"FAILED, {claim.where}"
        print(f"{claim.name:{width}}  {worst:>8}  {claim.unit:16}  {claim.bound:6g}  {verdict}")
    failed = sum(not claim.holds for claim in claims)
    if failed:
        print(f"FAILED: {failed} of {len(claims)} claims. Please report it, with the output of python -m fastbn info.")
        return 1
    print(f"ok: all {len(claims)} claims hold.")
    return 0


def bench(quick: bool, as_json: bool = False, threads: int | None = None) -> int:
    cases, seconds = (_bench.QUICK, _bench.SECONDS_QUICK) if quick else (_bench.FULL, _bench.SECONDS_FULL)
    if as_json:
        records = list(_bench.bench(cases, threads, seconds))
        print(json.dumps({"config": config.show_config("dicts"), "results": records}, indent=1))
        return 0
    print(headline(_threads.resolve(threads, LARGE)))
    print("float32; best of many runs, for which the machine should be idle but for this program")
    print("of copy: the time of a streaming copy of x to y (backward: of x + dy to dx) divided by that of fastbn")
    print(f"{'':4}  {'shape':18}  {'pass':9}  {'ms':>8}  {'NumPy ms':>8}  {'ratio':>6}  {'of copy':>7}")
    for record in _bench.bench(cases, threads, seconds):
        print(row(record), flush=True)
    return 0


def row(record: dict[str, Any]) -> str:
    first = record["pass"] == "forward"
    layout, shape = (record["layout"], str(tuple(record["shape"]))) if first else ("", "")
    times = "  ".join(f"{record[name]:8.{2 if record[name] > 1 else 4}f}" for name in ("ms", "numpy_ms"))
    return (
        f"{layout:4}  {shape:18}  {record['pass']:9}  {times}  {record['numpy_ratio']:6.1f}  "
        f"{record['copy_fraction']:7.0%}"
    )


def thread_count(text: str) -> int:
    try:
        return _check.threads(int(text), "it")
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_check.MAX_THREADS}, got {text!r}") from None


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fastbn",
        description="Without a command: check, then a short bench.",
        epilog="Exit status: 0, 1 if a claim fails, 2 for a bad argument.",
    )
    commands = parser.add_subparsers(dest="command", metavar="{check,bench,info}")
    commands.add_parser("check", help=CHECK, description=CHECK)
    timing = commands.add_parser("bench", help=BENCH, description=BENCH)
    timing.add_argument("--quick", action="store_true", help="a few shapes, some seconds")
    timing.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    timing.add_argument("--threads", type=thread_count, metavar="N", help="threads of fastbn and of the copy")
    commands.add_parser("info", help=INFO, description=INFO)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    if args.command == "check":
        return check()
    if args.command == "bench":
        return bench(args.quick, args.json, args.threads)
    if args.command == "info":
        config.show_config()
        return 0
    status = check()
    if status == 0:
        print()
        status = bench(quick=True)
    return status


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # the reader, `head` say, has what it wanted; what is left to flush has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
