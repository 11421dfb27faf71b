"""From the hidden states of tokens to one vector for each text."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pooling:
    """The pooling of a sentence-transformers folder (`1_Pooling/config.json`), computed in float32.

    Attributes:
        modes: One or more of cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken; the vectors of
            several are concatenated in this order.
        include_prompt: Whether the tokens of the prompt are pooled too (Stella: yes).
    """

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True

    def __call__(self, hidden: torch.Tensor, mask: torch.Tensor, prompt_tokens: int = 0) -> torch.Tensor:
        """Pool one right-padded batch.

        Args:
            hidden: Last hidden states, any float dtype, [texts, tokens, width].
            mask: 1 for a token and 0 for padding, [texts, tokens].
            prompt_tokens: Leading tokens that belong to the prompt.

        Returns:
            float32 [texts, width * number of modes].
        """
        positions = torch.arange(mask.shape[1], device=mask.device)
        if prompt_tokens and not self.include_prompt:
            mask = mask * (positions >= prompt_tokens)
        states, weights = hidden.float(), mask.float().unsqueeze(-1)
        return torch.cat([_pool(mode, states, weights, positions) for mode in self.modes], dim=-1)


def _pool(mode: str, states: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    # `weights` is the mask as float32, [texts, tokens, 1]; a text without tokens gives zeros, not NaN.
    if mode == "cls":
        first = weights.squeeze(-1).argmax(dim=1)
        return states[torch.arange(len(states), device=states.device), first]
    if mode == "lasttoken":
        last = (weights.squeeze(-1) * (positions + 1)).argmax(dim=1)
        return states[torch.arange(len(states), device=states.device), last]
    if mode == "max":
        return states.masked_fill(weights == 0, float("-inf")).amax(dim=1)
    if mode == "weightedmean":
        weights = weights * (positions + 1).unsqueeze(-1)
    total, count = (states * weights).sum(dim=1), weights.sum(dim=1).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)
