"""Tokens per second that a model encodes on this machine, from earlier runs or measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from stella_mteb.engine.devices import resolve_device
from stella_mteb.files.tables import many
from stella_mteb.harness.adapter import Encoder
from stella_mteb.harness.cost_capture import machine
from stella_mteb.harness.task_yaml import bundled_tasks
from stella_mteb.outputs.costs import read_costs
from stella_mteb.outputs.layout import cost_path, result_path

_SECONDS = 10.0
_FIRST_TEXTS = 8


@dataclass(frozen=True)
class Pace:
    """Tokens per second, and a description of the source of the figure."""

    tokens_per_second: float
    source: str

    def seconds(self, tokens: int | None) -> float | None:
        """Return the time of so many tokens; None if they are unknown."""
        return None if tokens is None else tokens / self.tokens_per_second


def known_pace(encoder: Encoder, device: str | None, output: Path) -> Pace | None:
    """Compute the pace from the costs of earlier runs of this model on this machine.

    Returns:
        None if they encoded for less than ten seconds, because the first batches of a process are slower.
    """
    meta = encoder.mteb_model_meta
    path = cost_path(result_path(output, str(meta.name), str(meta.revision), meta.experiment_name, "any"))
    here = machine(resolve_device(device))
    costs = [cost for cost in (read_costs(path) if path else []) if cost.machine == here]
    seconds = sum(cost.seconds for cost in costs)
    if seconds < _SECONDS:
        return None
    return Pace(sum(cost.tokens for cost in costs) / seconds, f"{many(len(costs), 'earlier run')} on this machine")


def measured_pace(encoder: Encoder, device: str | None) -> Pace:
    """Load the model and encode bundled summaries for ten seconds, without a store.

    Raises:
        ConfigError: If the model cannot be loaded as configured.
        EnvironmentProblem: If it cannot be loaded on this machine.
    """
    engine, texts, size = encoder.resolved.load(device), prose(), _FIRST_TEXTS
    engine.encode(texts[:size])  # warm-up
    before, started, used = engine.stats.tokens, time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < _SECONDS:
        engine.encode([f"{used} {texts[(used + i) % len(texts)]}" for i in range(size)])
        used, size = used + size, min(2 * size, 64)
    return Pace((engine.stats.tokens - before) / passed, f"measured for {passed:.0f} s, on bundled summaries")


def prose() -> list[str]:
    """Return distinct English texts of a sentence or two: those of the bundled summaries."""
    pairs = bundled_tasks()["VideoSummarySTS"].pairs
    return list(dict.fromkeys([*pairs.first, *pairs.second]))
