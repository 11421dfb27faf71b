"""What all texts of a causal model begin with is computed once.

In a causal model a token sees only those before it, so the keys and values of a common beginning (the instruction and
the examples of a few-shot prompt) are the same for every text. They are computed in one forward pass; every batch then
holds only what follows, and its tokens attend to both: to the shared prefix without a mask, to their own text causally.
The two are put together by the logarithms of their softmax sums, as in split-key attention (FlashDecoding; "cascade"
attention in vLLM), so that the prefix is never copied for each text.

What is common is found in the token ids, never in the strings: where a prompt ends, its last token may merge with the
text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

WORTH_IT = 16
"""Tokens from which a common prefix is computed apart."""


@dataclass
class Prefix:
    """A computed prefix.

    Attributes:
        ids: Its tokens.
        layers: Keys and values of each layer, [key heads, tokens, width]; a forward pass over `ids` fills them in.
    """

    ids: NDArray[np.int32]
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def begins(self, row: NDArray[np.int32]) -> bool:
        """Whether a text begins with these tokens, and goes on."""
        return len(row) > len(self.ids) and bool((row[: len(self.ids)] == self.ids).all())


def common_prefix(rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """The longest beginning that all texts share and that leaves each at least one token."""
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
    """Attention with the logarithm of its softmax sum, which torch's own function keeps to itself.

    Args:
        query: [..., heads, tokens, width].
        key: [..., key heads, keys, width]; a divisor of the heads.
        value: As `key`.
        scaling: Of the scores.
        causal: Whether query i sees keys 0 to i only; keys and tokens are equally many then.

    Returns:
        float32 [..., heads, tokens, width], and float32 [..., heads, tokens].
    """
    heads, key_heads = query.shape[-3], key.shape[-3]
    # bfloat16 would round a score of 10 to 0.03, and the softmax by three per cent.
    query, key, value = query.float(), key.float(), value.float()
    outs, sums = [], []
    # Key head by key head: all scores at once would be heads * tokens * keys numbers.
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
    """Attention over the keys of both parts, from the attention over each and its softmax sum."""
    total = torch.logaddexp(one[1], other[1])
    weights = [(part[1] - total).exp().unsqueeze(-1) for part in (one, other)]
    return (one[0] * weights[0] + other[0] * weights[1]).to(dtype)
