"""`stella-mteb models`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stella_mteb.cli.app import app
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Format
from stella_mteb.cli.registry import registry
from stella_mteb.files.tables import TableFormat, plain, render

if TYPE_CHECKING:
    from stella_mteb.models.config import ModelConfig


@app.command(short_help="List the bundled models, or describe one.")
def models(
    name: Annotated[str | None, typer.Argument(metavar="SPEC", help="One model in detail, with its prompts.")] = None,
    form: Format = "table",
) -> None:
    """List the bundled models, or show one: its location, its heads, and the prompt of every task type."""
    from stella_mteb.errors import StellaMtebError  # noqa: PLC0415
    from stella_mteb.models.config import bundled_configs, load_config  # noqa: PLC0415
    from stella_mteb.models.resolve import resolve_config  # noqa: PLC0415

    if name is not None:
        _show_model(name, form)
        return
    rows = []
    for path in bundled_configs().values():
        config = load_config(path)
        try:
            layout = resolve_config(config, offline=True).layout
            here, dimensions = "yes", ", ".join(map(str, layout.dimensions))
        except StellaMtebError:
            here, dimensions = "no", _published(config)
        # The hub's names are too long for 80 columns; `models SPEC` shows them.
        hub = {} if form == "table" else {"hub": config.full_name}
        rows.append({"model": config.name, **hub, "dimensions": dimensions, "on this machine": here})
    typer.echo(render(rows, form))


def _show_model(name: str, form: TableFormat) -> None:
    from stella_mteb.errors import EnvironmentProblem  # noqa: PLC0415
    from stella_mteb.models.locate import find_config  # noqa: PLC0415
    from stella_mteb.models.resolve import resolve  # noqa: PLC0415
    from stella_mteb.models.spec import Spec  # noqa: PLC0415
    from stella_mteb.prompts.profiles import TaskInfo, choose, table  # noqa: PLC0415

    spec = Spec.parse(name)
    try:
        model = resolve(spec, offline=True, registry=registry)
        config, similarity = model.config, f"; similarity: {model.similarity}"
        here, dimensions, length = "yes", ", ".join(map(str, model.layout.dimensions)), f"{model.max_length} tokens"
    except EnvironmentProblem:
        config, similarity = find_config(spec.name, registry, spec.registered_as), ""
        here, dimensions, length = (
            "no",
            _published(config),
            f"{config.max_length} tokens" if config.max_length else "as its files say",
        )
    profile = spec.prompts or config.prompts.profile
    say(f"{config.name}: {config.full_name}")
    say(f"on this machine: {here}; dimensions: {dimensions}; longest input: {length}{similarity}")
    say(f"prompts by task type, profile {profile} (a task may have its own):")
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
    if form != "table":
        typer.echo(render(rows, form))
        return
    for (first, second), names in types.items():
        typer.echo("\n" + textwrap.fill(", ".join(names), 80))
        for side, prompt in [("texts", first)] if first == second else [("queries", first), ("documents", second)]:
            shown = f'"{_shown(prompt)}"' if prompt else _shown(prompt)
            typer.echo(textwrap.fill(f"{side}: {shown}", 80, initial_indent="  ", subsequent_indent="    "))


def _published(config: ModelConfig) -> str:
    return ", ".join(map(str, config.dimensions)) or str(config.dimension or "as its files say")


def _shown(prompt: str) -> str:
    return plain(prompt.replace("\n", "\\n")) if prompt else "(none)"
