"""Copies of a model folder for tests that damage it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def copy(tmp_path: Path, stella_folder: Path) -> Path:
    """Links to the tiny Stella's files; to change one, unlink it first."""
    folder = tmp_path / "stella"
    for path in stella_folder.rglob("*"):
        if path.is_file():
            link = folder / path.relative_to(stella_folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)
    return folder
