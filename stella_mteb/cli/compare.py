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
    """The `compare` command, with an optional value for `--remote`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add the newest revision as the value of every bare `--remote`."""
        bare = [
            i for i, each in enumerate(args) if each == "--remote" and "".join(args[i + 1 : i + 2])[:1] in {"", "-"}
        ]
        for i in reversed(bare):
            args.insert(i + 1, "HEAD")
        return super().parse_args(ctx, args)


@app.command(cls=_NewestUnlessSaid, short_help="Compare models like for like.")
def compare(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC...", help="Models to compare; default: all that are found.")
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Results folder of run or of MTEB; repeatable.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Add the bundled published MTEB(eng, v1) scores.")
    ] = False,
    remote: Annotated[
        str | None,
        typer.Option(
            metavar="[REVISION]",
            help="Add MTEB's public results: the newest, or a commit, branch, tag or clone folder.",
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option("-b", "--benchmark", metavar="NAME", help='Use only the tasks of, e.g., "MTEB(eng, v2)".'),
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Use only tasks of this type; repeatable.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("-t", "--task", metavar="TASK", help="Use only this task; repeatable.")
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="CODE", help="Use only subsets in this language (eng); repeatable."),
    ] = None,
    english: Annotated[bool, typer.Option("--english", help="Use only English subsets: --language eng.")] = False,
    exclude: Annotated[list[str] | None, typer.Option(metavar="TASK", help="Leave out this task; repeatable.")] = None,
    coverage: Annotated[
        float, typer.Option(metavar="PERCENT", help="Rank models with at least this share of the tasks.")
    ] = 80,
    join: Annotated[
        bool, typer.Option("--join", help="Join a model's revisions and self-reported scores into one row.")
    ] = False,
    any_data_revision: Annotated[
        bool, typer.Option("--any-data-revision", help="Also compare scores on different data revisions.")
    ] = False,
    max_params: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Limit the parameters of models not named (8B).")
    ] = None,
    open_weights: Annotated[bool, typer.Option("--open", help="Require open weights of models not named.")] = False,
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Add the N best of the models not named.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a report as one HTML file.")] = None,
    form: Format = "table",
) -> None:
    """Compare models like for like: scores with their sources, significance and costs.

    Without --results, --published and --remote, the results in ./stella-results are compared. With --top, --max-params
    or --open, other models that are found are added to those named.
    """
    from stella_mteb.compare.comparison import best  # noqa: PLC0415
    from stella_mteb.compare.comparison import compare as compare_scores  # noqa: PLC0415
    from stella_mteb.compare.facts import facts_of, number_of_parameters, within  # noqa: PLC0415
    from stella_mteb.compare.items import items_of, price_of  # noqa: PLC0415
    from stella_mteb.compare.naming import with_organisation  # noqa: PLC0415
    from stella_mteb.compare.selection import choose  # noqa: PLC0415
    from stella_mteb.compare.sources import join as joined  # noqa: PLC0415
    from stella_mteb.compare.sources import select  # noqa: PLC0415
    from stella_mteb.compare.text import render_comparison  # noqa: PLC0415
    from stella_mteb.compare.words import unread  # noqa: PLC0415
    from stella_mteb.errors import ConfigError  # noqa: PLC0415
    from stella_mteb.harness.mteb_facts import load_facts  # noqa: PLC0415

    if not 50 < coverage <= 100:
        raise ConfigError(
            f"--coverage {coverage:g}: must be more than 50 and at most 100, so that every two models share tasks"
        )
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
    full = {name: with_organisation(name, mteb["models"]) for name in models or []}
    found = _sources([*full.values()], results or [], published, remote, selection, mteb["tasks"], others=filtered)
    if join:
        found = joined(found, {name: one["revision"] for name, one in mteb["models"].items()})
    present = {text for system in found.scores for text in (system.model, system.label)}
    specs = [name if name in present else full[name] for name in full]  # a local run may lack the organisation
    named = select(found.scores, specs, notes=found.notes)
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
        asked = "-b, -t, --type, --language or --exclude"
        said = f"nothing to compare: no score could be read; use other {asked}, or another --results folder"
        raise ConfigError("\n  ".join([said, *unread(found.gaps, scores)]))
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
    """Read the models from all sources, and with `others` also every other model in the folders."""
    from stella_mteb.compare.folder import local_scores  # noqa: PLC0415
    from stella_mteb.compare.public import remote_scores  # noqa: PLC0415
    from stella_mteb.compare.published import published as published_rows  # noqa: PLC0415
    from stella_mteb.compare.sources import merge  # noqa: PLC0415
    from stella_mteb.errors import ConfigError  # noqa: PLC0415

    if not results and not published and remote is None:
        if not DEFAULT_RESULTS.is_dir():
            raise ConfigError(
                f"nothing to compare: the folder ./{DEFAULT_RESULTS} does not exist. Give --results DIR, "
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
            raise ConfigError(
                "--remote needs the models to read, because the public results have hundreds; name them as arguments"
            )
        found.append(
            remote_scores(models, revision=remote, selection=selection, facts=_facts(mteb, selection), report=say)
        )
    return merge(*found)


def _facts(mteb: Mapping[str, Any], selection: Selection, folder: Path | None = None) -> Callable[[str], TaskFacts]:
    """Look up a task in the YAML files of this project and of the folder, or in MTEB's table."""
    from stella_mteb.compare.score_file import TaskFacts  # noqa: PLC0415
    from stella_mteb.errors import ConfigError  # noqa: PLC0415
    from stella_mteb.harness.task_yaml import bundled_tasks, load_task_file  # noqa: PLC0415

    files = list(bundled_tasks().values())
    for pattern in ("*.yaml", "tasks/*.yaml", "tasks/*/*.yaml"):
        for path in sorted(folder.glob(pattern)) if folder else ():
            with contextlib.suppress(ConfigError):  # some YAML files beside results do not define a task
                files.append(load_task_file(path))
    own = {file.spec.name: TaskFacts(file.spec.type, (file.spec.split,)) for file in files}

    @functools.cache
    def facts(task: str) -> TaskFacts:
        if task in own or task not in mteb:
            return own.get(task, TaskFacts())
        wanted, known = selection.wanted.get(task), mteb[task]
        return TaskFacts(known["type"], wanted.splits if wanted else tuple(known["splits"]), known["main_score"])

    return facts
