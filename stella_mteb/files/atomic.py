"""Strict reading and atomic writing of text and JSON."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from stella_mteb.errors import ConfigError, StorageProblem

# No write takes an hour, so an older temporary file has lost its writer, even if that was on another machine.
_LEFT_BEHIND = 3_600.0
# Leaves room for `.damaged17` in the 255 bytes that most file systems allow.
_LONGEST_NAME = 240


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte-order mark.

    Raises:
        ConfigError: If it is missing, unreadable or not UTF-8; the text names the file (and the byte).
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file without duplicate keys and with finite numbers only.

    Raises:
        ConfigError: If it is invalid; the text gives file and line.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=_finite, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must contain an object; see `read_json`.

    Raises:
        ConfigError: If it is invalid or contains something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a JSON object (is {type(content).__name__})")
    return content


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict from pairs; raise ValueError for a duplicate key. An `object_pairs_hook` of `json.loads`."""
    content = dict(pairs)
    if len(content) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"duplicate key {key!r}")
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999, or NaN or Infinity, which are not JSON
        raise ValueError(f"{text} is {'too large for a number' if text[-1].isdigit() else 'not a JSON number'}")
    return number


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Write a file so that readers see the old or the new content, never a part, even after a kill or a power cut.

    The content is written to a temporary file in the same folder, flushed to disk and renamed; then the folder is
    flushed. Missing parent folders are created. If the writer is killed, its temporary file stays until
    `remove_leftovers` removes it.

    Args:
        path: The target.
        mode: `w` for UTF-8 text, `wb` for bytes.

    Raises:
        StorageProblem: If the disk is full or the folder cannot be written; the target is unchanged.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}.", suffix=".tmp")
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.umask(mask := os.umask(0))  # mkstemp creates private files, but results follow the user's umask
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
        temporary = None
        with contextlib.suppress(OSError):  # some file systems refuse this; then a power cut may undo the rename
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise StorageProblem(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def is_left_behind(path: Path) -> bool:
    """Check whether a file is a leftover of a killed `atomic_write`, old enough not to be in use."""
    try:
        return path.match(".*.tmp") and time.time() - path.stat().st_mtime > _LEFT_BEHIND
    except FileNotFoundError:
        return False


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove leftovers of killed writers that are at least an hour old; files that cannot be removed stay.

    Args:
        paths: Files to look at; only temporary files of `atomic_write` are removed.
    """
    for path in filter(is_left_behind, paths):
        with contextlib.suppress(OSError):
            path.unlink()


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `<name>.damaged`, `.damaged1` and so on, without overwriting.

    Several processes that may do this need a lock.

    Raises:
        StorageProblem: If it cannot be renamed.
    """
    stem = path.name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    asides = (path.with_name(f"{stem}.damaged{number or ''}") for number in itertools.count())
    aside = next(aside for aside in asides if not aside.exists())
    try:
        return path.rename(aside)
    except OSError as error:
        raise StorageProblem(f"{path}: damaged, but cannot be set aside: {error.strerror or error}") from error


def write_json(path: Path, content: object) -> None:
    """Write strict JSON (no NaN, no Infinity), indented by two, atomically.

    Raises:
        ValueError: If a number is not finite.
        StorageProblem: If it cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")
