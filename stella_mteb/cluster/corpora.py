"""Encodes the texts of a model's tasks into the store on all workers, so that scoring needs no forward pass.

A shard ends where the local engine ends a batch. Every text is therefore computed with the same other texts as on one
machine, and on a CPU in float32 its vector is the same to the bit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from stella_mteb.cluster.job import LoadedModel
from stella_mteb.cluster.pool import Pool, Say, Unit
from stella_mteb.engine.batching import plan_batches, windows
from stella_mteb.engine.store import VectorStore, text_key
from stella_mteb.errors import StellaMtebError, StorageProblem
from stella_mteb.files.tables import many
from stella_mteb.harness.prefill import Texts

# Shards per worker, so that none waits long for the last one; batches per shard at least, so that starting it does not
# matter; tokens per shard at most, because they are lost if its worker dies.
_SHARDS, _BATCHES, _TOKENS = 4, 4, 1 << 20


class Corpora(Texts):
    """Collects texts like `Texts` and lets the workers of a pool encode them.

    Args:
        pool: The workers.
        say: Prints a line.
        family: Index of the model in the job.
        spec: Its spec.
        model: Its description by a worker that has loaded it.
        cache: Folder of the vector stores.
        sent: Keys of the texts that this run has sent to workers for the same store; shared by collections.

    Attributes:
        encoded: Total of the workers' reports (`Report.encoded`).
    """

    def __init__(
        self, pool: Pool, say: Say, *, family: int, spec: str, model: LoadedModel, cache: Path, sent: set[bytes]
    ) -> None:
        super().__init__(self._encode)
        self._pool, self._say = pool, say
        self._family, self._spec, self._model = family, spec, model
        self._store = VectorStore(cache, model.fingerprint)
        self._sent = sent
        self._shards = 0
        self.encoded: Counter[str] = Counter()

    def add(self, texts: Sequence[str], prompt: str) -> None:
        """Add texts, and serve the workers that encode earlier ones."""
        super().add(texts, prompt)
        self._pool.serve()

    def _encode(self, texts: Sequence[str], prompt: str) -> None:
        keys = [text_key(prompt, text) for text in texts]
        stored = self._store.contains(keys)
        unknown = {key: text for key, text, known in zip(keys, texts, stored, strict=True) if not known}
        new = [text for key, text in unknown.items() if key not in self._sent]
        self._sent.update(unknown)

        def failed(error: StellaMtebError) -> None:
            if isinstance(error, StorageProblem):
                raise error
            # The task that has the faulty text fails when it runs.
            self._say(f"prefill: {error}; the rest of the shard is encoded when its tasks run")

        for shard, tokens in plan(new, prompt, self._model, self._pool.size):
            self._shards += 1
            self._pool.submit(
                Unit(
                    name=f"shard {self._shards} of {self._spec} ({many(len(shard), 'text')}, {tokens:,} tokens)",
                    family=self._family,
                    method="encode",
                    arguments=(shard, prompt),
                    tokens=tokens,
                    done=lambda report: self.encoded.update(report.encoded),
                    failed=failed,
                )
            )


def plan(texts: Sequence[str], prompt: str, model: LoadedModel, workers: int) -> Iterator[tuple[list[str], int]]:
    """Split texts into shards of whole batches, with the windows and batches of `TextEncoder.fill`.

    Yields:
        The texts of a shard, and its tokens; the longest texts first.
    """
    characters = sum(map(len, texts)) + 1
    for at, ids in windows(texts, partial(model.tokenise, prompt=prompt)):
        window, lengths = [texts[i] for i in at], list(map(len, ids))
        tokens = sum(lengths)
        if model.whole_windows:
            yield window, tokens
            continue
        share = math.ceil(_SHARDS * workers * (sum(map(len, window)) + 1) / characters)
        size = min(max(tokens / share, _BATCHES * model.budget), _TOKENS)
        shard: list[str] = []
        so_far = 0
        for batch in plan_batches(lengths, lambda: model.budget, padded=model.padded):
            shard += [window[i] for i in batch]
            so_far += sum(lengths[i] for i in batch)
            if so_far >= size:
                yield shard, so_far
                shard, so_far = [], 0
        if shard:
            yield shard, so_far
