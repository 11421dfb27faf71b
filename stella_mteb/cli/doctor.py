"""`stella-mteb doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say
from stella_mteb.cli.fetch import fetch_command
from stella_mteb.cli.options import Format, Offline
from stella_mteb.files.tables import TableFormat, render


@app.command(short_help="Check what this machine can run.")
def doctor(
    offline: Offline = False,
    benchmarks: Annotated[
        list[str], typer.Option("--benchmark", "-b", metavar="NAME", help="List data sets of a benchmark.")
    ] = [],  # noqa: B006
    form: Format = "table",
) -> None:
    """Check what this machine can run, and how to fix what is missing."""
    set_offline(offline)
    if benchmarks:
        _list_data(benchmarks, form)
        return
    from stella_mteb.diagnostics.doctor import examine  # noqa: PLC0415

    findings = list(examine())
    typer.echo(render([{"what": f.what, "status": f.status, "detail": f.detail} for f in findings], form))


def _list_data(benchmarks: list[str], form: TableFormat) -> None:
    """List the data sets of benchmarks, whether they are here, and the command that downloads the others."""
    from stella_mteb.harness.fetch import items  # noqa: PLC0415
    from stella_mteb.harness.find_tasks import find_tasks  # noqa: PLC0415

    needed = [(item, item.is_here()) for item in items([], find_tasks([], benchmarks))]
    rows = [
        {
            "task": item.tasks[0],
            "data": item.name,
            "commit": str(item.revision)[:8],
            "status": "ok" if here else "lacking",
        }
        for item, here in needed
    ]
    typer.echo(render(rows, form))
    here = sum(here for _, here in needed)
    say(f"{here} of {len(needed)} data sets are here")
    if here < len(needed):
        say(f"to download the others, run this on a machine with network:\n  {fetch_command([], [], benchmarks)}")
