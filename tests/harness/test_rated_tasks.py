"""Tasks of rated texts: several references, several raters, systems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from stella_mteb.errors import ConfigError
from stella_mteb.harness.task_classes import against_raters, over_systems
from stella_mteb.harness.task_yaml import TaskFile, bundled_tasks, load_task_file
from tests.conftest import SHARED, needs_shared
from tests.support.bags import bag_vector, cosine, evaluate

YAML = """\
name: MyRatings
type: STS
data: rows.jsonl
columns: {references: refs, sentence2: text, raters: raters, system: by}
score_range: [1, 5]
"""
ROWS = [
    {"refs": ["a red boat leaves", "the boat is red"], "text": "the red boat", "raters": [5, 4], "by": "a"},
    {"refs": ["a red boat leaves", "the boat is red"], "text": "a dog runs", "raters": [1, 1], "by": "b"},
    {"refs": ["two cooks argue"], "text": "two cooks argue about salt", "raters": [4, 3], "by": "a"},
    {"refs": ["two cooks argue"], "text": "rain on a street", "raters": [2, 1], "by": "b"},
    {"refs": ["a child sleeps", "a dog runs", "snow"], "text": "the dog runs", "raters": [5, 5], "by": "b"},
]


def task(folder: Path, yaml: str = YAML, rows: list[dict[str, Any]] = ROWS) -> TaskFile:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "task.yaml").write_text(yaml)
    return load_task_file(folder / "task.yaml")


def best(rows: list[dict[str, Any]]) -> list[float]:
    return [max(cosine(reference, row["text"]) for reference in row["refs"]) for row in rows]


def test_the_similarity_is_that_of_the_best_reference_and_the_score_the_mean_of_the_raters(
    tmp_path: Path, hand_made: Any
) -> None:
    gold = [float(np.mean(row["raters"])) for row in ROWS]

    (scores,) = evaluate(hand_made(bag_vector()), task(tmp_path)).scores["test"]

    assert scores["main_score"] == pytest.approx(spearmanr(best(ROWS), gold).statistic)
    assert scores["cosine_pearson"] == pytest.approx(np.corrcoef(best(ROWS), gold)[0, 1])
    assert scores["raters"]["kendall_b"] == pytest.approx(
        np.mean([kendalltau(best(ROWS), [row["raters"][one] for row in ROWS]).statistic for one in (0, 1)])
    )
    means = {row["system"]: row["cosine_mean"] for row in scores["systems"]["means"]}
    assert means["b"] == pytest.approx(np.mean([best(ROWS)[i] for i in (1, 3, 4)]))


def test_the_nearest_reference_by_distance_is_the_one_of_the_least_distance(tmp_path: Path, hand_made: Any) -> None:
    vector = bag_vector()
    encoder = hand_made(vector)
    gold = [float(np.mean(row["raters"])) for row in ROWS]

    (scores,) = evaluate(encoder, task(tmp_path)).scores["test"]

    least = [
        min(float(np.abs(vector(reference) - vector(row["text"])).sum()) for reference in row["refs"]) for row in ROWS
    ]
    assert abs(scores["manhattan_spearman"]) == pytest.approx(abs(spearmanr(least, gold).statistic))


def test_references_and_raters_may_stand_in_columns_of_which_some_are_empty(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        "one,two,text,r1,r2\na boat,the boat,boat,5,4\na dog,,dog,2,\nsnow,ice,rain,1,1\n"
    )
    columns = "{references: [one, two], sentence2: text, raters: [r1, r2]}"
    yaml = f"name: N\ntype: STS\ndata: rows.csv\ncolumns: {columns}\nscore_range: [1, 5]\n"

    pairs = task(tmp_path, yaml).pairs

    assert pairs.references == [("a boat", "the boat"), ("a dog",), ("snow", "ice")]
    assert (pairs.raters, pairs.scores) == ([(5, 4), (2,), (1, 1)], [4.5, 2, 1])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"refs": []}, r"column 'refs': must be text \(got \[\], list\)"),
        ({"refs": ["a boat", " "]}, r"column 'refs\[1\]': is empty"),
        ({"raters": [5, 7]}, r"column 'raters\[1\]': must be from 1 to 5 \(got 7\)"),
    ],
)
def test_a_bad_reference_or_rater_is_named_with_its_place(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"rows\.jsonl:1: {reason}"):
        _ = task(tmp_path, rows=[ROWS[0] | row, *ROWS[1:]]).pairs


def test_a_column_of_the_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="column 'more': is missing"):
        _ = task(tmp_path, YAML.replace("references: refs", "references: [text, more]")).pairs


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("references: refs", "references: refs, sentence1: refs", "names both references and sentence1"),
        ("sentence2: text", "sentence2: [text, by]", "sentence2 has one column"),
        ("references: refs, ", "", "must name sentence1"),
        ("references: refs", "references: []", "must be the name of a column"),
        ("type: STS", "type: PairClassification\npositive_from: 3", "must name score, sentence1"),
    ],
)
def test_roles_that_contradict_each_other_are_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        task(tmp_path, YAML.replace(old, new))


def test_the_revision_changes_with_any_reference_rater_or_system(tmp_path: Path) -> None:
    changed = [
        {**ROWS[0], "refs": ["a red boat leaves", "the boat is blue"]},
        {**ROWS[0], "raters": [4, 5]},
        {**ROWS[0], "by": "c"},
    ]

    revisions = {task(tmp_path, rows=[row, *ROWS[1:]]).revision for row in [ROWS[0], *changed]}

    assert len(revisions) == 4


def test_raters_of_different_number_give_no_figures_of_raters() -> None:
    assert against_raters([(1, 2), (3,)], [0.1, 0.2]) is None
    assert against_raters([(1,), (3,)], [0.1, 0.2]) is None


def test_systems_are_ordered_by_people() -> None:
    found = over_systems(["a", "b", "a", "b", "c"], [1, 5, 2, 4, 3], [0.5, 0.4, 0.3, 0.2, 0.1])

    assert [row["system"] for row in found["means"]] == ["b", "c", "a"]
    assert [row["cosine_mean"] for row in found["means"]] == pytest.approx([0.3, 0.1, 0.4])
    assert found["spearman"] == pytest.approx(spearmanr([1.5, 4.5, 3], [0.4, 0.3, 0.1]).statistic)


# ------------------------------------------------------------------------------------------------- the bundled ones


def with_data(name: str, folder: str) -> TaskFile:
    bundled = bundled_tasks()[name]
    return TaskFile(bundled.spec, bundled.path, data=SHARED / "human" / folder)


def test_a_rating_of_a_clip_without_references_is_named(tmp_path: Path) -> None:
    (tmp_path / "references.jsonl").write_text('{"id": "1", "references": ["a boat"]}\n')
    (tmp_path / "ratings.jsonl").write_text('{"id": "2", "candidate": "a boat", "score": 5, "system": "a"}\n')
    bundled = bundled_tasks()["VideoParagraphFactuality"]

    with pytest.raises(ConfigError, match=r"ratings\.jsonl:1: column 'id': '2' is not an id of references\.jsonl"):
        _ = TaskFile(bundled.spec, bundled.path, data=tmp_path).pairs


def test_the_bundled_story_summaries_are_300_of_three_systems_with_three_references_and_raters() -> None:
    pairs = bundled_tasks()["StorySummaryRating"].pairs

    assert len(pairs.second) == 300
    assert {system: pairs.systems.count(system) for system in set(pairs.systems)} == {
        "bart": 100, "bart-dpr": 100, "human": 100,
    }  # fmt: skip
    assert {len(one) for one in [*pairs.references, *pairs.raters]} == {3}
    assert pairs.scores == pytest.approx([np.mean(one) for one in pairs.raters])


@needs_shared
@pytest.mark.parametrize(
    ("name", "folder", "texts", "references"),
    [("VatexEval", "vatex_eval", 18_000, 9), ("VideoParagraphFactuality", "factvc_youcook2", 600, 1)],
)
def test_every_row_of_the_published_sets_is_read(name: str, folder: str, texts: int, references: int) -> None:
    pairs = with_data(name, folder).pairs

    assert len(pairs.second) == len(pairs.scores) == texts
    assert {len(one) for one in pairs.references} == {references}
    assert len(set(pairs.systems)) == 6


@needs_shared
def test_minilm_agrees_with_people_on_paragraphs_as_validate_says() -> None:
    """.565: the row "coarse" of results/human/factvc_youcook2.md, which other code computed."""
    from stella_mteb.harness.adapter import load_encoder

    (scores,) = evaluate(
        load_encoder("all_minilm_l6_v2"), with_data("VideoParagraphFactuality", "factvc_youcook2")
    ).scores["test"]

    assert scores["main_score"] == pytest.approx(0.565, abs=0.001)
    assert scores["systems"]["spearman"] == pytest.approx(0.886, abs=0.001)


@pytest.mark.slow
def test_minilm_agrees_with_people_on_story_summaries_as_validate_says() -> None:
    """The row "coarse" of results/human/squality.md."""
    from stella_mteb.harness.adapter import load_encoder

    (scores,) = evaluate(load_encoder("all_minilm_l6_v2"), bundled_tasks()["StorySummaryRating"]).scores["test"]

    assert scores["main_score"] == pytest.approx(0.585, abs=0.001)
    assert scores["raters"]["ceiling_spearman"] == pytest.approx(0.758, abs=0.001)
