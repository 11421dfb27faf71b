"""Checks a copy of a model against published values, and states what could not be checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import unit
from stella_mteb.errors import StellaMtebError
from stella_mteb.models.resolve import ResolvedModel

_TEXTS = [
    "A man opens a door and finds an empty room.",
    "Rain.",
    "Two trains leave the station in opposite directions, and a child on the platform waves at both of them.",
]


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: Its name.
        status: `pass`, `fail`, or `not checked`.
        detail: What was found, or why it could not be checked.
    """

    name: str
    status: Literal["pass", "fail", "not checked"]
    detail: str


def check_model(model: ResolvedModel, device: str | None = None) -> Iterator[Check]:
    """Check a model whose files are on this machine.

    Args:
        model: From `stella_mteb.models.resolve.resolve`.
        device: Device to run it on.

    Yields:
        One check after the other; the first loads the weights.
    """
    encoder = model.load(device)
    yield Check("weights", "pass", f"{model.config.full_name} at {model.revision}, {encoder.dtype} on {encoder.device}")
    if (bos := model.config.bos_token_id) is not None:
        first = encoder.tokenise(["A short text."])[0][0]
        yield _checked("opening token", first == bos, f"texts begin with {first}; expected {bos}")
    for check in (closing_token, token_ids, attention, heads, batching, similarities):
        yield check(model, encoder)


def closing_token(model: ResolvedModel, encoder: TextEncoder) -> Check:
    """Check that every text ends with the configured token."""
    name, eos = "closing token, after truncation too", model.config.eos_token_id
    if eos is None:
        return Check(name, "not checked", "the config has none")
    short, long = encoder.tokenise(["A short text.", "a very long text " * encoder.max_length])
    good = short[-1] == eos and long[-1] == eos and len(long) == encoder.max_length
    return _checked(name, good, f"texts end with {short[-1]} and {long[-1]}; expected {eos}")


def token_ids(model: ResolvedModel, encoder: TextEncoder) -> Check:
    """Compare token ids with published ones."""
    name, goldens = "published token ids", model.config.goldens
    if goldens is None or not goldens.tokens:
        return Check(name, "not checked", "none are published for this model")
    found = encoder.tokenise([golden.text for golden in goldens.tokens])
    right = sum(ids.tolist() == golden.ids for golden, ids in zip(goldens.tokens, found, strict=True))
    return _checked(name, right == len(found), f"{right} of {len(found)} texts agree")


def attention(model: ResolvedModel, encoder: TextEncoder) -> Check:
    """Check whether the last token affects the first, as the config says."""
    kind = model.config.attention
    if kind is None:
        return Check("bidirectional attention", "not checked", "the config leaves attention to the files")
    ids = encoder.tokenise(["one two three four", "one two three five"])
    first = [encoder.hidden([row])[0].float() for row in ids]
    moved = float((first[0] - first[1]).abs().max())
    detail = f"the first token moves by {moved:.3g} with the last one"
    return _checked(f"{kind} attention", (moved > 0) == (kind == "bidirectional"), detail)


def heads(_: ResolvedModel, encoder: TextEncoder) -> Check:
    """Check that every dimension loads and gives finite vectors."""
    pooled, good, bad = encoder.pool(_TEXTS), [], []
    for dimension in encoder.dimensions:
        try:
            encoder.project(pooled, dimension)
            good.append(str(dimension))
        except StellaMtebError as error:
            bad.append(f"{dimension}: {error}")
    detail = f"{', '.join(good)} load and give finite vectors" if good else "none is usable"
    return _checked("heads", not bad, "; ".join([detail, *bad]))


def batching(_: ResolvedModel, encoder: TextEncoder) -> Check:
    """Check that a text has the same vector alone and in a batch."""
    together = encoder.encode(_TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in _TEXTS])
    return _close("a text alone or in a batch", together, alone, 1e-5 if encoder.dtype == torch.float32 else 2e-2)


def similarities(model: ResolvedModel, encoder: TextEncoder) -> Check:
    """Compare similarities of queries and documents with published ones."""
    goldens, name = model.config.goldens, "published similarities"
    if goldens is None or not goldens.similarity:
        return Check(name, "not checked", "none are published for this model")
    if goldens.dimension not in encoder.dimensions:
        return Check(name, "not checked", f"published at {goldens.dimension} dimensions, which is not on disk")
    prompts = model.config.prompts
    asked = goldens.query_prompt or ""
    queries = encoder.encode(
        goldens.queries, {"s2s": prompts.s2s, "s2p": prompts.s2p}.get(asked, asked), dimension=goldens.dimension
    )
    documents = encoder.encode(goldens.documents, prompts.document, dimension=goldens.dimension)
    bound = goldens.tolerance if encoder.dtype == torch.float32 else 10 * goldens.tolerance
    found = unit(queries) @ unit(documents).T
    return _close(name, found, np.asarray(goldens.similarity), bound, f" from {goldens.source}")


def _close(name: str, found: NDArray[Any], due: NDArray[Any], bound: float, source: str = "") -> Check:
    difference = float(np.abs(found - due).max())
    return _checked(name, difference <= bound, f"largest difference {difference:.2g} (at most {bound:g}){source}")


def _checked(name: str, good: bool, detail: str) -> Check:
    return Check(name, "pass" if good else "fail", detail)
