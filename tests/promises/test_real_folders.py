"""Folders reported in public threads, rebuilt with our own data; docs/real-inputs.md lists the threads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.layouts.anything import VOCABULARY
from benchmarks.layouts.stella import write_json, write_modules
from stella_mteb.errors import ConfigError
from stella_mteb.models.resolve import resolve
from stella_mteb.prompts.profiles import TaskInfo, choose


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    """A tiny RoBERTa of 42 positions, 40 of which can be used."""
    import torch
    import transformers as tf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(0)
    config = tf.RobertaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=42,
    )
    tf.RobertaModel(config).save_pretrained(tmp_path)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(VOCABULARY[:4])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_json(
        tmp_path / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"},
    )
    write_json(tmp_path / "1_Pooling/config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    write_modules(tmp_path, [("", "Transformer"), ("1_Pooling", "Pooling")])
    return tmp_path


@pytest.mark.parametrize("stated", [None, 42])
def test_a_text_longer_than_the_positions_is_cut_and_does_not_break_the_run(roberta: Path, stated: int | None) -> None:
    """sentence-transformers #1600 and #207: "index out of range in self", as the stated length counts two too many."""
    from sentence_transformers import SentenceTransformer

    if stated:
        write_json(roberta / "sentence_bert_config.json", {"max_seq_length": stated})
    text = "a man opens the door " * 30
    theirs = SentenceTransformer(str(roberta), device="cpu")
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        theirs.encode([text], show_progress_bar=False)
    theirs.max_seq_length = 40

    model = resolve(str(roberta))

    assert model.max_length == 40
    np.testing.assert_allclose(
        model.load("cpu").encode([text, "dog"]), theirs.encode([text, "dog"], show_progress_bar=False), atol=1e-5
    )


def prompt_of(folder: Path, declared: dict[str, Any], task: TaskInfo, side: Any) -> Any:
    write_json(folder / "config_sentence_transformers.json", declared)
    model = resolve(str(folder))
    return choose(model.prompts, model.config.prompts, task, side)


def test_a_prompt_called_passage_is_not_dropped_silently(roberta: Path) -> None:
    """QwenLM/Qwen3-Embedding #134: MTEB has called `passage` `document` since 1.38.36, and old folders have not."""
    declared = {"prompts": {"query": "query: ", "passage": "passage: "}}

    prompt = prompt_of(roberta, declared, TaskInfo("SciFact", "Retrieval"), "document")

    assert (prompt.text, prompt.fallback) == ("", True)
    assert "read the prompt document, not passage" in prompt.source


def test_one_prompt_name_unknown_to_mteb_does_not_disable_the_others(roberta: Path) -> None:
    """mteb #2896: prompts with a name of the author's own made MTEB ignore all of them."""
    declared = {"prompts": {"sts_query_of_mine": "mine: ", "STS": "sts: ", "query": ""}}

    assert prompt_of(roberta, declared, TaskInfo("STSBenchmark", "STS"), None).text == "sts: "
    assert prompt_of(roberta, declared, TaskInfo("SciFact", "Retrieval"), "query").text == ""


def test_a_manual_cut_and_truncate_dim_give_the_same_direction(roberta: Path) -> None:
    """Snowflake-Labs/arctic-embed #8: is `truncate_dim` the same as cutting and normalising by hand?"""
    texts = ["a man opens the door", "dog"]
    whole = resolve(str(roberta)).load("cpu").encode(texts)[:, :8]
    modules = json.loads((roberta / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    write_json(roberta / "modules.json", modules)
    by_hand = whole / np.linalg.norm(whole, axis=1, keepdims=True)

    asked = resolve(f"{roberta}@8[cut]").load("cpu").encode(texts)
    write_json(roberta / "config_sentence_transformers.json", {"truncate_dim": 8})
    by_folder = resolve(str(roberta)).load("cpu").encode(texts)

    np.testing.assert_allclose(asked, by_hand, atol=1e-6)
    np.testing.assert_allclose(by_folder / np.linalg.norm(by_folder, axis=1, keepdims=True), by_hand, atol=1e-6)
    assert not np.allclose(by_folder, by_hand, atol=1e-3)


def test_the_registry_gives_qwen3_an_instruction_for_each_task() -> None:
    """mteb #2867: scores of Qwen3-Embedding could not be reproduced with the plain folder."""
    import mteb

    from stella_mteb.harness.known_models import known_config
    from stella_mteb.harness.registry import task_info

    config = known_config("Qwen/Qwen3-Embedding-0.6B")
    assert config is not None
    info = task_info(mteb.get_task("SCIDOCS").metadata)

    query = choose(config.prompts.profile, config.prompts, info, "query").text

    assert query == f"Instruct: {info.instruction['query']}\nQuery:"
    assert choose(config.prompts.profile, config.prompts, info, "document").text == ""


@pytest.mark.parametrize("with_base", [True, False])
def test_a_lora_adapter_is_refused_instead_of_scoring_its_base_model(roberta: Path, with_base: bool) -> None:
    """sentence-transformers #2979, #3865: a LoRA folder fails for want of config.json, or gives the base's vectors."""
    write_json(roberta / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "org/base"})
    if not with_base:
        (roberta / "config.json").unlink()

    with pytest.raises(
        ConfigError, match=r"adapter_config\.json: .*PEFT adapter \(LoRA\) for org/base.*merge_and_unload"
    ):
        resolve(str(roberta))
