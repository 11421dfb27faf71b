"""Converts result files of mteb before 1.11 to the present form, like `mteb.TaskResult.from_disk`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.tables import plain

_NO_SPLITS = {"dataset_revision", "mteb_dataset_name", "mteb_version", "evaluation_phases"}
_METRICS = {
    "cos_sim": "cosine", "manhattan": "manhattan", "euclidean": "euclidean", "dot": "dot", "max": "max",
    "similarity": "similarity",
}  # fmt: skip
"""Objects of metrics in the old form, with the prefix of their metrics in the new form."""
_RENAMED = {
    "NorwegianParliament": "NorwegianParliamentClassification",
    "CMedQAv2": "CMedQAv2-reranking",
    "CMedQAv1": "CMedQAv1-reranking",
    "8TagsClustering": "EightTagsClustering",
    "PPC": "PpcPC",
}
_SUBSETS = {
    "MLSUMClusteringP2P": {"default": "fr"},
    "MLSUMClusteringS2S": {"default": "fr"},
    "XPQARetrieval": {"fr": "fra-fra"},
}
"""Subsets with another name in the old form, by task."""


def is_old(content: Mapping[str, Any]) -> bool:
    """Check whether a result has the form of mteb before 1.11."""
    return "scores" not in content and isinstance(content.get("mteb_dataset_name"), str)


def current_name(task: str) -> str:
    """Return the present name of a task."""
    return _RENAMED.get(task, task)


def modern(content: Mapping[str, Any], main_scores: Sequence[str]) -> dict[str, Any]:
    """Convert the content of an old result file.

    Args:
        content: A result for which `is_old` is true.
        main_scores: Possible names of the task's main score, for files that do not state it.

    Raises:
        ConfigError: If none of its scores has such a name.
    """
    task = current_name(content["mteb_dataset_name"])
    scores: dict[str, list[dict[str, Any]]] = {}
    for split, given in content.items():
        if split in _NO_SPLITS or not isinstance(given, dict):
            continue
        subsets = {key: value for key, value in given.items() if isinstance(value, dict) and key not in _METRICS}
        subsets.pop("v_measures", None)
        renamed = _SUBSETS.get(task, {})
        scores[split] = [
            {**_flat(entry, main_scores), "hf_subset": renamed.get(subset, subset)}
            for subset, entry in (subsets or {"default": given}).items()
        ]
    return {
        "task_name": task,
        "dataset_revision": content.get("dataset_revision"),
        "mteb_version": content.get("mteb_version"),
        "scores": scores,
    }


def _flat(entry: Mapping[str, Any], main_scores: Sequence[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        if key in _METRICS and isinstance(value, dict):
            flat |= {f"{_METRICS[key]}_{metric}": score for metric, score in value.items()}
        else:
            flat[key] = value
    if "main_score" not in flat:
        named = [name for name in main_scores if name in flat]
        if not named:
            known = ", ".join(main_scores) or "none is known of this task"
            raise ConfigError(f"has no main score ({known}) among {plain(', '.join(flat))}")
        flat["main_score"] = flat[named[0]]
    return flat
