"""Packs texts into one row without padding; attention is restricted to each text.

The model code is that of transformers. This module registers an attention function under a name, and a model loaded
with that name calls it. transformers makes no mask for an unknown name, so this function alone separates the texts;
`tests/engine/test_packing.py` checks that for every architecture in `_TESTED`. Restarted position ids do not suffice:
with the masks of transformers 5.23, a bidirectional model silently attends across texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from stella_mteb.engine import varlen
from stella_mteb.engine.devices import to_device
from stella_mteb.engine.prefix import Prefix, attend, merge

NAME = "stella_mteb_packed"

# Architectures that use `position_ids` unchanged and pass keyword arguments to attention. Others do not: RoBERTa counts
# positions from 2, T5 and MPNet have relative positions over the whole row.
_TESTED = {"bert", "gte", "mistral", "qwen2"}


class Packing:
    """The boundaries of the texts in a packed row.

    Args:
        lengths: Tokens of each text, at least one; on a CPU, adjacent texts of equal length are computed together.
        causal: Whether a token sees only earlier ones.
        device: Device of the row.
        after: A prefix of every text; the row has only what follows it.
        into: Collects the keys and values of this row, which is the prefix itself.

    Attributes:
        bounds: int32 [texts + 1] on the device: text i spans `bounds[i]` to `bounds[i + 1]`.
        within: The bounds for attention of each text to itself.
        over_prefix: With `after`: the bounds for attention of all tokens to the prefix.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        causal: bool,
        device: torch.device,
        after: Prefix | None = None,
        into: Prefix | None = None,
    ) -> None:
        self.causal, self.after, self.into = causal, after, into
        self.bounds = to_device(np.cumsum([0, *lengths], dtype=np.int32), device)
        self.within: varlen.Bounds = (self.bounds, self.bounds, max(lengths), max(lengths))
        if after is not None:
            tokens, shared = sum(lengths), len(after.ids)
            ends = to_device(np.array([[0, tokens], [0, shared]], dtype=np.int32), device)
            self.over_prefix: varlen.Bounds = (ends[0], ends[1], tokens, shared)
        self._runs = [(length, len(list(run))) for length, run in itertools.groupby(lengths)]

    def runs(self) -> Iterator[tuple[slice, int]]:
        """Yield for adjacent texts of equal length their slice of the row and the tokens of each."""
        start = 0
        for length, texts in self._runs:
            yield slice(start, start + length * texts), length
            start += length * texts


def supports(config: Any, max_length: int) -> bool:
    """Check whether texts of up to `max_length` tokens can be packed for a model with this configuration."""
    # A window is irrelevant if no text exceeds it; otherwise the masks of transformers are needed.
    window = getattr(config, "sliding_window", None)
    return (
        config.model_type in _TESTED
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", None) in (None, "absolute", "rope")
        and (not window or window >= max_length)
    )


def is_packed(backbone: Any) -> bool:
    """Check whether a loaded model calls this module's attention."""
    return getattr(backbone.config, "_attn_implementation", None) == NAME


def is_causal(config: Any) -> bool:
    """Check whether a token sees only earlier ones; the masks of transformers use the same attribute."""
    return config.model_type in {"mistral", "qwen2"} and getattr(config, "is_causal", True)


def register() -> None:
    """Register the attention function with transformers. Idempotent."""
    from transformers import AttentionInterface  # noqa: PLC0415 -- takes seconds, for which errors should not wait

    AttentionInterface.register(NAME, attention)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention within each text of a packed row; transformers calls this in every layer.

    On CUDA in half precision it uses the FlashAttention that ships with torch (`varlen`); elsewhere one call of
    `scaled_dot_product_attention` for adjacent texts of equal length (docs/decisions/006-packing.md).

    Args:
        module: The calling layer.
        query: [1, heads, tokens, width].
        key: [1, key heads, tokens, width]; key heads divide heads (grouped-query attention).
        value: Like `key`.
        attention_mask: None; transformers makes none for this function.
        packing: The boundaries of the texts.
        scaling: Scale of the scores.

    Returns:
        [1, tokens, heads, width], and None instead of attention weights.
    """
    layer: Any = getattr(module, "layer_idx", None)
    if packing.into is not None:
        packing.into.layers[layer] = key[0], value[0]
    if packing.after is not None:
        before = packing.after.layers[layer]
        if varlen.runs_for(query):
            shared = varlen.attend_with_sums(query[0], *before, packing.over_prefix, scaling, causal=False)
            own = varlen.attend_with_sums(query[0], key[0], value[0], packing.within, scaling, causal=packing.causal)
        else:
            shared = attend(query[0], *before, scaling, causal=False)
            own = _own(query, key, value, packing, scaling)
        return merge(shared, own, query.dtype).transpose(0, 1).unsqueeze(0), None
    if varlen.runs_for(query):
        seen = varlen.attend(query[0], key[0], value[0], packing.within, scaling, causal=packing.causal)
        return seen.unsqueeze(0), None
    if query.is_cuda and query.shape[1] != key.shape[1]:
        # For grouped heads in float32 on CUDA, torch 2.13 only has the kernel that keeps all scores in memory.
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
    out = torch.empty_like(query.transpose(1, 2))
    for where, length in packing.runs():
        q, k, v = (_texts(part, where, length) for part in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        seen = scaled_dot_product_attention(q, k, v, is_causal=packing.causal, scale=scaling, enable_gqa=grouped)
        out[0, where] = seen.transpose(1, 2).flatten(0, 1)
    return out, None


def _texts(part: torch.Tensor, where: slice, length: int) -> torch.Tensor:
    # [1, heads, texts * length, width] -> [texts, heads, length, width]
    return part[0, :, where].reshape(part.shape[1], -1, length, part.shape[3]).transpose(0, 1)


def _own(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute each text's attention to itself, [heads, tokens, width], and the softmax sums, [heads, tokens]."""
    found = []
    for where, length in packing.runs():
        q, k, v = (_texts(part, where, length) for part in (query, key, value))
        seen, sums = attend(q, k, v, scaling, causal=packing.causal)
        found.append((seen.transpose(0, 1).flatten(1, 2), sums.transpose(0, 1).flatten(1, 2)))
    return torch.cat([seen for seen, _ in found], dim=1), torch.cat([sums for _, sums in found], dim=1)
