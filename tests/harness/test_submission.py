"""`submit --check`: each rule of the public results repository, violated one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stella_mteb.errors import ConfigError
from stella_mteb.harness.submission import Finding, check
from tests.conftest import Call
from tests.support.submissions import META, MODEL, REVISION, result, write


def lacking(folder: Path, against: Path | None = None) -> list[Finding]:
    return [one for one in check(folder, against) if one.status == "not met"]


def test_a_result_of_mteb_itself_meets_every_rule(tmp_path: Path) -> None:
    found = list(check(write(tmp_path)))

    assert {one.status for one in found} == {"met", "not checked"}
    assert [one.rule[:16] for one in found if one.status == "not checked"] == ["published scores"]
    assert all(one.status == "met" for one in check(tmp_path, against=tmp_path))


OURS = {"embed_dim": 384, "pipeline": "2", "prompts": "none"}


@pytest.mark.parametrize(
    ("change", "rule", "detail"),
    [
        ({"meta": {**META, "revision": "main"}}, "path is", "/main"),
        ({"meta": {**META, "name": "nobody/has-this"}}, "MTEB knows the model", "nobody/has-this is not"),
        ({"meta": {**META, "experiment_kwargs": OURS}}, "made with the reference", "run by stella-mteb"),
        ({"found": result(task="STS12")}, "the file is named after its task", "task_name is STS12"),
        ({"found": result(float("nan"))}, "every main score is a number", "test/default"),
        ({"found": {**result(), "scores": {}}}, "the result can be read", "no scores by split"),
        ({"found": {"task_name": "STSBenchmark"}}, "the result can be read", "no scores by split"),
        ({"found": result(task="MyOwn"), "name": "MyOwn"}, "MTEB knows the task", "MyOwn is your own task"),
        ({"found": {**result(), "more": "x" * 10_485_760}}, "at most 10,485,760 bytes", "10,48"),
        ({"found": result(70.5)}, "every main score is from -1 to 1", "test/default is 70.5"),
        ({"found": {**result(), "dataset_revision": None}}, "MTEB can load the result", "dataset_revision"),
        ({"found": result(split="validation")}, "splits, subsets and languages", "none of the splits test is present"),
        ({"found": result(subset="en")}, "splits, subsets and languages", "test has a subset en"),
        ({"found": result(languages=["deu-Latn"])}, "splits, subsets and languages", "states the languages deu-Latn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_rule_is_named(change: dict[str, Any], rule: str, detail: str, tmp_path: Path) -> None:
    found = [one for one in lacking(write(tmp_path, **change)) if one.rule.startswith(rule)]

    assert len(found) == 1
    assert detail in found[0].detail


def test_a_model_that_mteb_has_renamed_is_known(tmp_path: Path) -> None:
    from mteb.models.get_model_meta import _MODEL_RENAMES

    old = next(iter(_MODEL_RENAMES))
    found = [one for one in check(write(tmp_path, meta={**META, "name": old})) if one.rule == "MTEB knows the model"]

    assert [(one.status, one.detail) for one in found] == [("met", f"{_MODEL_RENAMES[old]} is in its list")]


def test_a_published_score_may_change_by_a_thousandth_and_no_more(tmp_path: Path) -> None:
    public = write(tmp_path / "public", result(0.82))

    assert lacking(write(tmp_path / "same", result(0.8209)), public) == []
    (found,) = lacking(write(tmp_path / "other", result(0.8212)), public)
    assert found.detail == "test/default was 0.82000, is 0.82120"


def test_a_published_split_may_not_vanish(tmp_path: Path) -> None:
    both = result()
    both["scores"]["validation"] = both["scores"]["test"]
    public = write(tmp_path / "public", both)

    (found,) = lacking(write(tmp_path / "ours"), public)

    assert found.detail == "validation/default is missing"


def test_a_task_at_two_revisions_of_a_model_is_named_wherever_the_other_is(tmp_path: Path) -> None:
    older = write(tmp_path / "theirs") / "results" / MODEL.replace("/", "__")
    (older / REVISION).rename(older / "older")
    write(tmp_path / "mine")

    (found,) = lacking(tmp_path / "mine", tmp_path / "theirs")
    assert found.rule == "a task has results of one revision of the model"
    assert "also at older" in found.detail

    write(tmp_path / "theirs")
    assert sorted(one.detail.split(";")[0] for one in lacking(tmp_path / "theirs") if one.rule == found.rule) == [
        f"also at {REVISION}",
        "also at older",
    ]


def test_a_model_without_a_description_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    next(folder.rglob("model_meta.json")).unlink()

    assert [one.rule for one in lacking(folder)] == ["the model is described"]


def test_nan_in_a_secondary_metric_is_as_mteb_writes_it(tmp_path: Path) -> None:
    found = result()
    found["scores"]["test"][0]["nauc"] = float("nan")

    assert lacking(write(tmp_path, found)) == []


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no results"):
        list(check(tmp_path))


def test_the_command_lists_what_does_not_meet_the_rules_and_exits_with_1(call: Call, tmp_path: Path) -> None:
    write(tmp_path, result(task="STS12"))

    code, out, err = call("submit", "--check", tmp_path)

    assert code == 1
    assert "STSBenchmark.json: not met: the file is named after its task: task_name is STS12" in " ".join(out.split())
    assert "1 failed" in err
    assert call("submit", "--check", write(tmp_path))[:2] == (0, "")
