"""Published figures of other metrics on human-rated sets, from human.csv, for comparison with a judge's."""

from __future__ import annotations

import csv
from importlib import resources
from typing import Any

from stella_mteb.errors import ConfigError


def published_figures(name: str) -> list[dict[str, Any]]:
    """Return the published figures of a human-rated set.

    Returns:
        Rows of metric, references, level, against, the figures (None if not published), and their source.

    Raises:
        ConfigError: If the set is unknown; names the known sets.
    """
    text = resources.files("stella_mteb.judge").joinpath("human.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    known = list(dict.fromkeys(row["set"] for row in rows))
    if name not in known:
        raise ConfigError(f"no published figures of set {name!r}; choose one of {', '.join(known)}")
    figures = ("spearman", "kendall_b", "kendall_c", "pearson")
    return [
        {
            **{key: value for key, value in row.items() if key not in {"set", *figures}},
            **{key: float(row[key]) if row[key] else None for key in figures},
        }
        for row in rows
        if row["set"] == name
    ]
