"""The scores of a folder in MTEB's layout: one system for each model, revision and experiment. Needs no mteb."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from stella_mteb.compare.naming import Meaning
from stella_mteb.compare.published import published_table, remarks_on, task_facts
from stella_mteb.compare.records import Score, System
from stella_mteb.compare.score_file import TaskFacts, read_score
from stella_mteb.compare.sources import Found, Row, labelled
from stella_mteb.errors import ConfigError
from stella_mteb.models.identity import is_ours
from stella_mteb.outputs.items import task_type
from stella_mteb.outputs.layout import details_path, model_folder, results_folder
from stella_mteb.outputs.old_result import current_name
from stella_mteb.outputs.result_file import read_result

Facts = Callable[[str], TaskFacts]
"""From the name of a task to what is known of it."""
Subsets = Literal["all", "eng"]
"""`all` that a file has; `eng`: of the tasks of MTEB(eng, v1) only the subset that this benchmark scores."""

_EXTERNAL = "external"  # MTEB's revision folder of what authors report of themselves


def local_scores(
    folder: Path, *, models: Sequence[str] | None = None, subsets: Subsets = "all", facts: Facts = task_facts
) -> Found:
    """The scores of a folder in MTEB's layout.

    Args:
        folder: An output folder (`<folder>/results/...`), a results folder itself, or a clone of MTEB's public results.
        models: Specs; only results of these models are read. None for all.
        subsets: `eng` to score the tasks of MTEB(eng, v1) on the subset that this benchmark scores.
        facts: What is known of tasks; by default only of those of MTEB(eng, v1).

    Raises:
        ConfigError: If there is no such folder, or it holds nothing of that layout.
    """
    return read_folder(folder, models, origin=str(folder), subsets=subsets, facts=facts)


def read_folder(
    folder: Path,
    models: Sequence[str] | None,
    *,
    origin: str,
    subsets: Subsets = "all",
    facts: Facts = task_facts,
    of_others: bool = False,
) -> Found:
    """As `local_scores`, of results that may all be of others.

    Args:
        folder: See `local_scores`, as for all but the following.
        models: Specs, or None for all.
        origin: How the folder is called in what people see.
        subsets: `all` or `eng`.
        facts: What is known of tasks.
        of_others: Nothing in it was measured here.
    """
    root = results_folder(folder)
    if not root.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    present = {path.name: path for path in _subfolders(root) if "__" in path.name}
    if not present:
        layout = "results/<organisation>__<name>/<revision>/<Task>.json"
        raise ConfigError(f"{folder}: holds no results in MTEB's layout, {layout}")
    chosen, notes = set(present), []
    if models is not None:
        specs = {name: name.partition(" (")[0] for name in models}  # a label has its details after the spec
        wanted = {name: set(map(model_folder, Meaning.of(spec).models)) for name, spec in specs.items()}
        chosen &= set().union(*wanted.values())
        for name, names in wanted.items():
            if not names & chosen:
                near = difflib.get_close_matches(min(names), present, n=3)
                hint = f"; the nearest are {', '.join(map(_model_of, near))}" if near else ""
                notes.append(f"{origin}: no results of {name}{hint}")
    subset_of = {line["task"]: line["subset"] for line in published_table()} if subsets == "eng" else {}
    rows = [
        _row(path, root, origin, facts, subset_of, of_others=of_others)
        for name, model in present.items()
        if name in chosen
        for revision in _subfolders(model)
        for path in (revision, *_subfolders(revision / "experiments"))
        if _result_files(path)
    ]
    return Found(labelled(rows), tuple(notes))


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _result_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.name != "model_meta.json")


def _model_of(folder_name: str) -> str:
    return folder_name.replace("__", "/", 1)


def _row(folder: Path, root: Path, origin: str, facts: Facts, subset_of: Mapping[str, str], *, of_others: bool) -> Row:
    system, faults = _system(folder, root, origin, of_others=of_others)
    scores: dict[str, Score] = {}
    gaps: dict[str, str] = {}
    undecided: list[str] = []
    for path in _result_files(folder):
        task = current_name(path.stem)
        known = facts(task)
        if known == TaskFacts() and (details := details_path(path)):
            # Of a task that nobody knows any more, as the run noted it.
            known = TaskFacts(task_type(details) or known.type)
        try:
            score, others = read_score(path, known, subset_of.get(task))
        except ConfigError as error:
            gaps[task] = str(error)
            continue
        scores[task] = replace(score, source=(path.relative_to(root) if of_others else path).as_posix())
        if others:
            undecided.append(f"{task} ({', '.join(others)})")
    remarks = [*remarks_on(system), *faults]
    if undecided:
        remarks.append(f"the split test is shown; there are others of {', '.join(undecided)}")
    return Row(system, scores, gaps, tuple(remarks))


def _system(folder: Path, root: Path, origin: str, *, of_others: bool) -> tuple[System, list[str]]:
    """The system of a folder of result files, and what is wrong with its description."""
    place = folder.relative_to(root).parts  # model, revision[, "experiments", experiment]
    experiment = place[3] if len(place) > 2 else ""
    faults = []
    meta: Mapping[str, Any] = {}
    if experiment or (folder / "model_meta.json").exists():
        try:
            meta = read_result(folder / "model_meta.json")
        except ConfigError as error:
            faults.append(f"settings are not known: {'/'.join(place)}/model_meta.json: {error}")
    stated = meta.get("experiment_kwargs")
    settings: dict[str, Any] = {"experiment": experiment} if experiment else {}
    if isinstance(stated, dict) and stated:
        plain = bool | int | float | None
        settings = {key: value if isinstance(value, plain) else str(value) for key, value in stated.items()}
    name = meta.get("name")
    system = System(
        label="",
        model=name if isinstance(name, str) and model_folder(name) == place[0] else _model_of(place[0]),
        provenance="self-reported"
        if place[1] == _EXTERNAL
        else "measured here"
        if is_ours(settings) and not of_others
        else "measured by others",
        origin=origin,
        revision=None if place[1] in {_EXTERNAL, "no_revision_available"} else place[1],
        settings=settings,
    )
    return system, faults
