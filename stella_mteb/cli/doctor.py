"""`stella-mteb doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.options import Format
from stella_mteb.files.tables import render


@app.command()
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not try the network.")] = False,
    form: Format = "table",
) -> None:
    """Say what this machine can run, and what to do about the rest."""
    set_offline(offline)
    from stella_mteb.diagnostics.doctor import examine  # noqa: PLC0415

    findings = list(examine())
    typer.echo(render([{"what": f.what, "status": f.status, "detail": f.detail} for f in findings], form))
