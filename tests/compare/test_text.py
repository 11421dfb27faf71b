from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from stella_mteb.compare import words
from stella_mteb.compare.records import Comparison, Gap, Price, Score, Unranked
from stella_mteb.compare.text import render_comparison
from stella_mteb.files.tables import TableFormat
from tests.support.comparisons import (
    ALL,
    TYPES,
    compare_by_hand,
    hostile,
    score,
    system,
    ten_by_fifty,
    three_with_gaps,
    two_measured,
    two_published,
)

FORMS: list[TableFormat] = ["table", "md", "json", "csv"]


@pytest.fixture(autouse=True)
def _no_forced_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)


def width_of(line: str) -> int:
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in line)


def section(text: str, title: str) -> str:
    """The part of a terminal view that begins with this title."""
    return next(part for part in text.split("\n\n") if part.startswith(title))


def markdown_kinds(text: str) -> tuple[set[str], set[str]]:
    """The kinds of blocks and of inline pieces that a Markdown reader sees, by a parser that is not ours."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    pieces = {child.type for token in tokens for child in token.children or []}
    return {token.type.rpartition("_")[0] for token in tokens if token.type != "inline"}, pieces


def in_order(ranks: list[tuple[int, int]]) -> Comparison:
    """As many systems as ranks, on two tasks."""
    systems = [system(letter) for letter in "abcdefgh"[: len(ranks)]]
    cells = {
        (task, "STS"): [score(task, "STS", 0.9 - i / 100) for i, _ in enumerate(systems)] for task in ("one", "two")
    }
    return compare_by_hand(systems, cells, ranks=ranks)


# ------------------------------------------------------------------------------------------------------ the answer


@pytest.mark.parametrize(
    ("ranks", "answer"),
    [
        ([(1, 1), (2, 2)], "a is better than b"),
        ([(1, 2), (1, 2)], "These results cannot separate a and b"),
        ([(1, 1), (2, 3), (2, 3)], "a is better than each of the other 2"),
        ([(1, 2), (1, 2), (3, 3)], "At the top, these results cannot separate a and b"),
        ([(1, 2), (2, 3), (2, 3)], "a leads, but the results do not separate it from each of the others"),
        ([(1, 3), (1, 3), (1, 3)], "These results cannot separate a, b and c"),
        ([(1, 6)] * 6, "These results cannot separate a, b, c and 3 more"),
        ([(1, 1)], "a has no other system to be compared with"),
        ([], "No results to compare"),
    ],
)
def test_the_headline_agrees_with_the_ranks(ranks: list[tuple[int, int]], answer: str) -> None:
    assert words.headline(in_order(ranks)) == answer


def test_a_system_without_scores_has_no_rank_and_does_not_change_the_headline() -> None:
    comparison = in_order([(1, 2), (2, 3), (1, 3)])
    a, b, c = comparison.standings
    without = replace(c, mean=None, by_type={}, tasks=0)

    comparison = replace(comparison, standings=(a, replace(b, best_rank=2), without))

    assert words.headline(comparison) == "a leads, but the results do not separate it from each of the others"
    assert re.search(r" - +c +- +- +- +0 of 2", render_comparison(comparison, "table", 80))


def test_without_a_common_task_no_system_wins() -> None:
    a, b = system("a"), system("b")
    cells = {
        ("x", "STS"): [score("x", "STS", 0.9), Gap("not run")],
        ("y", "STS"): [Gap("not run"), score("y", "STS", 1)],
    }
    comparison = compare_by_hand([a, b], cells)

    shown = render_comparison(comparison, "table", 80)

    assert shown.startswith("a and b share no task that can be compared.")
    assert words.headline(comparison) == "No task has comparable scores for both systems"
    assert "No mean: no task has comparable scores for more than half of the systems." in shown
    assert re.search(r"1-2 +a +- +- +- +1 of 2", shown)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("systems", [0, 1])
def test_an_empty_comparison_is_shown(form: TableFormat, systems: int) -> None:
    assert render_comparison(in_order([(1, 1)] * systems), form, 80) or (form == "csv" and not systems)


# ----------------------------------------------------------------------------------------------------- a terminal


@pytest.mark.parametrize("build", ALL)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(build: Callable[[], Comparison], width: int) -> None:
    lines = render_comparison(build(), "table", width).splitlines()

    assert max(map(width_of, lines)) <= width


def test_the_leaderboard_has_ranks_means_borda_and_how_many_tasks_compare() -> None:
    comparison = three_with_gaps()
    first, *others = comparison.standings
    first = replace(first, borda=2, mean_by_type=0.6789, estimated=2, tasks=5)
    shown = render_comparison(replace(comparison, standings=(first, *others)), "table", 80)

    table = section(shown, "Leaderboard")

    rows = [re.split(r" {2,}", line.strip()) for line in table.splitlines() if re.match(r" ?[123]", line)]
    assert [(row[0], row[1], *row[3:]) for row in rows] == [
        ("1-2", "stella@8192", "67.89", "2", "5 of 9"),
        ("1-2", "stella@1024", "-", "-", "9 of 9"),
        ("3", "stella@256", "-", "-", "7 of 9"),
    ]
    text = " ".join(table.split())
    assert "over 7 of the 9 tasks" in text
    assert "All scores are measured here." in text
    assert "use estimates for 2 scores that 1 ranked system lacks" in text
    assert "these results cannot tell which place in it is right" in text


def test_unranked_systems_are_listed_below_with_the_reason() -> None:
    comparison = three_with_gaps()
    lost = system("lost", "self-reported")
    unranked = Unranked(lost, 2, 0.2, "has 2 of 9 tasks (22%), without STS1, STS2 and 5 more", ("STS1",))

    shown = render_comparison(
        replace(comparison, systems=(*comparison.systems, lost), rows=(), unranked=(unranked,)), "table", 80
    )

    assert "Unless a name says otherwise, its scores are measured here." in shown
    assert section(shown, "Not ranked").splitlines() == [
        "Not ranked: less than 80 % of the tasks",
        "lost (self-reported): has 2 of 9 tasks (22%), without STS1, STS2 and 5 more",
    ]


def test_means_have_two_decimals_and_are_of_the_common_tasks() -> None:
    comparison = three_with_gaps()
    rows = {row.task: row for row in comparison.rows if row.task not in {"STS2", "Retrieval3"}}

    shown = render_comparison(comparison, "table", 80)

    for i, one in enumerate(comparison.systems):
        values = [row.cells[i].value for row in rows.values() if isinstance(row.cells[i], Score)]
        assert len(values) == 7
        expected = f"{100 * sum(values) / 7:.2f}"
        assert re.search(rf"{re.escape(one.label)} +{re.escape(expected)} ", shown)


def test_types_are_aligned_columns() -> None:
    table = section(render_comparison(two_published(), "table", 80), "Mean by task type")

    head, rows = table.splitlines()[1:4], table.splitlines()[5:]
    assert [re.split(r" {2,}", line.strip()) for line in head] == [
        ["Pair"],
        ["Clas.", "Clus.", "Clas.", "Rera.", "Retr.", "STS", "Summ."],
        ["system", "(12)", "(11)", "(3)", "(4)", "(15)", "(10)", "(1)"],
    ]
    assert len(rows) == 2
    assert all(re.search(r"^ \S+ +(\d\d\.\d\d   ){6}\d\d\.\d\d$", row) for row in rows)
    assert len({len(row) for row in rows}) == 1


def test_types_have_full_names_in_a_wide_terminal() -> None:
    table = section(render_comparison(two_published(), "table", 200), "Mean by task type")

    assert re.search(r"Classification +Clustering +PairClassification .*\n system +\(12\) +\(11\) +\(3\)", table)


def test_types_that_do_not_fit_are_counted_with_a_pointer() -> None:
    table = section(render_comparison(two_published(), "table", 60), "Mean by task type")

    assert "2 more types: see --format md, or the page of --html FILE" in table
    assert all(len(re.findall(r"\d\d\.\d\d", row)) == 5 for row in table.splitlines()[-2:])


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_name_is_shortened_in_the_middle_to_one_line(width: int) -> None:
    long = [
        system(f"{name}-embedding-multilingual-mini-instruct-v2.5-with-a-very-long-name-{i}")
        for i, name in enumerate("ab")
    ]
    cells = {
        (f"{kind}{i}", kind): [score(f"{kind}{i}", kind, 0.5), score(f"{kind}{i}", kind, 0.4)]
        for i, kind in enumerate(TYPES)
    }

    shown = render_comparison(compare_by_hand(long, cells), "table", width)

    for title in ("Leaderboard", "Mean by task type"):
        a, b = section(shown, title).splitlines()[-2:]
        assert re.search(r" a-embe\S*-0 ", a)
        assert re.search(r" b-embe\S*-1 ", b)


def test_a_terminal_shows_the_first_of_many_and_names_the_option_for_all() -> None:
    systems = [system(f"m{i:02}") for i in range(20)]
    cells = {("x", "STS"): [score("x", "STS", 0.9 - i / 100) for i in range(20)]}
    comparison = compare_by_hand(systems, cells)

    board, duels = (section(render_comparison(comparison, "table", 80), title) for title in ("Leaderboard", "First"))

    assert [f"m{i:02}" in board for i in range(20)] == [True] * 20
    assert [f"m{i:02}" in duels for i in range(1, 20)] == [True] * 15 + [False] * 4
    assert duels.endswith("... and 4 more: see --format md, or the page of --html FILE")
    assert "m19" in render_comparison(comparison, "md").partition("First place")[2].partition("###")[0]


def test_every_gap_is_listed_with_its_reason() -> None:
    table = section(render_comparison(three_with_gaps(), "table", 80), "Gaps")

    assert table.splitlines()[1:] == [
        "- stella@256 on Retrieval3: another revision of the data: 89abcdef",
        "- stella@256 on STS2: not run",
        "- stella@8192 on STS2: another split: validation",
    ]


@pytest.mark.parametrize("form", ["table", "md"])
def test_a_reason_that_many_systems_share_is_told_once(form: TableFormat) -> None:
    systems = [system(letter) for letter in "abcdef"]
    whole = [score("one", "STS", 0.5) for _ in systems]
    cells = {("one", "STS"): whole}
    cells |= {(task, "STS"): [whole[0], *[Gap("on other data")] * 5] for task in ("two", "three")}
    comparison = compare_by_hand(systems, cells)

    shown = " ".join(render_comparison(comparison, form, 80).split())

    assert "5 systems on 2 tasks: on other data (b, c, d and 2 more; two and three)" in shown
    assert shown.count("on other data") == 1


def test_a_row_of_several_sources_names_the_revision_of_each() -> None:
    joined = ("33 scores measured by others, revision 0123", "8 scores self-reported, revision not stated")
    comparison = in_order([(1, 2), (1, 2)])
    mixed = replace(comparison.systems[0], joined=joined, revision=None)
    comparison = replace(comparison, systems=(mixed, comparison.systems[1]))

    sources = section(render_comparison(comparison, "table", 80), "Where the scores are from")

    assert f"organisation/a, {joined[0]}; {joined[1]}; measured here" in " ".join(sources.split())


def test_items_give_a_difference_an_interval_and_p() -> None:
    table = section(render_comparison(two_measured(), "table", 80), "all_minilm_l6_v2 minus")

    assert re.search(r"STS12 +\+2\.00 +\+1\.20 to \+2\.80 +< 0\.001 +3108 pairs", table)
    assert re.search(r"STS22 +\+0\.00 +-1\.00 to \+1\.00 +1\.000 +197 pairs", table)
    assert "NFCorpus" not in table


def test_of_many_systems_the_first_is_compared_with_each_other() -> None:
    comparison = ten_by_fifty()
    table = section(render_comparison(comparison, "table", 200), "First place against")

    rows = table.splitlines()[4:]
    assert len(rows) == 9
    first, *others = [one.system.label for one in comparison.standings]
    assert f"{first} minus each" in table
    assert [row.split()[0] for row in rows] == others


def test_costs_of_one_machine_name_it_once() -> None:
    table = section(render_comparison(three_with_gaps(), "table", 80), "Cost")

    assert table.startswith("Cost, measured on one machine (machine Xeon, 2 cores, dtype float32)")
    assert re.search(r"stella@8192 +\d\d\.\d\d +16,245 +366 +6\.7 GB +32\.8 kB +1\.54 B", table)


def test_costs_of_different_machines_name_it_in_each_row() -> None:
    table = section(
        render_comparison(three_with_gaps(machines=("Xeon", "Xeon", "H100")), "table", 120), "Cost, on different"
    )

    assert "not comparable" in table
    assert re.search(r"stella@256 +\d\d\.\d\d +Xeon", table)
    assert re.search(r"stella@8192 +\d\d\.\d\d +H100", table)


def test_an_unmeasured_cost_is_a_dash() -> None:
    comparison = two_measured()
    price = Price(comparison.systems[0], None, None, None, None, None, None, None)

    table = section(render_comparison(replace(comparison, prices=(price,)), "table", 80), "Cost")

    assert table.startswith("Cost, on a machine that is not stated")
    assert re.search(r"all_minilm_l6_v2 +65\.00( +-){5}$", table)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (999, "999 B"),
        (1024, "1.02 kB"),
        (999_600, "1 MB"),
        (32_768, "32.8 kB"),
        (6_700_000_000, "6.7 GB"),
        (4.1e15, "4,100 TB"),
    ],
)
def test_bytes_have_three_digits(value: float, text: str) -> None:
    assert words.in_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "+0.00"), (-0.00004, "+0.00"), (-0.0123, "-1.23"), (math.nan, "-"), (None, "-")]
)
def test_a_difference_has_a_sign_and_no_negative_zero(value: float | None, text: str) -> None:
    assert words.signed(value) == text


def test_a_row_of_several_sources_is_always_marked() -> None:
    systems = [system("a", "mixed"), system("b", "mixed"), system("c", "self-reported")]
    comparison = compare_by_hand(systems, {("t", "STS"): [score("t", "STS", value) for value in (0.5, 0.4, 0.3)]})

    table = section(render_comparison(comparison, "table", 80), "Leaderboard")

    assert "Unless a name says otherwise, its scores are self-reported." in table
    assert [re.split(r" {2,}", line.strip())[1] for line in table.splitlines()[-3:]] == ["a (mixed)", "b (mixed)", "c"]


# ------------------------------------------------------------------------------------------------------- programs


def test_json_is_one_strict_object_at_full_precision() -> None:
    comparison = three_with_gaps()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    content = json.loads(render_comparison(comparison, "json"), parse_constant=refuse)

    assert content["schema_version"] == 2
    assert content["headline"] == words.headline(comparison)
    assert [one["mean"] for one in content["standings"]] == [one.mean for one in comparison.standings]
    assert [one["difference"] for one in content["duels"]] == [one.difference for one in comparison.duels]
    task = next(one for one in content["tasks"] if one["task"] == "STS2")
    assert task["gaps"] == {"stella@256": "not run", "stella@8192": "another split: validation"}
    cell = comparison.rows[5].cells[1]
    assert isinstance(cell, Score)
    assert task["scores"]["stella@1024"]["value"] == cell.value
    assert task["scores"]["stella@1024"]["dataset_revision"] == "0123456789abcdef"
    assert content["systems"][2]["settings"] == {"embed_dim": 8192, "dtype": "float32"}
    assert content["prices"][0]["tokens_per_second"] == comparison.prices[0].tokens_per_second


def test_nan_is_null_in_json() -> None:
    comparison = two_measured()
    duel = replace(comparison.duels[0], p=math.nan, low=-math.inf)

    content = json.loads(render_comparison(replace(comparison, duels=(duel,)), "json"))

    assert (content["duels"][0]["p"], content["duels"][0]["low"]) == (None, None)


def test_the_means_can_be_recomputed_from_the_csv() -> None:
    comparison = three_with_gaps()

    rows = list(csv.DictReader(io.StringIO(render_comparison(comparison, "csv"))))

    assert len(rows) == len(comparison.systems) * len(comparison.rows)
    for standing in comparison.standings:
        own = [row for row in rows if row["system"] == standing.system.label]
        values = [float(row["score"]) for row in own if row["in_means"] == "yes"]
        assert sum(values) / len(values) == pytest.approx(standing.mean, abs=1e-15)
        of_sts = [float(row["score"]) for row in own if row["in_means"] == "yes" and row["type"] == "STS"]
        assert sum(of_sts) / len(of_sts) == pytest.approx(standing.by_type["STS"], abs=1e-15)


def test_a_csv_row_has_the_source_of_its_score_or_the_reason_of_the_gap() -> None:
    rows = list(csv.DictReader(io.StringIO(render_comparison(three_with_gaps(), "csv"))))

    whole = next(row for row in rows if (row["system"], row["task"]) == ("stella@1024", "STS2"))
    gap = next(row for row in rows if (row["system"], row["task"]) == ("stella@8192", "STS2"))
    assert (whole["split"], whole["subsets"], whole["languages"]) == ("test", "default", "eng")
    assert (whole["dataset_revision"], whole["mteb_version"], whole["source"]) == (
        "0123456789abcdef",
        "2.26.24",
        "STS2.json",
    )
    assert (whole["provenance"], whole["origin"]) == ("measured here", "results/stella@1024")
    assert json.loads(whole["settings"]) == {"dtype": "float32", "embed_dim": 1024}
    assert (gap["score"], gap["gap"], gap["in_means"]) == ("", "another split: validation", "no")


# -------------------------------------------------------------------------------------------------- hostile names


@pytest.mark.parametrize("form", FORMS)
def test_no_name_reaches_the_terminal_as_an_escape_code(form: TableFormat) -> None:
    shown = render_comparison(hostile(), form, 80)

    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)


def test_no_name_is_markup_in_markdown() -> None:
    blocks, pieces = markdown_kinds(render_comparison(hostile(), "md"))

    assert blocks <= {"heading", "bullet_list", "list_item", "paragraph", "table", "thead", "tbody", "tr", "th", "td"}
    assert pieces <= {"text", "text_special"}


def test_names_in_markdown_are_shown_literally() -> None:
    text = render_comparison(hostile(), "md")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    read = ["".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"]

    assert "a | b `rm` **x** [l](http://y) <http://y>" in read
    assert "</script><script>window.hacked=1</script>" in read
    assert "# heading" in read


def test_no_sentence_starts_a_block_in_markdown() -> None:
    notes = [
        "# heading",
        "1. one",
        "2) two",
        "- dash",
        "+ plus",
        "> quote",
        "=== rule",
        "    code",
        "--- rule",
        "1.5 B",
    ]
    text = render_comparison(replace(two_published(), notes=tuple(notes)), "md").partition("### Notes")[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)

    assert [token.content.replace("\\", "") for token in tokens if token.type == "inline"] == [n.strip() for n in notes]
    assert {token.type for token in tokens if token.nesting == 1} == {
        "bullet_list_open",
        "list_item_open",
        "paragraph_open",
    }


def test_no_cell_of_the_csv_is_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(render_comparison(hostile(), "csv"))))

    assert len({len(row) for row in rows}) == 1
    assert not [cell for row in rows for cell in row if cell[:1] in {"=", "+", "@"}]
    assert any("'=cmd()" in row for row in rows)


@pytest.mark.parametrize("form", FORMS)
def test_an_access_token_in_a_source_is_masked(form: TableFormat) -> None:
    token = "hf_" + "a" * 30
    comparison = two_measured()
    systems = tuple(replace(one, origin=f"https://user:{token}@example.org") for one in comparison.systems)

    shown = render_comparison(replace(comparison, systems=systems), form, 80)

    assert token not in re.sub(r"\s", "", shown)


def test_labels_that_look_alike_stay_distinct() -> None:
    a, b = system("x\x1by"), system("x y")
    comparison = compare_by_hand([a, b], {("t", "STS"): [score("t", "STS", 0.5), score("t", "STS", 0.25)]})

    shown = render_comparison(comparison, "table", 80)

    assert re.search(r"x y +50\.00\n +x y \(2\) +25\.00", section(shown, "Mean by task type"))


def test_views_and_report_need_neither_torch_nor_mteb() -> None:
    code = (
        "import sys, stella_mteb.compare.text, stella_mteb.compare.html; "
        "print([name for name in ('torch', 'mteb', 'transformers', 'pandas', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
