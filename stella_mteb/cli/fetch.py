"""`stella-mteb fetch`: downloads everything that a run needs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from stella_mteb.cli.app import app
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Benchmarks, Format, Models, Tasks
from stella_mteb.cli.plan import count
from stella_mteb.files.tables import render

if TYPE_CHECKING:
    from stella_mteb.harness.fetch import Item


@app.command(short_help="Download weights, data sets and examples for a run.")
def fetch(
    models: Models = [],  # noqa: B006
    tasks: Tasks = [],  # noqa: B006
    benchmarks: Benchmarks = [],  # noqa: B006
    form: Format = "table",
) -> None:
    """Download weights, data sets and few-shot examples to the caches, each at its commit."""
    if not (models or tasks or benchmarks):
        raise typer.BadParameter("give -m SPEC, -t TASK or -b BENCHMARK", param_hint="fetch")
    if sys.stderr.isatty():
        os.environ.pop("TQDM_DISABLE", None)  # show the libraries' own download bars
    from stella_mteb.harness.fetch import FAULTS, fault, items, size  # noqa: PLC0415
    from stella_mteb.harness.find_tasks import find_tasks  # noqa: PLC0415
    from stella_mteb.models.spec import Spec  # noqa: PLC0415

    found = find_tasks(tasks, benchmarks) if tasks or benchmarks else []
    needed = list(items(list(map(Spec.parse, models)), found))
    missing = [item for item in needed if not item.is_here()]
    say(f"{len(needed) - len(missing)} of {len(needed)} are here")
    sizes: dict[int, int | None] = {}
    states: dict[int, str] = {id(item): "here" for item in needed}
    for item in missing:
        try:
            sizes[id(item)] = size(item)
        except FAULTS as error:
            states[id(item)] = fault(error)
    due = [item for item in missing if states[id(item)] == "here"]
    say(f"to fetch: {len(due)} of up to {count(sum(sizes.get(id(item)) or 0 for item in due))}B")
    for number, item in enumerate(due, 1):
        known = sizes[id(item)]
        say(f"{number} of {len(due)}: {item.kind} {item.name}{'' if known is None else f' ({count(known)}B)'} ...")
        try:
            item.get()
            states[id(item)] = "fetched"
        except FAULTS as error:
            states[id(item)] = fault(error)
            say(f"  {states[id(item)]}")
    typer.echo(render([_row(item, states[id(item)]) for item in needed], form))
    if any(state not in {"here", "fetched"} for state in states.values()):
        raise typer.Exit(1)


def fetch_command(models: Sequence[str], tasks: Sequence[str], benchmarks: Sequence[str]) -> str:
    """Return the command that downloads what a run of these needs."""
    options = (("-m", models), ("-t", tasks), ("-b", benchmarks))
    return shlex.join(
        ["stella-mteb", "fetch", *(part for option, names in options for one in names for part in (option, one))]
    )


def _row(item: Item, state: str) -> dict[str, object]:
    return {"kind": item.kind, "name": item.name, "commit": (item.revision or "newest")[:8], "state": state}
