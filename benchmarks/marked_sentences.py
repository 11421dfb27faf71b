"""Compares the cosines of sentences that people marked wrong with those of the others. Table for results/human.

python -m benchmarks.marked_sentences --data ../shared/data/human/factvc_youcook2 -m all_minilm_l6_v2

Each row of ratings.jsonl names its sentences under `sentences_marked`, with what is wrong in brackets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from stella_mteb.files.tables import render
from stella_mteb.judge.inputs import Candidate, read_references
from stella_mteb.judge.judge import TextVectors, distinct_texts
from stella_mteb.judge.matches import chance_level, match_all
from stella_mteb.models.resolve import resolve


def auc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Return the share of pairs in which the correct sentence has the higher cosine."""
    return float(mannwhitneyu(right, wrong).statistic) / (len(right) * len(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-m", dest="model", required=True)
    options = parser.parse_args()

    references = read_references(options.data / "references.jsonl")
    rows = [json.loads(line) for line in (options.data / "ratings.jsonl").read_text("utf-8").splitlines()]
    texts: dict[str, dict[str, str]] = {}
    for row in rows:
        texts.setdefault(row["system"], {})[row["id"]] = row["candidate"]
    candidates = [Candidate(system, own, (), (), ()) for system, own in sorted(texts.items())]
    vectors = TextVectors(resolve(options.model).load("cpu"), "", distinct_texts(references, candidates))
    matches, level = match_all(vectors, references, candidates), chance_level(vectors, references, candidates) or 0.0

    table, within = [], []
    for system in ["all", *sorted(texts)]:
        of_system = [row for row in rows if system in {"all", row["system"]}]
        cosines = [matches[row["system"]][row["id"]].cosines for row in of_system]
        marked = [np.array(["[" in sentence for sentence in row["sentences_marked"]]) for row in of_system]
        right, wrong = (np.concatenate(cosines)[np.concatenate(marked) == which] for which in (False, True))
        if system == "all":
            within = [auc(x[~m], x[m]) for x, m in zip(cosines, marked, strict=True) if 0 < m.sum() < len(m)]
        table.append(
            {
                "system": system,
                "sentences": len(right) + len(wrong),
                "marked wrong": len(wrong) / (len(right) + len(wrong)),
                "cosine of these": float(wrong.mean()),
                "of the others": float(right.mean()),
                "AUC": auc(right, wrong),
                "unmatched of these": float((wrong < level).mean()),
                "unmatched of the others": float((right < level).mean()),
            }
        )
    print(render(table, "md"))
    print(f"\nWithin the {len(within)} paragraphs that have both: mean AUC {np.mean(within):.3f}.")
    print(f"A sentence is unmatched below the cosine {level:.3f}.")


if __name__ == "__main__":
    main()
