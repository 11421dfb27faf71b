"""The command `stella-mteb validate`, which measures the agreement of a judge with people."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say, token_progress
from stella_mteb.cli.options import Cache, Device, Format, Nli, Offline, PromptKind
from stella_mteb.cli.registry import registry
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.tables import render

_TITLES = {
    ("item", "rater"): "Over all texts, each rater's score as an item",
    ("item", "each"): "Over all texts, against each rater: mean over raters",
    ("item", "mean"): "Over all texts, against the mean of the raters",
    ("clip", "rater"): "Within clips, each rater's score as an item: mean over clips",
    ("clip", "mean"): "Within clips, against the mean of the raters: mean over clips",
    ("system", "mean"): "Over the means of the systems",
}
_SHORT = {"spearman": "rho", "kendall_b": "tau-b", "kendall_c": "tau-c", "pearson": "r"}


@app.command(short_help="Measure how well a judge agrees with people.")
def validate(
    references: Annotated[
        Path, typer.Option(metavar="FILE", help="Texts by id; a list of texts is several references.")
    ],
    ratings: Annotated[Path, typer.Option(metavar="FILE", help="Rows of id, candidate, score; also raters, system.")],
    models: Annotated[list[str], typer.Option("--model", "-m", metavar="SPEC", help="A judge; may be repeated.")],
    published: Annotated[str | None, typer.Option(metavar="SET", help="Show published figures on this set.")] = None,
    prompt_type: PromptKind = "s2s",
    nli: Nli = None,
    device: Device = None,
    offline: Offline = False,
    cache: Cache = None,
    form: Format = "table",
) -> None:
    """Compute the agreement of each measure of a judge with people's ratings of the same texts."""
    set_offline(offline)
    from stella_mteb.judge.inputs import read_references  # noqa: PLC0415
    from stella_mteb.judge.judge import load_judge  # noqa: PLC0415
    from stella_mteb.judge.nli import NliModel  # noqa: PLC0415
    from stella_mteb.judge.published import published_figures  # noqa: PLC0415
    from stella_mteb.judge.ratings import read_ratings  # noqa: PLC0415
    from stella_mteb.judge.validation import Validation  # noqa: PLC0415
    from stella_mteb.models.resolve import resolve  # noqa: PLC0415

    of_others = published_figures(published) if published else []
    texts = read_references(references)
    nli_model = NliModel(nli, device) if nli else None
    validation = Validation(texts, *read_ratings(ratings, texts))
    for model in [resolve(spec, registry=registry) for spec in models]:
        say(f"loading {model.spec} ...")
        encoder, prompt = load_judge(model, prompt_type, validation.texts, device=device, cache=cache or cache_folder())
        with token_progress(f"judging with {model.spec}") as progress:
            validation.judge(str(model.spec), encoder, prompt, progress, nli_model)
    say("resampling clips ...")
    found = {**validation.as_json(), "published": of_others}
    if form == "json":
        typer.echo(json.dumps(found, indent=2, allow_nan=False))
    elif form == "csv":
        typer.echo(render(found["rows"] or found["preferences"], "csv"))
    else:
        typer.echo("\n\n".join(f"{title}\n\n{render(rows, form)}" for title, rows in _tables(found).items() if rows))
        if found["ceiling"]:
            figures = ", ".join(f"{short} {found['ceiling'][name]:.3f}" for name, short in _SHORT.items())
            typer.echo(f"\nOne of {found['ceiling']['raters']} raters against the mean of the others: {figures}")
        say("low, high: 95 % interval of rho over resampled clips, given from 20 clips on")
        say("--format json has all figures")


def _tables(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Choose the displayed rows: the best reference for every measure, and the other modes for HM-CF only."""
    tables: dict[str, list[dict[str, Any]]] = {}
    judges = dict.fromkeys(row["judge"] for row in found["rows"])
    for judge, (kind, title) in itertools.product(judges, _TITLES.items()):
        rows = [row for row in found["rows"] if (row["judge"], row["level"], row["against"]) == (judge, *kind)]
        own = title if len(judges) == 1 else f"{judge}: {title}"
        tables[own] = [_shown(row) for row in rows if row["references"] == "best" or row["measure"] == "hm_cf"]
    tables["Published by others"] = [
        {"metric": row["metric"], "refs": row["references"], "against": row["against"]}
        | {short: row[name] for name, short in _SHORT.items()}
        for row in found["published"]
    ]
    tables["Share of pairs in which the measure prefers the text that people prefer"] = [
        {"judge": row["judge"], "measure": _for_people(row["measure"]), "refs": row["references"],
         "accuracy": row["accuracy"], "95 %": f"{row['low']:.3f} to {row['high']:.3f}", "n": row["n"]}
        for row in found["preferences"]
    ]  # fmt: skip
    tables["Differences of rho over all texts, with the best reference"] = [
        {"first": _named(one["first"], found), "second": _named(one["second"], found)}
        | {name: round(one[name], 3) for name in ("difference", "low", "high", "p_adjusted")}
        for one in found["differences"]
    ]
    return tables


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    figures = {short: None if row[name] is None else round(row[name], 3) for name, short in _SHORT.items()}
    ends = {name: None if row[name] is None else round(row[name], 3) for name in ("low", "high")}
    return {"measure": _for_people(row["measure"]), "refs": row["references"], **figures, **ends, "n": row["n"]}


def _named(judge_and_measure: tuple[str, str], found: Mapping[str, Any]) -> str:
    judge, measure = judge_and_measure
    several = len({row["judge"] for row in found["rows"]}) > 1
    return f"{judge}: {_for_people(measure)}" if several else _for_people(measure)


def _for_people(measure: str) -> str:
    from stella_mteb.judge.similarity import SHOWN_AS  # noqa: PLC0415

    return SHOWN_AS.get(measure, measure)
