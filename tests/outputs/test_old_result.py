"""Result files of mteb before 1.11 are read as mteb itself reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.compare.score_file import TaskFacts, read_score
from stella_mteb.errors import ConfigError
from stella_mteb.harness.registry import task_facts
from stella_mteb.outputs.old_result import current_name

NUMBERS = st.floats(0.01, 0.99).map(lambda number: round(number, 6))


def correlations(draw: Any) -> dict[str, Any]:
    return {
        "cos_sim": {"pearson": draw(NUMBERS), "spearman": draw(NUMBERS)},
        "euclidean": {"pearson": draw(NUMBERS), "spearman": draw(NUMBERS)},
        "evaluation_time": 7.91,
    }


def precisions(draw: Any) -> dict[str, Any]:
    own = {name: {"ap": draw(NUMBERS), "f1": draw(NUMBERS)} for name in ("cos_sim", "dot", "manhattan", "max")}
    return {**own, "evaluation_time": 3.2}


def flat(*names: str) -> Any:
    return lambda draw: {name: draw(NUMBERS) for name in names}


def by_subset(make: Any, *subsets: str) -> Any:
    return lambda draw: {**{subset: make(draw) for subset in subsets}, "evaluation_time": 1.5}


FORMS = {
    "STS12": correlations,
    "STS17": by_subset(correlations, "en-en", "ko-ko"),
    "STSBenchmark": correlations,
    "SummEval": correlations,
    "TwitterSemEval2015": precisions,
    "Banking77Classification": flat("accuracy", "accuracy_stderr", "f1", "f1_stderr", "evaluation_time"),
    "AmazonCounterfactualClassification": by_subset(flat("accuracy", "ap", "f1"), "en", "de"),
    "MTOPIntentClassification": by_subset(flat("accuracy", "f1", "main_score"), "en", "fr"),
    "BiorxivClusteringP2P": flat("v_measure", "v_measure_std", "evaluation_time"),
    "8TagsClustering": flat("v_measure", "v_measure_std"),
    "MLSUMClusteringP2P": flat("v_measure", "v_measure_std"),
    "NFCorpus": flat("ndcg_at_1", "ndcg_at_10", "map_at_10", "recall_at_100", "evaluation_time"),
    "XPQARetrieval": by_subset(flat("ndcg_at_10", "map_at_10"), "fr"),
    "PPC": precisions,
}


@pytest.mark.parametrize("task", FORMS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_main_scores_of_an_old_file_are_those_that_mteb_reads(
    tmp_path_factory: pytest.TempPathFactory, task: str, data: st.DataObject
) -> None:
    from mteb.results import TaskResult

    content = {
        "dataset_revision": "a" * 40,
        "mteb_dataset_name": task,
        "mteb_version": "1.1.2.dev0",
        "test": FORMS[task](data.draw),
    }
    path = tmp_path_factory.getbasetemp() / f"{task}.json"
    path.write_text(json.dumps(content))
    read_by_mteb = TaskResult.from_disk(path)

    score, _ = read_score(path, TaskFacts(*task_facts(current_name(task))))

    entries = read_by_mteb.scores["test"]
    assert score.task == read_by_mteb.task_name
    assert score.value == pytest.approx(sum(entry["main_score"] for entry in entries) / len(entries), abs=1e-12)
    assert score.subsets == tuple(sorted(entry["hf_subset"] for entry in entries))
    assert (score.dataset_revision, score.mteb_version) == ("a" * 40, "1.1.2.dev0")
    # Without mteb the name of the main score is known by the task's type.
    assert read_score(path, TaskFacts(task_facts(current_name(task))[0]))[0].value == score.value


def test_map_is_the_main_score_of_an_old_reranking(tmp_path: Path) -> None:
    """mteb asks for map_at_1000, which old files do not have, and reads no score."""
    path = tmp_path / "AskUbuntuDupQuestions.json"
    path.write_text(json.dumps({"mteb_dataset_name": path.stem, "test": {"map": 0.6, "mrr": 0.7}}))

    assert read_score(path, TaskFacts(*task_facts(path.stem)))[0].value == 0.6


@pytest.mark.fault(48, "the gap is shown with its reason")
def test_the_error_for_an_old_file_of_an_unknown_task_names_its_scores(tmp_path: Path) -> None:
    path = tmp_path / "MyTask.json"
    path.write_text(json.dumps({"mteb_dataset_name": "MyTask", "test": {"accuracy": 0.6, "f1": 0.7}}))

    with pytest.raises(ConfigError, match=r"has no main score \(none is known of this task\) among accuracy, f1"):
        read_score(path, TaskFacts())
