"""Files of ratings as people keep them: every layout gives the same ratings, or an error with its place and cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_mteb.errors import ConfigError
from stella_mteb.files.keyed_texts import KeyedColumns
from stella_mteb.judge.agreement import agreement_rows, ceiling
from stella_mteb.judge.inputs import read_references
from stella_mteb.judge.ratings import Preference, Rating, read_ratings
from stella_mteb.judge.validation import Validation
from tests.conftest import Call

REFERENCES = {"1": ("A man parks a red van.",), "2": ("Two girls cross the bridge.", "Girls walk."), "\u00e9": ("x",)}
VAN, GIRLS = Rating("1", "A van.", 4.0, (4.0, 5.0, 3.0), "a"), Rating("2", "Girls.", 1.5, (1.0, 2.0, 1.5), "b")


def lines(*rows: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", lines(
            {"id": 1.0, "system": "a", "candidate": "A van.", "raters": [4, "5", 3.0], "more": None},
            {"id": 2, "system": "b", "candidate": "Girls.", "score": 1.5, "raters": [1, 2, 1.5]},
        )),
        ("r.json", json.dumps({
            "1": {"system": "a", "candidate": "A van.", "score": 4, "raters": [4, 5, 3]},
            "2": {"system": "b", "candidate": "Girls.", "raters": [1, 2, 1.5]},
        })),
        ("r.csv", '\ufeffid,system,candidate,raters\r\n1,a,A van.,"[4, 5, 3]"\r\n2,b,Girls.,1;2;1.5\r\n'),
        ("r.csv", "video_id,model,caption,rater_1,rater_2,rater_3\n1,a,A van.,4,5,3\n2,b,Girls.,1,2,1.5\n"),
        ("r.csv", "id;system;candidate;score;rater 1;rater 2;rater 3\n1;a;A van.;4;4;5;3\n2;b;Girls.;1.5;1;2;1.5\n"),
        ("r.tsv", "id\tsystem\tcandidate\trater\tscore\n" + "".join(
            f"{clip}\t{text}\t{rater}\t{score}\n"
            for rater, scores in (("x", (4, 1)), ("y", (5, 2)), ("z", (3, 1.5)))
            for clip, text, score in zip((1, 2), ("a\tA van.", "b\tGirls."), scores, strict=True)
        )),
    ],
)  # fmt: skip
def test_every_layout_of_raters_gives_the_same_ratings(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode())

    assert read_ratings(tmp_path / name, REFERENCES).ratings == [VAN, GIRLS]


@pytest.mark.parametrize(
    "content",
    [
        lines({"id": 1, "candidates": ["A van.", "A bus."], "preferred": 0},
              {"id": 2, "candidates": ["Boys.", "Girls."], "preferred": 1}),
        'id,candidates,preferred\n1,"[""A van."", ""A bus.""]",0\n2,"[\'Boys.\', \'Girls.\']",1\n',
        "id,candidate_a,candidate_b,preferred\n1,A van.,A bus.,a\n2,Boys.,Girls.,B\n",
        "id,candidate_1,candidate_2,preferred\n1,A van.,A bus.,1\n2,Boys.,Girls.,2\n",
        "id,candidate_1,candidate_2,preferred\n1,A van.,A bus.,0\n2,Boys.,Girls.,1\n",
        "id,candidate_b,candidate_a,preferred\n1,A bus.,A van.,0\n2,Girls.,Boys.,1\n",
        "id,Caption 1,Caption 2,preferred\n1,A van.,A bus.,caption 1\n2,Boys.,Girls.,Caption 2\n",
        "id,candidate_a,candidate_b,preferred\n1,A van.,A bus.,candidate_a\n2,Boys.,Girls.,candidate_b\n",
    ],
)  # fmt: skip
def test_every_layout_of_preferences_gives_the_same_ones(content: str, tmp_path: Path) -> None:
    path = tmp_path / ("r.jsonl" if content[0] == "{" else "r.csv")
    path.write_text(content)

    assert read_ratings(path, REFERENCES).preferences == [
        Preference("1", ("A van.", "A bus."), 0), Preference("2", ("Boys.", "Girls."), 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ends", "values", "said"),
    [
        ("12", "02", "'preferred' must be 0 or 1, or text_1 or text_2, as another row has 0 (got '2')"),
        ("12", "13", "'preferred' must be 1 or 2, or text_1 or text_2 (got '3')"),
        ("ab", "11", "'preferred' must be a or b, or text_a or text_b (got '1')"),
        ("ab", "03", "'preferred' must be a or b, or text_a or text_b, or 0 or 1 (got '3')"),
    ],
)
def test_a_preference_in_an_unclear_code_is_an_error_that_says_the_codes(
    ends: str, values: str, said: str, tmp_path: Path
) -> None:
    rows = "".join(f"1,A van.,A bus.,{value}\n" for value in values)
    (tmp_path / "r.csv").write_text(f"id,text_{ends[0]},text_{ends[1]},preferred\n{rows}")

    with pytest.raises(ConfigError) as caught:
        read_ratings(tmp_path / "r.csv", REFERENCES)

    assert said in str(caught.value)


def test_missing_ratings_empty_texts_and_ties_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(lines(
        {"id": "1", "candidate": "A van.", "raters": [4, None, 2]},
        {"id": "e\u0301", "candidate": "A cafe.", "score": "n/a", "system": ""},
        {"id": "e\u0301", "candidate": "A cafe.", "score": "2.5", "system": ""},
        {"id": "1", "candidate": " ", "score": 1},
        {"id": "1", "candidates": ["a", "b"], "preferred": None},
        {"id": "1", "candidates": ["a", "b"], "preferred": float("nan")},
    ))  # fmt: skip

    rated = read_ratings(path, REFERENCES)

    assert rated.ratings[1] == Rating("\u00e9", "A cafe.", 2.5)
    assert (rated.ratings[0].score, np.isnan(rated.ratings[0].raters).tolist()) == (3.0, [False, True, False])
    assert rated.left_out == [
        "1 row with no rating left out.", "1 row with an empty text left out.", "2 rows with no preference left out."
    ]  # fmt: skip


def test_a_missing_score_leaves_a_rater_out_of_that_text_only() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(1, 6, (30, 3)).astype(float)
    table[::5, 1] = np.nan
    ratings = [Rating(str(n), "text", float(np.nanmean(row)), tuple(row)) for n, row in enumerate(table)]

    rows = {(row.level, row.against): row for row in agreement_rows("j", {"best": {"f1": table[:, 0]}}, ratings)}
    found = ceiling(ratings)

    assert rows["item", "rater"].correlations.n == 90 - 6
    assert ("item", "each") not in rows
    whole = ~np.isnan(table[:, 1])
    pearson = [
        np.corrcoef(table[:, 0], np.nanmean(table[:, 1:], axis=1))[0, 1],
        np.corrcoef(table[whole, 1], table[whole][:, [0, 2]].mean(axis=1))[0, 1],
        np.corrcoef(table[:, 2], np.nanmean(table[:, :2], axis=1))[0, 1],
    ]
    assert found is not None
    assert found["pearson"] == pytest.approx(np.mean(pearson))


def long_layout(table: np.ndarray, seed: int, lacking: int = 0) -> str:
    """Write rows of single raters in random order, without `lacking` of them."""
    cells = [
        f"1,text {text},r{rater},{score:g}\n" for (text, rater), score in np.ndenumerate(table) if np.isfinite(score)
    ]
    order = np.random.default_rng(seed).permutation(len(cells))[lacking:]
    return "id,candidate,rater,score\n" + "".join(cells[i] for i in order)


@pytest.mark.parametrize("lacking", [0, 1, 5])
def test_a_rater_is_the_same_in_every_text_whatever_the_order_of_rows_and_if_some_are_missing(
    lacking: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(40, 1))
    table = truth * [3, -3, 0.5] + rng.normal(size=(40, 3)) + [10, 50, 90]  # raters that differ in scale and direction
    apart = [np.corrcoef(table[:, r], np.delete(table, r, 1).mean(axis=1))[0, 1] for r in range(3)]
    (tmp_path / "r.csv").write_text(long_layout(table, seed=lacking, lacking=lacking))

    rated = read_ratings(tmp_path / "r.csv", REFERENCES)

    found = ceiling(rated.ratings)
    assert found is not None and rated.same_raters
    if not lacking:
        assert found["pearson"] == pytest.approx(np.mean(apart), abs=1e-4)
    columns = np.array([one.raters for one in rated.ratings])
    assert np.isnan(columns).sum() == lacking
    assert sorted(np.nanmean(columns, axis=0)) == pytest.approx([10, 50, 90], abs=1.5)


def test_a_missing_row_changes_the_ceiling_by_little(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    table = np.clip(np.round(rng.normal(3, 1.5, (60, 1)) + rng.normal(0, 0.4, (60, 3)) + [0, 1, 2]), 0, 8)
    found = []
    for seed, lacking in ((0, 0), (1, 0), (2, 1), (3, 1)):
        (tmp_path / "r.csv").write_text(long_layout(table, seed, lacking))
        found.append((ceiling(read_ratings(tmp_path / "r.csv", REFERENCES).ratings) or {})["spearman"])

    assert found[0] == pytest.approx(found[1]) and found[0] > 0.9
    assert found[2:] == pytest.approx([found[0]] * 2, abs=0.01)


def test_raters_of_a_crowd_are_not_told_apart_and_the_reason_is_said(tmp_path: Path) -> None:
    table = np.full((30, 12), np.nan)
    for text, row in enumerate(table):
        row[[text % 12, (text + 1) % 12, (text + 5) % 12]] = (1, 2, 3)
    (tmp_path / "r.csv").write_text(long_layout(table, seed=0))
    rated = read_ratings(tmp_path / "r.csv", REFERENCES)
    validation = Validation(REFERENCES, rated)

    found = validation.as_json()

    assert [sorted(one.raters) for one in rated.ratings] == [[1, 2, 3]] * 30
    assert found["ceiling"] is None
    (reason,) = [one for one in found["reasons"] if "against each rater" in one]
    assert "one of 12 raters, rated 6 of 30 texts" in reason


def test_rows_of_single_raters_without_a_rater_column_are_told(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("id,candidate,score\n1,A van.,3\n1,A van.,4\n1,A van.,5\n2,Girls.,1\n")

    rated = read_ratings(path, REFERENCES)

    assert len(rated.ratings) == 4
    assert rated.left_out == ["2 rows with the text of another row counted separately; a column rater joins them."]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "9", "candidate": "A van.", "score": 1}, "'9' has no reference (ids of references: '1', '2'"),
        ({"id": "1", "candidate": ["A van."], "score": 1}, "'candidate' must be text"),
        ({"id": "1", "candidate": "A van.", "score": "good"}, "'score' must be a number"),
        ({"id": "1", "candidate": "A van.", "score": True}, "'score' must be a number"),
        ({"id": "1", "candidate": "A van.", "score": float("inf")}, "'score' must be a number"),
        ({"id": "1", "candidate": "A van.", "raters": 3}, "'raters' must be a list of numbers"),
        ({"id": "1", "candidate": "A van.", "rater": "x", "score": 3}, "'x' rates this text a second time"),
        ({"id": "1", "candidates": ["a"], "preferred": 0}, "two texts"),
        ({"id": "1", "candidates": ["a", " "], "preferred": 0}, "two texts"),
        ({"id": "1", "candidates": ["a", "b"], "preferred": 0.5}, "'preferred' must be 0 or 1"),
        ({"id": "1", "candidates": ["a", "b"], "preferred": 2}, "'preferred' must be 0 or 1"),
        ({"id": 1.5, "candidate": "A van.", "score": 1}, "must be text or a whole number"),
    ],
)
def test_an_unusable_row_is_named_with_its_line(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(lines({"id": "1", "candidate": "A van.", "rater": "x", "score": 1}, row))

    with pytest.raises(ConfigError) as caught:
        read_ratings(path, REFERENCES)

    assert "r.jsonl:2" in str(caught.value)
    assert said in str(caught.value)


def test_an_unknown_column_is_named_with_the_columns_there_are_and_the_option_that_maps_it(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("clip,hypo,mark_x,mark_y\n1,A van.,3,4\n")

    for columns, option, looked_for in (
        (KeyedColumns(), "--text-column", "candidate, caption"), (KeyedColumns(None, "hypo"), "--score-column", "score")
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            read_ratings(path, REFERENCES, columns)
        for part in ("r.csv:2", looked_for, "the columns are clip, hypo, mark_x, mark_y", option):
            assert part in str(caught.value)
    (rating,) = read_ratings(path, REFERENCES, KeyedColumns(None, "hypo"), ["mark_x", "mark_y"]).ratings
    assert rating == Rating("1", "A van.", 3.5, (3.0, 4.0))


def test_references_and_ratings_take_the_same_of_several_ids_as_coco_has_them(tmp_path: Path) -> None:
    texts = {"7": "A man parks.", "8": "Girls walk."}
    rows = [{"image_id": int(clip), "id": 15 - int(clip), "caption": text} for clip, text in texts.items()]
    (tmp_path / "refs.json").write_text(json.dumps({"annotations": rows}))
    (tmp_path / "r.jsonl").write_text(lines(*({**row, "score": 1} for row in rows)))

    references = read_references(tmp_path / "refs.json")

    assert references == {clip: (text,) for clip, text in texts.items()}
    assert [one.clip for one in read_ratings(tmp_path / "r.jsonl", references).ratings] == ["7", "8"]
    by_id = KeyedColumns("id")
    assert [one.clip for one in read_ratings(tmp_path / "r.jsonl", references, by_id).ratings] == ["8", "7"]


def test_the_interval_is_said_to_be_that_of_the_accuracy_if_there_are_only_preferences(
    call: Call, tmp_path: Path
) -> None:
    (tmp_path / "refs.json").write_text(json.dumps(REFERENCES))
    pair = {"id": "1", "candidates": ["A van.", "Rain."], "preferred": 0}
    files = ("--references", tmp_path / "refs.json", "--ratings", tmp_path / "r.jsonl", "-m", "all_minilm_l6_v2")
    for rows, said in (
        ([pair], "interval of accuracy over"),
        ([pair, {"id": "1", "candidate": "x", "score": 1}, {"id": "2", "candidate": "y", "score": 2}],
         "interval of rho and accuracy over"),
    ):  # fmt: skip
        (tmp_path / "r.jsonl").write_text(lines(*rows))

        _, _, err = call("validate", *files)

        (line,) = [line for line in err.splitlines() if line.startswith("low, high")]
        assert said in line and len(line) <= 80


@pytest.mark.parametrize("option", ["--id-column", "--text-column"])
def test_a_column_that_no_file_has_is_refused_and_one_of_either_file_is_taken(
    option: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "refs.csv").write_text("id,caption\n1,A man parks.\n")
    (tmp_path / "r.csv").write_text("video,candidate,score\n1,A van.,3\n")
    files = ("--references", tmp_path / "refs.csv", "--ratings", tmp_path / "r.csv", "-m", "all_minilm_l6_v2")

    code, _, err = call("validate", *files, option, "vidoe")

    assert code == 2
    for part in (option, "'vidoe'", "refs.csv", "r.csv", "id, caption, video, candidate, score"):
        assert part in err.replace("\n", " ")
    right = {"--id-column": "video", "--text-column": "caption"}[option]
    assert call("validate", *files, option, right)[0] == 0


@pytest.mark.parametrize("header", ["worker_1,score_1,worker_2,score_2", "rating 1,annotator1,rating 2,expert-1"])
def test_of_columns_of_several_names_those_of_scores_are_the_ratings(header: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f"id,candidate,{header}\n1,A van.,3,3,5,5\n")
    scores = [n for n, name in enumerate(header.split(",")) if name[:5] in {"score", "ratin"}]
    expected = tuple((3.0, 3.0, 5.0, 5.0)[n] for n in scores)

    (rating,) = read_ratings(tmp_path / "r.csv", REFERENCES).ratings

    assert rating == Rating("1", "A van.", sum(expected) / 2, expected)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("worker_1,worker_2,expert_1", "several columns for the score: worker_1, worker_2, expert_1"),
        ("score_1,rating_1,score_2", "several columns for the score: score_1, score_2, rating_1"),
        ("human_score,rating,note", "several columns for the score: human_score, rating"),
    ],
)
def test_columns_of_which_any_may_be_the_score_are_named_with_the_option_that_chooses(
    header: str, named: str, tmp_path: Path
) -> None:
    (tmp_path / "r.csv").write_text(f"id,candidate,{header}\n1,A van.,3,4,5\n")

    with pytest.raises(ConfigError, match="--score-column") as caught:
        read_ratings(tmp_path / "r.csv", REFERENCES)

    assert f"{named}; the columns are" in str(caught.value)
    first, *_ = header.split(",")
    assert [one.score for one in read_ratings(tmp_path / "r.csv", REFERENCES, scores=[first]).ratings] == [3.0]
    with pytest.raises(ConfigError, match="no column 'marks'; the columns are id, candidate"):
        read_ratings(tmp_path / "r.csv", REFERENCES, scores=[first, "marks"])


@pytest.mark.parametrize("column", ["score", "raters", "candidate"])
def test_an_absent_key_is_a_missing_value_as_null_is(column: str, tmp_path: Path) -> None:
    row = {"id": "1", "candidate": "A van.", **({"raters": [3, 4]} if column == "raters" else {"score": 3})}
    lacking = {key: value for key, value in row.items() if key != column}
    found = []
    for partial in (lacking, {**lacking, column: None}):
        (tmp_path / "r.jsonl").write_text(lines(partial, row))
        found.append(read_ratings(tmp_path / "r.jsonl", REFERENCES))

    assert found[0] == found[1]
    assert (len(found[0].ratings), len(found[0].left_out)) == (1, 1)


def test_a_file_without_header_is_read_by_positions(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("1,A van.,3\n2,Girls.,4\n")

    assert read_ratings(path, REFERENCES, KeyedColumns("1", "2"), ["3"]).ratings == [
        Rating("1", "A van.", 3.0), Rating("2", "Girls.", 4.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "r.jsonl",
            lines({"id": "1", "references": ["a", "b c"], "text": "the story"}, {"id": "2", "references": ["d"]}),
        ),
        ("r.csv", 'id,references\n1,"[\'a\', \'b c\']"\n2,"[""d""]"\n'),
        ("r.csv", "id,reference_1,reference_2\n1,a,b c\n2,d,\n"),
        ("r.csv", "video_id,reference\n1,a\n1,b c\n2,d\n"),
    ],
)
def test_every_layout_of_several_references_gives_the_same_ones(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)

    assert read_references(tmp_path / name) == {"1": ("a", "b c"), "2": ("d",)}


@pytest.mark.parametrize("cell", ["[]", "[ ]", '"[""""]"'])
def test_an_empty_list_in_a_cell_is_an_empty_reference(cell: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f"id,references\n1,a\n2,{cell}\n")

    with pytest.raises(ConfigError, match=r"r\.csv:3: empty text of id '2'"):
        read_references(tmp_path / "r.csv")


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "1", "candidate": text, "score": 3} for text in ("A van.", "A bus.", "Rain.")],
        [{"id": "1", "candidate": "A van.", "score": 3}],
        [{"id": "1", "candidates": ["A van.", "A bus."], "preferred": 0}],
        [
            {"id": c, "candidate": t, "score": s}
            for c, t, s in (("1", "A van.", 3), ("2", "Rain.", 1), ("2", "Girls.", 5))
        ],
    ],
)
def test_constant_ratings_one_text_one_clip_and_one_pair_end_without_an_error_or_a_figure_of_nothing(
    rows: list[dict[str, Any]], call: Call, tmp_path: Path
) -> None:
    (tmp_path / "r.jsonl").write_text(lines(*rows))
    (tmp_path / "refs.jsonl").write_text(lines(*({"id": k, "references": v} for k, v in REFERENCES.items())))

    code, out, err = call("validate", "--references", tmp_path / "refs.jsonl", "--ratings", tmp_path / "r.jsonl", "-m",
                          "all_minilm_l6_v2", "--html", tmp_path / "page.html", "--format", "json")  # fmt: skip

    assert code == 0, err
    found = json.loads(out)
    assert [row for row in found["rows"] + found["preferences"] if row["low"] is not None] == []
    assert any("need 20 clips" in reason for reason in found["reasons"])
    assert "Warning" not in err
