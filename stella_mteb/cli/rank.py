"""`stella-mteb rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stella_mteb.cli.app import app
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Format
from stella_mteb.files.tables import TableFormat, render


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
    from stella_mteb.judge.ranking import rank_models  # noqa: PLC0415
    from stella_mteb.judge.reports import read_results  # noqa: PLC0415

    results = read_results(folder)
    ranking, apart = rank_models(results)
    rows: list[dict[str, Any]] = [
        {"rank": row.rank, "slug": row.slug, "borda": row.borda, "mean_hm_cf": row.mean_hm_cf, "clips": row.clips}
        for row in ranking
    ]
    rows += [
        {"rank": None, "slug": one.slug, "borda": None, "mean_hm_cf": one.mean_hm_cf, "clips": one.clips}
        for one in apart
    ]
    typer.echo(render(rows, form))
    say(f"judges: {', '.join(results)}")
    for one in apart:
        say(f"not ranked: {one.slug}: {one.reason}")
