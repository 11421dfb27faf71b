"""Faults put into an engine, and a look at what its backbone is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from stella_mteb.engine import TextEncoder
from tests.tiny import PROMPTS

S2S = PROMPTS["s2s_query"]
Shapes = list[tuple[int, int]]


def twin(encoder: TextEncoder, **changes: Any) -> TextEncoder:
    """An encoder with the same model and state of its own; the session's fixtures must stay as they are."""
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


def watch(
    monkeypatch: pytest.MonkeyPatch,
    encoder: TextEncoder,
    fault: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> Shapes:
    """Record rows and columns of every batch the backbone is given.

    Args:
        fault: Called with token ids and hidden states; may raise, or spoil the states in place.
    """
    shapes: Shapes = []
    forward = encoder.backbone.forward

    def spy(*, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        shapes.append((input_ids.shape[0], input_ids.shape[1]))
        output = forward(input_ids=input_ids, attention_mask=attention_mask)
        if fault:
            fault(input_ids, output.last_hidden_state)
        return output

    monkeypatch.setattr(encoder.backbone, "forward", spy)
    return shapes


def runs_out_above(rows: int, error: type[BaseException] = torch.OutOfMemoryError) -> Callable[..., None]:
    def fault(input_ids: torch.Tensor, _: torch.Tensor) -> None:
        if len(input_ids) > rows:
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB")

    return fault


def spoils(encoder: TextEncoder, text: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A fault that puts NaN into one state of one text, wherever that text stands in a batch."""
    ids = torch.from_numpy(encoder.tokenise([text])[0].astype(np.int64))

    def fault(input_ids: torch.Tensor, states: torch.Tensor) -> None:
        for row, tokens in enumerate(input_ids):
            if torch.equal(tokens[: len(ids)], ids):
                states[row, 0, 0] = float("nan")

    return fault
