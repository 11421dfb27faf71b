"""A CPU version of torch's variable-length kernel, with its documented behaviour and errors."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch


class AuxRequest(NamedTuple):
    """Same as in torch."""

    lse: bool = False


def today(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: AuxRequest | None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    num_splits: int | None = None,
) -> Any:
    """`varlen_attn` of torch 2.13, text by text, with the checks of `mha_varlen_fwd` in its flash_api.cpp."""
    for part in (query, key, value):
        assert part.stride(-1) == 1, "Input tensor must have contiguous last dimension"
        # The kernel reads 16 bytes at a time, eight numbers in half precision, and does not check it.
        assert part.storage_offset() % 8 == part.stride(0) % 8 == part.stride(1) % 8 == 0
    for bounds, rows, longest in ((cu_seq_q, query, max_q), (cu_seq_k, key, max_k)):
        assert bounds.dtype == torch.int32
        assert bounds.is_contiguous()
        assert (int(bounds[0]), int(bounds[-1]), int(bounds.diff().max())) == (0, len(rows), longest)
    assert query.shape[2] % 8 == 0, "head_size must be a multiple of 8, this is ensured by padding!"
    assert query.shape[2] <= 256, "FlashAttention forward only supports head dimension at most 256"
    assert key.shape == value.shape
    assert query.shape[1] % key.shape[1] == 0
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert window_size in {(-1, -1), (-1, 0)}
    group = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
    out, sums = torch.full_like(query, float("nan")), torch.full(query.shape[1::-1], float("nan"))
    ends = zip(itertools.pairwise(cu_seq_q.tolist()), itertools.pairwise(cu_seq_k.tolist()), strict=True)
    for (start, end), (first, last) in ends:
        scores = torch.einsum("qhd,khd->hqk", query[start:end], key[first:last]) * (scale or query.shape[2] ** -0.5)
        if window_size == (-1, 0):
            # The last query sees the last key.
            hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1 + last - first - end + start)
            scores = scores.masked_fill(hidden, float("-inf"))
        sums[:, start:end] = scores.logsumexp(dim=-1)
        out[start:end] = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), value[first:last])
    return (out, sums) if return_aux is not None and return_aux.lse else out


def before_num_splits(*parts: Any, return_aux: Any = None, scale: Any = None, window_size: Any = (-1, -1),
                  enable_gqa: bool = False, num_splits: int | None = None) -> Any:  # fmt: skip
    """`num_splits` is there, and is refused without FlashAttention 3; on ROCm it is refused by torch 2.13 too."""
    if num_splits is not None:
        raise RuntimeError("num_splits requires FA3. Register FA3 with `register_flash_attention_fa3()`")
    return today(*parts, return_aux=return_aux, scale=scale, window_size=window_size, enable_gqa=enable_gqa)


def of_torch_2_11(*parts: Any, return_aux: Any = None, scale: Any = None, window_size: Any = (-1, -1)) -> Any:
    """Raise unless keys have as many heads as queries."""
    return today(*parts, return_aux=return_aux, scale=scale, window_size=window_size)


def of_torch_2_10(*parts: Any, is_causal: bool = False, return_aux: Any = None) -> Any:
    """Without a scale."""
    raise NotImplementedError


def install(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> None:
    """Replace torch's kernel; None simulates a torch without one."""
    module = ModuleType("torch.nn.attention.varlen")
    module.varlen_attn, module.AuxRequest = kernel, AuxRequest  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module if kernel else None)


class OnCuda(torch.Tensor):
    """A tensor that claims to be on a GPU."""

    is_cuda = True
    device = torch.device("cuda", 0)  # type: ignore[assignment]
