"""Follows a run: one line of progress while it works, and at the end the time it took compared with the forecast."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from stella_mteb.cli.display import say, status_line
from stella_mteb.cli.plan import count, duration
from stella_mteb.files.tables import many

if TYPE_CHECKING:
    from stella_mteb.harness.adapter import Encoder
    from stella_mteb.harness.forecast import Forecast
    from stella_mteb.harness.run import Outcome

_SLOWEST = 5
_STEADY = 5.0  # seconds of encoding after which the measured pace is used
_WORTH_TELLING = 10.0  # seconds; of less, starting up is the larger part


class Follower:
    """Follows a run by its encoded tokens and finished tasks.

    Args:
        forecasts: Forecast of every task of the run, by spec and task, in the order of the run.
        pace: Tokens per second until a pace is measured; None if unknown.
    """

    def __init__(self, forecasts: Mapping[tuple[str, str], Forecast], pace: float | None) -> None:
        self._left = {key: forecast for key, forecast in forecasts.items() if forecast.status != "on disk"}
        self._forecasts, self._pace = dict(self._left), pace
        self._due = sum(forecast.tokens or 0 for forecast in self._left.values())
        self._call = self._before = self._task_before = 0
        self._busy = 0.0
        self._last: float | None = None  # time of the last progress of the current call
        self._show: Callable[[str], None] = lambda _: None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the line within the block, on the terminal or once a minute."""
        with status_line() as self._show:
            yield

    def watched(self, families: Iterable[Sequence[Encoder]]) -> Iterator[Sequence[Encoder]]:
        """Yield the models, after connecting their progress to this object."""
        for family in families:
            for encoder in family:
                encoder.on_progress = self.tokens
            yield family

    @property
    def _done(self) -> int:
        return self._before + self._call

    def tokens(self, done: int, _total: int = 0) -> None:
        """Record the tokens that a call has encoded; a smaller number means a new call."""
        now = time.monotonic()
        if done < self._call:
            self._before += self._call
        elif self._last is not None:
            self._busy += now - self._last
        self._call, self._last = done, now
        self._show(self.line())

    def tokens_of_workers(self, done: int, _total: int = 0) -> None:
        """Note how many tokens the workers of a cluster have encoded since the run began."""
        self.tokens(max(done - self._before, self._call))

    def ended(self, outcome: Outcome) -> None:
        """Record that a task has ended, and print its outcome."""
        self._left.pop((outcome.model, outcome.task), None)
        self._before, self._call, self._task_before = self._done, 0, self._done
        self._last = None
        _say(outcome)
        self._show(self.line())

    def line(self) -> str:
        """Return the current task, the tokens done of the forecast total, and the time left for task and run."""
        if not self._left:
            return "finishing"
        (_, task), current = next(iter(self._left.items()))
        # Tokens encoded by a prefill count for every task.
        most = max(self._due - self._done, 0)
        here = min(max((current.tokens or 0) - (self._done - self._task_before), 0), most)
        later = min(sum(forecast.tokens or 0 for forecast in list(self._left.values())[1:]), most - here)
        rests = [forecast.rest or 0.0 for forecast in self._left.values()]
        pace = self._done / self._busy if self._busy >= _STEADY else self._pace
        left = ["?", "?"] if pace is None else [
            duration(here / pace + rests[0]), duration((here + later) / pace + sum(rests)),
        ]  # fmt: skip
        number = len(self._forecasts) - len(self._left) + 1
        due = max(self._due, self._done)
        return (
            f"task {number} of {len(self._forecasts)}, {task}: {count(self._done)} of {count(due)} tokens, "
            f"left {left[0]}, in all {left[1]}"
        )

    def summary(self, outcomes: Sequence[Outcome]) -> Iterator[str]:
        """Yield lines on the time of the run: seconds by kind, the forecast, the slowest tasks."""
        ran = [outcome for outcome in outcomes if outcome.status == "done"]
        if not ran:
            return
        encoding, loading = sum(one.encoding for one in ran), sum(one.loading for one in ran)
        tasks = sum(one.seconds for one in ran) - encoding - loading
        yield f"encoding {duration(encoding)}, tasks {duration(tasks)}, loading {duration(loading)}"
        known = [(one, due) for one in ran if (due := self._seconds(one)) is not None]
        took, due = sum(one.seconds for one, _ in known), sum(seconds for _, seconds in known)
        if due >= _WORTH_TELLING:
            which = "" if len(known) == len(ran) else f" of {len(known)} of {many(len(ran), 'task')}"
            yield f"forecast{which} {duration(due)}, took {duration(took)} ({took / due - 1:+.0%})"
        long = [one for one in ran if one.seconds >= _WORTH_TELLING]
        if len(ran) > 1 and long:
            slowest = sorted(long, key=lambda one: -one.seconds)[:_SLOWEST]
            parts = []
            for one in slowest:
                seconds = self._seconds(one)
                forecast = "" if seconds is None else f" (forecast {duration(seconds)})"
                name = one.task if len({each.model for each in ran}) == 1 else f"{one.task} by {one.model}"
                parts.append(f"{name} {duration(one.seconds)}{forecast}")
            yield f"slowest: {'; '.join(parts)}"

    def _seconds(self, outcome: Outcome) -> float | None:
        forecast = self._forecasts.get((outcome.model, outcome.task))
        if forecast is None or forecast.encoding is None or forecast.rest is None:
            return None
        return forecast.encoding + forecast.rest


def _say(outcome: Outcome) -> None:
    score = "" if outcome.score is None else f" {outcome.score:.4f}"
    left_out = f", {many(outcome.bad_rows, 'bad row')} left out" if outcome.bad_rows else ""
    left_out += cut(outcome.at_limit)
    seconds = f"{outcome.seconds:.1f} s"
    if outcome.status == "done":
        seconds += f", {outcome.encoding:.1f} s of it encoding"
    say(f"{outcome.status}: {outcome.model} on {outcome.task}{score} ({seconds}{left_out})")
    if outcome.error:
        say(f"  {outcome.error}")


def cut(texts: int) -> str:
    """Return the end of a remark with the number of texts at the input limit; empty for none."""
    return f", {many(texts, 'text')} at max_length" if texts else ""
