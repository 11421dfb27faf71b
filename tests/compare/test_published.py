"""The published scores are those of the model cards, and fit what MTEB scores."""

from __future__ import annotations

import csv
from collections import Counter
from statistics import mean

import pytest

from stella_mteb.compare.published import published
from tests.conftest import SHARED, needs_shared
from tests.support.result_folders import (
    BGE,
    STELLA,
)


def test_published_means_equal_those_of_the_model_cards() -> None:
    means = {
        system.model: mean(score.value for score in scores.values()) for system, scores in published().scores.items()
    }

    assert {model: round(100 * value, 2) for model, value in means.items()} == {STELLA: 71.20, BGE: 71.68}


def test_published_means_by_type_equal_those_of_the_model_cards() -> None:
    table = {
        "Classification": (12, 87.63, 88.95),
        "Clustering": (11, 57.69, 57.89),
        "PairClassification": (3, 88.18, 88.16),
        "Reranking": (4, 61.21, 59.85),
        "Retrieval": (15, 61.01, 62.16),
        "STS": (10, 84.51, 84.25),
        "Summarization": (1, 31.49, 30.77),
    }
    for place, scores in enumerate(published().scores.values()):
        assert Counter(score.type for score in scores.values()) == {kind: row[0] for kind, row in table.items()}
        for kind, row in table.items():
            values = [score.value for score in scores.values() if score.type == kind]
            assert 100 * mean(values) == pytest.approx(row[1 + place], abs=0.00501)  # 62.165 is printed as 62.16


def test_published_scores_are_marked_as_self_reported_with_their_omissions() -> None:
    found = published()

    assert [system.label for system in found.scores] == [
        f"{STELLA} (self-reported)",
        f"{BGE} (self-reported)",
    ]
    stella, bge = found.notes_on(found.scores)
    assert "which head, prompts, dtype and mteb version" in stella
    assert "few-shot" in bge
    for system, scores in found.scores.items():
        assert (system.revision, system.dimension, system.settings) == (None, None, {})
        assert all(score.source and score.mteb_version is None for score in scores.values())


def test_published_splits_and_subsets_are_what_mteb_scores_in_that_benchmark() -> None:
    import mteb

    tasks = {task.metadata.name: task for task in mteb.get_benchmark("MTEB(eng, v1)").tasks}

    for scores in published().scores.values():
        assert scores.keys() == tasks.keys()
        for name, score in scores.items():
            metadata = tasks[name].metadata
            assert (score.type, [score.split]) == (metadata.type, list(tasks[name].eval_splits))
            assert list(score.subsets) == list(tasks[name].hf_subsets)
            assert set(score.languages) == {
                language for subset in score.subsets for language in metadata.hf_subsets_to_langscripts[subset]
            }


@needs_shared
def test_published_scores_equal_the_collected_ones() -> None:
    with (SHARED / "published_mteb_eng_v1.csv").open() as file:
        lines = list(csv.DictReader(file))
    scores = {system.model: of_model for system, of_model in published().scores.items()}

    for line in lines:
        stella, bge = scores[STELLA][line["task"]], scores[BGE][line["task"]]
        assert (stella.value, bge.value) == (float(line["stella"]), float(line["bge_icl"]))
        assert f"stella: {stella.source}; bge_icl: {bge.source}" == line["source"]
