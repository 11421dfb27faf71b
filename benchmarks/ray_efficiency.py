"""Measures the overhead of Ray: the local engine beside Ray workers on the same cores.

    python -m benchmarks.ray_efficiency --data ../shared/data --out results/performance/ray.json

The same sentences go through the packaged all-MiniLM-L6-v2 into a store: in this process on two threads and on one,
and by Ray workers that have the model loaded, two of one thread each and one of two. In turns, and the vectors are
compared. Then what comes once for each run (starting Ray; starting workers until the model is loaded), and what it
costs to hand out a unit that does nothing, by a loop like the pool's, by `ray.util.ActorPool` and by Ray Data.

On one machine two workers can at best do what two threads do, for no core is added: this shows what Ray takes away.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.util import ActorPool

from benchmarks.workloads import short_sentences
from stella_mteb.cluster.corpora import Corpora
from stella_mteb.cluster.job import Job, Report
from stella_mteb.cluster.pool import Pool, Unit
from stella_mteb.diagnostics import bench
from stella_mteb.engine.store import VectorStore, text_key
from stella_mteb.files.atomic import write_json
from stella_mteb.harness.cost_capture import machine
from stella_mteb.models.resolve import resolve

MODEL = "all_minilm_l6_v2"
DISPATCHED = 500


class Local:
    """The local engine with a store."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.threads, self.cache = threads, folder / f"local-{threads}"
        self.engine = resolve(MODEL).load("cpu")
        self.engine.store = VectorStore(self.cache, self.engine.fingerprint)

    def encode(self, texts: list[str], prompt: str) -> None:
        """Encode into the store."""
        torch.set_num_threads(self.threads)
        self.engine.fill(texts, prompt)


class Workers:
    """Ray workers with the model loaded, and their store."""

    def __init__(self, folder: Path, workers: int, threads: int) -> None:
        self.cache = folder / f"ray-{workers}x{threads}"
        job = Job(
            specs=(MODEL,),
            revisions=(resolve(MODEL).revision,),
            dimensions=((),),
            tasks=("VideoSummarySTS",),
            benchmarks=(),
            max_bad_rows=None,
            output=folder / "out",
            cache=self.cache,
            device="cpu",
            folder=Path.cwd(),
            threads=threads,
        )
        self.pool = Pool(job, workers, print, lambda done, total: None)
        started = time.perf_counter()
        # As many as there are workers, or one of them would load the model in the first round.
        looks: list[Report] = []
        while len(self._loaded()) < workers:
            self.pool.submit(unit("look", looks.append))
            self.pool.serve()
        self.pool.drain()
        self.start_seconds = time.perf_counter() - started
        self.engine: Any = looks[0].model

    def _loaded(self) -> set[int]:
        return {member.number for member in self.pool._members if member.units}

    def encode(self, texts: list[str], prompt: str) -> None:
        """Encode into the store."""
        corpora = Corpora(self.pool, print, family=0, spec=MODEL, model=self.engine, cache=self.cache, sent=set())
        corpora.add(texts, prompt)
        corpora.flush()
        self.pool.drain()


def unit(method: str, done: Callable[[Report], None], *arguments: object) -> Unit:
    return Unit(name=method, family=0, method=method, arguments=arguments, done=done)


def same_vectors(ways: dict[str, Local | Workers], texts: list[str], prompt: str) -> dict[str, bool]:
    """Compare the vectors of each variant, bit for bit, with those of the first variant on as many threads."""
    found = {}
    for name, way in ways.items():
        fingerprint = way.engine.fingerprint
        vectors = np.empty((len(texts), 384), dtype=np.float32)
        if not VectorStore(way.cache, fingerprint).read([text_key(prompt, text) for text in texts], vectors).all():
            raise SystemExit(f"{name}: a text is not in the store")
        found[name] = vectors
    pairs = {"2 workers of 1 thread": "local, 1 thread", "1 worker of 2 threads": "local, 2 threads"}
    return {f"{one} = {other}": bool((found[one] == found[other]).all()) for one, other in pairs.items()}


class Idle:
    """A worker that returns immediately."""

    def nothing(self, value: Any) -> Any:
        """Return the argument."""
        return value

    def __call__(self, batch: Any) -> Any:
        """Return the argument, in the form that Ray Data calls."""
        return batch


def dispatch() -> dict[str, float]:
    """Measure milliseconds per empty unit on two workers."""
    actors = [ray.remote(num_cpus=0)(Idle).remote() for _ in range(2)]
    ray.get([actor.nothing.remote(0) for actor in actors])
    figures = {"ray.wait loop": _loop(actors), "ActorPool": _pool(actors)}
    for actor in actors:
        ray.kill(actor)
    try:
        from ray import data
    except ImportError:
        return figures
    data.DataContext.get_current().enable_progress_bars = False
    strategy = data.ActorPoolStrategy(size=2)
    started = time.perf_counter()
    blocks = data.range(DISPATCHED, override_num_blocks=DISPATCHED)
    blocks.map_batches(Idle, batch_size=1, compute=strategy, num_cpus=0.5).materialize()
    return figures | {"Ray Data": 1000 * (time.perf_counter() - started) / DISPATCHED}


def _loop(actors: list[Any]) -> float:
    started, given = time.perf_counter(), len(actors)
    calls = {actor.nothing.remote(0): actor for actor in actors}
    while calls:
        (ready,), _ = ray.wait(list(calls), num_returns=1)
        actor = calls.pop(ready)
        ray.get(ready)
        if given < DISPATCHED:
            calls[actor.nothing.remote(0)] = actor
            given += 1
    return 1000 * (time.perf_counter() - started) / DISPATCHED


def _pool(actors: list[Any]) -> float:
    started = time.perf_counter()
    list(ActorPool(actors).map_unordered(lambda actor, value: actor.nothing.remote(value), range(DISPATCHED)))
    return 1000 * (time.perf_counter() - started) / DISPATCHED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    texts = short_sentences(options.data)[: options.texts]
    load = [os.getloadavg()[0]]
    started = time.perf_counter()
    # Twice the cores, so that both kinds of workers find room; only one kind works at a time.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray_seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ways: dict[str, Local | Workers] = {
            "local, 2 threads": Local(folder, 2),
            "2 workers of 1 thread": Workers(folder, 2, 1),
            "1 worker of 2 threads": Workers(folder, 1, 2),
            "local, 1 thread": Local(folder, 1),
        }
        rounds = dict.fromkeys(ways, 0)

        def once(name: str) -> None:
            # A prompt that no round had, or the store would have the vectors already.
            rounds[name] += 1
            ways[name].encode(texts, f"{rounds[name]}: ")

        times = bench.interleave({name: lambda name=name: once(name) for name in ways}, options.rounds)
        same = same_vectors(ways, texts, "1: ")
        tokens = sum(len(ids) for ids in ways["local, 1 thread"].engine.tokenise(texts, "1: "))
        start = {name: way.start_seconds for name, way in ways.items() if isinstance(way, Workers)}
        for way in ways.values():
            if isinstance(way, Workers):
                way.pool.close()
        units = dispatch()
    ray.shutdown()
    load.append(os.getloadavg()[0])
    report = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": machine(torch.device("cpu")),
        "ray": ray.__version__,
        "model": MODEL,
        "texts": len(texts),
        "tokens": tokens,
        "load_before_and_after": load,
        "seconds": times,
        "tokens_per_second": {name: round(tokens / statistics.median(each)) for name, each in times.items()},
        "times_as_long_as_local_2_threads": {
            name: vars(bench.ratio(times, name, "local, 2 threads")) for name in times
        },
        "same_bits": same,
        "seconds_to_start_ray": ray_seconds,
        "seconds_to_start_workers": start,
        "milliseconds_for_a_unit": units,
    }
    for name, speed in report["tokens_per_second"].items():
        ratio = report["times_as_long_as_local_2_threads"][name]
        print(f"{name:24}{speed:>8} tokens/s{ratio['median']:>8.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
    print(f"same bits: {same}\nstart: Ray {ray_seconds:.1f} s, workers {start}\na unit, ms: {units}\nload: {load}")
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()
