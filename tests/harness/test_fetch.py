"""Required files of models and tasks, and whether they are in the cache. No test accesses the hub."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import Call
from tests.support.runs import find, write_task


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of data sets."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def needed(specs: list[str], tasks: list[Any]) -> list[Any]:
    from stella_mteb.harness.fetch import items
    from stella_mteb.models.spec import Spec

    return list(items(list(map(Spec.parse, specs)), tasks))


def test_a_benchmark_needs_the_data_of_its_tasks_at_their_commits() -> None:
    import mteb

    benchmark = mteb.get_benchmark("MTEB(eng, v2)")

    found = needed([], benchmark.tasks)

    assert {(item.name, item.revision) for item in found} == {
        (task.metadata.dataset["path"], task.metadata.dataset["revision"]) for task in benchmark.tasks
    }
    assert len(found) == 41


def test_weights_and_examples_are_needed_and_local_data_is_not(tmp_path: Path) -> None:
    found = needed(["bge_en_icl", "all_minilm_l6_v2"], [find("STS12"), find(write_task(tmp_path))])

    assert [(item.kind, item.name) for item in found] == [
        ("model", "BAAI/bge-en-icl"), ("model", "sentence-transformers/all-MiniLM-L6-v2"),
        ("data", "mteb/sts12-sts"), ("examples", "STS12"),
    ]  # fmt: skip
    assert [item.is_here() for item in found] == [False, True, False, False]


def test_weights_of_a_model_in_mtebs_registry_are_needed_at_the_commit_that_a_run_takes() -> None:
    import mteb

    (item,) = needed(["intfloat/e5-small-v2"], [])

    assert item.revision == mteb.get_model_meta("intfloat/e5-small-v2").revision
    assert len(item.revision) == 40


def test_data_that_datasets_has_prepared_is_here(empty: Path, tmp_path: Path) -> None:
    import datasets

    (item,) = needed([], [find("STS12")])
    assert not item.is_here()

    (tmp_path / "rows.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 1.0}\n')
    datasets.load_dataset("json", data_files={"test": str(tmp_path / "rows.jsonl")}, cache_dir=str(tmp_path / "made"))
    (made,) = (path.parent for path in (tmp_path / "made").rglob("dataset_info.json"))
    place = empty / "mteb___sts12-sts" / "default" / "0.0.0" / str(item.revision)
    place.parent.mkdir(parents=True)
    (made / "json-test.arrow").rename(made / "sts12-sts-test.arrow")
    made.rename(place)

    assert item.is_here()


@pytest.mark.parametrize(
    ("task", "configurations"),
    [
        ("MassiveIntentClassification", [None]),  # its languages stand in one
        ("MTOPDomainClassification", ["en"]),
        ("AskUbuntuDupQuestions", ["corpus", "queries", "top_ranked"]),
    ],
)
def test_the_configurations_that_mteb_loads_are_looked_for(
    task: str, configurations: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import mteb

    asked: list[str | None] = []
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda _, name, **__: asked.append(name))

    (item,) = needed([], [mteb.get_task(task, languages=["eng"])])

    assert item.is_here()
    assert asked == configurations


def test_a_reranking_without_cached_candidates_fails_and_does_not_rank_the_corpus(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from mteb.abstasks import retrieval_dataset_loaders as loaders

    from stella_mteb.harness.offline_data import cached_configurations

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    task = find("AskUbuntuDupQuestions")
    source = task.metadata.dataset["path"], task.metadata.dataset["revision"]
    place = empty / "mteb___ask_ubuntu_dup_questions" / "corpus" / "0.0.0" / source[1]
    place.mkdir(parents=True)
    (place / "dataset_info.json").write_text("{}")

    with cached_configurations(task), pytest.raises(ConnectionError, match="no configuration top_ranked"):
        loaders.get_dataset_config_names(*source)
    place.parents[1].rename(place.parents[2] / "top_ranked")
    with cached_configurations(task):
        assert "top_ranked" in loaders.get_dataset_config_names(*source)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("GatedRepoError", "gated: accept"),
        ("RepositoryNotFoundError", "missing:"),
        ("RevisionNotFoundError", "changed:"),
    ],
)
def test_refusals_of_the_hub_are_distinguished(name: str, said: str) -> None:
    import huggingface_hub.errors

    from stella_mteb.errors import EnvironmentProblem
    from stella_mteb.harness.fetch import fault

    answer = SimpleNamespace(headers={}, request=None)
    try:
        try:
            raise getattr(huggingface_hub.errors, name)("no", response=answer)
        except OSError as error:
            raise EnvironmentProblem("could not be fetched") from error
    except EnvironmentProblem as error:
        assert fault(error).startswith(said)
    assert fault(ValueError("odd")) == "ValueError: odd"


def test_fetch_lists_sizes_downloads_what_is_missing_and_continues_after_a_fault(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.harness import fetch

    here = {"one"}

    def item(name: str) -> Any:
        def get() -> None:
            if name == "bad":
                raise ConnectionError("cut")
            here.add(name)

        return SimpleNamespace(kind="data", name=name, revision="a" * 40, get=get, is_here=lambda: name in here)

    monkeypatch.setattr(fetch, "items", lambda *_: map(item, ["one", "bad", "two"]))
    monkeypatch.setattr(fetch, "size", lambda _: 1_500_000)

    code, out, err = call("fetch", "-t", "STS12", "--format", "csv")
    again, _, said = call("fetch", "-t", "STS12")

    assert code == 1
    assert out.splitlines()[1:] == [
        "data,one,aaaaaaaa,here", "data,bad,aaaaaaaa,ConnectionError: cut", "data,two,aaaaaaaa,fetched",
    ]  # fmt: skip
    assert "1 of 3 are here\nto fetch: 2 of up to 3MB\n1 of 2: data bad (1.5MB) ..." in err
    assert again == 1
    assert "2 of 3 are here" in said


def test_an_offline_run_tells_first_what_will_fail_and_once_how_to_fetch_it(
    call: Call, tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    own = write_task(tmp_path)

    code, _, err = call(
        "run", "-m", "all_minilm_l6_v2", "-t", "STS12", "-t", "STS13", "-t", own, "--output", tmp_path / "out"
    )

    assert code == 1
    first = err.index("2 of 3 tasks will fail, because their data is missing: STS12, STS13")
    assert first < err.index("failed: all_minilm_l6_v2 on STS12")
    assert "done: all_minilm_l6_v2 on OwnSTS" in err
    assert err.count(f"stella-mteb fetch -m all_minilm_l6_v2 -t STS12 -t STS13 -t {own}") == 1


def test_doctor_lists_the_data_of_a_benchmark(call: Call, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    code, out, err = call("doctor", "--offline", "-b", "MTEB(eng, v2)", "--format", "csv")

    assert code == 0
    revision = find("STS12").metadata.dataset["revision"]
    assert f"STS12,mteb/sts12-sts,{revision[:8]},lacking" in out
    assert "0 of 41 data sets are here" in err
    assert "stella-mteb fetch -b 'MTEB(eng, v2)'" in err
