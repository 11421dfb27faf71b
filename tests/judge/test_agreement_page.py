"""The page of `validate`: the answer at its top, its pictures and tables; in a browser if Chromium is installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from stella_mteb.judge.agreement_page import render_page, write_page
from stella_mteb.judge.agreement_words import advice
from stella_mteb.judge.published import published_figures
from stella_mteb.judge.ratings import Preference, Rated, Rating
from stella_mteb.judge.validation import Validation
from tests.support.comparisons import HOSTILE
from tests.support.judging import made_up_ratings
from tests.support.pages import Element, Visit, read, rows_of

Found = dict[str, Any]
NOISE = {"coarse": 1.2, "precision": 0.3, "f1": 0.305, "hm_cf": 2.0, "order": 1.0, "rouge_1_recall": 4.0}


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    """Scores of measures that differ in how far they are from what was rated; order is undefined for some texts."""
    rng, quality = np.random.default_rng(0), made_up_ratings()[1]
    shared = rng.normal(size=len(quality))
    own = {
        measure: quality + spread * (shared if measure in {"precision", "f1"} else rng.normal(size=len(quality)))
        for measure, spread in NOISE.items()
    }
    own["order"][::4] = np.nan
    return own | {"consistency": np.ones(len(quality))}


def validation_of(values: dict[str, np.ndarray], judges: list[str]) -> Validation:
    ratings, _ = made_up_ratings()
    validation = Validation({rating.clip: ("a text",) * 9 for rating in ratings}, Rated(ratings))
    for number, judge in enumerate(judges):
        modes = {"best": values, "mean": values, "first": {name: -own for name, own in values.items()}}
        if number:
            modes["best"] = {name: np.roll(own, 1) for name, own in values.items()}
        validation._of_ratings[judge] = modes  # type: ignore[assignment]
    return validation


@pytest.fixture(scope="module")
def found(values: dict[str, np.ndarray]) -> Found:
    return {**validation_of(values, ["minilm"]).as_json(), "published": published_figures("vatex_eval")}


@pytest.fixture(scope="module")
def hostile(values: dict[str, np.ndarray]) -> Found:
    return {**validation_of(values, HOSTILE[:2]).as_json(), "published": []}


def figure(document: Element, key: str) -> Element:
    return next(
        one for one in document.all("svg") if one.attributes.get("aria-labelledby") == f"{key}-title {key}-desc"
    )


def dots(picture: Element) -> dict[str, tuple[float, float]]:
    """The drawn value by name, and its place on the axis."""
    drawn = {}
    for group in picture.all("g"):
        name, told = re.fullmatch(r"(.*): (\S+).*", group.all("title")[0].text()).groups()  # type: ignore[union-attr]
        (mark,) = [one for one in group.all() if "mark" in one.attributes.get("class", "")]
        x = mark.attributes.get("cx") or np.mean([float(x) for x in re.findall(r"(\S+),", mark.attributes["points"])])
        drawn[name] = (float(told.replace("\N{MINUS SIGN}", "-")), float(x))
    return drawn


# -------------------------------------------------------------------------------------------------------- as a file


def test_the_heading_names_the_measure_with_the_highest_rho_and_those_that_the_test_cannot_separate(
    found: Found, values: dict[str, np.ndarray]
) -> None:
    gold = [rating.score for rating in made_up_ratings()[0]]
    rho = {name: spearmanr(own, gold).statistic for name, own in values.items() if name not in {"order", "consistency"}}

    document = read(render_page(found))

    assert max(rho, key=lambda name: rho[name]) == "precision"
    assert document.all("h1")[0].text() == (
        f"Use faithfulness: it agrees with people best (rho {rho['precision']:.3f}); f1 cannot be told apart from it"
    )
    assert "People rated 120 texts of 40 clips." in document.text()
    assert "To rank the 3 systems" not in document.text()  # there no measure is better
    rows = [
        row | {"spearman": 0.1 if row["measure"] == "precision" else row["spearman"]}
        if row["level"] == "system"
        else row
        for row in found["rows"]
    ]
    assert "rho of their means 1.000, where faithfulness has 0.100" in read(render_page({**found, "rows": rows})).text()


def test_a_measure_that_is_undefined_for_some_texts_is_never_the_advice(found: Found) -> None:
    best = [
        row | ({"spearman": 0.999} if row["measure"] == "order" else {})
        for row in found["rows"]
        if row["level"] == "item"
    ]

    assert advice({**found, "rows": best}).startswith("Use faithfulness")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spearman": 0.2, "low": -0.01, "high": 0.4}, "No measure agrees with people for certain"),
        ({"spearman": 0.2, "low": None, "high": None}, "Too few clips to be sure"),
        ({"spearman": None, "low": None, "high": None}, "Nothing tells the measures apart"),
    ],
)
def test_the_advice_claims_no_more_than_the_interval(change: Found, said: str, found: Found) -> None:
    assert advice({**found, "rows": [row | change for row in found["rows"]]}).startswith(said)


def test_preferences_alone_give_the_measure_with_the_highest_accuracy() -> None:
    rng = np.random.default_rng(1)
    validation = Validation(
        {str(n): ("a text",) for n in range(30)},
        Rated([], [Preference(str(n), ("a", "b"), n % 2) for n in range(30)]),
    )
    right = np.array([[1, 0], [0, 1]] * 15, dtype=float).ravel()
    validation._of_preferences["minilm"] = {"best": {"coarse": rng.normal(size=60), "recall": right}}

    found = {**validation.as_json(), "published": []}

    assert advice(found) == "Use coverage: it prefers what people prefer most often (accuracy 1.000)"
    assert dots(figure(read(render_page(found)), "preferences"))["coverage"][0] == 1


def test_every_level_is_drawn_with_the_rho_of_its_rows_on_an_axis_of_its_own(found: Found) -> None:
    picture = figure(read(render_page(found)), "levels")
    drawn: dict[str, list[tuple[float, float]]] = {}
    for level, group in zip(["item"] * 6 + ["clip"] * 6 + ["system"] * 6, picture.all("g"), strict=True):
        alone = Element("svg", {}, [group])
        drawn.setdefault(level, []).extend(dots(alone).values())

    for level, places in drawn.items():
        rows = [
            row for row in found["rows"] if (row["level"], row["against"], row["references"]) == (level, "mean", "best")
        ]
        assert sorted(value for value, _ in places) == pytest.approx(
            sorted(row["spearman"] for row in rows if row["spearman"] is not None), abs=6e-4
        )
        if len({value for value, _ in places}) > 1:
            assert np.corrcoef(*np.transpose(places))[0, 1] == pytest.approx(1, abs=1e-4)
    assert f"raters {found['ceiling']['spearman']:.3f}" in picture.text()


@pytest.mark.parametrize(("key", "references", "mode"), [("published-1", "9", "best"), ("published-2", "1", "first")])
def test_published_figures_stand_among_ours_of_the_same_references_and_raters(
    key: str, references: str, mode: str, found: Found
) -> None:
    drawn = dots(figure(read(render_page(found)), key))
    others = {row["metric"]: row["spearman"] for row in found["published"] if row["references"] == references}
    ours = {
        row["measure"]: row["spearman"]
        for row in found["rows"]
        if (row["level"], row["against"], row["references"]) == ("item", "each", mode)
    }

    assert {name: drawn[name][0] for name in others} == pytest.approx(others)
    assert drawn["hm_cf"][0] == pytest.approx(ours["hm_cf"], abs=6e-4)
    assert [value for value, _ in drawn.values()] == sorted((value for value, _ in drawn.values()), reverse=True)


def test_published_figures_with_other_references_are_not_drawn_beside_ours(found: Found) -> None:
    document = read(render_page({**found, "sizes": found["sizes"] | {"references": 5}}))

    drawn = [one.attributes["aria-labelledby"].split()[0] for one in document.all("svg")]
    assert drawn == ["levels-title", "published-2-title"]
    assert "NV-Embed-v2" in document.text()


def test_the_tables_have_the_figures_and_the_gaps_have_reasons(found: Found) -> None:
    document = read(render_page(found))
    (table,) = [
        one
        for one in document.all("table")
        if "against the mean of the raters" in one.text() and "Over all" in one.text()
    ]
    rows = {row[0]: row for row in rows_of(table) if row[1] == "best"}
    (row,) = [
        row
        for row in found["rows"]
        if (row["measure"], row["level"], row["against"], row["references"]) == ("coarse", "item", "mean", "best")
    ]

    assert rows["coarse"][2:6] == [f"{row[name]:.3f}" for name in ("spearman", "kendall_b", "kendall_c", "pearson")]
    assert rows["consistency"][2:6] == ["-"] * 4
    assert "No correlations of consistency: it is 1 for every text" in document.text()
    assert "order is defined for 90 of 120 texts (it needs two sentences on both sides)" in document.text()


def test_reasons_name_few_clips_few_systems_equal_ratings_and_missing_raters() -> None:
    ratings = [
        Rating("1", "a", 3.0, (3.0,), "x"), Rating("2", "b", 3.0, (3.0, 3.0), None), Rating("3", "c", 3.0, (), "y")
    ]  # fmt: skip
    validation = Validation({one.clip: ("a text",) for one in ratings}, Rated(ratings))

    said = " ".join(validation.as_json()["reasons"])

    for part in (
        "need 20 clips, and these are 3", "every text is rated 3", "every clip has one text",
        "1 of 3 rows name no system", "2 of 3 texts lack one of the 2 raters",
    ):  # fmt: skip
        assert part in said


# ------------------------------------------------------------------------------------------------------ a browser

Go = Callable[..., Visit]


@pytest.fixture
def visit(visit_file: Go, tmp_path: Path) -> Go:
    """Opens a page of `validate`."""

    def go(found: Found, width: int = 1280, **options: Any) -> Visit:
        write_page(tmp_path / "page.html", found)
        return visit_file(tmp_path / "page.html", width, **options)

    return go


def test_hostile_names_execute_nothing_and_read_as_they_are(hostile: Found, visit: Go) -> None:
    seen = visit(hostile)

    assert seen.page.evaluate("'hacked' in window") is False
    assert (seen.requests, seen.complaints) == ([seen.url], [])
    assert HOSTILE[0] in seen.page.inner_text("header")


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_never_scrolls_sideways(width: int, found: Found, hostile: Found, visit: Go) -> None:
    for own in (found, hostile):
        assert visit(own, width).page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_works_from_the_keyboard(found: Found, visit: Go) -> None:
    tab = visit(found).page
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the pictures"
    tab.locator('#table-1 thead button:has-text("tau-b")').focus()
    tab.keyboard.press("Enter")

    shown = tab.locator("#table-1 tbody td:nth-child(4)").all_inner_texts()
    sorted_by = [float(text.replace("\N{MINUS SIGN}", "-")) for text in shown if text != "-"]
    assert sorted_by == sorted(sorted_by, reverse=True)


def test_a_printout_is_light_and_has_the_pictures(found: Found, visit: Go) -> None:
    tab = visit(found, color_scheme="dark").page
    paper = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(paper) == "rgb(20, 23, 27)"
    tab.emulate_media(media="print")

    assert tab.evaluate(paper) == "rgb(255, 255, 255)"
    assert tab.locator("figure svg").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(scheme: str, found: Found, visit: Go) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs the extra: pip install 'stella-mteb[browser]'"
    )

    violations = axe.Axe().run(visit(found, color_scheme=scheme).page).response["violations"]

    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in violations] == []
