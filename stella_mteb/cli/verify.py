"""`stella-mteb verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Device, Format, Offline
from stella_mteb.cli.registry import registry
from stella_mteb.files.tables import render


@app.command(short_help="Compare a copy of a model with published values.")
def verify(
    model: Annotated[str, typer.Option("--model", "-m", metavar="SPEC", help="The model.")],
    device: Device = None,
    offline: Offline = False,
    form: Format = "table",
) -> None:
    """Check a copy of a model against its published tokens and similarities."""
    set_offline(offline)
    from stella_mteb.models.resolve import resolve  # noqa: PLC0415

    resolved = resolve(model, registry=registry)
    say(f"verifying {resolved.folder} ...")
    from stella_mteb.diagnostics.model_checks import check_model  # noqa: PLC0415

    found = list(check_model(resolved, device))
    typer.echo(render([{"check": c.name, "status": c.status, "detail": c.detail} for c in found], form))
    if any(check.status == "fail" for check in found):
        say("this copy does not reproduce the model's published values; do not compare its scores with others'")
        raise typer.Exit(1)
