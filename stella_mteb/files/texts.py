"""Checks of single texts."""

from __future__ import annotations

import unicodedata

_UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Zs"}


def is_blank(text: str) -> bool:
    """Check whether a text has no visible character: only spaces, line ends, zero-width and control characters."""
    return all(char.isspace() or unicodedata.category(char) in _UNSEEN for char in text)


def lone_surrogate(text: str) -> str | None:
    """Describe the first lone surrogate of a text, which cannot be encoded as UTF-8; None if there is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"contains a lone surrogate (U+{ord(text[error.start]):04X} at position {error.start})"
    return None
