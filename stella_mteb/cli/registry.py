"""Access to MTEB's registry for commands that may not need MTEB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stella_mteb.models.config import ModelConfig


def registry(name: str) -> ModelConfig | None:
    """Return MTEB's config of a hub name that is not bundled; MTEB is imported only then."""
    from stella_mteb.harness.known_models import known_config  # noqa: PLC0415

    return known_config(name)
