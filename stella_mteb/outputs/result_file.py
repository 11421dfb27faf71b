"""Reads a result file in MTEB's layout without MTEB: its content, its entries, their main scores.

Errors state only the reason; the caller adds the file name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_text, unique_keys
from stella_mteb.files.tables import plain

Entry = Mapping[str, Any]
"""The scores of one split and subset."""


def read_result(path: Path) -> dict[str, Any]:
    """Read a JSON object written by MTEB. NaN, which secondary metrics such as nAUC may have, becomes None.

    Raises:
        ConfigError: If the file is damaged.
    """
    try:
        content = json.loads(read_text(path), object_pairs_hook=unique_keys, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    except ValueError as error:
        raise ConfigError(str(error).removeprefix(f"{path}: ")) from None
    if not isinstance(content, dict):
        raise ConfigError("not a JSON object")
    return content


def entries_by_split(content: Mapping[str, Any]) -> dict[str, dict[str, Entry]]:
    """Return the entries of a result by split and subset.

    Raises:
        ConfigError: If the content has another form.
    """
    scores = content.get("scores")
    if not isinstance(scores, dict) or not scores or not all(isinstance(each, list) for each in scores.values()):
        raise ConfigError("has no scores by split")
    by_split: dict[str, dict[str, Entry]] = {split: {} for split in scores}
    for split, by_subset in by_split.items():
        for entry in scores[split]:
            name = entry.get("hf_subset") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                raise ConfigError("an entry has no subset (hf_subset)")
            if name in by_subset:
                raise ConfigError(f"duplicate subset {plain(name)}")
            by_subset[name] = entry
        if not by_subset:
            raise ConfigError("a split has no entries")
    return by_split


def main_score(entry: Entry) -> float:
    """Return the main score of an entry.

    Raises:
        ConfigError: If it is missing or not finite. MTEB writes null for an aggregate with a failed part.
    """
    value = entry.get("main_score")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ConfigError(f"subset {plain(entry.get('hf_subset'))} has no finite main score (got {plain(value)[:20]})")
    return float(value)
