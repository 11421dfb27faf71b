"""Rows of several sources together, and the choice of systems by specs."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from stella_mteb.compare.folder import local_scores
from stella_mteb.compare.published import published
from stella_mteb.compare.sources import Found, merge, select
from stella_mteb.errors import ConfigError
from tests.support.result_folders import (
    BGE,
    STELLA,
    labelled,
    of_others,
    one,
    our_run,
    rerun_and_card,
    result,
)


def test_the_same_run_in_two_folders_is_distinguished_by_the_folder(tmp_path: Path) -> None:
    for name, score in (("one", 0.8), ("two", 0.7)):
        result(our_run(tmp_path / name), "STS12", score)

    found = merge(local_scores(tmp_path / "one"), local_scores(tmp_path / "two"))

    (first, of_one), (second, of_two) = labelled(found).items()
    assert (of_one, of_two) == ({"STS12": 0.8}, {"STS12": 0.7})
    assert re.fullmatch(r"all_minilm_l6_v2 \(origin=.*/one\)", first)
    assert re.fullmatch(r"all_minilm_l6_v2 \(origin=.*/two\)", second)


def test_a_source_given_twice_is_read_once(tmp_path: Path) -> None:
    result(our_run(tmp_path), "STS12", 0.8)

    assert labelled(merge(local_scores(tmp_path), local_scores(tmp_path), published(), published())).keys() == {
        "all_minilm_l6_v2",
        f"{STELLA} (self-reported)",
        f"{BGE} (self-reported)",
    }


def test_runs_of_one_system_in_several_folders_are_one_row(tmp_path: Path) -> None:
    result(our_run(tmp_path / "sts"), "STS12", 0.8)
    result(our_run(tmp_path / "video"), "STS13", 0.7)

    found = merge(local_scores(tmp_path / "sts"), local_scores(tmp_path / "video"))

    system, scores = one(found)
    assert {task: score.value for task, score in scores.items()} == {"STS12": 0.8, "STS13": 0.7}
    assert system.origin == f"{tmp_path / 'sts'}; {tmp_path / 'video'}"


def test_two_experiments_with_equal_settings_and_different_scores_are_both_kept(tmp_path: Path) -> None:
    first = our_run(tmp_path)
    result(first, "STS12", 0.8)
    copy = Path(shutil.copytree(first, first.with_name("copy")))
    result(copy, "STS12", 0.7)

    names = list(labelled(merge(local_scores(tmp_path))))

    assert names == ["all_minilm_l6_v2", "all_minilm_l6_v2 #2"]


@pytest.fixture
def many(tmp_path: Path) -> Found:
    for changed in (
        {},
        {"embed_dim": 256},
        {"embed_dim": 256, "prompts": "leaderboard"},
        {"dtype": "float32"},
    ):
        result(our_run(tmp_path, STELLA, **changed), "STS12", 0.8)
    result(our_run(tmp_path), "STS12", 0.7)
    result(our_run(tmp_path, dtype="bfloat16"), "STS12", 0.7)
    rerun_and_card(tmp_path)
    return merge(local_scores(tmp_path), published())


BF16, FP32 = "stella_en_1.5B_v5[bf16]", "stella_en_1.5B_v5[fp32]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("stella_en_1.5B_v5@256", ["stella_en_1.5B_v5@256"]),
        ("stella_en_1.5B_v5@256[leaderboard]", ["stella_en_1.5B_v5@256[leaderboard]"]),
        ("stella_en_1.5B_v5@1024", [BF16, FP32]),
        (f"{STELLA}@1024[fp32]", [FP32]),
        ("dunzhang/stella_en_1.5B_v5[fp32]", [FP32]),
        ("all_minilm_l6_v2", ["all_minilm_l6_v2", "all_minilm_l6_v2[bf16]"]),
        ("all_minilm_l6_v2@384", ["all_minilm_l6_v2"]),
        ("all_minilm_l6_v2[card]", ["all_minilm_l6_v2"]),
        (f"{STELLA} (measured by others)", [f"{STELLA} (measured by others)"]),
        (BGE, [f"{BGE} (self-reported)"]),
    ],
)
def test_a_spec_matches_its_settings_and_a_bare_name_matches_every_row(
    many: Found, spec: str, expected: list[str]
) -> None:
    assert sorted(system.label for system in select(many.scores, [spec])) == sorted(expected)


@pytest.mark.parametrize("name", ["stella_en_1.5B_v5", STELLA, "dunzhang/stella_en_1.5B_v5"])
def test_a_bare_name_matches_every_row_of_the_model_from_any_source(many: Found, name: str) -> None:
    chosen = select(many.scores, [name])

    assert Counter(system.provenance for system in chosen) == {
        "measured here": 4,
        "measured by others": 1,
        "self-reported": 2,
    }
    assert {system.model for system in chosen} == {STELLA}


def test_every_label_selects_its_own_row(many: Found) -> None:
    for system in many.scores:
        assert system in select(many.scores, [system.label])


def test_systems_are_in_the_order_of_the_specs_without_duplicates(many: Found) -> None:
    chosen = select(many.scores, [BGE, "all_minilm_l6_v2[bf16]", "all_minilm_l6_v2", BGE])

    assert [system.label for system in chosen] == [
        f"{BGE} (self-reported)",
        "all_minilm_l6_v2[bf16]",
        "all_minilm_l6_v2",
    ]
    assert all(chosen[system] == many.scores[system] for system in chosen)


def test_a_users_yaml_matches_the_results_of_its_model(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\npath: .\n")
    result(our_run(tmp_path, "local/mine", embed_dim=32), "STS12", 0.5)
    scores = local_scores(tmp_path).scores

    assert select(scores, [str(tmp_path / "mine.yaml")]) == scores
    assert select(scores, [f"{tmp_path / 'mine.yaml'}@32"]) == scores
    with pytest.raises(ConfigError, match="the results of this model are local/mine"):
        select(scores, [f"{tmp_path / 'mine.yaml'}@64"])


def test_an_unmatched_spec_is_an_error_with_the_nearest_name_and_the_sources(
    many: Found,
) -> None:
    with pytest.raises(
        ConfigError, match=r"no results for 'all_minilm_l6_v3'; the nearest are all_minilm_l6_v2"
    ) as error:
        select(many.scores, ["all_minilm_l6_v3"])
    assert "published scores that ship with stella-mteb" in str(error.value)
    assert all(origin in str(error.value) for origin in {system.origin for system in many.scores})

    with pytest.raises(ConfigError, match=r"the results of this model are .*stella_en_1\.5B_v5@256; .*Searched: "):
        select(many.scores, ["stella_en_1.5B_v5@8192"])
    with pytest.raises(ConfigError, match=r"found no results at all\. Searched: nothing"):
        select({}, ["stella_en_1.5B_v5"])
    with pytest.raises(ConfigError, match="invalid model spec"):
        select(many.scores, ["a[b"])


def test_only_the_named_models_are_read(tmp_path: Path) -> None:
    result(our_run(tmp_path), "STS12", 0.7)
    (of_others(tmp_path, "someone/else") / "STS12.json").write_text("{")

    found = local_scores(tmp_path, models=["all_minilm_l6_v2@384", "sentence-transformers/all-MiniLM-L12-v2"])

    assert labelled(found) == {"all_minilm_l6_v2": {"STS12": 0.7}}
    (note,) = found.notes
    assert (
        "no results for 'sentence-transformers/all-MiniLM-L12-v2'; the nearest are sentence-transformers/all-Min"
        in note
    )
