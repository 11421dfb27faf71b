"""`stella-mteb tasks`."""

from __future__ import annotations

import textwrap
from typing import Any

import typer

from stella_mteb.cli.app import app
from stella_mteb.cli.options import Format
from stella_mteb.files.tables import render


@app.command(short_help="List the bundled tasks.")
def tasks(form: Format = "table") -> None:
    """List the bundled tasks. Every task of MTEB can also be run, by its name."""
    from stella_mteb.harness.task_yaml import bundled_tasks  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    for name, file in bundled_tasks().items():
        spec = file.spec
        source = "bundled" if spec.data else (f"hub: {spec.hub.path}" if spec.hub else "give -t NAME=FOLDER")
        row = {"task": name, "type": spec.type, "data": source}
        # On a terminal, descriptions are printed below the table, because a cell is too narrow for a paragraph.
        rows.append(row if form == "table" else {**row, "description": spec.description})
    typer.echo(render(rows, form))
    if form == "table":
        for name, file in bundled_tasks().items():
            typer.echo(f"\n{name}\n{textwrap.indent(textwrap.fill(file.spec.description, 76), '  ')}")
