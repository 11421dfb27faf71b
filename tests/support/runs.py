"""Small runs: tasks, models and results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import RATED_PAIRS

PAIRS = Path(__file__).parents[2] / "tasks/video-summary-sts/pairs.jsonl"
S2S = "Instruct: Retrieve semantically similar text.\nQuery: "


def write_task(folder: Path, rows: Sequence[Any] = RATED_PAIRS, name: str = "OwnSTS", more: str = "") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("left", "right", "rating")
    lines = [row if isinstance(row, str) else json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\ntype: STS\ndata: {name}.jsonl\n"
        f"columns: {{sentence1: left, sentence2: right, score: rating}}\n{more}"
    )
    return str(path)


def write_some_summaries(path: Path, clips: int = 3) -> list[dict[str, Any]]:
    """The first clips of the bundled VideoSummarySTS with five candidates each, and shortened texts."""
    rows = [json.loads(line) for line in PAIRS.read_text().splitlines()[: 5 * clips]]
    rows = [{**row, "reference": row["reference"][:80], "candidate": row["candidate"][:80]} for row in rows]
    path.write_text("\n".join(map(json.dumps, rows)))
    return rows


def find(*names: str, **kwargs: Any) -> Any:
    """Return the only task of that name."""
    from stella_mteb.harness.find_tasks import find_tasks

    (task,) = find_tasks(names, **kwargs)
    return task


def encoder(spec: str) -> Any:
    from stella_mteb.harness.adapter import Encoder
    from stella_mteb.models.resolve import resolve

    return Encoder(resolve(spec), "cpu")


def run_task(model: Any, task: Any, output: Path) -> Any:
    from stella_mteb.harness.run import run_task

    return run_task(model, task, output)


def cosines(text_encoder: Any, first: list[str], second: list[str], prompt: str = "") -> list[float]:
    vectors = text_encoder.encode([prompt + text for text in (*first, *second)]).astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [float(np.dot(a, b)) for a, b in zip(vectors[: len(first)], vectors[len(first) :], strict=True)]


# -------------------------------------------------------------------------------- several dimensions of one model


def members(spec: str, dimensions: Sequence[int], cache: Path | None) -> list[Any]:
    from stella_mteb.harness.adapter import family
    from stella_mteb.models.resolve import resolve

    return family(resolve(spec), dimensions, device="cpu", cache=cache)


def run_all(families: Any, tasks: Sequence[Any], output: Path, **kwargs: Any) -> list[Any]:
    from stella_mteb.harness.run import run

    return run(families, tasks, output, kwargs.pop("on_outcome", lambda _: None), **kwargs)
