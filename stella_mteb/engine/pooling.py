"""Pools the hidden states of tokens into one vector for each text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stella_mteb.engine.devices import to_device

FloatMatrix = NDArray[np.float32]


@dataclass(frozen=True)
class Pooling:
    """The pooling of a sentence-transformers folder (`1_Pooling/config.json`), computed in float32.

    Attributes:
        modes: One or more of cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken; several are concatenated in
            this order.
        include_prompt: Whether the tokens of the prompt are pooled too (true for Stella).
    """

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True

    def __call__(self, hidden: torch.Tensor, lengths: Sequence[int], prompt_tokens: int = 0) -> torch.Tensor:
        """Pool concatenated texts.

        Args:
            hidden: Last hidden states, any float dtype, [tokens, width].
            lengths: Tokens of each text; their sum is `tokens`.
            prompt_tokens: Leading tokens of each text that belong to the prompt.

        Returns:
            float32 [texts, width * number of modes]; zeros for a text without tokens.
        """
        # On the host, which knows the lengths; it would have to wait for a mask on a GPU.
        counts = np.asarray(lengths, dtype=np.int64)
        positions = np.arange(len(hidden)) - np.repeat(counts.cumsum() - counts, counts)
        if prompt_tokens and not self.include_prompt:
            kept = np.flatnonzero(positions >= prompt_tokens)
            hidden, positions = hidden.index_select(0, to_device(kept, hidden.device)), positions[kept]
            counts = (counts - prompt_tokens).clip(min=0)
        if not len(hidden):
            return hidden.new_zeros(len(counts), hidden.shape[1] * len(self.modes), dtype=torch.float32)
        on_device = to_device(counts, hidden.device)
        pooled = [_pool(mode, hidden.float(), on_device, positions) for mode in self.modes]
        return torch.where(on_device.unsqueeze(1) > 0, torch.cat(pooled, dim=-1), 0.0)


def _pool(mode: str, states: torch.Tensor, lengths: torch.Tensor, positions: NDArray[np.int64]) -> torch.Tensor:
    # The caller discards the value for a text without tokens.
    ends = lengths.cumsum(0)
    if mode == "cls":
        return states[(ends - lengths).clamp(max=len(states) - 1)]
    if mode == "lasttoken":
        return states[(ends - 1).clamp(min=0)]
    if mode == "max":
        return _segments(states, lengths, "max")
    if mode == "weightedmean":
        weights = to_device(positions + 1, states.device).float().unsqueeze(1)
        return _segments(states * weights, lengths, "sum") / _segments(weights, lengths, "sum")
    count = lengths.float().unsqueeze(1)
    return _segments(states, lengths, "sum") / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


def _segments(states: torch.Tensor, lengths: torch.Tensor, reduce: str) -> torch.Tensor:
    # index_add on CUDA adds in an order that differs from run to run. `unsafe` skips a check of the lengths for which
    # the host would have to wait for the GPU.
    return torch.segment_reduce(states, reduce, lengths=lengths, axis=0, unsafe=True)


Floats = TypeVar("Floats", bound=NDArray[np.floating[Any]])


def unit(vectors: Floats) -> Floats:
    """Scale rows to unit length, in their dtype."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows: Floats = vectors / np.maximum(lengths, 1e-12)
    return rows


@dataclass(frozen=True)
class Head:
    """A published dimension: a module on top of the pooled vector, loaded on first use.

    Stella trains a Linear for each dimension; a head is never a slice of a longer one.

    Attributes:
        dimension: Dimension of its vectors.
        load: Creates the module, from float32 [texts, width] to float32 [texts, dimension].
    """

    dimension: int
    load: Callable[[], torch.nn.Module]
