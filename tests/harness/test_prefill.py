"""Prefill: every text is in the store before the first task runs, and no score changes."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.layouts.stella import PROMPTS
from stella_mteb.engine.store import text_key
from stella_mteb.errors import StorageProblem
from tests.support.spies import S2S, spoils, watch

S2P = PROMPTS["s2p_query"]
PAIRS = Path(__file__).parents[2] / "tasks/video-summary-sts/pairs.jsonl"
BUNDLED = ("VideoSummarySTS", "VideoSummaryRetrieval", "VideoSummaryFaithfulness")
WORDS = ["boat", "dawn", "cook", "salt", "rain", "street", "dog", "child", "door", "cat"]


@pytest.fixture
def summaries(tmp_path: Path) -> tuple[Callable[[], list[Any]], list[dict[str, Any]]]:
    """Make the three bundled tasks on four clips, new at each call; return them with their rows."""
    from stella_mteb.harness.find_tasks import find_tasks

    rows = [json.loads(line) for line in PAIRS.read_text().splitlines()[:20]]
    rows = [{**row, **{key: row[key][:80].strip() for key in ("reference", "candidate")}} for row in rows]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return lambda: find_tasks([f"{name}={tmp_path}/own.jsonl" for name in BUNDLED]), rows


def model(folder: Path, cache: Path, setting: str = "") -> Any:
    from stella_mteb.harness.adapter import family
    from stella_mteb.models.resolve import resolve

    (member,) = family(resolve(f"{folder}@256{setting}"), [], device="cpu", cache=cache)
    return member


def run(encoder: Any, tasks: Sequence[Any], output: Path, before: Any = None) -> dict[str, Any]:
    from stella_mteb.harness.run import run

    return {outcome.task: outcome for outcome in run([[encoder]], tasks, output, lambda _: None, before)}


def run_prefilled(encoder: Any, tasks: Sequence[Any], output: Path) -> tuple[dict[str, Any], list[Any]]:
    """Return outcomes, and the number of passes through the backbone after the prefill."""
    from stella_mteb.harness.prefill import prefill

    with pytest.MonkeyPatch.context() as patch:
        after: list[Any] = []

        def before(model: Any, missing: Sequence[Any]) -> None:
            prefill(model, missing)
            after.append(watch(patch, model.text_encoder))

        outcomes = run(encoder, tasks, output, before)
    return outcomes, after[0]


def scores(outcomes: dict[str, Any]) -> dict[str, tuple[str, float]]:
    return {task: (outcome.status, outcome.score) for task, outcome in outcomes.items()}


def texts_of_mock(kind: str, **changes: Any) -> Any:
    """Make a mock task of MTEB under another name."""
    from mteb.mocks import mock_tasks

    base = getattr(mock_tasks, kind)
    return type("Renamed", (base,), {"metadata": base.metadata.model_copy(update=changes)})()


def sampled(kind: str, seed: int = 0) -> Any:
    """A task that draws its texts or its training rows from more of them than it uses."""
    from datasets import Dataset, DatasetDict
    from mteb.mocks import mock_tasks

    base = getattr(mock_tasks, kind)
    generator = random.Random(seed)
    texts = [" ".join(generator.choices(WORDS, k=4)) + f" {n}" for n in range(60)]
    labels = [WORDS.index(text.split()[0]) % 3 for text in texts]
    many = [[int(word in text) for word in WORDS[:3]] for text in texts]
    split = {"text": texts, "sentences": texts, "label": many if "Multilabel" in kind else labels, "labels": labels}

    def load_data(self: Any, num_proc: int | None = None, **_: Any) -> None:
        self.dataset = DatasetDict(
            test=Dataset.from_dict({key: column[:30] for key, column in split.items()}),
            train=Dataset.from_dict({key: column[30:] for key, column in split.items()}),
        )
        self.data_loaded = True

    return type("Sampled", (base,), {"load_data": load_data, "max_document_to_embed": 12})()


# ------------------------------------------------------------------------------------------- all is there, all the same


def test_a_run_after_a_prefill_needs_no_forward_pass_and_has_the_same_scores(
    stella_folder: Path, summaries: Any, tmp_path: Path
) -> None:
    tasks, _ = summaries

    plain = run(model(stella_folder, tmp_path / "a"), tasks(), tmp_path / "out-a")
    prefilled, shapes = run_prefilled(model(stella_folder, tmp_path / "b"), tasks(), tmp_path / "out-b")

    assert shapes == []
    assert set(plain) == set(BUNDLED)
    assert scores(prefilled) == scores(plain)
    assert {outcome.status for outcome in prefilled.values()} == {"done"}
    assert prefilled["VideoSummarySTS"].per_label == plain["VideoSummarySTS"].per_label


def test_a_text_of_several_tasks_is_encoded_once(stella_folder: Path, summaries: Any, tmp_path: Path) -> None:
    from stella_mteb.harness.prefill import prefill

    tasks, rows = summaries
    encoder = model(stella_folder, tmp_path / "cache")

    texts = prefill(encoder, tasks())

    both = {text for row in rows for text in (row["reference"], row["candidate"])}
    queries = {row["candidate"] for row in rows if row["score"] >= 2}
    documents = {row["reference"] for row in rows}
    keys = [text_key(S2S, text) for text in both]
    keys += [text_key(S2P, text) for text in queries] + [text_key("", text) for text in documents]
    assert encoder.text_encoder.stats.encoded == len(keys) == len(encoder.text_encoder.store)
    assert encoder.text_encoder.store.contains(keys).all()
    # Two columns of two tasks, and queries and documents of the third.
    assert texts.seen == 4 * len(rows) + len(queries) + len(documents)


def test_a_second_prefill_encodes_nothing(stella_folder: Path, summaries: Any, tmp_path: Path) -> None:
    from stella_mteb.harness.prefill import prefill

    tasks, _ = summaries
    prefill(model(stella_folder, tmp_path / "cache"), tasks())
    later = model(stella_folder, tmp_path / "cache")

    texts = prefill(later, tasks())

    assert later.text_encoder.stats.encoded == 0
    assert texts.seen > 0


def test_every_text_task_that_mteb_mocks_is_rehearsed_to_the_last_text(
    stella_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mteb.mocks import ALL_MOCK_TASK_TEST_GRID

    def tasks() -> list[Any]:
        # By name: the grid holds one of them twice. Of the multilingual ones the two kinds that read them otherwise.
        found = {t.metadata.name: t for t in ALL_MOCK_TASK_TEST_GRID if t.metadata.modalities == ["text"]}
        both = {"MockMultilingualSTSTask", "MockMultilingualParallelBitextMiningTask"}
        return [type(task)() for name, task in found.items() if "Multilingual" not in name or name in both]

    plain = run(model(stella_folder, tmp_path / "a"), tasks(), tmp_path / "out-a")
    caplog.clear()
    prefilled, shapes = run_prefilled(model(stella_folder, tmp_path / "b"), tasks(), tmp_path / "out-b")

    assert len(plain) > 15
    assert [record.message for record in caplog.records if "rehearsed" in record.message] == []
    assert shapes == []
    assert scores(prefilled) == scores(plain)


@pytest.mark.parametrize(
    "kind", ["LegacyMockClusteringFastTask", "MockClassificationTask", "MockMultilabelClassification"]
)
def test_a_task_that_draws_at_random_draws_the_same_after_its_rehearsal(
    kind: str, stella_folder: Path, tmp_path: Path
) -> None:
    plain = run(model(stella_folder, tmp_path / "a"), [sampled(kind)], tmp_path / "out-a")
    prefilled, shapes = run_prefilled(model(stella_folder, tmp_path / "b"), [sampled(kind)], tmp_path / "out-b")

    assert {outcome.status for outcome in plain.values()} == {"done"}
    assert shapes == []
    assert scores(prefilled) == scores(plain)


def test_queries_and_documents_are_stored_under_their_own_prompts(stella_folder: Path, tmp_path: Path) -> None:
    from stella_mteb.harness.prefill import prefill

    task = texts_of_mock("MockRetrievalTask", name="ArguAna")
    task.load_data()
    splits = task.dataset["default"].values()
    queries = {row["text"] for split in splits for row in split["queries"]}
    documents = {f"{row.get('title') or ''} {row['text']}".strip() for split in splits for row in split["corpus"]}
    asked = "Instruct: Given a claim, find documents that refute the claim\nQuery: "
    encoder = model(stella_folder, tmp_path / "cache", "[leaderboard]")

    prefill(encoder, [texts_of_mock("MockRetrievalTask", name="ArguAna")])

    store = encoder.text_encoder.store
    assert len(queries) > 1
    assert store.contains([text_key(asked, text) for text in queries]).all()
    assert store.contains([text_key("", text) for text in documents]).all()
    assert len(store) == len(queries) + len(documents)
    assert run(encoder, [texts_of_mock("MockRetrievalTask", name="ArguAna")], tmp_path / "out")["ArguAna"].error is None
    assert encoder.text_encoder.stats.encoded == len(store)


def test_only_tasks_without_a_result_are_rehearsed(stella_folder: Path, summaries: Any, tmp_path: Path) -> None:
    tasks, _ = summaries
    seen: list[list[str]] = []

    def before(_: Any, missing: Sequence[Any]) -> None:
        seen.append([task.metadata.name for task in missing])

    run(model(stella_folder, tmp_path / "cache"), tasks()[1:2], tmp_path / "out")
    run(model(stella_folder, tmp_path / "cache"), tasks(), tmp_path / "out", before)
    run(model(stella_folder, tmp_path / "cache"), tasks(), tmp_path / "out", before)

    assert seen == [[BUNDLED[0], BUNDLED[2]], []]


# ------------------------------------------------------------------------------------------------------ failures


def test_a_task_that_cannot_be_rehearsed_is_named_and_still_runs(
    stella_folder: Path, summaries: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    tasks, _ = summaries
    plain = run(model(stella_folder, tmp_path / "a"), tasks(), tmp_path / "out-a")
    second = tasks()
    sts = second[0]
    original = sts._evaluate_subset

    def picky(model: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(model, "text_encoder"):
            raise ValueError("this model has no voice")
        return original(model, *args, **kwargs)

    monkeypatch.setattr(sts, "_evaluate_subset", picky)
    encoder = model(stella_folder, tmp_path / "b")

    with caplog.at_level(logging.WARNING):
        prefilled, shapes = run_prefilled(encoder, second, tmp_path / "out-b")

    said = [record.message for record in caplog.records if record.name == "stella_mteb.harness.prefill"]
    assert said == [
        "task VideoSummarySTS cannot be rehearsed (this model has no voice); its texts are encoded when it runs"
    ]
    # VideoSummaryFaithfulness has the same pairs under the same prompt.
    assert shapes == []
    assert scores(prefilled) == scores(plain)
    assert {outcome.status for outcome in prefilled.values()} == {"done"}


@pytest.mark.parametrize("held", [7, 200_000], ids=["in the middle", "at the end"])
def test_a_full_disk_stops_a_prefill(
    stella_folder: Path, summaries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    from stella_mteb.harness import prefill

    tasks, _ = summaries
    encoder = model(stella_folder, tmp_path / "cache")
    _ = encoder.text_encoder

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prefill, "_HELD", held)
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageProblem, match="No space left on device"):
        prefill.prefill(encoder, tasks())


def test_a_text_without_a_vector_fails_its_own_tasks_only(
    stella_folder: Path, summaries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without a prefill, one text that overflows must not stop the tasks without it."""
    from stella_mteb.harness.prefill import prefill

    tasks, rows = summaries
    encoder = model(stella_folder, tmp_path / "cache")
    watch(monkeypatch, encoder.text_encoder, spoils(encoder.text_encoder, S2P + rows[0]["candidate"]))
    assert rows[0]["score"] >= 2

    outcomes = run(encoder, tasks(), tmp_path / "out", prefill)

    assert {task: outcome.status for task, outcome in outcomes.items()} == {
        "VideoSummarySTS": "done",
        "VideoSummaryRetrieval": "failed",
        "VideoSummaryFaithfulness": "done",
    }
    assert "NaN" in outcomes["VideoSummaryRetrieval"].error


# ----------------------------------------------------------------------------------------------------- the collection


def test_held_texts_are_encoded_when_there_are_enough(
    stella_folder: Path, summaries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.harness import prefill

    tasks, rows = summaries
    encoder = model(stella_folder, tmp_path / "cache")
    groups: list[int] = []
    fill = encoder.text_encoder.fill

    def count(texts: Sequence[str], prompt: str, **kwargs: Any) -> None:
        groups.append(len(texts))
        fill(texts, prompt, **kwargs)

    monkeypatch.setattr(encoder.text_encoder, "fill", count)
    monkeypatch.setattr(prefill, "_HELD", 10)

    outcomes, shapes = run_prefilled(encoder, tasks(), tmp_path / "out")

    assert shapes == []
    assert len(groups) > 3
    assert max(groups) <= 10 + len(rows)
    assert scores(outcomes) == scores(run(model(stella_folder, tmp_path / "plain"), tasks(), tmp_path / "out-plain"))


_calls = st.lists(st.tuples(st.lists(st.sampled_from("abcdefgh"), max_size=5), st.sampled_from(["", "p"])), max_size=12)


@settings(max_examples=50, deadline=None)
@given(_calls, st.integers(1, 12))
def test_every_distinct_text_is_passed_on_once_in_a_group_with_its_prompt(
    calls: list[tuple[list[str], str]], held: int
) -> None:
    from stella_mteb.harness import prefill

    handed: list[tuple[list[str], str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefill, "_HELD", held)
        texts = prefill.Texts(lambda group, prompt: handed.append((list(group), prompt)))
        waiting: set[tuple[str, str]] = set()
        for group, prompt in calls:
            before = len(handed)
            texts.add(group, prompt)
            waiting |= {(text, prompt) for text in group}
            assert (len(handed) > before) == (len(waiting) >= held)
            waiting = set() if len(waiting) >= held else waiting
        texts.flush()

    assert {(text, prompt) for group, prompt in handed for text in group} == {
        (text, prompt) for group, prompt in calls for text in group
    }
    assert all(len(set(group)) == len(group) for group, _ in handed)
    assert texts.seen == sum(len(group) for group, _ in calls)


def test_a_rehearsal_leaves_the_global_random_numbers_as_the_next_task_seeds_them(
    stella_folder: Path, summaries: Any, tmp_path: Path
) -> None:
    """MTEB seeds the global generators when it makes a task or an evaluator; later draws are the same."""
    from stella_mteb.harness.prefill import prefill

    tasks, _ = summaries
    drawn = []
    for name, rehearse in (("a", False), ("b", True)):
        if rehearse:
            prefill(model(stella_folder, tmp_path / name), tasks())
        made = tasks()
        drawn.append((random.random(), np.random.random(), made[0].rng_state.random(), made[0].np_rng.random()))

    assert drawn[0] == drawn[1]
