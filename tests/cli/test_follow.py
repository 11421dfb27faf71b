"""The progress line of a run, with a simulated clock."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stella_mteb.cli import follow
from tests.conftest import Call
from tests.support.runs import write_task


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(follow, "time", clock)
    return clock


def forecasts() -> dict[tuple[str, str], Any]:
    from stella_mteb.harness.forecast import Forecast

    def due(task: str, tokens: int, status: str = "to run") -> Any:
        return Forecast(task, status, tokens=tokens, encoding=tokens / 100, rest=10.0)

    rows = [due("Kept", 0, "on disk"), due("One", 4_000), due("Two", 6_000)]
    return {("m", row.task): row for row in rows}


def outcome(task: str, **figures: Any) -> Any:
    from stella_mteb.harness.run import Outcome

    return Outcome("m", task, "done", score=0.5, **figures)


def test_the_line_has_task_tokens_and_time_left(clock: Clock) -> None:
    follower = follow.Follower(forecasts(), 100.0)

    assert follower.line() == "task 1 of 2, One: 0 of 10k tokens, left 50.0 s, in all 2.0 min"

    for now, done in ((0, 100), (5, 1_100), (10, 2_100)):  # 200 tokens a second, twice what was known
        clock.now = now
        follower.tokens(done)

    # One: 1 900 tokens at 210 a second and 10 s of the rest; Two: 6 000 tokens and 10 s.
    assert follower.line() == "task 1 of 2, One: 2.1k of 10k tokens, left 19.0 s, in all 57.6 s"


def test_tokens_of_calls_add_up_and_time_between_them_is_not_encoding(clock: Clock) -> None:
    follower = follow.Follower(forecasts(), None)
    for now, done in ((0, 500), (5, 1_500), (50, 500), (55, 1_500)):  # two calls, 45 s of scoring between them
        clock.now = now
        follower.tokens(done)
    follower.ended(outcome("One"))
    clock.now = 500
    follower.tokens(1_000)
    clock.now = 510
    follower.tokens(2_000)

    # 5 000 tokens in 5 + 5 + 10 s; of Two 4 000 are left.
    assert follower.line() == "task 2 of 2, Two: 5k of 10k tokens, left 26.0 s, in all 26.0 s"


def test_tokens_of_workers_count_once_when_tasks_end(clock: Clock) -> None:
    follower = follow.Follower(forecasts(), None)
    for now, done in ((0, 500), (10, 3_500)):
        clock.now = now
        follower.tokens_of_workers(done)
    follower.ended(outcome("One"))
    for now, done in ((20, 4_000), (30, 7_000), (40, 6_500)):  # the last without a worker that is starting again
        clock.now = now
        follower.tokens_of_workers(done)

    # 7 000 tokens in 10 + 20 s; of Two 2 500 are left, and 10 s of the rest.
    assert follower.line() == "task 2 of 2, Two: 7k of 10k tokens, left 20.7 s, in all 20.7 s"


def test_texts_encoded_by_a_prefill_leave_no_tokens_for_tasks(clock: Clock) -> None:
    follower = follow.Follower(forecasts(), 100.0)
    follower.tokens(10_000)

    assert follower.line() == "task 1 of 2, One: 10k of 10k tokens, left 10.0 s, in all 20.0 s"


def test_the_summary_has_seconds_by_kind_and_the_forecast() -> None:
    follower = follow.Follower(forecasts(), 100.0)
    outcomes = [outcome("One", seconds=60.0, encoding=44.0, loading=6.0), outcome("Two", seconds=90.0, encoding=80.0)]

    assert list(follower.summary(outcomes)) == [
        "encoding 2.1 min, tasks 20.0 s, loading 6.0 s",
        "forecast 2.0 min, took 2.5 min (+25%)",
        "slowest: Two 1.5 min (forecast 70.0 s); One 60.0 s (forecast 50.0 s)",
    ]


def test_the_summary_says_of_which_tasks_and_models_and_leaves_out_what_took_seconds() -> None:
    follower = follow.Follower(forecasts(), 100.0)
    other = replace(outcome("Two", seconds=9.0), model="n")  # has no forecast

    assert list(follower.summary([outcome("One", seconds=60.0), other]))[1:] == [
        "forecast of 1 of 2 tasks 50.0 s, took 60.0 s (+20%)",
        "slowest: One by m 60.0 s (forecast 50.0 s)",
    ]
    assert len(list(follower.summary([other]))) == 1


def test_a_log_gets_one_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    from stella_mteb.cli import display

    clock, said = Clock(), []
    monkeypatch.setattr(display, "time", clock)
    monkeypatch.setattr(display, "say", said.append)

    with display.status_line() as show:
        for second in range(0, 200, 10):
            clock.now = float(second)
            show(f"at {second}")

    assert said == ["at 60", "at 120", "at 180"]


def test_a_run_ends_with_its_measured_time(call: Call, tmp_path: Path) -> None:
    task = write_task(tmp_path)

    first = call("run", "-m", "all_minilm_l6_v2", "-t", task, "--output", tmp_path / "out")
    second = call("run", "-m", "all_minilm_l6_v2", "-t", task, "--output", tmp_path / "out")

    assert re.search(r"^encoding \d+\.\d s, tasks \d+\.\d s, loading \d+\.\d s$", first[2], re.MULTILINE)
    assert "encoding" not in second[2].replace("s of it encoding", "")
