"""Read one result file of MTEB's layout without MTEB."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_text
from stella_mteb.files.tables import clean


def read_result(path: Path) -> dict[str, Any]:
    """A JSON object as MTEB writes it: secondary metrics may be NaN (nAUC where all queries are answered), here None.

    Raises:
        ConfigError: If the file is damaged; the text is without the path.
    """
    try:
        content = json.loads(read_text(path), object_pairs_hook=_once, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    except ValueError as error:
        raise ConfigError(str(error).removeprefix(f"{path}: ")) from None
    if not isinstance(content, dict):
        raise ConfigError("not a JSON object")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {clean(key)!r} stands twice")
    return content
