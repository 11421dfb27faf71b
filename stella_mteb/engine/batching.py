"""The batch plan: which texts share a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def plan_batches(
    lengths: Sequence[int], token_budget: Callable[[], int], *, padded: bool
) -> Iterator[NDArray[np.intp]]:
    """Group texts so that every batch stays under a token budget.

    Longest first: a batch that does not fit in memory shows at once, not after hours. Sorted by true token length,
    texts of equal length stand together, and padding, where there is any, is about one per cent on a large corpus.

    Args:
        lengths: Tokens of each text, special tokens included.
        token_budget: Gives the most tokens of a batch, padding included. Asked before each batch, because running
            out of memory lowers it on the way. A single text that is longer makes a batch of its own.
        padded: Whether all texts of a batch are padded to its longest; else they are packed.

    Yields:
        Positions of the texts of one batch, longest first.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64)[order])
    start = 0
    while start < len(order):
        if padded:
            rows = token_budget() // max(1, lengths[order[start]])
        else:
            before = ends[start - 1] if start else 0
            rows = int(np.searchsorted(ends, before + token_budget(), side="right")) - start
        yield order[start : start + max(1, rows)]
        start += max(1, rows)
