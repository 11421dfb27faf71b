"""Tiny random models in the real layout of their repositories, written by code."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

EOS = 151_643
DIMENSIONS = (256, 768, 1024, 2048, 4096, 6144, 8192)
PROMPTS = {
    "s2p_query": "Instruct: Given a web search query, retrieve relevant passages that answer the query.\nQuery: ",
    "s2s_query": "Instruct: Retrieve semantically similar text.\nQuery: ",
}
_CORPUS = [
    *PROMPTS.values(),
    "A man in a white shirt drives a car while a woman in the back seat reads a map aloud.",
    "The camera pans across the harbour; three boats leave, and nobody waves them goodbye.",
    "Two children build a tower of red bricks, and the dog knocks it over before they finish.",
]


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_stella(folder: Path, *, hidden: int = 32, layers: int = 2, tokenizer: Path | None = None) -> Path:
    """Write Stella 1.5B's layout at revision d03be74 with random weights.

    Args:
        folder: Folder to write to.
        hidden: Width of the backbone.
        layers: Depth of the backbone.
        tokenizer: A folder with a tokenizer to copy; None makes a small byte-level one with Stella's EOS id.
    """
    from transformers import Qwen2Config, Qwen2Model

    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True)
    config = Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * hidden,
        vocab_size=EOS + 3,
        max_position_embeddings=131_072,
        rope_theta=1e6,
        use_sliding_window=False,
    )
    torch.manual_seed(0)
    backbone = Qwen2Model(config)
    with torch.no_grad():
        for parameter in backbone.parameters():
            # The default 0.02 gives states so alike that a causal mask would hardly be told from a full one.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.dim() > 1 else 1.0))
    weights = {f"model.{name}": value.contiguous() for name, value in backbone.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    published = config.to_dict() | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rope_theta": 1_000_000.0,
        "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"},
    }
    published.pop("is_causal", None)
    write_json(folder / "config.json", published)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    write_modules(folder, [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense_1024", "Dense")])
    write_json(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True, "include_prompt": True},
    )
    for dimension in DIMENSIONS:
        write_dense(folder / f"2_Dense_{dimension}", hidden, dimension, generator)
    if tokenizer is None:
        write_tokenizer(folder)
    else:
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
        ):
            (folder / name).write_bytes((tokenizer / name).read_bytes())
    return folder


def write_modules(folder: Path, kinds: list[tuple[str, str]]) -> None:
    """Write modules.json from (path, kind) in order."""
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds)
        ],
    )


def write_dense(folder: Path, width: int, dimension: int, generator: torch.Generator) -> None:
    write_json(
        folder / "config.json",
        {
            "in_features": width,
            "out_features": dimension,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    linear = {
        "linear.weight": torch.randn(dimension, width, generator=generator) / width**0.5,
        "linear.bias": torch.randn(dimension, generator=generator) * 0.1,
    }
    save_file(linear, folder / "model.safetensors")


def write_tokenizer(folder: Path, *, template: bool = True) -> None:
    """Write a byte-level BPE of a few hundred tokens whose EOS has Stella's id.

    Args:
        folder: Folder to write to.
        template: Whether the file itself appends EOS; that of gte-Qwen2 does not.
    """
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(_CORPUS, trainer)
    state = json.loads(learner.to_str())["model"]
    vocab = state["vocab"] | {"<|endoftext|>": EOS}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(merge) for merge in state["merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", EOS)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "bos_token": None,
            "add_eos_token": True,
            "model_max_length": 32_768,
            "auto_map": {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", None]},
        },
    )
