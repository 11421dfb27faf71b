"""Progress and messages on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import typer

from stella_mteb.files.tables import plain

_LINE_EVERY = 30.0
_STATUS_EVERY = 60.0
_bars: list[Any] = []
"""The progress bar on the screen, if any."""


def say(text: str) -> None:
    """Print lines to stderr. Escape codes, which names from files may have, are printed as text."""
    for line in text.split("\n"):
        if _bars:
            # Use the bar's own console; other output would leave a copy of the bar behind.
            _bars[-1].console.print(plain(line), markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(plain(line), err=True)


@contextlib.contextmanager
def token_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar over tokens, with speed and time left.

    Yields:
        A function to call with the tokens done and the total; a smaller number of done tokens means a new call.
    """
    if not sys.stderr.isatty():
        yield _Lines(label)
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}% {task.fields[pace]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, pace = bar.add_task(label, total=None, pace=""), _Pace()
        _bars.append(bar)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, pace=pace(done, total))

        try:
            yield update
        finally:
            _bars.remove(bar)


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Show one line that is replaced on a terminal, and printed at most once a minute elsewhere.

    Yields:
        A function to call with the text.
    """
    if not sys.stderr.isatty():
        last = time.monotonic()

        def print_some(text: str) -> None:
            nonlocal last
            if time.monotonic() - last >= _STATUS_EVERY:
                last = time.monotonic()
                say(text)

        yield print_some
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress, TextColumn  # noqa: PLC0415

    with Progress(TextColumn("{task.description}", markup=False), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        _bars.append(bar)
        try:
            yield lambda text: bar.update(task, description=plain(text))
        finally:
            _bars.remove(bar)


class _Pace:
    """Speed and time left of the current call."""

    def __init__(self) -> None:
        self.started, self.done = time.monotonic(), 0

    def __call__(self, done: int, total: int) -> str:
        if done < self.done:
            self.started = time.monotonic()
        self.done = done
        rate = done / max(time.monotonic() - self.started, 1e-3)
        return f"{rate:,.0f} tokens/s, {(total - done) / max(rate, 1e-6):,.0f} s left"


class _Lines:
    """Prints a line every half minute, for logs."""

    def __init__(self, label: str) -> None:
        self.label, self.pace, self.last = label, _Pace(), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        pace = self.pace(done, total)
        if time.monotonic() - self.last >= _LINE_EVERY:
            self.last = time.monotonic()
            say(f"{self.label}: {done / max(total, 1):.0%}, {pace}")
