"""Conditions, arguments and replacement of torch's variable-length kernel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from stella_mteb.engine import packing, varlen
from stella_mteb.engine.packing import Packing
from tests.support.varlen import OnCuda, before_num_splits, install, of_torch_2_10, of_torch_2_11, today

pytestmark = pytest.mark.versions

LENGTHS = [7, 3, 3, 12, 1, 3]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A current GPU, simulated by the CPU for the trial of the kernel."""
    takes_one_split, options = varlen._takes_one_split, varlen._options
    monkeypatch.setattr(varlen, "_takes_one_split", lambda kernel, _, *rest: takes_one_split(kernel, CPU, *rest))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    options.cache_clear()
    yield
    options.cache_clear()


def random_parts(heads: int, key_heads: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, n, sum(LENGTHS), width, generator=generator) for n in (heads, key_heads, key_heads)]


def attention(parts: list[torch.Tensor], *, causal: bool = False) -> torch.Tensor:
    pack = Packing(LENGTHS, causal=causal, device=CPU)
    seen, _ = packing.attention(torch.nn.Identity(), *parts, None, packing=pack, scaling=0.5)  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize(
    ("dtype", "capability", "width", "kernel", "expected"),
    [
        (torch.bfloat16, (8, 0), 8, today, {"enable_gqa": True, "num_splits": 1}),
        (torch.float16, (9, 0), 256, today, {"enable_gqa": True, "num_splits": 1}),
        (torch.bfloat16, (9, 0), 128, before_num_splits, {"enable_gqa": True}),
        (torch.bfloat16, (9, 0), 128, of_torch_2_11, {}),
        (torch.bfloat16, (9, 0), 128, of_torch_2_10, None),
        (torch.bfloat16, (9, 0), 128, None, None),  # torch 2.9
        (torch.float32, (9, 0), 128, today, None),
        (torch.bfloat16, (7, 5), 128, today, None),
        (torch.bfloat16, (9, 0), 26, today, None),  # a BERT of width 312 with 12 heads
        (torch.bfloat16, (9, 0), 264, today, None),
    ],
)
def test_the_kernel_is_used_where_it_runs_with_the_options_that_it_accepts(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    capability: tuple[int, int],
    width: int,
    kernel: Any,
    expected: dict[str, Any] | None,
) -> None:
    install(monkeypatch, kernel)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    query = torch.zeros(1, 2, 3, width, dtype=dtype)

    assert varlen.runs_for(query.as_subclass(OnCuda)) == (expected is not None)
    assert not varlen.runs_for(query)
    assert varlen._options(OnCuda.device, dtype, width) == expected


def test_running_out_of_memory_while_the_kernel_is_tried_does_not_disable_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = itertools.count()

    def full_once(*parts: Any, return_aux: Any = None, scale: Any = None, window_size: Any = None,
                  num_splits: Any = None) -> None:  # fmt: skip
        if next(calls) == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    install(monkeypatch, full_once)
    asked = OnCuda.device, torch.bfloat16, 64

    with pytest.raises(torch.OutOfMemoryError):
        varlen._options(*asked)
    assert varlen._options(*asked) == {"num_splits": 1}


def test_device_capabilities_are_queried_once_and_not_in_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, today)
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or (9, 0))
    parts = [part.to(torch.bfloat16).as_subclass(OnCuda) for part in random_parts(4, 2, 8)]

    for _ in range(5):
        attention(parts)

    assert asked == [OnCuda.device]


@pytest.mark.parametrize("kernel", [today, before_num_splits, of_torch_2_11])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_the_kernel_is_asked_for_what_the_other_branch_computes(
    monkeypatch: pytest.MonkeyPatch, kernel: Any, causal: bool, key_heads: int
) -> None:
    install(monkeypatch, kernel)
    parts = random_parts(6, key_heads, 8)
    options = varlen._options(OnCuda.device, torch.bfloat16, 8)
    monkeypatch.setattr(varlen, "_options", lambda device, *_: options if device.type == "cuda" else None)

    asked = attention([part.as_subclass(OnCuda) for part in parts], causal=causal)

    computed = attention(parts, causal=causal)
    torch.testing.assert_close(asked.as_subclass(torch.Tensor), computed, atol=1e-5, rtol=0)
    assert abs(computed).mean() > 0.1


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("width", [26, 8])
def test_a_gpu_without_the_kernel_gets_a_key_head_for_every_head(
    monkeypatch: pytest.MonkeyPatch, key_heads: int, width: int
) -> None:
    """Use widths that the kernel refuses, and float32. With grouped heads, a GPU then holds all scores in memory."""
    install(monkeypatch, None)
    parts, given = random_parts(4, key_heads, width), []

    def noted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        given.append((query.shape[1], key.shape[1], value.shape[1], options["enable_gqa"]))
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, **options)

    expected = attention(parts)
    monkeypatch.setattr(packing, "scaled_dot_product_attention", noted)

    seen = attention([part.as_subclass(OnCuda) for part in parts])
    on_gpu, given[:] = set(given), []
    attention(parts)

    torch.testing.assert_close(seen.as_subclass(torch.Tensor), expected, atol=1e-6, rtol=0)
    assert on_gpu == {(4, 4, 4, False)}
    assert set(given) == {(4, key_heads, key_heads, key_heads < 4)}  # on a CPU nothing is copied
