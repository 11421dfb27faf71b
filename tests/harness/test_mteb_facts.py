"""The bundled table of tasks, benchmarks and models equals that of the installed MTEB."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from stella_mteb.harness import mteb_facts
from stella_mteb.harness.mteb_facts import SHIPPED, load_facts
from stella_mteb.harness.registry import NEWEST_TESTED


@pytest.fixture(scope="module")
def facts() -> Any:
    return json.loads(SHIPPED.read_text())


def test_the_shipped_table_is_what_the_installed_mteb_says(facts: Any) -> None:
    if importlib.metadata.version("mteb") != NEWEST_TESTED:
        pytest.skip(f"the table is of mteb {NEWEST_TESTED}")

    # In a process of its own: other tests register tasks and models of ours.
    code = "import json; from stella_mteb.harness.mteb_facts import make_facts; print(json.dumps(make_facts()))"
    made = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

    for part in ("tasks", "benchmarks", "models", "training_sets"):
        assert facts[part] == made[part], "python -m stella_mteb.harness.mteb_facts"
    assert facts["mteb"] == NEWEST_TESTED


def test_benchmarks_have_the_tasks_splits_and_subsets_of_mteb(facts: Any) -> None:
    import mteb

    for name in ("MTEB(eng, v1)", "MTEB(eng, v2)", "MTEB(Multilingual, v2)", "MTEB(Europe, v1)"):
        tasks = facts["benchmarks"][name]["tasks"]
        assert list(tasks) == [task.metadata.name for task in mteb.get_benchmark(name).tasks]
        for task in mteb.get_benchmark(name).tasks:
            scope, known = tasks[task.metadata.name], facts["tasks"][task.metadata.name]
            assert set(scope.get("splits", known["splits"])) == set(task.eval_splits)
            assert scope.get("subsets", []) in ([], sorted(task.hf_subsets))
            assert task.is_aggregate or len(scope.get("subsets", [])) or known["subsets"] == len(task.hf_subsets)


def test_tasks_on_the_same_texts_are_a_family(facts: Any) -> None:
    families = defaultdict(set)
    for task in {**facts["benchmarks"]["MTEB(eng, v1)"]["tasks"], **facts["benchmarks"]["MTEB(eng, v2)"]["tasks"]}:
        families[facts["tasks"][task]["family"]].add(task)

    assert sorted(sorted(family) for family in families.values() if len(family) > 2) == [
        [
            "ArXivHierarchicalClusteringP2P",
            "ArXivHierarchicalClusteringS2S",
            "ArxivClusteringP2P",
            "ArxivClusteringS2S",
        ],
        ["BiorxivClusteringP2P", "BiorxivClusteringP2P.v2", "BiorxivClusteringS2S"],
        ["MedrxivClusteringP2P", "MedrxivClusteringP2P.v2", "MedrxivClusteringS2S", "MedrxivClusteringS2S.v2"],
        [
            "StackExchangeClustering",
            "StackExchangeClustering.v2",
            "StackExchangeClusteringP2P",
            "StackExchangeClusteringP2P.v2",
        ],
    ]
    pairs = {frozenset(family) for family in families.values() if len(family) == 2}
    assert {
        frozenset(("MassiveIntentClassification", "MassiveScenarioClassification")),
        frozenset(("MTOPDomainClassification", "MTOPIntentClassification")),
        frozenset(("CQADupstackGamingRetrieval", "CQADupstackUnixRetrieval")),
        frozenset(("SCIDOCS", "SciDocsRR")),
        frozenset(("FEVER", "FEVERHardNegatives")),
    } <= pairs
    assert facts["tasks"]["STS12"]["family"] != facts["tasks"]["STS13"]["family"]


def test_the_table_is_read_without_mteb() -> None:
    code = (
        "import sys; from stella_mteb.harness.mteb_facts import load_facts; load_facts(); "
        "print([name for name in ('mteb', 'torch') if name in sys.modules])"
    )
    if importlib.metadata.version("mteb") != NEWEST_TESTED:
        pytest.skip(f"the table is of mteb {NEWEST_TESTED}")

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_table_of_another_mteb_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setenv("STELLA_MTEB_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda _: "99.0")
    empty: dict[str, Any] = {"mteb": "99.0", "tasks": {}, "benchmarks": {}, "models": {}, "training_sets": []}
    monkeypatch.setattr(mteb_facts, "make_facts", lambda: made.append(1) or empty)

    assert load_facts() == load_facts() == empty
    assert made == [1]
