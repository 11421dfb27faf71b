"""The batch plan: which texts share a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def plan_batches(lengths: Sequence[int], token_budget: Callable[[], int]) -> Iterator[NDArray[np.intp]]:
    """Group texts of like length so that every padded batch stays under a token budget.

    Longest first: a batch that does not fit in memory shows at once, not after hours. Sorting by true token
    length leaves about one per cent of padding on a large corpus.

    Args:
        lengths: Tokens of each text, special tokens included.
        token_budget: Gives the most padded tokens (rows times longest row) of a batch. Asked before each batch,
            because running out of memory lowers it on the way. A single text that is longer makes a batch of
            its own.

    Yields:
        Positions of the texts of one batch, longest first.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        rows = max(1, token_budget() // longest)
        yield order[start : start + rows]
        start += rows
