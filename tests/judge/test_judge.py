"""The judge: its arithmetic, its inputs, one pass over all texts, its files, and the ranking."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import stat
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.store import VectorStore
from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import write_json
from stella_mteb.judge.inputs import Candidate, read_candidates, read_references
from stella_mteb.judge.judge import Judgement, judge_all, text_and_sentences
from stella_mteb.judge.ranking import RankedModel, rank_models
from stella_mteb.judge.reports import aggregate, judge_slug, read_hm_cf, require_same_judge, write_judgement
from stella_mteb.judge.sentences import split_sentences
from stella_mteb.judge.similarity import PairScore, harmonic_mean, score_pair
from tests.conftest import SHARED, needs_shared
from tests.support.judging import candidate, some_judgement
from tests.support.spies import twin, watch

pytestmark = pytest.mark.usefixtures("one_thread")

JUDGES = ("gte-qwen2-7b", "kalm", "nemo", "nv-embed", "qwen3-8b")
FIGURES = ("coarse", "precision", "recall", "f1", "hm_cf")
REFERENCES = {
    "001": "A man drives a car. A woman in the back seat reads a map aloud. They arrive at the harbour.",
    "002": "Two children build a tower of red bricks. The dog knocks it over before they finish.",
    "003": "Three boats leave the harbour. Nobody waves them goodbye.",
    "004": "A cook burns the soup!",
}
PREDICTIONS = {
    "good": {
        "001": "A man is driving. A woman behind him reads out a map. They reach the port.",
        "002": "Two kids stack red bricks into a tower. A dog ruins it.",
        "003": "Three boats leave the harbour. Nobody waves them goodbye.",
        "004": "The soup is burnt by a cook.",
    },
    "bad": {
        "001": "A cook burns the soup!",
        "002": "The stock market fell. Two children build a tower of red bricks.",
        "003": "A man is driving. A woman behind him reads out a map. They reach the port.",
    },
}


def candidates() -> list[Candidate]:
    return [candidate(slug, texts) for slug, texts in PREDICTIONS.items()]


def scores_by_model(judgements: Iterable[Judgement]) -> dict[str, dict[str, PairScore]]:
    return {judgement.candidate.slug: judgement.scores for judgement in judgements}


def figures(score: PairScore) -> list[float]:
    return [getattr(score, name) for name in FIGURES]


def assert_same_scores(
    found: dict[str, dict[str, PairScore]], expected: dict[str, dict[str, PairScore]], tolerance: float = 1e-6
) -> None:
    assert {slug: list(scores) for slug, scores in found.items()} == {
        slug: list(scores) for slug, scores in expected.items()
    }
    for slug, scores in expected.items():
        for clip, score in scores.items():
            assert figures(found[slug][clip]) == pytest.approx(figures(score), abs=tolerance), (slug, clip)


def distinct_texts() -> set[str]:
    whole = [*REFERENCES.values(), *(text for texts in PREDICTIONS.values() for text in texts.values())]
    return {part for text in whole for part in [text, *split_sentences(text)]}


# ------------------------------------------------------------------------------------------------------- four numbers


def brute_force(reference: np.ndarray, other: np.ndarray) -> list[float]:
    """The definition in plain Python: every sentence against every sentence, one number at a time."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))

    def harmonic(a: float, b: float) -> float:
        return 0.0 if a <= 0 or b <= 0 else 2 / (1 / a + 1 / b)

    precisions, recalls = [], []
    for mine in other[1:]:
        best = -2.0
        for theirs in reference[1:]:
            best = max(best, cosine(mine, theirs))
        precisions.append(best)
    for theirs in reference[1:]:
        best = -2.0
        for mine in other[1:]:
            best = max(best, cosine(mine, theirs))
        recalls.append(best)
    coarse = cosine(reference[0], other[0])
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    f1 = harmonic(precision, recall)
    return [coarse, precision, recall, f1, harmonic(coarse, f1)]


def unit_rows(generator: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    vectors = generator.normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(
    sentences=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dimension=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_pairs_numbers_are_those_of_a_double_loop_over_its_sentences(
    sentences: tuple[int, int], dimension: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    reference, other = (unit_rows(generator, 1 + count, dimension) for count in sentences)
    expected = brute_force(reference, other)
    # A cosine that is zero but for rounding may fall on either side of it, where the harmonic mean jumps.
    assume(all(abs(value) > 1e-5 for value in expected[:3]))

    score = score_pair(reference, other)

    # Near zero a harmonic mean is a quotient of two small numbers and keeps fewer digits.
    assert figures(score)[:3] == pytest.approx(expected[:3], abs=1e-6)
    assert figures(score)[3:] == pytest.approx(expected[3:], abs=1e-5)
    assert (score.num_reference_sentences, score.num_candidate_sentences) == sentences


@settings(max_examples=50, deadline=None)
@given(counts=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 2**32 - 1))
def test_swapping_the_sides_swaps_precision_and_recall_and_nothing_else(counts: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, two = (unit_rows(generator, 1 + count, 8) for count in counts)

    there, back = score_pair(one, two), score_pair(two, one)

    assert there.precision == pytest.approx(back.recall, abs=1e-6)
    assert there.recall == pytest.approx(back.precision, abs=1e-6)
    assert there.coarse == pytest.approx(back.coarse, abs=1e-6)


def rows(*vectors: tuple[float, float]) -> np.ndarray:
    return np.array(vectors, dtype=np.float32)


RIGHT, UP, DOWN, LEFT, BETWEEN = (1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (-1.0, 0.0), (0.6, 0.8)


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        # One of two reference sentences is told: precise, but half is missing.
        (rows(BETWEEN, RIGHT, UP), rows(RIGHT, RIGHT), [0.6, 1.0, 0.5, 2 / 3, 12 / 19]),
        # Everything is told, and as much again that is not in the reference.
        (rows(RIGHT, RIGHT), rows(BETWEEN, RIGHT, UP), [0.6, 0.5, 1.0, 2 / 3, 12 / 19]),
        # Another order of the same sentences is a full match of the sentences.
        (rows(BETWEEN, RIGHT, UP), rows(BETWEEN, UP, RIGHT), [1.0, 1.0, 1.0, 1.0, 1.0]),
        # A sentence said twice counts twice in the precision.
        (rows(RIGHT, RIGHT), rows(RIGHT, RIGHT, UP, UP), [1.0, 1 / 3, 1.0, 0.5, 2 / 3]),
        # The best match is what counts, even where every match is bad.
        (rows(RIGHT, RIGHT, LEFT), rows(RIGHT, UP), [1.0, 0.0, 0.0, 0.0, 0.0]),
        # The whole texts are opposite: HM-CF is 0 and not a negative or a huge number.
        (rows(RIGHT, RIGHT), rows(LEFT, RIGHT), [-1.0, 1.0, 1.0, 1.0, 0.0]),
        # Precision is negative: F1 is 0, hence HM-CF too.
        (rows(RIGHT, UP), rows(RIGHT, DOWN), [1.0, -1.0, -1.0, 0.0, 0.0]),
    ],
)
def test_hand_computed_pairs(reference: np.ndarray, other: np.ndarray, expected: list[float]) -> None:
    assert figures(score_pair(reference, other)) == pytest.approx(expected, abs=1e-6)


SIMILARITY = st.floats(-1, 1, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(a=SIMILARITY, b=SIMILARITY)
def test_the_harmonic_mean_is_symmetric_and_zero_unless_both_are_positive(a: float, b: float) -> None:
    mean = harmonic_mean(a, b)

    assert mean == harmonic_mean(b, a)
    if a <= 0 or b <= 0:
        assert mean == 0
    else:
        assert min(a, b) * (1 - 1e-12) <= mean <= max(a, b) * (1 + 1e-12) or mean == pytest.approx(0, abs=1e-150)


@pytest.mark.parametrize(("a", "b", "mean"), [(1, 1, 1), (1, 0.5, 2 / 3), (0.2, 0.8, 0.32), (0, 1, 0), (-0.5, 1, 0)])
def test_harmonic_means_by_hand(a: float, b: float, mean: float) -> None:
    assert harmonic_mean(a, b) == pytest.approx(mean, abs=1e-15)


@cache
def published_pairs() -> list[dict[str, str]]:
    with (SHARED / "clip_cc/pair_scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@needs_shared
@pytest.mark.parametrize("name", JUDGES)
def test_the_published_hm_cf_and_f1_are_harmonic_means(name: str) -> None:
    """The definitions are those of the benchmark: all five judges recorded what these functions give."""
    worst_f1 = worst_hm_cf = 0.0
    for row in published_pairs():
        value = {figure: float(row[f"{name}_{figure}"]) for figure in FIGURES}
        worst_f1 = max(worst_f1, abs(harmonic_mean(value["precision"], value["recall"]) - value["f1"]))
        worst_hm_cf = max(worst_hm_cf, abs(harmonic_mean(value["coarse"], value["f1"]) - value["hm_cf"]))

    assert len(published_pairs()) == 9 * 199
    assert worst_f1 < 2e-6
    assert worst_hm_cf < 2e-6


# ---------------------------------------------------------------------------------------------------------- sentences


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


# ------------------------------------------------------------------------------------------------- one pass for all


def alone(encoder: TextEncoder, prompt: str = "") -> dict[str, dict[str, PairScore]]:
    """Every pair for itself, one call of `encode` for each text and each sentence, and the plain double loop."""

    def vectors(text: str) -> np.ndarray:
        found = [encoder.encode([part], prompt)[0] for part in [text, *split_sentences(text)]]
        return np.stack([vector / np.linalg.norm(vector) for vector in found])

    expected: dict[str, dict[str, PairScore]] = {}
    for slug, texts in PREDICTIONS.items():
        for clip, text in texts.items():
            reference, other = vectors(REFERENCES[clip]), vectors(text)
            numbers = brute_force(reference, other)
            counts = len(reference) - 1, len(other) - 1
            expected.setdefault(slug, {})[clip] = PairScore(*numbers, *counts)
    return expected


@pytest.fixture(scope="module")
def one_by_one(minilm: TextEncoder) -> dict[str, dict[str, PairScore]]:
    return alone(minilm)


def test_all_pairs_together_score_as_each_pair_alone(
    minilm: TextEncoder, one_by_one: dict[str, dict[str, PairScore]]
) -> None:
    found = scores_by_model(judge_all(twin(minilm), "", REFERENCES, candidates()))

    assert_same_scores(found, one_by_one)
    for slug, scores in one_by_one.items():
        for clip, score in scores.items():
            assert found[slug][clip].num_reference_sentences == score.num_reference_sentences
            assert found[slug][clip].num_candidate_sentences == score.num_candidate_sentences


def test_a_copy_of_the_reference_scores_one_and_beats_everything_else(minilm: TextEncoder) -> None:
    scores = scores_by_model(judge_all(twin(minilm), "", REFERENCES, candidates()))

    assert figures(scores["good"]["003"]) == pytest.approx([1.0] * 5, abs=1e-6)
    assert scores["bad"]["003"].hm_cf < scores["good"]["001"].hm_cf < 1
    assert scores["bad"]["001"].hm_cf < scores["good"]["001"].hm_cf


def test_the_prompt_stands_before_texts_and_sentences_of_both_sides(stella: TextEncoder) -> None:
    prompt = "Instruct: Retrieve semantically similar text.\nQuery: "

    found = scores_by_model(judge_all(twin(stella), prompt, REFERENCES, candidates()))
    bare = scores_by_model(judge_all(twin(stella), "", REFERENCES, candidates()))

    assert_same_scores(found, alone(stella, prompt), tolerance=1e-5)
    assert abs(found["bad"]["001"].coarse - bare["bad"]["001"].coarse) > 1e-3


def test_the_order_of_candidates_changes_no_score(minilm: TextEncoder) -> None:
    forwards = list(judge_all(twin(minilm), "", REFERENCES, candidates()))
    backwards = list(judge_all(twin(minilm), "", REFERENCES, candidates()[::-1]))

    assert [judgement.candidate.slug for judgement in backwards] == ["bad", "good"]
    assert_same_scores(
        dict(sorted(scores_by_model(backwards).items())), dict(sorted(scores_by_model(forwards).items()))
    )


def test_a_candidate_scores_the_same_without_the_others(minilm: TextEncoder) -> None:
    together = scores_by_model(judge_all(twin(minilm), "", REFERENCES, candidates()))
    single = scores_by_model(judge_all(twin(minilm), "", REFERENCES, candidates()[1:]))

    assert_same_scores(single, {"bad": together["bad"]})


def test_every_distinct_text_goes_through_the_backbone_once(
    minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """References are shared by all candidates, sentences recur across them, and one text is its own sentence."""
    encoder = twin(minilm)
    shapes = watch(monkeypatch, minilm)

    assert len(list(judge_all(encoder, "", REFERENCES, candidates()))) == 2

    assert sum(count for count, _ in shapes) == len(distinct_texts())
    assert encoder.stats.encoded == len(distinct_texts())


def test_a_second_copy_of_a_candidate_costs_nothing(minilm: TextEncoder) -> None:
    encoder = twin(minilm)
    copies = [*candidates(), candidate("copy", dict(PREDICTIONS["good"]))]

    scores = scores_by_model(judge_all(encoder, "", REFERENCES, copies))

    assert encoder.stats.encoded == len(distinct_texts())
    assert scores["copy"] == scores["good"]


def test_an_encoder_that_does_not_normalise_gives_the_same_scores(minilm: TextEncoder, stella: TextEncoder) -> None:
    for encoder in (minilm, stella):
        bare = twin(encoder, normalize=False)
        assert abs(np.linalg.norm(bare.encode(["A man drives a car."])) - 1) > 1e-2

        found = scores_by_model(judge_all(bare, "", REFERENCES, candidates()))

        assert_same_scores(found, scores_by_model(judge_all(twin(encoder), "", REFERENCES, candidates())))


def stored(encoder: TextEncoder, folder: Path, **changes: Any) -> TextEncoder:
    """The same model as a new process would have it, with what is on disk."""
    fresh = twin(encoder, **changes)
    fresh.store = VectorStore(folder, fresh.fingerprint)
    return fresh


def test_a_second_run_with_a_store_runs_no_forward_pass(
    minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = scores_by_model(judge_all(stored(minilm, tmp_path), "", REFERENCES, candidates()))
    shapes = watch(monkeypatch, minilm)

    again = scores_by_model(judge_all(stored(minilm, tmp_path), "", REFERENCES, candidates()))

    assert shapes == []
    assert again == first


def test_a_new_candidate_costs_only_its_new_texts(minilm: TextEncoder, tmp_path: Path) -> None:
    list(judge_all(stored(minilm, tmp_path), "", REFERENCES, candidates()))
    later = stored(minilm, tmp_path)
    new = candidate("new", {"001": "A man drives a car. It rains all day."})

    list(judge_all(later, "", REFERENCES, [*candidates(), new]))

    # The text as a whole and its second sentence; its first is a sentence of the reference.
    assert later.stats.encoded == 2


@pytest.mark.parametrize("batches_before", [0, 1, 2])
def test_an_interrupted_run_goes_on_with_what_is_left(
    batches_before: int, minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What ran before Ctrl-C and what runs after it add up to one uninterrupted run, token for token."""
    settings_of_all = {"batch_size": 1, "max_length": 64}
    uninterrupted = twin(minilm, **settings_of_all)
    expected = scores_by_model(judge_all(uninterrupted, "", REFERENCES, candidates()))
    forward, finished = minilm.backbone.forward, []

    def presses_ctrl_c(*, input_ids: torch.Tensor, **given: Any) -> Any:
        if len(finished) == batches_before:
            raise KeyboardInterrupt
        output = forward(input_ids=input_ids, **given)
        finished.append(input_ids.numel())  # packed: there is no padding
        return output

    with monkeypatch.context() as patch:
        patch.setattr(minilm.backbone, "forward", presses_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            list(judge_all(stored(minilm, tmp_path, **settings_of_all), "", REFERENCES, candidates()))
    resumed = stored(minilm, tmp_path, **settings_of_all)
    found = scores_by_model(judge_all(resumed, "", REFERENCES, candidates()))

    assert len(finished) == batches_before
    assert 0 < resumed.stats.tokens == uninterrupted.stats.tokens - sum(finished)
    assert_same_scores(found, expected)


def test_judging_reports_its_progress_in_tokens(minilm: TextEncoder) -> None:
    encoder, seen = twin(minilm, batch_size=1, max_length=64), []

    list(judge_all(encoder, "", REFERENCES, candidates(), lambda done, total: seen.append((done, total))))

    assert len(seen) > 1
    assert seen[-1] == (encoder.stats.tokens, encoder.stats.tokens)
    assert seen == sorted(seen)


# ------------------------------------------------------------------------------------------------------------- inputs


Rows = dict[str, str | None]


def as_json_list(path: Path, texts: Rows) -> Path:
    path = path.with_name(path.name + ".json")
    content = [{"id": clip, "file_link": "https://example.org/x", "summary": text} for clip, text in texts.items()]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def as_json_object(path: Path, texts: Rows) -> Path:
    path = path.with_name(path.name + ".json")
    path.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8-sig")
    return path


def as_jsonl(path: Path, texts: Rows) -> Path:
    path = path.with_name(path.name + ".jsonl")
    lines = [json.dumps({"summary": text, "id": clip}, ensure_ascii=False) for clip, text in texts.items()]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def as_csv(path: Path, texts: Rows) -> Path:
    path = path.with_name(path.name + ".csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["genre", "id", "summary"])
        writer.writerows(["drama", clip, text] for clip, text in texts.items())
    return path


FORMS = [as_json_list, as_json_object, as_jsonl, as_csv]
AWKWARD = {
    "007": 'He says "Go, now!", and leaves.\nShe stays — für immer 🧱.',
    "7": "  blanks, commas, ",
    "clip/β 1": "one",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_references_gives_the_same_texts(form: Callable[[Path, Rows], Path], tmp_path: Path) -> None:
    path = form(tmp_path / "references", AWKWARD)

    assert list(read_references(path).items()) == list(AWKWARD.items())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_predictions_gives_the_same_candidate(form: Callable[[Path, Rows], Path], tmp_path: Path) -> None:
    given = {"clip/β 1": AWKWARD["clip/β 1"], "other": "no reference has this", "007": AWKWARD["007"], "7": " \n "}
    references = {**AWKWARD, "gone": "a reference without a prediction"}

    (found,) = read_candidates([form(tmp_path / "longva", given)], references)

    assert found == Candidate(
        slug="longva",
        texts={"007": AWKWARD["007"], "clip/β 1": "one"},
        missing=("gone",),
        empty=("7",),
        unknown=("other",),
    )
    assert list(found.texts) == ["007", "clip/β 1"], "in the order of the references"


def test_a_line_separator_inside_a_csv_text_is_part_of_the_text(tmp_path: Path) -> None:
    """U+2028 and its like come out of language models; csv.writer leaves them unquoted."""
    texts = {"001": "one\u2028two", "002": "three\x0bfour", "003": "five\x85six"}

    assert read_references(as_csv(tmp_path / "references", texts)) == texts


def test_null_and_blank_predictions_are_empty_not_text(tmp_path: Path) -> None:
    given = {"001": None, "002": "", "003": "\t\n", "004": "a text"}

    (found,) = read_candidates([as_json_object(tmp_path / "m", given)], REFERENCES)

    assert found.empty == ("001", "002", "003")
    assert found.texts == {"004": "a text"}


def test_gaps_are_listed_and_never_scored(minilm: TextEncoder, tmp_path: Path) -> None:
    given = {"001": PREDICTIONS["good"]["001"], "003": " ", "nowhere": "a text"}
    (found,) = read_candidates([as_json_object(tmp_path / "m", given)], REFERENCES)
    encoder = twin(minilm)

    (judgement,) = judge_all(encoder, "", REFERENCES, [found])

    assert (found.missing, found.empty, found.unknown) == (("002", "004"), ("003",), ("nowhere",))
    assert list(judgement.scores) == ["001"]
    whole = [*REFERENCES.values(), given["001"]]
    assert encoder.stats.encoded == len({part for text in whole for part in [text, *split_sentences(text)]})


def test_a_folder_gives_one_candidate_for_each_file_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    as_csv(folder / "zeta", PREDICTIONS["bad"])
    as_json_object(folder / "alpha-1.5_b", PREDICTIONS["good"])
    as_jsonl(folder / "mid", PREDICTIONS["good"])
    (folder / "README.md").write_text("not predictions")
    (folder / "old").mkdir()

    found = read_candidates([folder], REFERENCES)

    assert [one.slug for one in found] == ["alpha-1.5_b", "mid", "zeta"]
    assert [one.texts for one in found] == [PREDICTIONS["good"], PREDICTIONS["good"], PREDICTIONS["bad"]]


def test_a_file_given_twice_is_one_candidate(tmp_path: Path) -> None:
    file = as_json_object(tmp_path / "m", PREDICTIONS["good"])

    assert len(read_candidates([file, tmp_path, file], REFERENCES)) == 1


def wrong_references(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_references(path)
    return str(caught.value)


def wrong_predictions(*paths: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_candidates(paths, REFERENCES)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.fault(34, "an id that stands twice is refused with its place")
@pytest.mark.parametrize(
    ("name", "content", "place", "said"),
    [
        ("r.json", '[{"id": "1", "summary": "a"}, {"id": "1", "summary": "b"}]', "entry 1", "'1' stands twice"),
        ("r.json", '{"1": "a", "1": "b"}', "", "'1' stands twice"),
        ("r.jsonl", '{"id": "1", "summary": "a"}\n{"id": "1", "summary": "b"}\n', ":2", "'1' stands twice"),
        ("r.csv", "id,summary\n1,a\n2,b\n1,c\n", ":4", "'1' stands twice"),
        ("r.json", '[{"id": "1", "summary": "a"}, {"id": 7, "summary": "b"}]', "entry 1", "'id'"),
        ("r.jsonl", '{"id": "1", "summary": "a"}\n\n{"id": 7, "summary": "b"}\n', ":3", "'id'"),
        ("r.json", '[{"summary": "b"}]', "entry 0", "'id'"),
        ("r.json", '[{"id": "1", "summary": " \\n"}]', "entry 0", "'summary' that is not empty"),
        ("r.json", '{"1": "a", "2": ""}', ": 2", "'summary' that is not empty"),
        ("r.csv", "id,summary\n1,a\n2,\n", ":3", "'summary' that is not empty"),
        ("r.csv", "id,text\n1,a\n", ":2", "'summary'"),
        ("r.json", '[{"id": "1", "summary": ["a"]}]', "entry 0", "'summary'"),
        ("r.json", '["a", "b"]', "entry 0", "'id'"),
        ("r.json", '"a"', "", "JSON list"),
        ("r.json", "[]", "", "no reference"),
        ("r.jsonl", "", "", "no reference"),
        ("r.json", '[{"id": "1",\n "summary": "a"\n', ":3", "not valid JSON"),
        ("r.jsonl", '{"id": "1", "summary": "a"}\n{"id": \n', ":2", "not valid JSON"),
        ("r.csv", "id,summary\n1,a,b\n", ":2", "3 cells"),
        ("r.txt", "1 a", "", "suffix"),
    ],
)
def test_unusable_references_are_refused_with_file_and_place(
    name: str, content: str, place: str, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)

    message = wrong_references(path)

    assert str(path) + place in message or f"{path}: {place}" in message
    assert said in message


def test_all_unusable_references_are_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    path = as_json_list(tmp_path / "r", {f"{number:03}": "" if number % 2 else "text" for number in range(50)})

    message = wrong_references(path)

    assert "25 references" in message
    assert message.count("entry") == 10


def test_a_missing_references_file_is_named(tmp_path: Path) -> None:
    for name in ("gone.json", "gone.jsonl", "gone.csv"):
        assert f"{tmp_path / name}: no such file" in wrong_references(tmp_path / name)


@pytest.mark.fault(34, "an id that stands twice is refused with its place")
@pytest.mark.parametrize(
    ("name", "content", "place", "said"),
    [
        ("m.json", '{"001": "a", "001": "b"}', "", "'001' stands twice"),
        ("m.json", '[{"id": "001", "summary": "a"}, {"id": "001", "summary": "b"}]', "entry 1", "stands twice"),
        ("m.csv", "id,summary\n001,a\n001,b\n", ":3", "'001' stands twice"),
        ("m.json", '[{"id": "001", "summary": "a"}, {"id": 2, "summary": "b"}]', "entry 1", "id"),
        ("m.jsonl", '{"id": "001", "summary": "a"}\n{"id": 2, "summary": "b"}\n', ":2", "id"),
        ("m.json", '{"001": "a", "002": 3}', ": 002", "3"),
        ("m.json", '{"001": ["a", "b"]}', ": 001", "text"),
        ("m.jsonl", '{"id": "001", "summary": {"text": "a"}}\n', ":1", "text"),
        ("m.json", '{"1": "a", "2": "b"}', "", "'001'"),
        ("m.json", "{}", "", "'001'"),
        ("m.json", '{"001": "a",\n\n "002" "b"}', ":3", "not valid JSON"),
        ("m.jsonl", "not json\n", ":1", "not valid JSON"),
        ("m.json", '"a"', "", "JSON list"),
        ("m.json", '{"001": NaN}', "", "NaN"),
    ],
)
def test_unusable_predictions_are_refused_with_file_and_place(
    name: str, content: str, place: str, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)

    message = wrong_predictions(path)

    assert str(path) + place in message or f"{path}: {place}" in message
    assert said in message


def test_a_numeric_id_is_shown_as_it_stands(tmp_path: Path) -> None:
    """7 for "007" is the usual slip; a message that says `None` hides it."""
    path = write(tmp_path / "m.json", '[{"id": 7, "summary": "a"}]')

    assert "7" in wrong_predictions(path).removeprefix(str(path))


@pytest.mark.fault(35, "a missing column is named with those that are there")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "id,prediction\n001,a\n002,b\n"),
        ("m.jsonl", '{"id": "001", "prediction": "a"}\n'),
        ("m.json", '[{"id": "001", "prediction": "a"}]'),
    ],
)
def test_predictions_under_another_column_name_are_an_error_that_names_the_column(
    name: str, content: str, tmp_path: Path
) -> None:
    """Else every clip would count as predicted with an empty text."""
    message = wrong_predictions(write(tmp_path / name, content))

    assert "summary" in message


def test_two_files_of_one_name_are_refused_and_both_named(tmp_path: Path) -> None:
    one = as_json_object(tmp_path / "longva", PREDICTIONS["good"])
    two = as_csv(tmp_path / "longva", PREDICTIONS["good"])

    message = wrong_predictions(tmp_path)

    assert str(one) in message
    assert str(two) in message


@pytest.mark.fault(13, "two files of predictions that some file system takes for one are refused, both named")
def test_names_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    """On half of all machines their results would be one file."""
    for folder, name in (("x", "LongVA"), ("y", "longva")):
        (tmp_path / folder).mkdir()
        as_json_object(tmp_path / folder / name, PREDICTIONS["good"])

    message = wrong_predictions(tmp_path / "x", tmp_path / "y")

    assert str(tmp_path / "x" / "LongVA.json") in message
    assert str(tmp_path / "y" / "longva.json") in message


def test_an_empty_folder_of_predictions_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()

    message = wrong_predictions(folder)

    assert "no predictions" in message
    assert str(folder) in message


def test_a_missing_predictions_path_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'gone'}: no such file or folder" in wrong_predictions(tmp_path / "gone")


@needs_shared
def test_the_clip_cc_data_are_read_whole_with_their_known_gap() -> None:
    references = read_references(SHARED / "clip_cc/ground_truth.json")
    found = read_candidates([SHARED / "clip_cc/predictions"], references)

    scored: dict[str, set[str]] = defaultdict(set)
    for row in published_pairs():
        scored[row["vlm"]].add(row["video_id"])
    assert len(references) == 200
    assert {one.slug: set(one.texts) for one in found} == dict(scored)
    assert all("126" in (*one.missing, *one.empty) and not one.unknown for one in found)


def test_the_demos_inputs_hold_the_bundled_pairs(tmp_path: Path) -> None:
    from stella_mteb.cli.demo import write_judge_inputs
    from stella_mteb.harness.task_yaml import bundled_tasks

    folder = bundled_tasks()["VideoSummarySTS"].path.parent
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]

    references_file, predictions_folder = write_judge_inputs(tmp_path)
    references = read_references(references_file)
    found = {one.slug: one for one in read_candidates([predictions_folder], references)}

    assert references == {row["clip_id"]: row["reference"] for row in pairs}
    assert sum(len(one.texts) for one in found.values()) == len(pairs)
    for row in pairs:
        assert found[row["fault"]].texts[row["clip_id"]] == row["candidate"]
    for one in found.values():
        assert (one.empty, one.unknown) == ((), ())
        assert len(one.missing) == len(references) - len(one.texts)


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


def test_aggregated_files_count_what_was_not_scored_and_name_it() -> None:
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
    assert set(ours) - set(published) == {"missing", "empty", "unknown", "judge"}


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


@pytest.mark.fault(6, "the old file stands, no temporary one is left, exit code 3")
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

    assert read_hm_cf(tmp_path) == expected
    assert read_hm_cf(tmp_path / "aggregated") == expected


def test_means_are_read_from_the_in_house_layout(tmp_path: Path) -> None:
    for name, slug, mean in [("nemo", "longvu", 0.5), ("nemo", "longva", 0.25), ("kalm", "longvu", 0.125)]:
        (tmp_path / name).mkdir(exist_ok=True)
        content = {"model_name": slug, "hybrid_stats": {"hm_cf": {"mean": mean, "std": 0.1}}}
        write(tmp_path / name / f"{slug}.json", json.dumps(content))

    assert read_hm_cf(tmp_path) == {"nemo": {"longvu": 0.5, "longva": 0.25}, "kalm": {"longvu": 0.125}}


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
    path = write(tmp_path / "aggregated/nemo/broken.json", content)

    with pytest.raises(ConfigError) as caught:
        read_hm_cf(tmp_path)

    assert str(path) in str(caught.value)


def test_a_folder_without_aggregated_files_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigError) as caught:
            read_hm_cf(folder)

        assert str(folder) in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ ranking


HmCf = dict[str, dict[str, float]]
# Few distinct values, so that ties are common; thirds and tenths, so that sums are not exact.
MEANS = st.sampled_from([0.1, 0.2, 0.3, 1 / 3, 0.5, 0.7, 0.30000000000000004])


@st.composite
def judges(draw: st.DrawFn) -> HmCf:
    models = [f"m{number}" for number in range(draw(st.integers(1, 6)))]
    count = draw(st.integers(1, 5))
    return {f"j{number}": {model: draw(MEANS) for model in models} for number in range(count)}


def borda_by_hand(hm_cf: HmCf) -> dict[str, float]:
    """A model gets a point from a judge for every model it beats, and half a point for every model it equals."""
    points: dict[str, float] = defaultdict(float)
    for means in hm_cf.values():
        for model, mean in means.items():
            for other, its in means.items():
                if model != other:
                    points[model] += 1.0 if mean > its else 0.5 if mean == its else 0.0
            points[model] += 0.0
    return points


@settings(max_examples=50, deadline=None)
@given(hm_cf=judges())
def test_borda_is_the_number_of_beaten_models_with_ties_shared(hm_cf: HmCf) -> None:
    ranking, incomplete = rank_models(hm_cf)
    points = borda_by_hand(hm_cf)

    assert incomplete == []
    assert {row.slug: row.borda for row in ranking} == points
    for row in ranking:
        values = [means[row.slug] for means in hm_cf.values()]
        assert row.mean_hm_cf == pytest.approx(sum(values) / len(values), abs=1e-15)
    assert sum(points.values()) == len(hm_cf) * len(points) * (len(points) - 1) / 2


@settings(max_examples=50, deadline=None)
@given(hm_cf=judges())
def test_a_models_rank_is_one_more_than_the_number_of_better_models(hm_cf: HmCf) -> None:
    ranking, _ = rank_models(hm_cf)
    key = {row.slug: (row.borda, row.mean_hm_cf) for row in ranking}

    assert [row.rank for row in ranking] == [
        1 + sum(other > key[row.slug] for other in key.values()) for row in ranking
    ]
    assert [row.rank for row in ranking] == sorted(row.rank for row in ranking)


@settings(max_examples=50, deadline=None)
@given(hm_cf=judges(), seed=st.integers(0, 1000))
def test_the_order_of_models_and_of_judges_does_not_matter(hm_cf: HmCf, seed: int) -> None:
    shuffle = random.Random(seed)

    def shuffled(content: dict[str, Any]) -> dict[str, Any]:
        return dict(shuffle.sample(list(content.items()), len(content)))

    other = shuffled({name: shuffled(means) for name, means in hm_cf.items()})

    assert rank_models(other) == rank_models(hm_cf)


def test_models_with_the_same_means_in_another_order_share_a_rank() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point, but the two models are equal."""
    ranking, _ = rank_models({"x": {"a": 0.1, "b": 0.3}, "y": {"a": 0.2, "b": 0.2}, "z": {"a": 0.3, "b": 0.1}})

    assert [(row.slug, row.borda, row.rank) for row in ranking] == [("a", 1.5, 1), ("b", 1.5, 1)]


def test_a_tie_is_a_tie_at_full_precision_only() -> None:
    above = np.nextafter(0.5, 1)
    ranking, _ = rank_models({"x": {"a": 0.5, "b": float(above), "c": 0.5}})

    assert [(row.slug, row.borda, row.rank) for row in ranking] == [("b", 2.0, 1), ("a", 0.5, 2), ("c", 0.5, 2)]


def test_equal_points_are_decided_by_the_mean_and_the_next_rank_is_left_free() -> None:
    hm_cf = {"x": {"a": 0.9, "b": 0.5, "c": 0.1, "d": 0.1}, "y": {"a": 0.5, "b": 0.6, "c": 0.1, "d": 0.1}}

    ranking, _ = rank_models(hm_cf)

    assert ranking[0] == RankedModel("a", 5.0, 0.7, 1)
    assert ranking[1] == RankedModel("b", 5.0, 0.55, 2)
    assert [(row.slug, row.rank) for row in ranking[2:]] == [("c", 3), ("d", 3)]
    after, _ = rank_models({"x": {"a": 0.9, "b": 0.9, "c": 0.1}})
    assert [row.rank for row in after] == [1, 1, 3]


def test_a_model_that_one_judge_lacks_is_listed_and_takes_no_points_from_others() -> None:
    whole = {"x": {"a": 0.9, "b": 0.5}, "y": {"a": 0.4, "b": 0.5}}
    with_gap = {"x": {**whole["x"], "half": 0.7}, "y": whole["y"]}

    ranking, incomplete = rank_models(with_gap)

    assert incomplete == ["half"]
    assert ranking == rank_models(whole)[0]


def test_judges_without_a_common_model_rank_nothing() -> None:
    assert rank_models({"x": {"a": 0.9}, "y": {"b": 0.4}}) == ([], ["a", "b"])


@needs_shared
def test_the_published_judges_rank_videollama3_first_and_longva_last() -> None:
    hm_cf: HmCf = defaultdict(dict)
    for path in (SHARED / "clip_cc/aggregated").glob("*/*.json"):
        hm_cf[path.parent.name][path.stem] = json.loads(path.read_text("utf-8"))["hybrid_stats"]["hm_cf"]["mean"]

    ranking, incomplete = rank_models(read_hm_cf(SHARED / "clip_cc"))

    assert incomplete == []
    assert set(hm_cf) == set(JUDGES)
    assert {row.slug: row.borda for row in ranking} == borda_by_hand(hm_cf)
    assert (ranking[0].slug, ranking[0].borda, ranking[0].rank) == ("videollama3", 40, 1)
    assert (ranking[-1].slug, ranking[-1].borda, ranking[-1].rank) == ("longva", 0, 9)


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
    with pytest.raises(ConfigError, match="judged with another references; give this run an --output of its own"):
        require_same_judge(tmp_path, "x", {**identity, "references": "222"})
