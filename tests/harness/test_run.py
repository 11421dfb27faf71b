from __future__ import annotations

import errno
import gc
import json
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from stella_mteb.errors import ConfigError, EnvironmentProblem, StorageProblem
from stella_mteb.harness.task_classes import per_label
from tests.conftest import RATED_PAIRS, SHARED, needs_shared
from tests.support.runs import (
    PAIRS,
    S2S,
    cosines,
    encoder,
    find,
    members,
    run_all,
    run_task,
    write_some_summaries,
    write_task,
)

OURS = {"VideoSummarySTS", "VideoSummaryRetrieval", "VideoSummaryFaithfulness"}


@pytest.fixture(scope="module")
def tiny(stella_folder: Path) -> Any:
    return encoder(f"{stella_folder}@256")


@pytest.fixture
def no_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a model is loaded."""
    from stella_mteb.models.resolve import ResolvedModel

    def load(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(ResolvedModel, "load", load)


def spearman_of(model: Any, rows: Sequence[tuple[str, str, float]]) -> float:
    left, right, gold = (list(column) for column in zip(*rows, strict=True))
    return float(spearmanr(cosines(model.text_encoder, left, right, S2S), gold).statistic)


def result_files(output: Path) -> list[Path]:
    return sorted(path for path in (output / "results").rglob("*.json") if path.name != "model_meta.json")


# ------------------------------------------------------------------------------------------------------ run_task


def test_the_score_is_the_rank_correlation_of_the_cosines(tiny: Any, tmp_path: Path) -> None:
    outcome = run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")

    assert (outcome.status, outcome.model, outcome.task) == ("done", str(tiny.resolved.spec), "OwnSTS")
    assert outcome.score == pytest.approx(spearman_of(tiny, RATED_PAIRS), abs=1e-9)
    (path,) = result_files(tmp_path / "out")
    assert json.loads(path.read_text())["scores"]["test"][0]["main_score"] == pytest.approx(outcome.score, abs=1e-6)


def test_the_second_call_loads_no_model_and_gives_the_same(
    stella_folder: Path, tiny: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rows = write_some_summaries(tmp_path / "own.jsonl")
    name = f"VideoSummarySTS={tmp_path}/own.jsonl"
    first = run_task(tiny, find(name), tmp_path / "out")
    request.getfixturevalue("no_forward")
    fresh = encoder(f"{stella_folder}@256")

    second = run_task(fresh, find(name), tmp_path / "out")

    assert (first.status, second.status) == ("done", "kept")
    assert fresh.calls == 0
    assert second.score == pytest.approx(first.score, abs=1e-6)
    assert [row["label"] for row in second.per_label] == [row["label"] for row in first.per_label]
    assert {row["label"] for row in second.per_label} == {row["fault"] for row in rows}


def test_a_result_of_plain_mteb_is_kept(tiny: Any, tmp_path: Path) -> None:
    import mteb

    task = find(write_task(tmp_path))
    mteb.evaluate(tiny, task, cache=mteb.ResultCache(tmp_path / "out"), show_progress_bar=False)

    outcome = run_task(tiny, task, tmp_path / "out")

    assert outcome.status == "kept"
    assert outcome.score == pytest.approx(spearman_of(tiny, RATED_PAIRS), abs=1e-6)


def test_changed_data_is_computed_anew(tiny: Any, tmp_path: Path) -> None:
    changed = [*RATED_PAIRS[:2], ("two cooks argue", "two cooks argue about salt", 0.0), *RATED_PAIRS[3:]]
    first = run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")
    (path,) = result_files(tmp_path / "out")
    revision = json.loads(path.read_text())["dataset_revision"]

    second = run_task(tiny, find(write_task(tmp_path, changed)), tmp_path / "out")

    assert second.status == "done"
    assert second.score == pytest.approx(spearman_of(tiny, changed), abs=1e-9)
    assert second.score != first.score
    assert result_files(tmp_path / "out") == [path]
    assert json.loads(path.read_text())["dataset_revision"] != revision


@pytest.mark.fault(4, "set aside, and the task runs again")
def test_a_damaged_result_is_computed_anew(tiny: Any, tmp_path: Path) -> None:
    first = run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")
    (path,) = result_files(tmp_path / "out")
    path.write_text(path.read_text()[:100])

    second = run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")

    assert (second.status, second.score) == ("done", first.score)


def test_another_dimension_has_a_result_of_its_own_beside_the_first(
    stella_folder: Path, tiny: Any, tmp_path: Path
) -> None:
    other = encoder(f"{stella_folder}@1024")
    small = run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")
    large = run_task(other, find(write_task(tmp_path)), tmp_path / "out")

    paths = result_files(tmp_path / "out")
    on_disk = [json.loads(path.read_text())["scores"]["test"][0]["main_score"] for path in paths]
    assert (small.status, large.status) == ("done", "done")
    assert large.score == pytest.approx(spearman_of(other, RATED_PAIRS), abs=1e-9)
    assert sorted(on_disk) == pytest.approx(sorted([small.score, large.score]), abs=1e-6)
    assert sorted(["embed_dim_256" in str(path) for path in paths]) == [False, True]


def test_the_prompts_of_a_run_are_recorded_in_its_settings(tiny: Any, tmp_path: Path) -> None:
    run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")

    (path,) = (tmp_path / "out").rglob("run_settings.jsonl")
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["task"], line["prompts"]["both"]["text"]) == ("OwnSTS", S2S)


def test_labels_are_scored_on_the_cosines_of_the_run(tiny: Any, tmp_path: Path) -> None:
    rows = write_some_summaries(tmp_path / "own.jsonl")
    texts = ([row[side] for row in rows] for side in ("reference", "candidate"))
    own = np.asarray(cosines(tiny.text_encoder, *texts, S2S))
    # Of two cosines that all but tie, each build of torch puts another first.
    by_cosine = np.argsort(own)
    kept = sorted(by_cosine[np.diff(own[by_cosine], prepend=-2) > 1e-6])
    rows, own = [rows[i] for i in kept], own[kept]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {key: [row[key] for row in rows] for key in ("reference", "candidate", "score", "fault")}

    outcome = run_task(tiny, find(f"VideoSummarySTS={tmp_path}/own.jsonl"), tmp_path / "out")

    expected = per_label(columns["fault"], columns["reference"], columns["score"], own)
    assert outcome.score == pytest.approx(spearmanr(own, columns["score"]).statistic, abs=1e-9)
    assert [row["label"] for row in outcome.per_label] == [row["label"] for row in expected]
    for found, wanted in zip(outcome.per_label, expected, strict=True):
        assert dict(found) == pytest.approx(wanted, abs=1e-5)
    for row in outcome.per_label:
        cosine = [c for c, fault in zip(own, columns["fault"], strict=True) if fault == row["label"]]
        assert row["cosine_mean"] == pytest.approx(np.mean(cosine), abs=1e-5)


@pytest.mark.parametrize("many", ["yaml", "option"])
def test_bad_rows_that_are_allowed_are_left_out_and_counted(tiny: Any, tmp_path: Path, many: str) -> None:
    rows = [*RATED_PAIRS, ("", "", 99.0), "{"]  # the first has three faults and is one row
    path = write_task(tmp_path, rows, more="max_bad_rows: 2\n" if many == "yaml" else "")
    task = find(path, max_bad_rows=None if many == "yaml" else 2)

    outcome = run_task(tiny, task, tmp_path / "out")

    assert outcome.bad_rows == 2
    assert outcome.score == pytest.approx(spearman_of(tiny, RATED_PAIRS), abs=1e-9)


def test_the_option_for_bad_rows_overrides_the_yaml(tmp_path: Path) -> None:
    path = write_task(tmp_path, [*RATED_PAIRS, "{"], more="max_bad_rows: 5\n")

    with pytest.raises(ConfigError, match=r"1 bad row \(0 allowed\)"):
        find(path, max_bad_rows=0)


# ---------------------------------------------------------------------------------------------------- find_tasks


def test_a_bundled_task_is_found_with_all_its_rows() -> None:
    task = find("VideoSummarySTS")

    rows = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    assert task.metadata.name == "VideoSummarySTS"
    assert task.stella_mteb_file.pairs.second == [row["candidate"] for row in rows]


def test_name_equals_path_gives_own_data_to_a_bundled_task(tmp_path: Path) -> None:
    rows = write_some_summaries(tmp_path / "own=data.jsonl")

    task = find(f"VideoSummarySTS={tmp_path}/own=data.jsonl")

    assert task.metadata.name == "VideoSummarySTS"
    assert task.stella_mteb_file.pairs.second == [row["candidate"] for row in rows]


def test_name_equals_path_without_such_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"-t VideoSummarySTS=\S+/none\.jsonl: no such file or folder"):
        find(f"VideoSummarySTS={tmp_path}/none.jsonl")


def test_a_yaml_is_a_task_and_mteb_knows_it_from_then_on(tmp_path: Path) -> None:
    import mteb

    task = find(write_task(tmp_path, name="OwnKnownSTS"))

    assert task.stella_mteb_file.pairs.scores == [score for *_, score in RATED_PAIRS]
    assert mteb.get_task("OwnKnownSTS").metadata.description == task.metadata.description


def test_a_task_of_mteb_is_found_by_name_and_not_loaded() -> None:
    task = find("STS12")

    assert task.metadata.dataset["path"] == "mteb/sts12-sts"
    assert not task.data_loaded


@pytest.mark.parametrize("name", ["stella-video", "StellaMTEB(video)"])
def test_our_benchmark_is_found_by_name_and_alias(name: str) -> None:
    from stella_mteb.harness.find_tasks import find_tasks

    assert {task.metadata.name for task in find_tasks([], [name])} == OURS


def test_a_task_named_twice_is_run_once() -> None:
    from stella_mteb.harness.find_tasks import find_tasks

    names = [task.metadata.name for task in find_tasks(["VideoSummarySTS", "STS12"], ["stella-video"])]

    assert sorted(names) == sorted({*OURS, "STS12"})


def test_own_data_is_used_where_a_benchmark_has_the_task_too(tmp_path: Path) -> None:
    from stella_mteb.harness.find_tasks import find_tasks

    rows = write_some_summaries(tmp_path / "own.jsonl")

    tasks = find_tasks([f"VideoSummarySTS={tmp_path}/own.jsonl"], ["stella-video"])

    (task,) = [task for task in tasks if task.metadata.name == "VideoSummarySTS"]
    assert task.stella_mteb_file.pairs.second == [row["candidate"] for row in rows]


def test_tasks_that_share_texts_follow_the_first_of_them(tmp_path: Path) -> None:
    from stella_mteb.harness.find_tasks import find_tasks

    own = write_task(tmp_path)
    again = tmp_path / "again.yaml"
    again.write_text(Path(own).read_text().replace("OwnSTS", "AgainSTS").replace("data: Again", "data: Own"))
    names = ["MedrxivClusteringS2S.v2", own, "STS12", "MedrxivClusteringP2P.v2", str(again), "BIOSSES"]

    found = find_tasks(names)

    assert [task.metadata.name for task in found] == [
        "MedrxivClusteringS2S.v2", "MedrxivClusteringP2P.v2", "OwnSTS", "AgainSTS", "STS12", "BIOSSES",
    ]  # fmt: skip


@pytest.mark.fault(40, "exit code 2 with the nearest name, before any model is loaded")
@pytest.mark.parametrize(
    ("tasks", "benchmarks", "said"),
    [
        (["VideoSumarySTS"], [], "unknown task 'VideoSumarySTS'.*VideoSummarySTS"),
        (["STSBenchmrk"], [], "unknown task 'STSBenchmrk'.*STSBenchmark"),
        ([], ["MTEB(eng, v22)"], r"unknown benchmark 'MTEB\(eng, v22\)'.*MTEB\(eng, v2\)"),
        ([], ["stela-video"], r"unknown benchmark 'stela-video'"),
        ([], [], "no task: give -t TASK or -b BENCHMARK"),
        (["/nowhere/task.yaml"], [], "/nowhere/task.yaml: no such file"),
    ],
)
def test_an_unknown_task_is_refused_with_the_nearest_name(tasks: list[str], benchmarks: list[str], said: str) -> None:
    from stella_mteb.harness.find_tasks import find_tasks

    with pytest.raises(ConfigError, match=said):
        find_tasks(tasks, benchmarks)


def test_a_yaml_may_not_take_the_name_of_a_task_of_mteb(tmp_path: Path) -> None:
    path = write_task(tmp_path, name="STS12")

    with pytest.raises(ConfigError, match="MTEB has a task STS12 of its own; choose another name"):
        find(path)


def test_bad_rows_stop_before_anything_runs(tmp_path: Path) -> None:
    path = write_task(tmp_path, [*RATED_PAIRS[:2], ("", "b", 1.0), "{", ("a", "b", 9.0)])

    with pytest.raises(ConfigError) as error:
        find(path)

    text = str(error.value)
    assert "task OwnSTS: 3 bad rows (0 allowed)" in text
    for line, fault in (
        (3, "'left': is empty"),
        (4, "not valid JSON"),
        (5, "'rating': must be from 0 to 5 (got 9)"),
    ):
        assert any(f"OwnSTS.jsonl:{line}: " in said and fault in said for said in text.splitlines())
    assert "--max-bad-rows" in text


def test_a_task_that_needs_a_file_is_refused_before_anything_runs_without_one() -> None:
    with pytest.raises(ConfigError, match="task ClipCCRetrieval needs its data: -t ClipCCRetrieval=PATH"):
        find("ClipCCRetrieval")


# ---------------------------------------------------------------------------------------------- failures


def test_a_task_that_fails_says_why_stores_nothing_and_the_next_one_runs(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stella_mteb.harness.run import run

    bad, good = find(write_task(tmp_path, name="BadSTS")), find(write_task(tmp_path, name="GoodSTS"))

    def evaluate(*_: Any, **__: Any) -> None:
        raise RuntimeError("the gold scores ran away")

    monkeypatch.setattr(bad, "evaluate", evaluate)
    seen: list[Any] = []

    outcomes = run([[tiny]], [bad, good], tmp_path / "out", seen.append)

    assert [(o.task, o.status, o.error) for o in outcomes] == [
        ("BadSTS", "failed", "RuntimeError: the gold scores ran away"),
        ("GoodSTS", "done", None),
    ]
    assert seen == outcomes
    assert outcomes[0].score is None
    assert [path.name for path in result_files(tmp_path / "out")] == ["GoodSTS.json"]
    assert "in evaluate" in caplog.text  # a bug's traceback is shown


@pytest.mark.fault(21, "no result and no score; the error gives the reason, and the comparison shows a gap")
def test_equal_cosines_fail_the_task_without_a_score(tiny: Any, tmp_path: Path) -> None:
    rows = [("the same", "text", float(score)) for score in range(5)]

    outcome = run_task(tiny, find(write_task(tmp_path, rows)), tmp_path / "out")

    assert (outcome.status, outcome.score) == ("failed", None)
    assert "OwnSTS (test): subset default has no finite main score (got nan)" in outcome.error
    assert result_files(tmp_path / "out") == []


def test_data_that_changes_into_bad_rows_fails_and_keeps_the_old_result(tiny: Any, tmp_path: Path) -> None:
    path = write_task(tmp_path)
    run_task(tiny, find(path), tmp_path / "out")
    (result,) = result_files(tmp_path / "out")
    before = result.read_bytes()
    from stella_mteb.harness.task_classes import task_class
    from stella_mteb.harness.task_yaml import load_task_file

    write_task(tmp_path, [*RATED_PAIRS, "{"])
    outcome = run_task(tiny, task_class(load_task_file(Path(path)))(), tmp_path / "out")

    assert outcome.status == "failed"
    assert "OwnSTS.jsonl:6: not valid JSON" in outcome.error
    assert result.read_bytes() == before


def test_weights_that_cannot_be_read_stop_the_run_with_the_cure(tmp_path: Path) -> None:
    from benchmarks.layouts.stella import write_stella

    folder = write_stella(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(EnvironmentProblem, match="download it again"):
        run_task(encoder(str(folder)), find(write_task(tmp_path)), tmp_path / "out")
    assert result_files(tmp_path / "out") == []


@pytest.mark.fault(6, "the run stops at once, because further results would be lost too")
def test_a_full_disk_stops_the_run(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageProblem, match="No space left on device"):
        run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")


def test_an_own_file_never_passes_for_the_hubs_data(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"sentence1": a, "sentence2": b, "score": s}) + "\n" for a, b, s in RATED_PAIRS))
    hub = [{"sentence1": a, "sentence2": b, "score": 5 - s, "dataset": "MSRvid"} for a, b, s in RATED_PAIRS]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)

    first = run_task(tiny, find(f"VideoDescriptionSTS={own}"), tmp_path / "out")
    second = run_task(tiny, find("VideoDescriptionSTS"), tmp_path / "out")

    assert second.status == "done"
    assert second.score == pytest.approx(-first.score)
    assert run_task(tiny, find("VideoDescriptionSTS"), tmp_path / "out").status == "kept"


def test_a_changed_instruction_is_run_again(tiny: Any, tmp_path: Path) -> None:
    path = Path(write_task(tmp_path))
    assert run_task(tiny, find(str(path)), tmp_path / "out").status == "done"
    path.write_text(path.read_text() + "instruction: Compare the two.\n")

    assert run_task(tiny, find(str(path)), tmp_path / "out").status == "done"


def test_an_own_task_may_not_take_the_name_of_a_bundled_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="-t VideoSummarySTS=FILE"):
        find(write_task(tmp_path, name="VideoSummarySTS"))


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    from stella_mteb.harness.find_tasks import find_tasks

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [str(write_task(tmp_path / folder)) for folder in ("a", "b")]

    with pytest.raises(ConfigError, match="names OwnSTS twice"):
        find_tasks(paths)


def test_a_task_of_images_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="read text only"):
        find("CVBenchCount")


def test_models_run_one_after_the_other_and_only_one_is_in_memory(stella_folder: Path, tmp_path: Path) -> None:
    from stella_mteb.harness.run import run

    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def encoders() -> Any:
        for dimension in (256, 768, 1024):
            model = encoder(f"{stella_folder}@{dimension}")
            made.append(weakref.ref(model.text_encoder))
            yield [model]
            del model

    def count(_: Any) -> None:
        gc.collect()
        alive.append(sum(reference() is not None for reference in made))

    tasks = [find(write_task(tmp_path, name=name)) for name in ("FirstSTS", "SecondSTS")]
    outcomes = run(encoders(), tasks, tmp_path / "out", count)

    assert [(o.model.rpartition("@")[2], o.task) for o in outcomes] == [
        (dimension, task) for dimension in ("256", "768", "1024") for task in ("FirstSTS", "SecondSTS")
    ]
    assert {o.status for o in outcomes} == {"done"}
    assert alive == [1] * 6


def test_the_rows_of_a_finished_task_are_given_back(tiny: Any, tmp_path: Path) -> None:
    from stella_mteb.harness.run import run

    task = find(write_task(tmp_path))

    run([[tiny]], [task], tmp_path / "out", lambda _: None)

    assert not task.data_loaded


@pytest.mark.versions
def test_every_dimension_scores_as_it_does_alone_and_every_text_is_encoded_once(
    stella_folder: Path, tmp_path: Path
) -> None:
    rows = write_some_summaries(tmp_path / "own.jsonl")
    tasks = [f"VideoSummarySTS={tmp_path}/own.jsonl", f"VideoSummaryRetrieval={tmp_path}/own.jsonl"]
    together = members(str(stella_folder), [256, 1024, 8192], tmp_path / "cache")

    outcomes = run_all([together], [find(name) for name in tasks], tmp_path / "out")
    alone = [
        outcome
        for dimension in (256, 1024, 8192)
        for outcome in run_all(
            [members(f"{stella_folder}@{dimension}", [], tmp_path / f"cache{dimension}")],
            [find(name) for name in tasks],
            tmp_path / f"out{dimension}",
        )
    ]

    def scores(of: list[Any]) -> dict[tuple[str, str], float]:
        return {(outcome.model, outcome.task): outcome.score for outcome in of}

    assert len(scores(outcomes)) == 6
    assert scores(outcomes) == scores(alone)
    assert {outcome.status for outcome in outcomes} == {"done"}
    texts = {row["reference"] for row in rows} | {row["candidate"] for row in rows}
    queries = {row["candidate"] for row in rows if row["score"] >= 2}
    engines = {id(member.text_encoder) for member in together}
    assert len(engines) == 1
    assert together[0].text_encoder.stats.encoded == len(texts) + len(queries) + len({row["reference"] for row in rows})
    paths = result_files(tmp_path / "out")
    assert sorted(path.parent for path in paths) == sorted(2 * list({path.parent for path in paths}))
    assert len({path.parent for path in paths}) == 3


@pytest.mark.parametrize("family", [True, False], ids=["dimensions", "models"])
def test_a_task_that_draws_at_random_draws_the_same_for_every_model(
    stella_folder: Path, tmp_path: Path, family: bool
) -> None:
    """MTEB's task keeps its generator between evaluations; scores would depend on earlier ones."""
    from datasets import Dataset, DatasetDict
    from mteb.mocks.mock_tasks import LegacyMockClusteringFastTask

    class Sampled(LegacyMockClusteringFastTask):  # type: ignore[misc]
        max_document_to_embed = max_documents_per_cluster = 12

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:
            texts = [f"number {n} of {n % 5} boats" for n in range(60)]
            columns = {"sentences": texts, "labels": [n % 3 for n in range(60)]}
            self.dataset = DatasetDict(test=Dataset.from_dict(columns))
            self.data_loaded = True

    if family:
        families = [members(str(stella_folder), [256, 1024], tmp_path / "cache")]
    else:
        families = [members(f"{stella_folder}@{dimension}", [], tmp_path / "cache") for dimension in (256, 1024)]
    first, second = run_all(families, [Sampled()], tmp_path / "out")
    (alone,) = run_all(
        [members(f"{stella_folder}@1024", [], tmp_path / "cache-alone")], [Sampled()], tmp_path / "out-alone"
    )

    assert (first.status, second.status) == ("done", "done")
    assert len(families[-1][-1].text_encoder.store) == 12
    assert second.score == alone.score


@pytest.mark.fault(2, "after resuming, scores are the same, and finished tasks are not run again")
def test_after_an_interruption_between_two_dimensions_the_first_is_kept(stella_folder: Path, tmp_path: Path) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    path = write_task(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_all(
            [members(str(stella_folder), [256, 1024], tmp_path / "cache")],
            [find(path)],
            tmp_path / "out",
            on_outcome=interrupt,
        )
    resumed = members(str(stella_folder), [256, 1024], tmp_path / "cache")
    first, second = run_all([resumed], [find(path)], tmp_path / "out")

    assert (first.status, second.status) == ("kept", "done")
    assert resumed[0].text_encoder.stats.encoded == 0
    assert second.score == pytest.approx(spearman_of(encoder(f"{stella_folder}@1024"), RATED_PAIRS), abs=1e-9)
    assert first.score == pytest.approx(spearman_of(encoder(f"{stella_folder}@256"), RATED_PAIRS), abs=1e-6)


def test_a_finished_run_of_all_dimensions_loads_no_model(
    stella_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = write_task(tmp_path)
    run_all([members(str(stella_folder), [256, 1024], tmp_path / "cache")], [find(path)], tmp_path / "out")
    request.getfixturevalue("no_forward")
    missing: list[Any] = []
    later = members(str(stella_folder), [256, 1024], tmp_path / "cache")

    outcomes = run_all(
        [later], [find(path)], tmp_path / "out", before=lambda model, tasks: missing.append((model, list(tasks)))
    )

    assert [outcome.status for outcome in outcomes] == ["kept", "kept"]
    assert not any(member.loaded for member in later)
    assert missing == [(later[0], [])]


def test_a_task_that_only_one_dimension_lacks_is_missing(stella_folder: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path)
    run_all([members(f"{stella_folder}@1024", [], tmp_path / "cache")], [find(path)], tmp_path / "out")
    missing: list[str] = []

    run_all(
        [members(str(stella_folder), [256, 1024], tmp_path / "cache")],
        [find(path)],
        tmp_path / "out",
        before=lambda _, tasks: missing.extend(task.metadata.name for task in tasks),
    )

    assert missing == ["OwnSTS"]


def test_vectors_of_one_prompt_never_serve_another(stella_folder: Path, tmp_path: Path) -> None:
    path, found = write_task(tmp_path, more="instruction: Compare the two.\n"), {}
    for profile in ("card", "leaderboard", "builtin"):
        for cache in ("shared", profile):
            (member,) = members(f"{stella_folder}@256[{profile}]", [], tmp_path / cache)
            (outcome,) = run_all([[member]], [find(path)], tmp_path / f"out-{cache}-{profile}")
            found[cache, profile] = outcome.score, member.prompt_notes("OwnSTS")["both"]["text"]

    prompts = {prompt for _, prompt in found.values()}
    assert len(prompts) > 1
    for profile in ("card", "leaderboard", "builtin"):
        assert found["shared", profile] == found[profile, profile]


def test_the_time_of_encoding_is_part_of_the_time_of_the_task(stella_folder: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path)
    pair = members(str(stella_folder), [256, 1024], tmp_path / "cache")

    first, second = run_all([pair], [find(path)], tmp_path / "out")
    kept, _ = run_all([pair], [find(path)], tmp_path / "out")

    assert 0 < pair[0].text_encoder.stats.seconds <= first.encoding <= first.seconds
    assert 0 < second.encoding <= second.seconds
    assert kept.encoding == 0


def test_texts_that_are_cut_are_counted_once_and_not_again_for_the_next_dimension(
    stella_folder: Path, tmp_path: Path
) -> None:
    path = write_task(tmp_path)
    pair = members(f"{stella_folder}[max_length=32]", [256, 1024], tmp_path / "cache")

    first, second = run_all([pair], [find(path)], tmp_path / "out")

    engine = encoder(f"{stella_folder}@256").text_encoder
    texts = {text for left, right, _ in RATED_PAIRS for text in (left, right)}
    lengths = [len(ids) for ids in engine.tokenise([S2S + text for text in texts])]
    full = sum(length >= 32 for length in lengths)
    assert 0 < full < len(texts)
    assert (first.at_limit, second.at_limit) == (full, 0)


# ------------------------------------------------------------------------------------------------ real weights


@needs_shared
def test_real_weights_on_own_data_have_the_score_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    lines = (SHARED / "sts/MSRvid_2012train.jsonl").read_text().splitlines()[:150]
    rows = [(row["sentence1"], row["sentence2"], row["score"]) for row in map(json.loads, lines)]
    model = encoder("all_minilm_l6_v2")

    outcome = run_task(model, find(write_task(tmp_path, rows)), tmp_path / "out")

    plain = SentenceTransformer(str(model.resolved.folder), device="cpu")
    left, right, gold = (list(column) for column in zip(*rows, strict=True))
    expected = spearmanr(cosines(plain, left, right), gold).statistic
    assert outcome.score == pytest.approx(expected, abs=1e-4)
    assert outcome.score > 0.8
