"""Any sentence-transformers folder gives the vectors of sentence-transformers and the scores of MTEB's own wrapper.

The folders are random (`benchmarks/layouts/anything.py`). What is not supported is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.layouts.anything import Recipe, write_any
from stella_mteb.errors import StellaMtebError
from stella_mteb.models.resolve import ResolvedModel, resolve
from stella_mteb.prompts.profiles import Side, TaskInfo, choose

FEW, MANY = range(12), range(12, 212)
TEXTS = [
    "a man opens the door",
    "A Man opens THE door .",
    "the woman runs to house and dog with red boat leaves at dawn , child sleeps camera pans query passage task" * 3,
    "dog",
    "W1 W2 unknownword",
    "",
]


def load(folder: Path, recipe: Recipe) -> ResolvedModel | None:
    """Return the model, or None if it is refused for the correct reason."""
    try:
        model = resolve(str(folder))
        model.load("cpu")
    except StellaMtebError as error:
        assert recipe.refused, f"refused without reason: {error}; {recipe}"
        assert recipe.refused in str(error), f"refused for another reason: {error}; {recipe}"
        return None
    assert not recipe.refused, recipe
    return model


def reference(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})


def require_same_vectors(folder: Path, seed: int) -> bool:
    """Compare all texts with the prompts of both sides and of none; return whether the folder is supported."""
    recipe = write_any(folder, seed)
    model = load(folder, recipe)
    if model is None:
        return False
    theirs, ours = reference(folder), model.load("cpu")
    # Where nothing but an unpooled prompt is there, sentence-transformers gives -inf for max and the prompt for cls.
    texts = TEXTS if recipe.choices["frame"].endswith("</s>") else TEXTS[:-1]
    sides: list[tuple[Side, Any]] = [
        (None, theirs.encode),
        ("query", theirs.encode_query),
        ("document", theirs.encode_document),
    ]
    for side, encode in sides:
        expected = encode(texts, show_progress_bar=False)
        prompt = choose(model.prompts, model.config.prompts, TaskInfo("AnyTask", "AnyType"), side).text
        vectors = ours.encode(texts, prompt)
        np.testing.assert_allclose(
            vectors, expected, atol=2e-5 * max(1.0, float(np.abs(expected).max())), err_msg=f"{side}: {recipe}"
        )
    return True


def tasks() -> list[Any]:
    """Small data under the names of MTEB's tasks, so that prompts can name them."""
    import mteb
    from datasets import Dataset, DatasetDict

    sts, retrieval, classification = (mteb.get_task(n) for n in ("STSBenchmark", "SciFact", "Banking77Classification"))
    words = f"{TEXTS[0]} {TEXTS[2]}".split()
    texts = [" ".join(words[i : i + 3 + i % 4]) for i in range(14)]
    sts.dataset = DatasetDict(
        test=Dataset.from_dict(
            {"sentence1": texts, "sentence2": texts[3:] + texts[:3], "score": [i * 7 % 5 for i in range(14)]}
        )
    )
    retrieval.dataset = {
        "default": {
            "test": {
                "corpus": Dataset.from_dict({"id": list(map(str, range(14))), "title": [""] * 14, "text": texts}),
                "queries": Dataset.from_dict(
                    {"id": list("abcdefg"), "text": [" ".join(text.split()[::-1]) for text in texts[:7]]}
                ),
                "relevant_docs": {name: {str(i * 2): 1} for i, name in enumerate("abcdefg")},
                "top_ranked": None,
            }
        }
    }
    classification.dataset = DatasetDict(
        {name: Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(14)]}) for name in ("train", "test")}
    )
    for task in (sts, retrieval, classification):
        task.data_loaded = True
    return [sts, retrieval, classification]


def require_same_scores(folder: Path, seed: int) -> bool:
    """Compare all scores of three tasks; return whether the folder is supported.

    Every vector that MTEB asks for is compared. The scores are then made of the same ones, because those of random
    models hang on the last digits.
    """
    import mteb
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    from stella_mteb.harness.adapter import Encoder

    recipe = write_any(folder, seed)
    model = load(folder, recipe)
    if model is None:
        return False
    given: list[Any] = []

    class Theirs(SentenceTransformerEncoderWrapper):
        def encode(self, *args: Any, **kwargs: Any) -> Any:
            given.append(super().encode(*args, **kwargs))
            return given[-1]

    class Ours(Encoder):
        def encode(self, *args: Any, **kwargs: Any) -> Any:
            vectors, expected = super().encode(*args, **kwargs), given.pop(0)
            scale = max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(vectors, expected, atol=2e-5 * scale, err_msg=str(recipe))
            return expected

    encoders = Theirs(reference(folder)), Ours(model, "cpu")
    for theirs, ours in zip(tasks(), tasks(), strict=True):
        if ours.metadata.type == "STS" and model.similarity in {"euclidean", "manhattan"}:
            continue  # MTEB has no pairwise form of these and fails
        expected, found = (
            mteb.evaluate(encoder, task, cache=None, show_progress_bar=False, raise_error=True)
            .task_results[0]
            .scores["test"][0]
            for encoder, task in zip(encoders, (theirs, ours), strict=True)
        )
        figures = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert not given
        assert len(figures) > 5
        assert {name: found[name] for name in figures} == pytest.approx(figures, abs=1e-6, nan_ok=True), recipe
    return True


@pytest.mark.parametrize("seed", FEW)
def test_a_random_folder_has_the_vectors_of_sentence_transformers(tmp_path: Path, seed: int) -> None:
    require_same_vectors(tmp_path / "model", seed)


@pytest.mark.parametrize("seed", FEW[:3])
def test_a_random_folder_has_the_scores_of_mtebs_own_wrapper(tmp_path: Path, seed: int) -> None:
    assert require_same_scores(tmp_path / "model", seed)


@pytest.mark.slow
def test_200_random_folders_have_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    supported = sum(require_same_vectors(tmp_path / "model", seed) for seed in MANY)

    assert 150 < supported < 200


@pytest.mark.slow
def test_200_random_folders_have_the_scores_of_mtebs_own_wrapper(tmp_path: Path) -> None:
    supported = sum(require_same_scores(tmp_path / "model", seed) for seed in MANY)

    assert 150 < supported < 200
