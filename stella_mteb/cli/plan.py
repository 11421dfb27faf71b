"""The forecast of `stella-mteb run --dry-run`: pending tasks with their time and disk space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stella_mteb.cli.display import say
from stella_mteb.files.tables import TableFormat, render

if TYPE_CHECKING:
    from stella_mteb.harness.adapter import Encoder
    from stella_mteb.harness.forecast import Forecast
    from stella_mteb.models.resolve import ResolvedModel


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
        families: Each model at one or more dimensions; the first dimension encodes, the others reuse its vectors.
        tasks: MTEB tasks.
        device: See `load_encoder`.
        output: The output folder; nothing is written to it.
        cache: Folder of the vector stores, or None.
        form: Format of the table; JSON and CSV have exact seconds and bytes.
    """
    from stella_mteb.harness.forecast import Forecaster, total  # noqa: PLC0415
    from stella_mteb.harness.pace import known_pace, measured_pace  # noqa: PLC0415
    from stella_mteb.harness.run import plan  # noqa: PLC0415

    rows = []
    for encoder in (encoder for family in families for encoder in family):
        spec = str(encoder.resolved.spec)
        say(f"{spec}: {plan(encoder, tasks[0], output)[0].parent}")
        pace, forecast = known_pace(encoder, device, output), Forecaster(encoder, device, output, cache)
        found = [forecast(task, pace) for task in tasks]
        if pace is None and any(one.tokens for one in found):
            say("measuring the speed of this model for ten seconds ...")
            pace = measured_pace(encoder, device)
            found = [replace(one, encoding=pace.seconds(one.tokens)) for one in found]
        if pace:
            say(f"{spec}: {pace.tokens_per_second:,.0f} tokens/s ({pace.source})")
        say_too_large(spec, found)
        for one in found:
            if one.note:
                say(f"{one.task}: {one.note}")
        if form in {"table", "md"}:
            typer.echo(f"\n{spec}\n\n" + render([_shown(one) for one in (*found, total(found))], form))
        rows += [{"model": spec, **asdict(one)} for one in found]
    if form in {"json", "csv"}:
        typer.echo(render(rows, form))


def say_too_large(spec: str, forecasts: Iterable[Forecast]) -> None:
    """Report each task that will not fit in memory, with the reason.

    Args:
        spec: The model.
        forecasts: Forecasts of tasks with this model.
    """
    from stella_mteb.engine.devices import free_memory  # noqa: PLC0415

    free = free_memory()
    for one in forecasts:
        if free is not None and (one.held or 0) > free:
            say(
                f"{one.task} will not fit in memory with {spec}: MTEB holds {count(one.held)}B of vectors and "
                f"similarities at once, {count(free)}B are free"
            )


def forecast_all(
    models: Sequence[ResolvedModel],
    dimensions: Sequence[Sequence[int]],
    tasks: Sequence[Any],
    device: str | None,
    output: Path,
    cache: Path | None,
) -> tuple[dict[tuple[str, str], Forecast], float | None]:
    """Forecast a run before its first model is loaded.

    Returns:
        The forecasts by spec and task, in the order of the run, and the tokens per second of the first model with
        earlier runs on this machine.
    """
    from stella_mteb.harness.adapter import family  # noqa: PLC0415
    from stella_mteb.harness.forecast import Forecaster  # noqa: PLC0415
    from stella_mteb.harness.pace import known_pace  # noqa: PLC0415

    found, paces = {}, []
    for model, wanted in zip(models, dimensions, strict=True):
        members = family(model, wanted, device=device)
        pace = known_pace(members[0], device, output)
        paces += [pace.tokens_per_second] if pace else []
        forecasters = [Forecaster(encoder, device, output, cache) for encoder in members]
        for task in tasks:
            for encoder, forecast in zip(members, forecasters, strict=True):
                found[str(encoder.resolved.spec), task.metadata.name] = forecast(task, pace)
        for encoder in members:
            spec = str(encoder.resolved.spec)
            say_too_large(spec, [found[spec, task.metadata.name] for task in tasks])
    return found, paces[0] if paces else None


def _shown(forecast: Forecast) -> dict[str, object]:
    status = "kept" if forecast.status == "on disk" else forecast.status.removeprefix("to run").strip(" ()")
    if not status and forecast.stored and forecast.stored == forecast.distinct:
        status = "stored"
    return {
        "task": f"{forecast.task} ({status})" if status else forecast.task,
        "texts": count(forecast.texts),
        "distinct": count(forecast.distinct),
        "tokens": count(forecast.tokens),
        "encoding": duration(forecast.encoding),
        "rest": duration(forecast.rest),
        "store": count(forecast.vectors) + "B",
    }


def count(number: int | None) -> str:
    """Format a number with three digits."""
    if number is None:
        return "?"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)


def duration(seconds: float | None) -> str:
    """Format seconds with a suitable unit."""
    if seconds is None:
        return "?"
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s"
