"""Facts about MTEB's tasks, benchmarks and models as plain data, readable without importing MTEB.

The shipped table belongs to one version of MTEB. If another version is installed, its table is generated once (in
seconds) and cached. `python -m stella_mteb.harness.mteb_facts` regenerates the shipped table.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stella_mteb.files.atomic import atomic_write, read_json_object
from stella_mteb.files.folders import cache_folder

SHIPPED = Path(__file__).with_name("mteb_facts.json")
_ENDINGS = re.compile(r"\.v\d+|P2P|S2S|Intent|Scenario|Domain|HardNegatives")
"""Parts of task names that distinguish variants of a task on the same texts."""


def load_facts() -> dict[str, Any]:
    """Read the table of the installed MTEB from the package or the cache, or generate it.

    Returns:
        A dictionary with the following keys; None as a value means unknown.

        - `mteb`: the version of MTEB.
        - `tasks`: by name, `type`, `splits`, `subsets` (their number), `main_score`, `family`, and for an aggregate its
          `parts`.
        - `benchmarks`: by name, `aliases`, and `tasks` by name with `splits` and `subsets` if not all count.
        - `models`: by name, `revision`, `parameters`, `max_tokens`, `dimension`, `license`, `open`, `released`, and
          `trained_on`, an index into `training_sets`.
        - `training_sets`: lists of names of tasks.
    """
    installed = importlib.metadata.version("mteb")
    shipped = read_json_object(SHIPPED)
    if shipped["mteb"] == installed:
        return shipped
    kept = cache_folder() / f"mteb-facts-{installed}.json"
    if not kept.is_file():
        _write(kept, make_facts())
    return read_json_object(kept)


def make_facts() -> dict[str, Any]:
    """Generate the table of the installed MTEB."""
    import mteb  # noqa: PLC0415 -- slow, and not needed to read the table

    tasks = list(mteb.get_tasks(exclude_superseded=False, exclude_aggregate=False))
    family = families(tasks)
    names = {task.metadata.name for task in tasks}
    sizes = {task.metadata.name: len(task.metadata.hf_subsets) for task in tasks}
    benchmarks = sorted(mteb.get_benchmarks(), key=lambda one: str(one.name))
    training_sets: dict[tuple[str, ...], int] = {}
    return {
        "mteb": importlib.metadata.version("mteb"),
        "tasks": {
            task.metadata.name: {
                "type": str(task.metadata.type),
                "splits": list(task.metadata.eval_splits),
                "subsets": 1 if task.is_aggregate else sizes[task.metadata.name],
                "main_score": str(task.metadata.main_score),
                "family": family[task.metadata.name],
                **({"parts": sorted(part.metadata.name for part in task.metadata.tasks)} if task.is_aggregate else {}),
            }
            for task in sorted(tasks, key=lambda one: str(one.metadata.name))
        },
        "benchmarks": {
            one.name: _benchmark(one, sizes) for one in benchmarks if {t.metadata.name for t in one.tasks} <= names
        },
        "models": {
            meta.name: _model(meta, names, training_sets)
            for meta in sorted(mteb.get_model_metas(), key=lambda one: str(one.name))
            if meta.modalities is None or "text" in meta.modalities
        },
        "training_sets": [list(each) for each in training_sets],
    }


def families(tasks: Iterable[Any]) -> dict[str, str]:
    """Group tasks that share texts: same data set, adapted from one another, or similar name.

    Returns:
        The first name of each task's family, by name of the task.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    tasks = list(tasks)
    for task in tasks:
        metadata = task.metadata
        same = [f"name {_ENDINGS.sub('', metadata.name)}", *(f"task {name}" for name in metadata.adapted_from or ())]
        if not task.is_aggregate:
            same.append(f"data {metadata.dataset['path'].casefold()}")
        for key in same:
            parent[root(key)] = root(f"task {metadata.name}")
    first: dict[str, str] = {}
    for name in sorted(task.metadata.name for task in tasks):
        first.setdefault(root(f"task {name}"), name)
    return {task.metadata.name: first[root(f"task {task.metadata.name}")] for task in tasks}


def _benchmark(benchmark: Any, sizes: dict[str, int]) -> dict[str, Any]:
    tasks: dict[str, dict[str, Any]] = {}
    for task in benchmark.tasks:
        facts = tasks[task.metadata.name] = {}
        if set(task.eval_splits) != set(task.metadata.eval_splits):
            facts["splits"] = list(task.eval_splits)
        if not task.is_aggregate and len(task.hf_subsets) != sizes[task.metadata.name]:
            facts["subsets"] = sorted(task.hf_subsets)
    return {"aliases": sorted(benchmark.aliases), "tasks": tasks}


def _model(meta: Any, names: set[str], training_sets: dict[tuple[str, ...], int]) -> dict[str, Any]:
    trained = meta.get_training_datasets()
    return {
        "revision": meta.revision,
        "parameters": meta.n_parameters,
        "max_tokens": int(meta.max_tokens) if meta.max_tokens and meta.max_tokens < float("inf") else None,
        "dimension": max(meta.embed_dim) if isinstance(meta.embed_dim, list | tuple) else meta.embed_dim,
        "license": meta.license and str(meta.license),
        "open": meta.open_weights,
        "released": str(meta.release_date) if meta.release_date else None,
        "trained_on": None
        if trained is None
        else training_sets.setdefault(tuple(sorted(names & set(trained))), len(training_sets)),
    }


def _write(path: Path, facts: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.writelines(_lines(facts))


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each task, benchmark, model and training set, so that diffs between versions are readable."""

    def compact(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    yield f'{{"mteb": {compact(facts["mteb"])}'
    for key in ("tasks", "benchmarks", "models"):
        yield f',\n"{key}": {{\n' + ",\n".join(f"{compact(name)}: {compact(one)}" for name, one in facts[key].items())
        yield "\n}"
    yield ',\n"training_sets": [\n' + ",\n".join(map(compact, facts["training_sets"])) + "\n]}\n"


if __name__ == "__main__":
    _write(SHIPPED, make_facts())
