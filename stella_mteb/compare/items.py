"""The items and the cost that belong to a score, where our own `run` has left them beside its result."""

from __future__ import annotations

import logging
from pathlib import Path

from stella_mteb.compare.records import Price, Score, System
from stella_mteb.outputs.costs import read_costs
from stella_mteb.outputs.items import Items, all_give, read_items
from stella_mteb.outputs.layout import cost_path, details_path

logger = logging.getLogger(__name__)


def items_of(score: Score) -> tuple[Items, ...]:
    """The items that a score is made of, one entry for each of its subsets, in their order.

    None at all unless they are there for every subset and give the score again: a file that is left from other data,
    or is damaged, counts as none.

    Args:
        score: Its `source` is the path of a result in MTEB's layout.
    """
    path = details_path(Path(score.source))
    if path is None:
        return ()
    known = {one.subset: one for one in read_items(path, score.dataset_revision) if one.split == score.split}
    if not score.subsets or not set(score.subsets) <= set(known):
        return ()
    items = tuple(known[subset] for subset in score.subsets)
    if not all_give(items, score.value):
        logger.warning("%s: its items do not give the score of %.6f; left out", path, score.value)
        return ()
    return items


def price_of(system: System, source: str) -> Price | None:
    """What a system cost in our own runs; None where they did not encode, or are not ours.

    The figures are of one run on one machine: of all entries of the machine that ran last, the one with the most
    tokens.

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
