"""Keeps the items of a score: one value for each pair, query or text. `run` writes them, `compare` reads them.

<output>/results/<model>/<Task>.json    MTEB's result
<output>/details/<model>/<Task>.json    the items from which its main score can be recomputed

Items are kept for STS (gold scores and cosines), pair classification (labels, and the similarity with the best AP),
retrieval and reranking (the main metric of each query) and summarisation (the rank correlation of each text). They are
not kept for classification and clustering, whose scores are means over random samples and have no value per text, nor
for metrics that are not a mean over queries (p-MRR, robustness, mrr). The parts of an aggregate task have items of
their own. Items that do not reproduce the main score are not written.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mteb import ResultCache
from mteb.abstasks import AbsTaskPairClassification, AbsTaskRetrieval, AbsTaskSTS, AbsTaskSummarization
from mteb.models import ModelMeta

from stella_mteb.files.locks import writing
from stella_mteb.files.rows import digest
from stella_mteb.harness.registry import SAVE_PREDICTIONS
from stella_mteb.outputs.items import Items, Unit, read_items, spearman, write_items
from stella_mteb.outputs.layout import details_path
from stella_mteb.statistics.paired import Kind

logger = logging.getLogger(__name__)
Evaluate = Callable[..., Mapping[str, Mapping[str, Any]]]
"""Type of `AbsTask.evaluate`, which returns the scores by subset."""
Given = dict[tuple[str, str], Any]
"""Values that MTEB computed on the way to the score, by split and subset."""
# Cosine first: it wins if several similarities have the same AP.
_SIMILARITIES = {
    "cosine": ("cosine_scores", 1),
    "similarity": ("similarity_scores", 1),
    "dot": ("dot_scores", 1),
    "euclidean": ("euclidean_distances", -1),
    "manhattan": ("manhattan_distances", -1),
}
_PER_QUERY = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}


Make = Callable[[Any, str, str, Any, Mapping[str, Any]], Items]
"""Makes the items of a task's split and subset, from the captured values and the scores."""


# ------------------------------------------------------------------------------------------------------- capturing


@contextmanager
def keep_items(task: Any, cache: ResultCache, meta: ModelMeta) -> Iterator[None]:
    """Write the items of what MTEB evaluates within the block next to the task's result.

    Items are written before the result, so a result always has its items even if the run is killed. Items without a
    result are ignored. A failure here is only a warning: a score never depends on its items.
    """
    with ExitStack() as stack:
        for part in _parts(task):
            stack.enter_context(_watched(part, cache, meta))
        yield


def _parts(task: Any) -> list[Any]:
    return [part for one in task.metadata.tasks for part in _parts(one)] if task.is_aggregate else [task]


@contextmanager
def _at_worst_a_warning(task: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the data of an MTEB task may have any form
        logger.warning("task %s: items not saved (%s: %s)", task.metadata.name, type(error).__name__, error)


def _keep(found: Sequence[Items], scores: Mapping[str, Any], task: Any, cache: ResultCache, meta: ModelMeta) -> None:
    name, revision = task.metadata.name, task.metadata.revision
    path = details_path(cache.get_task_result_path(name, meta))
    good = []
    for one in found:
        score = scores[one.subset]["main_score"]
        if not np.isfinite(score):  # the result will be refused
            continue
        if one.gives(score):
            good.append(one)
        else:
            logger.warning(
                "task %s (%s, %s): the items give %.6f but the score is %s; items not saved",
                *(name, one.split, one.subset, one.score(), score),
            )
    if not good or path is None:
        return
    with writing(cache.cache_path, path.parent):
        # An earlier run or another process may have kept items of other splits and subsets.
        items = {(one.split, one.subset): one for one in (*read_items(path, revision), *good)}
        write_items(path, name, str(task.metadata.type), revision, items.values())


@contextmanager
def _watched(task: Any, cache: ResultCache, meta: ModelMeta) -> Iterator[None]:
    """Keep the items of every evaluation of a task within the block."""
    makers: list[tuple[type, bool, Make]] = [
        (AbsTaskSTS, task.metadata.main_score == "cosine_spearman", _of_rated_pairs),
        (AbsTaskPairClassification, task.metadata.main_score == "max_ap", _of_labelled_pairs),
        (AbsTaskSummarization, task.metadata.main_score == "cosine_spearman", _of_summaries),
        (AbsTaskRetrieval, _per_query_metric(task) is not None, _of_queries),
    ]
    make = next((make for kind, recomputable, make in makers if isinstance(task, kind) and recomputable), None)
    if make is None:
        yield
        return
    given: Given = {}
    evaluate = _noting_metrics(task, given) if make is _of_queries else _noting_predictions(task, given)

    def watched(model: Any, split: str = "test", *args: Any, **kwargs: Any) -> Mapping[str, Mapping[str, Any]]:
        scores = evaluate(model, split, *args, **kwargs)
        found: list[Items] = []
        for subset, entry in scores.items():
            with _at_worst_a_warning(task):
                if known := given.pop((split, subset), None):
                    found.append(make(task, split, subset, known, entry))
        with _at_worst_a_warning(task):
            _keep(found, scores, task, cache, meta)
        return scores

    with _replaced(task, "evaluate", watched):
        yield


def _noting_predictions(task: Any, given: Given) -> Evaluate:
    """Return the task's `evaluate`, changed to capture the predictions that MTEB would write to a file."""
    evaluate: Evaluate = task.evaluate
    if not hasattr(task, SAVE_PREDICTIONS):
        return evaluate

    def note(predictions: Any, *_: Any, hf_split: str, hf_subset: str, **__: Any) -> None:
        given[hf_split, hf_subset] = predictions

    def noting(*args: Any, **kwargs: Any) -> Mapping[str, Mapping[str, Any]]:
        with _replaced(task, SAVE_PREDICTIONS, note):
            return evaluate(*args, **{**kwargs, "prediction_folder": Path("predictions")})

    return noting


def _noting_metrics(task: Any, given: Given) -> Evaluate:
    """Return the task's `evaluate`, changed to capture the main metric of each query.

    Retrieval predictions are rankings without metrics. MTEB passes the metrics of all queries to the hook for a task's
    own scores.
    """
    evaluate, specific, metric = task.evaluate, task.task_specific_scores, _per_query_metric(task)

    def note(scores: Mapping[str, Any], *args: Any, hf_split: str, hf_subset: str, **kwargs: Any) -> Any:
        with _at_worst_a_warning(task):
            given[hf_split, hf_subset] = {query: of_query[metric] for query, of_query in scores.items()}
        return specific(scores, *args, hf_split=hf_split, hf_subset=hf_subset, **kwargs)

    def noting(*args: Any, **kwargs: Any) -> Any:
        with _replaced(task, "task_specific_scores", note):
            return evaluate(*args, **kwargs)

    return noting


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


# --------------------------------------------------------------------------------------------------- by type of task


def _per_query_metric(task: Any) -> str | None:
    """Return pytrec_eval's name of the main score if MTEB takes its mean over queries, else None."""
    name = task.metadata.main_score
    if name == "accuracy":
        return "recall_1"
    known = re.fullmatch(r"(\w+)_at_(\d+)", name)
    return f"{_PER_QUERY[known[1]]}_{known[2]}" if known and known[1] in _PER_QUERY else None


def _of_rated_pairs(task: Any, split: str, subset: str, predictions: Any, _: Mapping[str, Any]) -> Items:
    first, second, gold = _columns(_rows(task, split, subset), (*task.column_names, "score"))
    key = _digest(task, split, subset, zip(first, second, gold, strict=True))
    values = predictions["cosine_scores"]
    if best := getattr(task, "of_best_reference", None):  # a task of ours has a row for each reference of a text
        gold, values = best(gold), best(values)
    return _items(task, split, subset, "spearman", "pairs", key, gold, values)


def _of_labelled_pairs(task: Any, split: str, subset: str, predictions: Any, scores: Mapping[str, Any]) -> Items:
    rows = _rows(task, split, subset)
    names = (task.input1_column_name, task.input2_column_name, task.label_column_name)
    # Older data sets hold all pairs in one row.
    first, second, labels = (column[0] if len(rows) == 1 else column for column in _columns(rows, names))
    key = _digest(task, split, subset, zip(first, second, labels, strict=True))
    best = max(_SIMILARITIES, key=lambda name: scores[f"{name}_ap"])
    column, sign = _SIMILARITIES[best]
    return _items(task, split, subset, "ap", "pairs", key, labels, sign * np.asarray(predictions[column]))


def _of_summaries(task: Any, split: str, subset: str, predictions: Any, _: Mapping[str, Any]) -> Items:
    (texts,) = _columns(_rows(task, split, subset), (task.text_column_name,))
    rated = predictions["human_scores"]  # without the texts that MTEB skips because their ratings are all equal
    values = [spearman(human, own) for human, own in zip(rated, predictions["cosine_scores"], strict=True)]
    return _items(task, split, subset, "mean", "texts", _digest(task, split, subset, [texts, rated]), None, values)


def _of_queries(task: Any, split: str, subset: str, metrics: Any, _: Mapping[str, Any]) -> Items:
    rows = _rows(task, split, subset)
    texts = dict(zip(*_columns(rows["queries"], ("id", "text")), strict=True))
    queries = sorted(metrics)
    judged = [(query, texts[query], sorted(rows["relevant_docs"][query].items())) for query in queries]
    key = _digest(task, split, subset, judged)
    return _items(task, split, subset, "mean", "queries", key, None, [metrics[query] for query in queries])


def _items(
    task: Any, split: str, subset: str, kind: Kind, unit: Unit, key: str, gold: Sequence[float] | None, values: Any
) -> Items:
    return Items(
        task=task.metadata.name,
        split=split,
        subset=subset,
        kind=kind,
        unit=unit,
        digest=key,
        gold=None if gold is None else np.asarray(gold, dtype=np.float64),
        values=np.asarray(values, dtype=np.float32).astype(np.float64),  # as they are on disk
    )


def _digest(task: Any, split: str, subset: str, rows: Iterable[Any]) -> str:
    return digest([(split, subset, task.metadata.main_score), *rows])


def _rows(task: Any, split: str, subset: str) -> Any:
    return task.dataset[subset][split] if subset in task.dataset else task.dataset[split]


def _columns(rows: Any, names: Iterable[str]) -> list[list[Any]]:
    names = list(names)
    columns = rows.select_columns(names).with_format(None)[:]
    return [columns[name] for name in names]
