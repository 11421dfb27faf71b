"""Measures time and memory as functions of the number of texts.

    python -m benchmarks.scaling --data ../shared/data --out results/performance/scaling.json

MiniLM with its real weights on a CPU. For each size a child process of its own loads the model, encodes that many
distinct short sentences, `encode` into memory or `fill` into a store on disk, and says its seconds and how much memory
it took beyond the loaded model and the texts. `encode` has to hold what it returns, 1.5 kB for each text; the column
`result` says how much that is.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.workloads import short_sentences
from stella_mteb.engine.devices import peak_memory
from stella_mteb.engine.store import VectorStore
from stella_mteb.files.atomic import write_json
from stella_mteb.models.resolve import resolve

SIZES = (1_000, 10_000, 100_000)
WAYS = ("encode", "fill")


def distinct(sentences: Sequence[str], size: int) -> list[str]:
    """Return that many distinct sentences: the given ones, then copies with one word exchanged."""
    generator = random.Random(0)
    sentences = generator.sample(sentences, len(sentences))  # so that the first ones are like all
    words = [word for sentence in sentences for word in sentence.split()]
    found = dict.fromkeys(sentences[:size])
    while len(found) < size:
        changed = generator.choice(sentences).split()
        changed[generator.randrange(len(changed))] = generator.choice(words)
        found.setdefault(" ".join(changed))
    return list(found)


def child(way: str, size: int, data: Path) -> dict[str, Any]:
    encoder = resolve("all_minilm_l6_v2[fp32]").load("cpu")
    texts = distinct(short_sentences(data), size)
    with tempfile.TemporaryDirectory() as folder:
        encoder.encode(texts[:64])
        encoder.stats.tokens = 0
        before = peak_memory()
        if way == "fill":
            encoder.store = VectorStore(Path(folder), encoder.fingerprint)
        started = time.perf_counter()
        result = getattr(encoder, way)(texts)
        seconds = time.perf_counter() - started
        return {
            "way": way,
            "texts": size,
            "tokens": encoder.stats.tokens,
            "seconds": seconds,
            "memory_before": before,
            "memory_peak": peak_memory(),
            "result_bytes": 0 if result is None else result.nbytes,
        }


def measure(way: str, size: int, data: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scaling", "--child", way, str(size), "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- this script again
    if done.returncode:
        raise SystemExit(f"{way} of {size} texts failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def show(row: dict[str, Any]) -> None:
    grown, result = row["memory_peak"] - row["memory_before"], row["result_bytes"]
    print(
        f"{row['way']:8}{row['texts']:>9}{row['tokens']:>10}{row['seconds']:>10.1f}"
        f"{row['seconds'] / row['texts'] * 1e6:>12.0f}{grown / 2**20:>14.0f}{result / 2**20:>12.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child[0], int(options.child[1]), options.data)))
        return
    print(f"{'':8}{'texts':>9}{'tokens':>10}{'seconds':>10}{'us / text':>12}{'grown by MiB':>14}{'result MiB':>12}")
    rows = []
    for way in WAYS:
        for size in options.sizes:
            rows.append(measure(way, size, options.data))
            show(rows[-1])
    if options.out:
        write_json(options.out, {"date": datetime.now(tz=UTC).date().isoformat(), "rows": rows})


if __name__ == "__main__":
    main()
