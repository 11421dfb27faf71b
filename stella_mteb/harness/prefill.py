"""Encodes the texts of many tasks before the first one is scored.

MTEB asks for texts task by task and column by column, in thousands of small calls with many repeated texts. This module
first rehearses the tasks: MTEB runs each of them on placeholder vectors, which is cheap. The requested texts are
deduplicated across tasks and splits and encoded into the store at full load. The real run then finds every vector
there. Because MTEB itself makes the requests, sampling and prompts are exact.

`Texts` does not know who encodes the collected texts. Here this process does; in `stella_mteb.cluster.corpora` the
workers of a cluster do.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import mteb
import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import PromptType
from numpy.typing import NDArray

from stella_mteb.engine.encoder import Progress
from stella_mteb.errors import StellaMtebError, StorageProblem
from stella_mteb.harness import registry
from stella_mteb.harness.adapter import Encoder, texts_of
from stella_mteb.harness.lazy_columns import columns_read_once
from stella_mteb.harness.offline_data import cached_configurations

logger = logging.getLogger(__name__)

# Texts kept in memory before they are encoded; sorting more of them by length gains nothing.
_HELD = 200_000
_PLACEHOLDER_WIDTH = 4


class Texts:
    """Distinct texts by prompt, passed on in large groups.

    Args:
        encode: Called with texts and their prompt.

    Attributes:
        seen: Number of texts added, repetitions included.
    """

    def __init__(self, encode: Callable[[Sequence[str], str], None]) -> None:
        self._encode = encode
        self._held: dict[str, dict[str, None]] = {}
        self.seen = 0

    def add(self, texts: Sequence[str], prompt: str) -> None:
        """Add texts, and flush if enough are held."""
        self.seen += len(texts)
        self._held.setdefault(prompt, {}).update(dict.fromkeys(texts))
        if sum(map(len, self._held.values())) >= _HELD:
            self.flush()

    def flush(self) -> None:
        """Pass on all held texts."""
        held, self._held = self._held, {}
        for prompt, texts in held.items():
            self._encode(list(texts), prompt)


class _Rehearsal(AbsEncoder):  # type: ignore[misc]
    """Collects the texts that MTEB asks for and returns placeholder vectors."""

    def __init__(self, encoder: Encoder, texts: Texts) -> None:
        self._encoder, self._texts = encoder, texts
        self.mteb_model_meta: ModelMeta = encoder.mteb_model_meta

    def encode(
        self, inputs: Any, *, task_metadata: TaskMetadata, prompt_type: PromptType | None = None, **_: Any
    ) -> NDArray[np.float32]:
        texts = texts_of(inputs, task_metadata)
        self._texts.add(texts, self._encoder.prompt_for(task_metadata, prompt_type).text)
        # Random, not constant: classifiers and clusterings warn or fail on equal rows.
        return np.random.default_rng(len(texts)).normal(size=(len(texts), _PLACEHOLDER_WIDTH)).astype(np.float32)


def prefill(encoder: Encoder, tasks: Sequence[Any], progress: Progress | None = None) -> Texts:
    """Encode every text of some tasks into the store.

    A task that cannot be rehearsed is skipped with a warning; its texts are encoded when it runs.

    Args:
        encoder: The model; its engine has a store.
        tasks: MTEB tasks.
        progress: Called after every batch.

    Returns:
        The collection, for its count.
    """
    engine = encoder.text_encoder

    def fill(group: Sequence[str], prompt: str) -> None:
        try:
            engine.fill(group, prompt, progress=progress)
        except StorageProblem:
            raise
        except StellaMtebError as error:  # a faulty text must fail its own task only, when that runs
            logger.warning("prefill stopped at a faulty text: %s; remaining texts are encoded by their tasks", error)

    texts = Texts(fill)
    if engine.store is None or not engine.store.keeps:
        logger.warning("vectors cannot be stored; texts are encoded when their task runs")
        return texts
    collect(encoder, tasks, texts)
    return texts


def collect(encoder: Encoder, tasks: Sequence[Any], texts: Texts) -> None:
    """Add every text of some tasks to a collection, without loading weights.

    A task that cannot be rehearsed is skipped with a warning; its texts are encoded when it runs.

    Args:
        encoder: The model, for its prompts.
        tasks: MTEB tasks.
        texts: The collection; flushed at the end.
    """
    for task in tasks:
        try:
            registry.reset_randomness(task)
            with cached_configurations(task), columns_read_once(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scikit-learn and scipy warn about the placeholder scores
                mteb.evaluate(
                    _Rehearsal(encoder, texts),
                    task,
                    cache=None,
                    encode_kwargs={"show_progress_bar": False},
                    show_progress_bar=False,
                    co2_tracker=False,
                )
        except StorageProblem:
            raise
        except Exception as error:
            logger.warning(
                "task %s cannot be rehearsed (%s); its texts are encoded when it runs", task.metadata.name, error
            )
    texts.flush()
