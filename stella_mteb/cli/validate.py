"""The command `stella-mteb validate`, which measures the agreement of a judge with people."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say, token_progress
from stella_mteb.cli.options import Cache, Device, Format, Nli, Offline, PromptKind
from stella_mteb.cli.registry import registry
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.tables import render


@app.command(short_help="Measure how well a judge agrees with people.")
def validate(
    references: Annotated[
        Path, typer.Option(metavar="FILE", help="Texts by id; a list of texts is several references.")
    ],
    ratings: Annotated[Path, typer.Option(metavar="FILE", help="Rows of id, candidate, score; also raters, system.")],
    models: Annotated[list[str], typer.Option("--model", "-m", metavar="SPEC", help="A judge; may be repeated.")],
    published: Annotated[str | None, typer.Option(metavar="SET", help="Show published figures on this set.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with pictures.")] = None,
    id_column: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of ids in both files.")] = None,
    text_column: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of texts in either file.")] = None,
    score_columns: Annotated[
        list[str] | None,
        typer.Option("--score-column", metavar="COLUMN", help="Column of scores; repeated: one for each rater."),
    ] = None,
    prompt_type: PromptKind = "s2s",
    nli: Nli = None,
    device: Device = None,
    offline: Offline = False,
    cache: Cache = None,
    form: Format = "table",
) -> None:
    """Compute the agreement of each measure of a judge with people's ratings of the same texts."""
    set_offline(offline)
    from stella_mteb.files.keyed_texts import KeyedColumns, require_columns  # noqa: PLC0415
    from stella_mteb.judge.agreement_words import SHORT, advice, tables  # noqa: PLC0415
    from stella_mteb.judge.inputs import read_references  # noqa: PLC0415
    from stella_mteb.judge.judge import load_judge  # noqa: PLC0415
    from stella_mteb.judge.nli import NliModel  # noqa: PLC0415
    from stella_mteb.judge.published import published_figures  # noqa: PLC0415
    from stella_mteb.judge.ratings import read_ratings  # noqa: PLC0415
    from stella_mteb.judge.validation import Validation  # noqa: PLC0415
    from stella_mteb.models.resolve import resolve  # noqa: PLC0415

    of_others = published_figures(published) if published else []
    columns = KeyedColumns(id_column, text_column)
    require_columns(columns, [references, ratings])
    texts = read_references(references, columns)
    nli_model = NliModel(nli, device) if nli else None
    validation = Validation(texts, read_ratings(ratings, texts, columns, score_columns or ()))
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
        shown = [f"{title}\n\n{render(rows, form)}" for title, rows in tables(found).items()]
        if found["ceiling"]:
            figures = ", ".join(
                f"{short} {found['ceiling'][name]:.3f}"
                for name, short in SHORT.items()
                if found["ceiling"][name] is not None
            )
            shown.append(f"One of {found['ceiling']['raters']} raters against the mean of the others: {figures}")
        shown.append("\n".join(textwrap.fill(line, 80) for line in (*found["reasons"], f"{advice(found)}.")))
        typer.echo("\n\n".join(shown))
        figures = " and ".join(name for name, rows in (("rho", "rows"), ("accuracy", "preferences")) if found[rows])
        say(f"low, high: 95 % interval of {figures} over 20 or more resampled clips")
        say("--format json has all figures")
    if html is not None:
        from stella_mteb.judge.agreement_page import write_page  # noqa: PLC0415

        write_page(html, found)
        say(f"page: {html}")
