"""Measures the error of forecasts: tasks are forecast from MTEB's statistics, then run.

python -m benchmarks.forecast --data ../shared/data/sts --out results/forecast Banking77Classification STS13 ...

STS13, STS15 and STSBenchmark are run on their real rows. The data of other tasks is a stand-in: words of those rows, as
many rows and labels as MTEB's statistics say, of lengths drawn log-normally around the mean length.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from stella_mteb.files.tables import render
from stella_mteb.harness.adapter import family
from stella_mteb.harness.cost_capture import machine
from stella_mteb.harness.find_tasks import find_tasks
from stella_mteb.harness.forecast import Forecaster
from stella_mteb.harness.pace import measured_pace
from stella_mteb.harness.run import run
from stella_mteb.models.resolve import resolve

MODEL = "all_minilm_l6_v2"


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def drawn(words: list[str], described: dict[str, Any], count: int, rng: np.random.Generator) -> list[str]:
    mean, longest = described["average_text_length"], described["max_text_length"]
    lengths = np.minimum(rng.lognormal(np.log(mean) - 0.125, 0.5, size=count), longest)
    texts = []
    for number, length in enumerate(lengths):
        text = f"{number}"
        while len(text) < length:
            text += " " + words[int(rng.integers(len(words)))]
        texts.append(text[: max(int(length), len(str(number)))])
    return texts


def stand_in(task: Any, words: list[str]) -> Any:
    rng, described = np.random.default_rng(0), task.metadata.descriptive_stats
    if task.metadata.type == "Classification":
        return DatasetDict(
            {
                split: Dataset.from_dict(
                    {
                        "text": drawn(words, found["text_statistics"], found["num_samples"], rng),
                        "label": [
                            int(label)
                            for label, one in found["label_statistics"]["labels"].items()
                            for _ in range(one["count"])
                        ],
                    }
                )
                for split, found in described.items()
            }
        )
    found = described["test"]
    ids = [f"d{i}" for i in range(found["num_documents"])]
    queries = [f"q{i}" for i in range(found["num_queries"])]
    corpus = {
        "id": ids,
        "text": drawn(words, found["documents_text_statistics"], len(ids), rng),
        "title": [""] * len(ids),
    }
    asked = {"id": queries, "text": drawn(words, found["queries_text_statistics"], len(queries), rng)}
    relevant = {query: {random.Random(query).choice(ids): 1} for query in queries}
    data = {"corpus": Dataset.from_dict(corpus), "queries": Dataset.from_dict(asked)}
    return {"default": {"test": {**data, "relevant_docs": relevant, "top_ranked": None}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="Folder with STS13.jsonl, STS15.jsonl, STSBenchmark.jsonl."
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("tasks", nargs="+")
    arguments = parser.parse_args()
    import sentence_transformers  # noqa: F401 -- MTEB imports it in the first task of a process

    words = " ".join(row["sentence1"] for row in rows_of(arguments.data, "STS15")).split()
    tasks = find_tasks(arguments.tasks)
    for task in tasks:
        if (arguments.data / f"{task.metadata.name}.jsonl").exists():
            task.dataset = DatasetDict({"test": Dataset.from_list(rows_of(arguments.data, task.metadata.name))})
        elif not hasattr(task, "stella_mteb_file"):
            task.dataset = stand_in(task, words)
        else:
            continue
        task.data_loaded = True
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        output, cache = Path(folder), Path(folder, "cache")
        (encoder,) = family(resolve(MODEL), [], device="cpu", cache=cache)
        pace = measured_pace(encoder, "cpu")
        forecaster = Forecaster(encoder, "cpu", output, cache)
        forecasts = [forecaster(task, pace) for task in tasks]
        engine = encoder.text_encoder  # loaded before the clock of the first task starts
        for task, forecast in zip(tasks, forecasts, strict=True):
            before, processor = engine.stats.tokens, time.process_time()
            (outcome,) = run([[encoder]], [task], output, lambda _: None)
            assert outcome.status == "done", outcome.error  # noqa: S101
            assert forecast.tokens is not None  # noqa: S101
            assert forecast.encoding is not None  # noqa: S101
            assert forecast.rest is not None  # noqa: S101
            tokens, seconds = engine.stats.tokens - before, forecast.encoding + forecast.rest
            rows.append(
                {
                    "task": forecast.task,
                    "tokens forecast": forecast.tokens,
                    "tokens": tokens,
                    "tokens off": f"{forecast.tokens / tokens - 1:+.1%}",
                    "s forecast": round(seconds, 1),
                    "s": round(outcome.seconds, 1),
                    "s off": f"{seconds / outcome.seconds - 1:+.1%}",
                    # Of one thread: less than 1 where other processes had its core.
                    "core": round((time.process_time() - processor) / outcome.seconds, 2),
                }
            )
            named = {
                "model": MODEL,
                "machine": machine(engine.device),
                "tokens_per_second": round(pace.tokens_per_second),
                "tokens_per_second_of_the_runs": round(engine.stats.tokens / engine.stats.seconds),
            }
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / "forecast.json").write_text(json.dumps({**named, "tasks": rows}, indent=1) + "\n")
            print(rows[-1], flush=True)
    print(render(rows, "md"))


if __name__ == "__main__":
    main()
