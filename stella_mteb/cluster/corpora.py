"""The texts of a model's tasks ► shards ► the store, by all workers at once; then scoring runs no forward pass.

A shard ends where the local engine ends a batch. So every text is computed among the same others as on one machine, and
on a CPU in float32 its vector is the same to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stella_mteb.cluster.job import Engine, Report
from stella_mteb.cluster.pool import DEATHS, Pool, Say, Unit
from stella_mteb.engine.batching import plan_batches, windows
from stella_mteb.engine.store import VectorStore, text_key
from stella_mteb.errors import StellaMtebError, StorageProblem
from stella_mteb.harness.prefill import Texts

Batches = list[list[str]]

# So many shards for each worker, or some would wait for the last; but none of fewer batches, or starting it would show,
# and none of more tokens, because a death costs them all.
_SHARDS, _BATCHES, _TOKENS = 4, 4, 1 << 20
_SHOWN = 60


@dataclass(eq=False, kw_only=True)
class Shard(Unit):
    """Texts under one prompt, in the batches in which they will be computed."""

    batches: Batches
    prompt: str

    def parts(self) -> Sequence[Unit]:
        """Its halves, cut between batches while there are several; none of a single text."""
        whole = self.batches if len(self.batches) > 1 else [[text] for text in self.batches[0]]
        if len(whole) == 1:
            return ()
        middle = len(whole) // 2
        return [self._part(whole[:middle]), self._part(whole[middle:])]

    def _part(self, batches: Batches) -> Shard:
        texts = [text for batch in batches for text in batch]
        return replace(
            self,
            name=f"{len(texts)} of {self.name}",
            arguments=(texts, self.prompt),
            batches=batches if len(self.batches) > 1 else [texts],
            tokens=0,
            # A part of what has cost so many workers is halved at its first death; a single text has a second chance.
            deaths=DEATHS - 1 if len(texts) > 1 else DEATHS - 2,
        )


class Corpora(Texts):
    """Collects texts as `Texts` does, and has the workers of a pool encode them.

    Args:
        pool: The workers.
        say: Takes lines for people.
        family: The model, by its place in the job.
        spec: Its name.
        engine: It, as a worker has loaded it.
        cache: Folder of the vector stores.
        sent: Keys of the texts that this run has sent to workers for the same store, here and in other collections.

    Attributes:
        total: What the workers have encoded so far.
        poisoned: Of each task with a text that ends every worker that encodes it, which text that is.
    """

    def __init__(
        self, pool: Pool, say: Say, *, family: int, spec: str, engine: Engine, cache: Path, sent: set[bytes]
    ) -> None:
        super().__init__(self._encode)
        self._pool, self._say = pool, say
        self._family, self._spec, self._engine = family, spec, engine
        self._store = VectorStore(cache, engine.fingerprint)
        self._sent = sent
        self._shards = 0
        self.total = Report()
        self.poisoned: dict[str, str] = {}

    def add(self, texts: Sequence[str], prompt: str, task: str = "") -> None:
        """Collect texts; and look after the workers, who are at those before."""
        super().add(texts, prompt, task)
        self._pool.serve()

    def _encode(self, texts: Mapping[str, str], prompt: str) -> None:
        for batches, tokens in plan(self._unknown(texts, prompt), prompt, self._engine, self._pool.size):
            self._shards += 1
            shard = [text for batch in batches for text in batch]
            tasks = {text: texts[text] for text in shard}
            self._pool.submit(
                Shard(
                    name=f"shard {self._shards} of {self._spec} ({len(shard)} texts, {tokens} tokens)",
                    family=self._family,
                    method="encode",
                    arguments=(shard, prompt),
                    batches=batches,
                    prompt=prompt,
                    tokens=tokens,
                    done=self._done,
                    lost=self._lost(tasks),
                    failed=self._failed,
                )
            )

    def _unknown(self, texts: Mapping[str, str], prompt: str) -> list[str]:
        """The texts that are neither in the store nor on their way into it."""
        keys = [text_key(prompt, text) for text in texts]
        stored = self._store.contains(keys)
        new = {key: text for key, text, known in zip(keys, texts, stored, strict=True) if not known}
        unknown = [text for key, text in new.items() if key not in self._sent]
        self._sent.update(new)
        return unknown

    def _done(self, report: Report) -> None:
        counts = {name: getattr(self.total, name) + getattr(report, name) for name in ("texts", "tokens", "at_limit")}
        self.total = replace(self.total, **counts)

    def _lost(self, tasks: Mapping[str, str]) -> Callable[[Shard, str], None]:
        def lost(shard: Shard, reason: str) -> None:
            ((text,),) = shard.batches
            self.poisoned[tasks[text]] = (
                f"a text of {len(text)} characters ends every worker that encodes it ({reason}); it begins with "
                f"{text[:_SHOWN]!r}. All other texts of the task are encoded"
            )

        return lost

    def _failed(self, error: StellaMtebError) -> None:
        if isinstance(error, StorageProblem):
            raise error
        self._say(f"prefill stopped at a text: {error}; the rest of its shard is encoded when its task runs")


def plan(texts: Sequence[str], prompt: str, engine: Engine, workers: int) -> Iterator[tuple[Batches, int]]:
    """Cut texts into shards: the windows and batches are those that `TextEncoder.fill` makes of the same texts.

    Args:
        texts: Distinct texts.
        prompt: Their prompt.
        engine: The model.
        workers: How many there are to be kept busy.

    Yields:
        The batches of a shard, and its tokens; the longest texts first.
    """
    characters = sum(map(len, texts)) + 1
    for at, ids in windows(texts, partial(engine.tokenise, prompt=prompt)):
        window, lengths = [texts[i] for i in at], list(map(len, ids))
        tokens = sum(lengths)
        if engine.whole_windows:
            yield [window], tokens
            continue
        batches = list(plan_batches(lengths, lambda: engine.budget, padded=engine.padded))
        share = math.ceil(_SHARDS * workers * (sum(map(len, window)) + 1) / characters)
        size = min(max(tokens / share, _BATCHES * engine.budget), _TOKENS)
        held: Batches = []
        so_far = 0
        for batch in batches:
            held.append([window[i] for i in batch])
            so_far += sum(lengths[i] for i in batch)
            if so_far >= size:
                yield held, so_far
                held, so_far = [], 0
        if held:
            yield held, so_far
