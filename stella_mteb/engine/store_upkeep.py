"""Looking after the stores of `stella_mteb.engine.store`: what is there, whether it is intact, and what can go."""

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
from stella_mteb.engine.store import DAMAGE, SCHEMA, mend, open_shard, read_label
from stella_mteb.errors import StorageProblem
from stella_mteb.files.atomic import is_left_behind

_OURS = re.compile(r"fingerprint\.json|.+\.(safetensors|damaged)|\..+\.tmp")


@dataclass(frozen=True)
class StoreInfo:
    """One store on disk.

    Attributes:
        folder: Where it is.
        fingerprint: What the name stands for; empty if `fingerprint.json` is lost.
        texts: Rows in its shards.
        bytes: Size of its files, damaged ones included.
        last_used: Seconds since the epoch.
        damaged: Files that were set aside.
        leftovers: Files of writers that were killed.
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
        """Whether this version of the package uses it; one of another schema or pipeline is never read again."""
        return (self.fingerprint.get("schema"), self.fingerprint.get("pipeline")) == (SCHEMA, PIPELINE)


def stores(folder: Path) -> list[StoreInfo]:
    """Every store under a folder, the last used one first; what holds files of others is none."""
    found = []
    for store in folder.glob("*"):
        if not (re.fullmatch("[0-9a-f]{24}", store.name) and store.is_dir()):
            continue
        states: dict[Path, os.stat_result] = {}
        for path in store.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a writer's temporary file comes and goes
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
                    # A file that is being written now looks like one that was left behind, for a moment.
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
    """Read every vector of a store; damaged shards are set aside, what is intact of them is kept in new ones.

    Yields:
        Each shard and what is wrong with it, empty for nothing.
    """
    for path in sorted(info.folder.glob("*.safetensors")):
        try:
            yield path, mend(path)
        except OSError as error:
            yield path, f"cannot be read now: {error.strerror or error}"


def prunable(info: StoreInfo, *, older_than: float | None = None) -> list[Path]:
    """What of a store can go: all of it if it is not `readable` or was last used too long ago, else what is damaged.

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
