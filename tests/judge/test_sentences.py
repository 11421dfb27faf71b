"""Splitting into sentences, compared with the counts recorded for CLIP-CC."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.judge.judge import judge_all, text_and_sentences
from stella_mteb.judge.sentences import split_sentences, without_marks
from tests.conftest import SHARED, needs_shared
from tests.support.judging import (
    PREDICTIONS,
    REFERENCES,
    candidate,
    published_pairs,
)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A man walks in. He sits down.", ["A man walks in.", "He sits down."]),
        ("Dr. Smith meets Mr. Jones at 5 p.m. on Monday.", ["Dr. Smith meets Mr. Jones at 5 p.m. on Monday."]),
        ("Does he stay? No! He leaves...", ["Does he stay?", "No!", "He leaves..."]),
        ('He says "Go." She goes.', ['He says "Go."', "She goes."]),
        # As NLTK had it when the published scores were made: a curly quote does not end a sentence.
        ("He says “Go.” She goes.", ["He says “Go.” She goes."]),
        ("It costs 3.50 dollars. Nobody pays.", ["It costs 3.50 dollars.", "Nobody pays."]),
        ("  One.\n\nTwo.  ", ["  One.", "Two."]),
        ("no full stop at the end", ["no full stop at the end"]),
    ],
)
def test_sentences_by_hand(text: str, sentences: list[str]) -> None:
    assert [part.strip() for part in split_sentences(text)] == [part.strip() for part in sentences]


@pytest.mark.parametrize("text", ["...", "!!!", "🙂", "— —", "1", "\n", " ", ""])
def test_a_text_without_words_is_still_one_sentence(text: str) -> None:
    whole, *sentences = text_and_sentences(text)

    assert whole == text
    assert sentences == [text]


EVENTS = [
    "A man parks a red van in front of a bakery",
    "He unloads three wooden crates",
    "He carries them into the shop",
    "A woman pays him and he drives away",
]
LAYOUTS = {
    "one a line": "\n".join(EVENTS),
    "one a line, in small letters": "\n".join(EVENTS).lower(),
    "apart": "\n\n".join(EVENTS),
    "bullets": "\n".join(f"- {event}" for event in EVENTS),
    "bullets, indented, with full stops": "\n".join(f"  • {event}." for event in EVENTS),
    "stars, wrapped": "\n".join(f"* {event}" for event in EVENTS).replace(" of a", "\n  of a"),
    "numbered": "\n".join(f"{number}. {event}." for number, event in enumerate(EVENTS, 1)),
    "numbered, apart": "\r\n\r\n".join(f"{number}) {event}" for number, event in enumerate(EVENTS, 1)),
    "lettered": "\n".join(f"({letter}) {event}" for letter, event in zip("abcd", EVENTS, strict=True)),
}
PROSE = (
    "The man, who is tall and wears a long coat, walks into the bar and sits down beside Bob. He orders a beer, and "
    "then another, and he talks to Bob of the weather for a while. Nobody else is there, but for Dr. Smith, who reads."
)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_four_events_are_four_sentences_in_every_layout(layout: str) -> None:
    sentences = split_sentences(LAYOUTS[layout])

    assert [words(sentence) for sentence in sentences] == [words(event) for event in EVENTS]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_list_is_read_without_its_marks(layout: str) -> None:
    assert words(without_marks(LAYOUTS[layout])) == words(" ".join(EVENTS))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_changes_no_score(minilm: TextEncoder, layout: str) -> None:
    """The same words, laid out in another way, are judged to be the same."""
    references = {"1": [". ".join(EVENTS) + "."]}
    (judgement,) = judge_all(minilm, "", references, [candidate("m", {"1": LAYOUTS[layout]})])

    score = judgement.scores["1"]
    assert score.num_candidate_sentences == 4
    assert (score.precision, score.recall) == (pytest.approx(1, abs=0.02), pytest.approx(1, abs=0.02))
    assert score.hm_cf > 0.97


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (f"{PROSE}\n{PROSE}", 6),
        (f"{PROSE}\n\n{PROSE}", 6),
        ("A man walks\ninto a bar.", 1),
        ("Two girls cross the\nbridge. A dog barks.", 2),
        ("A man enters\nand sits down\nbefore he orders.", 1),
        ("He pays - he has\n- as ever - no coins.", 1),
    ],
)
def test_prose_is_not_divided_at_its_line_breaks(text: str, sentences: int) -> None:
    assert len(split_sentences(text)) == sentences
    assert without_marks(text) == text


@settings(max_examples=50, deadline=None)
@given(width=st.integers(30, 120))
def test_lines_that_are_filled_up_to_a_width_are_prose(width: int) -> None:
    filled = textwrap.fill(PROSE, width)

    assert [words(sentence) for sentence in split_sentences(filled)] == [words(one) for one in split_sentences(PROSE)]
    assert len(split_sentences(f"A heading\n\n{filled}\n\n{filled}")) == 7


def test_text_before_and_after_a_list_is_its_own_sentence() -> None:
    text = "These things happen:\n- A man enters. He sits down\n- A dog barks\n\nThen all is quiet"

    assert split_sentences(text) == [
        "These things happen:", "A man enters.", "He sits down", "A dog barks", "Then all is quiet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "一个男人走进来。他坐下了！他说：“走吧。”真的吗？",
            ["一个男人走进来。", "他坐下了！", "他说：“走吧。”", "真的吗？"],
        ),
        ("男が入ってくる。「座れ！」犬が吠える｡", ["男が入ってくる。", "「座れ！」", "犬が吠える｡"]),
        ("एक आदमी आता है। वह बैठता है॥ कुत्ता भौंकता है", ["एक आदमी आता है।", "वह बैठता है॥", "कुत्ता भौंकता है"]),
        ("يدخل رجل. هل يجلس؟ نعم.", ["يدخل رجل.", "هل يجلس؟", "نعم."]),
        ("ایک آدمی آتا ہے۔ وہ بیٹھتا ہے۔", ["ایک آدمی آتا ہے۔", "وہ بیٹھتا ہے۔"]),
        ("ሰው ገባ። ተቀመጠ።", ["ሰው ገባ።", "ተቀመጠ።"]),
        ("Մարդը մտավ։ Նա նստեց։", ["Մարդը մտավ։", "Նա նստեց։"]),
        (
            "全長は３．５メートル。He said 走吧。 Dr. Smith left.",
            ["全長は３．５メートル。", "He said 走吧。", "Dr. Smith left."],
        ),
    ],
)
def test_sentences_of_other_scripts_end_where_unicode_says(text: str, sentences: list[str]) -> None:
    assert [sentence.strip() for sentence in split_sentences(text)] == sentences


def test_no_sentence_of_a_text_is_lost_or_invented() -> None:
    for text in [*REFERENCES.values(), *PREDICTIONS["bad"].values()]:
        assert " ".join(split_sentences(text)).split() == text.split()


@needs_shared
def test_the_recorded_sentence_counts_are_counted_again() -> None:
    references = {
        row["id"]: row["summary"] for row in json.loads((SHARED / "clip_cc/ground_truth.json").read_text("utf-8"))
    }
    predictions = {
        path.stem: json.loads(path.read_text("utf-8")) for path in (SHARED / "clip_cc/predictions").glob("*.json")
    }
    recorded: dict[str, set[int]] = defaultdict(set)
    agreeing = 0
    for row in published_pairs():
        recorded[row["video_id"]].add(int(row["num_reference_sentences"]))
        own = len(split_sentences(predictions[row["vlm"]][row["video_id"]]))
        agreeing += own == int(row["num_candidate_sentences"])

    assert {clip: {len(split_sentences(references[clip]))} for clip in recorded} == recorded
    assert len(recorded) == 199
    assert agreeing >= 1790


NO_NETWORK = """
import os, sys, tempfile
home = tempfile.mkdtemp()
os.environ["HOME"] = os.environ["NLTK_DATA"] = home
touched = []
def watch(event, args):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "urllib.Request", "http.client.connect")):
        touched.append((event, str(args)))
    if event == "open" and isinstance(args[0], str) and args[0].startswith(home):
        touched.append((event, str(args)))
sys.addaudithook(watch)
import stella_mteb.judge.judge, stella_mteb.judge.inputs, stella_mteb.judge.ranking, stella_mteb.judge.reports
from stella_mteb.judge.sentences import split_sentences
assert len(split_sentences("One. Two.")) == 2
assert not touched, touched
assert not os.listdir(home), os.listdir(home)
assert "nltk" not in sys.modules
"""


def test_the_judge_splits_sentences_without_network_and_without_a_download() -> None:
    done = subprocess.run([sys.executable, "-c", NO_NETWORK], capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stderr
