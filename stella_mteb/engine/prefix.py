"""Computes the common prefix of all texts of a causal model once.

In a causal model a token sees only earlier tokens, so the keys and values of a common prefix (the instruction and the
examples of a few-shot prompt) are the same for every text. They are computed in one forward pass. A batch has only the
remaining tokens, which attend to the prefix without a mask and to their own text causally. The two results are combined
with the logarithms of their softmax sums, as in split-key attention (FlashDecoding; "cascade" attention in vLLM), so
the prefix is never copied for each text.

The common prefix is determined from token ids, not strings, because the last token of a prompt may merge with the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

WORTH_IT = 16
"""Minimum number of tokens for which a common prefix is computed separately."""


@dataclass
class Prefix:
    """A computed prefix.

    Attributes:
        ids: Its tokens.
        layers: Keys and values of each layer, [key heads, tokens, width], from a forward pass over `ids`.
    """

    ids: NDArray[np.int32]
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def begins(self, row: NDArray[np.int32]) -> bool:
        """Check whether a text begins with these tokens and is longer."""
        return len(row) > len(self.ids) and bool((row[: len(self.ids)] == self.ids).all())


def common_prefix(rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the longest common prefix of all texts that leaves each at least one token."""
    first = rows[0]
    length = min(map(len, rows)) - 1
    for row in rows[1:]:
        differs = np.flatnonzero(row[:length] != first[:length])
        if len(differs):
            length = int(differs[0])
    return first[: max(length, 0)]


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention and the logarithm of its softmax sum, which torch's own function does not return.

    Args:
        query: [..., heads, tokens, width].
        key: [..., key heads, keys, width]; key heads divide heads.
        value: Like `key`.
        scaling: Scale of the scores.
        causal: Whether query i sees only keys 0 to i; then there are as many keys as tokens.

    Returns:
        float32 [..., heads, tokens, width], and float32 [..., heads, tokens].
    """
    heads, key_heads = query.shape[-3], key.shape[-3]
    # bfloat16 rounds a score of 10 by up to 0.03, and so the softmax by three per cent.
    query, key, value = query.float(), key.float(), value.float()
    outs, sums = [], []
    # One key head at a time: all scores together would be heads * tokens * keys numbers.
    for head in range(key_heads):
        mine = slice(head * heads // key_heads, (head + 1) * heads // key_heads)
        k, v = key[..., head : head + 1, :, :], value[..., head : head + 1, :, :]
        scores = query[..., mine, :, :] @ k.transpose(-1, -2) * scaling
        if causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        total = torch.logsumexp(scores, dim=-1, keepdim=True)
        outs.append((scores - total).exp() @ v)
        sums.append(total.squeeze(-1))
    return torch.cat(outs, dim=-3), torch.cat(sums, dim=-2)


def merge(
    one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    """Combine the attention over two sets of keys, given the softmax sum of each."""
    total = torch.logaddexp(one[1], other[1])
    weights = [(part[1] - total).exp().unsqueeze(-1) for part in (one, other)]
    return (one[0] * weights[0] + other[0] * weights[1]).to(dtype)
