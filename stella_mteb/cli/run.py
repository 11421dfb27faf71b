"""`stella-mteb run`, and `stella-mteb mteb` for MTEB's own command line with our models and tasks in it."""

from __future__ import annotations

import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stella_mteb.cli import app, set_offline
from stella_mteb.cli.display import say, token_progress
from stella_mteb.tables import TableFormat, render

if TYPE_CHECKING:
    from stella_mteb.encoder import Encoder
    from stella_mteb.models import ResolvedModel
    from stella_mteb.run import Outcome


@app.command()
def run(
    models: Annotated[list[str], typer.Option("--model", "-m", metavar="SPEC", help="A model; may be repeated.")],
    tasks: Annotated[list[str], typer.Option("--task", "-t", metavar="TASK", help="Task, NAME=PATH, or YAML.")] = [],  # noqa: B006
    benchmarks: Annotated[list[str], typer.Option("--benchmark", "-b", help="All tasks of a benchmark.")] = [],  # noqa: B006
    prompts: Annotated[str | None, typer.Option(help="Prompt profile: card, leaderboard, builtin or own.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for results.")] = Path("stella-results"),
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the network.")] = False,
    max_bad_rows: Annotated[int | None, typer.Option(min=0, help="Rows of local data that may be left out.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
    form: Annotated[TableFormat, typer.Option("--format", help="table, md, json or csv.")] = "table",
) -> None:
    """Run MTEB tasks with models. Finished tasks are kept: the same command again runs what is missing."""
    set_offline(offline)
    resolved = _resolve(models, prompts)
    say("loading MTEB ...")
    from stella_mteb.encoder import Encoder  # noqa: PLC0415
    from stella_mteb.results import require_writable  # noqa: PLC0415
    from stella_mteb.run import find_tasks  # noqa: PLC0415
    from stella_mteb.run import run as run_all  # noqa: PLC0415

    found = find_tasks(tasks, benchmarks, max_bad_rows)
    if not dry_run:
        require_writable(output)
    if dry_run:
        _print_plan([Encoder(model, device) for model in resolved], found, output, form)
        return
    with token_progress("encoding") as progress:

        def encoders() -> Iterator[Encoder]:
            for model in resolved:
                encoder = Encoder(model, device)
                encoder.on_progress = progress
                yield encoder

        outcomes = run_all(encoders(), found, output, _report)
    typer.echo(render([_row(outcome, form) for outcome in outcomes], form))
    if form == "table":
        for outcome in outcomes:
            print_per_label(outcome)
    say(f"results: {output / 'results'}")
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _resolve(specs: list[str], prompts: str | None) -> list[ResolvedModel]:
    from stella_mteb.models import resolve  # noqa: PLC0415
    from stella_mteb.spec import Spec  # noqa: PLC0415

    parsed = [Spec.parse(spec) for spec in specs]
    return [resolve(replace(spec, prompts=prompts) if prompts else spec) for spec in parsed]


def _print_plan(encoders: list[Encoder], tasks: list[object], output: Path, form: TableFormat) -> None:
    from stella_mteb.results import AtomicResultCache  # noqa: PLC0415
    from stella_mteb.run import plan_status  # noqa: PLC0415

    rows = []
    with tempfile.TemporaryDirectory() as scratch:  # making a cache makes its folder, and a dry run makes nothing
        cache = AtomicResultCache(scratch)
        for encoder in encoders:
            folder = output
            for task in tasks:
                name = task.metadata.name  # type: ignore[attr-defined]
                path = output / cache.get_task_result_path(name, encoder.mteb_model_meta).relative_to(scratch)
                folder = path.parent
                status = plan_status(path, task)
                rows.append({"model": str(encoder.resolved.spec), "task": name, "status": status})
            say(f"{encoder.resolved.spec}: {folder}")
    typer.echo(render(rows, form))


def _report(outcome: Outcome) -> None:
    score = "" if outcome.score is None else f" {outcome.score:.4f}"
    left_out = f", {outcome.bad_rows} bad rows left out" if outcome.bad_rows else ""
    left_out += f", {outcome.at_limit} texts at max_length" if outcome.at_limit else ""
    say(f"{outcome.status}: {outcome.model} on {outcome.task}{score} ({outcome.seconds:.1f} s{left_out})")
    if outcome.error:
        say(f"  {outcome.error}")


def _row(outcome: Outcome, form: TableFormat) -> dict[str, object]:
    return {
        "model": outcome.model,
        "task": outcome.task,
        "main score": outcome.score,
        "status": outcome.status,
        "seconds": round(outcome.seconds, 1),
        **({"error": outcome.error} if form != "table" else {}),
    }


def print_per_label(outcome: Outcome) -> None:
    """The table of one task's scores per label, if it has labels."""
    if not outcome.per_label:
        return
    caption = (
        f"{outcome.task} with {outcome.model}, by label: mean grade, mean cosine, and the share of comparisons within "
        "a reference that the cosines order as the grades do (0.5: chance)"
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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def mteb(context: typer.Context) -> None:
    """MTEB's own command line, with our models, tasks and benchmark registered; arguments are handed on."""
    from mteb.cli import main as mteb_main  # noqa: PLC0415

    from stella_mteb.registry import register  # noqa: PLC0415

    register()
    sys.argv = ["mteb", *context.args]
    mteb_main()
