"""The HTML report as text and, if Chromium is installed, in a browser."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stella_mteb.compare import pictures, words
from stella_mteb.compare.html import render_report, write_report
from stella_mteb.compare.records import Comparison, Gap, ModelFacts, Score, Unranked
from stella_mteb.errors import StorageProblem
from stella_mteb.files.tables import plain
from tests.support.comparisons import (
    ALL,
    HOSTILE,
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
from tests.support.pages import Element, Visit, read, rows_of

slow = partial(pytest.param, marks=pytest.mark.slow)


# -------------------------------------------------------------------------------------------------------- as text


def page(comparison: Comparison) -> Element:
    return read(render_report(comparison))


def test_the_heading_and_the_title_answer_the_question() -> None:
    comparison = three_with_gaps()
    document = page(comparison)

    assert [one.text() for one in document.all("h1")] == [words.headline(comparison)]
    assert document.all("title")[0].text() == words.headline(comparison)
    assert all(duel.verdict in document.all("header")[0].text() for duel in comparison.duels)


def test_the_leaderboard_is_the_first_table_and_has_ranks_means_and_types() -> None:
    comparison = three_with_gaps()

    first = page(comparison).all("table")[0]

    assert first.attributes["id"] == "leaderboard-table"
    best = comparison.standings[0]
    assert rows_of(first)[0] == [
        "stella@8192",
        f"{100 * best.mean:.2f}",  # type: ignore[operator]
        f"{100 * best.mean:.2f} points",  # type: ignore[operator]
        "1–2",
        f"{100 * best.by_type['Retrieval']:.2f}",
        f"{100 * best.by_type['STS']:.2f}",
        "-",
        "-",
        "8 of 9",
    ]
    assert "over 7 of the 9 tasks" in first.all("caption")[0].text()


def with_two_unlike() -> Comparison:
    """One ranked system with an estimate, facts, and a system that is not ranked."""
    comparison = three_with_gaps()
    lost = system("lost", "self-reported")
    first, *others = comparison.standings
    row = next(row for row in comparison.rows if row.task == "STS2")
    rows = [
        replace(one, cells=(*one.cells, Gap("no score")))
        if one is not row
        else replace(
            row, cells=(row.cells[0], row.cells[1], Gap("another split: validation", estimate=0.61), Gap("no score"))
        )
        for one in comparison.rows
    ]
    return replace(
        comparison,
        systems=(*comparison.systems, lost),
        rows=tuple(rows),
        mean_tasks=(*comparison.mean_tasks, "STS2"),
        standings=(replace(first, estimated=1, mean_by_type=0.7123, borda=2), *others),
        unranked=(Unranked(lost, 2, 0.25, "has 2 of 8 tasks (25%), without STS1", tuple("abcdef")),),
        facts={
            one.label: ModelFacts(1_540_000_000, 512, 8192, "mit", True, "2024-07-12", 0.51)
            if one is comparison.systems[2]
            else ModelFacts(open=False)
            for one in (*comparison.systems, lost)
        },
    )


def test_facts_borda_and_the_mean_of_types_are_beside_the_mean() -> None:
    document = page(with_two_unlike())

    (first, *_, last) = rows_of(document.all("table")[0])

    assert first[4] == "1.54 B"
    assert first[7:] == ["71.23", "2", "8 of 9", "51 %", "512", "8,192", "mit", "2024-07-12"]
    assert last[0].startswith("lost")
    assert [last[1], last[3], last[9]] == ["-", "none", "2 of 9"]
    assert last[10:] == ["-", "-", "-", "closed", "-"]


def test_unranked_systems_are_listed_below_with_the_reason() -> None:
    section = next(one for one in page(with_two_unlike()).all("section") if one.attributes["id"] == "leaderboard")

    assert "Systems with scores on less than 80 % of the tasks are not ranked." in section.text()
    assert [one.text() for one in section.all("li")] == ["lost (self-reported): has 2 of 8 tasks (25%), without STS1"]
    assert "use estimates for 1 score that 1 ranked system lacks on the data of most others (stella@8192: 1)" in (
        section.text()
    )


def test_who_is_not_ranked_stands_beside_the_first_place_on_the_tasks_that_both_have() -> None:
    comparison = with_two_unlike()
    duel = replace(
        comparison.duels[0],
        second=comparison.unranked[0].system,
        tasks=2,
        difference=-0.01,
        low=-0.03,
        high=0.005,
        first_mean=0.7,
        second_mean=0.71,
    )

    table = page(replace(comparison, duels=(*comparison.duels, duel))).all("table", id="unranked-table")[0]

    ((name, *figures),) = rows_of(table)
    assert name.startswith("lost")
    assert figures[:4] == ["71.00", "70.00", "+1.00", "−0.50 to +3.00"]  # noqa: RUF001
    assert figures[4:] == ["2", "has 2 of 8 tasks (25%), without STS1"]


def test_intervals_and_p_are_said_to_be_adjusted_for_all_pairs() -> None:
    duels = next(one for one in page(three_with_gaps()).all("table") if one.attributes["id"] == "duels-table")

    assert "Interval and p are adjusted for all 3 pairs" in duels.all("caption")[0].text()
    assert [header.text().strip() for header in duels.all("th", scope="col")][2:4] == [
        "95\xa0% interval adjusted",
        "p adjusted",
    ]


@pytest.mark.parametrize("build", ALL)
def test_every_table_has_a_caption_and_headers_with_scope(build: Callable[[], Comparison]) -> None:
    for table in page(build()).all("table"):
        assert table.all("caption")[0].text().strip()
        assert all(header.attributes["scope"] == "col" for header in table.all("thead")[0].all("th"))
        assert all(
            [cell.attributes["scope"] for cell in row.all("th")] == ["row"] for row in table.all("tbody")[0].all("tr")
        )


@pytest.mark.parametrize("build", ALL)
def test_ids_are_unique_and_every_reference_has_its_target(build: Callable[[], Comparison]) -> None:
    document = page(build())
    ids = [one.attributes["id"] for one in document.all() if "id" in one.attributes]
    targets = [one.attributes["href"].removeprefix("#") for one in document.all("a")]
    labels = [one.attributes.get("aria-labelledby", "") for one in document.all()]

    assert len(set(ids)) == len(ids)
    assert {*targets, *" ".join(labels).split(), *(one.attributes["for"] for one in document.all("label"))} <= set(ids)


def test_the_page_has_language_viewport_landmarks_and_a_skip_link() -> None:
    document = page(two_published())

    assert document.all("html")[0].attributes["lang"] == "en"
    assert document.all("meta", name="viewport")[0].attributes["content"] == "width=device-width, initial-scale=1"
    assert all(len(document.all(landmark)) >= 1 for landmark in ("header", "nav", "main", "footer"))
    assert document.all("body")[0].all()[0].attributes == {"class": "skip", "href": "#leaderboard"}


@pytest.mark.parametrize("build", ALL)
def test_the_policy_allows_this_style_sheet_and_this_script_alone(build: Callable[[], Comparison]) -> None:
    text = render_report(build())
    policy = read(text).all("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    style, script = (
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for part in (text.split("<style>")[1].split("</style>")[0], text.split("<script>")[1].split("</script>")[0])
    )

    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{style}'",
        "script-src": f"'sha256-{script}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


@pytest.mark.parametrize("build", ALL)
def test_the_page_loads_nothing_and_executes_nothing_foreign(build: Callable[[], Comparison]) -> None:
    document = page(build())
    count = Counter(one.tag for one in document.all())
    attributes = [item for one in document.all() for item in one.attributes.items()]

    assert (count["script"], count["style"], count["link"]) == (1, 1, 1)
    assert not {"img", "iframe", "object", "embed", "form", "base", "image", "use", "foreignobject"} & set(count)
    assert not [name for name, _ in attributes if name.startswith("on") or name in {"style", "src", "xlink:href"}]
    hrefs = [value for name, value in attributes if name == "href"]
    assert all(value.startswith("#") for value in hrefs if value != "data:,")


def _named(texts: list[str]) -> Comparison:
    """A comparison of which every text is one of these, six all different."""
    a, b, task, kind, reason, other = texts
    systems = [replace(system(a), model=other), replace(system(b, **{kind: task}), origin=reason)]
    cells = {
        (task, kind): [replace(score(task, kind, 0.5), source=b, metric=other), score(task, kind, 0.25, a)],
        (other, reason): [Gap(reason), score(other, reason, 0.75, task)],
    }
    return replace(compare_by_hand(systems, cells, notes=texts), per_label={task: {a: [{"label": b, kind: other}]}})


def skeleton(document: Element) -> list[tuple[str, tuple[str, ...]]]:
    # Where a name may break, and how many of its parts and sources are told, depends on it; none has an attribute.
    told = {"wbr", "small", "li", "q"}
    return [(one.tag, tuple(one.attributes)) for one in document.all() if one.tag not in told or one.attributes]


@pytest.mark.fault(45, "text in the report; the page has the same elements")
@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from(HOSTILE), st.text("<>&\"'/=!-{}%#ab \n\x1b\u202e", min_size=1, max_size=30)),
        min_size=6,
        max_size=6,
        unique_by=lambda text: plain(text).strip(),
    )
)
def test_no_name_changes_the_structure_of_the_page(texts: list[str]) -> None:
    benign = skeleton(page(_named(["one", "two", "three", "four", "five", "six"])))

    assert skeleton(page(_named(texts))) == benign


def test_names_are_shown_without_control_characters() -> None:
    text = page(hostile()).text()

    for name in HOSTILE[:-1]:
        assert plain(name).strip() in text
    assert "{{7*7}}{% raw %}${7*7}" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text)


@pytest.mark.fault(31, "in a report: replaced")
def test_a_lone_surrogate_is_replaced_in_the_report(tmp_path: Path) -> None:
    write_report(hostile(), tmp_path / "report.html")

    assert " surrogate</li>" in (tmp_path / "report.html").read_text("utf-8")


def test_an_access_token_in_a_source_is_masked() -> None:
    token = "hf_" + "a" * 30
    comparison = two_measured()
    systems = tuple(replace(one, origin=f"https://user:{token}@example.org") for one in comparison.systems)

    assert token not in render_report(replace(comparison, systems=systems))


def test_the_same_comparison_gives_the_same_bytes() -> None:
    assert render_report(three_with_gaps()) == render_report(three_with_gaps())


def test_a_large_report_stays_small() -> None:
    assert len(render_report(ten_by_fifty()).encode()) < 300_000


def test_an_unwritable_report_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageProblem, match=r"report\.html"):
        write_report(two_published(), tmp_path / "file" / "report.html")


def test_every_score_is_shown_in_points_and_sorted_at_full_precision() -> None:
    comparison = three_with_gaps()
    table = page(comparison).all("table", id="tasks-table")[0]

    places = [comparison.systems.index(standing.system) for standing in comparison.standings]
    for row, shown in zip(comparison.rows, table.all("tbody")[0].all("tr"), strict=True):
        for i, cell in zip(places, shown.all("td")[:-1], strict=True):
            original = row.cells[i]
            if isinstance(original, Score):
                assert float(cell.attributes["data-value"]) == original.value
                assert f"{100 * original.value:.2f}" in cell.text()


@pytest.mark.fault(48, "the gap is shown with its reason")
def test_a_gap_is_shown_with_its_reason_and_sorts_last() -> None:
    document = page(three_with_gaps())
    table = document.all("table", id="tasks-table")[0]
    (row,) = [row for row in table.all("tr") if row.text().strip().startswith("STS2")]

    gaps = [cell for cell in row.all("td") if "gap" in cell.attributes.get("class", "")]
    assert [cell.attributes["data-value"] for cell in gaps] == ["", ""]
    reasons = [document.all(id=cell.all("a")[0].attributes["href"].removeprefix("#"))[0].text() for cell in gaps]
    assert reasons == ["another split: validation (1 score on STS2)", "not run (1 score on STS2)"]


def test_the_highest_score_is_marked_in_words_too_and_ties_are_all_marked() -> None:
    table = page(two_measured()).all("table", id="tasks-table")[0]

    marked = {row[0]: [" highest" in cell for cell in row[1:3]] for row in rows_of(table)}
    assert marked == {
        "STS12": [True, False],
        "STS13": [True, False],
        "STS14": [False, True],
        "STS22": [True, True],
        "NFCorpus": [True, False],
    }


def test_items_give_a_task_an_interval_and_p() -> None:
    rows = {row[0]: row[3:-1] for row in rows_of(page(two_measured()).all("table", id="tasks-table")[0])}

    assert rows["STS12"] == ["+2.00", "+1.20 to +2.80", "< 0.001", "3108 pairs"]
    assert rows["STS14"] == ["−1.00", "−1.50 to −0.50", "< 0.001", "3750 pairs"]  # noqa: RUF001 -- as typeset
    assert rows["NFCorpus"] == ["+1.00", "-", "-", "-"]


def test_costs_are_shown_with_the_mean_and_the_machine() -> None:
    document = page(three_with_gaps())
    table = document.all("table", id="price-table")[0]

    assert "on one machine: Xeon, 2 cores" in table.all("caption")[0].text()
    assert rows_of(table)[2][2:] == ["16,245", "366", "6.7 GB", "32.8 kB", "32.8 GB", "1.54 B", "float32"]


def test_costs_of_different_machines_are_marked_and_not_drawn() -> None:
    document = page(three_with_gaps(machines=("Xeon", "Xeon", "H100")))
    table = document.all("table", id="price-table")[0]

    assert "compare speed and memory only within one machine" in table.all("caption")[0].text()
    assert [row[-1] for row in rows_of(table)] == ["Xeon", "Xeon", "H100"]
    assert not document.all(id="speed-title")
    assert "speeds are comparable only on one machine, and these machines are different: H100; Xeon" in document.text()


def test_provenance_names_the_source_of_each_score() -> None:
    document = page(two_published())

    systems = rows_of(document.all("table", id="systems-table")[0])
    assert systems[0][:2] == ["stella_en_1.5B_v5@1024", "self-reported"]
    assert "d03be74b361d4eb24f42a2fe5bd2e29917df4604" in systems[0][2]
    details = document.all("details", **{"class": "sources"})
    assert [one.all("summary")[0].text() for one in details] == [
        "stella_en_1.5B_v5@1024: source of its 56 scores",
        "bge_en_icl[shots=3]: source of its 56 scores",
    ]
    assert [one.text() for one in details[1].all("li")] == ["source results/external at f4cc6c8", "mteb 2.26.24"]
    conditions = rows_of(document.all("table", id="conditions-table")[0])
    assert len(conditions) == 56
    assert conditions[0][1:] == ["test", "default", "eng", "0123456789abcdef", "main"]


def test_deviations_of_a_system_are_listed_with_their_tasks() -> None:
    comparison = three_with_gaps()
    first, *others = comparison.rows
    odd = replace(first.cells[1], dataset_revision=None, metric="other")  # type: ignore[type-var]
    rows = (replace(first, cells=(first.cells[0], odd, first.cells[2])), *others)

    details = page(replace(comparison, rows=rows)).all("details", **{"class": "sources"})

    assert [one.text() for one in details[1].all("li")][-2:] == [
        f"revision of the data not stated: {first.task}",
        f"metric other: {first.task}",
    ]
    assert [one.text().split()[0] for one in details[0].all("li")] == ["source"] * 7 + ["mteb"]


def test_a_folder_shared_by_sources_is_named_once() -> None:
    details = page(ten_by_fifty()).all("details", **{"class": "sources"})[1]

    folder = "results/organisation__model/d03be74b361d4eb24f42a2fe5bd2e29917df4604/experiments/dtype_bfloat16/"
    assert [one.text() for one in details.all("li")] == [
        f"folder {folder}",
        "file TASK.json for each task",
        "mteb 2.26.24",
    ]


def test_the_methods_state_level_resamples_and_seed() -> None:
    text = page(replace(two_measured(), alpha=0.01, resamples=1234, seed=99)).all("section", id="methods")[0].text()

    assert "The level is 0.01 (intervals of 99\xa0%), with 1,234 resamples and seed 99" in text


def test_labels_have_a_table_for_each_system() -> None:
    document = page(two_measured())

    tables = [one for one in document.all("table") if one.attributes["id"].startswith("labels-")]
    assert [rows_of(one) for one in tables] == [
        [["paraphrase", "48", "4.850", "0.684", "0.234"], ["negation", "24", "1.980", "0.916", "-"]]
    ] * 2


# ------------------------------------------------------------------------------------------------------- pictures


def figures(document: Element) -> list[Element]:
    return [svg for figure in document.all("figure") for svg in figure.all("svg")]


def drawn(comparison: Comparison, key: str) -> Element:
    (svg,) = [one for one in figures(page(comparison)) if one.all("title")[0].attributes["id"] == f"{key}-title"]
    return svg


@pytest.mark.parametrize("build", ALL)
def test_every_picture_has_a_title_and_a_description(build: Callable[[], Comparison]) -> None:
    pictures = figures(page(build()))

    assert pictures
    for svg in pictures:
        assert svg.attributes["role"] == "img"
        title, description = svg.attributes["aria-labelledby"].split()
        assert svg.all("title", id=title)[0].text()
        assert svg.all("desc", id=description)[0].text()


def test_a_difference_is_drawn_at_its_place_on_the_axis_with_its_interval() -> None:
    svg = drawn(two_measured(), "differences-1")
    ticks = {one.text(): float(one.attributes["x"]) for one in svg.all("text") if one.attributes["class"] == "quiet"}
    groups = {one.all("title")[0].text().split(":")[0]: one for one in svg.all("g")}
    point = ticks["+1"] - ticks["0"]

    circle, bar = groups["STS12"].all("circle")[0], groups["STS12"].all("line")[0]
    assert float(circle.attributes["cx"]) == pytest.approx(ticks["0"] + 2 * point, abs=0.11)
    assert float(bar.attributes["x1"]) == pytest.approx(ticks["0"] + 1.2 * point, abs=0.11)
    assert float(bar.attributes["x2"]) == pytest.approx(ticks["0"] + 2.8 * point, abs=0.11)
    assert list(groups) == ["STS12", "NFCorpus", "STS13", "STS22", "STS14"]


def test_the_shape_of_a_mark_shows_the_higher_system_and_significance() -> None:
    svg = drawn(two_measured(), "differences-1")
    groups = {one.all("title")[0].text().split(":")[0]: one for one in svg.all("g")}

    assert groups["STS12"].all("circle")[0].attributes["class"] == "mark first"
    assert groups["STS13"].all("circle")[0].attributes["class"] == "mark first hollow"
    assert groups["STS14"].all("polygon")[0].attributes["class"] == "mark second"
    assert groups["NFCorpus"].all("line")[0].attributes["class"] == "stem first"


def test_scores_without_items_are_drawn_without_intervals_and_a_note_says_so() -> None:
    document = page(two_published())
    svg = drawn(two_published(), "differences-1")

    assert len(svg.all("g")) == 56
    assert not [one for one in svg.all("line") if one.attributes["class"].startswith("bar")]
    assert "Predictions for single items are unavailable for all tasks: no mark has an interval." in document.text()


def test_of_many_systems_the_first_two_places_are_drawn() -> None:
    document = page(ten_by_fifty())

    titles = [one.text() for one in figures(document) for one in one.all("title")[:1]]
    first, second = (one.system.label for one in ten_by_fifty().standings[:2])
    assert titles == [f"{first} minus {second}, task by task", "Quality against speed"]


def test_three_systems_are_drawn_two_by_two() -> None:
    assert len([one for one in page(three_with_gaps()).all("title") if "task by task" in one.text()]) == 3


PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_the_pareto_front_has_the_undominated_systems(both: list[tuple[int, int]]) -> None:
    front = pictures.pareto(both)

    for i, (a, b) in enumerate(both):
        beaten = any((c >= a and d > b) or (c > a and d >= b) for c, d in both)
        assert (i in front) == (not beaten)
    assert [both[i][0] for i in front] == sorted((both[i][0] for i in front), reverse=True)


def test_the_pareto_front_is_filled_and_dominated_systems_are_hollow() -> None:
    comparison = three_with_gaps()
    slow = replace(comparison.prices[0], tokens_per_second=10.0)  # the lowest mean, now the slowest too
    svg = drawn(replace(comparison, prices=(slow, *comparison.prices[1:])), "speed")

    marks = {one.all("title")[0].text().split(":")[0]: one.all()[1].attributes["class"] for one in svg.all("g")}
    assert marks == {"stella@8192": "mark s2", "stella@1024": "mark s1", "stella@256": "mark s0 hollow"}


def test_faster_is_to_the_right_and_better_is_above() -> None:
    svg = drawn(three_with_gaps(), "speed")
    places = {one.text(): one for one in svg.all("text") if one.text().startswith("stella@")}
    fast, good = places["stella@256"].attributes, places["stella@8192"].attributes

    assert float(fast["x"]) > float(good["x"])
    assert float(fast["y"]) > float(good["y"])


@settings(max_examples=50, deadline=None)
@example([(262.0, 30.0, 1), (397.0, 30.0, 18)])
@given(st.lists(st.tuples(st.floats(80, 690), st.floats(30, 320), st.integers(1, 40)), min_size=1, max_size=12))
def test_labels_do_not_overlap(dots: list[tuple[float, float, int]]) -> None:
    texts = pictures._labelled([pictures._Dot(x, y, "m" * length, "", 0) for x, y, length in dots])

    boxes = []
    for one in read("".join(texts)).all("text"):
        x, width = float(one.attributes["x"]), 7 * len(one.text())
        left = x - width if one.attributes["text-anchor"] == "end" else x
        boxes.append((left, left + width, float(one.attributes["y"])))
    assert len(boxes) == len(dots)
    for i, (a, b, y) in enumerate(boxes):
        assert not [1 for c, d, z in boxes[:i] if a + 0.2 < d and c + 0.2 < b and abs(y - z) < 14.8]


def test_dimensions_of_one_model_with_equal_settings_share_a_line() -> None:
    svg = drawn(three_with_gaps(), "dimension")

    (line,) = svg.all("polyline")
    xs = [float(place.split(",")[0]) for place in line.attributes["points"].split()]
    assert xs[1] - xs[0] == pytest.approx((xs[2] - xs[1]) * 2 / 3, abs=0.2)  # 256 to 1024 is 2 doublings; to 8192, 3


def test_dimensions_with_other_settings_share_no_line() -> None:
    systems = [system("m@256", embed_dim=256, dtype="float32"), system("m@1024", embed_dim=1024, dtype="bfloat16")]
    comparison = compare_by_hand(systems, {("t", "STS"): [score("t", "STS", 0.5), score("t", "STS", 0.6)]})

    assert pictures.score_by_dimension(comparison) is None


@pytest.mark.parametrize("values", [(0.5, 0.5), (0.0, 1.0), (0.123456, 0.123457)])
def test_equal_and_extreme_scores_are_drawn(values: tuple[float, float]) -> None:
    comparison = three_with_gaps()
    systems, prices = comparison.systems[:2], comparison.prices[:2]
    cells = {("t", "STS"): [score("t", "STS", value) for value in values]}

    document = page(compare_by_hand(systems, cells, prices=prices))

    assert len(figures(document)) == 3
    for one in (one for svg in document.all("svg") for one in svg.all()):
        numbers = [
            one.attributes[key] for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy") if key in one.attributes
        ]
        numbers += re.split(r"[ ,]", one.attributes["points"]) if "points" in one.attributes else []
        assert all(-20 < float(number) < 740 for number in numbers)


# ------------------------------------------------------------------------------------------------------ a browser


@pytest.fixture
def visit(visit_file: Callable[..., Visit], tmp_path: Path) -> Callable[..., Visit]:
    """Opens a comparison's report."""

    def go(comparison: Comparison, width: int = 1280, **options: Any) -> Visit:
        write_report(comparison, tmp_path / "report.html")
        return visit_file(tmp_path / "report.html", width, **options)

    return go


def column(tab: Any, table: str, number: int) -> list[str]:
    cells = f"#{table} tbody tr:not([hidden]) > :nth-child({number})"
    return [re.sub(r"\s+", " ", text).strip() for text in tab.locator(cells).all_inner_texts()]


def sorts(tab: Any, table: str) -> list[str | None]:
    return [one.get_attribute("aria-sort") for one in tab.locator(f"#{table} thead th").all()]


@pytest.mark.parametrize("build", ALL)
def test_the_browser_makes_no_request_and_reports_no_error(
    build: Callable[[], Comparison], visit: Callable[..., Visit]
) -> None:
    seen = visit(build())
    for button in seen.page.locator("thead button:visible").all()[:20]:
        button.click()

    assert seen.requests == [seen.url]
    assert seen.complaints == []


@pytest.mark.fault(45, "text in the report; nothing runs in a browser")
def test_hostile_names_execute_nothing(visit: Callable[..., Visit]) -> None:
    seen = visit(hostile())
    for one in seen.page.locator("summary").all():
        one.click()
    for value in seen.page.eval_on_selector_all("#type option", "options => options.map(one => one.value)"):
        seen.page.select_option("#type", value)
    for one in seen.page.locator("#tasks-table thead button").all():
        one.click()

    assert seen.page.evaluate("'hacked' in window") is False
    assert seen.page.locator("img, iframe, object").count() == 0
    assert seen.page.locator("script").count() == 1


@pytest.mark.fault(45, "text in the report; nothing runs in a browser")
def test_the_policy_blocks_injected_content(visit: Callable[..., Visit]) -> None:
    seen = visit(two_measured())
    seen.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML(
              "beforeend",
              '<img src="https://example.org/x.png" onerror="window.hacked = 1">' +
              '<p id="styled" style="color: rgb(1, 2, 3)">x</p>'
            );
        }"""
    )
    seen.page.wait_for_timeout(200)

    assert seen.page.evaluate("'hacked' in window") is False
    assert seen.page.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(1, 2, 3)"
    for what in ("script", "image", "style"):
        assert any(what in one and "Content Security Policy" in one for one in seen.complaints), seen.complaints


def test_a_click_sorts_by_number_highest_first_then_lowest(visit: Callable[..., Visit]) -> None:
    tab = visit(two_published()).page
    difference = tab.locator("#tasks-table thead th").nth(3)
    differences = [a.value - b.value for a, b in (row.cells for row in two_published().rows)]  # type: ignore[union-attr]
    shown = [f"{100 * one:+.2f}".replace("-", "−") for one in sorted(differences, reverse=True)]  # noqa: RUF001

    difference.locator("button").click()
    assert column(tab, "tasks-table", 4) == shown
    assert sorts(tab, "tasks-table") == [None, None, None, "descending", None]

    difference.locator("button").click()
    assert column(tab, "tasks-table", 4) == shown[::-1]
    assert sorts(tab, "tasks-table") == [None, None, None, "ascending", None]
    assert tab.locator("#status").inner_text() == "Sorted by Difference first minus second, ascending"


def test_names_sort_in_natural_order(visit: Callable[..., Visit]) -> None:
    tab = visit(two_published()).page
    tab.locator("#tasks-table thead button").first.click()

    names = [name for name in column(tab, "tasks-table", 1) if name.startswith("ClusteringTask")]
    assert names == [f"ClusteringTask{i}" for i in range(1, 12)]
    assert sorts(tab, "tasks-table")[0] == "ascending"


def test_sorting_keeps_the_order_of_equal_rows_and_gaps_come_last_either_way(visit: Callable[..., Visit]) -> None:
    tab = visit(three_with_gaps()).page
    buttons = tab.locator("#tasks-table thead button")

    buttons.nth(3).click()  # the scores of stella@256: two gaps
    falling = column(tab, "tasks-table", 1)
    assert falling[-2:] == ["Retrieval3", "STS2"]
    buttons.nth(3).click()
    assert column(tab, "tasks-table", 1) == [*falling[-3::-1], "Retrieval3", "STS2"]

    buttons.nth(4).click()  # by type: within a type, as it was
    before = [*falling[-3::-1], "Retrieval3", "STS2"]
    stable = [task for kind in ("Retrieval", "STS") for task in before if task.startswith(kind)]
    assert column(tab, "tasks-table", 1) == stable


def test_ranks_sort_by_their_first_place(visit: Callable[..., Visit]) -> None:
    tab = visit(ten_by_fifty()).page
    rank = tab.locator("#leaderboard-table thead th[data-name=rank] button")
    shown = [words.rank(one).replace("-", "–") for one in ten_by_fifty().standings]

    tab.locator("#leaderboard-table thead button").nth(4).click()
    rank.click()
    assert column(tab, "leaderboard-table", 4) == shown
    rank.click()
    assert column(tab, "leaderboard-table", 4)[0] == "9–10"


def test_the_keyboard_reaches_and_sorts_every_column(visit: Callable[..., Visit]) -> None:
    tab = visit(three_with_gaps()).page
    headers = tab.locator("#tasks-table thead th")
    tab.locator("#tasks-table").locator("..").focus()  # the region of the table, which scrolls with the arrow keys

    reached = []
    for key in ("Enter", "Space", "Enter", "Space", "Enter"):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.closest('th').cellIndex"))
        tab.keyboard.press(key)
        assert headers.nth(reached[-1]).get_attribute("aria-sort") in {"ascending", "descending"}
        assert tab.evaluate("document.activeElement.closest('th').cellIndex") == reached[-1]
    assert reached == [0, 1, 2, 3, 4]
    assert sum(one is not None for one in sorts(tab, "tasks-table")) == 1


def test_the_filter_hides_the_tasks_of_other_types(visit: Callable[..., Visit]) -> None:
    tab = visit(three_with_gaps()).page
    assert tab.get_by_role("combobox", name="Task type").input_value() == ""

    tab.get_by_role("combobox", name="Task type").select_option("STS")
    assert column(tab, "tasks-table", 1) == ["STS1", "STS2", "STS3", "STS4", "STS5"]
    assert tab.locator("#tools output").inner_text() == "3 of 3 systems, 5 of 9 tasks"

    tab.locator("#tasks-table thead button").nth(2).click()
    assert {name[:3] for name in column(tab, "tasks-table", 1)} == {"STS"}

    tab.get_by_role("combobox", name="Task type").select_option(label="All types")
    assert len(column(tab, "tasks-table", 1)) == 9


def test_the_filter_works_on_the_tables_of_items_too(visit: Callable[..., Visit]) -> None:
    tab = visit(ten_by_fifty()).page
    tab.get_by_role("combobox", name="Task type").select_option("STS")

    assert {name[:7] for name in column(tab, "items-1", 1)} == {"STSTask"}
    assert tab.locator("#tools output").inner_text() == "10 of 10 systems, 7 of 50 tasks"


def means_by_hand(comparison: Comparison, kind: str) -> dict[str, float]:
    """By system, over the tasks of one type that are in the means."""
    rows = [row for row in comparison.rows if row.task in comparison.mean_tasks and row.type == kind]
    return {
        one.label: sum(row.cells[i].value for row in rows) / len(rows)  # type: ignore[union-attr]
        for i, one in enumerate(comparison.systems)
    }


def test_the_filter_recomputes_and_restores_means_and_ranks(visit: Callable[..., Visit]) -> None:
    comparison = ten_by_fifty()
    tab = visit(comparison).page
    before = [column(tab, "leaderboard-table", number) for number in (1, 2, 4)]
    means = means_by_hand(comparison, "STS")
    best = sorted(means, key=lambda label: -means[label])

    tab.select_option("#type", "STS")
    assert [name.split()[0] for name in column(tab, "leaderboard-table", 1)] == best
    assert column(tab, "leaderboard-table", 2) == [f"{100 * means[label]:.2f}" for label in best]
    assert column(tab, "leaderboard-table", 4) == [str(place) for place in range(1, 11)]
    assert "over only the 5 tasks of type STS" in tab.locator("#filtered").inner_text()
    circles = [float(one.get_attribute("cx")) for one in tab.locator("#leaderboard-table td .mark").all()]
    assert circles == sorted(circles, reverse=True)
    spans = [(means[label] - means[best[-1]]) / (means[best[0]] - means[best[-1]]) for label in best]
    assert circles == pytest.approx([12 + 166 * span for span in spans])

    tab.select_option("#type", "")
    assert [column(tab, "leaderboard-table", number) for number in (1, 2, 4)] == before
    assert not tab.locator("#filtered").is_visible()


def test_models_are_found_by_any_of_several_words(visit: Callable[..., Visit]) -> None:
    tab = visit(ten_by_fifty()).page
    tab.get_by_role("searchbox", name="Find models").fill("MODEL_3, model_7_")

    assert {name[19] for name in column(tab, "leaderboard-table", 1)} == {"3", "7"}
    assert tab.locator("#tasks-table thead th:visible").count() == 4  # task, both, type
    assert {name[19] for name in column(tab, "duels-table", 1)} == {"3", "7"}
    assert tab.locator("#tools output").inner_text() == "2 of 10 systems, 50 of 50 tasks"

    tab.get_by_role("searchbox", name="Find models").fill("")
    assert tab.locator("#tasks-table thead th:visible").count() == 12


def test_the_means_of_one_type_include_the_estimates(visit: Callable[..., Visit]) -> None:
    comparison = with_two_unlike()
    tab = visit(comparison).page

    tab.locator("#type").select_option("STS")

    of_sts = [row.cells[2] for row in comparison.rows if row.type == "STS"]
    values = [cell.value if isinstance(cell, Score) else cell.estimate for cell in of_sts]
    row = tab.locator("#leaderboard-table tbody tr", has_text="stella@8192")
    assert row.locator("td").first.inner_text() == f"{100 * sum(values) / 5:.2f}"  # type: ignore[arg-type]


def test_columns_can_be_chosen(visit: Callable[..., Visit]) -> None:
    tab = visit(three_with_gaps()).page
    tab.locator("#columns summary").click()
    shown = tab.locator("#leaderboard-table thead th:visible")

    assert shown.count() == 9
    tab.get_by_role("checkbox", name="Rank", exact=True).uncheck()
    assert shown.count() == 8
    assert tab.locator("#leaderboard-table tbody td:visible").count() == 21
    tab.get_by_role("checkbox", name="Rank", exact=True).check()
    assert shown.count() == 9


def test_any_system_can_be_compared_with_all_others(visit: Callable[..., Visit]) -> None:
    comparison = ten_by_fifty()
    duels = [replace(duel, lacking=i % 3, apart=i % 2) for i, duel in enumerate(comparison.duels)]
    comparison = replace(comparison, duels=tuple(duels))
    tab = visit(comparison).page
    chosen = comparison.standings[4].system
    expected = {}
    for duel in comparison.duels:
        if chosen in {duel.first, duel.second}:
            first = duel.first is chosen
            other = duel.second if first else duel.first
            turn = 1 if first else -1
            low, high = sorted((turn * duel.low, turn * duel.high))  # type: ignore[operator]
            won, lost = (duel.wins, duel.losses) if first else (duel.losses, duel.wins)
            figures = [words.signed(turn * duel.difference), words.interval(low, high), "0.864", "not significant"]  # type: ignore[operator]
            left = words.left_out(duel) or "-"
            expected[other.label] = [*figures, str(duel.tasks), str(won), str(duel.ties), str(lost), left]

    tab.get_by_role("combobox", name="Compare").select_option(label=chosen.label)

    names, *columns = (column(tab, "duels-table", number) for number in range(1, 11))
    assert len(names) == 9
    for name, *row in zip(names, *columns, strict=True):
        assert [text.replace("−", "-") for text in row] == expected[name.split()[0]]  # noqa: RUF001
    assert tab.locator("#duels-table caption").inner_text().startswith(f"{chosen.label} minus each of the others")


def test_a_bar_that_does_not_reach_the_first_place_is_a_significant_difference() -> None:
    comparison = ten_by_fifty()
    first = comparison.standings[0].system
    duels = [
        replace(duel, p_adjusted=0.001, low=0.03, high=0.05)
        if duel.second.label.startswith("organisation_model_0")
        else replace(duel, low=-0.01, high=0.05)
        for duel in comparison.duels
    ]
    strips = pictures.strips(replace(comparison, duels=tuple(duels)))
    assert strips is not None

    for standing in comparison.standings[1:]:
        row = read(strips.rows[standing.system.label])
        place, bar = row.all("line")
        (mark,) = row.all("circle")
        ends = [float(bar.attributes[end]) for end in ("x1", "x2")]
        behind = standing.system.label.startswith("organisation_model_0")
        assert (max(ends) < float(place.attributes["x1"])) == behind
        assert ("hollow" in mark.attributes["class"]) != behind
    (own,) = read(strips.rows[first.label]).all("line")
    (mark,) = read(strips.rows[first.label]).all("circle")
    assert mark.attributes["cx"] == own.attributes["x1"]


def test_the_mean_is_the_second_column_and_visible_on_a_phone(visit: Callable[..., Visit]) -> None:
    tab = visit(ten_by_fifty(), 400).page

    head = tab.locator("#leaderboard-table thead th").nth(1)
    cell = tab.locator("#leaderboard-table tbody td").first
    assert head.inner_text().strip().startswith("Mean")
    for box in (head.bounding_box(), cell.bounding_box()):
        assert box["x"] + box["width"] <= 400


def test_the_common_part_of_all_names_is_shown_once() -> None:
    comparison = two_published()
    labels = [f"{one.model} (self-reported, shots={i})" for i, one in enumerate(comparison.systems)]
    cells = {(row.task, row.type): row.cells for row in comparison.rows}
    systems = [replace(one, label=label) for one, label in zip(comparison.systems, labels, strict=True)]

    document = page(compare_by_hand(systems, cells))  # type: ignore[arg-type]

    assert document.all("table")[0].text().count("self-reported") == 1
    heads = [row.all("th")[0] for row in document.all("tbody")[0].all("tr")]
    assert [one.all("strong")[0].text() for one in heads] == ["stella_en_1.5B_v5", "bge_en_icl"]
    assert [one.all("small")[0].text() for one in heads] == ["organisation · shots=0", "organisation · shots=1"]


def hundred() -> Comparison:
    """A hundred systems on 41 tasks, with long names."""
    draw = random.Random(4)
    systems = [
        system(f"organisation-{i}/a-rather-long-model-name-v{i} (measured by others)", "measured by others")
        for i in range(100)
    ]
    cells = {}
    for number in range(41):
        kind = list(TYPES)[number % 7]
        cells[f"{kind}Task{number}", kind] = [score(f"{kind}Task{number}", kind, draw.random()) for _ in systems]
    return compare_by_hand(systems, cells)


def test_a_hundred_systems_stay_under_a_megabyte_and_respond(visit: Callable[..., Visit]) -> None:
    comparison = hundred()
    assert len(render_report(comparison).encode()) < 1_000_000

    tab = visit(comparison).page
    took = tab.evaluate(
        """() => {
            const start = performance.now();
            const choice = document.getElementById("type");
            choice.value = "STS";
            choice.dispatchEvent(new Event("change"));
            document.body.getBoundingClientRect();
            window.scrollTo(0, document.body.scrollHeight / 2);
            return performance.now() - start;
        }"""
    )
    assert took < 1000
    assert len(column(tab, "leaderboard-table", 1)) == 100


@pytest.mark.parametrize("build", ALL)
@pytest.mark.parametrize("width", [320, 400, 1280])
def test_the_page_never_scrolls_sideways(
    build: Callable[[], Comparison], width: int, visit: Callable[..., Visit]
) -> None:
    tab = visit(build(), width).page
    for one in tab.locator("summary").all():
        one.click()

    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.getElementById('tasks-table').parentElement.scrollWidth") >= 300


def test_dark_follows_the_reader_and_print_is_light(visit: Callable[..., Visit]) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = (visit(two_measured(), color_scheme=scheme).page for scheme in ("light", "dark"))

    assert light.evaluate(paper) == "rgb(255, 255, 255)"
    assert dark.evaluate(paper) == "rgb(20, 23, 27)"
    dark.emulate_media(media="print")
    assert dark.evaluate(paper) == "rgb(255, 255, 255)"
    assert not dark.locator("nav").is_visible()
    assert not dark.locator("#tools").is_visible()
    assert dark.locator("#tasks-table").is_visible()


def test_the_page_is_readable_without_its_script(visit: Callable[..., Visit]) -> None:
    tab = visit(three_with_gaps(), java_script_enabled=False).page

    assert tab.locator("button").count() == 0
    assert not tab.locator("#tools").is_visible()
    assert len(column(tab, "tasks-table", 1)) == 9


def test_the_skip_link_appears_with_the_first_tab(visit: Callable[..., Visit]) -> None:
    tab = visit(two_measured()).page
    skip = tab.locator("a.skip")
    assert skip.bounding_box()["y"] < 0

    tab.keyboard.press("Tab")
    tab.wait_for_timeout(50)

    assert skip.bounding_box()["y"] >= 0
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#leaderboard")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("build", [two_measured, three_with_gaps, *map(slow, (two_published, ten_by_fifty, hostile))])
def test_axe_finds_no_barrier(build: Callable[[], Comparison], scheme: str, visit: Callable[..., Visit]) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs the extra: pip install 'stella-mteb[browser]'"
    )
    tab = visit(build(), color_scheme=scheme).page
    for one in tab.locator("summary").all():
        one.click()

    found = axe.Axe().run(tab).response["violations"]

    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
