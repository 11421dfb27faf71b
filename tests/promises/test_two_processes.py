"""Several processes on one output folder and one store of vectors."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kills import Child, Say, fork, unreadable
from stella_mteb.engine.store import VectorStore
from stella_mteb.errors import ConfigError, StorageProblem
from stella_mteb.files.locks import locked
from stella_mteb.judge.reports import write_judgement
from tests.conftest import RATED_PAIRS
from tests.support.judging import some_judgement
from tests.support.results import encoder_of, letters, own_cache, task, with_score
from tests.support.results import run as evaluate
from tests.support.runs import find, members, run_all, write_task

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def _warnings_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("stella_mteb"), "propagate", True)


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Once, and not in every child."""
    import stella_mteb.harness.run  # noqa: F401


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return evaluate(encoder_of(letters), task(tmp_path_factory.mktemp("task")))


@pytest.fixture(scope="module")
def meta() -> Any:
    return encoder_of(letters).mteb_model_meta


def together(folder: Path, *works: Callable[[Say], None]) -> list[list[dict[str, Any]]]:
    """Start each function in a separate process, release all at once, and return their output."""

    def gated(work: Callable[[Say], None]) -> Callable[[Say], None]:
        def wait_and_work(say: Say) -> None:
            while not (folder / "go").exists():
                time.sleep(0.001)
            work(say)

        return wait_and_work

    children = [fork(gated(work), folder / f"log{number}") for number, work in enumerate(works)]
    (folder / "go").touch()
    ends = [child.wait() for child in children]

    assert ends == [0] * len(works), [(folder / f"log{number}").read_text() for number in range(len(works))]
    return [child.said() for child in children]


# ---------------------------------------------------------------------------------------------------------------- run


def running(stella_folder: Path, folder: Path, *tasks: str) -> Callable[[Say], None]:
    def work(say: Say) -> None:
        (model,) = members(f"{stella_folder}@256", [], folder / "cache")
        run_all([[model]], [find(one) for one in tasks], folder / "out", on_outcome=lambda o: say(**vars(o)))
        say(encoded=model.text_encoder.stats.encoded if model.loaded else 0)

    return work


@pytest.mark.fault(
    8, "each task is run once; a process skips tasks that another one runs, and waits for them at the end"
)
def test_two_processes_run_the_same_task_once(stella_folder: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path)
    work = running(stella_folder, tmp_path, path)

    said = together(tmp_path, work, work)

    first, second = (outcome for outcome, _ in said)
    texts = {text for a, b, _ in RATED_PAIRS for text in (a, b)}
    assert {first["status"], second["status"]} == {"done", "kept"}
    assert first["score"] == pytest.approx(second["score"], abs=1e-6)
    assert sum(encoded["encoded"] for _, encoded in said) == len(texts)
    assert unreadable(tmp_path) == []


@pytest.mark.fault(
    8, "each task is run once; a process skips tasks that another one runs, and waits for them at the end"
)
def test_two_processes_with_the_same_tasks_share_the_work_and_both_have_all_outcomes(
    stella_folder: Path, tmp_path: Path
) -> None:
    paths = [write_task(tmp_path / name, name=name) for name in ("OneSTS", "TwoSTS", "ThreeSTS", "FourSTS")]

    said = together(tmp_path, *(running(stella_folder, tmp_path, *order) for order in (paths, paths)))

    outcomes = [outcome for process in said for outcome in process[:-1]]
    done = [outcome["task"] for outcome in outcomes if outcome["status"] == "done"]
    assert sorted(done) == sorted(Path(path).stem for path in paths)
    assert [{outcome["task"] for outcome in process[:-1]} for process in said] == [set(done)] * 2
    assert len({round(outcome["score"], 6) for outcome in outcomes}) == 1
    (settings,) = (tmp_path / "out").rglob("run_settings.jsonl")
    assert sorted(json.loads(line)["task"] for line in settings.read_text().splitlines()) == sorted(done)


def test_a_task_that_another_process_runs_comes_last(stella_folder: Path, tmp_path: Path) -> None:
    from stella_mteb.harness.run import _turn

    paths = [write_task(tmp_path / name, name=name) for name in ("OneSTS", "TwoSTS")]
    (model,) = members(f"{stella_folder}@256", [], tmp_path / "cache")
    busy = find(paths[0])

    def hold(say: Say) -> None:
        with _turn(model, busy, tmp_path / "out"):
            say(held=True)
            while not list((tmp_path / "out").rglob("TwoSTS.json")):
                time.sleep(0.01)

    holder = fork(hold, tmp_path / "log")
    _until_said(holder)
    outcomes = run_all([[model]], [busy, find(paths[1])], tmp_path / "out")

    assert holder.wait() == 0
    assert [(outcome.task, outcome.status) for outcome in outcomes] == [("TwoSTS", "done"), ("OneSTS", "done")]


def test_other_dimensions_wait_for_the_pass_that_serves_them(stella_folder: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path)

    def work(dimension: int) -> Callable[[Say], None]:
        def at(say: Say) -> None:
            (model,) = members(f"{stella_folder}@{dimension}", [], tmp_path / "cache")
            _ = model.text_encoder
            (outcome,) = run_all([[model]], [find(path)], tmp_path / "out")
            say(status=outcome.status, encoded=model.text_encoder.stats.encoded)

        return at

    said = [word for (word,) in together(tmp_path, work(256), work(1024))]

    assert [word["status"] for word in said] == ["done", "done"]
    assert sorted(word["encoded"] for word in said)[0] == 0


def _until_said(child: Child) -> None:
    assert os.read(child.pipe, 1)


# ------------------------------------------------------------------------------------------------------ reading-writing


def named(result: Any, name: str) -> Any:
    return result.model_copy(update={"task_name": name}, deep=True)


def part_of(result: Any, split: str, subset: str, score: float) -> Any:
    changed = with_score(result, score)
    changed.scores = {split: [{**changed.scores["test"][0], "hf_subset": subset}]}
    return changed


@pytest.mark.fault(8, "no settings are lost")
def test_settings_saved_at_the_same_time_are_all_kept(result: Any, meta: Any, tmp_path: Path) -> None:
    def save(names: list[str]) -> Callable[[Say], None]:
        def work(_: Say) -> None:
            for name in names:
                own_cache(tmp_path / "out").save_to_cache(named(result, name), meta)

        return work

    names = [[f"Task{process}x{number}" for number in range(6)] for process in range(4)]
    together(tmp_path, *map(save, names))

    (settings,) = (tmp_path / "out").rglob("run_settings.jsonl")
    lines = [json.loads(line)["task"] for line in settings.read_text().splitlines()]
    assert sorted(lines) == sorted(name for own in names for name in own)


@pytest.mark.fault(8, "the file of a task contains the splits and subsets of both processes")
def test_splits_and_subsets_saved_at_the_same_time_are_in_one_file(result: Any, meta: Any, tmp_path: Path) -> None:
    parts = [(split, f"s{number}") for split in ("dev", "test") for number in range(8)]
    scores = {part: 0.01 * (number + 1) for number, part in enumerate(parts)}

    def save(own: list[tuple[str, str]]) -> Callable[[Say], None]:
        def work(_: Say) -> None:
            for part in own:
                own_cache(tmp_path / "out").save_to_cache(part_of(result, *part, scores[part]), meta)

        return work

    together(tmp_path, *(save(parts[number::4]) for number in range(4)))

    whole = own_cache(tmp_path / "out").load_task_result("TinySTS", meta)
    found = {(split, entry["hf_subset"]): entry["main_score"] for split, rows in whole.scores.items() for entry in rows}
    assert found == pytest.approx(scores)
    (settings,) = (tmp_path / "out").rglob("run_settings.jsonl")
    lines = [json.loads(line) for line in settings.read_text().splitlines()]
    assert {(split, subset) for line in lines for split in line["splits"] for subset in line["subsets"]} == set(parts)


def test_subsets_of_one_task_in_two_processes_of_plain_mteb_are_all_kept(tmp_path: Path) -> None:
    import mteb
    from mteb.mocks.mock_tasks import MockMultilingualSTSTask

    def work(subset: str) -> Callable[[Say], None]:
        def run(_: Say) -> None:
            one = MockMultilingualSTSTask().filter_languages(None, hf_subsets=[subset])
            mteb.evaluate(
                encoder_of(letters), one, cache=own_cache(tmp_path / "out"), show_progress_bar=False, co2_tracker=False
            )

        return run

    together(tmp_path, *map(work, ("eng", "fra")))

    (path,) = (tmp_path / "out").rglob("MockMultilingualSTSTask.json")
    assert {entry["hf_subset"] for entry in json.loads(path.read_text())["scores"]["test"]} == {"eng", "fra"}
    whole = evaluate(encoder_of(None), MockMultilingualSTSTask(), own_cache(tmp_path / "out"))  # encodes nothing
    assert len(whole.scores["test"]) == 2


def test_a_partial_result_on_other_data_is_not_kept(result: Any, meta: Any, tmp_path: Path) -> None:
    cache = own_cache(tmp_path / "out")
    cache.save_to_cache(part_of(result, "test", "old", 0.25), meta)
    newer = part_of(result, "test", "new", 0.75).model_copy(update={"dataset_revision": "another"})

    cache.save_to_cache(newer, meta)

    found = cache.load_task_result("TinySTS", meta)
    assert (found.dataset_revision, [entry["hf_subset"] for entry in found.scores["test"]]) == ("another", ["new"])


def test_a_recomputed_partial_result_replaces_the_earlier_one(result: Any, meta: Any, tmp_path: Path) -> None:
    cache = own_cache(tmp_path / "out")
    cache.save_to_cache(part_of(result, "test", "a", 0.25), meta)
    cache.save_to_cache(part_of(result, "test", "b", 0.5), meta)
    cache.save_to_cache(part_of(result, "test", "a", 0.75), meta)

    rows = cache.load_task_result("TinySTS", meta).scores["test"]
    assert {row["hf_subset"]: row["main_score"] for row in rows} == {"a": 0.75, "b": 0.5}


def test_items_and_costs_of_several_processes_are_all_kept(
    stella_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb.mocks.mock_tasks import MockMultilingualSTSTask

    from stella_mteb.harness import run
    from stella_mteb.outputs.costs import read_costs
    from stella_mteb.outputs.items import read_items

    # As on a file system without locks for tasks, or with plain MTEB: both are at the same task at once.
    monkeypatch.setattr(run, "_turn", lambda *_, **__: locked(tmp_path, str(os.getpid()), "none"))

    def work(subset: str) -> Callable[[Say], None]:
        def at(_: Say) -> None:
            (model,) = members(f"{stella_folder}@256", [], None)
            one = MockMultilingualSTSTask().filter_languages(None, hf_subsets=[subset])
            run_all([[model]], [one], tmp_path / "out")

        return at

    together(tmp_path, *map(work, ("eng", "fra")))

    (details,) = (tmp_path / "out/details").rglob("MockMultilingualSTSTask.json")
    (costs,) = (tmp_path / "out/details").rglob("cost.json")
    assert {one.subset for one in read_items(details)} == {"eng", "fra"}
    assert len(read_costs(costs)) == 2


def test_judgements_with_other_references_are_not_mixed(tmp_path: Path) -> None:
    """Both find the folder empty when they start; the first to write decides."""

    def work(references: str) -> Callable[[Say], None]:
        def at(say: Say) -> None:
            try:
                for number in range(5):
                    write_judgement(tmp_path, "nemo", some_judgement(f"m{number}"), {"references": references})
            except ConfigError as error:
                say(refused=str(error))

        return at

    said = together(tmp_path, work("a"), work("b"))

    (refused,) = [word for own in said for word in own]
    written = [json.loads(path.read_text()) for path in (tmp_path / "aggregated").rglob("*.json")]
    assert "was judged with different settings (references)" in refused["refused"]
    assert len(written) == 5
    assert len({content["judge"]["references"] for content in written}) == 1


# -------------------------------------------------------------------------------------------------------------- locks


def hold(output: Path, say: Say, seconds: float) -> None:
    with locked(output, "a", "task A"):
        say(held=True)
        time.sleep(seconds)


@pytest.mark.fault(8, "a waiting process names the process and the machine that hold the lock")
def test_a_waiting_process_names_the_process_that_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stella_mteb.files.locks._PATIENCE", 0.05)
    holder = fork(lambda say: hold(tmp_path, say, 0.4), tmp_path / "log")
    _until_said(holder)

    with locked(tmp_path, "a", "task A", wait=False) as held:
        assert not held
    with locked(tmp_path, "b", "task B", wait=False) as other:
        assert other
    started = time.monotonic()
    with locked(tmp_path, "a", "task A") as held:
        assert held

    assert time.monotonic() - started > 0.1
    assert holder.wait() == 0
    (message,) = [record.message for record in caplog.records]
    assert message.startswith(f"task A: waiting for process {holder.pid} on {socket.gethostname()} (since ")
    assert message.endswith(")")


@pytest.mark.fault(11, "no lock remains: the operating system releases it when the process ends")
def test_the_lock_of_a_killed_process_is_released(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    holder = fork(lambda say: hold(tmp_path, say, 60), tmp_path / "log")
    _until_said(holder)
    holder.kill()
    holder.wait()

    with locked(tmp_path, "a", "task A", wait=False) as held:
        assert held
    assert caplog.records == []


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), locked(tmp_path, "a", "task A"):
        raise RuntimeError("inside")

    with locked(tmp_path, "a", "task A", wait=False) as held:
        assert held


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gives_one_warning_and_the_run_continues(
    result: Any,
    meta: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    cache = own_cache(tmp_path)
    for score in (0.25, 0.75):
        cache.save_to_cache(with_score(result, score), meta)

    assert cache.load_task_result("TinySTS", meta).get_score() == 0.75
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: this file system has no locks; do not run two processes on the same task here at the same time"
    ]


def test_a_lock_that_cannot_be_created_is_an_environment_problem(tmp_path: Path) -> None:
    (tmp_path / ".stella-mteb").write_text("a file")

    with pytest.raises(StorageProblem, match=r"\.lock: cannot be written: "), locked(tmp_path, "a", "task A"):
        pass


# -------------------------------------------------------------------------------------------------------------- store


def row(number: int) -> tuple[bytes, np.ndarray]:
    """Return a key and its vector."""
    return number.to_bytes(16, "big"), np.full(8, number, dtype=np.float32)


@pytest.mark.fault(9, "the cache contains the union, and no text has the vector of another")
def test_eight_processes_with_overlapping_texts_store_each_text_correctly(tmp_path: Path) -> None:
    def work(process: int) -> Callable[[Say], None]:
        def at(_: Say) -> None:
            chance, store = random.Random(process), VectorStore(tmp_path / "cache", {"model": "a"})
            for _ in range(15):
                numbers = chance.sample(range(process * 50, process * 50 + 150), 10)
                keys, vectors = zip(*map(row, numbers), strict=True)
                found = np.full((10, 8), np.nan, dtype=np.float32)
                known = store.read(list(keys), found)
                np.testing.assert_array_equal(found[known], np.array(vectors)[known])
                new = np.flatnonzero(~known)
                store.add([keys[i] for i in new], np.array([vectors[i] for i in new], dtype=np.float32).reshape(-1, 8))
                store.flush()
            assert store.contains([row(number)[0] for number in numbers]).all()

        return at

    together(tmp_path, *map(work, range(8)))

    wanted = set()
    for process in range(8):
        chance = random.Random(process)
        for _ in range(15):
            wanted |= set(chance.sample(range(process * 50, process * 50 + 150), 10))
    store = VectorStore(tmp_path / "cache", {"model": "a"})
    keys, vectors = zip(*map(row, range(500)), strict=True)
    found = np.full((500, 8), np.nan, dtype=np.float32)
    known = store.read(list(keys), found)
    assert set(np.flatnonzero(known).tolist()) == wanted
    np.testing.assert_array_equal(found[known], np.array(vectors)[known])
    assert len(store) == len(wanted)
    assert unreadable(tmp_path) == []


@pytest.mark.fault(9, "if both processes find damage, only the damaged vectors are lost")
def test_processes_that_find_the_same_damage_at_once_lose_no_intact_vector(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "cache", {"model": "a"})
    keys, vectors = zip(*map(row, range(1, 41)), strict=True)
    store.add(list(keys), np.array(vectors))
    store.flush()
    (shard,) = store.folder.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[content.index(vectors[20].tobytes())] ^= 1
    shard.write_bytes(content)

    def work(_: Say) -> None:
        found = np.empty((40, 8), dtype=np.float32)
        known = VectorStore(tmp_path / "cache", {"model": "a"}).read(list(keys), found)
        np.testing.assert_array_equal(found[known], np.array(vectors)[known])

    together(tmp_path, *[work] * 6)

    assert np.flatnonzero(~VectorStore(tmp_path / "cache", {"model": "a"}).contains(list(keys))).tolist() == [20]
