"""`stella-mteb run --dry-run`: what would run, and what it would take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stella_mteb.cli.display import say
from stella_mteb.files.tables import TableFormat, render

if TYPE_CHECKING:
    from stella_mteb.harness.adapter import Encoder
    from stella_mteb.harness.forecast import Forecast


def print_plan(
    families: Iterable[Sequence[Encoder]],
    tasks: Sequence[Any],
    device: str | None,
    output: Path,
    cache: Path | None,
    form: TableFormat,
) -> None:
    """Print the forecast of every task with every model.

    Args:
        families: Each model at one or more dimensions; only the first of them encodes, the others find its vectors.
        tasks: MTEB tasks.
        device: See `load_encoder`.
        output: The output folder; nothing is written to it.
        cache: Folder of the vector stores; None for none.
        form: Of the table; JSON and CSV have seconds and bytes in full.
    """
    from stella_mteb.harness.forecast import Forecaster, total  # noqa: PLC0415
    from stella_mteb.harness.pace import known_pace, measured_pace  # noqa: PLC0415
    from stella_mteb.harness.run import plan  # noqa: PLC0415

    rows = []
    for encoder in (encoder for family in families for encoder in family):
        spec, places = str(encoder.resolved.spec), [plan(encoder, task, output) for task in tasks]
        say(f"{spec}: {places[0][0].parent}")
        pace = known_pace(encoder, device, output)
        if pace is None and any(status != "on disk" for _, status in places):
            say("measuring how fast this model is here: ten seconds ...")
            pace = measured_pace(encoder, device)
        forecast = Forecaster(encoder, device, output, cache)
        found = [forecast(task, pace) for task in tasks]
        if pace:
            say(f"{spec}: {pace.tokens_per_second:,.0f} tokens/s ({pace.source})")
        for one in found:
            if one.note:
                say(f"{one.task}: {one.note}")
        if form in {"table", "md"}:
            typer.echo(render([_shown(one) for one in (*found, total(found))], form))
        rows += [{"model": spec, **asdict(one)} for one in found]
    if form in {"json", "csv"}:
        typer.echo(render(rows, form))


def _shown(forecast: Forecast) -> dict[str, object]:
    due = forecast.status == "to run"
    return {
        "task": forecast.task if due else f"{forecast.task} ({forecast.status.removeprefix('to run ').strip('()')})",
        "texts": _count(forecast.texts),
        "distinct": _count(forecast.distinct),
        "tokens": _count(forecast.tokens),
        "encoding": duration(forecast.encoding),
        "rest": duration(forecast.rest),
        "store": _count(forecast.vectors) + "B",
    }


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "?"
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
