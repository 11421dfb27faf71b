"""Scoring of all candidates in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.store import VectorStore
from stella_mteb.judge.judge import Judgement, judge_all
from stella_mteb.judge.sentences import split_sentences
from stella_mteb.judge.similarity import PairScore, over_references
from tests.support.judging import (
    GIVEN,
    PREDICTIONS,
    REFERENCES,
    brute_force,
    candidate,
    candidates,
    figures,
)
from tests.support.spies import twin, watch


def scores_by_model(judgements: Iterable[Judgement]) -> dict[str, dict[str, PairScore]]:
    return {judgement.candidate.slug: judgement.scores for judgement in judgements}


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


def alone(encoder: TextEncoder, prompt: str = "") -> dict[str, dict[str, PairScore]]:
    """Score every pair separately, with one call of `encode` for each text and sentence, and a double loop."""

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
    found = scores_by_model(judge_all(twin(minilm), "", GIVEN, candidates()))

    assert_same_scores(found, one_by_one)
    for slug, scores in one_by_one.items():
        for clip, score in scores.items():
            assert found[slug][clip].num_reference_sentences == score.num_reference_sentences
            assert found[slug][clip].num_candidate_sentences == score.num_candidate_sentences


def test_a_text_by_itself_is_one_reference_and_not_its_characters(minilm: TextEncoder) -> None:
    alone = {clip: text for clip, (text, *_) in GIVEN.items()}
    one = {clip: [text] for clip, text in alone.items()}

    assert scores_by_model(judge_all(twin(minilm), "", alone, candidates())) == scores_by_model(
        judge_all(twin(minilm), "", one, candidates())
    )


def test_a_copy_of_the_reference_scores_one_and_beats_everything_else(minilm: TextEncoder) -> None:
    scores = scores_by_model(judge_all(twin(minilm), "", GIVEN, candidates()))

    assert figures(scores["good"]["003"]) == pytest.approx([1.0] * 5, abs=1e-6)
    assert scores["bad"]["003"].hm_cf < scores["good"]["001"].hm_cf < 1
    assert scores["bad"]["001"].hm_cf < scores["good"]["001"].hm_cf


def test_the_prompt_precedes_texts_and_sentences_of_both_sides(stella: TextEncoder) -> None:
    prompt = "Instruct: Retrieve semantically similar text.\nQuery: "

    found = scores_by_model(judge_all(twin(stella), prompt, GIVEN, candidates()))
    bare = scores_by_model(judge_all(twin(stella), "", GIVEN, candidates()))

    assert_same_scores(found, alone(stella, prompt), tolerance=1e-5)
    assert abs(found["bad"]["001"].coarse - bare["bad"]["001"].coarse) > 1e-3


def test_the_order_of_candidates_changes_no_score(minilm: TextEncoder) -> None:
    forwards = list(judge_all(twin(minilm), "", GIVEN, candidates()))
    backwards = list(judge_all(twin(minilm), "", GIVEN, candidates()[::-1]))

    assert [judgement.candidate.slug for judgement in backwards] == ["bad", "good"]
    assert_same_scores(
        dict(sorted(scores_by_model(backwards).items())), dict(sorted(scores_by_model(forwards).items()))
    )


def test_a_candidate_scores_the_same_without_the_others(minilm: TextEncoder) -> None:
    together = scores_by_model(judge_all(twin(minilm), "", GIVEN, candidates()))
    single = scores_by_model(judge_all(twin(minilm), "", GIVEN, candidates()[1:]))

    assert_same_scores(single, {"bad": together["bad"]})


def test_every_distinct_text_goes_through_the_backbone_once(
    minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """References are shared by all candidates, sentences recur across them, and one text is its own sentence."""
    encoder = twin(minilm)
    shapes = watch(monkeypatch, minilm)

    assert len(list(judge_all(encoder, "", GIVEN, candidates()))) == 2

    assert sum(count for count, _ in shapes) == len(distinct_texts())
    assert encoder.stats.encoded == len(distinct_texts())


def test_a_second_copy_of_a_candidate_costs_nothing(minilm: TextEncoder) -> None:
    encoder = twin(minilm)
    copies = [*candidates(), candidate("copy", dict(PREDICTIONS["good"]))]

    scores = scores_by_model(judge_all(encoder, "", GIVEN, copies))

    assert encoder.stats.encoded == len(distinct_texts())
    assert scores["copy"] == scores["good"]


def test_an_encoder_that_does_not_normalise_gives_the_same_scores(minilm: TextEncoder, stella: TextEncoder) -> None:
    for encoder in (minilm, stella):
        bare = twin(encoder, normalize=False)
        assert abs(np.linalg.norm(bare.encode(["A man drives a car."])) - 1) > 1e-2

        found = scores_by_model(judge_all(bare, "", GIVEN, candidates()))

        assert_same_scores(found, scores_by_model(judge_all(twin(encoder), "", GIVEN, candidates())))


def stored(encoder: TextEncoder, folder: Path, **changes: Any) -> TextEncoder:
    """The same model in the state of a new process."""
    fresh = twin(encoder, **changes)
    fresh.store = VectorStore(folder, fresh.fingerprint)
    return fresh


def test_a_second_run_with_a_store_runs_no_forward_pass(
    minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = scores_by_model(judge_all(stored(minilm, tmp_path), "", GIVEN, candidates()))
    shapes = watch(monkeypatch, minilm)

    again = scores_by_model(judge_all(stored(minilm, tmp_path), "", GIVEN, candidates()))

    assert shapes == []
    assert again == first


def test_a_new_candidate_costs_only_its_new_texts(minilm: TextEncoder, tmp_path: Path) -> None:
    list(judge_all(stored(minilm, tmp_path), "", GIVEN, candidates()))
    later = stored(minilm, tmp_path)
    new = candidate("new", {"001": "A man drives a car. It rains all day."})

    list(judge_all(later, "", GIVEN, [*candidates(), new]))

    # The text as a whole and its second sentence; its first is a sentence of the reference.
    assert later.stats.encoded == 2


@pytest.mark.parametrize("batches_before", [0, 1, 2])
def test_an_interrupted_run_resumes_with_the_remaining_texts(
    batches_before: int, minilm: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tokens before and after Ctrl-C add up to those of one uninterrupted run."""
    settings_of_all = {"batch_size": 1, "max_length": 64}
    uninterrupted = twin(minilm, **settings_of_all)
    expected = scores_by_model(judge_all(uninterrupted, "", GIVEN, candidates()))
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
            list(judge_all(stored(minilm, tmp_path, **settings_of_all), "", GIVEN, candidates()))
    resumed = stored(minilm, tmp_path, **settings_of_all)
    found = scores_by_model(judge_all(resumed, "", GIVEN, candidates()))

    assert len(finished) == batches_before
    assert 0 < resumed.stats.tokens == uninterrupted.stats.tokens - sum(finished)
    assert_same_scores(found, expected)


def test_judging_reports_its_progress_in_tokens(minilm: TextEncoder) -> None:
    encoder, seen = twin(minilm, batch_size=1, max_length=64), []

    list(judge_all(encoder, "", GIVEN, candidates(), lambda done, total: seen.append((done, total))))

    assert len(seen) > 1
    assert seen[-1] == (encoder.stats.tokens, encoder.stats.tokens)
    assert seen == sorted(seen)


# ------------------------------------------------------------------------------------------------ several references

SEVERAL = {
    "001": ("A cook burns the soup.", "A man drives a car. A woman reads a map."),
    "002": ("Two kids stack red bricks into a tower. A dog ruins it.", "A dog ruins a tower.", "Rain falls."),
}


def against_each(encoder: TextEncoder, texts: dict[str, str]) -> dict[str, list[PairScore]]:
    """Each reference as if it were the clip's only one."""
    return {
        clip: [
            next(judge_all(twin(encoder), "", {clip: (reference,)}, [candidate("m", {clip: texts[clip]})])).scores[clip]
            for reference in references
        ]
        for clip, references in SEVERAL.items()
    }


def test_the_best_of_several_references_gives_all_figures_and_is_named(minilm: TextEncoder) -> None:
    texts = {clip: PREDICTIONS["good"][clip] for clip in SEVERAL}
    single = against_each(minilm, texts)

    (judgement,) = judge_all(twin(minilm), "", SEVERAL, [candidate("m", texts)])

    assert {clip: score.reference for clip, score in judgement.scores.items()} == {"001": 1, "002": 0}
    for clip, score in judgement.scores.items():
        assert figures(score) == pytest.approx(figures(single[clip][score.reference or 0]), abs=1e-6)
        assert score.hm_cf == pytest.approx(max(one.hm_cf for one in single[clip]), abs=1e-6)
        assert score.num_reference_sentences == single[clip][score.reference or 0].num_reference_sentences


def test_the_mean_of_several_references_is_that_of_each_figure(minilm: TextEncoder) -> None:
    texts = {clip: PREDICTIONS["good"][clip] for clip in SEVERAL}
    single = against_each(minilm, texts)

    (judgement,) = judge_all(twin(minilm), "", SEVERAL, [candidate("m", texts)], several="mean")

    for clip, score in judgement.scores.items():
        assert score.reference is None
        assert figures(score) == pytest.approx(np.mean([figures(one) for one in single[clip]], axis=0), abs=1e-6)
    assert judgement.scores["002"].num_reference_sentences == pytest.approx((2 + 1 + 1) / 3)


def test_if_no_sentences_are_similar_the_reference_with_the_higher_coarse_wins() -> None:
    below = [PairScore(coarse, -0.5, -0.5, 0.0, 0.0, 1, 1) for coarse in (-0.6, -0.2, -0.4)]

    assert over_references(below, "best") == replace(below[1], reference=1)
