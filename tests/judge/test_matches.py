"""Matches of sentences: the alignment is optimal, and low cosines find the sentences that people marked wrong."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu

from stella_mteb.judge.inputs import read_references
from stella_mteb.judge.judge import TextVectors, distinct_texts
from stella_mteb.judge.matches import chance_level, match_all, monotone_alignment
from stella_mteb.judge.order import monotone_share
from tests.conftest import SHARED, needs_shared
from tests.support.judging import GIVEN, candidate

COSINES = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-1, 1, width=32))
)


@given(COSINES)
def test_no_alignment_in_order_is_better_than_the_one_found(cosines: np.ndarray) -> None:
    found = monotone_alignment(cosines)

    rows = range(len(cosines))
    sums = [
        sum(float(cosines[row, column]) for row, column in zip(rows, columns, strict=True))
        for columns in itertools.combinations_with_replacement(range(cosines.shape[1]), len(cosines))
    ]
    assert list(found) == sorted(found)
    assert float(cosines[rows, found].sum()) == pytest.approx(max(sums), abs=1e-5)
    assert float(cosines[rows, found].mean()) == pytest.approx(monotone_share(cosines), abs=1e-5)


def test_each_sentence_has_its_closest_and_a_swap_is_out_of_order(minilm: Any) -> None:
    reference = "A man parks a red van. He unloads three wooden crates. A dog barks at the window of the shop."
    texts = {
        "told": "A man parks his van. He takes out three crates. A dog barks.",
        "swapped": "A dog barks. A man parks his van. He takes out three crates.",
        "short": "A dog barks.",
    }
    given = [candidate(name, {"001": text}) for name, text in texts.items()]
    vectors = TextVectors(minilm, "", [reference, *texts.values()])

    found = {slug: own["001"] for slug, own in match_all(vectors, {"001": (reference,)}, given).items()}

    assert {slug: list(own.best) for slug, own in found.items()} == {
        "told": [0, 1, 2],
        "swapped": [2, 0, 1],
        "short": [2],
    }
    assert {slug: list(own.displaced) for slug, own in found.items()} == {"told": [], "swapped": [0], "short": []}
    assert found["short"].recalled.argmax() == 2
    assert found["told"].cosines[1] == pytest.approx(float(vectors[texts["told"]][2] @ vectors[reference][2]), abs=1e-6)


def test_of_several_references_the_best_is_matched(minilm: Any) -> None:
    references = {"1": ("A cook burns the soup.", "Three boats leave the harbour."), "2": ("It rains.",)}
    given = [candidate("a", {"1": "Three boats leave."})]

    vectors = TextVectors(minilm, "", distinct_texts(references, given))

    assert match_all(vectors, references, given)["a"]["1"].reference == 1


def test_a_sentence_of_another_clip_is_below_the_level_and_one_clip_has_none(minilm: Any) -> None:
    given = [candidate("a", {clip: texts[0] for clip, texts in GIVEN.items()})]
    vectors = TextVectors(minilm, "", distinct_texts(GIVEN, given))

    level = chance_level(vectors, GIVEN, given)

    assert level is not None
    clips = list(GIVEN)
    against = [
        (vectors[GIVEN[one][0]][1:] @ vectors[GIVEN[other][0]][1:].T).max(axis=1)
        for one, other in zip(clips, clips[1:] + clips[:1], strict=True)
    ]
    assert level == pytest.approx(np.quantile(np.concatenate(against), 0.9))
    assert chance_level(vectors, {"001": GIVEN["001"]}, [candidate("a", {"001": "A man drives."})]) is None


@pytest.mark.slow
@needs_shared
def test_sentences_that_people_marked_wrong_match_less_than_the_others(minilm: Any) -> None:
    folder = SHARED / "human/factvc_youcook2"
    references = read_references(folder / "references.jsonl")
    rows = [json.loads(line) for line in (folder / "ratings.jsonl").read_text("utf-8").splitlines()]
    systems = sorted({row["system"] for row in rows})
    given = [
        candidate(name, {row["id"]: row["candidate"] for row in rows if row["system"] == name}) for name in systems
    ]
    vectors = TextVectors(minilm, "", distinct_texts(references, given))

    matches = match_all(vectors, references, given)
    level = chance_level(vectors, references, given)

    cosines, wrong = [], []
    for row in rows:
        found, marked = matches[row["system"]][row["id"]], row["sentences_marked"]
        assert len(found.cosines) == len(marked)
        cosines += list(found.cosines)
        wrong += [bool(re.search(r"\[.*\]", sentence)) for sentence in marked]
    of_wrong, of_right = (np.array(cosines)[np.array(wrong) == which] for which in (True, False))
    auc = mannwhitneyu(of_right, of_wrong).statistic / len(of_right) / len(of_wrong)
    assert auc == pytest.approx(0.758, abs=0.003)
    assert level is not None
    assert [np.mean(of_wrong < level), np.mean(of_right < level)] == pytest.approx([0.59, 0.23], abs=0.01)
