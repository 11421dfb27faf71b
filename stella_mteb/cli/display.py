"""What a person watches while a command works: bars on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import typer

_LINE_EVERY = 30.0


def say(text: str) -> None:
    """One line on stderr."""
    typer.echo(text, err=True)


@contextlib.contextmanager
def token_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over tokens, with speed and time left.

    Args:
        label: What is being encoded.

    Yields:
        A function to call with the tokens done and the tokens to do.
    """
    if not sys.stderr.isatty():
        yield _Lines(label)
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}% {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, started = bar.add_task(label, total=None, rate=""), time.monotonic()

        def update(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-6)
            bar.update(task, completed=done, total=total, rate=f"{rate:,.0f} tokens/s")

        yield update


class _Lines:
    """A line every half minute, for logs."""

    def __init__(self, label: str) -> None:
        self.label, self.started, self.last = label, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last >= _LINE_EVERY:
            self.last = now
            rate = done / (now - self.started)
            left = (total - done) / max(rate, 1e-6)
            say(f"{self.label}: {done / max(total, 1):.0%}, {rate:,.0f} tokens/s, {left:,.0f} s left")
