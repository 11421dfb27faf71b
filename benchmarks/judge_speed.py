"""Times the judge beside the loop that it replaces, which gives the same scores pair by pair.

    python -m benchmarks.judge_speed --data ../shared/data --clips 2 --out results/performance/judge.json

The loop does for one pair at a time what the judge does for all: sentence-transformers encodes reference and prediction
with their sentences, then coarse, fine and HM-CF. A reference is encoded again for every model, as in-house. MiniLM
with its real weights; the scores are compared first.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from stella_mteb.diagnostics import bench
from stella_mteb.files.atomic import write_json
from stella_mteb.judge.inputs import Candidate, read_candidates, read_references
from stella_mteb.judge.judge import judge_all, text_and_sentences
from stella_mteb.judge.similarity import score_pair
from stella_mteb.models.resolve import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    every = read_references(options.data / "clip_cc/ground_truth.json")
    candidates = read_candidates([options.data / "clip_cc/predictions"], every)
    references = dict(list(every.items())[: options.clips])
    candidates = [
        Candidate(**(vars(one) | {"texts": {clip: text for clip, text in one.texts.items() if clip in references}}))
        for one in candidates
    ]
    model = resolve("all_minilm_l6_v2[fp32]")
    encoder = model.load("cpu")
    peer = SentenceTransformer(str(model.folder), device="cpu")
    peer.max_seq_length = encoder.max_length

    def ours() -> np.ndarray:  # type: ignore[type-arg]
        found = judge_all(encoder, "", references, candidates)
        return np.array([score.hm_cf for judgement in found for score in judgement.scores.values()])

    def one_by_one() -> np.ndarray:  # type: ignore[type-arg]
        scores = []
        for candidate in candidates:
            for clip, text in candidate.texts.items():
                sides = [
                    peer.encode(text_and_sentences(side), normalize_embeddings=True, show_progress_bar=False)
                    for side in (references[clip][0], text)
                ]
                scores.append(score_pair(*sides).hm_cf)
        return np.array(scores)

    difference = float(np.abs(ours() - one_by_one()).max())
    if difference > 1e-5:
        raise SystemExit(f"the scores differ by {difference:.2g}; no speed is given")
    times = bench.interleave({"judge": ours, "one pair at a time": one_by_one}, options.repeats, warm_up=False)
    ratio = bench.ratio(times, "one pair at a time", "judge")
    pairs = sum(len(one.texts) for one in candidates)
    print(f"{pairs} pairs: one pair at a time takes {ratio} times as long; scores agree to {difference:.1e}")
    if options.out:
        date = datetime.now(tz=UTC).date().isoformat()
        write_json(
            options.out,
            {"date": date, "pairs": pairs, "difference": difference, "seconds": times, "ratio": vars(ratio)},
        )


if __name__ == "__main__":
    main()
