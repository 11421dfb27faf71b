"""Measures how well each score of the judge detects each fault of the bundled task: AUC against paraphrases.

    python -m benchmarks.fault_table --out results/video_summary/measures.md

1: every faulty candidate scores below every paraphrase; 0.5: the measure is blind; 0: it prefers the fault.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from stella_mteb.files.tables import render
from stella_mteb.harness.task_yaml import bundled_tasks
from stella_mteb.judge.judge import TextVectors, score
from stella_mteb.judge.similarity import MEASURES, SHOWN_AS
from stella_mteb.models.resolve import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="all_minilm_l6_v2[fp32]")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    lines = (bundled_tasks()["VideoSummarySTS"].path.parent / "pairs.jsonl").read_text("utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    texts = dict.fromkeys(text for row in pairs for text in (row["reference"], row["candidate"]))
    vectors = TextVectors(resolve(options.model).load("cpu"), "", texts)
    scores = [score(vectors.read(row["reference"]), vectors.read(row["candidate"])) for row in pairs]
    faults = np.array([row["fault"] for row in pairs])
    grades = [row["score"] for row in pairs]
    values = {m: np.array([getattr(one, m) for one in scores], dtype=float) for m in MEASURES if m != "nli"}

    def auc(measure: str, fault: str) -> float:
        faulty, faithful = values[measure][faults == fault][:, None], values[measure][faults == "paraphrase"]
        return float(((faulty < faithful) + (faulty == faithful) / 2).mean())

    shown = {m: SHOWN_AS.get(m, m) for m in values}
    found = [
        {"fault": fault, "pairs": int((faults == fault).sum())} | {shown[m]: round(auc(m, fault), 2) for m in values}
        for fault in dict.fromkeys(faults.tolist())
        if fault != "paraphrase"
    ]
    rho = {m: round(float(spearmanr(values[m], grades, nan_policy="omit").statistic), 2) for m in values}
    found.append({"fault": "rho with the grades", "pairs": len(pairs)} | {shown[m]: rho[m] for m in values})
    table = render(found, "md" if options.out else "table")
    print(table)
    if options.out:
        heading = f"# Which measure finds which fault of VideoSummarySTS ({options.model})\n"
        command = f"`python -m benchmarks.fault_table --out {options.out}`"
        legend = "AUC against the faithful paraphrases: 1 always finds the fault, 0.5 is chance, 0 always prefers it."
        options.out.write_text(f"{heading}\n{command}\n\n{legend}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
