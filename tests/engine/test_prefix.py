"""The shared prefix is computed once and changes no vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from stella_mteb.engine import varlen
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.packing import Packing
from stella_mteb.engine.pooling import Pooling
from stella_mteb.engine.prefix import WORTH_IT, Prefix, attend, common_prefix, merge
from stella_mteb.errors import EnvironmentProblem
from stella_mteb.models.resolve import resolve
from stella_mteb.prompts.examples import Example, frame
from tests.support.spies import S2S, padded, runs_out_above, twin, watch
from tests.support.varlen import install, of_torch_2_11, today

INSTRUCTION = "Retrieve semantically similar text."
WORDS = ["the", "man", "of", "a", "red", "brick", "tower", "waits", "at", "dawn", "and", "nobody", "waves"]
EXAMPLES = tuple(Example(" ".join(WORDS[: 3 + i]), " ".join(WORDS[i:])) for i in range(8))
PROMPTS = {shots: frame(INSTRUCTION, EXAMPLES, shots) for shots in (0, 1, 3, 8)}
TEXTS = ["", *(" ".join(WORDS[i % 5 : i % 5 + i]) for i in range(1, 9)), "a boat " * 60, "x", "the man", "the men"]


@pytest.fixture(scope="module")
def loaded(bge: Path) -> TextEncoder:
    return resolve(str(bge)).load("cpu")


@pytest.fixture
def encoder(loaded: TextEncoder) -> TextEncoder:
    """Start without a prefix from an earlier test."""
    return copy_of(loaded)


def copy_of(encoder: TextEncoder, **changes: Any) -> TextEncoder:
    return twin(encoder, **{"tokenise": encoder.tokenise, **changes})


def in_full(encoder: TextEncoder, **changes: Any) -> TextEncoder:
    """The same model without a shared prefix."""
    same = copy_of(encoder, **changes)
    same.shares_prefix = False
    return same


def tokens_of(encoder: TextEncoder, texts: list[str], prompt: str = "") -> list[np.ndarray]:
    return encoder.tokenise(texts, prompt)


# ----------------------------------------------------------------------------------------------- the same vectors


@pytest.mark.parametrize("token_budget", [64, 200, 1024])
@pytest.mark.parametrize("shots", PROMPTS)
def test_vectors_are_those_of_full_recomputation(loaded: TextEncoder, shots: int, token_budget: int) -> None:
    encoder = copy_of(loaded, token_budget=token_budget)

    shared = encoder.encode(TEXTS, PROMPTS[shots])

    assert encoder._prefix is not None
    np.testing.assert_allclose(shared, in_full(loaded).encode(TEXTS, PROMPTS[shots]), atol=1e-5)


def test_vectors_are_those_of_transformers_own_attention_one_text_at_a_time(encoder: TextEncoder) -> None:
    plain = padded(in_full(encoder), tokenise=encoder.tokenise)
    one_by_one = np.concatenate([plain.encode([text], PROMPTS[3]) for text in TEXTS])

    np.testing.assert_allclose(encoder.encode(TEXTS, PROMPTS[3]), one_by_one, atol=1e-5)


def test_vectors_over_several_windows_are_the_same(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stella_mteb.engine.batching.WINDOW", 3)

    shared = encoder.encode(TEXTS, PROMPTS[3])

    np.testing.assert_allclose(shared, in_full(encoder).encode(TEXTS, PROMPTS[3]), atol=1e-5)


def test_a_text_that_is_itself_the_prefix_of_all_others_is_encoded(encoder: TextEncoder) -> None:
    """Without a prompt, the shared prefix comes from the texts."""
    texts = ["a boat leaves " * 8, "a boat leaves " * 8 + "at dawn", "a boat leaves " * 8 + "x"]

    shared = encoder.encode(texts)

    assert encoder._prefix is not None
    np.testing.assert_allclose(shared, in_full(encoder).encode(texts), atol=1e-5)


def test_a_new_prompt_never_uses_the_prefix_of_an_old_one(encoder: TextEncoder) -> None:
    full = in_full(encoder)
    for shots in (3, 8, 1, 0, 3, 8):
        np.testing.assert_allclose(encoder.encode(TEXTS, PROMPTS[shots]), full.encode(TEXTS, PROMPTS[shots]), atol=1e-5)


def test_sharing_a_prefix_in_bfloat16_is_as_near_to_float32_as_full_recomputation(
    bge: Path, loaded: TextEncoder
) -> None:
    half = resolve(f"{bge}[bf16]").load("cpu")
    exact = in_full(loaded).encode(TEXTS, PROMPTS[8])

    shared, full = (one.encode(TEXTS, PROMPTS[8]) for one in (copy_of(half), in_full(half)))

    off_shared, off_full = (1 - (vectors * exact).sum(axis=1) for vectors in (shared, full))
    assert off_shared.max() < 2e-3
    assert off_shared.mean() < 1.25 * off_full.mean()


# -------------------------------------------------------------------------------------------------- savings


def test_the_prefix_goes_through_the_backbone_once(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder.token_budget = 128
    ids = tokens_of(encoder, TEXTS, PROMPTS[8])
    prefix = len(common_prefix(ids))
    shapes = watch(monkeypatch, encoder)

    encoder.encode(TEXTS, PROMPTS[8])

    assert prefix > 150
    assert len(shapes) > 2
    assert shapes[0] == (1, prefix)
    assert sum(tokens for _, tokens in shapes) == prefix + sum(len(row) - prefix for row in ids)


def test_a_second_call_computes_no_prefix(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder.encode(TEXTS, PROMPTS[8])
    shapes = watch(monkeypatch, encoder)

    again = encoder.encode(["another text", "and one more"], PROMPTS[8])
    alone = encoder.encode(["another text"], PROMPTS[8])

    assert [texts for texts, _ in shapes] == [2, 1]
    assert sum(tokens for _, tokens in shapes) < 64
    np.testing.assert_allclose(again[0], alone[0], atol=1e-5)


def test_a_single_text_is_computed_in_one_pass(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = watch(monkeypatch, encoder)

    vector = encoder.encode(["the man"], PROMPTS[3])

    assert shapes == [(1, len(tokens_of(encoder, ["the man"], PROMPTS[3])[0]))]
    np.testing.assert_allclose(vector, in_full(encoder).encode(["the man"], PROMPTS[3]), atol=1e-5)


def test_texts_with_a_short_common_prefix_are_computed_in_full(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a man", "a boat", "the dog"]
    shapes = watch(monkeypatch, encoder)

    encoder.encode(texts)

    assert shapes == [(3, sum(map(len, tokens_of(encoder, texts))))]
    assert encoder._prefix is None


def test_the_count_of_tokens_is_that_of_the_texts_whether_shared_or_not(encoder: TextEncoder) -> None:
    full = in_full(encoder)
    seen: list[tuple[int, int]] = []

    encoder.encode(TEXTS, PROMPTS[3], progress=lambda done, total: seen.append((done, total)))
    full.encode(TEXTS, PROMPTS[3])

    assert encoder.stats.tokens == full.stats.tokens == sum(map(len, tokens_of(encoder, TEXTS, PROMPTS[3])))
    assert seen[-1] == (encoder.stats.tokens, encoder.stats.tokens)
    assert encoder.stats.at_limit == full.stats.at_limit == 1


# --------------------------------------------------------------------------------------------- out of memory


def test_a_batch_that_does_not_fit_is_halved_behind_the_same_prefix(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = in_full(encoder).encode(TEXTS, PROMPTS[8])
    shapes = watch(monkeypatch, encoder, runs_out_above(3))

    vectors = encoder.encode(TEXTS, PROMPTS[8])

    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert max(texts for texts, _ in shapes) > 3
    prefix = shapes[0]
    assert shapes.count(prefix) == 1


class NoRoomForThePrefix:
    """A backbone that runs out of memory on its first passes over a prefix."""

    def __init__(self, encoder: TextEncoder, error: type[BaseException]) -> None:
        self.passes = 0
        self._forward, self._error = encoder.backbone.forward, error

    def __call__(self, **given: Any) -> Any:
        self.passes += 1
        if given["packing"].into is not None:
            self._forward(**given)
            raise self._error("CUDA out of memory")
        return self._forward(**given)


def test_texts_are_computed_in_full_and_no_partial_prefix_is_kept_if_the_prefix_does_not_fit(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = in_full(encoder)
    expected = full.encode(TEXTS, PROMPTS[3])
    with monkeypatch.context() as patch:
        patch.setattr(encoder.backbone, "forward", NoRoomForThePrefix(encoder, torch.OutOfMemoryError))

        np.testing.assert_allclose(encoder.encode(TEXTS, PROMPTS[3]), expected, atol=1e-5)

    assert encoder._prefix is None
    np.testing.assert_allclose(encoder.encode(TEXTS, PROMPTS[3]), expected, atol=1e-5)


def test_another_error_in_the_prefix_is_not_hidden_and_the_next_call_is_right(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(encoder.backbone, "forward", NoRoomForThePrefix(encoder, ZeroDivisionError))
        with pytest.raises(ZeroDivisionError):
            encoder.encode(TEXTS, PROMPTS[3])

    np.testing.assert_allclose(encoder.encode(TEXTS, PROMPTS[3]), in_full(encoder).encode(TEXTS, PROMPTS[3]), atol=1e-5)


def test_a_single_text_that_does_not_fit_behind_its_prefix_is_named_with_all_its_tokens(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.encode(["the man", "a boat"], PROMPTS[3])
    tokens = len(tokens_of(encoder, ["a red brick"], PROMPTS[3])[0])
    watch(monkeypatch, encoder, runs_out_above(0))

    with pytest.raises(EnvironmentProblem, match=f"out of memory on cpu with a single text of {tokens} tokens"):
        encoder.encode(["a red brick"], PROMPTS[3])


# --------------------------------------------------------------------------------------------- which models share


def test_only_a_causal_packed_model_with_last_token_pooling_shares_a_prefix(
    loaded: TextEncoder, stella: TextEncoder
) -> None:
    causal = twin(stella)
    causal.backbone.config.is_causal = True
    try:
        mean = twin(causal)
        last = twin(causal, pooling=Pooling(("lasttoken",)))
    finally:
        causal.backbone.config.is_causal = False

    assert loaded.shares_prefix
    assert last.shares_prefix
    assert not mean.shares_prefix
    assert not stella.shares_prefix
    assert not twin(stella, pooling=Pooling(("lasttoken",))).shares_prefix  # bidirectional
    assert not copy_of(loaded, pooling=Pooling(("mean",))).shares_prefix
    assert not copy_of(loaded, pooling=Pooling(("lasttoken", "mean"))).shares_prefix
    assert not copy_of(loaded, pooling=Pooling(("lasttoken",), include_prompt=False)).shares_prefix
    assert not padded(loaded).shares_prefix


def test_a_bidirectional_model_sees_the_prompt_with_every_text(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = twin(stella)
    texts = ["the man", "a boat"]
    shapes = watch(monkeypatch, encoder)

    encoder.encode(texts, S2S)

    assert shapes == [(2, sum(map(len, tokens_of(encoder, [S2S + text for text in texts]))))]


# ------------------------------------------------------------------------------------------------------ the parts


rows_of_ids = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(rows_of_ids, st.lists(st.integers(0, 2), max_size=6))
def test_the_common_prefix_is_the_longest_that_leaves_each_text_a_token(
    rows: list[list[int]], begin: list[int]
) -> None:
    ids = [np.array(begin + row, dtype=np.int32) for row in rows]

    found = common_prefix(ids).tolist()

    def serves(length: int) -> bool:
        return all(len(row) > length and row[:length].tolist() == ids[0][:length].tolist() for row in ids)

    assert found == ids[0][: len(found)].tolist()
    assert serves(len(found))
    assert not serves(len(found) + 1)
    assert len(found) >= len(begin)
    assert all(Prefix(common_prefix(ids)).begins(row) for row in ids)


def parts(heads: int, key_heads: int, tokens: int, keys: int) -> Any:
    generator = torch.Generator().manual_seed(heads * 1000 + tokens * 10 + keys)
    return (
        torch.randn(count, size, 8, generator=generator) * 1.5
        for count, size in ((heads, tokens), (key_heads, keys), (key_heads, keys))
    )


@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize("causal", [True, False])
def test_attend_equals_torchs_attention_and_adds_the_logarithm_of_the_softmax_sum(key_heads: int, causal: bool) -> None:
    query, key, value = parts(6, key_heads, 9, 9 if causal else 14)

    seen, sums = attend(query, key, value, 0.4, causal=causal)

    expected = scaled_dot_product_attention(query, key, value, is_causal=causal, scale=0.4, enable_gqa=True)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)
    scores = query @ key.repeat_interleave(6 // key_heads, dim=0).mT * 0.4
    if causal:
        scores = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), float("-inf"))
    torch.testing.assert_close(sums, scores.exp().sum(dim=-1).log(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("split", [1, 5, 13])
def test_two_parts_merged_are_the_attention_over_both(split: int) -> None:
    query, key, value = parts(6, 2, 9, 14)

    halves = [
        attend(query, key[:, half], value[:, half], 0.4, causal=False) for half in (slice(split), slice(split, None))
    ]

    expected = scaled_dot_product_attention(query, key, value, scale=0.4, enable_gqa=True)
    torch.testing.assert_close(merge(*halves, torch.float32), expected, atol=1e-5, rtol=0)


def test_scores_of_thousands_are_merged_without_overflow() -> None:
    query, key, value = parts(2, 2, 3, 8)
    halves = [attend(query * 100, key[:, half], value[:, half], 5.0, causal=False) for half in (slice(4), slice(4, 8))]

    expected = scaled_dot_product_attention(query * 100, key, value, scale=5.0)
    torch.testing.assert_close(merge(*halves, torch.float32), expected, atol=1e-5, rtol=0)


def test_attention_scores_are_not_rounded_to_bfloat16() -> None:
    query, key, value = (part.bfloat16() for part in parts(6, 2, 9, 14))

    seen, _ = attend(query, key, value, 0.4, causal=False)

    exact = scaled_dot_product_attention(query.float(), key.float(), value.float(), scale=0.4, enable_gqa=True)
    torch.testing.assert_close(seen, exact, atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------- the kernel that is only on CUDA


def use_kernel(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> list[tuple[int, int]]:
    """Use the branch for CUDA with a kernel for the CPU; records queries and keys of each call."""
    calls: list[tuple[int, int]] = []

    def noted(*parts: Any, **options: Any) -> Any:
        calls.append((len(parts[0]), len(parts[1])))
        return kernel(*parts, **options)

    options = {"enable_gqa": True} if kernel is today else {}
    install(monkeypatch, noted)
    monkeypatch.setattr(varlen, "_options", lambda *_: options)
    return calls


@pytest.mark.parametrize("kernel", [today, of_torch_2_11])
def test_vectors_with_the_kernel_equal_full_recomputation_without_it(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, kernel: Any
) -> None:
    expected = in_full(encoder).encode(TEXTS, PROMPTS[3])
    calls = use_kernel(monkeypatch, kernel)

    vectors = encoder.encode(TEXTS, PROMPTS[3])

    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert encoder._prefix is not None
    shared = len(encoder._prefix.ids)
    rest = sum(len(row) - shared for row in tokens_of(encoder, TEXTS, PROMPTS[3]))
    # Two layers: the prefix itself, then every text's tokens over the prefix, and over themselves.
    assert calls == [(shared, shared)] * 2 + [(rest, shared), (rest, rest)] * 2


def test_torchs_kernel_returns_sums_of_shape_heads_by_tokens() -> None:
    """The documentation gives the shape as tokens by heads."""
    pytest.importorskip("torch.nn.attention.varlen", reason="needs torch 2.11")
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention.varlen import AuxRequest as Asked
    from torch.nn.attention.varlen import varlen_attn

    with FakeTensorMode():
        part = torch.empty(10, 4, 8, dtype=torch.bfloat16)
        bounds = torch.empty(2, dtype=torch.int32)
        seen, sums = varlen_attn(part, part, part, bounds, bounds, 10, 10, return_aux=Asked(lse=True))

    assert seen.shape == (10, 4, 8)
    assert sums.shape == (4, 10)


def test_bounds_over_the_prefix_span_all_texts() -> None:
    pack = Packing([3, 1, 4], causal=True, device=torch.device("cpu"), after=Prefix(np.arange(7, dtype=np.int32)))

    queries, keys, tokens, shared = pack.over_prefix

    assert (queries.tolist(), keys.tolist(), tokens, shared) == ([0, 8], [0, 7], 8, 7)


def test_a_prefix_below_the_minimum_length_is_not_computed_separately(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shapes_for(shared: int) -> list[tuple[int, int]]:
        encoder._prefix = None
        rows = [np.array([5] * shared + [6 + last], dtype=np.int32) for last in range(3)]
        with monkeypatch.context() as patch:
            patch.setattr(encoder, "tokenise", Rows(rows))
            shapes = watch(patch, encoder)
            encoder.encode(["a", "b", "c"])
        return shapes

    assert shapes_for(WORTH_IT - 1) == [(3, 3 * WORTH_IT)]
    assert shapes_for(WORTH_IT) == [(1, WORTH_IT), (3, 3)]


class Rows:
    """A tokeniser that always returns the same rows."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        self._rows = rows

    def __call__(self, texts: list[str], prompt: str = "") -> list[np.ndarray]:
        return self._rows[: len(texts)]

    def longest(self, prompt: str) -> int:
        return 64
