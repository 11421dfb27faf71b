"""Compares a judge with the five published judges of CLIP-CC, per pair and in the ranking of models.

    python -m benchmarks.clip_cc_agreement --results results/clip_cc --data ../shared/data/clip_cc

Reads what `stella-mteb judge` wrote, `pair_scores.csv` and `aggregated/`; writes agreement.json and agreement.md into
the results folder. Spearman over all pairs, and over the pairs of each candidate model (then averaged: there, knowing
which model wrote the text is of no help); Kendall's tau-b of the model ranking by mean HM-CF.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from scipy.stats import kendalltau, spearmanr

from stella_mteb.files.atomic import write_json
from stella_mteb.files.tables import render
from stella_mteb.judge.reports import read_results

SCORES = ("coarse", "precision", "recall", "f1", "hm_cf")
SHOWN = ("coarse", "f1", "hm_cf")


def own_pairs(results: Path, judge: str) -> pd.DataFrame:
    rows = [
        {"vlm": path.stem, **{key: pair[key] for key in ("video_id", *SCORES)}}
        for path in sorted((results / "pairs" / judge).glob("*.json"))
        for pair in json.loads(path.read_text())
    ]
    return pd.DataFrame(rows)


def agreement(
    ours: pd.DataFrame, published: pd.DataFrame, judges: list[str], means: dict[str, dict[str, float]], judge: str
) -> list[dict[str, object]]:
    joined = ours.merge(published, on=["vlm", "video_id"], validate="one_to_one")
    if len(joined) != len(published):
        raise SystemExit(f"{len(published) - len(joined)} published pairs have no score of ours")
    rows = []
    for other in judges:
        row: dict[str, object] = {"published judge": other, "pairs": len(joined)}
        for score in SHOWN:
            row[score] = float(spearmanr(joined[score], joined[f"{other}_{score}"])[0])
        for score in SHOWN:
            parts = joined.groupby("vlm")
            within = [float(spearmanr(part[score], part[f"{other}_{score}"])[0]) for _, part in parts]
            row[f"{score} within model"] = sum(within) / len(within)
        models = sorted(means[other])
        row["ranking tau"] = float(kendalltau([means[judge][m] for m in models], [means[other][m] for m in models])[0])
        rows.append(row)
    return rows


def between_published(
    published: pd.DataFrame, judges: list[str], means: dict[str, dict[str, float]]
) -> list[dict[str, object]]:
    rows = []
    for i, a in enumerate(judges):
        for b in judges[i + 1 :]:
            models = sorted(means[a])
            row: dict[str, object] = {"judges": f"{a}, {b}"}
            for score in SHOWN:
                row[score] = float(spearmanr(published[f"{a}_{score}"], published[f"{b}_{score}"])[0])
            row["ranking tau"] = float(kendalltau([means[a][m] for m in models], [means[b][m] for m in models])[0])
            rows.append(row)
    return rows


def read_means(folder: Path) -> dict[str, dict[str, float]]:
    return {judge: {model: one.mean for model, one in own.items()} for judge, own in read_results(folder).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    published = pd.read_csv(options.data / "pair_scores.csv", dtype={"video_id": str})
    theirs = read_means(options.data / "aggregated")
    own = read_means(options.results)
    report = {}
    for judge in own:
        means = {**theirs, judge: own[judge]}
        report[judge] = agreement(own_pairs(options.results, judge), published, list(theirs), means, judge)
    others = between_published(published, list(theirs), theirs)
    write_json(options.results / "agreement.json", {"with_published": report, "between_published": others})
    parts = [f"## {judge} and the published judges\n\n{render(rows, 'md')}" for judge, rows in report.items()]
    parts.append(f"## The published judges among themselves\n\n{render(others, 'md')}")
    (options.results / "agreement.md").write_text("\n\n".join(parts) + "\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
