"""Result files in the layout and with the figures of MTEB's public results and of our own runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stella_mteb.compare.records import Score, System
from stella_mteb.compare.sources import Found

STELLA, BGE, MINILM = (
    "NovaSearch/stella_en_1.5B_v5",
    "BAAI/bge-en-icl",
    "sentence-transformers/all-MiniLM-L6-v2",
)
RERUN = "d03be74b361d4eb24f42a2fe5bd2e29917df4604"
PINNED = {STELLA: RERUN, MINILM: "8b3219a92973c328a8e22fadcfa821b5dc75636a"}
OURS: dict[str, dict[str, Any]] = {
    STELLA: {
        "dtype": "bfloat16",
        "embed_dim": 1024,
        "loading": "bidirectional+eos151643",
        "max_length": 512,
        "pipeline": "2",
        "prompts": "card",
    },
    MINILM: {"dtype": "float32", "embed_dim": 384, "max_length": 256, "pipeline": "2", "prompts": "none"},
}
"""The settings of a run with the defaults of the bundled config."""


def entry(score: float | None, subset: str = "default", language: str = "eng-Latn", **more: Any) -> dict[str, Any]:
    return {"main_score": score, "hf_subset": subset, "languages": [language], **more}


def result(folder: Path, task: str, scores: dict[str, list[dict[str, Any]]] | float, **more: Any) -> Path:
    """Write a result file as MTEB does."""
    by_split = {"test": [entry(scores)]} if isinstance(scores, float) else scores
    content = {"dataset_revision": "abc", "task_name": task, "mteb_version": "1.18.0", "scores": by_split}
    content |= {"evaluation_time": 13.2, "kg_co2_emissions": None, **more}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def of_others(root: Path, model: str = STELLA, revision: str = RERUN, **meta: Any) -> Path:
    folder = root / "results" / model.replace("/", "__") / revision
    folder.mkdir(parents=True, exist_ok=True)
    described = {"name": model, "revision": revision, "embed_dim": 8960, "loader": "instruct_wrapper", **meta}
    (folder / "model_meta.json").write_text(json.dumps(described))
    return folder


def our_run(root: Path, model: str = MINILM, revision: str | None = None, **changed: Any) -> Path:
    """Return the folder of a run of this plug-in with non-default settings."""
    kwargs = {key: value for key, value in {**OURS.get(model, OURS[MINILM]), **changed}.items() if value is not None}
    experiment = "__".join(f"{key}_{value}" for key, value in sorted(kwargs.items()))
    revision = revision or PINNED.get(model, "local-0123456789ab")
    folder = root / "results" / model.replace("/", "__") / revision / "experiments" / experiment
    folder.mkdir(parents=True, exist_ok=True)
    described = {"name": model, "revision": revision, "embed_dim": 384, "experiment_kwargs": kwargs}
    (folder / "model_meta.json").write_text(json.dumps(described))
    return folder


def one(found: Found) -> tuple[System, dict[str, Score]]:
    ((system, scores),) = found.scores.items()
    return system, dict(scores)


def labelled(found: Found) -> dict[str, dict[str, float]]:
    return {
        system.label: {task: score.value for task, score in scores.items()} for system, scores in found.scores.items()
    }


def rerun_and_card(root: Path) -> None:
    """Stella as in MTEB's public results: the authors' figures, and a rerun with other settings."""
    rerun = of_others(root)
    result(rerun, "ArguAna", 0.5706)
    result(rerun, "STS12", 0.78558)
    card = of_others(root, revision="external", embed_dim=8192)
    result(card, "BIOSSES", 0.83107, mteb_version=None)
