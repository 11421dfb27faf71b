"""Writing and reading of judgements."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import write_json
from stella_mteb.judge.judge import Judgement
from stella_mteb.judge.reports import aggregate, judge_slug, read_results, require_same_judge, write_judgement
from stella_mteb.judge.similarity import PairScore
from tests.conftest import SHARED, needs_shared
from tests.support.judging import (
    FIGURES,
    JUDGES,
    candidate,
    of_means,
    published_pairs,
    some_judgement,
)


def stats_of(content: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        "coarse": content["coarse_grained_stats"],
        **content["fine_grained_stats"],
        "hm_cf": content["hybrid_stats"]["hm_cf"],
    }


def test_aggregated_figures_are_those_of_numpy_over_the_scored_pairs() -> None:
    judgement = some_judgement()

    content = aggregate("nemo", judgement, {"revision": "abc"})

    assert set(stats_of(content)) == set(FIGURES)
    for name, found in stats_of(content).items():
        values = np.array([getattr(score, name) for score in judgement.scores.values()])
        population = np.sqrt(((values - values.mean()) ** 2).sum() / len(values))
        assert found["mean"] == pytest.approx(values.mean(), abs=1e-12)
        assert found["std"] == pytest.approx(population, abs=1e-12)
        assert (found["min"], found["max"]) == (values.min(), values.max())
        assert found["std"] != pytest.approx(values.std(ddof=1), abs=1e-6)


def test_aggregated_files_count_and_list_unscored_clips() -> None:
    content = aggregate("nemo", some_judgement(), {"revision": "abc", "dimension": 1024})

    assert content["total_evaluations"] == 20
    assert content["successful_evaluations"] == 17
    assert content["error_rate"] == pytest.approx(3 / 20)
    assert (content["missing"], content["empty"], content["unknown"]) == (["126", "127"], ["128"], ["x"])
    assert (content["decoder_name"], content["model_name"]) == ("nemo", "longva")
    assert content["judge"] == {"revision": "abc", "dimension": 1024}


def field_names(content: Any) -> Any:
    return {key: field_names(value) for key, value in content.items()} if isinstance(content, dict) else None


@needs_shared
def test_aggregated_files_have_the_field_names_of_the_published_ones() -> None:
    published = field_names(json.loads((SHARED / "clip_cc/aggregated/nemo/longvu.json").read_text("utf-8")))
    ours = field_names(aggregate("nemo", some_judgement(), {}))

    assert set(published) <= set(ours)
    assert {key: ours[key] for key in published} == published
    assert set(ours) - set(published) == {
        "missing", "empty", "unknown", "wrapped", "judge",
        "order_stats", "consistency_stats", "nli_stats", "rouge_1_recall_stats",
    }  # fmt: skip


@needs_shared
@pytest.mark.parametrize("name", JUDGES)
def test_the_published_aggregated_files_come_out_of_the_published_pairs(name: str) -> None:
    by_model: dict[str, dict[str, PairScore]] = defaultdict(dict)
    for row in published_pairs():
        by_model[row["vlm"]][row["video_id"]] = PairScore(
            *(float(row[f"{name}_{figure}"]) for figure in FIGURES),
            int(row["num_reference_sentences"]),
            int(row["num_candidate_sentences"]),
        )
    assert len(by_model) == 9
    for model, scores in by_model.items():
        path = SHARED / "clip_cc/aggregated" / name / f"{model}.json"
        published = json.loads(path.read_text("utf-8"))

        ours = aggregate(name, Judgement(candidate(model, dict.fromkeys(scores, "a text")), scores), {})

        for figure, expected in stats_of(published).items():
            for key in ("mean", "std", "min", "max"):
                # Both are rounded to six digits.
                assert stats_of(ours)[figure][key] == pytest.approx(expected[key], abs=1.0001e-6), (model, figure, key)
        for key in ("decoder_name", "model_name", "total_evaluations", "successful_evaluations", "error_rate"):
            assert ours[key] == published[key]


def strict(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_written_files_are_strict_json_and_hold_every_pair(tmp_path: Path) -> None:
    judgement = some_judgement()

    write_judgement(tmp_path, "nemo", judgement, {"spec": "nemo@1024"})

    pairs = strict(tmp_path / "pairs/nemo/longva.json")
    assert [row["video_id"] for row in pairs] == list(judgement.scores)
    for row, score in zip(pairs, judgement.scores.values(), strict=True):
        assert {**row, "video_id": None} == {**vars(score), "video_id": None}
    aggregated = strict(tmp_path / "aggregated/nemo/longva.json")
    assert aggregated["hybrid_stats"]["hm_cf"]["mean"] == pytest.approx(np.mean([row["hm_cf"] for row in pairs]))


def test_a_score_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    write_judgement(tmp_path, "nemo", some_judgement(), {})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    spoilt = some_judgement()
    spoilt.scores["003"] = PairScore(float("nan"), 1.0, 1.0, 1.0, 1.0, 1, 1)

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_judgement(tmp_path, "nemo", spoilt, {})

    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if ".stella-mteb" not in path.parts} == before


@pytest.mark.fault(6, "exit code 3; the old file is intact, and no temporary file remains")
@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_leaves_the_old_files_whole_and_no_temporary_ones(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs are the first write, the means the second."""
    write_judgement(tmp_path, "nemo", some_judgement(), {})
    files = [tmp_path / "pairs/nemo/longva.json", tmp_path / "aggregated/nemo/longva.json"]
    before = [strict(path) for path in files]
    synced, writes = os.fsync, []

    def disk_is_full(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return
        writes.append(descriptor)
        if len(writes) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(EnvironmentProblem) as caught:
        write_judgement(tmp_path, "nemo", some_judgement(seed=1), {})

    assert f"{files[failing - 1]}: cannot be written: No space left on device" in str(caught.value)
    assert [strict(path) == old for path, old in zip(files, before, strict=True)] == [failing == 1, True]
    left = [path for path in tmp_path.rglob("*") if path.is_file() and ".stella-mteb" not in path.parts]
    assert sorted(left) == sorted(files)


def test_a_judges_spec_becomes_one_folder_name() -> None:
    slugs = [judge_slug(spec) for spec in ("stella@1024", "stella@1024[bf16,card]", "./models/stella@256", "../..")]

    assert slugs[0] == "stella@1024"
    assert len(set(slugs)) == 4
    assert not any("/" in slug or slug.startswith(".") for slug in slugs)


def test_means_are_read_back_from_our_own_files(tmp_path: Path) -> None:
    expected: dict[str, dict[str, float]] = {}
    for number, (name, slug) in enumerate((name, slug) for name in ("nemo", "kalm") for slug in ("a", "b.5")):
        judgement = some_judgement(slug, number)
        write_judgement(tmp_path, name, judgement, {})
        mean = np.mean([score.hm_cf for score in judgement.scores.values()])
        expected.setdefault(name, {})[slug] = pytest.approx(mean, abs=1e-15)

    for folder in (tmp_path, tmp_path / "aggregated"):
        results = read_results(folder)
        assert {judge: {slug: one.mean for slug, one in own.items()} for judge, own in results.items()} == expected
        judgement = some_judgement("b.5", 1)
        clips = {clip: score.hm_cf for clip, score in judgement.scores.items()}
        assert (results["nemo"]["b.5"].clips, results["nemo"]["b.5"].count) == (clips, 17)


def test_means_are_read_from_the_in_house_layout(tmp_path: Path) -> None:
    for name, slug, mean in [("nemo", "longvu", 0.5), ("nemo", "longva", 0.25), ("kalm", "longvu", 0.125)]:
        (tmp_path / name).mkdir(exist_ok=True)
        content = {"model_name": slug, "hybrid_stats": {"hm_cf": {"mean": mean, "std": 0.1}}}
        (tmp_path / name / f"{slug}.json").write_text(json.dumps(content))

    assert read_results(tmp_path) == of_means({"nemo": {"longvu": 0.5, "longva": 0.25}, "kalm": {"longvu": 0.125}})


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"hybrid_stats": {}}',
        '{"hybrid_stats": null}',
        '{"hybrid_stats": {"hm_cf": {"mean": null}}}',
        '{"hybrid_stats": {"hm_cf": {"mean": "nan"}}}',
        '{"hybrid_stats": {"hm_cf": {"mean": 1e999}}}',
        '{"hybrid_stats": {"hm_cf": {"mean": 0.5}',
    ],
)
def test_a_file_without_a_mean_hm_cf_is_named_not_ranked(content: str, tmp_path: Path) -> None:
    write_judgement(tmp_path, "nemo", some_judgement(), {})
    path = tmp_path / "aggregated/nemo/broken.json"
    path.write_text(content)

    with pytest.raises(ConfigError) as caught:
        read_results(tmp_path)

    assert str(path) in str(caught.value)


def test_a_folder_without_aggregated_files_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigError) as caught:
            read_results(folder)

        assert str(folder) in str(caught.value)


def test_judges_never_share_a_folder() -> None:
    specs = ["./a/stella", "a/stella", "/a/stella", "a_stella", "stella[bf16]", "stella_bf16", "x@256", "x@1024"]

    assert len({judge_slug(spec) for spec in specs}) == len(specs)
    assert len({judge_slug("\u00e4" * 300 + end) for end in "ab"}) == 2
    assert len(judge_slug("\u00e4" * 300).encode()) <= 255
    assert judge_slug("stella_en_1.5B_v5@1024") == "stella_en_1.5B_v5@1024"


def test_results_of_other_references_are_not_mixed_in(tmp_path: Path) -> None:
    identity = {"spec": "x", "references": "111"}
    write_json(tmp_path / "aggregated/x/m.json", {"judge": identity})

    require_same_judge(tmp_path, "x", identity)
    with pytest.raises(
        ConfigError, match=r"judged with different settings \(references\); give this run its own --output"
    ):
        require_same_judge(tmp_path, "x", {**identity, "references": "222"})
