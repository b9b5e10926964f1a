"""A progress bar on stderr, where a person watches; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
BAR, LINE = 24, 79  # characters


def progress(items: Sequence[Item], label: Callable[[Item], str]) -> Iterator[Item]:
    """The items, one after the other, with a bar that says which one is being worked on."""
    watched = sys.stderr.isatty()
    try:
        for done, item in enumerate(items):
            if watched:
                filled = BAR * done // len(items)
                text = f"[{'#' * filled}{'.' * (BAR - filled)}] {done + 1}/{len(items)} {label(item)}"
                print(f"\r{text[:LINE]:{LINE}}", end="", file=sys.stderr, flush=True)
            yield item
    finally:
        if watched:
            print(f"\r{'':{LINE}}\r", end="", file=sys.stderr, flush=True)
