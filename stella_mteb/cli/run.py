"""The command `stella-mteb run`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say
from stella_mteb.cli.fetch import fetch_command
from stella_mteb.cli.follow import Follower, cut
from stella_mteb.cli.options import Benchmarks, Cache, Device, Format, Models, Offline, Tasks
from stella_mteb.cli.plan import forecast_all, print_plan
from stella_mteb.cli.registry import registry
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.tables import TableFormat, many, render

if TYPE_CHECKING:
    from stella_mteb.cluster.job import Job
    from stella_mteb.harness.adapter import Encoder
    from stella_mteb.harness.run import Outcome
    from stella_mteb.models.resolve import ResolvedModel

_ROOM = 52
"""Characters for the spec and the task in a table of 80 columns."""


@app.command()
def run(
    models: Models,
    tasks: Tasks = [],  # noqa: B006
    benchmarks: Benchmarks = [],  # noqa: B006
    prompts: Annotated[
        str | None, typer.Option(metavar="PROFILE", help="card, leaderboard, builtin, instruct, icl or own.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results.")] = Path("stella-results"),
    device: Device = None,
    offline: Offline = False,
    dims: Annotated[str | None, typer.Option(metavar="256,1024|all", help="Dimensions to score from one pass.")] = None,
    cache: Cache = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do not read or store vectors.")] = False,
    prefill: Annotated[bool, typer.Option("--prefill", help="Encode the texts of all tasks first.")] = False,
    max_bad_rows: Annotated[int | None, typer.Option(metavar="N", min=0, help="Bad rows to leave out.")] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="This process, or a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The Ray cluster [this machine].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print a forecast, and stop.")] = False,
    form: Format = "table",
) -> None:
    """Run MTEB tasks with models. Results are kept: a repeated command runs only missing tasks."""
    set_offline(offline)
    if no_cache and (dims or prefill or cache):
        option = "--dims" if dims else "--prefill" if prefill else "--cache"
        raise typer.BadParameter(f"{option} needs the cache", param_hint="--no-cache")
    _check_engine(engine, address, device)
    folder = None if no_cache else cache or cache_folder()
    from stella_mteb.models.resolve import is_offline, resolve  # noqa: PLC0415
    from stella_mteb.models.spec import Spec  # noqa: PLC0415

    specs = [replace(spec, prompts=prompts) if prompts else spec for spec in map(Spec.parse, models)]
    resolved = [resolve(spec, registry=registry) for spec in specs]
    dimensions = [_dimensions(model, dims) for model in resolved]
    say("loading MTEB ...")
    from stella_mteb.harness.adapter import family  # noqa: PLC0415
    from stella_mteb.harness.find_tasks import find_tasks  # noqa: PLC0415
    from stella_mteb.harness.run import run as run_all  # noqa: PLC0415
    from stella_mteb.outputs.layout import require_writable  # noqa: PLC0415

    found = find_tasks(tasks, benchmarks, max_bad_rows)
    if not dry_run:
        require_writable(output)
    families = (
        family(model, wanted, device=device, cache=folder) for model, wanted in zip(resolved, dimensions, strict=True)
    )
    if is_offline():
        _tell_missing(found, fetch_command(models, tasks, benchmarks) if dry_run else None)
    if dry_run:
        print_plan(families, found, device, output, folder, form)
        return
    follower = Follower(*forecast_all(resolved, dimensions, found, device, output, folder))
    with follower.shown():
        if engine == "ray":
            job = _job(resolved, dimensions, tasks, benchmarks, max_bad_rows, output, folder, device)
            outcomes = _on_ray(job, resolved, found, address, prefill, follower)
        else:
            outcomes = run_all(follower.watched(families), found, output, follower.ended, _prefill if prefill else None)
    _print_scores(outcomes, form)
    if form == "table":
        for outcome in outcomes if not dims else ():
            print_per_label(outcome)
        if dims:
            _print_dimensions(outcomes)
    for line in follower.summary(outcomes):
        say(line)
    if any(outcome.lacks_data for outcome in outcomes):
        _tell_fetch(fetch_command(models, tasks, benchmarks))
    say(f"results: {output / 'results'}")
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _tell_missing(tasks: Sequence[Any], fetch: str | None) -> None:
    """Report before the first task which tasks lack data, and with `fetch` the command that downloads it."""
    from stella_mteb.harness.fetch import items  # noqa: PLC0415

    lacking = [item.tasks[0] for item in items([], tasks) if not item.is_here()]
    if lacking:
        what = f"{len(lacking)} of {many(len(tasks), 'task')} will fail, because their data is missing"
        say(f"{what}: {', '.join(lacking)}")
    if lacking and fetch:
        _tell_fetch(fetch)


def _tell_fetch(command: str) -> None:
    say("to download the missing data (to HF_HOME), run this on a machine with network:")
    say(f"  {command}")


def _check_engine(engine: str, address: str | None, device: str | None) -> None:
    if engine == "ray":
        from stella_mteb.cluster import require_ray  # noqa: PLC0415

        if device not in {None, "auto", "cpu", "cuda"}:
            raise typer.BadParameter("must be auto, cpu or cuda with --engine ray", param_hint="--device")
        require_ray()
    elif address is not None:
        raise typer.BadParameter("needs --engine ray", param_hint="--address")


def _job(
    models: list[ResolvedModel],
    dimensions: list[list[int]],
    tasks: list[str],
    benchmarks: list[str],
    max_bad_rows: int | None,
    output: Path,
    cache: Path | None,
    device: str | None,
) -> Job:
    import torch  # noqa: PLC0415

    from stella_mteb.cluster.job import Job  # noqa: PLC0415

    return Job(
        specs=tuple(str(model.spec) for model in models),
        revisions=tuple(model.revision for model in models),
        dimensions=tuple(map(tuple, dimensions)),
        tasks=tuple(tasks),
        benchmarks=tuple(benchmarks),
        max_bad_rows=max_bad_rows,
        output=output.absolute(),
        cache=cache.absolute() if cache else None,
        device=None if device == "auto" else device,
        folder=Path.cwd(),
        threads=torch.get_num_threads(),
    )


def _on_ray(
    job: Job,
    models: list[ResolvedModel],
    tasks: list[Any],
    address: str | None,
    prefill: bool,
    follower: Follower,
) -> list[Outcome]:
    from stella_mteb.cluster.driver import run_on_ray  # noqa: PLC0415

    say("starting the workers ...")
    outcomes, workers = run_on_ray(
        job,
        models,
        tasks,
        address=address,
        prefill=prefill,
        on_outcome=follower.ended,
        say=say,
        progress=follower.tokens_of_workers,
    )
    say("\n" + render(workers, "table"))
    return outcomes


def _dimensions(model: ResolvedModel, dims: str | None) -> list[int]:
    if dims is None:
        return []
    known = model.layout.dimensions
    if model.spec.dimension is not None:
        raise typer.BadParameter(f"{model.spec} already has a dimension", param_hint="--dims")
    if dims == "all":
        return known
    parts = [part.strip() for part in dims.split(",")]
    wrong = [part for part in parts if part not in map(str, known)]
    have = ", ".join(map(str, known))
    if wrong == [""]:
        raise typer.BadParameter(f"must be all, or some of {have}", param_hint="--dims")
    if wrong:
        raise typer.BadParameter(f"{model.spec} has no head of {', '.join(wrong)}; it has {have}", param_hint="--dims")
    return sorted({int(part) for part in parts})


def _prefill(encoder: Encoder, tasks: Sequence[object]) -> None:
    from stella_mteb.harness.prefill import prefill  # noqa: PLC0415

    if not tasks:
        return
    stats = replace(encoder.text_encoder.stats)
    texts = prefill(encoder, tasks, encoder.on_progress)
    now = encoder.text_encoder.stats
    say(
        f"prefill: {encoder.resolved.spec}: {many(texts.seen, 'text')} of {many(len(tasks), 'task')}, "
        f"{now.encoded - stats.encoded:,} of them encoded ({many(now.tokens - stats.tokens, 'token')}, "
        f"{now.seconds - stats.seconds:.1f} s{cut(now.at_limit - stats.at_limit)})"
    )


def _print_dimensions(outcomes: Sequence[Outcome]) -> None:
    from stella_mteb.models.spec import Spec  # noqa: PLC0415

    rows: dict[tuple[str, str], dict[str, object]] = {}
    for outcome in outcomes:
        spec = Spec.parse(outcome.model)
        name = str(replace(spec, dimension=None))
        row = rows.setdefault((name, outcome.task), {"model": name, "task": outcome.task})
        row[str(spec.dimension)] = outcome.score
    typer.echo("\nMain score by dimension")
    typer.echo(render(list(rows.values()), "table"))


def _print_scores(outcomes: Sequence[Outcome], form: TableFormat) -> None:
    rows = [_row(outcome, form) for outcome in outcomes]
    longest = [max((len(str(row[key])) for row in rows), default=0) for key in ("model", "task")]
    if form != "table" or sum(longest) <= _ROOM:
        typer.echo(render(rows, form))
        return
    for model in dict.fromkeys(outcome.model for outcome in outcomes):
        own = [{key: row[key] for key in row if key != "model"} for row in rows if row["model"] == model]
        typer.echo(f"\n{model}\n{render(own, form)}")


def _row(outcome: Outcome, form: TableFormat) -> dict[str, object]:
    row: dict[str, object] = {
        "model": outcome.model,
        "task": outcome.task,
        "main score": outcome.score,
        "status": outcome.status,
    }
    if form == "table":  # must fit in 80 columns; the line printed for each task has the rest
        return row
    seconds = {"seconds": round(outcome.seconds, 1), "encoding": round(outcome.encoding, 1)}
    return {**row, **seconds, "error": outcome.error}


def print_per_label(outcome: Outcome) -> None:
    """Print the table of one task's scores per label, if it has labels."""
    if not outcome.per_label:
        return
    caption = (
        f"{outcome.task} with {outcome.model}, by label: mean grade, mean cosine, and the share of comparisons within "
        "a reference that the cosines order as the grades do; not chance-corrected: 0.5 is chance, less is worse"
    )
    typer.echo("\n" + textwrap.fill(caption, 80))
    typer.echo(
        render(
            [
                {
                    "label": row["label"],
                    "pairs": row["pairs"],
                    "gold": round(row["gold_mean"], 2),
                    "cosine": round(row["cosine_mean"], 3),
                    "order kept": None if row["order_kept"] is None else round(row["order_kept"], 3),
                }
                for row in outcome.per_label
            ],
            "table",
        )
    )
