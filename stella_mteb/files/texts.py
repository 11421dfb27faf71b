"""Texts that can be scored."""

from __future__ import annotations

import unicodedata

_UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Zs"}


def is_blank(text: str) -> bool:
    """Whether nothing of a text is seen: spaces, line ends, zero-width and control characters only."""
    return all(char.isspace() or unicodedata.category(char) in _UNSEEN for char in text)


def half_character(text: str) -> str | None:
    """Name the fault of a text that cannot be written as UTF-8; None for any other."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds half a character (lone surrogate at {error.start})"
    return None
