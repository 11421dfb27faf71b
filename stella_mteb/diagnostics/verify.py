"""Hold a copy of a model against what is published of it, and say plainly what could not be held against anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import unit
from stella_mteb.errors import StellaMtebError
from stella_mteb.models.config import Goldens
from stella_mteb.models.resolve import ResolvedModel

_TEXTS = [
    "A man opens a door and finds an empty room.",
    "Rain.",
    "Two trains leave the station in opposite directions, and a child on the platform waves at both of them.",
]


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What.
        status: `pass`, `fail`, or `not checked`.
        detail: What was found, or why it could not be checked.
    """

    name: str
    status: Literal["pass", "fail", "not checked"]
    detail: str


def verify(model: ResolvedModel, device: str | None = None) -> Iterator[Check]:
    """Check a model whose files are on this machine.

    Args:
        model: From `stella_mteb.models.resolve.resolve`.
        device: Where to run it.

    Yields:
        One check after the other; the first loads the weights.
    """
    encoder = model.load(device)
    yield Check("weights", "pass", f"{model.config.full_name} at {model.revision}, {encoder.dtype} on {encoder.device}")
    if model.config.bos_token_id is not None:
        yield _opening_token(encoder, model.config.bos_token_id)
    yield _closing_token(encoder, model.config.eos_token_id)
    yield _golden_tokens(encoder, model.config.goldens)
    yield _attention(encoder, model.config.attention)
    yield _heads(encoder)
    yield _batching(encoder)
    yield _golden_similarity(model, encoder)


def _opening_token(encoder: TextEncoder, bos: int) -> Check:
    (ids,) = encoder.tokenise(["A short text."])
    return Check("opening token", "pass" if ids[0] == bos else "fail", f"texts begin with {ids[0]}; expected {bos}")


def _closing_token(encoder: TextEncoder, eos: int | None) -> Check:
    name = "closing token, after truncation too"
    if eos is None:
        return Check(name, "not checked", "the config names none")
    short, long = encoder.tokenise(["A short text.", "a very long text " * encoder.max_length])
    good = short[-1] == eos and long[-1] == eos and len(long) == encoder.max_length
    return Check(name, "pass" if good else "fail", f"texts end with {short[-1]} and {long[-1]}; expected {eos}")


def _golden_tokens(encoder: TextEncoder, goldens: Goldens | None) -> Check:
    name = "published token ids"
    if goldens is None or not goldens.tokens:
        return Check(name, "not checked", "none are published for this model")
    found = encoder.tokenise([golden.text for golden in goldens.tokens])
    wrong = [g.text for g, ids in zip(goldens.tokens, found, strict=True) if ids.tolist() != g.ids]
    return Check(name, "fail" if wrong else "pass", f"{len(found) - len(wrong)} of {len(found)} texts agree")


def _attention(encoder: TextEncoder, attention: str | None) -> Check:
    if attention is None:
        return Check("bidirectional attention", "not checked", "the config leaves attention to the files")
    name = f"{attention} attention"
    ids = encoder.tokenise(["one two three four", "one two three five"])
    first = [encoder.hidden([row])[0].float() for row in ids]
    moved = float((first[0] - first[1]).abs().max())
    good = (moved > 0) == (attention == "bidirectional")
    return Check(name, "pass" if good else "fail", f"the first token moves by {moved:.3g} with the last one")


def _heads(encoder: TextEncoder) -> Check:
    pooled, good, bad = encoder.pool(_TEXTS), [], []
    for dimension in encoder.dimensions:
        try:
            encoder.project(pooled, dimension)
            good.append(str(dimension))
        except StellaMtebError as error:
            bad.append(f"{dimension}: {error}")
    detail = f"{', '.join(good)} load and give finite vectors" if good else "none is usable"
    return Check("heads", "fail" if bad else "pass", "; ".join([detail, *bad]))


def _batching(encoder: TextEncoder) -> Check:
    together = encoder.encode(_TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in _TEXTS])
    bound = 1e-5 if encoder.dtype == torch.float32 else 2e-2
    difference = float(np.abs(together - alone).max())
    status: Literal["pass", "fail"] = "pass" if difference <= bound else "fail"
    return Check("a text alone or in a batch", status, f"largest difference {difference:.2g} (at most {bound:g})")


def _golden_similarity(model: ResolvedModel, encoder: TextEncoder) -> Check:
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
    difference = float(np.abs(unit(queries) @ unit(documents).T - np.asarray(goldens.similarity)).max())
    bound = goldens.tolerance if encoder.dtype == torch.float32 else 10 * goldens.tolerance
    return Check(
        name,
        "pass" if difference <= bound else "fail",
        f"largest difference {difference:.2g} (at most {bound:g}) from {goldens.source}",
    )
