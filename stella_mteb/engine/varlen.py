"""Calls torch's FlashAttention for texts of different lengths, where it can run.

docs/decisions/013-cuda.md lists the sources read for this, and what is not known without a GPU.
"""

from __future__ import annotations

import functools
import inspect
from types import MappingProxyType
from typing import Any

import torch

from stella_mteb.engine.devices import is_out_of_memory

Bounds = tuple[torch.Tensor, torch.Tensor, int, int]
"""int32 [texts + 1] on the device for queries and for keys, and the tokens of the longest text of each."""

# Limits of mha_varlen_fwd; `scaled_dot_product_attention` pads other widths.
_MULTIPLE, _WIDEST = 8, 256


def runs_for(query: torch.Tensor) -> bool:
    """Check whether the kernel can run for queries like these: [..., width]."""
    return _options(query.device, query.dtype, query.shape[-1]) is not None


@functools.cache
def _options(device: torch.device, dtype: torch.dtype, width: int) -> MappingProxyType[str, Any] | None:
    """Find the kernel's options, once for all layers; None if it cannot run."""
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type != "cuda" or not half or width % _MULTIPLE or width > _WIDEST:
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 -- torch 2.9 does not have it
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if not {"scale", "window_size", "return_aux"} <= set(known):  # torch 2.10 lacks the first two
        return None
    options: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in known else {}
    if "num_splits" in known and _takes_one_split(varlen_attn, device, dtype, width):
        # Otherwise the longest text of a batch may decide how the others are split, and newer torch may choose cuDNN.
        options["num_splits"] = 1
    return MappingProxyType(options)


def _takes_one_split(varlen_attn: Any, device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Try the option `num_splits`, which ROCm, and torch before #179760, have but refuse."""
    one = torch.ones(1, 1, width, device=device, dtype=dtype)
    bounds = torch.tensor([0, 1], device=device, dtype=torch.int32)
    try:
        varlen_attn(one, one, one, bounds, bounds, 1, 1, num_splits=1)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return False
    return True


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: Bounds,
    scaling: float,
    *,
    causal: bool,
    **asked: Any,
) -> Any:
    """Compute attention of each text's queries to its keys.

    Args:
        query: float16 or bfloat16 [heads, tokens, width].
        key: [key heads, keys, width]; key heads divide heads.
        value: Like `key`.
        bounds: The boundaries of the texts.
        scaling: Scale of the scores.
        causal: Whether a token sees only earlier ones.
        asked: Further options of `varlen_attn`.

    Returns:
        [tokens, heads, width], in the dtype of `query`.
    """
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415

    options = {"scale": scaling, "window_size": (-1, 0) if causal else (-1, -1), **asked}
    options |= _options(query.device, query.dtype, query.shape[-1]) or {}
    query, key, value = (part.transpose(0, 1) for part in (query, key, value))
    if "enable_gqa" not in options:  # torch 2.11
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
    return varlen_attn(query, key, value, *bounds, **options)


def attend_with_sums(*parts: Any, causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `attend` as float32 [heads, tokens, width], and the log softmax sums, float32 [heads, tokens]."""
    from torch.nn.attention.varlen import AuxRequest  # noqa: PLC0415

    seen, sums = attend(*parts, causal=causal, return_aux=AuxRequest(lse=True))
    # The sums are [heads, tokens]; torch 2.13's documentation states the opposite, but its kernels do this.
    return seen.transpose(0, 1).float(), sums
