"""Measures the seconds that MTEB spends outside the encoder, with and without `harness.lazy_columns`, by task type.

    OMP_NUM_THREADS=1 python -m benchmarks.mteb_overhead

Tasks of realistic size with random texts and labels, and an encoder that hands out random vectors, so that what is
timed is MTEB. Both ways run in turn, and the table shows medians. Ends with an error if a score differs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import random
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import datasets
import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskClustering, AbsTaskPairClassification, AbsTaskRetrieval
from mteb.abstasks.multilabel_classification import AbsTaskMultilabelClassification
from mteb.abstasks.regression import AbsTaskRegression
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder

from stella_mteb.files.tables import render
from stella_mteb.harness.lazy_columns import columns_read_once


class RandomVectors(AbsEncoder):
    """An encoder of negligible cost: the checksum of a text selects one of a few random vectors."""

    def __init__(self, dimension: int, vectors: int = 20_000) -> None:
        self.vectors = np.random.default_rng(0).standard_normal((vectors, dimension), dtype=np.float32)
        self.mteb_model_meta = ModelMeta.create_empty({"name": "random/vectors", "revision": "1"})
        self.texts: list[list[str]] = []

    def encode(self, inputs: Any, **kwargs: Any) -> Any:
        self.texts.append([text for batch in inputs for text in batch["text"]])
        return self.vectors[[zlib.crc32(text.encode()) % len(self.vectors) for text in self.texts[-1]]]


def make(base: type, kind: str, main_score: str, data: Any, **settings: Any) -> Any:
    name = f"Local{kind}"
    metadata = TaskMetadata(
        name=name, description=name, type=kind, category="t2t", modalities=["text"], main_score=main_score,
        dataset={"path": f"local/{name}", "revision": "1"}, eval_splits=["test"], eval_langs=["eng-Latn"],
    )  # fmt: skip
    task = type(name, (base,), {"metadata": metadata, **settings})()
    task.dataset, task.data_loaded = data, True
    return task


def texts(rows: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(3_000)}" for _ in range(15)) for _ in range(rows)]


def split_in_two(rows: int, name: str, labels: list[Any]) -> DatasetDict:
    """Split rows into training and test rows."""
    whole = Dataset.from_dict({"text": texts(len(labels), 1), name: labels})
    return DatasetDict(
        train=whole.select(range(len(labels) - rows)), test=whole.select(range(len(labels) - rows, len(labels)))
    )


def pairs(rows: int, **more: Any) -> DatasetDict:
    return DatasetDict(test=Dataset.from_dict({"sentence1": texts(rows, 1), "sentence2": texts(rows, 2), **more}))


def retrieval(documents: int, queries: int) -> Any:
    draw = random.Random(3)
    ids = [f"d{i}" for i in range(documents)]
    asked = [f"q{i}" for i in range(queries)]
    return {"default": {"test": {
        "corpus": Dataset.from_dict({"id": ids, "title": ids, "text": texts(documents, 1)}),
        "queries": Dataset.from_dict({"id": asked, "text": texts(queries, 2)}),
        "relevant_docs": {query: dict.fromkeys(draw.sample(ids, 3), 1) for query in asked},
        "top_ranked": None,
    }}}  # fmt: skip


def all_tasks(scale: float = 1.0) -> dict[str, Callable[[], Any]]:
    """Return a factory for each task type; each run needs a new task, because tasks keep their random state."""
    draw = random.Random(4)
    n, many, few, corpus = (max(int(full * scale), 40) for full in (2_048, 10_000, 1_379, 20_000))
    values = [draw.random() for _ in range(2 * n)]
    classes = [draw.randrange(20) for _ in range(many + n)]
    several = [draw.sample(range(20), draw.randint(1, 3)) for _ in range(many + n)]
    documents = DatasetDict(test=Dataset.from_dict({"sentences": texts(n, 1), "labels": classes[:n]}))
    all_documents = {"max_fraction_of_documents_to_embed": None, "max_document_to_embed": n}
    types: list[tuple[type, str, str, Any, dict[str, Any]]] = [
        (AbsTaskClassification, "Classification", "accuracy", split_in_two(n, "label", classes), {}),
        (AbsTaskMultilabelClassification, "MultilabelClassification", "f1", split_in_two(n, "label", several), {}),
        (AbsTaskRegression, "Regression", "kendalltau", split_in_two(n, "value", values), {}),
        (AbsTaskPairClassification, "PairClassification", "max_ap", pairs(many, labels=[0, 1] * (many // 2)), {}),
        (AbsTaskBitextMining, "BitextMining", "f1", pairs(n), {}),
        (AbsTaskSTS, "STS", "cosine_spearman", pairs(few, score=values[:few]), {}),
        (AbsTaskClustering, "Clustering", "v_measure", documents, all_documents),
        (AbsTaskRetrieval, "Retrieval", "ndcg_at_10", retrieval(corpus, corpus // 40), {}),
    ]
    return {row[1]: functools.partial(make, *row[:4], **row[4]) for row in types}


def evaluate(task: Any, encoder: RandomVectors) -> tuple[float, str]:
    """Return the seconds and the scores as text, which is exact for floats and treats NaN as equal to NaN."""
    quick = {"cache": None, "co2_tracker": False, "show_progress_bar": False}
    started = time.perf_counter()
    result = mteb.evaluate(encoder, task, encode_kwargs={"batch_size": 1_024, "show_progress_bar": False}, **quick)
    return time.perf_counter() - started, repr(result.task_results[0].scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimension", type=int, default=1_024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--types", nargs="*", help="task types, for example Classification STS; all unless given")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    encoder, makers, table = RandomVectors(arguments.dimension), all_tasks(), []
    evaluate(all_tasks(0.0)["Classification"](), encoder)  # imports happen at first use
    for kind in arguments.types or makers:
        runs: dict[bool, list[tuple[float, str]]] = {False: [], True: []}
        for _ in range(arguments.repeats):
            for changed in (False, True):
                with columns_read_once() if changed else contextlib.nullcontext():
                    runs[changed].append(evaluate(makers[kind](), encoder))
        if len({scores for way in runs.values() for _, scores in way}) > 1:
            raise SystemExit(f"{kind}: the scores differ")
        before, after = (statistics.median(seconds for seconds, _ in way) for way in runs.values())
        cells = {"mteb, s": f"{before:.2f}", "columns read once, s": f"{after:.2f}", "times": f"{before / after:.1f}"}
        table.append({"task type": kind, **cells})
    print(render(table, "md"))


if __name__ == "__main__":
    main()
