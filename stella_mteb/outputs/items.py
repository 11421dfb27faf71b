"""The values that a score is made of, one for every pair, query or text; `run` writes them, `compare` reads them."""

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

# MTEB rounds results to six decimals, and the means of retrieval to five before that.
_TOLERANCE: dict[Kind, float] = {"spearman": 1e-6, "ap": 1e-6, "mean": 6e-6}


@dataclass(frozen=True, eq=False)
class Items:
    """The items that the main score of one task, split and subset is made of.

    Attributes:
        task: Name of the task.
        split: Name of the split.
        subset: Name of the subset.
        kind: How values become the score: rank correlation with gold, average precision of gold, or their mean.
        unit: What one item is.
        digest: Two systems' items with the same digest are of the same pairs or queries in the same order, scored by
            the same metric. It covers split, subset, metric, texts and gold scores; of retrieval the queries and
            which documents are relevant, not the documents' texts.
        gold: float64 [n]; None where kind is `mean`.
        values: float64 [n]; a higher one is a closer pair or a better found query.
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
        """The main score, computed again."""
        if self.gold is None:
            return float(self.values.mean())
        return spearman(self.gold, self.values) if self.kind == "spearman" else _precision(self.gold, self.values)

    def gives(self, score: float) -> bool:
        """Whether that is the score, within what MTEB rounds off."""
        return all_give([self], score)


def all_give(items: Sequence[Items], score: float) -> bool:
    """Whether the mean of the scores of several subsets is that, within what MTEB rounds off."""
    mean = sum(one.score() for one in items) / len(items)
    return abs(mean - score) <= max(_TOLERANCE[one.kind] for one in items)


def spearman(gold: Sequence[float] | NDArray[np.float64], values: Sequence[float] | NDArray[np.float64]) -> float:
    """Rank correlation; ties share their rank."""
    from scipy.stats import spearmanr  # noqa: PLC0415 -- half a second, and not every command needs it

    return float(spearmanr(gold, values).statistic)


def _precision(labels: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Average precision; pairs of equal value count as found at once."""
    order = np.argsort(-values, kind="stable")
    found, ranked = np.cumsum(labels[order]), values[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    precision, recall = found[last] / (np.flatnonzero(last) + 1), found[last] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def read_items(path: Path, revision: str | None = None) -> tuple[Items, ...]:
    """The items in a file; none if there is no file, or it is damaged, or of another revision of the data.

    Args:
        path: From `details_path`.
        revision: Of the task's data; None for any.
    """
    if not path.exists():
        return ()
    try:
        content = read_json_object(path)
        if revision is not None and content["dataset_revision"] != revision:
            logger.info("%s: of revision %s of the data, not %s; left out", path, content["dataset_revision"], revision)
            return ()
        return tuple(_item(content["task"], row) for row in content["items"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s: not a file of items (%s: %s); left out", path, type(error).__name__, error)
        return ()


def task_type(path: Path) -> str | None:
    """MTEB's type of the task whose items are in a file; None if there is no such file.

    Args:
        path: From `details_path`.
    """
    try:
        return str(read_json_object(path)["type"])
    except (ConfigError, KeyError):
        return None


def _item(task: str, row: Mapping[str, Any]) -> Items:
    # Values were written in the fewest digits that give the same float32 again.
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
    """Write the items of one task; the path is that of `layout.details_path`."""
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
