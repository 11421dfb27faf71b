"""Packed texts: each is computed as if it were alone, for every packed architecture."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.layouts.gte import HIDDEN, write_stella_400m
from benchmarks.layouts.stella import write_modules
from stella_mteb.engine import packing
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.packing import Packing
from stella_mteb.engine.pooling import Head, Pooling
from stella_mteb.models.resolve import resolve
from tests.support.spies import padded, watch

VOCABULARY, WIDTH = 60, 32
ARCHITECTURES = ["bert", "gte", "qwen2 bidirectional", "qwen2 causal", "mistral causal"]
BIDIRECTIONAL, CAUSAL = ARCHITECTURES[:3], ARCHITECTURES[3:]
LENGTHS = [7, 3, 3, 12, 1, 3]

Backbones = Callable[..., Any]
Ids = list[np.ndarray]


def config_of(architecture: str, **changes: Any) -> Any:
    from transformers import BertConfig, GteConfig, MistralConfig, Qwen2Config

    size = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 256,
    }
    grouped = {"num_key_value_heads": 2}
    match architecture:
        case "bert":
            return BertConfig(**size | changes)
        case "gte":
            return GteConfig(**size | changes)
        case "mistral causal":
            return MistralConfig(**size | grouped | {"head_dim": 8} | changes)
    config = Qwen2Config(**size | grouped | changes)
    if architecture == "qwen2 bidirectional":
        config.is_causal = False
    return config


@pytest.fixture(scope="module")
def backbone() -> Backbones:
    """Makes models of one architecture with the same random weights, so large that attention matters."""
    from transformers import AutoModel

    packing.register()

    @cache
    def weights(architecture: str) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        state = AutoModel.from_config(config_of(architecture)).state_dict()
        noise = {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}
        return {
            name: 0.2 * value if value.dim() > 1 else 0.3 * value + (0 if name.endswith("bias") else 1)
            for name, value in noise.items()
        }

    @cache
    def make(
        architecture: str, attention: str = packing.NAME, dtype: torch.dtype = torch.float32, **changes: Any
    ) -> Any:
        model = AutoModel.from_config(config_of(architecture, **changes), attn_implementation=attention)
        model.load_state_dict(weights(architecture))
        return model.to(dtype).eval()

    return make


def engine(model: Any, pooling: Pooling | None = None) -> TextEncoder:
    """A tokenizer for numbers between blanks, without added tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="1"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pooling = pooling or Pooling()
    width = WIDTH * len(pooling.modes)
    return TextEncoder(
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0"),  # noqa: S106
        backbone=model,
        pooling=pooling,
        heads=[Head(width, torch.nn.Identity)],
        dimension=width,
        max_length=64,
    )


def states_of(model: Any, texts: Ids) -> list[np.ndarray]:
    """Return the hidden states of each text from one pass of the engine."""
    hidden = engine(model).hidden(texts).float()
    return [part.numpy() for part in hidden.split([len(text) for text in texts])]


def alone_of(model: Any, texts: Ids) -> list[np.ndarray]:
    """Return the hidden states of each text in a separate pass, from transformers alone."""
    with torch.no_grad():
        return [model(input_ids=torch.from_numpy(text)[None].long()).last_hidden_state[0].numpy() for text in texts]


def random_texts(lengths: list[int], seed: int = 0) -> Ids:
    random = np.random.default_rng(seed)
    return [random.integers(2, VOCABULARY, size=length).astype(np.int32) for length in lengths]


def words_of(texts: Ids) -> list[str]:
    return [" ".join(map(str, text)) for text in texts]


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(abs(a - b).max()) for a, b in zip(one, other, strict=True))


some_texts = st.lists(
    st.lists(st.integers(2, VOCABULARY - 1), min_size=1, max_size=14).map(lambda ids: np.array(ids, dtype=np.int32)),
    min_size=1,
    max_size=7,
)


# --------------------------------------------------------------------------------------------- each as if it were alone


@settings(max_examples=40, deadline=None)
@given(texts=some_texts, repeated=st.booleans())
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_packed_text_has_the_states_that_transformers_gives_it_alone(
    backbone: Backbones, architecture: str, texts: Ids, repeated: bool
) -> None:
    texts = texts + texts[:1] * repeated

    together = states_of(backbone(architecture), texts)

    expected = alone_of(backbone(architecture, "eager"), texts)
    for states, alone in zip(together, expected, strict=True):
        np.testing.assert_allclose(states, alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(texts=some_texts, data=st.data())
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_changing_removing_or_moving_neighbours_does_not_move_a_vector(
    backbone: Backbones, architecture: str, texts: Ids, data: st.DataObject
) -> None:
    encoder = engine(backbone(architecture))
    own, *others = words_of(texts)
    others = data.draw(st.permutations([*others, *words_of(random_texts(LENGTHS, seed=7))]))
    others = others[: data.draw(st.integers(0, len(others)))]
    place = data.draw(st.integers(0, len(others)))
    others = [text for text in others if text != own]

    vectors = encoder.encode([*others[:place], own, *others[place:]])

    np.testing.assert_allclose(vectors[min(place, len(others))], encoder.encode([own])[0], atol=1e-5)


@pytest.mark.versions
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pack_has_the_states_of_a_padded_batch_of_transformers(
    backbone: Backbones, architecture: str, attention: str
) -> None:
    texts = random_texts(LENGTHS)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.zeros_like(mask)
    ids[mask.bool()] = torch.from_numpy(np.concatenate(texts)).long()
    with torch.no_grad():
        expected = backbone(architecture, attention)(input_ids=ids, attention_mask=mask).last_hidden_state

    together = states_of(backbone(architecture), texts)

    assert largest_difference(together, [row[:n].numpy() for row, n in zip(expected, LENGTHS, strict=True)]) < 1e-5


@pytest.mark.fault(26, "the same vectors to 1e-5 in float32")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_engine_gives_the_same_vectors_packed_and_padded(backbone: Backbones, architecture: str) -> None:
    encoder = engine(backbone(architecture), Pooling(("cls", "max", "mean", "lasttoken")))
    texts = words_of(random_texts(LENGTHS * 3))
    pads = padded(encoder)
    assert encoder.packed

    np.testing.assert_allclose(encoder.encode(texts), pads.encode(texts), atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_differ_if_texts_are_not_kept_apart(
    backbone: Backbones, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """Without this, the comparisons above would prove nothing."""
    texts = random_texts(LENGTHS)
    expected = states_of(backbone(architecture), texts)
    total = sum(LENGTHS)
    monkeypatch.setattr(Packing, "runs", lambda _: iter([(slice(0, total), total)]))

    assert largest_difference(states_of(backbone(architecture), texts)[1:], expected[1:]) > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_order_of_the_tokens_of_a_text_matters(backbone: Backbones, architecture: str) -> None:
    """Without this, positions that continue across texts would go unnoticed above."""
    (text,) = random_texts([9])

    forth, back = states_of(backbone(architecture), [text, text[::-1].copy()])

    assert abs(forth - back[::-1]).max() > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pack_in_bfloat16_is_as_near_to_float32_as_texts_alone(backbone: Backbones, architecture: str) -> None:
    """Measured over 30 draws: 0.014 (BERT) to 0.081 (GTE) from float32; packed from alone 0, with other weights 0.004.

    Shares of the length of a pooled vector; the weights are coarser than those of a trained model.
    """
    exact, half = backbone(architecture, "eager"), backbone(architecture, dtype=torch.bfloat16)
    for seed in range(5):
        texts = random_texts(LENGTHS, seed)
        expected = [states.mean(axis=0) for states in alone_of(exact, texts)]

        together = [states.mean(axis=0) for states in states_of(half, texts)]
        alone = [states_of(half, [text])[0].mean(axis=0) for text in texts]

        assert 0 < relative(together, expected) < 0.12
        assert relative(together, alone) < 0.02


def relative(vectors: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(vectors, expected, strict=True))


# ------------------------------------------------------------------------------------------------ attention


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_later_token_moves_no_earlier_state_of_a_causal_model(backbone: Backbones, architecture: str) -> None:
    before, after = _states_before_and_after_a_change_of_the_last_token(backbone(architecture))

    np.testing.assert_array_equal(before[:-1], after[:-1])
    assert abs(before[-1] - after[-1]).max() > 0.1


@pytest.mark.parametrize("architecture", BIDIRECTIONAL)
def test_the_last_token_moves_every_earlier_state_of_a_bidirectional_model(
    backbone: Backbones, architecture: str
) -> None:
    before, after = _states_before_and_after_a_change_of_the_last_token(backbone(architecture))

    assert abs(before - after).max(axis=1).min() > 1e-3


def _states_before_and_after_a_change_of_the_last_token(model: Any) -> tuple[np.ndarray, np.ndarray]:
    texts = random_texts([5, 8, 8])
    changed = texts[1].copy()
    changed[-1] = changed[-1] - 1 if changed[-1] > 2 else 3
    return states_of(model, texts)[1], states_of(model, [texts[0], changed, texts[2]])[1]


@pytest.mark.versions
def test_a_bidirectional_decoder_sees_across_texts_with_the_masks_of_transformers(backbone: Backbones) -> None:
    """The reason for the attention function. If this fails, transformers separates such texts itself."""
    texts = random_texts([6, 4])
    row = {
        "input_ids": torch.from_numpy(np.concatenate(texts))[None].long(),
        "position_ids": torch.tensor([[*range(6), *range(4)]]),
    }
    leaks = {}
    for architecture in ("qwen2 bidirectional", "qwen2 causal"):
        model = backbone(architecture, "sdpa")
        with torch.no_grad():
            states = model(**row, use_cache=False).last_hidden_state[0].numpy()
        leaks[architecture] = largest_difference([states[:6], states[6:]], alone_of(model, texts))

    assert leaks["qwen2 bidirectional"] > 0.1
    assert leaks["qwen2 causal"] < 1e-5  # these transformers tells apart by their positions


# ------------------------------------------------------------------------------------------------- packed architectures


def test_a_window_that_no_text_reaches_is_packed_and_a_shorter_one_is_not() -> None:
    from transformers import Qwen2Config

    window = config_of("mistral causal", sliding_window=32)

    assert packing.supports(window, 32)
    assert not packing.supports(window, 33)
    assert packing.supports(config_of("mistral causal", sliding_window=None), 10_000)
    assert not packing.supports(Qwen2Config(use_sliding_window=True, sliding_window=16, max_window_layers=1), 512)
    assert packing.supports(Qwen2Config(use_sliding_window=False, sliding_window=16), 512)


def test_a_text_as_long_as_the_window_has_the_states_of_the_window(backbone: Backbones) -> None:
    """The limit of `supports`: no change at the window, a change one token beyond it."""
    window = backbone("mistral causal", "sdpa", sliding_window=12)

    fits, exceeds = (
        largest_difference(states_of(backbone("mistral causal"), texts), alone_of(window, texts))
        for texts in (random_texts([12, 5]), random_texts([13, 5]))
    )

    assert fits < 1e-5
    assert exceeds > 1e-3


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("bert", {"is_decoder": True}),
        ("bert", {"position_embedding_type": "relative_key"}),
        ("roberta", {}),
        ("xlm-roberta", {}),
        ("mpnet", {}),
        ("modernbert", {}),
        ("t5", {}),
        ("qwen3", {}),
        ("gemma3_text", {}),
    ],
)
def test_untested_architectures_are_not_packed(model_type: str, changes: dict[str, Any]) -> None:
    from transformers import CONFIG_MAPPING

    assert not packing.supports(CONFIG_MAPPING[model_type](**changes), 512)


def test_every_architecture_that_is_packed_is_tested_here() -> None:
    assert {architecture.split()[0] for architecture in ARCHITECTURES} == packing._TESTED


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_causality_is_read_from_the_configuration(architecture: str) -> None:
    assert packing.is_causal(config_of(architecture)) == (architecture in CAUSAL)


def write_model(folder: Path, config: Any) -> Path:
    """A folder of sentence-transformers with random weights and mean pooling."""
    from transformers import AutoModel

    write_stella_400m(folder)
    (folder / "config_sentence_transformers.json").unlink()
    write_modules(folder, [("", "Transformer"), ("1_Pooling", "Pooling")])
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    model.save_pretrained(folder)
    return folder


TEXTS = ["the man", "a red car and the man", "x", "", "the query of the man is long and the car is red"]


@pytest.mark.versions
@pytest.mark.parametrize(
    ("model_type", "packs", "changes"),
    [
        ("roberta", False, {}),
        ("mpnet", False, {}),
        ("modernbert", False, {"local_attention": 8, "global_attn_every_n_layers": 2}),
        ("mistral", False, {"sliding_window": 6, "num_key_value_heads": 2}),
        ("bert", True, {}),
        ("mistral", True, {"sliding_window": None, "num_key_value_heads": 2}),
    ],
    ids=["roberta", "mpnet", "modernbert", "mistral with a window", "bert", "mistral"],
)
def test_a_folder_packed_or_padded_gives_the_vectors_of_sentence_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, packs: bool, changes: dict[str, Any]
) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import CONFIG_MAPPING

    size = {
        "vocab_size": 200,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 600,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    folder = write_model(tmp_path / "model", CONFIG_MAPPING[model_type](**size | changes))
    reference = SentenceTransformer(str(folder), device="cpu")
    expected = [reference.encode([text], show_progress_bar=False)[0] for text in TEXTS]
    encoder = resolve(str(folder)).load("cpu")
    shapes = watch(monkeypatch, encoder)

    vectors = encoder.encode(TEXTS)

    assert encoder.packed == packs
    lengths = [len(ids) for ids in encoder.tokenise(TEXTS)]
    assert shapes == [(5, sum(lengths) if packs else 5 * max(lengths))]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert min(abs(a - b).max() for a, b in itertools.pairwise(expected)) > 0.01


# ------------------------------------------------------------------------------------------- texts without a token


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.mark.fault(19, "a text without tokens has a vector of zeros, and changes no other vector")
@pytest.mark.parametrize("pads", [False, True], ids=["packed", "padded"])
@pytest.mark.parametrize("mode", MODES)
def test_a_text_without_tokens_gives_zeros_alone_and_between_others(backbone: Backbones, mode: str, pads: bool) -> None:
    encoder = engine(backbone("qwen2 bidirectional"), Pooling((mode,)))
    encoder = padded(encoder) if pads else encoder
    one, other = words_of(random_texts([5, 9]))

    vectors = encoder.pool(["", one, " ", other, "  "])

    assert (vectors[[0, 2, 4]] == 0).all()
    np.testing.assert_allclose(vectors[[1, 3]], [encoder.pool([one])[0], encoder.pool([other])[0]], atol=1e-5)
    assert abs(vectors[[1, 3]]).max(axis=1).min() > 0.1
    assert (encoder.encode(["", " "]) == 0).all()


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_the_runs_cover_the_row_and_cut_no_text(lengths: list[int]) -> None:
    pack = Packing(lengths, causal=False, device=torch.device("cpu"))

    pieces = [range(at, at + n) for where, n in pack.runs() for at in range(where.start, where.stop, n)]

    bounds = pack.bounds.tolist()
    assert pieces == [range(start, end) for start, end in itertools.pairwise(bounds)]
    assert [len(piece) for piece in pieces] == lengths
    assert pack.within[2:] == (max(lengths), max(lengths))
