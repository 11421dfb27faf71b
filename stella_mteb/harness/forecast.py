"""Forecasts texts, tokens, seconds and bytes of each task of a run, before its data is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mteb.types import PromptType

from stella_mteb.engine.store import VectorStore, store_folder, text_key
from stella_mteb.harness.adapter import Encoder
from stella_mteb.harness.pace import Pace, prose
from stella_mteb.harness.run import plan
from stella_mteb.harness.task_sizes import Size, Texts, size_of
from stella_mteb.harness.task_yaml import TaskFile
from stella_mteb.models.loading import fingerprint_of, tokenizer_of

_KEY_BYTES = 20  # key and checksum of each stored vector
# Seconds that `datasets` takes to open a cached data set, and per row.
_LOADING, _LOADING_ROW = 0.5, 5e-6


@dataclass(frozen=True)
class Forecast:
    """The forecast for one task with one model. None means unknown.

    Attributes:
        task: Name of the task.
        status: Status from `run.plan`; a task that is on disk costs nothing.
        texts: Texts that MTEB will ask for; None, like all that follows, if MTEB has no statistics of the task.
        distinct: Distinct texts, as far as known before the data is read.
        stored: Distinct texts that are in the store or will be there from earlier tasks; None if the store has vectors
            and the texts of the task are not known.
        tokens: Tokens that will go through the backbone.
        encoding: Seconds for encoding; None if the pace is unknown.
        rest: Seconds for loading data and computing scores.
        vectors: Bytes by which the store will grow.
        held: Bytes of vectors and similarities that MTEB holds in memory at once, at least.
        note: Reason why the figures are less certain.
    """

    task: str
    status: str
    texts: int | None = None
    distinct: int | None = None
    stored: int | None = None
    tokens: int | None = None
    encoding: float | None = None
    rest: float | None = None
    vectors: int | None = None
    held: int | None = None
    note: str = ""


class Forecaster:
    """Forecasts the tasks of one model in the order in which they run; loads only the tokenizer.

    Args:
        encoder: The model.
        device: See `load_encoder`.
        output: The output folder.
        cache: Folder of the vector stores, or None.
    """

    def __init__(self, encoder: Encoder, device: str | None, output: Path, cache: Path | None) -> None:
        self._encoder, self._output, self._keeps = encoder, output, cache is not None
        model = encoder.resolved
        self._few_shot, self._most = bool(model.config.few_shot), model.max_length
        self._width = model.layout.pooled_width
        self._tokenizer = tokenizer_of(model)
        english = prose()
        tokens = sum(map(len, self._tokenizer(english, add_special_tokens=False)["input_ids"]))
        self._characters_per_token = sum(map(len, english)) / tokens
        fingerprint = fingerprint_of(model, device)
        there = cache is not None and store_folder(cache, fingerprint).is_dir()
        self._store = VectorStore(cache, fingerprint) if cache is not None and there else None
        self._before: set[bytes] = set()

    def __call__(self, task: Any, pace: Pace | None) -> Forecast:
        """Forecast one task.

        Args:
            task: An MTEB task.
            pace: Pace of the model on this machine, if known.
        """
        path, status = plan(self._encoder, task, self._output)
        if status == "on disk":
            return Forecast(path.stem, status, 0, 0, 0, 0, 0.0, 0.0, 0, 0)
        parts = task.metadata.tasks if task.is_aggregate else [task]
        sizes = [(part, size) for part in parts if (size := size_of(part))]
        if len(sizes) < len(parts):
            return Forecast(path.stem, status, note="MTEB has no statistics of it")
        texts = [one for _, size in sizes for one in size.texts]
        distinct, stored = sum(one.distinct for one in texts), self._stored(task)
        share = 1 - (stored or 0) / max(distinct, 1)
        dimension = self._encoder.resolved.dimension
        tokens = round(share * sum(self._tokens(part, one) for part, size in sizes for one in size.texts))
        scripts = {} if task.is_aggregate else task.metadata.hf_subsets_to_langscripts
        languages = {
            script.partition("-")[0] for subset in scripts if subset in task.hf_subsets for script in scripts[subset]
        }
        others = ", ".join(sorted(languages - {"eng"}))
        return Forecast(
            task=path.stem,
            status=status,
            texts=sum(one.count for one in texts),
            distinct=distinct,
            stored=stored,
            tokens=tokens,
            encoding=pace.seconds(tokens) if pace else None if tokens else 0.0,
            rest=sum(rest_seconds(part, size, dimension) for part, size in sizes),
            vectors=round(share * distinct) * (4 * self._width + _KEY_BYTES) if self._keeps else 0,
            held=4 * max(size.vectors * dimension + size.similarities for _, size in sizes),
            note=f"tokens are estimated as for English; the texts are {others}" if others else "",
        )

    def _tokens(self, task: Any, texts: Texts) -> int:
        prompt = self._encoder.prompt_for(task.metadata, texts.side).text
        added = len(self._tokenizer(prompt)["input_ids"])
        return texts.tokens(self._characters_per_token, added, self._most + (added if self._few_shot else 0))

    def _stored(self, task: Any) -> int | None:
        """Count the texts of a task that the store will have by then. Only the texts of local data are known."""
        if not self._keeps:
            return 0
        file: TaskFile | None = getattr(task, "stella_mteb_file", None)
        if file is None or not file.is_local:
            return 0 if self._store is None else None
        sides = (PromptType.query, PromptType.document) if task.metadata.type == "Retrieval" else (None, None)
        keys = [
            text_key(self._encoder.prompt_for(task.metadata, side).text, text)
            for side, column in zip(sides, file.pairs.sides, strict=True)
            for text in dict.fromkeys(column)
        ]
        keys = list(dict.fromkeys(keys))
        known = self._store.contains(keys) if self._store is not None else [False] * len(keys)
        stored = sum(key in self._before or bool(here) for key, here in zip(keys, known, strict=True))
        self._before.update(keys)
        return stored


def rest_seconds(task: Any, size: Size, dimension: int) -> float:
    """Estimate the seconds for loading data and computing scores with MTEB's evaluators.

    The factors were measured with random vectors on one core (`results/forecast/README.md`). They are the least certain
    and the smallest part of a forecast. During a run, measured values replace them.
    """
    asked = sum(texts.count for texts in size.texts)
    queries = sum(texts.count for texts in size.texts if texts.side is PromptType.query)
    scoring = {
        # Logistic regressions on few rows, predictions for the whole split.
        "Classification": 0.3 + 5e-8 * asked * dimension + 0.01 * size.classes,
        # K-means on samples of 16 384, for data of any size.
        "Clustering": 1.5 + 4e-5 * size.classes * dimension,
        # Sorting the rows by similarity, once for each metric.
        "PairClassification": 2e-5 * asked * (0.6 + dimension / 1000),
        "Retrieval": 4e-5 * asked + 4.5e-4 * queries + 2e-7 * queries * (asked - queries),
        "Reranking": 1e-4 * asked,
        "Summarization": 6e-4 * asked,
    }
    return _LOADING + _LOADING_ROW * size.rows + scoring.get(task.metadata.type, 2e-5 * asked)


def total(forecasts: Sequence[Forecast]) -> Forecast:
    """Add up forecasts. Unknown figures count as zero, and the note says how many tasks they concern."""
    sums = {
        name: sum(getattr(forecast, name) or 0 for forecast in forecasts)
        for name in ("texts", "distinct", "stored", "tokens", "encoding", "rest", "vectors")
    }
    unknown = sum(forecast.tokens is None for forecast in forecasts)
    left = sum(forecast.status != "on disk" for forecast in forecasts)
    note = f"{unknown} without statistics are not counted" if unknown else ""
    return Forecast("total", f"{left} to run", **sums, note=note)
