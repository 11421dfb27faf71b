"""A tiny random Mistral in the layout of BAAI/bge-en-icl, written by code."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from benchmarks.layouts.stella import write_json, write_modules

BOS, EOS = 1, 2
ADDED = ("<instruct>", "<query>", "<response>")
_CORPUS = [
    "Given a web search query, retrieve relevant passages that answer the query.",
    "Retrieve semantically similar text. Given a question, retrieve the document that answers it.",
    "A man in a white shirt drives a car while a woman in the back seat reads a map aloud.",
    "The camera pans across the harbour; three boats leave, and nobody waves them goodbye.",
    "Two children build a tower of red bricks, and the dog knocks it over before they finish.",
    "How much protein should a female eat? About 46 grams per day, and more when she is pregnant.",
    "The definition of a summit is the highest point of a mountain: the top, the peak.",
    "He said: wait for the rain to stop, then cross the street and ask for the baker's shop.",
    "US Attorney General resigns; police found the evidence on two computers.",
]


def write_bge(folder: Path, *, modules: bool = True, metaspace: bool = False, **config: object) -> Path:
    """Write the layout with random weights.

    Args:
        folder: Folder to write to.
        modules: Whether it has the files of sentence-transformers; the first versions of the repository had none.
        metaspace: Whether words are marked by a pre-tokenizer, as newer files do it, or by a normalizer.
        **config: Settings of the backbone that differ from the defaults.
    """
    from transformers import MistralConfig, MistralModel

    folder.mkdir(parents=True)
    vocabulary = write_tokenizer(folder, metaspace=metaspace)
    shape: dict[str, object] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": vocabulary,
        "max_position_embeddings": 32_768,
        "rope_theta": 1e4,
        "sliding_window": 4_096,
    }
    backbone = MistralModel(MistralConfig(**(shape | config)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            # The default 0.02 gives states so alike that a lost prefix would hardly show.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.dim() > 1 else 1.0))
    weights = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", backbone.config.to_dict() | {"architectures": ["MistralModel"]})
    if modules:
        write_modules(folder, [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
        write_json(
            folder / "1_Pooling/config.json",
            {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True},
        )
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": 4_096, "do_lower_case": False})
    return folder


def write_tokenizer(
    folder: Path, *, metaspace: bool = False, template: str = "<s> $A </s>", added: tuple[str, ...] = ADDED
) -> int:
    """Write a BPE like Mistral's with byte fallback; return the size of its vocabulary.

    Args:
        folder: Folder to write to.
        metaspace: See `write_bge`.
        template: Template of the file for a text.
        added: Tokens beyond Mistral's.
    """
    marks = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = marks
    learner.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=320, show_progress=False))
    state = json.loads(learner.to_str())["model"]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *state["vocab"]]
    vocab = {word: number for number, word in enumerate(words)}
    merges = [tuple(merge) for merge in state["merges"]]
    options = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, **options))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in added])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": "<s>" in template,
            "add_eos_token": "</s>" in template,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<unk>",
            "padding_side": "left",
            "additional_special_tokens": list(added),
            "clean_up_tokenization_spaces": False,
            "legacy": True,
            "model_max_length": 1_000_000_000_000_000_019_884_624_838_656,
        },
    )
    return tokenizer.get_vocab_size()


def bge_yaml(path: Path, folder: Path, more: str = "", *, few_shot: str = "compat", prompts: str = "") -> Path:
    """Write a model YAML for a folder, with the settings of the bundled config.

    Args:
        path: File to write.
        folder: From `write_bge`.
        more: Additional lines.
        few_shot: As in the YAML.
        prompts: Additional lines below `prompts`.
    """
    path.write_text(
        f"name: tiny_bge\npath: {folder}\nattention: causal\npooling: lasttoken\nbos_token_id: 1\neos_token_id: 2\n"
        f"few_shot: {few_shot}\nmax_length: 64\nnormalize: true\ndtype: float32\n{more}"
        f"prompts:\n  profile: icl\n{prompts}"
    )
    return path
