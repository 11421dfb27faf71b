"""Read the items and the cost of a score, which `run` stores beside its results."""

from __future__ import annotations

import logging
from pathlib import Path

from stella_mteb.compare.records import Price, Score, System
from stella_mteb.outputs.costs import read_costs
from stella_mteb.outputs.items import Items, all_give, read_items
from stella_mteb.outputs.layout import cost_path, details_path

logger = logging.getLogger(__name__)


def items_of(score: Score) -> tuple[Items, ...]:
    """Read the items of a score, one entry per subset in the order of `Score.subsets`.

    The result is empty unless items exist for every subset and reproduce the score. So a damaged file, or a file for
    other data, is ignored.

    Args:
        score: A score whose `source` is the path of a result in MTEB's layout.
    """
    path = details_path(Path(score.source))
    if path is None:
        return ()
    known = {one.subset: one for one in read_items(path, score.dataset_revision) if one.split == score.split}
    if not score.subsets or not set(score.subsets) <= set(known):
        return ()
    items = tuple(known[subset] for subset in score.subsets)
    if not all_give(items, score.value):
        logger.warning("%s: the items do not reproduce the score of %.6f; ignored", path, score.value)
        return ()
    return items


def price_of(system: System, source: str) -> Price | None:
    """Read the cost of a system in our own runs; None without a measurement.

    The figures come from one run on one machine: the entry with the most tokens among those of the machine that ran
    last.

    Args:
        system: The system.
        source: `Score.source` of any of its scores.
    """
    path = cost_path(Path(source))
    costs = read_costs(path) if path else []
    if not costs:
        return None
    cost = max((one for one in costs if one.machine == costs[-1].machine), key=lambda one: one.tokens)
    return Price(
        system=system,
        machine=cost.machine,
        dtype=cost.dtype,
        tokens_per_second=cost.tokens / cost.seconds,
        texts_per_second=cost.texts / cost.seconds,
        peak_memory_bytes=cost.peak_memory_bytes,
        vector_bytes=4 * cost.dimension,
        parameters=cost.parameters,
    )
