"""`stella-mteb compare`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from stella_mteb.cli.app import app
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Format

if TYPE_CHECKING:
    from stella_mteb.compare.records import Scores
    from stella_mteb.compare.score_file import TaskFacts
    from stella_mteb.compare.selection import Selection
    from stella_mteb.compare.sources import Found

DEFAULT_RESULTS = Path("stella-results")


class _NewestUnlessSaid(TyperCommand):
    """`--remote` may stand without its value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every bare `--remote` the newest revision."""
        bare = [
            i for i, each in enumerate(args) if each == "--remote" and "".join(args[i + 1 : i + 2])[:1] in {"", "-"}
        ]
        for i in reversed(bare):
            args.insert(i + 1, "HEAD")
        return super().parse_args(ctx, args)


@app.command(cls=_NewestUnlessSaid, short_help="Compare models like for like.")
def compare(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC...", help="Models to compare; all that are found if left out.")
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Results of run, or of MTEB; repeatable.")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Published scores, MTEB(eng, v1); bundled.")] = False,
    remote: Annotated[
        str | None,
        typer.Option(
            metavar="[REVISION]",
            help="MTEB's public results: the newest, or a commit, branch, tag or the folder of a clone.",
        ),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("-b", "--benchmark", metavar="NAME", help='A benchmark of MTEB: "MTEB(eng, v2)".')
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Tasks of this type only; repeatable.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("-t", "--task", metavar="TASK", help="This task only; repeatable.")
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="CODE", help="Subsets in this language (eng) only; repeatable."),
    ] = None,
    english: Annotated[bool, typer.Option("--english", help="English only: --language eng.")] = False,
    exclude: Annotated[list[str] | None, typer.Option(metavar="TASK", help="Without this task; repeatable.")] = None,
    coverage: Annotated[
        float, typer.Option(metavar="PERCENT", help="Ranked are models with this share of the tasks at least.")
    ] = 80,
    join: Annotated[
        bool, typer.Option("--join", help="One row for each model: its revisions and what its authors report.")
    ] = False,
    any_data_revision: Annotated[
        bool, typer.Option("--any-data-revision", help="Compare scores on different revisions of the data, too.")
    ] = False,
    max_params: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Other models with at most so many parameters (8B) only.")
    ] = None,
    open_weights: Annotated[bool, typer.Option("--open", help="Other models whose weights are open only.")] = False,
    top: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Beside the models that are named, the N best others.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a report, one HTML file.")] = None,
    form: Format = "table",
) -> None:
    """Compare models like for like: scores with where they are from, how sure, at what price.

    Without --results, --published and --remote: the results in ./stella-results. With --top, --max-params or --open the
    other models that are found join those that are named.
    """
    from stella_mteb.compare.comparison import best  # noqa: PLC0415
    from stella_mteb.compare.comparison import compare as compare_scores  # noqa: PLC0415
    from stella_mteb.compare.facts import facts_of, number_of_parameters, within  # noqa: PLC0415
    from stella_mteb.compare.items import items_of, price_of  # noqa: PLC0415
    from stella_mteb.compare.selection import choose  # noqa: PLC0415
    from stella_mteb.compare.sources import join as joined  # noqa: PLC0415
    from stella_mteb.compare.sources import select  # noqa: PLC0415
    from stella_mteb.compare.text import render_comparison  # noqa: PLC0415
    from stella_mteb.errors import ConfigError  # noqa: PLC0415
    from stella_mteb.harness.mteb_facts import load_facts  # noqa: PLC0415

    if not 50 < coverage <= 100:
        raise ConfigError(f"--coverage {coverage:g}: more than 50 and at most 100, so that every two share tasks")
    mteb = load_facts()
    selection = choose(
        mteb,
        benchmark=benchmark,
        types=types or (),
        tasks=tasks or (),
        languages=[*(languages or []), *(["eng"] if english else [])],
        exclude=exclude or (),
    )
    filtered = top is not None or max_params is not None or open_weights
    found = _sources(models or [], results or [], published, remote, selection, mteb["tasks"], others=filtered)
    if join:
        found = joined(found, {name: one["revision"] for name, one in mteb["models"].items()})
    named = select(found.scores, models, notes=found.notes) if models else {}
    scores: Scores = named
    left_out: list[str] = []
    if not models or filtered:
        others = {system: of for system, of in found.scores.items() if system not in named}
        bound = None if max_params is None else number_of_parameters(max_params)
        wanted, left_out = within(others, mteb, max_parameters=bound, open_weights=open_weights)
        scores = {**named, **wanted}
    if top is not None:
        scores = best(
            scores,
            top,
            kept=named,
            selection=selection,
            coverage=coverage / 100,
            any_data_revision=any_data_revision,
        )
    if not any(scores.values()):
        raise ConfigError("\n  ".join(["nothing to compare: no score could be read", *found.notes_on(scores)]))
    items = {(system.label, task): items_of(score) for system, own in scores.items() for task, score in own.items()}
    prices = [price_of(system, next(iter(own.values())).source) for system, own in scores.items() if own]
    comparison = compare_scores(
        scores,
        selection=selection,
        coverage=coverage / 100,
        any_data_revision=any_data_revision,
        items={key: value for key, value in items.items() if value},
        prices=[price for price in prices if price is not None],
        gaps=found.gaps,
        notes=(*found.notes_on(scores), *left_out),
        commit=found.commit,
        families={name: task["family"] for name, task in mteb["tasks"].items()},
    )
    comparison = replace(comparison, facts=facts_of(comparison, mteb))
    typer.echo(render_comparison(comparison, form))
    if html is not None:
        from stella_mteb.compare.html import write_report  # noqa: PLC0415

        write_report(comparison, html)
        say(f"report: {html}")


def _sources(
    models: list[str],
    results: list[Path],
    published: bool,
    remote: str | None,
    selection: Selection,
    mteb: Mapping[str, Any],
    *,
    others: bool,
) -> Found:
    """What the sources have of the models, and with `others` what the folders have of every other model."""
    from stella_mteb.compare.folder import local_scores  # noqa: PLC0415
    from stella_mteb.compare.public import remote_scores  # noqa: PLC0415
    from stella_mteb.compare.published import published as published_rows  # noqa: PLC0415
    from stella_mteb.compare.sources import merge  # noqa: PLC0415
    from stella_mteb.errors import ConfigError  # noqa: PLC0415

    if not results and not published and remote is None:
        if not DEFAULT_RESULTS.is_dir():
            raise ConfigError(
                f"nothing to compare: there is no folder ./{DEFAULT_RESULTS}. Give --results DIR, "
                "--published, or --remote"
            )
        results = [DEFAULT_RESULTS]
    named = None if others else models or None
    found = [
        local_scores(folder, models=named, selection=selection, facts=_facts(mteb, selection, folder))
        for folder in results
    ]
    if published:
        found.append(published_rows(selection))
    if remote is not None:
        if not models:
            raise ConfigError("--remote needs the models to read: the public results hold hundreds")
        found.append(
            remote_scores(models, revision=remote, selection=selection, facts=_facts(mteb, selection), report=say)
        )
    return merge(*found)


def _facts(mteb: Mapping[str, Any], selection: Selection, folder: Path | None = None) -> Callable[[str], TaskFacts]:
    """Look a task up in the YAMLs of this project and of the folder, or in MTEB's table."""
    from stella_mteb.compare.score_file import TaskFacts  # noqa: PLC0415
    from stella_mteb.errors import ConfigError  # noqa: PLC0415
    from stella_mteb.harness.task_yaml import bundled_tasks, load_task_file  # noqa: PLC0415

    files = list(bundled_tasks().values())
    for pattern in ("*.yaml", "tasks/*.yaml", "tasks/*/*.yaml"):
        for path in sorted(folder.glob(pattern)) if folder else ():
            with contextlib.suppress(ConfigError):  # not every YAML beside results is a task's
                files.append(load_task_file(path))
    own = {file.spec.name: TaskFacts(file.spec.type, (file.spec.split,)) for file in files}

    @functools.cache
    def facts(task: str) -> TaskFacts:
        if task in own or task not in mteb:
            return own.get(task, TaskFacts())
        wanted, known = selection.wanted.get(task), mteb[task]
        return TaskFacts(known["type"], wanted.splits if wanted else tuple(known["splits"]), known["main_score"])

    return facts
