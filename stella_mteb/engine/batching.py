"""The batch plan: windows of texts, and which texts of a window share a forward pass.

Every user of the plan (the encoder of a process, the workers of a cluster) computes each text together with the same
other texts, so its vector is the same to the bit on a CPU in float32.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from stella_mteb.engine.tokenising import Ids

WINDOW = 16_384
"""Texts tokenised and sorted at a time; limits the memory for token ids."""

Positions = NDArray[np.intp]


def windows(texts: Sequence[str], tokenise: Callable[[list[str]], list[Ids]]) -> Iterator[tuple[Positions, list[Ids]]]:
    """Tokenise texts a window at a time, longest first by characters.

    A thread tokenises the next window while the caller uses the last one.

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
    """Group the texts of a window into batches within a token budget.

    Long texts come first, so that running out of memory shows at once and not after hours. Sorting by length in tokens
    keeps padding, if there is any, at about one per cent on a large corpus.

    Args:
        lengths: Tokens of each text, special tokens included.
        token_budget: Returns the token limit of a batch, padding included. It is called before each batch, because it
            is lowered when memory runs out. A single text beyond the limit is a batch of its own.
        padded: Whether all texts of a batch are padded to the longest; otherwise they are packed.

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
