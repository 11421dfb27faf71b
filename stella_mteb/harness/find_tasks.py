"""Finds MTEB tasks by the names of tasks and benchmarks on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mteb

from stella_mteb.errors import ConfigError
from stella_mteb.files.rows import SUFFIXES
from stella_mteb.harness import registry
from stella_mteb.harness.mteb_facts import families
from stella_mteb.harness.register import register
from stella_mteb.harness.task_classes import task_class
from stella_mteb.harness.task_yaml import TaskFile, bundled_tasks, load_task_file


def find_tasks(names: Iterable[str], benchmarks: Iterable[str] = (), max_bad_rows: int | None = None) -> list[Any]:
    """Find tasks by name; read and check local data.

    Args:
        names: A bundled task, `NAME=PATH` for a bundled task with other data, the path of a task YAML, or a task of
            MTEB.
        benchmarks: Names of MTEB benchmarks, or `stella-video`.
        max_bad_rows: Overrides the limit of the tasks.

    Returns:
        In the order given, but tasks that share texts follow each other.

    Raises:
        ConfigError: If a name is unknown, a YAML is invalid, or data has too many bad rows.
    """
    register()
    tasks: dict[tuple[str, ...], Any] = {}
    for name in benchmarks:
        try:
            benchmark = mteb.get_benchmark(name)
        except KeyError as error:
            known = [known.name for known in mteb.get_benchmarks()] + [registry.BENCHMARK_ALIAS]
            near = difflib.get_close_matches(name, known, n=1)
            cure = f"did you mean {near[0]!r}?" if near else "`stella-mteb mteb available-benchmarks` lists them"
            raise ConfigError(f"unknown benchmark {name!r}; {cure}") from error
        tasks.update({_key(task): task for task in benchmark.tasks})
    own = [_find_task(name, max_bad_rows) for name in names]
    for task in own:
        # Some file systems do not distinguish STS.json from sts.json.
        if sum(task.metadata.name.casefold() == other.metadata.name.casefold() for other in own) > 1:
            raise ConfigError(f"-t names {task.metadata.name} twice, but both results would have the same file name")
        # NAME=PATH also replaces the task in a benchmark.
        tasks = {key: known for key, known in tasks.items() if key[0] != task.metadata.name} | {_key(task): task}
    if not tasks:
        raise ConfigError("no task: give -t TASK or -b BENCHMARK; `stella-mteb tasks` lists the bundled tasks")
    for task in tasks.values():
        if media := set(task.metadata.modalities) - {"text"}:
            raise ConfigError(f"task {task.metadata.name} has {', '.join(sorted(media))}; these models read text only")
        file: TaskFile | None = getattr(task, "stella_mteb_file", None)
        if file is not None and file.is_local:
            _ = file.pairs  # report missing data and bad rows before a model is loaded
    return _by_shared_texts(list(tasks.values()))


def _by_shared_texts(tasks: list[Any]) -> list[Any]:
    """Keep the order, but let tasks that share texts follow the first of them: the store then has their vectors."""
    family, first = families(tasks), dict[object, int]()

    def place(task: Any) -> int:
        file: TaskFile | None = getattr(task, "stella_mteb_file", None)
        local = file.place if file is not None else None
        return first.setdefault(local.resolve() if local else family[task.metadata.name], len(first))

    return sorted(tasks, key=place)


def _cure(name: str) -> str:
    if Path(name).suffix in SUFFIXES:
        return "; a data file needs a task YAML that names its columns: docs/own-data.md"
    if "=" in name:
        return "; NAME=PATH gives data to a bundled task: `stella-mteb tasks` lists them"
    if "," in name:
        return "; repeat -t for each task"
    near = difflib.get_close_matches(name, registry.task_names(), n=1)
    return f"; did you mean {near[0]!r}?" if near else "; `stella-mteb tasks` lists the bundled ones"


def _key(task: Any) -> tuple[str, ...]:
    # Two benchmarks may have the same task with different languages.
    return (task.metadata.name, *(() if task.is_aggregate else task.hf_subsets))


def _find_task(name: str, max_bad_rows: int | None) -> Any:
    bundled = bundled_tasks()
    head, equals, data = name.partition("=")
    if Path(name).suffix in {".yaml", ".yml"}:
        file = load_task_file(Path(name))
        if registry.is_mteb_task(file.spec.name):
            raise ConfigError(f"{name}: MTEB has a task {file.spec.name} of its own; choose another name")
        if file.spec.name in bundled and file.path.resolve() != bundled[file.spec.name].path.resolve():
            raise ConfigError(
                f"{name}: {file.spec.name} is the name of a bundled task; choose another name, or give your data to "
                f"that task with -t {file.spec.name}=FILE"
            )
    elif equals and head in bundled:
        path = Path(data).expanduser()
        if not path.exists():
            raise ConfigError(f"-t {name}: no such file or folder {path}")
        file = replace(bundled[head], data=path)
    elif name in bundled:
        file = bundled[name]
    elif registry.is_mteb_task(name):
        return mteb.get_task(name)
    else:
        raise ConfigError(f"unknown task {name!r}{_cure(name)}")
    task = task_class(replace(file, max_bad_rows=max_bad_rows))
    registry.add_task(task)
    return task()
