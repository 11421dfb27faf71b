"""Measures the speed of bf16, int8 and compilation on a CPU, and their effect on STS scores.

    python -m benchmarks.precision --data ../shared/data --out results/performance/precision.json

MiniLM with its real weights: Spearman on the STS sets under --data, as MTEB computes it, and the time of the same
sentences, in turns. int8 is torch's dynamic quantisation of the linear layers; compiled is `torch.compile` of each
layer, with dynamic shapes. Neither is an option of the package: docs/lab-log.md says why.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.workloads import workloads
from stella_mteb.diagnostics import bench
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.files.atomic import write_json
from stella_mteb.models.resolve import resolve

NAME = "all_minilm_l6_v2"
SETS = ("STSBenchmark", "STS13", "STS15")


def variants() -> dict[str, TextEncoder]:
    encoders = {name: resolve(f"{NAME}[{name}]").load("cpu") for name in ("fp32", "bf16")}
    encoders["int8"] = resolve(f"{NAME}[fp32]").load("cpu")
    encoders["int8"].backbone = torch.ao.quantization.quantize_dynamic(
        encoders["int8"].backbone, {torch.nn.Linear}, dtype=torch.qint8
    )
    encoders["compiled"] = resolve(f"{NAME}[fp32]").load("cpu")
    for layer in encoders["compiled"].backbone.encoder.layer:
        layer.compile(dynamic=True)
    return encoders


def spearman(encoder: TextEncoder, path: Path) -> float:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    one, two = (encoder.encode([row[key] for row in rows]) for key in ("sentence1", "sentence2"))
    return float(spearmanr((one * two).sum(axis=1), [row["score"] for row in rows]).statistic)


def first_pass(encoders: Mapping[str, TextEncoder], texts: list[str]) -> dict[str, float]:
    seconds = {}
    for name, encoder in encoders.items():
        started = time.perf_counter()
        encoder.encode(texts)
        seconds[name] = time.perf_counter() - started
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=8_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    encoders = variants()
    texts = workloads(options.data, options.tokens, lambda text: len(encoders["fp32"].tokenise([text])[0]))["mixture"]
    first = first_pass(encoders, texts)
    times = bench.interleave({name: (lambda e=e: e.encode(texts)) for name, e in encoders.items()}, options.repeats)
    expected = encoders["fp32"].encode(texts)
    paths = [path for path in sorted((options.data / "sts").glob("*.jsonl")) if path.stem in SETS]
    rows = {}
    for name, encoder in encoders.items():
        scores = {path.stem: spearman(encoder, path) for path in paths} if name != "compiled" else {}
        rows[name] = {
            "faster_than_fp32": vars(bench.ratio(times, "fp32", name)),
            "first_pass_seconds": first[name],
            **vars(bench.differences(encoder.encode(texts), expected)),
            "spearman": scores,
        }
        shown = ", ".join(f"{stem} {score:.4f}" for stem, score in scores.items())
        print(
            f"{name:9} {bench.ratio(times, 'fp32', name)!s:22} first {first[name]:5.1f} s, "
            f"min cosine {rows[name]['min_cosine']:.5f}  {shown}"
        )
    if options.out:
        date = datetime.now(tz=UTC).date().isoformat()
        write_json(
            options.out,
            {
                "date": date,
                "seconds": times,
                "variants": rows,
                "mean_tokens": float(np.mean([len(ids) for ids in encoders["fp32"].tokenise(texts)])),
            },
        )


if __name__ == "__main__":
    main()
