"""All of MTEB(eng, v2), downloaded by `fetch` to an empty machine, then run without network."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub, serve
from tests.support.stand_ins import stand_in, write_data

BENCHMARK = "MTEB(eng, v2)"
# A process that connects to anything, or asks for a host, ends there.
WITHOUT_NETWORK = """
import os, sys
def end(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo"}:
        os.write(2, f"{event} {arguments}".encode())
        os._exit(99)
sys.addaudithook(end)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with small data for every task of the benchmark."""
    import mteb

    with serve() as hub:
        for task in mteb.get_benchmark(BENCHMARK).tasks:
            source, folder = task.metadata.dataset, tmp_path_factory.mktemp("data") / "files"
            hub.add("datasets", source["path"], source["revision"], write_data(folder, stand_in(task)))
        yield hub


def command(hub: Hub, folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run `stella-mteb` in a folder with its own HF_HOME."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**rest, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
    program = f"{before}\nfrom stella_mteb.cli import main\nmain()"
    return subprocess.run([sys.executable, "-c", program, *arguments], check=False, cwd=folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip


@pytest.mark.slow
def test_every_task_of_the_benchmark_has_a_score_offline_from_what_fetch_brought(hub: Hub, tmp_path: Path) -> None:
    asked_for = ("-m", "all_minilm_l6_v2", "-b", BENCHMARK, "--format", "json")
    fetched = command(hub, tmp_path, "fetch", *asked_for)
    assert fetched.returncode == 0, fetched.stderr
    again = command(hub, tmp_path, "fetch", *asked_for)
    run = command(hub, tmp_path, "run", *asked_for, "--offline", "--device", "cpu", before=WITHOUT_NETWORK)

    assert run.returncode == 0, run.stderr
    states = [(row["kind"], row["state"]) for row in json.loads(fetched.stdout)]
    assert states == [("model", "here"), *[("data", "fetched")] * 41]
    assert {row["state"] for row in json.loads(again.stdout)} == {"here"}
    scores = {row["task"]: row["main score"] for row in json.loads(run.stdout)}
    assert len(scores) == 41
    assert all(math.isfinite(score) and score > 0 for score in scores.values()), scores
    # A line as each task ends, and a few for the whole run: no library's own.
    assert len(run.stderr.splitlines()) < 60, run.stderr
