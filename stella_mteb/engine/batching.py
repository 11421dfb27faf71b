"""The batch plan: windows of texts, and which texts of a window share a forward pass.

Whoever follows it over the same texts computes each among the same others, so that on a CPU in float32 its vector has
the same bits: the encoder in one process, or the workers of a cluster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from stella_mteb.engine.tokenising import Ids

WINDOW = 16_384
"""Texts tokenised and sorted at a time; bounds the memory that token ids take."""

Positions = NDArray[np.intp]


def windows(texts: Sequence[str], tokenise: Callable[[list[str]], list[Ids]]) -> Iterator[tuple[Positions, list[Ids]]]:
    """Tokenise texts a window at a time, longest first by characters.

    A thread tokenises one window while the caller uses the one before.

    Yields:
        Positions of the texts of one window, and their token ids.
    """
    order = np.argsort([-len(text) for text in texts], kind="stable")
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming: deque[tuple[Positions, Future[list[Ids]]]] = deque()
        for start in range(0, len(order), WINDOW):
            at = order[start : start + WINDOW]
            coming.append((at, thread.submit(tokenise, [texts[i] for i in at])))
            if len(coming) > 1:
                before, ids = coming.popleft()
                yield before, ids.result()
        for before, ids in coming:
            yield before, ids.result()


def plan_batches(lengths: Sequence[int], token_budget: Callable[[], int], *, padded: bool) -> Iterator[Positions]:
    """Group the texts of a window so that every batch stays under a token budget.

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
