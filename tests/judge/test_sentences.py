"""Sentences, with the counts that were recorded for CLIP-CC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict

import pytest

from stella_mteb.judge.judge import text_and_sentences
from stella_mteb.judge.sentences import split_sentences
from tests.conftest import SHARED, needs_shared
from tests.support.judging import (
    PREDICTIONS,
    REFERENCES,
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
    done = subprocess.run([sys.executable, "-c", NO_NETWORK], capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
