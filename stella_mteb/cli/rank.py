"""`stella-mteb rank`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from stella_mteb.cli.app import app
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Format
from stella_mteb.files.tables import TableFormat, render

_COLUMNS = ("rank", "slug", "borda", "mean_hm_cf", "low", "high", "best_rank", "worst_rank", "clips")
_LEGEND = "95 %: interval of mean_hm_cf, by resampling clips; ranks: those that the tests leave a model"


@app.command()
def rank(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output of judge, or <judge>/<model>.json files.")],
    agreement: Annotated[bool, typer.Option("--agreement", help="Also: how much the judges agree.")] = False,
    form: Format = "table",
) -> None:
    """Rank candidate models over all judges in a folder: Borda, then mean HM-CF.

    As JSON and CSV, --agreement prints the judges' agreement in the ranking's place.
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
        say("one judge: there is nobody to agree with")
        return
    if form in {"table", "md"}:
        typer.echo("\nHow much two judges agree on the order of the models by mean HM-CF. low, high:")
        typer.echo("95 % interval of Kendall's tau over clips; - where only means are known\n")
    typer.echo(render(rows, form))


def print_ranking(folder: Path, form: TableFormat) -> None:
    """Print the ranking over all judges of a folder, models that cannot be ranked below it, and why on stderr."""
    from stella_mteb.judge.certainty import certainty, ties_in_words  # noqa: PLC0415
    from stella_mteb.judge.ranking import rank_models  # noqa: PLC0415
    from stella_mteb.judge.reports import read_results  # noqa: PLC0415

    results = read_results(folder)
    ranking, apart = rank_models(results)
    sure = certainty(results, ranking)
    rows = []
    for row in ranking:
        low, high = sure.intervals.get(row.slug, (None, None)) if sure else (None, None)
        best, worst = sure.ranks[row.slug] if sure else (None, None)
        rows.append(_row(row.rank, row.slug, row.borda, row.mean_hm_cf, low, high, best, worst, row.clips))
    rows += [_row(None, one.slug, None, one.mean_hm_cf, None, None, None, None, one.clips) for one in apart]
    if form == "json":
        duels = [asdict(duel) for duel in sure.duels] if sure else []
        rows = [row | {"duels": [duel for duel in duels if duel["first"] == row["slug"]]} for row in rows]
    typer.echo(render(rows if form in {"json", "csv"} else [_shown(row) for row in rows], form))
    if sure and form in {"table", "md"}:
        typer.echo("\n" + "\n".join(ties_in_words(sure)))
        say(_LEGEND)
    say(f"judges: {', '.join(results)}")
    for one in apart:
        say(f"not ranked: {one.slug}: {one.reason}")


def _row(*cells: Any) -> dict[str, Any]:
    return dict(zip(_COLUMNS, cells, strict=True))


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high, best, worst = (row[name] for name in ("low", "high", "best_rank", "worst_rank"))
    return {
        **{name: row[name] for name in ("rank", "slug", "borda", "mean_hm_cf")},
        "95 %": None if low is None else f"{low:.3f} to {high:.3f}",
        "ranks": best if best == worst else f"{best}-{worst}",
        "clips": row["clips"],
    }
