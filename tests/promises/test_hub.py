"""The first command of a user: from an empty HF_HOME, model and data sets from a hub on the loopback; then offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import Fault, Hub, serve

STELLA = ("NovaSearch/stella_en_1.5B_v5", "d03be74b361d4eb24f42a2fe5bd2e29917df4604")
WORDS = ["harbour", "boat", "cook", "salt", "street", "child", "dog", "garden", "train", "winter"]
TEXTS = [f"the {one} and the {other}" for one in WORDS for other in WORDS if one != other]
Rows = list[dict[str, Any]]


QUERIES = [{"_id": f"q{i}", "text": TEXTS[i]} for i in range(0, 20, 4)]
CORPUS = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(TEXTS[:30])]
QRELS = [{"query-id": f"q{i}", "corpus-id": f"d{i + 1}", "score": 1} for i in range(0, 20, 4)]
TOP_RANKED = [{"query-id": f"q{i}", "corpus-ids": [f"d{j}" for j in range(i, i + 5)]} for i in range(0, 20, 4)]
DATA: dict[str, dict[tuple[str, str], Rows]] = {
    "STSBenchmark": {("default", "test"): [
        {"sentence1": TEXTS[i], "sentence2": TEXTS[i + 1], "score": i / 4} for i in range(20)]},
    "Banking77Classification": {("default", split): [
        {"text": text, "label": i % 2, "label_text": str(i % 2)} for i, text in enumerate(TEXTS[start : start + 40])]
        for split, start in (("train", 0), ("test", 40))},
    "TwentyNewsgroupsClustering.v2": {("default", "test"): [
        {"sentences": TEXTS[:40], "labels": [str(i % 4) for i in range(40)]}]},
    "SprintDuplicateQuestions": {("default", "test"): [
        {"sent1": TEXTS[:20], "sent2": TEXTS[20:40], "labels": [i % 2 for i in range(20)]}]},
    "SciFact": {("corpus", "corpus"): CORPUS, ("queries", "queries"): QUERIES, ("default", "test"): QRELS},
    "AskUbuntuDupQuestions": {("corpus", "test"): CORPUS, ("queries", "test"): QUERIES, ("default", "test"): QRELS,
                              ("top_ranked", "test"): TOP_RANKED},
    "SummEvalSummarization.v2": {("default", "test"): [
        {"id": str(i), "text": TEXTS[i], "machine_summaries": TEXTS[i + 9 : i + 13], "relevance": [1.0, 2.0, 3.0, 4.0],
         "human_summaries": TEXTS[i + 1 : i + 3]} for i in range(0, 30, 10)]},
}  # fmt: skip
"""By MTEB's task, one of each type: rows of our own in the layout that MTEB reads, by configuration and split."""


def write_data(folder: Path, configs: dict[tuple[str, str], Rows]) -> Path:
    """A data set's repository: JSON lines, and the README that says which file is which."""
    folder.mkdir(parents=True)
    card: dict[str, Rows] = {}
    for (config, split), rows in configs.items():
        file = f"{config}-{split}.jsonl"
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        card.setdefault(config, []).append({"split": split, "path": file})
    entries = [{"config_name": config, "data_files": files} for config, files in card.items()]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(entries)}\n---\n")
    return folder


@pytest.fixture(scope="module")
def hub(stella_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    import mteb

    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(stella_folder, folder / "stella")
    (folder / "stella" / "pytorch_model.bin").write_text("never fetched")
    with serve() as hub:
        hub.add("models", *STELLA, folder / "stella")
        for task, configs in DATA.items():
            source = mteb.get_task(task).metadata.dataset
            hub.add("datasets", source["path"], source["revision"], write_data(folder / task, configs))
        yield hub


def run(hub: Hub, folder: Path, output: str, *more: str, tasks: list[str]) -> subprocess.CompletedProcess[str]:
    """`stella-mteb run` in a folder whose HF_HOME is all that it knows of a hub."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**rest, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
    names = [word for task in tasks for word in ("-t", task)]
    command = [sys.executable, "-m", "stella_mteb", "run", "-m", "stella_en_1.5B_v5@256", *names, "--no-cache",
               "--device", "cpu", "--format", "json", "--output", output, *more]  # fmt: skip
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)


def test_tasks_of_every_type_run_from_an_empty_cache_and_then_without_a_socket(hub: Hub, tmp_path: Path) -> None:
    online = run(hub, tmp_path, "online", tasks=list(DATA))
    assert online.returncode == 0, online.stderr
    scores = {row["task"]: row["main score"] for row in json.loads(online.stdout)}
    asked = len(hub.asked)
    offline = run(hub, tmp_path, "offline", "--offline", tasks=list(DATA))

    assert offline.returncode == 0, offline.stderr
    assert scores.keys() == DATA.keys()
    assert {row["task"]: row["main score"] for row in json.loads(offline.stdout)} == scores
    assert len(hub.asked) == asked
    assert "fetching NovaSearch/stella_en_1.5B_v5 from the hub: " in online.stderr
    assert "fetching" not in offline.stderr
    assert {Path(name).suffix for name in hub.fetched(STELLA[0])} == {".safetensors", ".json"}


def test_data_that_is_gone_fails_its_task_with_a_sentence_and_the_others_run(hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault("mteb/banking77", 401, "RepoNotFound")]
    try:
        done = run(hub, tmp_path, "out", tasks=["Banking77Classification", "STSBenchmark"])
    finally:
        hub.faults = []

    assert done.returncode == 1, done.stderr
    rows = {row["task"]: row for row in json.loads(done.stdout)}
    assert (rows["Banking77Classification"]["status"], rows["STSBenchmark"]["status"]) == ("failed", "done")
    assert "mteb/banking77" in rows["Banking77Classification"]["error"]
