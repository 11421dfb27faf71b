from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from stella_mteb.compare.items import items_of, price_of
from stella_mteb.compare.records import Score, System
from stella_mteb.outputs.costs import read_costs
from stella_mteb.outputs.items import Items, read_items
from stella_mteb.outputs.layout import details_path
from tests.conftest import RATED_PAIRS
from tests.support.runs import S2S, cosines, encoder, find, members, run_all, run_task, write_some_summaries, write_task

SYSTEM = System("tiny", "local/tiny", "measured here", "out")


@pytest.fixture(scope="module")
def tiny(stella_folder: Path) -> Any:
    return encoder(f"{stella_folder}@256")


@pytest.fixture(scope="module")
def minilm_encoder() -> Any:
    return encoder("all_minilm_l6_v2")


@pytest.fixture(autouse=True)
def _warnings_are_seen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Restore the logger, which a command in an earlier test may have detached from pytest."""
    logger = logging.getLogger("stella_mteb")
    propagate, logger.propagate = logger.propagate, True
    yield
    logger.propagate = propagate


def result_path(output: Path, task: str) -> Path:
    (path,) = (output / "results").rglob(f"{task}.json")
    return path


def details_file(output: Path, task: str) -> Path:
    path = details_path(result_path(output, task))
    assert path is not None
    return path


def items(output: Path, task: str) -> tuple[Items, ...]:
    return read_items(details_file(output, task))


def score_of(output: Path, task: str) -> Score:
    """Return the score of a result as `compare` reads it."""
    path = result_path(output, task)
    result = json.loads(path.read_text())
    ((split, entries),) = result["scores"].items()
    return Score(
        task=task,
        type="STS",
        value=float(np.mean([entry["main_score"] for entry in entries])),
        split=split,
        subsets=tuple(sorted(entry["hf_subset"] for entry in entries)),
        dataset_revision=result["dataset_revision"],
        source=str(path),
    )


def mock(kind: str, **changes: Any) -> Any:
    """Make a mock task of MTEB; `metadata` changes its metadata, other arguments its attributes."""
    from mteb.mocks import mock_tasks

    base = getattr(mock_tasks, kind)
    metadata = base.metadata.model_copy(update=changes.pop("metadata", {}))
    return type(kind, (base,), {"metadata": metadata, **changes})()


# --------------------------------------------------------------------------------------------- the items


def test_items_of_rated_pairs_are_the_gold_scores_and_the_cosines(minilm_encoder: Any, tmp_path: Path) -> None:
    rows = write_some_summaries(tmp_path / "own.jsonl", clips=6)
    outcome = run_task(minilm_encoder, find(f"VideoSummarySTS={tmp_path}/own.jsonl"), tmp_path / "out")

    (one,) = items(tmp_path / "out", "VideoSummarySTS")

    first, second = ([row[key] for row in rows] for key in ("reference", "candidate"))
    assert (one.task, one.split, one.subset, one.kind, one.unit) == (
        *("VideoSummarySTS", "test", "default"),
        *("spearman", "pairs"),
    )
    assert one.gold.tolist() == [row["score"] for row in rows]
    np.testing.assert_allclose(one.values, cosines(minilm_encoder.text_encoder, first, second), atol=1e-6)
    assert spearmanr(one.gold, one.values).statistic == pytest.approx(outcome.score, abs=1e-12)


def test_items_of_queries_are_their_ndcg_by_hand(minilm_encoder: Any, tmp_path: Path) -> None:
    rows = write_some_summaries(tmp_path / "own.jsonl", clips=14)
    outcome = run_task(minilm_encoder, find(f"VideoSummaryRetrieval={tmp_path}/own.jsonl"), tmp_path / "out")

    (one,) = items(tmp_path / "out", "VideoSummaryRetrieval")

    documents = list(dict.fromkeys(row["reference"] for row in rows))
    relevant: dict[str, set[str]] = {}
    for row in rows:
        if row["score"] >= 2:
            relevant.setdefault(row["candidate"], set()).add(row["reference"])
    asked = [query for query in relevant for _ in documents]
    likeness = cosines(minilm_encoder.text_encoder, asked, documents * len(relevant))
    by_id = {}
    for number, found in enumerate(relevant.values()):
        own = np.array(likeness[number * len(documents) :][: len(documents)])
        ranking = [documents[i] for i in np.argsort(-own)[:10]]
        gain = sum(1 / np.log2(rank + 2) for rank, text in enumerate(ranking) if text in found)
        by_id[f"query-{number}"] = gain / sum(1 / np.log2(rank + 2) for rank in range(len(found)))
    assert (one.kind, one.unit, one.gold) == ("mean", "queries", None)
    assert len(set(by_id.values())) > 1
    np.testing.assert_allclose(one.values, [by_id[query] for query in sorted(by_id)], atol=1e-6)
    assert one.values.mean() == pytest.approx(outcome.score, abs=6e-6)  # MTEB rounds it to five decimals


def test_items_of_labelled_pairs_are_the_labels_and_the_similarity_that_gave_max_ap(
    minilm_encoder: Any, tmp_path: Path
) -> None:
    from sklearn.metrics import average_precision_score

    rows = write_some_summaries(tmp_path / "own.jsonl", clips=14)
    outcome = run_task(minilm_encoder, find(f"VideoSummaryFaithfulness={tmp_path}/own.jsonl"), tmp_path / "out")

    (one,) = items(tmp_path / "out", "VideoSummaryFaithfulness")

    entry = json.loads(result_path(tmp_path / "out", "VideoSummaryFaithfulness").read_text())["scores"]["test"][0]
    assert (one.kind, one.unit) == ("ap", "pairs")
    assert one.gold.tolist() == [float(row["score"] >= 4.5) for row in rows]
    assert average_precision_score(one.gold, one.values) == pytest.approx(outcome.score, abs=1e-12)
    assert entry["max_ap"] == max(value for name, value in entry.items() if name.endswith("_ap"))


def test_a_distance_that_gave_max_ap_is_kept_with_its_sign_turned(tiny: Any, tmp_path: Path) -> None:
    rows = write_some_summaries(tmp_path / "own.jsonl", clips=4)
    distances = [float(row["score"] < 4.5) + i / 100 for i, row in enumerate(rows)]
    task = find(f"VideoSummaryFaithfulness={tmp_path}/own.jsonl")
    compute = task._compute_metrics

    def right_by_manhattan(similarities: dict[str, Any], labels: list[int]) -> Any:
        similarities["manhattan_distances"] = distances
        return compute(similarities, labels)

    task._compute_metrics = right_by_manhattan
    outcome = run_task(tiny, task, tmp_path / "out")

    (one,) = items(tmp_path / "out", "VideoSummaryFaithfulness")

    entry = json.loads(result_path(tmp_path / "out", "VideoSummaryFaithfulness").read_text())["scores"]["test"][0]
    assert entry["cosine_ap"] < outcome.score == one.score() == 1.0
    np.testing.assert_allclose(one.values, [-distance for distance in distances], atol=1e-6)


def test_items_of_summaries_are_the_rank_correlation_of_each_text(minilm_encoder: Any, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    human = [["A dog chases a red ball."], ["The boat leaves the harbour at dawn."]]
    machine = [
        ["A dog runs after a ball.", "Dogs like to run.", "Rain falls on the roof."],
        ["A boat leaves at dawn.", "The harbour is quiet.", "A cook cuts an onion."],
    ]
    relevance = [[5.0, 3.0, 1.0], [3.0, 5.0, 2.0]]

    def load_data(self: Any, **_: Any) -> None:
        columns = {"text": ["one", "two"], "human_summaries": human, "machine_summaries": machine}
        self.dataset = DatasetDict(test=Dataset.from_dict({**columns, "relevance": relevance}))
        self.data_loaded = True

    metadata = {"main_score": "cosine_spearman"}
    task = mock("MockSummarizationTask", load_data=load_data, min_score=0, max_score=5, metadata=metadata)
    outcome = run_task(minilm_encoder, task, tmp_path / "out")

    (one,) = items(tmp_path / "out", "MockSummarizationTask")

    engine = minilm_encoder.text_encoder
    expected = [
        spearmanr(rated, cosines(engine, of * len(texts), texts)).statistic
        for of, texts, rated in zip(human, machine, relevance, strict=True)
    ]
    assert (one.kind, one.unit) == ("mean", "texts")
    assert expected == pytest.approx([1.0, 0.5])
    np.testing.assert_allclose(one.values, expected, atol=1e-6)
    assert outcome.score == pytest.approx(0.75)


def test_every_text_task_that_mteb_mocks_has_items_that_give_its_score_or_none(tiny: Any, tmp_path: Path) -> None:
    from mteb.mocks import ALL_MOCK_TASK_TEST_GRID

    tasks = {task.metadata.name: task for task in ALL_MOCK_TASK_TEST_GRID if task.metadata.modalities == ["text"]}
    with_items = set()
    for name, task in tasks.items():
        assert run_task(tiny, task, tmp_path / "out").status == "done"
        known = {(one.split, one.subset): one for one in items(tmp_path / "out", name)}
        if known:
            with_items.add(name)
            result = json.loads(result_path(tmp_path / "out", name).read_text())["scores"]
            scores = {(split, entry["hf_subset"]): entry["main_score"] for split in result for entry in result[split]}
            assert known.keys() == scores.keys()
            for key, one in known.items():
                assert one.score() == pytest.approx(scores[key], abs=6e-6)

    kinds = ("STS", "Retrieval", "Reranking", "Summarization")
    assert with_items == {name for name in tasks if any(kind in name for kind in kinds)}
    assert len(with_items) > 10


@pytest.mark.parametrize(
    "metric", ["ndcg_at_1", "map_at_1000", "recall_at_3", "precision_at_5", "hit_rate_at_1", "accuracy"]
)
def test_every_main_score_that_is_a_mean_over_queries_has_items(tiny: Any, tmp_path: Path, metric: str) -> None:
    outcome = run_task(tiny, mock("MockRetrievalTask", metadata={"main_score": metric}), tmp_path / "out")

    known = items(tmp_path / "out", "MockRetrievalTask")
    assert {one.split for one in known} == {"val", "test"}
    assert np.mean([one.score() for one in known]) == pytest.approx(outcome.score, abs=6e-6)


def test_a_score_that_is_no_mean_over_queries_has_none_and_no_warning(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = mock("MockRetrievalTask", metadata={"main_score": "mrr_at_10"})

    assert run_task(tiny, task, tmp_path / "out").status == "done"
    assert not details_file(tmp_path / "out", "MockRetrievalTask").exists()
    assert "items" not in caplog.text


def test_the_parts_of_an_aggregate_have_items_of_their_own(tiny: Any, tmp_path: Path) -> None:
    task = mock("MockAggregatedTask")
    names = {part.metadata.name for part in task.metadata.tasks}

    outcome = run_task(tiny, task, tmp_path / "out")

    assert outcome.status == "done"
    of_parts = [one for name in names for one in items(tmp_path / "out", name)]
    assert of_parts
    assert not details_file(tmp_path / "out", task.metadata.name).exists()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2).filter(lambda rows: any(r[0] for r in rows)))
def test_average_precision_is_scikit_learns_ties_included(rows: list[tuple[bool, int]]) -> None:
    from sklearn.metrics import average_precision_score

    gold, values = np.array(rows, dtype=np.float64).T

    one = Items("T", "test", "default", "ap", "pairs", "", gold, values)
    assert one.score() == pytest.approx(average_precision_score(gold, values), abs=1e-12)


# ------------------------------------------------------------------------------------------------------ the digest


def sts_digest(model: Any, folder: Path, rows: Sequence[tuple[str, str, float]] = RATED_PAIRS) -> str:
    run_task(model, find(write_task(folder, rows)), folder / "out")
    (one,) = items(folder / "out", "OwnSTS")
    return one.digest


def test_two_models_have_the_same_digest_and_other_items_another(
    stella_folder: Path, tiny: Any, tmp_path: Path
) -> None:
    (a, b, score), *rest = RATED_PAIRS
    own = sts_digest(tiny, tmp_path / "own")

    assert sts_digest(encoder(f"{stella_folder}@1024"), tmp_path / "other-model") == own
    for name, rows in {
        "text": [(a + "!", b, score), *rest],
        "gold": [(a, b, score - 1), *rest],
        "order": [*rest, (a, b, score)],
        "fewer": rest,
    }.items():
        assert sts_digest(tiny, tmp_path / name, rows) != own


def test_the_digest_of_queries_changes_with_a_query_and_with_what_is_relevant(tiny: Any, tmp_path: Path) -> None:
    rows = write_some_summaries(tmp_path / "own.jsonl", clips=4)

    def digest_of(name: str, rows: list[dict[str, Any]]) -> str:
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        run_task(tiny, find(f"VideoSummaryRetrieval={tmp_path}/{name}.jsonl"), tmp_path / name)
        (one,) = items(tmp_path / name, "VideoSummaryRetrieval")
        return one.digest

    query = next(i for i, row in enumerate(rows) if row["score"] >= 2)
    reworded = [{**row, "candidate": row["candidate"] + "!"} if i == query else row for i, row in enumerate(rows)]
    moved = [{**row, "reference": rows[-1]["reference"]} if i == query else row for i, row in enumerate(rows)]

    assert digest_of("same", rows) == digest_of("again", rows)
    assert len({digest_of("same", rows), digest_of("reworded", reworded), digest_of("moved", moved)}) == 3


# ------------------------------------------------------------------------------------------------- files and faults


def test_values_are_read_as_the_float32_they_were_and_take_few_characters(tiny: Any, tmp_path: Path) -> None:
    rows = [(f"boat {i}", f"boat {i * i} leaves", i % 6) for i in range(200)]
    run_task(tiny, find(write_task(tmp_path, rows)), tmp_path / "out")

    (one,) = items(tmp_path / "out", "OwnSTS")

    written = json.loads(details_file(tmp_path / "out", "OwnSTS").read_text())["items"][0]["values"]
    assert [float(np.float32(value)) for value in written] == one.values.tolist()
    assert max(len(str(value)) for value in written) <= len("-0.123456789e-10")
    first, second, _ = zip(*rows, strict=True)
    expected = cosines(tiny.text_encoder, list(first), list(second), S2S)
    np.testing.assert_allclose(one.values, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("result", "details"),
    [
        ("out/results/a__b/rev/T.json", "out/details/a__b/rev/T.json"),
        ("out/results/a__b/rev/experiments/x_1/T.json", "out/details/a__b/rev/experiments/x_1/T.json"),
        ("results/results/results__b/results/T.json", "results/details/results__b/results/T.json"),
        ("results/a__b/rev/T.json", "details/a__b/rev/T.json"),
        ("out/published/a__b/rev/T.json", None),
        ("T.json", None),
        ("", None),
        ("https://example.org/results.csv", None),
    ],
)
def test_details_have_the_layout_of_the_results(result: str, details: str | None) -> None:
    assert details_path(Path(result)) == (None if details is None else Path(details))


def test_items_that_do_not_give_the_score_are_not_kept_and_the_task_is_named(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = find(write_task(tmp_path))
    calculate = task._calculate_scores
    task._calculate_scores = lambda *args: {**calculate(*args), "cosine_spearman": 0.123}

    outcome = run_task(tiny, task, tmp_path / "out")

    assert (outcome.status, outcome.score) == ("done", 0.123)
    assert not details_file(tmp_path / "out", "OwnSTS").exists()
    assert "task OwnSTS (test, default): the items give " in caplog.text
    assert "but the score is 0.123; items not saved" in caplog.text


def test_unreadable_data_loses_the_items_but_not_the_score(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = find(write_task(tmp_path))
    evaluate = task.evaluate

    def forget(*args: Any, **kwargs: Any) -> Any:
        scores = evaluate(*args, **kwargs)
        task.dataset = {}
        return scores

    task.evaluate = forget
    outcome = run_task(tiny, task, tmp_path / "out")

    assert outcome.status == "done"
    assert task.evaluate is forget
    assert not details_file(tmp_path / "out", "OwnSTS").exists()
    assert "task OwnSTS: items not saved (KeyError: 'test')" in caplog.text


def test_a_full_disk_loses_the_items_but_not_the_score(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fsync = os.fsync

    def full_for_items(descriptor: int) -> None:
        if os.pread(descriptor, 60, 0).startswith(b'{"task":"OwnSTS",'):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_for_items)
    outcome = run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")

    assert outcome.status == "done"
    assert "task OwnSTS: items not saved (StorageProblem: " in caplog.text
    assert list(details_file(tmp_path / "out", "OwnSTS").parent.iterdir()) == []


def test_after_a_run_the_task_is_as_it_was(tiny: Any, tmp_path: Path) -> None:
    for task in (find(write_task(tmp_path)), mock("MockRetrievalTask")):
        before = vars(task).keys() - {"metadata"}
        run_task(tiny, task, tmp_path / "out")
        assert vars(task).keys() - {"metadata", "dataset", "data_loaded"} == before - {"dataset", "data_loaded"}


def test_predictions_of_mteb_are_written_nowhere(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    for task in (mock("MockSTSTask"), mock("MockRetrievalTask"), mock("MockSummarizationTask")):
        run_task(tiny, task, tmp_path / "out")
        assert details_file(tmp_path / "out", task.metadata.name).exists()

    assert list((tmp_path / "here").iterdir()) == []
    assert not list(tmp_path.rglob("*predictions*"))


def test_a_rehearsal_on_placeholder_vectors_keeps_nothing(stella_folder: Path, tmp_path: Path) -> None:
    from stella_mteb.harness.prefill import prefill

    (model,) = members(f"{stella_folder}@256", [], tmp_path / "cache")
    task = find(write_task(tmp_path))
    seen: list[bool] = []

    def before(encoder: Any, tasks: Sequence[Any]) -> None:
        prefill(encoder, tasks)
        seen.append((tmp_path / "out/details").exists())

    run_all([[model]], [task], tmp_path / "out", before=before)

    (one,) = items(tmp_path / "out", "OwnSTS")
    first, second, gold = (list(column) for column in zip(*RATED_PAIRS, strict=True))
    assert seen == [False]
    assert one.gold.tolist() == gold
    np.testing.assert_allclose(one.values, cosines(model.text_encoder, first, second, S2S), atol=1e-6)


def test_a_result_that_is_kept_without_items_is_not_computed_anew(tiny: Any, tmp_path: Path) -> None:
    run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")
    details_file(tmp_path / "out", "OwnSTS").unlink()
    calls = tiny.calls

    outcome = run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")

    assert (outcome.status, tiny.calls) == ("kept", calls)
    assert not details_file(tmp_path / "out", "OwnSTS").exists()
    assert items_of(score_of(tmp_path / "out", "OwnSTS")) == ()


def test_subsets_that_are_finished_keep_their_items_when_a_later_one_fails(tiny: Any, tmp_path: Path) -> None:
    task = mock("MockMultilingualSTSTask")
    first, second = task.hf_subsets
    evaluate = task.evaluate

    def fail(model: Any, split: str, subsets_to_run: Any = None, **kwargs: Any) -> Any:
        if subsets_to_run == [second]:
            raise RuntimeError("the power went out")
        return evaluate(model, split, subsets_to_run, **kwargs)

    task.evaluate = fail
    failed = run_task(tiny, task, tmp_path / "out")
    after_failure = {one.subset for one in items(tmp_path / "out", "MockMultilingualSTSTask")}
    resumed = run_task(tiny, mock("MockMultilingualSTSTask"), tmp_path / "out")

    assert (failed.status, resumed.status) == ("failed", "done")
    assert after_failure == {first}
    assert [one.subset for one in items_of(score_of(tmp_path / "out", "MockMultilingualSTSTask"))] == [first, second]


def test_items_of_a_score_with_a_subset_that_has_none_are_none(tiny: Any, tmp_path: Path) -> None:
    run_task(tiny, mock("MockMultilingualSTSTask"), tmp_path / "out")
    score = score_of(tmp_path / "out", "MockMultilingualSTSTask")

    assert len(items_of(score)) == 2
    assert items_of(replace(score, subsets=(*score.subsets, "swa"))) == ()
    assert [one.subset for one in items_of(replace(score, subsets=score.subsets[1:]))] == [score.subsets[1]]
    assert items_of(replace(score, split="dev")) == ()


@pytest.mark.fault(
    49, "if the run kept the values per item, an edited score does not match them: a warning, and no interval"
)
def test_items_of_other_data_or_of_another_score_are_stale(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")
    score = score_of(tmp_path / "out", "OwnSTS")

    assert len(items_of(score)) == 1
    assert len(items_of(replace(score, dataset_revision=None))) == 1
    assert items_of(replace(score, dataset_revision="sha256-other")) == ()
    assert items_of(replace(score, value=score.value - 0.01)) == ()
    assert f"do not reproduce the score of {score.value - 0.01:.6f}; ignored" in caplog.text


def test_changed_data_leaves_no_items_of_the_old(tiny: Any, tmp_path: Path) -> None:
    run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")
    changed = [(b, a, 5 - score) for a, b, score in RATED_PAIRS]

    run_task(tiny, find(write_task(tmp_path, changed)), tmp_path / "out")

    (one,) = items_of(score_of(tmp_path / "out", "OwnSTS"))
    assert one.gold.tolist() == [score for *_, score in changed]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: '{"items": 3, "dataset_revision": null, "task": "OwnSTS"}',
        lambda text: text.replace('"spearman"', '"pearson"'),
        lambda text: text.replace('"gold":[5.0,', '"gold":['),
        lambda text: text.replace('"gold":[5.0,', '"gold":["five",'),
        lambda text: text.replace('"gold":[5.0,', '"gold":[[5.0],'),
        lambda text: text.replace('"values":[', '"values":[NaN,'),
        lambda text: "\0",
    ],
)
def test_a_damaged_file_counts_as_none_and_the_next_run_writes_it_anew(
    tiny: Any, tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run_task(tiny, find(write_task(tmp_path)), tmp_path / "out")
    path, text = details_file(tmp_path / "out", "OwnSTS"), details_file(tmp_path / "out", "OwnSTS").read_text()
    path.write_text(damage(text))
    score = score_of(tmp_path / "out", "OwnSTS")

    assert damage(text) != text
    assert items_of(replace(score, dataset_revision=None)) == ()
    assert f"{path}: not a file of items" in caplog.text
    result_path(tmp_path / "out", "OwnSTS").unlink()
    assert run_task(tiny, find(write_task(tmp_path)), tmp_path / "out").status == "done"
    assert path.read_text() == text


def test_reading_items_and_costs_loads_neither_mteb_nor_torch() -> None:
    script = "import sys, stella_mteb.compare.items; print(*sorted({'mteb', 'torch', 'sklearn'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ------------------------------------------------------------------------------------------------------------ costs


def cost_files(output: Path) -> list[Path]:
    return sorted(output.rglob("cost.json"))


def test_every_dimension_of_a_pass_has_its_cost_and_a_run_from_the_cache_adds_none(
    stella_folder: Path, tmp_path: Path
) -> None:
    path = write_task(tmp_path)
    pair = members(str(stella_folder), [256, 1024], tmp_path / "cache")
    run_all([pair], [find(path)], tmp_path / "out")
    first = {cost.dimension: cost for file in cost_files(tmp_path / "out") for cost in read_costs(file)}

    run_all([members(str(stella_folder), [256, 1024], tmp_path / "cache")], [find(path)], tmp_path / "out")
    (tmp_path / "out" / "results").rename(tmp_path / "gone")
    run_all([members(str(stella_folder), [256, 1024], tmp_path / "cache")], [find(path)], tmp_path / "out")

    engine = pair[0].text_encoder
    texts = {text for a, b, _ in RATED_PAIRS for text in (a, b)}
    backbone = sum(parameter.numel() for parameter in engine.backbone.parameters())
    assert {len(read_costs(file)) for file in cost_files(tmp_path / "out")} == {1}
    assert first.keys() == {256, 1024}
    for dimension, cost in first.items():
        assert cost.texts == len(texts)
        assert cost.tokens == sum(len(engine.tokenise([S2S + text])[0]) for text in texts)
        assert cost.seconds == pytest.approx(engine.stats.seconds, abs=1e-3)
        assert cost.parameters == backbone + 32 * dimension + dimension
        assert (cost.dtype, cost.machine.rpartition(": ")[2]) == ("float32", str(torch.get_num_threads()))
        assert 10_000_000 < cost.peak_memory_bytes < 2**40


def test_a_cost_is_of_its_own_run_and_the_next_is_added(stella_folder: Path, tmp_path: Path) -> None:
    (model,) = members(str(stella_folder), [256], None)
    model.text_encoder.encode(["what was encoded before the run", "is not part of it"])
    more = [*RATED_PAIRS, ("a new sentence", "another new sentence", 3.0)]

    run_all([[model]], [find(write_task(tmp_path / "a"))], tmp_path / "out")
    run_all([[model]], [find(write_task(tmp_path / "b", more, name="MoreSTS"))], tmp_path / "out")

    (file,) = cost_files(tmp_path / "out")
    small, large = read_costs(file)
    # Without a cache each side is encoded separately, and texts on both sides twice.
    sides = [[len({row[side] for row in rows}) for side in (0, 1)] for rows in (RATED_PAIRS, more)]
    assert [small.texts, large.texts] == [sum(counts) for counts in sides]
    price = price_of(SYSTEM, str(result_path(tmp_path / "out", "OwnSTS")))
    assert price is not None
    assert price.tokens_per_second == pytest.approx(large.tokens / large.seconds)
    assert price.texts_per_second == pytest.approx(large.texts / large.seconds)
    assert (price.vector_bytes, price.parameters, price.machine) == (1024, large.parameters, large.machine)


def test_an_interrupted_run_leaves_what_it_cost_so_far(stella_folder: Path, tmp_path: Path) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    families = [members(str(stella_folder), [256], None)]
    with pytest.raises(KeyboardInterrupt):
        run_all(families, [find(write_task(tmp_path))], tmp_path / "out", on_outcome=interrupt)

    (file,) = cost_files(tmp_path / "out")
    assert [cost.texts for cost in read_costs(file)] == [families[0][0].text_encoder.stats.encoded]


def test_a_cost_that_cannot_be_kept_stops_nothing(
    stella_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stella_mteb.harness import cost_capture as costs

    def fail(*_: Any) -> None:
        raise RuntimeError("no processor has a name here")

    monkeypatch.setattr(costs, "machine", fail)
    (outcome,) = run_all([members(str(stella_folder), [256], None)], [find(write_task(tmp_path))], tmp_path / "out")

    assert outcome.status == "done"
    assert cost_files(tmp_path / "out") == []
    assert "no processor has a name here" in caplog.text


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "machine": "A, cores: 2, threads: 2",
        "dtype": "float32",
        "dimension": 384,
        "texts": 10,
        "tokens": 100,
        "seconds": 2.0,
        "peak_memory_bytes": 1000,
        "parameters": 7,
        "plugin": "0.1.0",
        "torch": "2.13.0",
        "date": "2026-01-01T00:00:00+00:00",
        **changes,
    }


def write_costs(output: Path, entries: object) -> str:
    folder = output / "details/a__b/rev"
    folder.mkdir(parents=True)
    (folder / "cost.json").write_text(json.dumps(entries))
    return str(output / "results/a__b/rev/T.json")


def test_the_price_is_of_the_longest_run_on_the_machine_that_ran_last(tmp_path: Path) -> None:
    source = write_costs(
        tmp_path,
        [
            entry(machine="B", tokens=9_999),
            entry(tokens=50),
            entry(tokens=400, texts=30, seconds=4.0, peak_memory_bytes=None),
            entry(tokens=60),
        ],
    )

    price = price_of(SYSTEM, source)

    assert price is not None
    assert (price.machine, price.tokens_per_second, price.texts_per_second) == ("A, cores: 2, threads: 2", 100.0, 7.5)
    assert (price.peak_memory_bytes, price.vector_bytes, price.parameters) == (None, 1536, 7)
    assert price.system is SYSTEM


@pytest.mark.parametrize(
    "entries", [[], {}, [entry(seconds=0.0)], [entry(tokens="many")], [{"machine": "A"}], [entry(more=1)], [3], 3]
)
def test_costs_that_are_none_or_damaged_give_no_price(tmp_path: Path, entries: object) -> None:
    assert price_of(SYSTEM, write_costs(tmp_path, entries)) is None


def test_what_others_measured_has_neither_items_nor_price(tmp_path: Path) -> None:
    score = Score("STS12", "STS", 0.8, "test", ("default",), source="https://example.org/leaderboard.csv")

    assert items_of(score) == ()
    assert price_of(SYSTEM, score.source) is None
    assert price_of(SYSTEM, str(tmp_path / "results/a__b/rev/T.json")) is None
