"""A folder of results for submission."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODEL, REVISION = "sentence-transformers/all-MiniLM-L6-v2", "8b3219a92973c328a8e22fadcfa821b5dc75636a"
META = {"name": MODEL, "revision": REVISION, "experiment_kwargs": None}


def result(
    main: float = 0.82,
    task: str = "STSBenchmark",
    split: str = "test",
    subset: str = "default",
    languages: Sequence[str] = ("eng-Latn",),
) -> dict[str, Any]:
    entry = {"main_score": main, "hf_subset": subset, "languages": list(languages), "nauc": 0.1}
    described = {"task_name": task, "mteb_version": "2.26.24", "dataset_revision": "b0", "evaluation_time": 1.0}
    return {**described, "scores": {split: [entry]}}


def write(
    root: Path, found: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, name: str = "STSBenchmark"
) -> Path:
    folder = root / "results" / MODEL.replace("/", "__") / REVISION
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_meta.json").write_text(json.dumps(META if meta is None else meta))
    (folder / f"{name}.json").write_text(json.dumps(result() if found is None else found))
    return root
