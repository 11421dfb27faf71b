"""Measures the extra time of the judge's added measures on all of CLIP-CC, in turns.

    python -m benchmarks.judge_cost --data ../shared/data --out results/performance/judge_cost.json

Times reading all texts without a store, then scoring all pairs from the vectors: the five figures of the in-house files
and order, and then all measures but nli. The ratio is that of a whole first run. Also times one pair of a hundred
sentences a side.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from stella_mteb.diagnostics import bench
from stella_mteb.files.atomic import write_json
from stella_mteb.judge.contradiction import cues_of
from stella_mteb.judge.inputs import read_candidates, read_references
from stella_mteb.judge.judge import ReadText, TextVectors, distinct_texts, score
from stella_mteb.judge.lexical import words_of
from stella_mteb.judge.similarity import score_pair
from stella_mteb.models.resolve import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all_minilm_l6_v2[fp32]")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    references = read_references(options.data / "clip_cc/ground_truth.json")
    candidates = read_candidates([options.data / "clip_cc/predictions"], references)
    encoder = resolve(options.model).load("cpu")
    started = time.perf_counter()
    vectors = TextVectors(encoder, "", distinct_texts(references, candidates))
    encoding = time.perf_counter() - started

    def before() -> None:
        read = {clip: vectors[texts[0]] for clip, texts in references.items()}
        for one in candidates:
            for clip, text in one.texts.items():
                score_pair(read[clip], vectors[text])

    def with_all() -> None:
        read = {clip: vectors.read(texts[0]) for clip, texts in references.items()}
        for one in candidates:
            for clip, text in one.texts.items():
                score(read[clip], vectors.read(text))

    times = bench.interleave({"before": before, "all measures": with_all}, options.repeats)
    before_s, all_s = (float(np.median(times[name])) for name in ("before", "all measures"))
    long = _of_sentences(encoder.dimension, 100)
    alone = bench.interleave({"100 sentences": lambda: score(*long)}, 20)["100 sentences"]
    found = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "pairs": sum(len(one.texts) for one in candidates),
        "encoding": encoding,
        "seconds": times,
        "ratio": (encoding + all_s) / (encoding + before_s),
        "seconds_of_100_sentences_a_side": float(np.median(alone)),
    }
    print({key: value for key, value in found.items() if key != "seconds"}, before_s, all_s)
    if options.out:
        write_json(options.out, found)


def _of_sentences(dimension: int, count: int) -> tuple[ReadText, ReadText]:
    """Build two texts of that many distinct sentences."""
    rng = np.random.default_rng(0)
    sides = []
    for side in ("opens", "does not close"):
        sentences = [
            f"On floor {number} the man in a red coat {side} the door of room {number}." for number in range(count)
        ]
        vectors = rng.normal(size=(1 + count, dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        sides.append(ReadText(vectors, sentences, [cues_of(one) for one in sentences], words_of(" ".join(sentences))))
    return sides[0], sides[1]


if __name__ == "__main__":
    main()
