"""Results of a small task, and the plain MTEB encoder that gives them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from stella_mteb.harness.task_classes import task_class
from stella_mteb.harness.task_yaml import load_task_file
from tests.conftest import RATED_PAIRS


def letters(text: str) -> list[float]:
    counts = [text.count(chr(ord("a") + i)) for i in range(26)]
    return [count / math.hypot(*counts) for count in counts]


def task(folder: Path, name: str = "TinySTS", rows: list[tuple[str, str, float]] = RATED_PAIRS) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.csv").write_text("left,right,rating\n" + "".join(f"{a},{b},{s}\n" for a, b, s in rows))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\ntype: STS\ndata: pairs.csv\ncolumns: {{sentence1: left, sentence2: right, score: rating}}\n"
    )
    return task_class(load_task_file(path))()


def encoder_of(vector: Any) -> Any:
    """A handmade MTEB encoder: `vector` maps a text to its vector, `calls` counts."""
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder

    class ByHand(AbsEncoder):
        mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "hand/letters", "revision": "r1"})
        calls = 0

        def encode(self, inputs: Any, **_: Any) -> Any:
            self.calls += 1
            return np.array([vector(text) for batch in inputs for text in batch["text"]], dtype=np.float32)

    return ByHand()


def run(encoder: Any, one: Any, cache: Any = None, **kwargs: Any) -> Any:
    import mteb

    outcome = mteb.evaluate(encoder, one, cache=cache, show_progress_bar=False, co2_tracker=False, **kwargs)
    return outcome.task_results[0]


def own_cache(folder: Path, notes: Any = None) -> Any:
    from stella_mteb.harness.result_cache import AtomicResultCache

    return AtomicResultCache(folder, notes=notes)


def with_score(result: Any, score: float) -> Any:
    changed = result.model_copy(deep=True)
    changed.scores["test"][0]["main_score"] = score
    return changed


def files(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder by relative path, without locks."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in paths.items() if name.parts[:2] != (".stella-mteb", "locks")}
