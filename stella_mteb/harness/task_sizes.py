"""Estimates how many texts of a task are encoded and how long they are, before its data is downloaded.

The estimate uses the descriptive statistics that ship with MTEB, and what its evaluators do with a task. For a local
task it uses the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import NormalDist
from typing import Any

from mteb.types import PromptType

_NORMAL = NormalDist()
# Texts that are in the statistics but not encoded.
_NOT_ENCODED = {"Summarization": {"text_statistics"}}
# Documents that MTEB's search encodes and compares with all queries before it goes on; a reranking holds all of them.
_CORPUS_CHUNK = 50_000
_SIDES = {"queries_text_statistics": PromptType.query, "documents_text_statistics": PromptType.document}


@dataclass(frozen=True)
class Texts:
    """Statistics of texts that get the same prompt.

    Attributes:
        side: `query`, `document`, or None if the task has one kind of text.
        count: Texts that are asked for.
        distinct: Number of distinct texts; an expectation if the task draws a sample.
        mean: Mean length in characters.
        longest: Length of the longest text in characters.
    """

    side: PromptType | None
    count: int
    distinct: int
    mean: float
    longest: int

    def tokens(self, characters_per_token: float, added: int, most: int) -> int:
        """Estimate the tokens of the distinct texts, each truncated to the model's input limit.

        The mean length does not tell how much of long texts is cut, so lengths are modelled as log-normal with the
        known mean and maximum.

        Args:
            characters_per_token: Mean for the tokenizer.
            added: Tokens of the prompt and special tokens in each text.
            most: The input limit in tokens.
        """
        room = (most - added) * characters_per_token
        return round(self.distinct * (added + self._kept(room) / characters_per_token))

    def _kept(self, room: float) -> float:
        """Return the expected length of a text truncated to `room` characters."""
        if self.longest <= room or self.mean <= 0:
            return self.mean
        if room <= 0:
            return 0.0
        # The longest of n is about the quantile 1 - 1/n, so ln(longest / mean) = sigma z - sigma² / 2.
        z = _NORMAL.inv_cdf(1 - 1 / max(self.count, 3))
        sigma = z - math.sqrt(max(z * z - 2 * math.log(self.longest / self.mean), 0.0))
        if sigma <= 0:
            return min(self.mean, room)
        mu = math.log(self.mean) - sigma**2 / 2
        at = (math.log(room) - mu) / sigma
        return self.mean * _NORMAL.cdf(at - sigma) + room * (1 - _NORMAL.cdf(at))


@dataclass(frozen=True)
class Size:
    """The work of a task, for the model and for the processor.

    Attributes:
        texts: Texts to encode.
        rows: Rows of data to read.
        vectors: Vectors that MTEB holds at once: those of its largest split and subset.
        similarities: Similarities that it computes of them at once.
        classes: Labels of a classification or clustering, over all subsets; 0 for other tasks.
    """

    texts: tuple[Texts, ...]
    rows: int
    vectors: int
    similarities: int = 0
    classes: int = 0


def size_of(task: Any) -> Size | None:
    """Estimate the size of an MTEB task that is not an aggregate.

    Returns:
        None if MTEB lacks statistics of one of its splits or subsets.
    """
    file = getattr(task, "stella_mteb_file", None)
    if file is not None and file.is_local:
        return _of_rows(task)
    described = task.metadata.descriptive_stats or {}
    by_subset = described.get(task.eval_splits[0], {}).get("hf_subset_descriptive_stats")
    sizes: list[Size] = []
    for split in task.eval_splits:
        for subset in task.hf_subsets if by_subset else [None]:
            size = _of_statistics(task, described, split, subset)
            if size is None:
                return None
            sizes.append(size)
    return Size(
        tuple(texts for size in sizes for texts in size.texts),
        rows=sum(size.rows for size in sizes),
        vectors=max(size.vectors for size in sizes),
        similarities=max(size.similarities for size in sizes),
        classes=sum(size.classes for size in sizes),
    )


def _statistics(described: Mapping[str, Any], split: str, subset: str | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = described.get(split, {})
    return found if subset is None else dict(found.get("hf_subset_descriptive_stats", {}).get(subset, {}))


def _of_statistics(task: Any, described: Mapping[str, Any], split: str, subset: str | None) -> Size | None:
    found = _statistics(described, split, subset)
    skipped = _NOT_ENCODED.get(task.metadata.type, set())
    sides = {key: value for key, value in found.items() if _is_of_texts(value) and key not in skipped}
    if not sides:
        return None
    texts = [_texts(_SIDES.get(key), value) for key, value in sides.items()]
    rows, classes = sum(one.count for one in texts), len(_label_counts(found))
    if hasattr(task, "samples_per_label"):
        train = _statistics(described, task.train_split, subset)
        if not _is_of_texts(train.get("text_statistics")):
            return None
        # Each experiment draws a fixed number of rows per label; expected is what at least one of them draws.
        counts = [rows for rows in _label_counts(train) or [train["num_samples"]] if rows]
        missed = [(1 - min(task.samples_per_label, rows) / rows) ** task.n_experiments for rows in counts]
        drawn = sum(rows * (1 - share) for rows, share in zip(counts, missed, strict=True))
        texts.append(_sample(_texts(None, train["text_statistics"]), round(drawn)))
        rows += train["num_samples"]
    if (most := getattr(task, "max_document_to_embed", None)) is not None:
        texts = [_sample(one, min(one.count, most)) for one in texts]
    elif (fraction := getattr(task, "max_fraction_of_documents_to_embed", None)) is not None:
        texts = [_sample(one, int(one.count * fraction)) for one in texts]
    return Size(tuple(texts), rows, *_held(task, texts), classes)


def _held(task: Any, texts: Sequence[Texts]) -> tuple[int, int]:
    """Vectors and similarities that MTEB holds at once."""
    if not task.metadata.type.endswith("Retrieval"):
        return sum(one.count for one in texts), 0
    queries = sum(one.count for one in texts if one.side is PromptType.query)
    documents = min(sum(one.count for one in texts if one.side is PromptType.document), _CORPUS_CHUNK)
    return queries + documents, queries * documents


def _is_of_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value.get("total_text_length"))


def _label_counts(found: Mapping[str, Any]) -> list[int]:
    for key in ("label_statistics", "labels_statistics"):
        if isinstance(found.get(key), Mapping) and "labels" in found[key]:
            return [label["count"] for label in found[key]["labels"].values()]
    return []


def _texts(side: PromptType | None, described: Mapping[str, Any]) -> Texts:
    mean = described["average_text_length"]
    count = round(described["total_text_length"] / mean)
    return Texts(side, count, described["unique_texts"], mean, described["max_text_length"])


def _sample(texts: Texts, count: int) -> Texts:
    """Draw a random sample of texts that are all repeated equally often."""
    distinct = texts.distinct * (1 - (1 - count / texts.count) ** (texts.count / texts.distinct))
    return Texts(texts.side, count, min(round(distinct), count), texts.mean, texts.longest)


def _of_rows(task: Any) -> Size:
    pairs = task.stella_mteb_file.pairs
    if task.metadata.type == "Retrieval":  # each query and each document is encoded once
        columns = [(PromptType.query, list(set(pairs.first))), (PromptType.document, list(set(pairs.second)))]
    else:
        columns = [(None, list(chain(*pairs.sides)))]
    texts = []
    for side, column in columns:
        lengths = list(map(len, set(column)))
        texts.append(Texts(side, len(column), len(lengths), sum(lengths) / len(lengths), max(lengths)))
    return Size(tuple(texts), len(pairs.first), *_held(task, texts))
