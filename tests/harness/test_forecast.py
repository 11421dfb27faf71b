"""Forecasts of runs, compared with the actual runs."""

from __future__ import annotations

import dataclasses
import itertools
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import SHARED, needs_shared
from tests.support.runs import find, members, run_all, write_some_summaries, write_task

KINDS = ["Classification", "PairClassification", "STS", "Retrieval", "Reranking", "Summarization", "BitextMining"]


@pytest.fixture
def spec(stella_folder: Path) -> str:
    return f"{stella_folder}@256"


def asked(task: Any, spec: str) -> int:
    """Count the texts that MTEB's evaluators request."""
    from stella_mteb.harness.prefill import Texts, collect

    (encoder,) = members(spec, [], None)
    texts = Texts(lambda *_: None)
    collect(encoder, [task], texts)
    return texts.seen


def describe(monkeypatch: pytest.MonkeyPatch, statistics: Any) -> None:
    from mteb.abstasks.task_metadata import TaskMetadata

    monkeypatch.setattr(TaskMetadata, "descriptive_stats", property(lambda _: statistics))


@pytest.mark.parametrize("kind", KINDS)
def test_the_statistics_of_a_task_tell_how_many_texts_mteb_will_ask_for(
    kind: str, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb.mocks import mock_tasks

    from stella_mteb.harness.task_sizes import size_of

    task = getattr(mock_tasks, f"Mock{kind}Task")()
    describe(monkeypatch, task.expected_stats)

    size = size_of(task)

    assert size is not None
    assert sum(texts.count for texts in size.texts) == asked(task, spec)


def test_a_clustering_counts_only_the_sample_that_mteb_draws(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mteb
    from datasets import Dataset, DatasetDict

    from stella_mteb.harness.task_sizes import size_of

    rng = np.random.default_rng(0)
    texts = [f"text {i % 700}" for i in range(2_000)]
    task = mteb.get_task("StackExchangeClustering.v2")
    task.dataset = DatasetDict({"test": Dataset.from_dict({"sentences": texts, "labels": rng.integers(9, size=2_000)})})
    task.data_loaded = True
    task.max_fraction_of_documents_to_embed = 0.5
    described = {
        "total_text_length": sum(map(len, texts)), "average_text_length": np.mean(list(map(len, texts))),
        "max_text_length": 8, "unique_texts": len(set(texts)),
    }  # fmt: skip
    describe(monkeypatch, {"test": {"num_samples": 2_000, "text_statistics": described}})
    found: set[str] = set()

    from stella_mteb.harness.prefill import Texts, collect

    (encoder,) = members(spec, [], None)
    collect(encoder, [task], Texts(lambda group, _: found.update(group)))
    size = size_of(task)

    assert size is not None
    assert size.texts[0].count == 1_000
    assert size.texts[0].distinct == pytest.approx(len(found), rel=0.05)


def test_training_texts_that_experiments_share_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with samples drawn by MTEB's own function."""
    import mteb
    from datasets import Dataset

    from stella_mteb.harness.task_sizes import size_of

    counts = [300, 40, 5]
    train = Dataset.from_dict({"text": ["x"] * sum(counts), "label": np.repeat(range(3), counts)})
    task = mteb.get_task("Banking77Classification")
    order, drawn = None, set()
    for experiment in range(task.n_experiments):
        _, order, chosen = task._undersample_data(train, experiment, order)
        drawn |= set(chosen)
    text = {"average_text_length": 10.0, "max_text_length": 10}
    labels = {"labels": {str(label): {"count": count} for label, count in enumerate(counts)}}
    splits = {
        split: {
            "num_samples": rows,
            "text_statistics": {**text, "total_text_length": 10 * rows, "unique_texts": rows},
            "label_statistics": labels,
        }
        for split, rows in (("train", sum(counts)), ("test", 50))
    }
    describe(monkeypatch, splits)

    size = size_of(task)

    assert size is not None
    assert size.classes == 3
    assert sum(texts.count for texts in size.texts) == pytest.approx(50 + len(drawn), rel=0.05)


@pytest.mark.parametrize(
    ("name", "vectors", "similarities"),
    [
        ("STS12", 6_216, 0),
        ("TRECCOVID", 50 + 50_000, 50 * 50_000),  # of 171,332 documents
        ("AskUbuntuDupQuestions", 361 + 7_220, 0),
    ],
)
def test_mteb_holds_all_vectors_of_a_task_at_once_but_one_chunk_of_a_retrieval(
    name: str, vectors: int, similarities: int
) -> None:
    import mteb

    from stella_mteb.harness.task_sizes import size_of

    size = size_of(mteb.get_task(name))

    assert size is not None
    assert (size.vectors, size.similarities) == (vectors, similarities)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.1])
def test_only_the_part_of_a_long_text_that_a_model_reads_counts(sigma: float) -> None:
    from stella_mteb.harness.task_sizes import Texts

    lengths = np.random.default_rng(1).lognormal(6.5, sigma, size=50_000)
    texts = Texts(None, len(lengths), len(lengths), float(lengths.mean()), int(lengths.max()))

    for most in (64, 256, 512, 8_192):
        expected = np.minimum(lengths / 4.5 + 2, most).sum()
        assert texts.tokens(4.5, 2, most) == pytest.approx(expected, rel=0.1)


def test_a_task_without_statistics_is_named_and_not_guessed(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.harness.forecast import Forecaster, total

    describe(monkeypatch, None)
    (encoder,) = members(spec, [], None)

    forecast = Forecaster(encoder, "cpu", tmp_path, None)(find("STS12"), None)

    assert (forecast.texts, forecast.tokens, forecast.note) == (None, None, "MTEB has no statistics of it")
    assert total([forecast]).note == "1 without statistics are not counted"


def test_stored_texts_are_not_forecast_again(spec: str, tmp_path: Path) -> None:
    from stella_mteb.harness.forecast import Forecaster
    from stella_mteb.harness.pace import Pace

    cache = tmp_path / "cache"
    first = [("a red boat", "a blue boat", 3.0), ("two cooks", "a red boat", 1.0), ("rain", "snow", 2.0)]
    second = [("a red boat", "a green boat", 3.0), ("two cooks", "some salt", 1.0)]
    one, two = (find(write_task(tmp_path, rows, name=name)) for name, rows in (("OneSTS", first), ("TwoSTS", second)))
    (encoder,) = members(spec, [], cache)

    before = Forecaster(encoder, "cpu", tmp_path / "out", cache)
    planned = [before(task, Pace(100.0, "")) for task in (one, two)]
    run_all([[encoder]], [one], tmp_path / "out")
    after = [Forecaster(encoder, "cpu", tmp_path / "out", cache)(task, Pace(100.0, "")) for task in (one, two)]

    assert [(f.status, f.texts, f.distinct, f.stored) for f in planned] == [("to run", 6, 5, 0), ("to run", 4, 4, 2)]
    assert [(f.status, f.stored, f.tokens) for f in after] == [("on disk", 0, 0), ("to run", 2, planned[1].tokens)]
    assert planned[0].tokens == pytest.approx(encoder.text_encoder.stats.tokens, rel=0.2)
    assert planned[0].encoding == pytest.approx(planned[0].tokens / 100)
    stored = [load_file(shard) for shard in cache.glob("*/*.safetensors")]
    assert planned[0].vectors == sum(array.nbytes for shard in stored for array in shard.values())


@needs_shared
@pytest.mark.parametrize(("name", "file"), [("STS13", "STS13"), ("STS15", "STS15"), ("STSBenchmark", "STSBenchmark")])
def test_tokens_forecast_from_statistics_are_those_of_the_data(name: str, file: str, tmp_path: Path) -> None:
    from stella_mteb.harness.forecast import Forecaster

    rows = [json.loads(line) for line in (SHARED / "sts" / f"{file}.jsonl").read_text().splitlines()]
    texts = {row[key] for row in rows for key in ("sentence1", "sentence2")}
    (encoder,) = members("all_minilm_l6_v2", [], None)
    forecaster = Forecaster(encoder, "cpu", tmp_path, None)

    forecast = forecaster(find(name), None)

    from stella_mteb.models.loading import tokenizer_of

    true = sum(map(len, tokenizer_of(encoder.resolved)(list(texts))["input_ids"]))
    assert forecast.texts == 2 * len(rows)
    assert forecast.distinct == pytest.approx(len(texts), rel=0.1)
    assert forecast.tokens == pytest.approx(true, rel=0.15)


# --------------------------------------------------------------------------------------------------------------- pace


def test_the_pace_is_that_of_earlier_runs_of_this_machine(spec: str, tmp_path: Path) -> None:
    from stella_mteb.harness.pace import known_pace
    from stella_mteb.outputs.costs import read_costs

    (encoder,) = members(spec, [], None)
    write_some_summaries(tmp_path / "own.jsonl")
    run_all([[encoder]], [find(f"VideoSummarySTS={tmp_path}/own.jsonl")], tmp_path)
    (path,) = tmp_path.rglob("cost.json")
    (cost,) = read_costs(path)

    def entries(*changes: dict[str, Any]) -> None:
        path.write_text(json.dumps([{**dataclasses.asdict(cost), **change} for change in changes]))

    entries({"tokens": 500, "seconds": 9.0})
    assert known_pace(encoder, "cpu", tmp_path) is None, "less than ten seconds"
    entries({"tokens": 5_000, "seconds": 9.0}, {"tokens": 1_000, "seconds": 3.0}, {"machine": "other", "seconds": 99.0})
    found = known_pace(encoder, "cpu", tmp_path)

    assert found is not None
    assert found.tokens_per_second == 500.0
    assert found.source == "2 earlier runs on this machine"


def test_a_pace_without_earlier_runs_is_measured_and_stores_nothing(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.harness import pace
    from stella_mteb.models.resolve import ResolvedModel

    (encoder,) = members(spec, [], tmp_path / "cache")
    engine = encoder.resolved.load("cpu")
    monkeypatch.setattr(ResolvedModel, "load", lambda *_: engine)
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=partial(next, itertools.count(0.0, 4.0))))

    found = pace.measured_pace(encoder, "cpu")

    warm_up = sum(map(len, engine.tokenise(pace.prose()[:8])))
    assert found.tokens_per_second == pytest.approx((engine.stats.tokens - warm_up) / 12)
    assert engine.stats.encoded == 8 + 8 + 16, "two rounds within ten seconds of a clock that moves by four"
    assert found.source == "measured for 12 s, on bundled summaries"
    assert not (tmp_path / "cache").exists()
