"""MTEB's registry, for commands that look for models before, or without, loading MTEB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stella_mteb.models.config import ModelConfig


def registry(name: str) -> ModelConfig | None:
    """Give what MTEB's registry says of a hub name that is not bundled; MTEB is loaded for no other."""
    from stella_mteb.harness.known_models import known_config  # noqa: PLC0415

    return known_config(name)
