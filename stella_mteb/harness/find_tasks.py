"""Names of tasks and benchmarks ► MTEB tasks, with local data read and checked."""

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
from stella_mteb.harness.register import register
from stella_mteb.harness.task_classes import task_class
from stella_mteb.harness.task_yaml import TaskFile, bundled_tasks, load_task_file


def find_tasks(names: Iterable[str], benchmarks: Iterable[str] = (), max_bad_rows: int | None = None) -> list[Any]:
    """Turn what stands on the command line into MTEB tasks, local data read and checked.

    Args:
        names: A bundled task, `NAME=PATH` for a bundled task on data of one's own, the path of a task's YAML, or
            any task of MTEB.
        benchmarks: Names of MTEB benchmarks, or `stella-video`.
        max_bad_rows: Overrides the tasks' own limit.

    Raises:
        ConfigError: If a name is unknown (with the nearest), a YAML is wrong, or data has too many bad rows.
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
            raise ConfigError(f"no benchmark is called {name!r}; {cure}") from error
        tasks.update({_key(task): task for task in benchmark.tasks})
    own = [_find_task(name, max_bad_rows) for name in names]
    for task in own:
        # Some file systems do not tell STS.json from sts.json.
        if sum(task.metadata.name.casefold() == other.metadata.name.casefold() for other in own) > 1:
            raise ConfigError(f"-t names {task.metadata.name} twice; results of the one would pass for the other's")
        # NAME=PATH stands for the task of a benchmark too.
        tasks = {key: known for key, known in tasks.items() if key[0] != task.metadata.name} | {_key(task): task}
    if not tasks:
        raise ConfigError("no task: give -t TASK or -b BENCHMARK; `stella-mteb tasks` lists what is bundled")
    for task in tasks.values():
        _check(task)
    return list(tasks.values())


def _cure(name: str) -> str:
    if Path(name).suffix in SUFFIXES:
        return "; a data file needs a task's YAML that names its columns: docs/own-data.md"
    if "=" in name:
        return "; NAME=PATH gives data to a bundled task: `stella-mteb tasks` lists them"
    if "," in name:
        return "; repeat -t for each task"
    near = difflib.get_close_matches(name, registry.task_names(), n=1)
    return f"; did you mean {near[0]!r}?" if near else "; `stella-mteb tasks` lists the bundled ones"


def _key(task: Any) -> tuple[str, ...]:
    # Two benchmarks may hold one task with different languages.
    return (task.metadata.name, *(() if task.is_aggregate else task.hf_subsets))


def _check(task: Any) -> None:
    media = set(task.metadata.modalities) - {"text"}
    if media:
        raise ConfigError(f"task {task.metadata.name} has {', '.join(sorted(media))}; these models read text only")
    file: TaskFile | None = getattr(task, "stella_mteb_file", None)
    if file is not None and file.is_local:
        _ = file.pairs  # bad rows, and data that is not given, show now, before any model is loaded


def _find_task(name: str, max_bad_rows: int | None) -> Any:
    bundled = bundled_tasks()
    head, equals, data = name.partition("=")
    if Path(name).suffix in {".yaml", ".yml"}:
        file = load_task_file(Path(name))
        if registry.is_mteb_task(file.spec.name):
            raise ConfigError(f"{name}: MTEB has a task {file.spec.name} of its own; choose another name")
        if file.spec.name in bundled and file.path.resolve() != bundled[file.spec.name].path.resolve():
            raise ConfigError(
                f"{name}: the name {file.spec.name} is that of a bundled task; choose another, or give that task your "
                f"data with -t {file.spec.name}=FILE"
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
        raise ConfigError(f"no task is called {name!r}{_cure(name)}")
    task = task_class(replace(file, max_bad_rows=max_bad_rows))
    registry.add_task(task)
    return task()
