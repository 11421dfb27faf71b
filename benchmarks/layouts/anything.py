"""Random sentence-transformers folders with any supported backbone, modules, prompts, lengths and dtypes.

`write_any(folder, seed)` writes one and says what it is. About one in eight has something that is not supported; its
recipe names what the refusal must say.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from benchmarks.layouts.stella import write_json

_SENTENCES = (
    "a man the woman opens door runs to house and dog with red boat leaves at dawn child sleeps camera pans",
    "query passage task search result text title none document sentence similarity : . , | instruct",
)
WORDS = " ".join(_SENTENCES).split()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
VOCABULARY = [*SPECIAL, *WORDS, *(f"W{i}" for i in range(20))]
BACKBONES = (
    "bert", "distilbert", "roberta", "mpnet", "albert", "electra", "t5", "umt5", "gpt2", "qwen2", "llama", "modernbert",
)  # fmt: skip
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LEGACY = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
PATHS = {
    "Transformer": "base.modules.transformer",
    "Dense": "base.modules.dense",
    "Normalize": "base.modules.normalize",
    "Pooling": "sentence_transformer.modules.pooling",
    "LayerNorm": "sentence_transformer.modules.layer_norm",
    "Dropout": "sentence_transformer.modules.dropout",
}
CHAINS = [
    [],
    ["Normalize"],
    ["Dense"],
    ["Dense", "Normalize"],
    ["Dense", "Dense"],
    ["LayerNorm", "Dense"],
    ["Dropout", "Normalize"],
    ["Dense", "LayerNorm", "Normalize"],
    ["Normalize", "Dense"],
]
PROMPT_NAMES = [
    "query", "document", "passage", "STS", "Retrieval", "Retrieval-query", "Retrieval-document", "STSBenchmark",
    "SciFact", "SciFact-query", "Classification", "Banking77Classification", "clustering",
]  # fmt: skip


@dataclass
class Recipe:
    """A written folder.

    Attributes:
        seed: Gives the same folder again.
        choices: In words, for messages.
        refused: Text that the refusal must contain; None for a folder that is supported.
    """

    seed: int
    choices: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None


def write_any(folder: Path, seed: int) -> Recipe:
    """Write a random folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw, recipe = random.Random(seed), Recipe(seed)
    torch.manual_seed(seed)
    kind = draw.choice(BACKBONES)
    plain = draw.random() < 0.1
    root = folder if plain or draw.random() < 0.8 else folder / "0_Transformer"
    width = _write_backbone(root, kind, draw, recipe)
    _write_tokenizer(root, draw, recipe)
    if not plain:
        _write_modules(folder, root, width, draw, recipe)
        _write_settings(folder, root, draw, recipe)
        if draw.random() < 0.125:
            _spoil(folder, root, draw, recipe)
    recipe.choices["plain"] = plain
    return recipe


def _write_backbone(root: Path, kind: str, draw: random.Random, recipe: Recipe) -> int:
    import transformers as tf

    width, heads = draw.choice([(16, 2), (32, 4)])
    common = {"vocab_size": len(VOCABULARY), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    bert = common | {
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 40,
    }
    decoder = bert | {"num_key_value_heads": 2, "head_dim": width // heads, "max_position_embeddings": 128}
    t5 = common | {"d_model": width, "d_kv": 8, "d_ff": 2 * width, "num_layers": 2, "num_heads": heads}
    t5 |= {"decoder_start_token_id": 1}
    made: dict[str, tuple[Any, Any]] = {
        "bert": (tf.BertModel, tf.BertConfig(**bert)),
        "distilbert": (
            tf.DistilBertModel,
            tf.DistilBertConfig(
                **common, dim=width, hidden_dim=2 * width, n_layers=2, n_heads=heads, max_position_embeddings=40
            ),
        ),
        # Two of their positions are never used, and sentence-transformers fails on texts that would need them.
        "roberta": (tf.RobertaModel, tf.RobertaConfig(**bert | {"max_position_embeddings": 130})),
        "mpnet": (tf.MPNetModel, tf.MPNetConfig(**bert | {"max_position_embeddings": 130})),
        "albert": (tf.AlbertModel, tf.AlbertConfig(**bert, embedding_size=16)),
        "electra": (tf.ElectraModel, tf.ElectraConfig(**bert, embedding_size=16)),
        "t5": (draw.choice([tf.T5EncoderModel, tf.T5Model]), tf.T5Config(**t5)),
        "umt5": (tf.UMT5EncoderModel, tf.UMT5Config(**t5)),
        "gpt2": (tf.GPT2Model, tf.GPT2Config(**common, n_embd=width, n_layer=2, n_head=heads, n_positions=40)),
        "qwen2": (tf.Qwen2Model, tf.Qwen2Config(**decoder)),
        "llama": (draw.choice([tf.LlamaModel, tf.LlamaForCausalLM]), tf.LlamaConfig(**decoder)),
        "modernbert": (
            tf.ModernBertModel,
            tf.ModernBertConfig(**bert | {"max_position_embeddings": 128}, cls_token_id=0, sep_token_id=2),
        ),
    }
    model_class, config = made[kind]
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # The default 0.02 gives states so alike that a wrong token would hardly be noticed.
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    dtype = draw.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16])
    model.to(dtype).save_pretrained(root)
    recipe.choices |= {"backbone": model_class.__name__, "width": width, "dtype": str(dtype)}
    return width


def _write_tokenizer(root: Path, draw: random.Random, recipe: Recipe) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    if draw.random() < 0.3:
        tokenizer.normalizer = draw.choice([normalizers.Lowercase(), normalizers.NFKC()])
    tokenizer.add_special_tokens(SPECIAL)
    frame = draw.choice(["<s> $A </s>", "<s> $A </s>", "$A </s>", "<s> $A"])
    ids = [(token, i) for i, token in enumerate(SPECIAL)]
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ids)
    if draw.random() < 0.3:  # what a file may carry, and no call keeps
        tokenizer.enable_padding(length=48, pad_id=1, pad_token="<pad>")  # noqa: S106
        tokenizer.enable_truncation(17)
    tokenizer.save(str(root / "tokenizer.json"))
    length = draw.choice([None, 24, 40, 1e30])
    write_json(
        root / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
        | {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
        | ({"model_max_length": length} if length else {}),
    )
    recipe.choices |= {"frame": frame, "model_max_length": length}


def _write_modules(folder: Path, root: Path, width: int, draw: random.Random, recipe: Recipe) -> None:
    modes = draw.sample(MODES, draw.choice([1, 1, 1, 2, 3]))
    pooling: dict[str, Any] = {draw.choice(["word_embedding_dimension", "embedding_dimension"]): width}
    if draw.random() < 0.5:
        pooling |= {name: mode in modes for mode, name in LEGACY.items()}
        modes = [mode for mode in MODES if mode in modes]
    else:
        pooling["pooling_mode"] = modes if len(modes) > 1 or draw.random() < 0.3 else modes[0]
    if draw.random() < 0.4:
        pooling["include_prompt"] = draw.choice([True, False])
    write_json(folder / "1_Pooling/config.json", pooling)
    kinds = [("Transformer", str(root.relative_to(folder)) if root != folder else ""), ("Pooling", "1_Pooling")]
    at = width * len(modes)
    chain = draw.choice(CHAINS)
    for number, kind in enumerate(chain, 2):
        path = folder / f"{number}_{kind}"
        path.mkdir()
        at = _write_module(path, kind, at, draw)
        kinds.append((kind, path.name))
    old = draw.random() < 0.5
    entries = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.{'models' if old else PATHS[kind]}.{kind}",
        }
        for i, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", entries)
    recipe.choices |= {"pooling": pooling, "modules": chain, "dimension": at}


def _write_module(path: Path, kind: str, width: int, draw: random.Random) -> int:
    if kind == "Dropout":
        write_json(path / "config.json", {"dropout": 0.5})
    if kind == "LayerNorm":
        write_json(path / "config.json", {"dimension": width})
        save_file({"norm.weight": torch.randn(width), "norm.bias": torch.randn(width)}, path / "model.safetensors")
    if kind != "Dense":
        return width
    out = draw.choice([width, 12, 24])
    config: dict[str, Any] = {"in_features": width, "out_features": out, "bias": draw.choice([True, False])}
    activation = draw.choice(["Identity", "Tanh", "ReLU", "GELU", "SiLU", "Softplus", None])
    if activation:
        place = "linear" if activation == "Identity" else "activation"
        config["activation_function"] = f"torch.nn.modules.{place}.{activation}"
    weights = {"linear.weight": torch.randn(out, width) / width**0.5}
    if config["bias"]:
        weights["linear.bias"] = torch.randn(out)
    if draw.random() < 0.3:
        config["use_residual"] = True
        if out != width:
            weights["residual.weight"] = torch.randn(out, width)
    write_json(path / "config.json", config)
    dtype = draw.choice([torch.float32, torch.bfloat16])
    save_file({name: value.to(dtype) for name, value in weights.items()}, path / "model.safetensors")
    return out


def _write_settings(folder: Path, root: Path, draw: random.Random, recipe: Recipe) -> None:
    def sometimes(chance: float, key: str, *values: Any) -> dict[str, Any]:
        return {key: draw.choice(values)} if draw.random() < chance else {}

    forward = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    transformer = (
        sometimes(0.7, "max_seq_length", 8, 16, 24, 32, None)
        | sometimes(0.4, "do_lower_case", True, False)
        | sometimes(0.2, "transformer_task", "feature-extraction")
        | sometimes(0.2, "model_args", {"attn_implementation": "eager"})
        | ({"modality_config": forward, "module_output_name": "token_embeddings"} if draw.random() < 0.2 else {})
    )
    name = draw.choice(["bert", "bert", "bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
    if transformer:
        write_json(root / f"sentence_{name}_config.json", transformer)
    names = draw.sample(PROMPT_NAMES, draw.choice([0, 0, 1, 2, 3, 5]))
    prompts = {name: draw.choice([f"{name.split('-')[0].lower()} : ", "task : ", "", "query |"]) for name in names}
    declared = (
        {"__version__": {"sentence_transformers": "2.2.2"}}
        | ({"prompts": prompts, "default_prompt_name": draw.choice([None, None, *prompts])} if prompts else {})
        | sometimes(0.6, "similarity_fn_name", None, "cosine", "dot", "euclidean", "manhattan")
        | sometimes(0.2, "truncate_dim", 4, 8, 10, 500)
        | sometimes(0.2, "matryoshka_dims", [4, 8])
        | sometimes(0.2, "model_type", "SentenceTransformer")
        | sometimes(0.1, "requirements", {"transformers": ">=4", "pytorch": {"specifier": ">=2", "reason": "of old"}})
    )
    if draw.random() < 0.9:
        write_json(folder / "config_sentence_transformers.json", declared)
    recipe.choices |= {"transformer file": name, "transformer": transformer, "declared": declared}


def _spoil(folder: Path, root: Path, draw: random.Random, recipe: Recipe) -> None:
    """Add one unsupported setting."""

    def add(path: Path, **keys: Any) -> None:
        write_json(path, (json.loads(path.read_text()) if path.is_file() else {}) | keys)

    settings, declared = root / "sentence_bert_config.json", folder / "config_sentence_transformers.json"
    modules = json.loads((folder / "modules.json").read_text())
    kind = draw.choice(
        ["module", "CNN", "pickle", "sparse", "maxsim", "query_length", "message", "requirements", "bin"]
    )
    recipe.refused = kind
    if kind in {"module", "CNN"}:
        name = "my_code.Gate" if kind == "module" else "sentence_transformers.models.CNN"
        modules.append({"idx": 99, "name": "99", "path": "99_More", "type": name})
        write_json(folder / "modules.json", modules)
        recipe.refused = f"module {'my_code.Gate' if kind == 'module' else 'CNN'}"
    elif kind == "pickle":
        path = folder / "98_Dense"
        write_json(path / "config.json", {"in_features": recipe.choices["dimension"], "out_features": 4})
        (path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
        modules.append({"idx": 98, "name": "98", "path": path.name, "type": "sentence_transformers.models.Dense"})
        write_json(folder / "modules.json", modules)
        recipe.refused = "98_Dense/pytorch_model.bin is a pickle"
    elif kind == "bin":
        (root / "model.safetensors").rename(root / "pytorch_model.bin")
        recipe.refused = "has pytorch_model.bin but no *.safetensors"
    elif kind == "sparse":
        add(declared, model_type="SparseEncoder")
        recipe.refused = "model_type SparseEncoder"
    elif kind == "maxsim":
        add(declared, similarity_fn_name="maxsim")
    elif kind == "query_length":
        add(settings, query_length=8)
    elif kind == "message":
        entry = {"method": "forward", "method_output_name": "last_hidden_state", "format": "flat"}
        add(settings, modality_config={"text": entry, "message": entry}, module_output_name="token_embeddings")
        recipe.refused = "modality_config"
    else:
        add(declared, requirements={"transformers": ">=99"})
        recipe.refused = "requires transformers>=99"
