"""The settings files of a sentence-transformers folder are applied, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.layouts.stella import write_json
from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.models.declared import TRANSFORMER_FILES, read_declared, read_transformer_settings

FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}


def declare(folder: Path, **keys: Any) -> Path:
    write_json(folder / "config_sentence_transformers.json", keys)
    return folder


def test_prompts_have_the_names_that_sentence_transformers_gives_them(tmp_path: Path) -> None:
    """`query` and `document` are always included, and None means no prompt."""
    found = read_declared(declare(tmp_path, prompts={"query": None, "STS": "sts: "}, default_prompt_name="STS"))

    assert found.prompts == {"query": "", "document": "", "STS": "sts: "}
    assert found.default_prompt == "STS"


@pytest.mark.parametrize("content", [{}, {"prompts": {}}, {"prompts": {"query": "", "document": ""}}])
def test_a_folder_without_a_prompt_declares_none(tmp_path: Path, content: dict[str, Any]) -> None:
    assert read_declared(declare(tmp_path, **content)).prompt_config is None


def test_a_missing_settings_file_declares_nothing(tmp_path: Path) -> None:
    found = read_declared(tmp_path)

    assert (found.prompt_config, found.similarity, found.truncate_dim, found.matryoshka) == (None, "cosine", None, ())


def test_similarity_and_dimensions_to_cut_to_are_read(tmp_path: Path) -> None:
    found = read_declared(
        declare(
            tmp_path,
            similarity_fn_name="dot",
            truncate_dim=128,
            matryoshka_dims=[64, 128],
            model_type="SentenceTransformer",
            requirements={"transformers": ">=4", "pytorch": {"specifier": ">=2"}},
        )
    )

    assert (found.similarity, found.truncate_dim, found.matryoshka) == ("dot", 128, (64, 128))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"model_type": "SparseEncoder"}, "model_type SparseEncoder is not supported"),
        (
            {"similarity_fn_name": "maxsim"},
            "similarity_fn_name 'maxsim' is not supported; supported are cosine, dot, eucl",
        ),
        ({"default_prompt_name": "sts"}, "default_prompt_name 'sts' is not one of the prompts (query, document)"),
        ({"prompts": {"query": 3}}, "prompts.query must be text (got 3)"),
        ({"prompts": ["query: "]}, "prompts must be an object of texts by name"),
        ({"truncate_dim": 0}, "truncate_dim must be a positive whole number (got 0)"),
        ({"matryoshka_dims": 64}, "matryoshka_dims must be a list of dimensions (got 64)"),
        (
            {"requirements": {"transformers": "newest"}},
            "requirements.transformers is not a version specifier ('newest')",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_declared(declare(tmp_path, **keys))

    assert f"{tmp_path / 'config_sentence_transformers.json'}: {says}" in str(error.value)


@pytest.mark.parametrize(
    ("requirements", "says"),
    [
        (
            {"transformers": ">=99"},
            r"requires transformers>=99, but [\d.]+ is installed; run pip install 'transformers>=99'",
        ),
        ({"no-such-package": ">=1"}, "requires no-such-package>=1, but it is not installed"),
        ({"pytorch": {"specifier": "<1", "reason": "old"}}, "requires torch<1, but"),
    ],
)
def test_a_model_for_other_versions_is_an_environment_problem(
    tmp_path: Path, requirements: dict[str, Any], says: str
) -> None:
    with pytest.raises(EnvironmentProblem, match=says):
        read_declared(declare(tmp_path, requirements=requirements))


@pytest.mark.parametrize("name", TRANSFORMER_FILES)
def test_the_longest_input_is_found_under_every_name_that_the_file_has_had(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / name, {"max_seq_length": 77, "do_lower_case": True})

    assert read_transformer_settings(tmp_path) == (77, True)


def test_the_names_of_the_file_are_those_of_sentence_transformers() -> None:
    import inspect

    from sentence_transformers.base.modules import Transformer

    source = inspect.getsource(Transformer.load_config)

    assert [name for name in TRANSFORMER_FILES if f'"{name}"' not in source] == []
    assert source.count("_config.json") == len(TRANSFORMER_FILES)


@pytest.mark.parametrize("name", ["processor_kwargs", "tokenizer_args"])
def test_the_tokenizers_length_overrides_the_modules_own(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 77, name: {"model_max_length": 33}})

    assert read_transformer_settings(tmp_path)[0] == 33


@pytest.mark.parametrize(
    "keys",
    [
        {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings", "unpad_inputs": True},
        {"modality_config": {"text": FORWARD, "image": FORWARD}},
        {"model_args": {"attn_implementation": "eager", "torch_dtype": "bfloat16"}, "config_kwargs": {}},
        {"query_length": None, "processing_kwargs": {}},
    ],
)
def test_settings_without_effect_on_text_vectors_are_accepted(tmp_path: Path, keys: dict[str, Any]) -> None:
    write_json(tmp_path / "sentence_bert_config.json", keys)

    assert read_transformer_settings(tmp_path) == (None, False)


@pytest.mark.parametrize(
    "keys",
    [
        {"transformer_task": "fill-mask"},
        {"module_output_name": "sentence_embedding"},
        {"modality_config": {"text": FORWARD, "message": {**FORWARD, "format": "flat"}}},
        {"modality_config": {"text": {"method": "get_text_features", "method_output_name": "pooler_output"}}},
        {"processing_kwargs": {"text": {"max_length": 3}}},
        {"query_length": 32},
        {"document_length": 180},
        {"query_expansion": {"strategy": "fixed", "length": 32}},
        {"tokenizer_name_or_path": "bert-base-uncased"},
        {"model_kwargs": {"add_pooling_layer": False}},
        {"tokenizer_args": {"add_prefix_space": True}},
        {"config_args": {"num_hidden_layers": 3}},
    ],
)
def test_settings_that_would_change_vectors_are_refused_by_name(tmp_path: Path, keys: dict[str, Any]) -> None:
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 16, **keys})

    with pytest.raises(ConfigError, match=f"sentence_bert_config.json: {next(iter(keys))} .* is not supported"):
        read_transformer_settings(tmp_path)
