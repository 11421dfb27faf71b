"""Forecast texts, tokens, seconds and bytes of each task of a run, before any of its data is here."""

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

_KEY_BYTES = 20  # beside each stored vector: its key and its checksum
# Seconds of `datasets` for a data set in its cache, and for each of its rows.
_LOADING, _LOADING_ROW = 0.5, 5e-6


@dataclass(frozen=True)
class Forecast:
    """The forecast of one task with one model.

    Attributes:
        task: Name of the task.
        status: As `run.plan` gives it; a task that is on disk takes nothing.
        texts: Texts that MTEB will ask for; None, as all that follows, where MTEB has no statistics of the task.
        distinct: How many of them differ, as far as is known before the data is read.
        stored: Of these, how many the store has, or will have by then from the tasks before; None where it has some
            vectors and the texts of the task are not known.
        tokens: Tokens that will go through the backbone.
        encoding: Seconds for these; None where no pace is known.
        rest: Seconds of loading data and computing scores.
        vectors: Bytes that the store will grow by.
        note: What makes the figures less sure.
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
    note: str = ""


class Forecaster:
    """Forecasts the tasks of one model, in the order in which they will run; nothing is loaded but its tokenizer.

    Args:
        encoder: The model.
        device: See `load_encoder`.
        output: The output folder.
        cache: Folder of the vector stores; None for none.
    """

    def __init__(self, encoder: Encoder, device: str | None, output: Path, cache: Path | None) -> None:
        self._encoder, self._output, self._keeps = encoder, output, cache is not None
        model = encoder.resolved
        self._few_shot, self._most = bool(model.config.few_shot), model.max_length
        self._width = model.layout.pooled_width
        self._tokenizer = tokenizer_of(model)
        self._characters_per_token = _measured(self._tokenizer)
        fingerprint = fingerprint_of(model, device)
        there = cache is not None and store_folder(cache, fingerprint).is_dir()
        self._store = VectorStore(cache, fingerprint) if cache is not None and there else None
        self._before: set[bytes] = set()

    def __call__(self, task: Any, pace: Pace | None) -> Forecast:
        """Forecast one task.

        Args:
            task: An MTEB task.
            pace: Of this model on this machine, if it is known.
        """
        path, status = plan(self._encoder, task, self._output)
        if status == "on disk":
            return Forecast(path.stem, status, 0, 0, 0, 0, 0.0, 0.0, 0)
        parts = task.metadata.tasks if task.is_aggregate else [task]
        sizes = [(part, size) for part in parts if (size := size_of(part))]
        if len(sizes) < len(parts):
            return Forecast(path.stem, status, note="MTEB has no statistics of it")
        texts = [one for _, size in sizes for one in size.texts]
        distinct, stored = sum(one.distinct for one in texts), self._stored(task)
        share = 1 - (stored or 0) / max(distinct, 1)
        tokens = round(share * sum(self._tokens(part, one) for part, size in sizes for one in size.texts))
        return Forecast(
            task=path.stem,
            status=status,
            texts=sum(one.count for one in texts),
            distinct=distinct,
            stored=stored,
            tokens=tokens,
            encoding=tokens / pace.tokens_per_second if pace else None,
            rest=sum(rest_seconds(part, size, self._encoder.resolved.dimension) for part, size in sizes),
            vectors=round(share * distinct) * (4 * self._width + _KEY_BYTES) if self._keeps else 0,
            note=_note(task),
        )

    def _tokens(self, task: Any, texts: Texts) -> int:
        prompt = self._encoder.prompt_for(task.metadata, texts.side).text
        added = len(self._tokenizer(prompt)["input_ids"])
        return texts.tokens(self._characters_per_token, added, self._most + (added if self._few_shot else 0))

    def _stored(self, task: Any) -> int | None:
        """Texts of a task that are in the store by then; only of local data are the texts themselves known."""
        if not self._keeps:
            return 0
        file: TaskFile | None = getattr(task, "stella_mteb_file", None)
        if file is None or not file.is_local:
            return 0 if self._store is None else None
        sides = (PromptType.query, PromptType.document) if task.metadata.type == "Retrieval" else (None, None)
        keys = [
            text_key(self._encoder.prompt_for(task.metadata, side).text, text)
            for side, column in zip(sides, (file.pairs.first, file.pairs.second), strict=True)
            for text in dict.fromkeys(column)
        ]
        keys = list(dict.fromkeys(keys))
        known = self._store.contains(keys) if self._store is not None else [False] * len(keys)
        stored = sum(key in self._before or bool(here) for key, here in zip(keys, known, strict=True))
        self._before.update(keys)
        return stored


def _measured(tokenizer: Any) -> float:
    """Characters of a token, in English."""
    texts = prose()
    tokens = sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
    return sum(map(len, texts)) / tokens


def _note(task: Any) -> str:
    scripts = task.metadata.hf_subsets_to_langscripts if not task.is_aggregate else {}
    languages = {
        script.partition("-")[0] for subset in scripts for script in scripts[subset] if subset in task.hf_subsets
    }
    others = sorted(languages - {"eng"})
    return f"tokens are counted as in English; its texts are {', '.join(others)}" if others else ""


def rest_seconds(task: Any, size: Size, dimension: int) -> float:
    """Seconds of loading data and computing scores, by what MTEB's evaluators do.

    The factors were measured with random vectors on one core (`results/forecast/README.md`); they are the least sure
    figures of a forecast, and the smallest: a run replaces them by what it measures.

    Args:
        task: An MTEB task.
        size: Its size.
        dimension: Of the vectors.
    """
    asked = sum(texts.count for texts in size.texts)
    queries = sum(texts.count for texts in size.texts if texts.side is PromptType.query)
    scoring = {
        # Logistic regressions on few rows, predictions for all of the split.
        "Classification": 0.3 + 5e-8 * asked * dimension + 0.01 * size.classes,
        # K-means on samples of 16 384, whatever the size of the data.
        "Clustering": 1.5 + 4e-5 * size.classes * dimension,
        # Rows in order of their similarity, once for each metric.
        "PairClassification": 2e-5 * asked * (0.6 + dimension / 1000),
        "Retrieval": 4e-5 * asked + 4.5e-4 * queries + 2e-7 * queries * (asked - queries),
        "Reranking": 1e-4 * asked,
        "Summarization": 6e-4 * asked,
    }
    return _LOADING + _LOADING_ROW * size.rows + scoring.get(task.metadata.type, 2e-5 * asked)


def total(forecasts: Sequence[Forecast]) -> Forecast:
    """Add up; what is not known counts nothing, and the note says how often that is."""
    sums = {
        name: sum(getattr(forecast, name) or 0 for forecast in forecasts)
        for name in ("texts", "distinct", "stored", "tokens", "encoding", "rest", "vectors")
    }
    unknown = sum(forecast.tokens is None for forecast in forecasts)
    left = sum(forecast.status != "on disk" for forecast in forecasts)
    note = f"{unknown} without statistics are not counted" if unknown else ""
    return Forecast("total", f"{left} to run", **sums, note=note)
