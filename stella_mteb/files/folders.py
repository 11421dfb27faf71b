"""Folders outside the output folder: what can be made or fetched again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from stella_mteb.errors import EnvironmentProblem


def cache_folder() -> Path:
    """Give the cache of this project: $STELLA_MTEB_CACHE, else ~/.cache/stella-mteb."""
    return _from_environment("STELLA_MTEB_CACHE", "~/.cache/stella-mteb")


def mteb_cache_folder() -> Path:
    """Give MTEB's cache: $MTEB_CACHE, else ~/.cache/mteb. `import mteb` makes it."""
    return _from_environment("MTEB_CACHE", "~/.cache/mteb")


def hub_cache_folder() -> Path:
    """Give the cache of the hub's libraries: $HF_HOME, else huggingface below $XDG_CACHE_HOME or ~/.cache."""
    return _from_environment("HF_HOME", f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface")


def _from_environment(variable: str, default: str) -> Path:
    try:
        return Path(os.environ.get(variable) or default).expanduser()
    except RuntimeError as error:
        raise EnvironmentProblem(f"there is no home folder here: set HOME, or {variable}") from error


def require_writable_cache(folder: Path, variable: str) -> None:
    """Raise unless files can be made in a folder, or in the nearest folder above it that exists; nothing is made.

    Args:
        folder: The folder.
        variable: The environment variable that names it.

    Raises:
        EnvironmentProblem: With the cure.
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder}: cannot be written ({error.strerror or error}); set HOME or {variable} to a folder that can"
        ) from error
