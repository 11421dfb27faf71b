"""The command `stella-mteb rank`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stella_mteb.cli.app import app
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Format
from stella_mteb.files.tables import TableFormat, render

if TYPE_CHECKING:
    from stella_mteb.judge.certainty import Certainty
    from stella_mteb.judge.ranking import Apart, RankedModel

_LEGEND = "95 %: interval of mean_hm_cf (clips resampled); ranks: places a model may have"


@app.command(short_help="Rank candidate models over all judges in a folder.")
def rank(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output of judge, or <judge>/<model>.json files.")],
    agreement: Annotated[bool, typer.Option("--agreement", help="Also show the agreement of the judges.")] = False,
    form: Format = "table",
) -> None:
    """Rank candidate models over all judges in a folder: Borda, then mean HM-CF.

    With JSON and CSV, --agreement prints the agreement of the judges instead of the ranking.
    """
    if not agreement or form in {"table", "md"}:
        print_ranking(folder, form)
    if not agreement:
        return
    from stella_mteb.judge.ranking import agreements  # noqa: PLC0415
    from stella_mteb.judge.reports import read_results  # noqa: PLC0415

    rows: list[dict[str, Any]] = [
        {
            "judge": one.first,
            "and judge": one.second,
            "models": one.models,
            "kendall": one.kendall,
            "low": one.low,
            "high": one.high,
            "spearman": one.spearman,
            "clips": one.clips or None,
        }
        for one in agreements(read_results(folder))
    ]
    if not rows:
        say("agreement needs two judges; this folder has one")
        return
    if form in {"table", "md"}:
        typer.echo("\nAgreement of two judges on the order of the models by mean HM-CF. low, high:")
        typer.echo("95 % interval of Kendall's tau over clips; - if only means are known\n")
    typer.echo(render(rows, form))


def print_ranking(folder: Path, form: TableFormat) -> None:
    """Print the ranking over all judges of a folder, the unranked models below it, and their reasons on stderr."""
    from stella_mteb.judge.certainty import certainty, ties_in_words  # noqa: PLC0415
    from stella_mteb.judge.ranking import means_beside, rank_models  # noqa: PLC0415
    from stella_mteb.judge.reports import read_results  # noqa: PLC0415

    results = read_results(folder)
    ranking, apart = rank_models(results)
    sure = certainty(results, ranking)
    rows = [*(_ranked(row, sure) for row in ranking), *(_unranked(one) for one in apart)]
    beside = {row["slug"]: means_beside(results, row["slug"]) for row in rows}
    if form in {"table", "md"}:
        typer.echo(render([_shown(row) for row in rows], form))
        typer.echo("\nMeans over clips of the other measures" + "\n" * (form == "md"))
        typer.echo(render(_named(beside), form))
        typer.echo("\n" + "\n".join(textwrap.fill(line, 80) for line in (ties_in_words(sure) if sure else ())))
        say(_LEGEND)
    elif form == "csv":
        typer.echo(render(rows, form))
    else:
        duels = [asdict(duel) for duel in sure.duels] if sure else []
        more = [
            {"means": beside[row["slug"]], "duels": [duel for duel in duels if duel["first"] == row["slug"]]}
            for row in rows
        ]
        typer.echo(render([row | own for row, own in zip(rows, more, strict=True)], form))
    say(f"judges: {', '.join(results)}")
    for one in apart:
        say(f"not ranked: {one.slug}: {one.reason}")


def _ranked(row: RankedModel, sure: Certainty | None) -> dict[str, Any]:
    low, high = sure.intervals.get(row.slug, (None, None)) if sure else (None, None)
    best, worst = sure.ranks[row.slug] if sure else (None, None)
    figures = {"borda": row.borda, "mean_hm_cf": row.mean_hm_cf, "low": low, "high": high}
    return {"rank": row.rank, "slug": row.slug, **figures, "best_rank": best, "worst_rank": worst, "clips": row.clips}


def _unranked(one: Apart) -> dict[str, Any]:
    unknown = dict.fromkeys(("low", "high", "best_rank", "worst_rank"))
    return {"rank": None, "slug": one.slug, "borda": None, "mean_hm_cf": one.mean_hm_cf, **unknown, "clips": one.clips}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high, best, worst = (row[name] for name in ("low", "high", "best_rank", "worst_rank"))
    return {
        **{name: row[name] for name in ("rank", "slug", "borda", "mean_hm_cf")},
        "95 %": None if low is None else f"{low:.3f} to {high:.3f}",
        "ranks": best if best == worst else f"{best}-{worst}",
        "clips": row["clips"],
    }


def _named(beside: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return the other measures by model, under their display names."""
    from stella_mteb.judge.similarity import SHOWN_AS  # noqa: PLC0415

    measures = dict.fromkeys(name for own in beside.values() for name in own)
    return [
        {"slug": slug}
        | {SHOWN_AS.get(name, name): None if name not in own else round(own[name], 3) for name in measures}
        for slug, own in beside.items()
    ]
