from __future__ import annotations

import errno
import json
import logging
import math
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from stella_mteb.errors import EnvironmentProblem, StellaMtebError
from tests.conftest import RATED_PAIRS
from tests.support.results import encoder_of, files, letters, own_cache, run, task, with_score

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def meta() -> Any:
    return encoder_of(letters).mteb_model_meta


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """MTEB's results of two tasks with a handmade encoder."""
    folder = tmp_path_factory.mktemp("tasks")
    return {name: run(encoder_of(letters), task(folder, name)) for name in ("TinySTS", "OtherSTS")}


def parsed(folder: Path) -> dict[str, Any]:
    """Return every file under a folder by relative path, with JSON parsed and JSONL as a list."""
    return {
        name: [json.loads(line) for line in content.splitlines()] if name.endswith(".jsonl") else json.loads(content)
        for name, content in files(folder).items()
    }


def score_on_disk(path: Path) -> float:
    return json.loads(path.read_text())["scores"]["test"][0]["main_score"]


# --------------------------------------------------------------------------------------------- as MTEB has it


def test_written_files_equal_those_of_mteb(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    import mteb

    ours, theirs = own_cache(tmp_path / "ours"), mteb.ResultCache(tmp_path / "theirs")
    for result in (results["TinySTS"], results["OtherSTS"], results["TinySTS"]):
        ours.save_to_cache(result, meta, encode_kwargs={"batch_size": 8})
        theirs.save_to_cache(result, meta, encode_kwargs={"batch_size": 8})

    written = parsed(tmp_path / "ours" / "results")

    assert written == parsed(tmp_path / "theirs" / "results")
    assert sorted(written) == [
        f"hand__letters/r1/{name}"
        for name in ("OtherSTS.json", "TinySTS.json", "model_meta.json", "run_settings.jsonl")
    ]
    assert written["hand__letters/r1/TinySTS.json"]["task_name"] == "TinySTS"
    assert [line["task"] for line in written["hand__letters/r1/run_settings.jsonl"]] == [
        "TinySTS",
        "OtherSTS",
    ]


def test_a_run_leaves_only_results_in_the_folder(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    own_cache(tmp_path / "out").save_to_cache(results["TinySTS"], meta)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".stella-mteb", "results"]
    assert {name.split("/")[0] for name in files(tmp_path / "out")} == {"results"}


def test_a_model_given_by_name_and_revision_goes_where_mteb_puts_it(results: dict[str, Any], tmp_path: Path) -> None:
    import mteb

    own_cache(tmp_path / "ours").save_to_cache(results["TinySTS"], "org/model", "abc")
    mteb.ResultCache(tmp_path / "theirs").save_to_cache(results["TinySTS"], "org/model", "abc")

    assert parsed(tmp_path / "ours") == parsed(tmp_path / "theirs")
    assert "results/org__model/abc/TinySTS.json" in files(tmp_path / "ours")


def test_a_result_comes_back_from_disk_with_the_score_of_its_vectors(meta: Any, tmp_path: Path) -> None:
    cache = own_cache(tmp_path / "out")
    run(encoder_of(letters), task(tmp_path), cache)

    loaded = cache.load_task_result("TinySTS", meta)

    cosines = [float(np.dot(letters(a), letters(b))) for a, b, _ in RATED_PAIRS]
    expected = spearmanr(cosines, [score for *_, score in RATED_PAIRS]).statistic
    assert loaded.get_score() == pytest.approx(expected, abs=1e-6)
    assert own_cache(tmp_path / "elsewhere").load_task_result("TinySTS", meta) is None


def test_mteb_runs_nothing_again_that_is_on_disk(tmp_path: Path) -> None:
    cache, encoder, one = own_cache(tmp_path / "out"), encoder_of(letters), task(tmp_path)
    first = run(encoder, one, cache)
    calls = encoder.calls

    again = run(encoder, one, cache)

    assert encoder.calls == calls > 0
    assert again.get_score() == pytest.approx(first.get_score(), abs=1e-6)


# ------------------------------------------------------------------------------------------------------- notes


def test_notes_are_recorded_only_at_the_lines_of_their_task(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    import mteb

    notes = {"TinySTS": {"prompts": {"both": {"text": "Query: ", "source": "own"}}}}
    ours = own_cache(tmp_path / "ours", notes=lambda name: notes.get(name, {}))
    theirs = mteb.ResultCache(tmp_path / "theirs")
    for name in ("OtherSTS", "TinySTS", "OtherSTS"):
        ours.save_to_cache(results[name], meta)
        theirs.save_to_cache(results[name], meta)

    lines = parsed(tmp_path / "ours")["results/hand__letters/r1/run_settings.jsonl"]

    plain = parsed(tmp_path / "theirs")["results/hand__letters/r1/run_settings.jsonl"]
    assert lines == [line | notes.get(line["task"], {}) for line in plain]
    assert {line["task"]: "prompts" in line for line in lines} == {"OtherSTS": False, "TinySTS": True}


def test_mteb_loads_results_that_have_notes(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    import mteb

    cache = own_cache(tmp_path, notes=lambda name: {"prompts": {"both": {"text": name}}})
    for result in results.values():
        cache.save_to_cache(result, meta)

    loaded = mteb.ResultCache(tmp_path).load_results(models=["hand/letters"]).model_results[0].task_results

    assert {one.task_name: one.get_score() for one in loaded} == {
        name: pytest.approx(result.get_score(), abs=1e-6) for name, result in results.items()
    }


# ----------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"task_name": "TinySTS", "sco',
        b"[]",
        b"null",
        b'"text"',
        b"7",
        b"{}",
        b"\xff\xfe\x00",
        b"[" * 9_999,
    ],
    ids=["empty", "cut", "list", "null", "string", "number", "no keys", "not UTF-8", "nested"],
)
@pytest.mark.fault(4, "set aside, and the task runs again")
@pytest.mark.fault(5, "set aside, and the task runs again")
def test_a_damaged_result_is_set_aside_and_the_task_runs_again(
    tmp_path: Path,
    meta: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    monkeypatch.setattr(logging.getLogger("stella_mteb"), "propagate", True)
    cache, one = own_cache(tmp_path / "out"), task(tmp_path)
    expected = run(encoder_of(letters), one, cache).get_score()
    path = cache.get_task_result_path("TinySTS", meta)
    path.write_bytes(content)
    encoder = encoder_of(letters)

    again = run(encoder, one, cache)

    assert encoder.calls > 0
    assert again.get_score() == pytest.approx(expected)
    assert score_on_disk(path) == pytest.approx(expected, abs=1e-6)
    assert path.with_name("TinySTS.json.damaged").read_bytes() == content
    assert f"{path} cannot be used" in caplog.text
    assert "set aside as TinySTS.json.damaged, the task runs again" in caplog.text


@pytest.mark.fault(4, "set aside, and the task runs again")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_result_cut_anywhere_counts_as_absent(
    results: dict[str, Any], meta: Any, tmp_path: Path, share: float
) -> None:
    cache = own_cache(tmp_path)
    cache.save_to_cache(results["TinySTS"], meta)
    path = cache.get_task_result_path("TinySTS", meta)
    whole = path.read_bytes()
    cut = whole[: int(share * len(whole))]
    path.write_bytes(cut)

    assert cache.load_task_result("TinySTS", meta) is None
    aside = path.with_name("TinySTS.json.damaged")
    assert aside.read_bytes() == cut
    assert not path.exists()
    aside.unlink()


def test_a_second_damaged_file_does_not_overwrite_the_first(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    cache = own_cache(tmp_path)
    path = cache.get_task_result_path("TinySTS", meta)
    for content in ("first", "second"):
        cache.save_to_cache(results["TinySTS"], meta)
        path.write_text(content)
        assert cache.load_task_result("TinySTS", meta) is None

    assert sorted(file.read_text() for file in path.parent.glob("*.damaged*")) == ["first", "second"]


def test_the_file_that_is_damaged_is_set_aside_and_not_that_of_another_revision(
    results: dict[str, Any], tmp_path: Path
) -> None:
    cache = own_cache(tmp_path)
    for revision in ("abc", "def"):
        cache.save_to_cache(results["TinySTS"], "org/model", revision)
    path = tmp_path / "results/org__model/abc/TinySTS.json"
    path.write_text("{")
    os.utime(path.parent, (0, 0))  # the other revision is the later one

    assert cache.load_task_result("TinySTS", "org/model", model_revision="abc") is None
    assert path.with_name("TinySTS.json.damaged").read_text() == "{"
    assert cache.load_task_result("TinySTS", "org/model", model_revision="def") is not None


@pytest.mark.parametrize("content", [b"", b'{"task": "OtherS', b"\xff\n", b"7\n"])
def test_damaged_settings_do_not_lose_a_computed_result(
    results: dict[str, Any], meta: Any, tmp_path: Path, content: bytes
) -> None:
    """`run_settings.jsonl` is MTEB's file too, and MTEB writes it in a way that a kill can cut."""
    cache = own_cache(tmp_path, notes=lambda _: {"prompts": {}})
    cache.save_to_cache(results["OtherSTS"], meta)
    path = cache.get_task_result_path("TinySTS", meta)
    path.with_name("run_settings.jsonl").write_bytes(content)

    cache.save_to_cache(results["TinySTS"], meta)

    assert cache.load_task_result("TinySTS", meta).get_score() == pytest.approx(
        results["TinySTS"].get_score(), abs=1e-6
    )


@pytest.mark.fault(5, "set aside, and the task runs again")
def test_the_result_of_another_task_under_this_ones_name_is_set_aside(
    results: dict[str, Any],
    meta: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("stella_mteb"), "propagate", True)
    cache = own_cache(tmp_path)
    cache.save_to_cache(with_score(results["OtherSTS"], 0.25), meta)
    path = cache.get_task_result_path("TinySTS", meta)
    path.with_name("OtherSTS.json").rename(path)

    assert cache.load_task_result("TinySTS", meta) is None
    assert json.loads(path.with_name("TinySTS.json.damaged").read_text())["task_name"] == "OtherSTS"
    assert "cannot be used (it belongs to task OtherSTS)" in caplog.text


@pytest.mark.parametrize("score", ["null", "NaN", "Infinity", '"high"', "[]"])
@pytest.mark.fault(5, "set aside, and the task runs again")
def test_a_result_whose_main_score_is_no_number_is_set_aside(
    results: dict[str, Any], meta: Any, tmp_path: Path, score: str
) -> None:
    cache = own_cache(tmp_path)
    cache.save_to_cache(with_score(results["TinySTS"], 0.25), meta)
    path = cache.get_task_result_path("TinySTS", meta)
    path.write_text(path.read_text().replace('"main_score": 0.25', f'"main_score": {score}'))

    assert cache.load_task_result("TinySTS", meta) is None
    assert f'"main_score": {score}' in path.with_name("TinySTS.json.damaged").read_text()


@pytest.mark.fault(5, "keys of a later version are left alone, and the scores are used")
def test_keys_of_a_later_version_are_not_damage(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    cache = own_cache(tmp_path)
    cache.save_to_cache(with_score(results["TinySTS"], 0.25), meta)
    path = cache.get_task_result_path("TinySTS", meta)
    content = json.loads(path.read_text())
    content["scores"]["test"][0]["another_metric"] = 0.5
    path.write_text(json.dumps({**content, "schema_version": 9, "more": {"a": [1]}}))

    loaded = cache.load_task_result("TinySTS", meta)

    assert (loaded.get_score(), loaded.scores["test"][0]["another_metric"]) == (0.25, 0.5)
    assert not list(path.parent.glob("*.damaged*"))


@pytest.mark.parametrize("longest", [200, 250])
@pytest.mark.fault(
    13, "a name of up to 255 bytes is written and set aside like any other; a longer one is an error with exit code 3"
)
def test_a_result_with_the_longest_name_is_written_read_and_set_aside(
    results: dict[str, Any], meta: Any, tmp_path: Path, longest: int
) -> None:
    name = "T" * longest
    cache = own_cache(tmp_path)
    cache.save_to_cache(results["TinySTS"].model_copy(update={"task_name": name}), meta)
    loaded = cache.load_task_result(name, meta)
    path = cache.get_task_result_path(name, meta)
    for content in ("first", "second"):
        path.write_text(content)
        assert cache.load_task_result(name, meta) is None

    assert loaded.task_name == name
    assert sorted(aside.read_text() for aside in path.parent.glob("*.damaged*")) == ["first", "second"]


@pytest.mark.fault(
    13, "a name of up to 255 bytes is written and set aside like any other; a longer one is an error with exit code 3"
)
def test_a_name_that_no_file_system_takes_is_an_environment_problem(
    results: dict[str, Any], meta: Any, tmp_path: Path
) -> None:
    cache = own_cache(tmp_path)

    with pytest.raises(EnvironmentProblem, match="File name too long"):
        cache.save_to_cache(results["TinySTS"].model_copy(update={"task_name": "T" * 251}), meta)
    with pytest.raises(EnvironmentProblem, match="File name too long"):
        cache.load_task_result("T" * 251, meta)
    assert all(path.is_dir() for path in (tmp_path / "results").rglob("*.json"))


def test_after_an_interruption_between_two_subsets_plain_mteb_computes_the_second_only(tmp_path: Path) -> None:
    """With our cache alone, intermediate results are saved atomically."""
    from mteb.mocks.mock_tasks import MockMultilingualSTSTask

    class Stopping(MockMultilingualSTSTask):  # type: ignore[misc]
        metadata = MockMultilingualSTSTask.metadata

        def _evaluate_subset(self, *args: Any, hf_subset: str, **kwargs: Any) -> Any:
            if hf_subset == "fra":
                raise KeyboardInterrupt
            return super()._evaluate_subset(*args, hf_subset=hf_subset, **kwargs)

    undisturbed, encoder = run(encoder_of(letters), MockMultilingualSTSTask()), encoder_of(letters)
    with pytest.raises(KeyboardInterrupt):
        run(encoder_of(letters), Stopping(), own_cache(tmp_path))
    (path,) = tmp_path.rglob("MockMultilingualSTSTask.json")
    kept = [entry["hf_subset"] for entry in json.loads(path.read_text())["scores"]["test"]]
    resumed = run(encoder, MockMultilingualSTSTask(), own_cache(tmp_path))

    assert kept == ["eng"]
    assert encoder.calls == 2  # the two columns of one subset
    assert resumed.get_score() == pytest.approx(undisturbed.get_score(), abs=1e-6)


# ------------------------------------------------------------------------------------------------- paths outside


@pytest.mark.fault(
    12,
    "refused with exit code 3 at the start, on reading and on writing; only the output folder itself may be a link",
)
def test_the_output_folder_itself_may_be_a_link(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    from stella_mteb.outputs.layout import require_writable

    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    require_writable(tmp_path / "out")
    cache = own_cache(tmp_path / "out")
    cache.save_to_cache(with_score(results["TinySTS"], 0.25), meta)
    require_writable(tmp_path / "out")

    assert cache.load_task_result("TinySTS", meta).get_score() == 0.25
    assert list((tmp_path / "disk").rglob("TinySTS.json"))


@pytest.mark.parametrize("link", ["results", "results/hand__letters", "results/hand__letters/r1", "the file"])
@pytest.mark.fault(
    12,
    "refused with exit code 3 at the start, on reading and on writing; only the output folder itself may be a link",
)
def test_a_path_outside_the_output_folder_is_refused_and_nothing_outside_changes(
    results: dict[str, Any], meta: Any, tmp_path: Path, link: str
) -> None:
    from stella_mteb.outputs.layout import require_writable

    cache = own_cache(tmp_path / "out")
    cache.save_to_cache(with_score(results["TinySTS"], 0.25), meta)
    path = cache.get_task_result_path("TinySTS", meta)
    inside = path if link == "the file" else tmp_path / "out" / link
    inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes() if link == "the file" else files(tmp_path / "elsewhere")

    for call in (
        lambda: require_writable(tmp_path / "out"),
        lambda: cache.load_task_result("TinySTS", meta),
        lambda: cache.save_to_cache(with_score(results["TinySTS"], 0.75), meta),
    ):
        with pytest.raises(EnvironmentProblem, match=f"leads outside {tmp_path / 'out'}") as caught:
            call()
        assert caught.value.exit_code == 3
    after = (tmp_path / "elsewhere").read_bytes() if link == "the file" else files(tmp_path / "elsewhere")
    assert after == before


@pytest.mark.parametrize("revision", ["../../../outside", "a/../../../../outside", "/outside-of-it"])
@pytest.mark.fault(47, "a path outside the output folder is refused")
def test_a_revision_cannot_lead_outside(results: dict[str, Any], tmp_path: Path, revision: str) -> None:
    cache = own_cache(tmp_path / "out")

    with pytest.raises(EnvironmentProblem, match="leads outside"):
        cache.save_to_cache(results["TinySTS"], "org/model", revision)
    with pytest.raises(EnvironmentProblem, match="leads outside"):
        cache.load_task_result("TinySTS", "org/model", revision)
    with pytest.raises(EnvironmentProblem, match="leads outside"):
        cache.load_task_result("../../../../outside", "org/model", "r1")
    assert files(tmp_path) == {}


def test_a_link_to_itself_is_an_environment_problem(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    path = own_cache(tmp_path).get_task_result_path("TinySTS", meta)
    path.parent.mkdir(parents=True)
    path.symlink_to(path)

    with pytest.raises(EnvironmentProblem, match="symbolic links"):
        own_cache(tmp_path).load_task_result("TinySTS", meta)


# --------------------------------------------------------------------------------------------- refused results


@pytest.mark.fault(21, "no result and no score; the error gives the reason, and the comparison shows a gap")
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_a_score_that_is_no_number_is_refused_and_the_old_files_stay(
    results: dict[str, Any], meta: Any, tmp_path: Path, score: float
) -> None:
    cache = own_cache(tmp_path)
    cache.save_to_cache(results["TinySTS"], meta)
    before = files(tmp_path)

    with pytest.raises(StellaMtebError, match=r"task TinySTS \(test\): .*no finite main score .*Nothing was written"):
        cache.save_to_cache(with_score(results["TinySTS"], score), meta)

    assert files(tmp_path) == before


@pytest.mark.fault(21, "no result and no score; the error gives the reason, and the comparison shows a gap")
def test_vectors_that_are_all_alike_leave_no_result(tmp_path: Path) -> None:
    with pytest.raises(StellaMtebError, match=r"no finite main score \(got nan\): the vectors are constant"):
        run(encoder_of(lambda _: [1.0, 0.0]), task(tmp_path), own_cache(tmp_path / "out"))

    assert files(tmp_path / "out") == {}


# --------------------------------------------------------------------------------------------------- full disk


@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.replace", "mteb.results.TaskResult.to_disk"])
@pytest.mark.parametrize("good_calls", range(5))
@pytest.mark.fault(6, "exit code 3; the old file is intact, no temporary file remains, and the same command resumes")
def test_a_full_disk_leaves_the_old_result_and_says_so(
    results: dict[str, Any],
    meta: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    good_calls: int,
) -> None:
    """The disk may become full at any point of the write."""
    cache = own_cache(tmp_path)
    cache.save_to_cache(with_score(results["TinySTS"], 0.25), meta)
    before = files(tmp_path)
    module, _, name = broken.rpartition(".")
    target = {"os": "os", "pathlib.Path": Path, "mteb.results.TaskResult": type(results["TinySTS"])}[module]
    original = getattr(__import__("os") if target == "os" else target, name)
    calls = 0

    def full(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > good_calls:
            raise FULL
        return original(*args)

    monkeypatch.setattr(broken if target == "os" else target, *([] if target == "os" else [name]), full)
    try:
        cache.save_to_cache(with_score(results["TinySTS"], 0.75), meta)
        refused = False
    except EnvironmentProblem as error:
        refused = True
        assert "No space left on device" in str(error)
        assert str(tmp_path) in str(error)
    monkeypatch.undo()

    path = cache.get_task_result_path("TinySTS", meta)
    assert score_on_disk(path) == (0.25 if refused else 0.75)
    assert cache.load_task_result("TinySTS", meta).get_score() == (0.25 if refused else 0.75)
    assert files(tmp_path).keys() == before.keys()
    assert refused or good_calls > 0


def test_a_full_disk_leaves_no_new_result_where_there_was_none(
    results: dict[str, Any], meta: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise FULL

    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(EnvironmentProblem, match="cannot be written: No space left on device"):
        own_cache(tmp_path / "out").save_to_cache(results["TinySTS"], meta)
    assert files(tmp_path / "out") == {}


# ------------------------------------------------------------------------------------------------------- kills


def _save_for_ever(cache: Any, results: list[Any], meta: Any) -> None:
    while True:
        for result in results:
            cache.save_to_cache(result, meta)


@pytest.mark.fault(1, "the old file or the new one, never a mixture")
def test_a_kill_at_any_moment_leaves_a_whole_result(results: dict[str, Any], meta: Any, tmp_path: Path) -> None:
    cache = own_cache(tmp_path, notes=lambda _: {"prompts": {}})
    path = cache.get_task_result_path("TinySTS", meta)
    variants = [with_score(results["TinySTS"], score) for score in (0.25, 0.75)]
    for one in variants:  # long enough to be caught in the middle of a write
        one.scores["test"][0]["filler"] = ["x" * 100] * 2_000
    cache.save_to_cache(variants[0], meta)
    moments = random.Random(0)
    for _ in range(8):
        stamp = path.stat().st_mtime_ns
        child = multiprocessing.get_context("fork").Process(target=_save_for_ever, args=(cache, variants, meta))
        child.start()
        deadline = time.monotonic() + 30
        while path.stat().st_mtime_ns == stamp and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        child.kill()
        child.join()

        assert path.stat().st_mtime_ns != stamp, "the child wrote nothing"
        assert score_on_disk(path) in (0.25, 0.75)
        assert cache.load_task_result("TinySTS", meta).get_score() in (0.25, 0.75)
        assert json.loads(path.with_name("model_meta.json").read_text())["name"] == "hand/letters"
        settings_lines = path.with_name("run_settings.jsonl").read_text().splitlines()
        assert [json.loads(line)["task"] for line in settings_lines] == ["TinySTS"]

    # Files of a killed writer do not interfere.
    import mteb

    (model,) = mteb.ResultCache(tmp_path).load_results(models=["hand/letters"]).model_results
    assert [one.task_name for one in model.task_results] == ["TinySTS"]


# ---------------------------------------------------------------------------------------------------- writable


@pytest.mark.parametrize("below", ["", "out", "out/deeper"])
def test_a_folder_that_cannot_be_created_is_an_environment_problem(tmp_path: Path, below: str) -> None:
    from stella_mteb.outputs.layout import require_writable

    (tmp_path / "file").write_text("not a folder")
    folder = tmp_path / "file" / below

    with pytest.raises(
        EnvironmentProblem, match=r"results cannot be written here: (Not a directory|File exists)"
    ) as error:
        require_writable(folder)

    assert str(folder) in str(error.value)
    assert error.value.exit_code == 3


@pytest.mark.fault(6, "reported before the run")
def test_a_disk_without_room_is_found_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stella_mteb.outputs.layout import require_writable

    def full(**_: Any) -> None:
        raise FULL

    monkeypatch.setattr("tempfile.mkstemp", full)

    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        require_writable(tmp_path)


def test_checking_a_folder_creates_it_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    from stella_mteb.outputs.layout import require_writable

    require_writable(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    "place",
    [
        "results/hand__letters/r1/TinySTS.json",
        "results/hand__letters/r1/run_settings.jsonl",
        "results/hand__letters/r1/model_meta.json",
        "details/hand__letters/r1/cost.json",
        "aggregated/nemo/longva.json",
    ],
)
@pytest.mark.fault(7, "exit code 3 before any model is loaded")
def test_a_folder_in_the_place_of_a_file_is_found_before_the_run(tmp_path: Path, place: str) -> None:
    from stella_mteb.outputs.layout import require_writable

    (tmp_path / place).mkdir(parents=True)

    with pytest.raises(EnvironmentProblem, match=f"{place}: is a folder but must be a file"):
        require_writable(tmp_path)


@pytest.mark.parametrize("place", ["results", "details", "pairs", ".stella-mteb"])
def test_a_file_in_the_place_of_a_folder_is_found_before_the_run(tmp_path: Path, place: str) -> None:
    from stella_mteb.outputs.layout import require_writable

    (tmp_path / place).write_text("a file")

    with pytest.raises(EnvironmentProblem, match=f"{place}: is a file but must be a folder"):
        require_writable(tmp_path)


def test_a_folder_without_permission_inside_is_found_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.outputs.layout import require_writable

    folder = tmp_path / "results" / "hand__letters"
    folder.mkdir(parents=True)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and allowed(path, mode))  # also as root

    with pytest.raises(EnvironmentProblem, match=f"{folder}: results cannot be written here: Permission denied"):
        require_writable(tmp_path)


def test_a_start_removes_what_a_killed_writer_left_an_hour_ago_and_nothing_else(
    results: dict[str, Any], meta: Any, tmp_path: Path
) -> None:
    from stella_mteb.outputs.layout import require_writable

    own_cache(tmp_path).save_to_cache(results["TinySTS"], meta)
    folder = own_cache(tmp_path).get_task_result_path("TinySTS", meta).parent
    hour_ago = time.time() - 3_700
    for name in (".TinySTS.json.a1.tmp", ".TinySTS.json.b2.tmp", "notes.tmp", ".hidden"):
        (folder / name).write_text("half")
        if name != ".TinySTS.json.b2.tmp":  # that one is being written now
            os.utime(folder / name, (hour_ago, hour_ago))
    (tmp_path / ".mine.tmp").write_text("not ours")
    os.utime(tmp_path / ".mine.tmp", (hour_ago, hour_ago))
    before = files(tmp_path)

    require_writable(tmp_path)

    after = files(tmp_path)
    assert [Path(name).name for name in before.keys() - after.keys()] == [".TinySTS.json.a1.tmp"]
    assert all(before[name] == content for name, content in after.items())
