"""Runs the full 1.5B shape with random weights; size and speed do not depend on the values.

    python -m benchmarks.full_shape --folder /tmp/stella-full --out results/full_shape/cpu.json

Writes 6.3 GB to --folder (removed afterwards), loads them natively, encodes a few texts with every head, and records
seconds and peak memory. Says nothing about quality.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2Model

from benchmarks.layouts.stella import DIMENSIONS, EOS, write_dense, write_json, write_stella
from stella_mteb.files.atomic import write_json as write_report
from stella_mteb.models.resolve import resolve

# config.json of NovaSearch/stella_en_1.5B_v5 at d03be74.
SHAPE = {
    "hidden_size": 1536,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "intermediate_size": 8960,
    "vocab_size": 151_646,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
}
PROMPT = "Instruct: Retrieve semantically similar text.\nQuery: "
TEXTS = [
    "A man in a white shirt drives a car.",
    "The camera pans across the harbour while three boats leave one after the other. " * 8,
    "",
    "Two children build a tower of red bricks, and the dog knocks it over before they finish. " * 30,
]


def write_full(folder: Path, *, layers: int = 28, tokenizer: Path | None = None) -> None:
    # The small files come from the tiny Stella; backbone and heads are written at full size over them.
    write_stella(folder, tokenizer=tokenizer)
    torch.manual_seed(0)
    shape = SHAPE | {"num_hidden_layers": layers}
    config = Qwen2Config(**shape, rope_theta=1e6)
    with torch.device("meta"):
        empty = Qwen2Model(config)
    weights = {
        f"model.{name}": torch.ones(value.shape) if value.dim() == 1 else torch.randn(value.shape) * 0.02
        for name, value in empty.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    published = json.loads((folder / "config.json").read_text()) | shape
    published.pop("layer_types", None)
    write_json(folder / "config.json", published)
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    write_json(folder / "1_Pooling/config.json", pooling | {"word_embedding_dimension": SHAPE["hidden_size"]})
    generator = torch.Generator().manual_seed(1)
    for dimension in DIMENSIONS:
        write_dense(folder / f"2_Dense_{dimension}", SHAPE["hidden_size"], dimension, generator)


def measure(folder: Path, dtype: str) -> dict[str, object]:
    started = time.perf_counter()
    encoder = resolve(f"{folder}@1024[{dtype}]").load("cpu")
    loaded = time.perf_counter()
    pooled = encoder.pool(TEXTS, PROMPT)
    forward = time.perf_counter()
    norms = {
        str(dimension): float(np.linalg.norm(encoder.project(pooled, dimension), axis=1).mean())
        for dimension in encoder.dimensions
    }
    alone = np.concatenate([encoder.pool([text], PROMPT) for text in TEXTS])
    cosine = (pooled * alone).sum(1) / np.linalg.norm(pooled, axis=1) / np.linalg.norm(alone, axis=1)
    ids = encoder.tokenise([PROMPT + text for text in TEXTS])
    return {
        "dtype": dtype,
        "parameters": sum(p.numel() for p in encoder.backbone.parameters()),
        "load_seconds": round(loaded - started, 1),
        "forward_seconds": round(forward - loaded, 1),
        "tokens": sum(map(len, ids)),
        "mean_norm_by_dimension": norms,
        "every_text_closed_by_eos": all(row[-1] == EOS for row in ids),
        "lowest_cosine_alone_to_batched": float(cosine.min()),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_full(options.folder)
    try:
        figures = measure(options.folder, options.dtype)
    finally:
        shutil.rmtree(options.folder)
    machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}
    write_report(options.out, {"date": datetime.now(tz=UTC).date().isoformat(), "machine": machine, **figures})
    print(options.out.read_text())


if __name__ == "__main__":
    main()
