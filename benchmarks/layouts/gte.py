"""A tiny Stella 400M in the layout of its repository, and its network again in plain torch."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from benchmarks.layouts.stella import PROMPTS, write_dense, write_json

HIDDEN, LAYERS, HEADS, INTERMEDIATE = 64, 2, 4, 96
DIMENSIONS = (256, 1024)
ROPE_THETA, ROPE_FACTOR = 160_000, 2.0
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_stella_400m(folder: Path, *, prefix: str = "", **changes: object) -> Path:
    """Write Stella 400M's layout, original architecture "new", with random weights.

    Args:
        folder: Folder to write to.
        prefix: Prefix of the name of every weight; checkpoints with a task head use `new.`.
        changes: Keys of config.json with other values.
    """
    vocabulary = _write_tokenizer(folder)
    write_json(
        folder / "config.json",
        {
            "architectures": ["NewModel"],
            "auto_map": {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel"},
            "attention_probs_dropout_prob": 0.0,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "layer_norm_eps": 1e-12,
            "layer_norm_type": "layer_norm",
            "max_position_embeddings": 8192,
            "model_type": "new",
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "pack_qkv": True,
            "pad_token_id": 0,
            "position_embedding_type": "rope",
            "rope_scaling": {"type": "ntk", "factor": ROPE_FACTOR},
            "rope_theta": ROPE_THETA,
            "type_vocab_size": 2,
            "unpad_inputs": True,
            "use_memory_efficient_attention": True,
            "vocab_size": vocabulary,
        }
        | changes,
    )
    weights = {f"{prefix}{name}": value for name, value in _weights(vocabulary).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {"prompts": PROMPTS})
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense_1024", "Dense")])
        ],
    )
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True})
    generator = torch.Generator().manual_seed(1)
    for dimension in DIMENSIONS:
        write_dense(folder / f"2_Dense_{dimension}", HIDDEN, dimension, generator)
    return folder


def reference_states(weights: dict[str, torch.Tensor], ids: list[int], *, factor: float = ROPE_FACTOR) -> torch.Tensor:
    """Compute the hidden states of one text in float64, from the architecture and independently of transformers.

    Post-norm blocks, GeGLU, rotary embedding over the whole head with NTK scaling.

    Args:
        weights: As `write_stella_400m` writes them, without prefix.
        ids: Token ids, special tokens included.
        factor: Factor of the NTK scaling; 1 is the plain rotary embedding.

    Returns:
        float64 [tokens, width].
    """
    w = {name: value.double() for name, value in weights.items()}
    head, tokens = HIDDEN // HEADS, len(ids)
    exponents = torch.arange(0, head, 2, dtype=torch.float64) / head
    frequencies = 1 / (ROPE_THETA * factor) ** exponents / factor ** (2 / head)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * frequencies.repeat(2)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        first, second = x.split(head // 2, dim=-1)
        return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()

    def layer_norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(x, "embeddings.LayerNorm")
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}"
        packed = x @ w[f"{layer}.attention.qkv_proj.weight"].T + w[f"{layer}.attention.qkv_proj.bias"]
        query, key, value = (part.reshape(tokens, HEADS, head).transpose(0, 1) for part in packed.split(HIDDEN, dim=-1))
        scores = rotated(query) @ rotated(key).transpose(1, 2) / head**0.5
        mixed = (scores.softmax(-1) @ value).transpose(0, 1).reshape(tokens, HIDDEN)
        out = mixed @ w[f"{layer}.attention.o_proj.weight"].T + w[f"{layer}.attention.o_proj.bias"]
        x = layer_norm(x + out, f"{layer}.attn_ln")
        up, gate = (x @ w[f"{layer}.mlp.up_gate_proj.weight"].T).split(INTERMEDIATE, dim=-1)
        gelu = gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
        out = (gelu * up) @ w[f"{layer}.mlp.down_proj.weight"].T + w[f"{layer}.mlp.down_proj.bias"]
        x = layer_norm(x + out, f"{layer}.mlp_ln")
    return x


def _weights(vocabulary: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 0.1) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + random(HIDDEN), f"{name}.bias": random(HIDDEN)}

    def linear(name: str, out: int, width: int, *, bias: bool = True) -> dict[str, torch.Tensor]:
        weight = {f"{name}.weight": random(out, width, scale=1.5 / width**0.5)}
        return weight | ({f"{name}.bias": random(out)} if bias else {})

    weights = {
        "embeddings.word_embeddings.weight": random(vocabulary, HIDDEN, scale=1.0),
        "embeddings.token_type_embeddings.weight": random(2, HIDDEN, scale=0.5),
        **norm("embeddings.LayerNorm"),
        # The checkpoint has a pooler, which nothing here uses.
        **linear("pooler.dense", HIDDEN, HIDDEN),
    }
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}"
        weights |= linear(f"{layer}.attention.qkv_proj", 3 * HIDDEN, HIDDEN)
        weights |= linear(f"{layer}.attention.o_proj", HIDDEN, HIDDEN)
        weights |= linear(f"{layer}.mlp.up_gate_proj", 2 * INTERMEDIATE, HIDDEN, bias=False)
        weights |= linear(f"{layer}.mlp.down_proj", HIDDEN, INTERMEDIATE)
        weights |= norm(f"{layer}.attn_ln") | norm(f"{layer}.mlp_ln")
    return weights


def _write_tokenizer(folder: Path) -> int:
    """Write a WordPiece of single letters and a few words, padded to 512 like the published file."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters if letter.isalnum())]
    pieces += ["the", "man", "drives", "car", "query", "text", "##ing", "##ed"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(_SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=512, pad_id=0, pad_token="[PAD]")  # noqa: S106
    tokenizer.enable_truncation(512)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    names = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    write_json(folder / "special_tokens_map.json", names)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512, **names},
    )
    return len(pieces)
