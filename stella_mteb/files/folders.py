"""Cache folders, outside the output folder, whose content can be recreated or downloaded again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from stella_mteb.errors import EnvironmentProblem


def cache_folder() -> Path:
    """Return the cache of this project: $STELLA_MTEB_CACHE, else ~/.cache/stella-mteb."""
    return _from_environment("STELLA_MTEB_CACHE", "~/.cache/stella-mteb")


def mteb_cache_folder() -> Path:
    """Return MTEB's cache: $MTEB_CACHE, else ~/.cache/mteb. `import mteb` creates it."""
    return _from_environment("MTEB_CACHE", "~/.cache/mteb")


def hub_cache_folder() -> Path:
    """Return the cache of the hub's libraries: $HF_HOME, else huggingface below $XDG_CACHE_HOME or ~/.cache."""
    return _from_environment("HF_HOME", f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface")


def _from_environment(variable: str, default: str) -> Path:
    try:
        return Path(os.environ.get(variable) or default).expanduser()
    except RuntimeError as error:
        raise EnvironmentProblem(f"there is no home folder: set HOME or {variable}") from error


def require_writable_cache(folder: Path, variable: str) -> None:
    """Check that files can be created in a folder or, if it does not exist, in its nearest existing parent.

    Args:
        folder: The folder; it is not created.
        variable: The environment variable that sets it.

    Raises:
        EnvironmentProblem: If it is not writable.
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder}: cannot be written ({error.strerror or error}); set HOME or {variable} to a writable folder"
        ) from error
