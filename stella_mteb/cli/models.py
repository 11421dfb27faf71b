"""`stella-mteb models`, `tasks`, `verify` and `doctor`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say
from stella_mteb.files.tables import TableFormat, plain, render

if TYPE_CHECKING:
    from stella_mteb.models.config import ModelConfig

_FORMAT = typer.Option("--format", help="table, md, json or csv.")


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(metavar="[SPEC]", help="One model in detail, with its prompts.")] = None,
    form: Annotated[TableFormat, _FORMAT] = "table",
) -> None:
    """List the bundled models, or show one: where it is, its heads, and the prompt of every task type."""
    from stella_mteb.models.config import bundled_configs, load_config  # noqa: PLC0415

    if name is not None:
        _show_model(name, form)
        return
    rows = []
    for path in bundled_configs().values():
        config = load_config(path)
        here, dimensions = _on_disk(config)
        rows.append({"model": config.name, "hub": config.full_name, "dimensions": dimensions, "on this machine": here})
    typer.echo(render(rows, form))


def _on_disk(config: ModelConfig) -> tuple[str, str]:
    from stella_mteb.errors import StellaMtebError  # noqa: PLC0415
    from stella_mteb.models.resolve import resolve_config  # noqa: PLC0415

    try:
        model = resolve_config(config, offline=True)
    except StellaMtebError:
        return "no", f"{config.dimension} by default"
    return "yes", ", ".join(map(str, model.layout.dimensions))


def _show_model(name: str, form: TableFormat) -> None:
    from stella_mteb.models.locate import find_config  # noqa: PLC0415
    from stella_mteb.models.spec import Spec  # noqa: PLC0415
    from stella_mteb.prompts.profiles import TaskInfo, choose, table  # noqa: PLC0415

    spec = Spec.parse(name)
    config = find_config(spec.name)
    here, dimensions = _on_disk(config)
    profile = spec.prompts or config.prompts.profile
    say(f"{config.name}: {config.full_name}")
    say(f"on this machine: {here}; dimensions: {dimensions}; longest input: {config.max_length} tokens")
    say(f"prompts by task type, profile {profile} (in leaderboard and own a task may have one of its own):")
    types: dict[tuple[str, str], list[str]] = {}
    for task_type, row in table("card").items():
        asymmetric = "query" in row
        info = TaskInfo(task_type, task_type, type_instruction="(MTEB's default for the type)")
        first = choose(profile, config.prompts, info, "query" if asymmetric else None).text
        second = choose(profile, config.prompts, info, "document").text if asymmetric else first
        types.setdefault((first, second), []).append(task_type)
    rows: list[dict[str, Any]] = [
        {"task types": ", ".join(names), "text or query": _shown(first), "document": _shown(second)}
        for (first, second), names in types.items()
    ]
    typer.echo(render(rows, form))


def _shown(prompt: str) -> str:
    return plain(prompt.replace("\n", "\\n")) if prompt else "(none)"


@app.command()
def tasks(form: Annotated[TableFormat, _FORMAT] = "table") -> None:
    """List the bundled tasks. Every task of MTEB can be run too, by its name."""
    from stella_mteb.harness.task_yaml import bundled_tasks  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    for name, file in bundled_tasks().items():
        spec = file.spec
        source = "bundled" if spec.data else (f"hub: {spec.hub.path}" if spec.hub else f"-t {name}=FOLDER")
        row = {"task": name, "type": spec.type, "data": source}
        # On a terminal a paragraph in a cell is a thin tower; it has lines of its own there.
        rows.append(row if form == "table" else {**row, "description": spec.description})
    typer.echo(render(rows, form))
    if form == "table":
        for name, file in bundled_tasks().items():
            typer.echo(f"\n{name}\n{textwrap.indent(textwrap.fill(file.spec.description, 76), '  ')}")


@app.command()
def verify(
    model: Annotated[str, typer.Option("--model", "-m", metavar="SPEC", help="The model.")],
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the network.")] = False,
    form: Annotated[TableFormat, _FORMAT] = "table",
) -> None:
    """Check a copy of a model against its published tokens and similarities."""
    set_offline(offline)
    from stella_mteb.models.resolve import resolve  # noqa: PLC0415

    resolved = resolve(model)
    say(f"verifying {resolved.folder} ...")
    from stella_mteb.diagnostics.verify import verify as checks  # noqa: PLC0415

    found = list(checks(resolved, device))
    typer.echo(render([{"check": c.name, "status": c.status, "detail": c.detail} for c in found], form))
    if any(check.status == "fail" for check in found):
        say("this copy does not give what is published of the model; do not compare its scores with others'")
        raise typer.Exit(1)


@app.command()
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not try the network.")] = False,
    form: Annotated[TableFormat, _FORMAT] = "table",
) -> None:
    """Say what this machine can run, and what to do about the rest."""
    set_offline(offline)
    from stella_mteb.diagnostics.doctor import examine  # noqa: PLC0415

    findings = list(examine())
    typer.echo(render([{"what": f.what, "status": f.status, "detail": f.detail} for f in findings], form))
