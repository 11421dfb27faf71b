"""Maintains the stores of `stella_mteb.engine.store`: lists them, checks them, finds what can be deleted."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stella_mteb import PIPELINE
from stella_mteb.engine.store import DAMAGE, SCHEMA, open_shard, read_label, recover
from stella_mteb.errors import StorageProblem
from stella_mteb.files.atomic import is_left_behind

_OURS = re.compile(r"fingerprint\.json|.+\.(safetensors|damaged)|\..+\.tmp")


@dataclass(frozen=True)
class StoreInfo:
    """A store on disk.

    Attributes:
        folder: Its folder.
        fingerprint: The meaning of its name; empty if `fingerprint.json` is lost.
        texts: Rows in its shards.
        bytes: Size of its files, damaged ones included.
        last_used: Seconds since the epoch.
        damaged: Files that were set aside.
        leftovers: Temporary files of writers that were killed.
    """

    folder: Path
    fingerprint: dict[str, str]
    texts: int
    bytes: int
    last_used: float
    damaged: list[Path]
    leftovers: list[Path]

    @property
    def readable(self) -> bool:
        """Whether this version of the package can use it; one with another schema or pipeline is never read again."""
        return (self.fingerprint.get("schema"), self.fingerprint.get("pipeline")) == (SCHEMA, PIPELINE)


def stores(folder: Path) -> list[StoreInfo]:
    """List the stores under a folder, the last used one first. A folder with foreign files is not a store."""
    found = []
    for store in folder.glob("*"):
        if not (re.fullmatch("[0-9a-f]{24}", store.name) and store.is_dir()):
            continue
        states: dict[Path, os.stat_result] = {}
        for path in store.iterdir():
            with contextlib.suppress(FileNotFoundError):  # temporary files of writers may vanish
                states[path] = path.stat()
        if states and all(_OURS.fullmatch(path.name) for path in states):
            found.append(
                StoreInfo(
                    folder=store,
                    fingerprint=read_label(store),
                    texts=sum(map(_rows, store.glob("*.safetensors"))),
                    bytes=sum(state.st_size for state in states.values()),
                    last_used=max(state.st_mtime for state in states.values()),
                    damaged=sorted(store.glob("*.damaged")),
                    # A file that is being written can look like a leftover for a moment.
                    leftovers=sorted(filter(is_left_behind, states)),
                )
            )
    return sorted(found, key=lambda info: -info.last_used)


def _rows(path: Path) -> int:
    try:
        return len(open_shard(path)[1])
    except (*DAMAGE, OSError):
        return 0


def check_store(info: StoreInfo) -> Iterator[tuple[Path, str]]:
    """Read every vector of a store. Damaged shards are set aside, and their intact vectors moved to new ones.

    Yields:
        Each shard and a description of its damage, empty if there is none.
    """
    for path in sorted(info.folder.glob("*.safetensors")):
        try:
            yield path, recover(path)
        except OSError as error:
            yield path, f"cannot be read now: {error.strerror or error}"


def prunable(info: StoreInfo, *, older_than: float | None = None) -> list[Path]:
    """List what can be deleted: a store that is not `readable` or was last used too long ago, else its damaged files.

    Args:
        info: The store.
        older_than: Seconds; None for no limit.
    """
    too_old = older_than is not None and time.time() - info.last_used > older_than
    if too_old or not info.readable:
        return [info.folder]
    return info.damaged + info.leftovers


def remove(paths: Iterable[Path]) -> None:
    """Delete files and stores.

    Raises:
        StorageProblem: If one cannot be deleted.
    """
    for path in paths:
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageProblem(f"{path}: cannot be deleted: {error.strerror or error}") from error
