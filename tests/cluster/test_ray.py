"""`run --engine ray` on two Ray nodes of one machine, with killed workers; and its parts without Ray.

Workers have one thread each, and so has this process: on a CPU the last bits of a vector depend on the number.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import stella_mteb
from stella_mteb.cluster.job import Job, LoadedModel, Place, Report, versions
from stella_mteb.cluster.worker import Worker
from stella_mteb.errors import ConfigError, EnvironmentProblem
from tests.conftest import Call
from tests.support.runs import write_task
from tests.support.spies import S2S, twin

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra: pip install 'stella-mteb[ray]'")

SCRIPT = Path(sys.executable).with_name("stella-mteb")
WORDS = ["boat", "dawn", "cook", "salt", "rain", "street", "dog", "child", "door", "cat", "harbour", "brick"]
POISON = "a text that ends every worker that encodes it, and that is longer than what is shown of it"
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two Ray nodes of one CPU each, in separate processes, connected over the loopback."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # or a token appears in the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args=NODE)
        nodes.add_node(**NODE)
        yield nodes
        nodes.shutdown()


@pytest.fixture
def tasks(tmp_path: Path) -> list[str]:
    """Three STS tasks that share some of their texts."""
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=generator.integers(3, 40))) for _ in range(120)]
    rows = list(zip(texts[::2], texts[1::2], (n % 6 for n in range(60)), strict=True))
    parts = {"OneSTS": rows[:30], "TwoSTS": rows[20:50], "ThreeSTS": rows[40:]}
    return [write_task(tmp_path / "tasks", part, name) for name, part in parts.items()]


@pytest.fixture
def model(stella_folder: Path, tmp_path: Path) -> Path:
    """A config of the tiny Stella whose batches are so small that there are many."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"name: tiny\npath: {stella_folder}\nattention: bidirectional\neos_token_id: 151643\n"
        "token_budget: 128\nmax_length: 128\n"
    )
    return path


class Run:
    """The files and the output of a run."""

    def __init__(self, folder: Path, out: str, err: str, workers: list[dict[str, Any]]) -> None:
        self.out, self.err, self.workers = out, err, workers
        self.results = {path.name: scores(path) for path in sorted((folder / "out/results").rglob("*STS.json"))}
        self.details = {path.name: path.read_bytes() for path in sorted((folder / "out/details").rglob("*STS.json"))}
        self.vectors = vectors(folder / "cache")


def scores(path: Path) -> Any:
    return json.loads(path.read_text())["scores"]


def vectors(folder: Path) -> dict[bytes, bytes]:
    """Return the bits of every stored vector, after checking that each text has only one."""
    found: dict[bytes, bytes] = {}
    for shard in map(load_file, folder.rglob("*.safetensors")):
        for key, vector in zip(shard["keys"], shard["vectors"], strict=True):
            assert found.setdefault(key.tobytes(), vector.tobytes()) == vector.tobytes()
    return found


@pytest.fixture
def run(call: Call, model: Path, tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the tasks with the tiny model; the name is that of the folder for results and vectors."""
    tables: list[list[dict[str, Any]]] = []
    if find_spec("ray"):
        from stella_mteb.cluster import driver

        run_on_ray = driver.run_on_ray

        def noted(*args: Any, **kwargs: Any) -> Any:
            outcomes, table = run_on_ray(*args, **kwargs)
            tables.append(table)
            return outcomes, table

        monkeypatch.setattr(driver, "run_on_ray", noted)

    def run(name: str, *options: object, code: int = 0, spec: str = "@256", of: Sequence[str] | None = None) -> Run:
        named = [part for task in of or tasks for part in ("-t", task)]
        where = ["--output", tmp_path / name / "out"]
        where += [] if "--no-cache" in options else ["--cache", tmp_path / name / "cache"]
        tables.clear()
        got, out, err = call("run", "-m", f"{model}{spec}", *named, *where, *options)
        assert got == code, err
        return Run(tmp_path / name, out, err, tables[0] if tables else [])

    return run


def on(cluster: Any) -> tuple[str, ...]:
    return "--engine", "ray", "--address", cluster.address


def at(pool: Any, method: str) -> list[Any]:
    return [member for member in pool._members if member.place and member.unit and member.unit.method == method]


@pytest.fixture
def whenever_assigned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Call a function with the pool whenever it has handed out work."""
    from stella_mteb.cluster.pool import Pool

    assign = Pool._assign

    def set_up(function: Callable[[Any], None]) -> None:
        def assign_and_call(pool: Pool) -> None:
            assign(pool)
            function(pool)

        monkeypatch.setattr(Pool, "_assign", assign_and_call)

    return set_up


# -------------------------------------------------------------------------------------------------------- whole runs


@needs_ray
def test_two_nodes_with_a_worker_killed_give_the_bits_of_the_local_engine(
    cluster: Any, run: Any, whenever_assigned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.cli import display

    monkeypatch.setattr(display, "_STATUS_EVERY", 0.0)
    killed: list[int] = []

    def kill_one(pool: Any) -> None:
        if len(at(pool, "encode")) == 2 and not killed:
            victim = at(pool, "encode")[0]
            killed.append(victim.number)
            os.kill(victim.place.process, signal.SIGKILL)

    whenever_assigned(kill_one)
    local, spread = run("local", "--prefill"), run("ray", "--prefill", *on(cluster))

    assert spread.vectors == local.vectors
    assert (spread.results, spread.details) == (local.results, local.details)
    assert len(spread.results) == 3
    assert [row["worker"] for row in spread.workers][:2] == [1, 2]
    assert [row["worker"] for row in spread.workers if row["ended"]] == killed
    # No text was encoded twice, and none for the scores; a dead worker does not report its work.
    assert 0 < sum(row["texts"] for row in spread.workers) <= len(local.vectors)
    said = (
        rf"worker {killed[0]} on \S+ \(process \d+\) died: its process ended unexpectedly. Its unit: shard \d+ of \S+"
    )
    assert re.search(said, spread.err)
    assert re.search(r"^task \d of 3, \S+: \S+ of \S+ tokens, left .+, in all .+$", spread.err, re.MULTILINE)
    assert "raylet" not in spread.out
    assert re.search(r"worker +node +device +units +texts +tokens +tokens/s +ended", spread.err)


@needs_ray
@pytest.mark.slow
def test_scoring_runs_no_forward_pass_after_a_prefill(cluster: Any, run: Any) -> None:
    spread = run("ray", "--prefill", *on(cluster))
    total = len(spread.vectors)

    assert sum(row["texts"] for row in spread.workers) == total
    assert f"160 texts of 3 tasks, {total} of them encoded by the workers" in spread.err


@needs_ray
@pytest.mark.slow
def test_tasks_are_spread_over_the_workers_and_kept_when_the_run_is_repeated(cluster: Any, run: Any) -> None:
    options = ("--dims", "256,1024", "--format", "json")
    local = run("local", *options, spec="")
    spread, again = (run("ray", *options, *on(cluster), spec="") for _ in range(2))
    rows = [json.loads(one.out[: one.out.index("\n]") + 2]) for one in (local, spread, again)]

    assert spread.results == local.results
    assert spread.vectors.keys() == local.vectors.keys()
    for part in rows[1:]:
        assert [(row["model"], row["task"]) for row in part] == [(row["model"], row["task"]) for row in rows[0]]
        # A result on disk has six decimals.
        assert [row["main score"] for row in part] == pytest.approx([row["main score"] for row in rows[0]], abs=1e-6)
    assert [[row["status"] for row in part] for part in rows] == [["done"] * 6, ["done"] * 6, ["kept"] * 6]
    assert {row["texts"] for row in again.workers} == {0}


@needs_ray
@pytest.mark.slow
def test_without_a_cache_every_worker_encodes_what_its_tasks_need(cluster: Any, run: Any) -> None:
    local, spread = run("local", "--no-cache"), run("ray", "--no-cache", *on(cluster))

    assert (spread.results, spread.details) == (local.results, local.details)
    assert spread.vectors == {}


@needs_ray
@pytest.mark.slow
def test_the_bits_are_those_of_the_local_engine_on_more_than_one_thread_too(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two threads bits depend on the batch; shards end where batches end."""
    import ray
    import torch

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    torch.set_num_threads(2)
    local = run("local", "--prefill")
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)
    try:
        spread = run("ray", "--prefill", "--engine", "ray")
        assert ray.is_initialized(), "a connection of the caller's stays"
    finally:
        ray.shutdown()
        torch.set_num_threads(1)

    assert len(spread.workers) == 2
    assert all("threads: 2" in row["device"] for row in spread.workers)
    assert spread.vectors == local.vectors
    assert (spread.results, spread.details) == (local.results, local.details)


@needs_ray
@pytest.mark.slow
def test_a_run_whose_workers_are_killed_at_random_ends_like_the_local_one(
    cluster: Any, run: Any, whenever_assigned: Any
) -> None:
    generator, killed = random.Random(0), []

    def kill_some(pool: Any) -> None:
        for member in pool._members:
            if member.unit and len(killed) < 8 and generator.random() < 0.02 and member.place.process not in killed:
                killed.append(member.place.process)
                os.kill(member.place.process, signal.SIGKILL)

    whenever_assigned(kill_some)
    local, spread = run("local", "--prefill"), run("ray", "--prefill", *on(cluster))

    assert killed
    assert spread.vectors == local.vectors
    assert (spread.results, spread.details) == (local.results, local.details)


@needs_ray
@pytest.mark.slow
def test_a_lost_node_costs_only_the_current_unit_of_its_worker(cluster: Any, run: Any, whenever_assigned: Any) -> None:
    third = [cluster.add_node(**NODE)]

    def lose_it(pool: Any) -> None:
        if len(at(pool, "encode")) == 3 and third:
            cluster.remove_node(third.pop(), allow_graceful=False)

    whenever_assigned(lose_it)
    local, spread = run("local", "--prefill"), run("ray", "--prefill", *on(cluster))

    assert not third
    assert "died" in spread.err
    assert spread.vectors == local.vectors
    assert (spread.results, spread.details) == (local.results, local.details)


# ----------------------------------------------------------------------------------------------------------- poison


class Poisoned(Worker):
    """A worker whose process dies on one text."""

    def encode(self, family: int, texts: list[str], prompt: str) -> Report:
        self._die_of(texts)
        return super().encode(family, texts, prompt)

    def run_task(self, family: int, place: int) -> Report:
        pairs = self._tasks[place].stella_mteb_file.pairs
        self._die_of([*pairs.first, *pairs.second])
        return super().run_task(family, place)

    def _die_of(self, texts: Sequence[str]) -> None:
        if POISON in texts:
            os.kill(os.getpid(), signal.SIGKILL)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("prefill", [True, False])
def test_a_task_whose_text_kills_its_workers_is_named_and_no_other_fails(
    cluster: Any, run: Any, tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefill: bool
) -> None:
    from stella_mteb.cluster import pool

    options = ["--prefill"] if prefill else []
    local = run("local", *options)
    lines = (tmp_path / "tasks/OneSTS.jsonl").read_text().splitlines()
    rows = [(row["left"], row["right"], row["rating"]) for row in map(json.loads, lines)]
    bad = write_task(tmp_path / "tasks", [*rows[:15], (POISON, "a dog runs", 3), *rows[15:]], "BadSTS")
    monkeypatch.setattr(pool, "Worker", Poisoned)
    spread = run("ray", *options, *on(cluster), of=[bad, *tasks[1:]], code=1)

    three = "has killed 3 workers in succession (its process ended unexpectedly)"
    assert re.search(
        rf"failed: {tmp_path}/tiny.yaml@256 on BadSTS .*\n  task BadSTS with .* {re.escape(three)}", spread.err
    )
    assert bool(re.search(rf"prefill: shard \d+ .* {re.escape(three)}; the rest of the shard", spread.err)) == prefill
    assert spread.results == {name: local.results[name] for name in ("ThreeSTS.json", "TwoSTS.json")}


def _texts(tasks: Sequence[str]) -> Iterator[str]:
    for task in tasks:
        for line in Path(task).with_suffix(".jsonl").read_text().splitlines():
            row = json.loads(line)
            yield from (row["left"], row["right"])


# -------------------------------------------------------------------------------------------- the pool, by itself


class Quick(Worker):
    """A worker without a model; its texts are its instructions."""

    def about(self) -> Place:
        if "broken" in self._job.benchmarks:
            raise RuntimeError("no libcuda")
        return Place(
            "here", "none", os.getpid(), versions() | ({"mteb": "1.0"} if "old" in self._job.benchmarks else {})
        )

    def encode(self, family: int, texts: list[str], prompt: str) -> Report:
        if POISON in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(sum({"nap": 0.5, "sleep": 3.0}.get(text, 0.0) for text in texts))
        if "bug" in texts:
            raise ZeroDivisionError("a bug")
        if "config" in texts:
            raise ConfigError("a wrong config")
        return Report(
            Counter(texts=len(texts), tokens=10, milliseconds=500), warnings=(f"{family} {json.dumps(texts)}",)
        )


@pytest.fixture
def make_pool(cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Make a pool of quick workers; its attribute `lines` has its messages."""
    from stella_mteb.cluster import driver, pool

    monkeypatch.setattr(pool, "Worker", Quick)
    made = []
    with driver.connected(cluster.address):

        def make(most: int = 2, **changes: Any) -> Any:
            lines: list[str] = []
            made.append(pool.Pool(replace(a_job(tmp_path), **changes), most, lines.append, lambda *_: None))
            made[-1].lines = lines
            return made[-1]

        yield make
        for one in made:
            one.kill()


def a_job(folder: Path, **changes: Any) -> Job:
    same: dict[str, Any] = {
        "specs": (), "revisions": (), "dimensions": (), "tasks": (), "benchmarks": (), "max_bad_rows": None,
        "output": folder, "cache": folder, "device": None, "folder": folder,
    }  # fmt: skip
    return Job(**(same | changes))


def shard(texts: list[str], family: int = 0, **changes: Any) -> Any:
    from stella_mteb.cluster.pool import Unit

    same: dict[str, Any] = {
        "name": "a shard", "family": family, "method": "encode", "arguments": (texts, ""), "done": lambda _: None,
    }  # fmt: skip
    return Unit(**(same | changes))


def heard(pool: Any) -> list[tuple[str, int, list[str]]]:
    """Return worker, family and texts of each finished unit."""
    found = [re.fullmatch(r"(worker \d+) .*?: (\d+) (\[.*\])", line) for line in pool.lines]
    return [(line[1], int(line[2]), json.loads(line[3])) for line in found if line]


@needs_ray
@pytest.mark.slow
def test_a_worker_stays_with_its_model_while_there_is_work_for_it(make_pool: Any) -> None:
    pool = make_pool()
    for family in (0, 1):
        for n in range(6):
            pool.submit(shard([f"{family} {n}", "nap"], family))
    pool.drain()

    loaded = [(worker, family) for worker, family, _ in heard(pool)]
    assert len(loaded) == 12
    for worker in ("worker 1", "worker 2"):
        families = [family for who, family in loaded if who == worker]
        assert families == sorted(families), "it went back to a model that it had let go of"
    assert Counter(family for _, family in loaded) == {0: 6, 1: 6}
    assert [row["units"] for row in pool.close()] == [sum(who == f"worker {n}" for who, _ in loaded) for n in (1, 2)]


@needs_ray
@pytest.mark.slow
def test_a_slow_unit_is_named_with_its_worker(make_pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from stella_mteb.cluster import pool as module

    monkeypatch.setattr(module, "_LONG", 1.0)
    monkeypatch.setattr(module, "_TICK", 0.2)
    pool = make_pool()
    pool.submit(shard(["sleep"]))
    pool.submit(shard(["quick"]))
    pool.drain()

    named = [line for line in pool.lines if "still at" in line]
    assert re.fullmatch(
        r"worker \d on here \(process \d+\) is still at a shard, since \d\d:\d\d:\d\d \(\d s\)", named[0]
    )
    assert len(named) <= 2


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reason"), [("bug", "ZeroDivisionError: a bug"), (POISON, "its process ended unexpectedly")]
)
def test_a_unit_that_kills_its_workers_has_three_tries_and_the_others_are_done(
    make_pool: Any, text: str, reason: str
) -> None:
    pool, errors = make_pool(), []

    pool.submit(shard([text], failed=errors.append))
    pool.submit(shard(["fine"]))
    pool.drain()

    assert list(map(str, errors)) == [f"a shard has killed 3 workers in succession ({reason})"]
    assert [texts for *_, texts in heard(pool)] == [["fine"]]
    assert len({line.split()[1] for line in pool.lines if "died" in line}) == 3


@needs_ray
@pytest.mark.slow
def test_an_error_of_the_user_ends_the_run_even_if_a_rehearsal_swallows_it(make_pool: Any) -> None:
    pool = make_pool()

    with pytest.raises(ConfigError, match="a wrong config"):
        pool.submit(shard(["config"]))
        pool.drain()
    with pytest.raises(ConfigError, match="a wrong config"):
        pool.serve()


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmarks": ("broken",)}, r"3 workers in succession did not start; the last one: RuntimeError: no libcuda"),
        ({"benchmarks": ("old",)}, r"node here has mteb 1\.0 \(here 2\.\S+\)"),
    ],
)
def test_workers_that_cannot_serve_end_the_run(make_pool: Any, changes: dict[str, Any], message: str) -> None:
    pool = make_pool(**changes)

    with pytest.raises(EnvironmentProblem, match=message):
        pool.submit(shard(["text"]))
        pool.drain()


@needs_ray
@pytest.mark.slow
def test_a_cluster_without_room_is_refused(make_pool: Any) -> None:
    with pytest.raises(EnvironmentProblem, match=r"no node of the Ray cluster has 64 CPUs.*set OMP_NUM_THREADS"):
        make_pool(threads=64)
    with pytest.raises(EnvironmentProblem, match="no node of the Ray cluster has a GPU"):
        make_pool(device="cuda")


# ---------------------------------------------------------------------------------------------------------- the end


def processes(mark: str) -> set[int]:
    """Return all processes that inherited an environment with this mark."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (
                mark.encode() in (path / "environ").read_bytes()
                and "Z" not in (path / "stat").read_text().split(")")[1][:3]
            ):
                found.add(int(path.name))
        except OSError:
            continue
    return found


def none_left(mark: str, seconds: float = 40.0) -> bool:
    until = time.monotonic() + seconds
    while (left := processes(mark)) and time.monotonic() < until:
        time.sleep(0.5)
    return not left


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("way", ["interrupted", "terminated", "killed"])
def test_no_process_outlives_a_run_and_what_was_finished_stays(
    run: Any, model: Path, tasks: list[str], tmp_path: Path, way: str
) -> None:
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(WORDS, size=60)) for _ in range(6_000)]
    rows = list(zip(texts[::2], texts[1::2], (n % 6 for n in range(3_000)), strict=True))
    many = write_task(tmp_path / "tasks", rows, "ManySTS")
    local = run("local", "--prefill", of=[*tasks, many])
    mark = f"mark-{uuid.uuid4().hex}"
    where = ["--output", tmp_path / "ray/out", "--cache", tmp_path / "ray/cache"]
    named = [part for task in (*tasks, many) for part in ("-t", task)]
    command = [SCRIPT, "run", "-m", f"{model}@256", *named, *where, "--prefill", "--engine", "ray"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "MARK": mark}

    process = subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 120
    while not list((tmp_path / "ray/cache").rglob("*.safetensors")) and time.monotonic() < until:
        time.sleep(0.05)
    started = processes(mark)
    if way == "interrupted":  # as a terminal does it
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM if way == "terminated" else signal.SIGKILL)
    _, err = process.communicate(timeout=600)

    assert len(started) > 3, "the driver, Ray's own processes, the workers"
    assert none_left(mark), "a process is left"
    kept = vectors(tmp_path / "ray/cache")
    assert kept
    assert kept.items() < local.vectors.items()
    if way != "killed":
        assert process.returncode == 130
        assert err.splitlines()[-1].split() == ["stella-mteb", *map(str, command[1:])]

    again = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=True)
    resumed = Run(tmp_path / "ray", again.stdout, again.stderr, [])

    assert f"{len(local.vectors) - len(kept)} of them encoded by the workers" in resumed.err
    assert resumed.results == local.results
    assert none_left(mark)


# -------------------------------------------------------------------------------------------------------- its parts


def test_the_error_without_ray_names_the_extra(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("stella_mteb.cluster.find_spec", lambda _: None)

    code, _, err = call("run", "-m", "all_minilm_l6_v2", "-t", "VideoSummarySTS", "--engine", "ray")

    assert code == 3
    assert err.splitlines()[-1] == "error: --engine ray needs Ray: pip install 'stella-mteb[ray]'"


def test_only_the_driver_of_a_cluster_imports_ray() -> None:
    package = Path(stella_mteb.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) ray\b", path.read_text(), re.MULTILINE)
    }
    program = "import sys, stella_mteb.cli.run, stella_mteb.cluster.worker; print('ray' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert found == {"cluster/driver.py", "cluster/pool.py"}
    assert out.strip() == "False"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "auto"], "needs --engine ray"),
        (["--engine", "ray", "--device", "cuda:1"], "must be auto, cpu or cuda with --engine ray"),
        (["--engine", "rey"], "rey"),
    ],
)
def test_options_that_do_not_go_together_are_refused(call: Call, options: list[str], message: str) -> None:
    code, _, err = call("run", "-m", "all_minilm_l6_v2", "-t", "VideoSummarySTS", *options)

    assert code == 2
    assert message in re.sub(r"[\s│]+", " ", err)


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense"])
def test_a_cluster_that_does_not_answer_is_an_error_within_seconds(address: str) -> None:
    from stella_mteb.cluster.driver import connected

    before, handler = time.monotonic(), signal.getsignal(signal.SIGTERM)

    with pytest.raises(EnvironmentProblem, match=f"no Ray cluster at '{address}'"), connected(address):
        pass

    assert time.monotonic() - before < 10
    assert signal.getsignal(signal.SIGTERM) is handler


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    workers=st.integers(1, 8),
    window=st.sampled_from([5, 16, 1000]),
    padded=st.booleans(),
)
def test_shards_end_where_the_engine_ends_its_batches(
    stella: Any, sizes: list[int], workers: int, window: int, padded: bool
) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'stella-mteb[ray]'")
    from stella_mteb.cluster import corpora
    from stella_mteb.engine import batching

    texts = list(dict.fromkeys(f"{n} " + "boat " * (size % 7) + "dawn" * size for n, size in enumerate(sizes)))
    engine = twin(stella, token_budget=64, max_length=64)
    engine.packed = not padded
    facts = LoadedModel(engine.fingerprint, engine.tokenise, engine.batch_budget(), padded, False, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "WINDOW", window)
        patch.setattr(corpora, "_BATCHES", 1)
        alone = [[texts[i] for i in batch] for batch, _, _ in engine._batches(texts, S2S, None)]
        # A worker, which is given the texts of a shard and nothing else, makes the same batches of them.
        made = []
        for own, tokens in corpora.plan(texts, S2S, facts, workers):
            batches = list(engine._batches(own, S2S, None))
            made += [[own[i] for i in batch] for batch, _, _ in batches]
            assert tokens == sum(len(row) for _, rows, _ in batches for row in rows)

    assert made == alone


@needs_ray
def test_shards_have_about_equal_tokens_and_are_enough_for_all_workers(stella: Any) -> None:
    from stella_mteb.cluster.corpora import plan

    generator = random.Random(0)
    texts = [f"{n} " + " ".join(generator.choices(WORDS, k=generator.randint(1, 30))) for n in range(2_000)]
    facts = LoadedModel({}, stella.tokenise, 64, False, False, True)
    tokens = [tokens for _, tokens in plan(texts, "", facts, workers=4)]

    assert len(tokens) in range(13, 17)
    assert max(tokens[:-1]) < 1.1 * min(tokens[:-1])


@needs_ray
def test_windows_that_share_a_prefix_are_not_cut(stella: Any) -> None:
    from stella_mteb.cluster.corpora import plan

    texts = [f"text {n}" for n in range(100)]
    facts = LoadedModel({}, stella.tokenise, 64, False, True, True)

    assert [shard for shard, _ in plan(texts, "", facts, workers=4)] == [sorted(texts, key=lambda text: -len(text))]


# ---------------------------------------------------------------------------------------- a worker, in this process


@pytest.fixture
def worker(model: Path, tasks: list[str], tmp_path: Path) -> Callable[[], Worker]:
    """Workers of one job with the three tasks, each as in a separate process."""
    from stella_mteb.models.resolve import resolve

    spec = f"{model}@256"
    job = a_job(tmp_path, specs=(spec,), revisions=(resolve(spec).revision,), dimensions=((),), tasks=tuple(tasks),
                output=tmp_path / "out", cache=tmp_path / "cache", device="cpu")  # fmt: skip
    return lambda **changes: Worker(replace(job, **changes))


def test_a_worker_reads_what_another_has_stored_since(worker: Any, tasks: list[str]) -> None:
    first, second = worker(), worker()
    assert second.look(0).missing == (0, 1, 2)
    one = list(dict.fromkeys(_texts(tasks[:1])))

    stored = first.encode(0, one, S2S)
    report = second.run_task(0, 0)

    assert (stored.encoded["texts"], report.encoded["texts"], report.encoded["tokens"]) == (len(one), 0, 0)
    assert [outcome.status for outcome in report.outcomes] == ["done"]
    assert second.run_task(0, 1).encoded["texts"] > 0
    assert first.look(0).missing == (2,)
    assert first.watch() == (stored.encoded["tokens"], 0)


def test_the_count_of_a_worker_continues_when_it_changes_the_model(worker: Any, tasks: list[str]) -> None:
    one = worker()
    report = one.encode(0, list(_texts(tasks)), "")
    one.close()

    assert one.watch() == (report.encoded["tokens"], 0)
    costs = list((one._job.output / "details").rglob("cost.json"))
    assert [json.loads(path.read_text())[0]["tokens"] for path in costs] == [report.encoded["tokens"]]


def test_a_worker_refuses_other_files_than_the_drivers(worker: Any) -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"has .+ at revision local-.+, but the driver has local-other; give all nodes"
    ):
        worker(revisions=("local-other",)).look(0)


def test_a_worker_refuses_folders_that_are_not_the_drivers(worker: Any, tmp_path: Path) -> None:
    for changes, folder in (
        ({"probes": (tmp_path / "elsewhere/.probe",)}, tmp_path / "elsewhere"),
        ({"folder": tmp_path / "not there"}, tmp_path / "not there"),
    ):
        with pytest.raises(EnvironmentProblem, match=f"does not see {re.escape(str(folder))} as the driver does"):
            worker(**changes).about()


def test_a_worker_reports_its_node_and_keeps_its_warnings_for_the_driver(
    worker: Any, tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("stella_mteb")
    monkeypatch.setattr(logger, "handlers", list(logger.handlers))
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    monkeypatch.chdir(tmp_path)
    one = worker(threads=1)

    place = one.about()
    logger.warning("the %s is odd", "task")
    report = one.look(0)

    assert place.process == os.getpid()
    assert place.device.endswith("threads: 1")
    assert place.versions["stella-mteb"] == versions()["stella-mteb"]
    assert "the task is odd" in report.warnings


def test_a_worker_whose_gpu_is_lost_ends_so_that_another_takes_its_place(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def raise_lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def end(code: int) -> None:
        raise SystemExit(code)

    one = worker()
    task = one._tasks[0]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", raise_lost)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(task, "_evaluate_subset", lambda *_, **__: raise_lost())

    with pytest.raises(SystemExit) as stop:
        one.run_task(0, 0)
    assert stop.value.code == 1
