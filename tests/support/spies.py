"""Faults injected into an engine, and recorders of the backbone's input."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.layouts.stella import PROMPTS
from stella_mteb.engine.encoder import TextEncoder

S2S = PROMPTS["s2s_query"]
Shapes = list[tuple[int, int]]
Texts = list[torch.Tensor]
Fault = Callable[[Texts, Texts], None]
"""Called with the token ids and the hidden states of each text of a pass; may raise, or spoil the states in place."""


def twin(encoder: TextEncoder, **changes: Any) -> TextEncoder:
    """Copy an encoder with the same model and separate state, so that the session's fixtures do not change."""
    same: dict[str, Any] = {
        "tokenizer": encoder.tokenizer,
        "backbone": encoder.backbone,
        "pooling": encoder.pooling,
        "heads": encoder.heads.values(),
        "dimension": encoder.dimension,
        "max_length": encoder.max_length,
        "normalize": encoder.normalize,
        "fingerprint": encoder.fingerprint["model"],
    }
    return TextEncoder(**(same | changes))


def padded(encoder: TextEncoder, **changes: Any) -> TextEncoder:
    """Copy an encoder with separate weights and the attention of transformers, which pads."""
    backbone = deepcopy(encoder.backbone)
    backbone.set_attn_implementation("sdpa")  # type: ignore[operator]
    same = twin(encoder, backbone=backbone, **changes)
    assert not same.packed
    return same


def watch(monkeypatch: pytest.MonkeyPatch, encoder: TextEncoder, fault: Fault | None = None) -> Shapes:
    """Record every pass through the backbone, packed or padded: how many texts, and tokens with the padding.

    A text without a token takes no part in a packed pass.
    """
    shapes: Shapes = []
    forward = encoder.backbone.forward

    def spy(**given: Any) -> Any:
        ids = given["input_ids"]
        if encoder.packed:
            assert len(ids) == 1
            bounds = given["packing"].bounds.tolist()
            places = [(0, slice(start, end)) for start, end in itertools.pairwise(bounds)]
        else:
            places = [(row, slice(0, length)) for row, length in enumerate(given["attention_mask"].sum(dim=1).tolist())]
        shapes.append((len(places), ids.numel()))
        output = forward(**given)
        if fault:
            fault([ids[place] for place in places], [output.last_hidden_state[place] for place in places])
        return output

    monkeypatch.setattr(encoder.backbone, "forward", spy)
    return shapes


def overhear(monkeypatch: pytest.MonkeyPatch, encoder: TextEncoder, before: Callable[[Sequence[str]], object]) -> None:
    """Call `before`, which may raise, with the texts of every call of the tokeniser."""

    class Overheard:
        def __init__(self, own: Any) -> None:
            self._own = own

        def __call__(self, texts: Sequence[str], prompt: str = "") -> Any:
            before(texts)
            return self._own(texts, prompt)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._own, name)

    monkeypatch.setattr(encoder, "tokenise", Overheard(encoder.tokenise))


def runs_out_above(texts: int, error: type[BaseException] = torch.OutOfMemoryError) -> Fault:
    def fault(ids: Texts, _: Texts) -> None:
        if len(ids) > texts:
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB")

    return fault


def spoils(encoder: TextEncoder, text: str) -> Fault:
    """A fault that puts NaN into one state of one text, wherever that text stands in a pass."""
    spoilt = torch.from_numpy(encoder.tokenise([text])[0].astype(np.int64))

    def fault(ids: Texts, states: Texts) -> None:
        for own, state in zip(ids, states, strict=True):
            if torch.equal(own, spoilt):
                state[0, 0] = float("nan")

    return fault
