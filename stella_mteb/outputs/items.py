"""The items of a score: one value for each pair, query or text. `run` writes them, `compare` reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import atomic_write, read_json_object
from stella_mteb.statistics.paired import Kind

logger = logging.getLogger(__name__)

Unit = Literal["pairs", "queries", "texts"]

# MTEB rounds results to six decimals, after rounding the means of retrieval to five.
_TOLERANCE: dict[Kind, float] = {"spearman": 1e-6, "ap": 1e-6, "mean": 6e-6}


@dataclass(frozen=True, eq=False)
class Items:
    """The items of the main score of a task, split and subset.

    Attributes:
        task: Name of the task.
        split: Name of the split.
        subset: Name of the subset.
        kind: How the score is computed: rank correlation with gold, average precision of gold, or mean.
        unit: The object that an item stands for.
        digest: Items with the same digest belong to the same pairs or queries in the same order and the same metric. It
            covers split, subset, metric, texts and gold scores; for retrieval, the queries and the relevant documents'
            ids, not the documents' texts.
        gold: float64 [n]; None if kind is `mean`.
        values: float64 [n]; higher for a closer pair or a better result of a query.
    """

    task: str
    split: str
    subset: str
    kind: Kind
    unit: Unit
    digest: str
    gold: NDArray[np.float64] | None
    values: NDArray[np.float64]

    def score(self) -> float:
        """Compute the main score from the items."""
        if self.gold is None:
            return float(self.values.mean())
        if self.kind == "spearman":
            return spearman(self.gold, self.values)
        # Average precision, in which pairs of equal value share a rank.
        order = np.argsort(-self.values, kind="stable")
        found, ranked = np.cumsum(self.gold[order]), self.values[order]
        last = np.append(ranked[1:] != ranked[:-1], True)
        precision, recall = found[last] / (np.flatnonzero(last) + 1), found[last] / found[-1]
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))

    def gives(self, score: float) -> bool:
        """Check whether the items reproduce a score, within MTEB's rounding."""
        return all_give([self], score)


def all_give(items: Sequence[Items], score: float) -> bool:
    """Check whether the mean score of several subsets equals a score, within MTEB's rounding."""
    mean = sum(one.score() for one in items) / len(items)
    return abs(mean - score) <= max(_TOLERANCE[one.kind] for one in items)


def spearman(gold: Sequence[float] | NDArray[np.float64], values: Sequence[float] | NDArray[np.float64]) -> float:
    """Compute the rank correlation; tied values share their rank."""
    from scipy.stats import spearmanr  # noqa: PLC0415 -- half a second, and not every command needs it

    return float(spearmanr(gold, values).statistic)


def read_items(path: Path, revision: str | None = None) -> tuple[Items, ...]:
    """Read the items of a file; none if it is missing, damaged, or belongs to another revision of the data.

    Args:
        path: From `details_path`.
        revision: Revision of the task's data; None for any.
    """
    if not path.exists():
        return ()
    try:
        content = read_json_object(path)
        if revision is not None and content["dataset_revision"] != revision:
            logger.info("%s: for revision %s of the data, not %s; ignored", path, content["dataset_revision"], revision)
            return ()
        return tuple(_item(content["task"], row) for row in content["items"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s: not a file of items (%s: %s); ignored", path, type(error).__name__, error)
        return ()


def task_type(path: Path) -> str | None:
    """Return MTEB's type of the task of an items file, or None if there is no such file.

    Args:
        path: From `details_path`.
    """
    try:
        return str(read_json_object(path)["type"])
    except (ConfigError, KeyError):
        return None


def _item(task: str, row: Mapping[str, Any]) -> Items:
    # Values are written with the fewest digits that restore the same float32.
    values = np.asarray(row["values"], dtype=np.float32).astype(np.float64)
    gold = None if row["gold"] is None else np.asarray(row["gold"], dtype=np.float64)
    known = row["kind"] in get_args(Kind) and row["unit"] in get_args(Unit)
    if not known or values.ndim != 1 or not len(values) or (gold is None) != (row["kind"] == "mean"):
        raise ValueError("unknown kind or unit, or no values")
    if gold is not None and gold.shape != values.shape:
        raise ValueError(f"{gold.size} gold scores for {values.size} values")
    texts = {key: str(row[key]) for key in ("split", "subset", "digest")}
    return Items(task=str(task), kind=row["kind"], unit=row["unit"], gold=gold, values=values, **texts)


def write_items(path: Path, task: str, kind: str, revision: str, items: Iterable[Items]) -> None:
    """Write the items of one task to the path from `layout.details_path`."""
    rows = [
        {
            "split": one.split,
            "subset": one.subset,
            "kind": one.kind,
            "unit": one.unit,
            "digest": one.digest,
            "gold": None if one.gold is None else one.gold.tolist(),
            "values": [float(str(value)) for value in one.values.astype(np.float32)],
        }
        for one in items
    ]
    content = {"task": task, "type": kind, "dataset_revision": revision, "items": rows}
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    with atomic_write(path) as file:
        file.write(text + "\n")
