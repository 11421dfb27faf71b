"""Export of a comparison for programs: one JSON object, or CSV with a row for each system and task."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from stella_mteb.compare.records import Comparison, Gap, Score, System
from stella_mteb.compare.selection import EVERYTHING
from stella_mteb.compare.words import about_means, headline
from stella_mteb.files.tables import render, without_secrets

SCHEMA_VERSION = 2
"""Version of the JSON schema; increased when a key changes its meaning or is removed."""


def as_json(comparison: Comparison) -> str:
    """Serialize a comparison as one JSON object at full precision; NaN and infinity become null."""
    asked = comparison.selection or EVERYTHING
    tasks = []
    for row in comparison.rows:
        cells = dict(zip((system.label for system in comparison.systems), row.cells, strict=True))
        gaps = {label: cell for label, cell in cells.items() if isinstance(cell, Gap)}
        scores = {label: _fields(cell, leave_out={"parts"}) for label, cell in cells.items() if isinstance(cell, Score)}
        tasks.append(
            {
                "task": row.task,
                "type": row.type,
                "condition": row.condition,
                "scores": scores,
                "gaps": {label: gap.reason for label, gap in gaps.items()},
                "estimates": {label: gap.estimate for label, gap in gaps.items() if gap.estimate is not None},
            }
        )
    content = {
        "schema_version": SCHEMA_VERSION,
        "headline": headline(comparison),
        "systems": [_fields(system) for system in comparison.systems],
        "selection": {
            "benchmark": asked.benchmark,
            "types": list(asked.types),
            "languages": list(asked.languages),
            "exclude": list(asked.exclude),
            "tasks": list(asked.required or comparison.selected),
            "coverage": comparison.coverage,
        },
        "commit": comparison.commit,
        "common": list(comparison.mean_tasks),
        "standings": _jsonable(comparison.standings),
        "unranked": _jsonable(comparison.unranked),
        "tasks": tasks,
        "duels": _jsonable(comparison.duels),
        "needed": comparison.needed,
        "prices": _jsonable(comparison.prices),
        "per_label": _jsonable(comparison.per_label or {}),
        "facts": _jsonable(comparison.facts),
        "notes": [*about_means(comparison), *comparison.notes],
        "alpha": comparison.alpha,
        "resamples": comparison.resamples,
        "seed": comparison.seed,
    }
    return without_secrets(json.dumps(content, indent=2, allow_nan=False))


def as_csv(comparison: Comparison) -> str:
    """Serialize a comparison as CSV: a row per system and task with its source, enough to repeat the analysis."""
    rows = []
    for row in comparison.rows:
        for system, cell in zip(comparison.systems, row.cells, strict=True):
            score = cell if isinstance(cell, Score) else None
            rows.append(
                {
                    "system": system.label,
                    "task": row.task,
                    "type": row.type,
                    "score": _jsonable(score.value) if score else None,
                    "in_means": "yes" if row.task in comparison.mean_tasks else "no",
                    "gap": cell.reason if isinstance(cell, Gap) else None,
                    "estimate": cell.estimate if isinstance(cell, Gap) else None,
                    "split": score and score.split,
                    "subsets": score and " ".join(score.subsets),
                    "languages": score and " ".join(score.languages),
                    "dataset_revision": score and score.dataset_revision,
                    "metric": score and score.metric,
                    "mteb_version": score and score.mteb_version,
                    "source": score and score.source,
                    "condition": row.condition,
                    "model": system.model,
                    "provenance": system.provenance,
                    "origin": system.origin,
                    "revision": system.revision,
                    "settings": json.dumps(_jsonable(system.settings), sort_keys=True),
                }
            )
    return render(rows, "csv")


def _jsonable(value: Any) -> Any:
    # A system is told in full once, and named by its label everywhere else.
    if isinstance(value, System):
        return value.label
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _fields(value: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    return {field.name: _jsonable(getattr(value, field.name)) for field in fields(value) if field.name not in leave_out}
