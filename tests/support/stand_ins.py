"""Small data sets in the layout that MTEB's loaders read, for any task of MTEB(eng, v2)."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

_SUBJECTS = ["a boat", "the old cook", "one child", "his dog"]
_ACTIONS = ["is seen at dawn", "was lost in winter", "is drawn with a pencil", "costs more each year"]
_PLACES = ["near the harbour", "in our street", "behind the garden", "on the train"]
TEXTS = [" ".join(words) for words in product(_SUBJECTS, _ACTIONS, _PLACES)]
"""Distinct texts, sixteen in a row of one subject."""

# Beside the subset that is asked for, where a task reads those of all languages from one configuration.
_ANOTHER_LANGUAGE = "another"
# One text and one label in a row; all other clusterings of the benchmark have a list of both.
_FLAT_CLUSTERINGS = {"BiorxivClusteringP2P.v2"}


def stand_in(task: Any) -> dict[tuple[str, str], Rows]:
    """Return rows for an MTEB task, by configuration and split."""
    if task.metadata.type in {"Retrieval", "Reranking"}:
        return _searched(task)
    splits = list(task.eval_splits)
    if task.metadata.type == "Classification":
        splits = [task.train_split, *splits]
    rows = _ROWS[task.metadata.type](task)
    if not task.metadata.is_multilingual:
        return {("default", split): rows for split in splits}
    if task.fast_loading:
        every = [{**row, "lang": language} for language in (*task.hf_subsets, _ANOTHER_LANGUAGE) for row in rows]
        return {("default", split): every for split in splits}
    return {(subset, split): rows for subset in task.hf_subsets for split in splits}


def _alike(text: int, parts: int) -> str:
    """Return a text that shares the given number of its three parts with another."""
    return TEXTS[(text + (0, 16, 20, 21)[3 - parts]) % len(TEXTS)] + " again"


def _rated(task: Any) -> Rows:
    (first, second), low, high = task.column_names, task.min_score, task.max_score
    return [{first: TEXTS[i], second: _alike(i, i % 4), "score": low + (high - low) * (i % 4) / 3}
            for i in range(40)]  # fmt: skip


def _labelled(task: Any) -> Rows:
    """Return more rows than the 2,048 that MTEB samples from a test split, on few texts."""
    return [{task.input_column_name: TEXTS[i % 64], task.label_column_name: i % 64 // 32,
             "label_text": str(i % 64 // 32)} for i in range(2100)]  # fmt: skip


def _grouped(task: Any) -> Rows:
    """Return more rows than the 2,048 that MTEB samples for clustering, on few texts."""
    rows = [{"sentences": TEXTS[i % 64], "labels": f"{i % 64 // 16}.{i % 16 // 4}"} for i in range(2100)]
    if task.metadata.name in _FLAT_CLUSTERINGS:
        return rows
    return [{key: [row[key] for row in part] for key in ("sentences", "labels")} for part in (rows[:1050], rows[1050:])]


def _duplicates(_: Any) -> Rows:
    """Return one row of lists."""
    numbers = range(40)
    return [{"sent1": [TEXTS[i] for i in numbers], "sent2": [_alike(i, 3 if i % 2 else 1) for i in numbers],
             "labels": [i % 2 for i in numbers]}]  # fmt: skip


def _summaries(_: Any) -> Rows:
    return [{"id": str(i), "text": TEXTS[i], "human_summaries": TEXTS[i : i + 1], "relevance": [1.0, 2.0, 3.0, 4.0],
             "machine_summaries": [_alike(i, parts) for parts in range(4)]} for i in range(0, 60, 10)]  # fmt: skip


_ROWS = {
    "STS": _rated,
    "Classification": _labelled,
    "Clustering": _grouped,
    "PairClassification": _duplicates,
    "Summarization": _summaries,
}


def _searched(task: Any) -> dict[tuple[str, str], Rows]:
    """Return documents, queries and judgements as configurations; for reranking the candidates too."""
    numbers = range(0, 40, 4)
    corpus = [{"_id": f"d{i}", "title": "", "text": _alike(i, 3)} for i in range(64)]
    queries = [{"_id": f"q_{i}", "text": TEXTS[i]} for i in numbers]
    judged = [{"query-id": f"q_{i}", "corpus-id": f"d{i}", "score": 1} for i in numbers]
    (split,) = task.eval_splits
    if task.metadata.type == "Retrieval":
        return {("corpus", "corpus"): corpus, ("queries", "queries"): queries, ("default", split): judged}
    ranked = [{"query-id": f"q_{i}", "corpus-ids": [f"d{j}" for j in range(i + 5, i - 1, -1)]} for i in numbers]
    return {("corpus", split): corpus, ("queries", split): queries, ("default", split): judged,
            ("top_ranked", split): ranked}  # fmt: skip


def write_data(folder: Path, configs: dict[tuple[str, str], Rows]) -> Path:
    """Write a data set's repository: JSON Lines, and a README that maps files to splits."""
    folder.mkdir(parents=True)
    card: dict[str, Rows] = {}
    for (config, split), rows in configs.items():
        file = f"{config}-{split}.jsonl"
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        card.setdefault(config, []).append({"split": split, "path": file})
    entries = [{"config_name": config, "data_files": files} for config, files in card.items()]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(entries)}\n---\n")
    return folder
