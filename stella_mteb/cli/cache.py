"""`stella-mteb cache ls | verify | prune`: manages the vectors that earlier runs stored."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stella_mteb.cli.app import app
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Format
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.tables import many, render

if TYPE_CHECKING:
    from stella_mteb.engine.store_upkeep import StoreInfo

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Manage the vectors of earlier runs.")
app.add_typer(commands, name="cache")

_CACHE = typer.Option("--cache", metavar="DIR", help="The folder [~/.cache/stella-mteb].")
_DAY = 86_400.0


@commands.command("ls")
def list_stores(
    folder: Annotated[Path | None, _CACHE] = None,
    form: Format = "table",
) -> None:
    """List the stores, one for each way of computing vectors."""
    from stella_mteb.engine.store_upkeep import stores  # noqa: PLC0415 -- imports numpy

    found = stores(folder or cache_folder())
    if not found:
        say(f"{folder or cache_folder()}: no stored vectors")
    rows = [_row(info) for info in found]
    if form == "table":  # must fit in 80 columns
        rows = [{key: row[key] for key in row if key != "dtype"} for row in rows]
    typer.echo(render(rows, form))


def _row(info: StoreInfo) -> dict[str, object]:
    damaged = len(info.damaged)
    return {
        "store": info.folder.name[:8],
        "model": _short(info.fingerprint.get("model", "(fingerprint.json is lost)")),
        "dtype": info.fingerprint.get("dtype", ""),
        "texts": info.texts,
        "MB": round(info.bytes / 1e6, 1),
        "last used": datetime.datetime.fromtimestamp(info.last_used).astimezone().date().isoformat(),
        "state": "of another version" if not info.readable else f"{damaged} damaged" if damaged else "good",
    }


def _short(model: str) -> str:
    # The fingerprint has the form "organisation/name@revision, how it was loaded".
    name, at, revision = model.partition(",")[0].rpartition("/")[2].partition("@")
    return f"{name}{at}{revision.removeprefix('local-')[:8]}"


@commands.command("verify")
def verify_stores(folder: Annotated[Path | None, _CACHE] = None) -> None:
    """Compare every vector with its checksum. Damaged files are set aside and encoded again when needed."""
    from stella_mteb.engine.store_upkeep import check_store, stores  # noqa: PLC0415

    shards = texts = wrong = 0
    for info in stores(folder or cache_folder()):
        texts += info.texts
        for path, problem in check_store(info):
            shards += 1
            if problem:
                wrong += 1
                typer.echo(f"{path}: {problem}")
    typer.echo(f"{many(texts, 'vector')} in {many(shards, 'file')}, {wrong} damaged")
    if wrong:
        raise typer.Exit(1)


@commands.command()
def prune(
    folder: Annotated[Path | None, _CACHE] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Also stores unused for this long.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted, and stop.")] = False,
) -> None:
    """Delete damaged files, leftovers of killed runs, and stores of other versions or unused for long."""
    from stella_mteb.engine.store_upkeep import prunable, remove, stores  # noqa: PLC0415

    age = None if older_than is None else older_than * _DAY
    doomed = [path for info in stores(folder or cache_folder()) for path in prunable(info, older_than=age)]
    freed = sum(file.stat().st_size for path in doomed for file in ([path] if path.is_file() else path.iterdir()))
    for path in doomed:
        typer.echo(path)
    if not dry_run:
        remove(doomed)
    typer.echo(f"{'would free' if dry_run else 'freed'} {freed / 1e6:.1f} MB")
