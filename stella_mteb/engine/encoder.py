"""The steps from a text to its vector: deduplicate, add the prompt, tokenise, sort, batch, forward, pool, head, L2.

Other rooms decide where a model comes from (`stella_mteb.models`), which prompt a task gets (`stella_mteb.prompts`)
and what MTEB asks for (`stella_mteb.harness.adapter`).
"""

from __future__ import annotations

import functools
import inspect
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stella_mteb import PIPELINE
from stella_mteb.engine import packing
from stella_mteb.engine.batching import Positions, plan_batches, windows
from stella_mteb.engine.devices import TOKEN_BUDGET, Fetch, fetch_later, is_out_of_memory, to_device
from stella_mteb.engine.pooling import FloatMatrix, Head, Pooling
from stella_mteb.engine.prefix import WORTH_IT, Prefix, common_prefix
from stella_mteb.engine.store import VectorStore, text_key
from stella_mteb.engine.tokenising import Ids, Tokeniser
from stella_mteb.errors import ConfigError, EnvironmentProblem, NonFiniteVectorError, StellaMtebError

Progress = Callable[[int, int], None]
"""Called after every batch with the tokens done and the total (an estimate until all texts are tokenised)."""

_CHUNK = 4_096


@dataclass
class EncodeStats:
    """Counts of an encoder since it was created.

    Attributes:
        texts: Texts asked for.
        encoded: Texts that went through the backbone, without repeated or stored ones.
        at_limit: Encoded texts that reach `max_length` tokens, and may have been truncated.
        tokens: Tokens of the encoded texts, with special tokens, without padding.
        seconds: Wall time in tokeniser and backbone.
    """

    texts: int = 0
    encoded: int = 0
    at_limit: int = 0
    tokens: int = 0
    seconds: float = 0.0


class TextEncoder:
    """A loaded model that turns texts into float32 vectors.

    Args:
        tokenizer: A fast transformers tokenizer that adds the model's special tokens.
        backbone: A transformers model with `last_hidden_state`, on its device and in its dtype.
        pooling: How hidden states become one vector.
        heads: The published dimensions.
        dimension: Default dimension of `encode`.
        max_length: Longest input in tokens, prompt and special tokens included; longer texts are truncated.
        normalize: Whether vectors get unit L2 length.
        batch_size: Limits a batch to the tokens of this many texts of `max_length`. Shorter texts fill the same room
            in greater number. None: only the token budget limits a batch.
        token_budget: Tokens of one forward pass; `stella-mteb bench` measures the fastest value. None: a value that is
            fast on most devices of the kind (`devices.TOKEN_BUDGET`).
        fingerprint: Identifies everything else that changes a pooled vector: weights, revision, architecture.
        tokenise: How prompt and text become token ids; None for the tokenizer's own way.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        backbone: torch.nn.Module,
        pooling: Pooling,
        heads: Iterable[Head],
        dimension: int,
        max_length: int,
        normalize: bool = True,
        batch_size: int | None = None,
        token_budget: int | None = None,
        fingerprint: str = "",
        tokenise: Tokeniser | None = None,
    ) -> None:
        parameter = next(backbone.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.tokenizer, self.pooling = tokenizer, pooling
        self.tokenise = tokenise or Tokeniser(tokenizer, max_length)
        self.backbone = backbone.eval()
        self.packed, self._causal = packing.is_packed(backbone), packing.is_causal(backbone.config)
        # GPT-2 adds an embedding if it gets token types, even if they are all 0.
        takes_types = "token_type_ids" in inspect.signature(backbone.forward).parameters
        self._gives_types = takes_types and "token_type_ids" in tokenizer.model_input_names
        self.heads = {head.dimension: head for head in heads}
        self.dimension = self._known(dimension)
        self.max_length, self.normalize = max_length, normalize
        self.token_budget = token_budget or TOKEN_BUDGET.get(self.device.type, TOKEN_BUDGET["cpu"])
        self.batch_size = batch_size
        # On CUDA, the next batch is launched before the last one is fetched, so that the GPU never waits for Python.
        self._depth = 1 if self.device.type == "cuda" else 0
        self.fingerprint = store_fingerprint(fingerprint, self.dtype, max_length, pooling)
        # A causal text needs only the last token's state, so a common prefix can be shared.
        last_token = pooling.modes == ("lasttoken",) and pooling.include_prompt
        self.shares_prefix = self.packed and self._causal and last_token
        self._prefix: Prefix | None = None
        self.store: VectorStore | None = None
        self.stats = EncodeStats()
        self._loaded_heads: dict[int, torch.nn.Module] = {}

    @property
    def dimensions(self) -> list[int]:
        """The published dimensions, in ascending order."""
        return sorted(self.heads)

    def encode(
        self,
        texts: Sequence[str],
        prompt: str = "",
        *,
        dimension: int | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
        normalize: bool | None = None,
    ) -> FloatMatrix:
        """Encode texts.

        Args:
            texts: Any strings, empty ones included.
            prompt: Put before every text.
            dimension: One of `dimensions`; None for the encoder's default.
            batch_size: Limit for this call; the smaller of this and the encoder's own applies.
            progress: Called after every batch.
            normalize: Whether vectors get unit L2 length; None for the encoder's setting.

        Returns:
            float32 [texts, dimension], in the order of `texts`.

        Raises:
            ConfigError: If a text is not a string, or there is no head of this dimension.
            NonFiniteVectorError: If a vector contains NaN or infinity; states the text's position.
            EnvironmentProblem: If a single text does not fit in memory.
        """
        dimension = self._known(dimension or self.dimension)
        pooled = self.pool(texts, prompt, batch_size=batch_size, progress=progress)
        return self.project(pooled, dimension, normalize=normalize)

    def pool(
        self,
        texts: Sequence[str],
        prompt: str = "",
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> FloatMatrix:
        """Compute pooled vectors, which are the input of the heads and the content of the store.

        Returns:
            float32 [texts, width of the pooling].
        """
        _refuse_non_strings(texts)
        self.stats.texts += len(texts)
        rows: dict[str, int] = {}
        inverse = [rows.setdefault(text, len(rows)) for text in texts]
        unique = list(rows)
        pooled = np.empty((len(unique), self._width), dtype=np.float32)
        keys = [text_key(prompt, text) for text in unique]
        known = self.store.read(keys, pooled) if self.store is not None else np.zeros(len(unique), dtype=bool)
        missing = np.flatnonzero(~known)
        for at, vectors in self._encode_new([unique[i] for i in missing], prompt, texts, batch_size, progress):
            pooled[missing[at]] = vectors
        return pooled if len(unique) == len(texts) else pooled[inverse]

    def fill(self, texts: Sequence[str], prompt: str = "", *, progress: Progress | None = None) -> None:
        """Encode texts into the store without returning vectors; for corpora larger than memory."""
        assert self.store is not None, "fill() without a store would throw its work away"  # noqa: S101
        _refuse_non_strings(texts)
        self.stats.texts += len(texts)
        unique = list(dict.fromkeys(texts))
        known = self.store.contains([text_key(prompt, text) for text in unique])
        for _ in self._encode_new([unique[i] for i in np.flatnonzero(~known)], prompt, texts, None, progress):
            pass

    def project(
        self, pooled: FloatMatrix, dimension: int | None = None, *, normalize: bool | None = None
    ) -> FloatMatrix:
        """Apply a head to pooled vectors and normalise them if required, in float32.

        Args:
            pooled: float32 [texts, width], from `pool`.
            dimension: One of `dimensions`; None for the encoder's default.
            normalize: Whether vectors get unit L2 length; None for the encoder's setting.

        Returns:
            float32 [texts, dimension].
        """
        dimension = self._known(dimension or self.dimension)
        if dimension not in self._loaded_heads:
            self._loaded_heads[dimension] = self.heads[dimension].load().float().to(self.device).eval()
        head = self._loaded_heads[dimension]
        vectors = np.empty((len(pooled), dimension), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(pooled), _CHUNK):
                part = torch.from_numpy(pooled[start : start + _CHUNK]).to(self.device)
                out = head(part)
                if self.normalize if normalize is None else normalize:
                    out = torch.nn.functional.normalize(out, dim=-1)
                vectors[start : start + len(part)] = out.cpu().numpy()
        _require_finite(vectors, self, lambda row: row)
        return vectors

    @torch.inference_mode()
    def hidden(self, ids: list[Ids], after: Prefix | None = None) -> torch.Tensor:
        """Compute the last hidden states of one batch, in the dtype of the backbone, [tokens of all texts, width].

        Args:
            ids: From `tokenise`; at least one text has a token.
            after: A prefix of every text that `ids` leaves out; packed models only.
        """
        return self._run(ids, after=after) if self.packed else self._run_padded(ids)

    def batch_budget(self, batch_size: int | None = None, shared: int = 0) -> int:
        """Return the token limit of a batch for `batching.plan_batches`.

        Args:
            batch_size: Limit for this call; the smaller of this and the encoder's own applies.
            shared: Tokens of a shared prefix, which needs memory because every token of a batch attends to it.
        """
        limits = [rows * self.max_length for rows in (batch_size, self.batch_size) if rows is not None]
        return max(min([self.token_budget, *limits]) - shared, min(self.token_budget, self.max_length))

    # ------------------------------------------------------------------------------------------------ forward

    def _encode_new(
        self, new: list[str], prompt: str, texts: Sequence[str], batch_size: int | None, progress: Progress | None
    ) -> Iterator[tuple[Positions, FloatMatrix]]:
        """Encode distinct texts that are not in the store, add them to it, and yield their positions and vectors."""
        started = time.perf_counter()
        total, done, tokens, longest = sum(map(len, new)), 0, 0, self.tokenise.longest(prompt)
        try:
            for at, lengths, vectors in self._forward_all(new, prompt, batch_size):
                _require_finite(vectors, self, lambda row, at=at: list(texts).index(new[at[row]]))  # type: ignore[misc]
                if self.store is not None:
                    self.store.add([text_key(prompt, new[i]) for i in at], vectors)
                yield at, vectors
                self.stats.encoded += len(at)
                self.stats.tokens += sum(lengths)
                self.stats.at_limit += sum(length >= longest for length in lengths)
                done, tokens = done + sum(len(new[i]) for i in at), tokens + sum(lengths)
                if progress:
                    progress(tokens, round(tokens * total / done) if done else tokens)
        finally:
            self.stats.seconds += time.perf_counter() - started
            if self.store is not None:
                self.store.flush()

    def _forward_all(
        self, texts: list[str], prompt: str, batch_size: int | None
    ) -> Iterator[tuple[Positions, list[int], FloatMatrix]]:
        """Yield positions in `texts`, their lengths in tokens, and their pooled vectors."""
        prompt_tokens = 0 if self.pooling.include_prompt else self.tokenise.prompt_tokens(prompt)
        launched: deque[tuple[Positions, list[int], Fetch]] = deque()
        failed: Exception | None = None
        try:
            for batch, tokens, prefix in self._batches(texts, prompt, batch_size):
                shared = len(prefix.ids) if prefix else 0
                fetched_later = self._forward_or_halve(tokens, prompt_tokens, prefix)
                launched.append((batch, [shared + len(row) for row in tokens], fetched_later))
                if len(launched) > self._depth:
                    at, lengths, fetch = launched.popleft()
                    yield at, lengths, fetch()
        except Exception as error:
            failed = error  # raised after the batches that are launched already, whose work must not be lost
        for at, lengths, fetch in launched:
            yield at, lengths, fetch()
        if failed is not None:
            raise failed

    def _batches(
        self, texts: list[str], prompt: str, batch_size: int | None
    ) -> Iterator[tuple[Positions, list[Ids], Prefix | None]]:
        for window, rows in windows(texts, functools.partial(self.tokenise, prompt=prompt)):
            prefix = self._shared(rows) if self.shares_prefix else None
            shared = len(prefix.ids) if prefix else 0
            ids = [row[shared:] for row in rows]
            budget = functools.partial(self.batch_budget, batch_size, shared)
            for batch in plan_batches([len(row) for row in ids], budget, padded=not self.packed):
                yield window[batch], [ids[i] for i in batch], prefix

    def _shared(self, rows: list[Ids]) -> Prefix | None:
        """Compute the common prefix of all texts, or reuse the last one if it fits."""
        found = common_prefix(rows)
        last = self._prefix
        if last is not None and 2 * len(last.ids) >= len(found) and all(map(last.begins, rows)):
            return last
        if len(found) < WORTH_IT or len(rows) == 1:
            return None
        prefix = Prefix(found)
        try:
            self._run([found], into=prefix)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None  # without a prefix, the text meets the same limit, and its error names it
        self._prefix = prefix
        return prefix

    def _forward_or_halve(self, ids: list[Ids], prompt_tokens: int, prefix: Prefix | None) -> Fetch:
        try:
            return self._forward(ids, prompt_tokens, prefix)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(ids) == 1:
                tokens = len(ids[0]) + (len(prefix.ids) if prefix else 0)
                raise EnvironmentProblem(
                    f"out of memory on {self.device} with a single text of {tokens} tokens; "
                    "lower max_length, use a smaller dtype, or free the device"
                ) from error
        # Outside the except block, whose traceback keeps the tensors that did not fit.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        half = len(ids) // 2
        halves = (ids[:half], ids[half:])
        room = sum(map(len, halves[0])) if self.packed else half * max(map(len, ids))
        self.token_budget = max(self.max_length, min(self.token_budget, room))
        parts = [self._forward_or_halve(part, prompt_tokens, prefix) for part in halves]
        return lambda: np.concatenate([fetch() for fetch in parts])

    @torch.inference_mode()
    def _forward(self, ids: list[Ids], prompt_tokens: int, prefix: Prefix | None) -> Fetch:
        lengths = [len(row) for row in ids]
        if not any(lengths):
            return lambda: np.zeros((len(ids), self._width), dtype=np.float32)
        hidden = self.hidden(ids, after=prefix)
        return fetch_later(self.pooling(hidden, lengths, prompt_tokens))

    @torch.inference_mode()
    def _run(self, ids: list[Ids], *, after: Prefix | None = None, into: Prefix | None = None) -> torch.Tensor:
        # A text without tokens takes no room in the packed row.
        present = [row for row in ids if len(row)]
        pack = packing.Packing(
            [len(row) for row in present], causal=self._causal, device=self.device, after=after, into=into
        )
        shared = len(after.ids) if after else 0
        row = [np.concatenate(present), np.concatenate([np.arange(len(row)) + shared for row in present])]
        input_ids, position_ids = to_device(np.stack(row).astype(np.int64), self.device)
        output = self.backbone(input_ids=input_ids[None], position_ids=position_ids[None], packing=pack)
        return self._states(output, 1, len(input_ids))[0]

    def _run_padded(self, ids: list[Ids]) -> torch.Tensor:
        longest = max(map(len, ids))
        input_ids = np.full((len(ids), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros((len(ids), longest), dtype=np.int64)
        for row, tokens in enumerate(ids):
            input_ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        given = {"input_ids": to_device(input_ids, self.device), "attention_mask": to_device(mask, self.device)}
        if self._gives_types:
            given["token_type_ids"] = torch.zeros_like(given["input_ids"])
        # Select by positions, which the host knows; it would have to wait for a mask on a GPU.
        kept = to_device(np.flatnonzero(mask), self.device)
        return self._states(self.backbone(**given), len(ids), longest).flatten(0, 1).index_select(0, kept)

    def _states(self, output: Any, texts: int, tokens: int) -> torch.Tensor:
        states: torch.Tensor = output.last_hidden_state
        due = (texts, tokens, int(self.backbone.config.hidden_size))  # type: ignore[union-attr,arg-type]
        if states.shape != due:
            raise StellaMtebError(
                f"the backbone gave hidden states of shape {tuple(states.shape)} for {texts} rows of {tokens} tokens, "
                f"not {due}: {type(self.backbone).__name__} is not what its config.json describes"
            )
        return states

    # ------------------------------------------------------------------------------------------------ details

    @property
    def _width(self) -> int:
        return int(self.backbone.config.hidden_size) * len(self.pooling.modes)  # type: ignore[union-attr,arg-type]

    def _known(self, dimension: int) -> int:
        if dimension not in self.heads:
            known = ", ".join(map(str, sorted(self.heads)))
            raise ConfigError(
                f"no head of dimension {dimension}; this model publishes {known}. "
                "(A longer vector is never sliced: each dimension has its own head.)"
            )
        return dimension


def store_fingerprint(model: str, dtype: torch.dtype, max_length: int, pooling: Pooling) -> dict[str, str]:
    """Return everything that changes a pooled vector, by name; see `VectorStore`.

    Args:
        model: Weights, revision, architecture.
        dtype: Dtype of the backbone.
        max_length: Longest input in tokens.
        pooling: How hidden states become one vector.
    """
    return {
        "pipeline": PIPELINE,
        "model": model,
        "dtype": str(dtype).removeprefix("torch."),
        "max_length": str(max_length),
        "pooling": f"{'+'.join(pooling.modes)}, prompt {'in' if pooling.include_prompt else 'out'}",
    }


def _refuse_non_strings(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ConfigError("texts must be a list of strings (got one string)")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(
                f"text {position} (counted from 0) must be a string (got {text!r}, {type(text).__name__})"
            )


def _require_finite(vectors: FloatMatrix, encoder: TextEncoder, position: Callable[[int], int]) -> None:
    bad = ~np.isfinite(vectors).all(axis=1)
    if not bad.any():
        return
    raise NonFiniteVectorError(
        f"the vector of text {position(int(bad.argmax()))} (counted from 0) contains NaN or infinity "
        f"(backbone in {encoder.dtype} on {encoder.device}) and is neither returned nor stored: "
        + ("" if encoder.dtype == torch.float32 else "half precision overflows and fp32 is needed, or ")
        + "the weights are damaged"
    )
