"""The judge's page: as a file, and in a browser if Chromium is installed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_mteb.errors import StorageProblem
from stella_mteb.judge.inputs import read_candidates, read_references
from stella_mteb.judge.judge import Judgement, TextVectors, distinct_texts, judge_all, text_and_sentences
from stella_mteb.judge.matches import Matches, chance_level, match_all
from stella_mteb.judge.page import JudgedClips, render_page, write_page
from stella_mteb.judge.ranking import Results
from tests.conftest import SHARED, Call, needs_shared
from tests.support.comparisons import HOSTILE
from tests.support.judging import GIVEN, PREDICTIONS, REFERENCES, candidate, of_clips, some_scores
from tests.support.pages import Visit, data_of, read, rows_of

Page = tuple[Results, JudgedClips]


@pytest.fixture(scope="module")
def judged(minilm: Any) -> Page:
    """Two models; the good one tells clip 001 out of order."""
    good, bad = (candidate(slug, dict(texts)) for slug, texts in PREDICTIONS.items())
    good.texts["002"] = "Two kids stack red bricks into a tower. The dog never knocks it over."
    good.texts["001"] = "They reach the port. A man is driving a car. A woman behind him reads out a map."
    bad.texts["004"] = "The stock market fell."
    candidates = [good, bad]
    judgements = list(judge_all(minilm, "", GIVEN, candidates))
    vectors = TextVectors(minilm, "", distinct_texts(GIVEN, candidates))
    clips = JudgedClips(
        "minilm", GIVEN, judgements, match_all(vectors, GIVEN, candidates), chance_level(vectors, GIVEN, candidates)
    )
    return results_of(judgements), clips


def results_of(judgements: list[Judgement]) -> Results:
    return of_clips(
        {"minilm": {one.candidate.slug: {clip: own.hm_cf for clip, own in one.scores.items()} for one in judgements}}
    )


def made_up(references: dict[str, tuple[str, ...]], texts: dict[str, dict[str, str]], seed: int = 0) -> Page:
    """Texts with figures drawn at random."""
    generator = np.random.default_rng(seed)
    judgements = [
        Judgement(candidate(slug, own), some_scores(seed + number, own))
        for number, (slug, own) in enumerate(texts.items())
    ]

    def drawn(clip: str, text: str) -> Matches:
        count, of = len(text_and_sentences(text)) - 1, len(text_and_sentences(references[clip][0])) - 1
        cosines = generator.uniform(0, 1, count).astype(np.float32)
        displaced = np.flatnonzero(generator.uniform(size=count) < 0.2)
        contradicting, disputed = (np.flatnonzero(generator.uniform(size=count) < 0.05) for _ in range(2))
        recalled = generator.uniform(0, 1, of).astype(np.float32)
        return Matches(0, generator.integers(of, size=count), cosines, displaced, contradicting, disputed, recalled)

    matches = {slug: {clip: drawn(clip, text) for clip, text in own.items()} for slug, own in texts.items()}
    return results_of(judgements), JudgedClips("minilm", references, judgements, matches, 0.5)


def hostile() -> Page:
    references = {text: (f"{text} A dog runs.",) for text in HOSTILE}
    return made_up(references, {slug: {text: f"{text} Nobody runs." for text in HOSTILE} for slug in HOSTILE[:3]})


# -------------------------------------------------------------------------------------------------------- as a file


def test_the_heading_names_the_first_and_the_table_has_means_of_the_scores(judged: Page) -> None:
    results, clips = judged
    document = read(render_page(*judged))
    good = list(clips.judgements[0].scores.values())

    # No test can tell two models apart on four clips.
    assert document.all("h1")[0].text() == "good comes first of 2 models on 4 clips; a tie with bad"
    row = rows_of(document.all("table", id="ranking-table")[0])[0]
    mean = np.mean([results["minilm"]["good"].clips[clip] for clip in REFERENCES])  # type: ignore[index]
    cosines = np.concatenate([one.cosines for one in clips.matches["good"].values()])
    assert row[:3] == ["good", "1–2", f"{mean:.3f}"]
    assert row[-6:-2] == [
        f"{np.mean([score.precision for score in good]):.3f}",
        f"{np.mean([score.recall for score in good]):.3f}",
        f"{np.mean([score.order for score in good if score.order is not None]):.3f}",
        f"{np.mean([score.consistency for score in good]):.3f}",
    ]
    assert row[-2:] == [f"{100 * np.mean(cosines < clips.level):.0f} %", "4"]  # type: ignore[operator]


def test_clips_stand_worst_first_and_sentences_and_references_once(judged: Page) -> None:
    _, clips = judged
    data = data_of(render_page(*judged))

    for judgement, own in zip(clips.judgements, data["models"], strict=True):
        scores = [judgement.scores[one["clip"]].hm_cf for one in own]
        assert scores == sorted(scores)
        for one in own:
            assert " ".join(one["texts"]) == judgement.candidate.texts[one["clip"]]
            assert data["references"][one["reference"]]["texts"] == text_and_sentences(REFERENCES[one["clip"]])[1:]
    assert len(data["references"]) == len(REFERENCES)


def test_a_sentence_told_early_is_out_of_order_a_negated_one_may_contradict_and_what_matches_nothing_is_unmatched(
    judged: Page,
) -> None:
    good, bad = ({one["clip"]: one for one in own} for own in data_of(render_page(*judged))["models"])

    assert good["001"]["marks"] == {"displaced": [0]}
    assert good["002"]["marks"] == {"contradicting": [1]}
    assert bad["002"]["marks"]["unmatched"] == [0]  # the stock market; the tower is in the reference
    assert bad["002"]["missed"] == [1]  # the dog
    assert bad["003"]["marks"]["unmatched"] == [0, 1]  # the port, in the third, is the harbour


def test_a_single_clip_has_no_chance_level_and_no_marks(judged: Page) -> None:
    results, clips = judged
    page = render_page(results, replace(clips, level=None))

    assert not [one for own in data_of(page)["models"] for one in own if "unmatched" in one["marks"] or one["missed"]]
    assert "Unmatched" not in page.split("<main>")[1].split("<script")[0]


def test_where_one_model_alone_can_be_ranked_the_heading_says_so(judged: Page) -> None:
    results, clips = judged
    few = {"minilm": {**results["minilm"], "bad": replace(results["minilm"]["bad"], clips={"001": 0.5}, count=1)}}

    document = read(render_page(few, clips))

    assert document.all("h1")[0].text() == "Only good of 2 models can be ranked, on 4 clips"
    assert "bad is not ranked: scored on 1 of 4 clips." in document.text()


def test_a_model_that_only_an_earlier_run_judged_is_ranked_without_clips(judged: Page) -> None:
    results, clips = judged
    document = read(render_page(results, replace(clips, judgements=clips.judgements[:1])))

    assert [row[0] for row in rows_of(document.all("table", id="ranking-table")[0])] == ["good", "bad"]
    assert len(document.all("details", **{"class": "model"})) == 1


def test_the_policy_allows_this_style_sheet_and_this_script_alone_and_the_page_loads_nothing() -> None:
    text = render_page(*hostile())
    document = read(text)
    policy = document.all("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"]
    scripts = [one for one in document.all("script") if one.attributes != {"type": "application/json", "id": "data"}]
    attributes = [item for one in document.all() for item in one.attributes.items()]

    assert [one.attributes for one in scripts] == [{}]
    for name, tag in (("script-src", "<script>"), ("style-src", "<style>")):
        content = text.split(tag)[1].split(tag.replace("<", "</"))[0]
        assert f"{name} 'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert not {"img", "iframe", "object", "embed", "form", "base"} & {one.tag for one in document.all()}
    assert not [name for name, _ in attributes if name.startswith("on") or name in {"style", "src"}]


@pytest.mark.fault(45, "text in the report; the page has the same elements")
def test_no_text_changes_the_structure_of_the_page() -> None:
    def elements(page: Page) -> list[str]:
        return [one.tag for one in read(render_page(*page)).all() if one.tag != "wbr"]

    names = [f"clip {number}" for number in range(len(HOSTILE))]
    references = {name: (f"{name} A dog runs.",) for name in names}
    benign = made_up(references, {slug: dict.fromkeys(names, "Nobody runs.") for slug in names[:3]})

    assert elements(hostile()) == elements(benign)


@pytest.mark.fault(31, "in a report: replaced")
def test_a_lone_surrogate_is_replaced_and_a_token_masked(tmp_path: Path) -> None:
    token = "hf_" + "a" * 30
    page = made_up({"1": (f"A dog \ud800 runs {token}.",)}, {"m": {"1": f"A dog runs with {token}."}})

    write_page(tmp_path / "page.html", *page)

    text = (tmp_path / "page.html").read_text("utf-8")
    assert token not in text
    assert data_of(text)["references"][0]["texts"] == ["A dog   runs ***."]


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path, judged: Page) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageProblem, match=r"page\.html"):
        write_page(tmp_path / "file" / "page.html", *judged)


@needs_shared
def test_nine_models_on_199_clips_stay_under_5_megabytes() -> None:
    references = read_references(SHARED / "clip_cc/ground_truth.json")
    texts = {one.slug: one.texts for one in read_candidates([SHARED / "clip_cc/predictions"], references)}

    assert len(texts) == 9
    assert len(render_page(*made_up(references, texts)).encode()) < 5_000_000


def test_the_command_writes_the_page(tmp_path: Path, call: Call) -> None:
    (tmp_path / "refs.json").write_text(json.dumps(REFERENCES))
    (tmp_path / "good.json").write_text(json.dumps(PREDICTIONS["good"]))

    code, _, err = call(
        "judge", "--references", str(tmp_path / "refs.json"), "--predictions", str(tmp_path / "good.json"),
        "-m", "all_minilm_l6_v2", "--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"),
        "--html", str(tmp_path / "page.html"),
    )  # fmt: skip

    assert code == 0, err
    data = data_of((tmp_path / "page.html").read_text("utf-8"))
    pairs = json.loads((tmp_path / "out/pairs/all_minilm_l6_v2/good.json").read_text())
    assert {one["clip"]: one["figures"][0] for one in data["models"][0]} == {
        one["video_id"]: f"{one['hm_cf']:.3f}" for one in pairs
    }


# ------------------------------------------------------------------------------------------------------ a browser

Go = Callable[..., Visit]


@pytest.fixture
def visit(visit_file: Go, tmp_path: Path) -> Go:
    """Opens a page of judged clips."""

    def go(page: Page, width: int = 1280, **options: Any) -> Visit:
        write_page(tmp_path / "page.html", *page)
        return visit_file(tmp_path / "page.html", width, **options)

    return go


def open_everything(tab: Any) -> None:
    tab.evaluate("document.querySelectorAll('details.model').forEach((one) => { one.open = true; })")
    tab.wait_for_function("document.querySelectorAll('.clip').length > 0")
    tab.evaluate("document.querySelectorAll('.clip').forEach((one) => { one.open = true; })")
    tab.wait_for_function("[...document.querySelectorAll('.clip')].every((one) => one.querySelector('table'))")


def test_each_sentence_is_beside_its_closest_with_their_cosine(judged: Page, visit: Go, minilm: Any) -> None:
    tab = visit(judged).page
    tab.click("#ranking-table a >> text=good")
    tab.click(".clip summary >> text=001")
    tab.wait_for_selector(".matches")

    cells = [row.locator("td").all_inner_texts() for row in tab.locator(".clip[open] .matches tbody tr").all()]
    told = text_and_sentences(judged[1].judgements[0].candidate.texts["001"])[1:]
    known = text_and_sentences(REFERENCES["001"])[1:]
    own, their = (minilm.encode(texts, "") for texts in (told, known))
    cosines = own @ their.T
    assert [cell[0] for cell in cells] == [f"{told[0]} out of order", *told[1:]]
    assert [cell[2] for cell in cells] == [known[row.argmax()] for row in cosines]
    assert [float(cell[1]) for cell in cells] == pytest.approx(cosines.max(axis=1), abs=0.0051)


def test_the_page_works_from_the_keyboard(judged: Page, visit: Go) -> None:
    tab = visit(judged).page
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the ranking"
    tab.locator("#model-1 > summary").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#model-1 .clip")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".clip[open] .matches")

    assert tab.locator(".matches").count() == 1


def test_clips_are_found_by_id_and_by_words(judged: Page, visit: Go) -> None:
    tab = visit(judged).page
    tab.click("#model-1 > summary")
    tab.wait_for_selector(".clip")
    for asked, left in (("003", ["003"]), ("soup", ["004"]), ("map, bricks", ["001", "002"]), ("", list(REFERENCES))):
        tab.fill("#search", asked)
        shown = tab.locator("#model-1 .clip:not([hidden]) > summary > strong").all_inner_texts()
        assert sorted(shown) == left


@pytest.mark.fault(45, "text in the report; nothing runs in a browser")
def test_hostile_texts_execute_nothing_and_read_as_they_are(visit: Go) -> None:
    seen = visit(hostile())
    open_everything(seen.page)

    assert seen.page.evaluate("'hacked' in window") is False
    assert seen.page.locator("img, iframe, object").count() == 0
    assert (seen.requests, seen.complaints) == ([seen.url], [])
    assert "</script><script>window.hacked=1</script>" in seen.page.inner_text("#model-1")


@pytest.mark.parametrize("width", [400, 768, 1280])
def test_the_page_never_scrolls_sideways(width: int, judged: Page, visit: Go) -> None:
    for page in (judged, hostile()):
        tab = visit(page, width).page
        open_everything(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_printout_is_light_and_contains_the_open_clips(judged: Page, visit: Go) -> None:
    tab = visit(judged, color_scheme="dark").page
    paper = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(paper) == "rgb(20, 23, 27)"
    tab.click("#model-1 > summary")
    tab.click("#model-1 .clip >> nth=0")
    tab.wait_for_selector(".matches")
    tab.emulate_media(media="print")

    assert tab.evaluate(paper) == "rgb(255, 255, 255)"
    assert tab.locator("#ranking-table").is_visible()
    assert tab.locator(".matches").is_visible()
    assert [tab.locator(one).is_visible() for one in ("#search", "#model-2", ".clip >> nth=1")] == [False] * 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(scheme: str, judged: Page, visit: Go) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs the extra: pip install 'stella-mteb[browser]'"
    )
    tab = visit(judged, color_scheme=scheme).page
    open_everything(tab)

    found = axe.Axe().run(tab).response["violations"]

    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
