"""Folders outside the output folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where is kept what can be made or fetched again: $STELLA_MTEB_CACHE, else ~/.cache/stella-mteb."""
    return Path(os.environ.get("STELLA_MTEB_CACHE") or "~/.cache/stella-mteb").expanduser()
