"""`stella-mteb submit --check`."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stella_mteb.cli.app import app
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Format
from stella_mteb.files.tables import many, plain, render

if TYPE_CHECKING:
    from stella_mteb.harness.submission import Finding


@app.command(short_help="Check results against MTEB's submission rules.")
def submit(
    check: Annotated[Path, typer.Option("--check", metavar="DIR", help="Folder of results to check.")],
    against: Annotated[Path | None, typer.Option(metavar="DIR", help="A checkout of the results repository.")] = None,
    form: Format = "table",
) -> None:
    """Check results against the rules of MTEB's public results repository. Sends nothing."""
    say("reading MTEB's lists of models and tasks ...")
    from stella_mteb.harness.submission import check as findings  # noqa: PLC0415 -- imports mteb

    found = list(findings(check, against))
    lacking = [one for one in found if one.status == "not met"]
    if form == "table":
        _print_by_file(lacking)
    else:
        typer.echo(render([vars(one) for one in found], form))
    met = sum(one.status == "met" for one in found)
    unchecked = len(found) - met - len(lacking)
    say(f"{met} of {many(len(found), 'check')} passed, {len(lacking)} failed, and {unchecked} could not be made")
    if unchecked and against is None:
        say("to check that published scores do not change, pass a checkout of the results repository with --against")
    if lacking:
        say("fix the failed checks before you submit; `stella-mteb compare` can read these results as they are")
        raise typer.Exit(1)
    say("submit them as a pull request to the results repository of MTEB, under results/")


def _print_by_file(found: Sequence[Finding]) -> None:
    # Paths are too long for a terminal column.
    for folder, group in itertools.groupby(found, key=lambda one: _folder(one.path)):
        typer.echo(plain(folder))
        for one in group:
            file = one.path.removeprefix(folder).strip("/")
            text = plain(f"{file + ': ' if file else ''}{one.status}: {one.rule}: {one.detail}")
            typer.echo(textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="    "))


def _folder(path: str) -> str:
    return path.rpartition("/")[0] if path.endswith(".json") else path
