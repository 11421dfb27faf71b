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
    from stella_mteb.judge.reports import read_clips, read_hm_cf  # noqa: PLC0415

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
        for one in agreements(read_hm_cf(folder), read_clips(folder))
    ]
    if not rows:
        say("one judge: there is nobody to agree with")
        return
    if form in {"table", "md"}:
        typer.echo("\nHow much two judges agree on the order of the models by mean HM-CF. low, high:")
        typer.echo("95 % interval of Kendall's tau over clips; - where only means are known\n")
    typer.echo(render(rows, form))


def print_ranking(folder: Path, form: TableFormat) -> None:
    """Print the ranking over all judges of a folder, and on stderr what qualifies it."""
    from stella_mteb.judge.ranking import rank_models  # noqa: PLC0415
    from stella_mteb.judge.reports import read_coverage, read_hm_cf  # noqa: PLC0415

    hm_cf = read_hm_cf(folder)
    ranking, incomplete = rank_models(hm_cf)
    clips = read_coverage(folder)
    rows: list[dict[str, Any]] = []
    for row in ranking:
        columns: dict[str, Any] = {"rank": row.rank, "slug": row.slug, "borda": row.borda, "mean_hm_cf": row.mean_hm_cf}
        if form in {"table", "md"}:  # programs rely on these four keys, and read the counts in the aggregated files
            columns["clips"] = "/".join(map(str, sorted(clips.get(row.slug, ())))) or None
        rows.append(columns)
    typer.echo(render(rows, form))
    if len(set().union(*(clips.get(row.slug, set()) for row in ranking))) > 1:
        say("warning: the models were scored on different numbers of clips; their means are not comparable")
    say(f"judges: {', '.join(hm_cf)}")
    if incomplete:
        say(f"not ranked, because not every judge has scored them: {', '.join(incomplete)}")
