"""The way of a text: deduplicated, prompted, tokenised, sorted, batched, forward, pooled, head, normalised.

Not covered here: where a model comes from (`stella_mteb.models`), which prompt a task gets
(`stella_mteb.prompts`), what MTEB wants (`stella_mteb.encoder`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stella_mteb.engine.batching import plan_batches
from stella_mteb.engine.devices import TOKEN_BUDGET, is_out_of_memory
from stella_mteb.engine.heads import Head
from stella_mteb.engine.pooling import Pooling
from stella_mteb.errors import ConfigError, EnvironmentProblem, NonFiniteVectorError

FloatMatrix = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called after every batch with the tokens done and the tokens to do."""

PIPELINE = "1"
"""Raised by whoever changes what this file, pooling or loading make of the same files: stored vectors are then void."""

_CHUNK = 4_096


class PooledStore(Protocol):
    """Keeps pooled vectors between calls and runs; `stella_mteb.cache` has the one on disk."""

    def read(self, keys: Sequence[bytes], into: FloatMatrix) -> NDArray[np.bool_]:
        """Fill the rows of `into` that are known; return which are."""

    def add(self, keys: Sequence[bytes], vectors: FloatMatrix) -> None:
        """Keep these rows."""

    def flush(self) -> None:
        """Make what was added durable."""


@dataclass
class EncodeStats:
    """What an encoder has done since it was made.

    Attributes:
        texts: Texts asked for.
        encoded: Texts that went through the backbone: neither repeated in their call nor in the store.
        at_limit: Of these, how many were cut, or just fit, at `max_length` tokens.
        tokens: Tokens of these, special tokens included, padding not.
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
        tokenizer: A fast tokenizer of transformers that appends the model's special tokens.
        backbone: A transformers model whose output has `last_hidden_state`, on its device, in its dtype.
        pooling: How hidden states become one vector.
        heads: The published dimensions.
        dimension: Which of them `encode` gives when it is not told.
        max_length: Longest input in tokens, prompt and special tokens included; longer texts are cut.
        normalize: Whether vectors get unit L2 length.
        batch_size: How many texts of `max_length` tokens a batch may be as large as. Short texts fill the
            same room in greater number. None: as large as is fast on the device (`devices.TOKEN_BUDGET`).
        fingerprint: Names whatever else changes a pooled vector: weights, revision, architecture.
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
        fingerprint: str = "",
    ) -> None:
        parameter = next(backbone.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.tokenizer, self.pooling = tokenizer, pooling
        self.backbone = backbone.eval()
        self.heads = {head.dimension: head for head in heads}
        self.dimension = self._known(dimension)
        self.max_length, self.normalize = max_length, normalize
        self.token_budget = TOKEN_BUDGET.get(self.device.type, TOKEN_BUDGET["cpu"])
        self.batch_size = batch_size
        self.fingerprint = {
            "pipeline": PIPELINE,
            "model": fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "max_length": str(max_length),
            "pooling": f"{'+'.join(pooling.modes)}, prompt {'in' if pooling.include_prompt else 'out'}",
        }
        self.store: PooledStore | None = None
        self.stats = EncodeStats()
        self._loaded_heads: dict[int, torch.nn.Module] = {}

    @property
    def dimensions(self) -> list[int]:
        """The dimensions that this model publishes, ascending."""
        return sorted(self.heads)

    def encode(
        self,
        texts: Sequence[str],
        prompt: str = "",
        *,
        dimension: int | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> FloatMatrix:
        """Encode texts.

        Args:
            texts: Any strings; an empty one is encoded too.
            prompt: Put before every text.
            dimension: One of `dimensions`; None for the encoder's own.
            batch_size: For this call; the smaller of this and the encoder's own holds.
            progress: Called after every batch.

        Returns:
            float32 [texts, dimension], in the order of `texts`.

        Raises:
            ConfigError: If a text is not a string, or the dimension is not published.
            NonFiniteVectorError: If a vector holds NaN or infinity; names the text's position.
            EnvironmentProblem: If one text alone does not fit in memory.
        """
        dimension = self._known(dimension or self.dimension)
        return self.project(self.pool(texts, prompt, batch_size=batch_size, progress=progress), dimension)

    def pool(
        self,
        texts: Sequence[str],
        prompt: str = "",
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> FloatMatrix:
        """Encode texts up to the pooled vector, before any head; what the store keeps.

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
        try:
            for at, vectors in self._forward_all([unique[i] for i in missing], prompt, batch_size, progress):
                where = missing[at]
                self._require_finite(vectors, where, inverse)
                pooled[where] = vectors
                if self.store is not None:
                    self.store.add([keys[i] for i in where], vectors)
        finally:
            if self.store is not None:
                self.store.flush()
        return pooled[inverse]

    def project(self, pooled: FloatMatrix, dimension: int | None = None) -> FloatMatrix:
        """Apply a head to pooled vectors, then L2 where the encoder normalises; both in float32.

        Args:
            pooled: float32 [texts, width], from `pool`.
            dimension: One of `dimensions`; None for the encoder's own.

        Returns:
            float32 [texts, dimension].
        """
        dimension = self._known(dimension or self.dimension)
        head = self._head(dimension)
        vectors = np.empty((len(pooled), dimension), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(pooled), _CHUNK):
                part = torch.from_numpy(pooled[start : start + _CHUNK]).to(self.device)
                out = head(part)
                if self.normalize:
                    out = torch.nn.functional.normalize(out, dim=-1)
                vectors[start : start + len(part)] = out.cpu().numpy()
        self._require_finite(vectors, np.arange(len(vectors)), range(len(vectors)))
        return vectors

    def tokenise(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text as the backbone sees them: cut at `max_length`, special tokens kept."""
        ids: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = [_well_formed(text) for text in texts[start : start + _CHUNK]]
            encoded = self.tokenizer(
                chunk, truncation=True, max_length=self.max_length, padding=False, return_attention_mask=False
            )
            # Arrays at once: as lists of Python integers, a corpus of long texts would not fit in memory.
            ids += [np.asarray(row, dtype=np.int32) for row in encoded["input_ids"]]
        return ids

    # ------------------------------------------------------------------------------------------------ forward

    def _forward_all(
        self, texts: list[str], prompt: str, batch_size: int | None, progress: Progress | None
    ) -> Iterable[tuple[NDArray[np.intp], FloatMatrix]]:
        started = time.perf_counter()
        ids = self.tokenise([prompt + text for text in texts])
        lengths = [len(row) for row in ids]
        prompt_tokens = self._prompt_tokens(prompt)
        total, done = sum(lengths), 0
        self.stats.at_limit += sum(length >= self.max_length for length in lengths)
        for batch in plan_batches(lengths, lambda: self._budget(batch_size)):
            yield batch, self._forward_or_halve([ids[i] for i in batch], prompt_tokens)
            tokens = sum(lengths[i] for i in batch)
            done += tokens
            self.stats.encoded += len(batch)
            self.stats.tokens += tokens
            if progress:
                progress(done, total)
        self.stats.seconds += time.perf_counter() - started

    def _budget(self, batch_size: int | None) -> int:
        limits = [rows * self.max_length for rows in (batch_size, self.batch_size) if rows is not None]
        return min([self.token_budget, *limits])

    def _forward_or_halve(self, ids: list[NDArray[np.int32]], prompt_tokens: int) -> FloatMatrix:
        try:
            return self._forward(ids, prompt_tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(ids) == 1:
                raise EnvironmentProblem(
                    f"out of memory on {self.device} with a single text of {len(ids[0])} tokens; "
                    "lower max_length, use a smaller dtype, or free the device"
                ) from error
        # Outside the except block: there, the traceback would still hold the tensors that did not fit.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        half = len(ids) // 2
        self.token_budget = max(self.max_length, min(self.token_budget, half * max(map(len, ids))))
        parts = [self._forward_or_halve(part, prompt_tokens) for part in (ids[:half], ids[half:])]
        return np.concatenate(parts)

    @torch.inference_mode()
    def _forward(self, ids: list[NDArray[np.int32]], prompt_tokens: int) -> FloatMatrix:
        longest = max(1, *map(len, ids))
        input_ids = np.full((len(ids), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros((len(ids), longest), dtype=np.int64)
        for row, tokens in enumerate(ids):
            input_ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        on_device = torch.from_numpy(mask).to(self.device)
        hidden = self.backbone(
            input_ids=torch.from_numpy(input_ids).to(self.device), attention_mask=on_device
        ).last_hidden_state
        pooled: FloatMatrix = self.pooling(hidden, on_device, prompt_tokens).cpu().numpy()
        return pooled

    # ------------------------------------------------------------------------------------------------ details

    @property
    def _width(self) -> int:
        return int(self.backbone.config.hidden_size) * len(self.pooling.modes)  # type: ignore[union-attr,arg-type]

    def _prompt_tokens(self, prompt: str) -> int:
        if not prompt or self.pooling.include_prompt:
            return 0
        ids = self.tokenizer(prompt)["input_ids"]
        # A closing special token (EOS, [SEP]) stands after the text, not after the prompt.
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    def _known(self, dimension: int) -> int:
        if dimension not in self.heads:
            known = ", ".join(map(str, sorted(self.heads)))
            raise ConfigError(
                f"there is no head of dimension {dimension}; this model publishes {known}. "
                "(A longer vector is never sliced: each dimension has a head of its own.)"
            )
        return dimension

    def _head(self, dimension: int) -> torch.nn.Module:
        if dimension not in self._loaded_heads:
            self._loaded_heads[dimension] = self.heads[dimension].load().float().to(self.device).eval()
        return self._loaded_heads[dimension]

    def _require_finite(self, vectors: FloatMatrix, where: NDArray[np.intp], inverse: Sequence[int]) -> None:
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            position = list(inverse).index(int(where[int(bad.argmax())]))
            raise NonFiniteVectorError(
                f"the vector of text {position} (counted from 0) holds NaN or infinity "
                f"(backbone in {self.dtype} on {self.device}); it is neither returned nor stored. "
                "Use fp32 or bf16; if it stays, the weights are damaged"
            )


def text_key(prompt: str, text: str) -> bytes:
    """16 bytes that stand for one prompted text in a store."""
    head, tail = (part.encode("utf-8", "surrogatepass") for part in (prompt, text))
    # The length keeps ("a", "bc") from ("ab", "c"): where the prompt ends can matter to the pooling.
    return hashlib.blake2b(len(head).to_bytes(8, "big") + head + tail, digest_size=16).digest()


def _refuse_non_strings(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ConfigError("texts must be a list of strings (got one string)")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(
                f"text {position} (counted from 0) must be a string (got {text!r}, {type(text).__name__})"
            )


def _well_formed(text: str) -> str:
    # A lone surrogate has no UTF-8 form and makes the tokenizer fail; U+FFFD is what a decoder would give.
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
