"""A user's first command: model and data sets from a hub on the loopback to an empty HF_HOME; then offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Fault, Hub, serve
from tests.support.stand_ins import stand_in, write_data

STELLA = ("NovaSearch/stella_en_1.5B_v5", "d03be74b361d4eb24f42a2fe5bd2e29917df4604")
TASKS = [
    "STSBenchmark",
    "Banking77Classification",
    "TwentyNewsgroupsClustering.v2",
    "SprintDuplicateQuestions",
    "SciFact",
    "AskUbuntuDupQuestions",
    "SummEvalSummarization.v2",
]
"""One of each type."""


@pytest.fixture(scope="module")
def hub(stella_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    import mteb

    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(stella_folder, folder / "stella")
    (folder / "stella" / "pytorch_model.bin").write_text("never fetched")
    with serve() as hub:
        hub.add("models", *STELLA, folder / "stella")
        for name in TASKS:
            task = mteb.get_task(name)
            source = task.metadata.dataset
            hub.add("datasets", source["path"], source["revision"], write_data(folder / name, stand_in(task)))
        yield hub


def run(hub: Hub, folder: Path, output: str, *more: str, tasks: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `stella-mteb run` in a folder with its own HF_HOME."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**rest, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
    names = [word for task in tasks for word in ("-t", task)]
    command = [sys.executable, "-m", "stella_mteb", "run", "-m", "stella_en_1.5B_v5@256", *names, "--no-cache",
               "--device", "cpu", "--format", "json", "--output", output, *more]  # fmt: skip
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)


def test_tasks_of_every_type_run_from_an_empty_cache_and_then_without_a_socket(hub: Hub, tmp_path: Path) -> None:
    online = run(hub, tmp_path, "online", tasks=TASKS)
    assert online.returncode == 0, online.stderr
    scores = {row["task"]: row["main score"] for row in json.loads(online.stdout)}
    asked = len(hub.asked)
    offline = run(hub, tmp_path, "offline", "--offline", tasks=TASKS)

    assert offline.returncode == 0, offline.stderr
    assert scores.keys() == set(TASKS)
    assert {row["task"]: row["main score"] for row in json.loads(offline.stdout)} == scores
    assert len(hub.asked) == asked
    assert "downloading NovaSearch/stella_en_1.5B_v5 from the hub: " in online.stderr
    assert "downloading" not in offline.stderr
    assert {Path(name).suffix for name in hub.fetched(STELLA[0])} == {".safetensors", ".json"}


@pytest.mark.versions
def test_missing_data_fails_its_task_with_a_message_and_the_others_run(hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault("mteb/banking77", 401, "RepoNotFound")]
    try:
        done = run(hub, tmp_path, "out", tasks=["Banking77Classification", "STSBenchmark"])
    finally:
        hub.faults = []

    assert done.returncode == 1, done.stderr
    rows = {row["task"]: row for row in json.loads(done.stdout)}
    assert (rows["Banking77Classification"]["status"], rows["STSBenchmark"]["status"]) == ("failed", "done")
    assert "mteb/banking77" in rows["Banking77Classification"]["error"]
