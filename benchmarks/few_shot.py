"""Times BGE-en-ICL's few-shot prompts with a shared prefix, beside FlagEmbedding, which encodes it in every query.

    python -m benchmarks.few_shot --data ../shared/data --layers 1 --out results/performance/few_shot.json

Layers of the true width (Mistral 7B: 4096, 32 heads, 8 of them for keys) with random weights in float32, STSBenchmark's
sentences and the authors' three examples. The model's own tokenizer was not at hand: Qwen's stands in, with the added
tokens and the template of the model, so token counts are within some percent of the true ones. FlagEmbedding must be
installed. The vectors are compared first; then both run in turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from FlagEmbedding.inference.embedder.decoder_only.icl import ICLLLMEmbedder
from tokenizers import AddedToken, Tokenizer, processors

from benchmarks.layouts.bge import write_bge
from stella_mteb.diagnostics import bench
from stella_mteb.files.atomic import write_json
from stella_mteb.models.resolve import resolve
from stella_mteb.prompts.examples import TOKENS, frame, read_examples

WIDTH = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336}
INSTRUCTION = "Retrieve semantically similar text."


def write_model(folder: Path, tokenizer: Path, width: dict[str, int], layers: int) -> Path:
    """Write the layout with Qwen's vocabulary instead of Mistral's, and a YAML for it."""
    words = Tokenizer.from_file(str(tokenizer))
    words.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ("<s>", "</s>", *TOKENS)])
    first, last = words.token_to_id("<s>"), words.token_to_id("</s>")
    write_bge(folder, vocab_size=words.get_vocab_size(), num_hidden_layers=layers, initializer_range=0.02, **width)
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)]
    )
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "pad_token": "<|endoftext|>",
                "additional_special_tokens": list(TOKENS),
                "padding_side": "left",
            }
        )
    )
    yaml = folder.parent / "bge.yaml"
    yaml.write_text(
        f"name: bge_width\npath: {folder}\nattention: causal\npooling: lasttoken\nbos_token_id: {first}\n"
        f"eos_token_id: {last}\nfew_shot: compat\nmax_length: 512\nnormalize: true\ndtype: float32\n"
        "prompts:\n  profile: icl\n"
    )
    return yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sts/, icl_examples/, stella_repo_layout/")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--width", type=int, choices=[512, 4096], default=4096)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    rows = [json.loads(line) for line in (options.data / "sts/STSBenchmark.jsonl").read_text().splitlines()]
    texts = list(dict.fromkeys(row[key] for row in rows for key in ("sentence1", "sentence2")))
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[: options.texts]]
    examples = read_examples(options.data / "icl_examples/STSBenchmark.json")
    prompt = frame(INSTRUCTION, examples, None)
    width = {key: value * options.width // 4096 for key, value in WIDTH.items()}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = options.data / "stella_repo_layout/tokenizer.json"
        yaml = write_model(Path(folder) / "model", tokenizer, width, options.layers)
        found = measure(yaml, texts, prompt, examples, options.repeats)
    found |= {"layers": options.layers, "hidden_size": width["hidden_size"], "texts": len(texts)}
    print(json.dumps(found, indent=2))
    if options.out:
        write_json(options.out, {"date": datetime.now(tz=UTC).date().isoformat(), **found})


def measure(yaml: Path, texts: list[str], prompt: str, examples: Any, repeats: int) -> dict[str, Any]:
    encoder = resolve(str(yaml)).load("cpu")
    peer = ICLLLMEmbedder(
        str(yaml.parent / "model"),
        use_fp16=False,
        devices="cpu",
        # It computes its first batch twice, to try its size: a tenth of the 2,552 sentences by its default of 256, and
        # a tenth here.
        batch_size=max(1, len(texts) // 10),
        query_instruction_for_retrieval=INSTRUCTION,
        examples_for_task=[{"instruct": INSTRUCTION, "query": one.query, "response": one.response} for one in examples],
    )

    # The prefix is forgotten between calls, so that ours computes it each time too.
    def ours() -> np.ndarray:  # type: ignore[type-arg]
        encoder._prefix = None
        return encoder.encode(texts, prompt)

    def flag() -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(peer.encode_queries(texts))

    difference = bench.differences(ours(), flag())
    if difference.max_difference > 1e-4:
        raise SystemExit(f"the vectors differ by {difference.max_difference:.2g}; no speed is given")
    rows = encoder.tokenise(texts, prompt)
    assert encoder._prefix is not None  # noqa: S101 -- `ours` has just run
    prefix = len(encoder._prefix.ids)
    whole, own = sum(map(len, rows)), sum(len(row) - prefix for row in rows)
    times = bench.interleave({"shared prefix": ours, "FlagEmbedding": flag}, repeats, warm_up=False)
    return {
        "prefix_tokens": prefix,
        "tokens_of_a_text": own / len(rows),
        "tokens_saved": whole / (own + prefix),
        "difference": vars(difference),
        "seconds": times,
        "ratio": vars(bench.ratio(times, "FlagEmbedding", "shared prefix")),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
