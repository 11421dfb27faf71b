"""Checks results against the rules of MTEB's public results repository, file by file.

The rules are from the repository's tests (path, names, size, unchanged scores) and its pull-request checklist, as of
August 2026 at commit f4cc6c8. Nothing is sent anywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mteb
from mteb.results import TaskResult

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_json_object
from stella_mteb.harness.registry import is_mteb_task
from stella_mteb.models.identity import is_ours
from stella_mteb.outputs.layout import model_folder, results_folder
from stella_mteb.outputs.result_file import entries_by_split, main_score, read_result

MAX_BYTES = 10_485_760
MAX_CHANGE = 0.001
_NOT_RESULTS = {"model_meta.json"}


@dataclass(frozen=True)
class Finding:
    """The check of one rule against one file or one model folder.

    Attributes:
        path: Relative to the folder that was checked.
        rule: The rule.
        status: `met`, `not met`, or `not checked`.
        detail: What was found and how to fix it.
    """

    path: str
    rule: str
    status: Literal["met", "not met", "not checked"]
    detail: str


def check(folder: Path, against: Path | None = None) -> Iterator[Finding]:
    """Check every result of a folder against the rules.

    Args:
        folder: An output folder of `run`, or its `results/`.
        against: A checkout of the public results repository, for the rules about published results.

    Raises:
        ConfigError: If there are no results.
    """
    root = results_folder(folder)
    # A model's description is always next to its results.
    models = sorted({path.parent for path in root.rglob("*.json")}) if root.is_dir() else []
    if not models:
        raise ConfigError(f"{root}: no results (<model>/<revision>/<Task>.json); give an output of `stella-mteb run`")
    for model in models:
        yield from _model(root, model)
        for path in sorted(model.glob("*.json")):
            if path.name not in _NOT_RESULTS:
                yield from _result(root, path, against)


def _model(root: Path, folder: Path) -> Iterator[Finding]:
    where = folder.relative_to(root)
    try:
        meta = read_json_object(folder / "model_meta.json")
    except ConfigError as error:
        yield Finding(str(where), "the model is described", "not met", str(error))
        return
    name = str(meta.get("name", ""))
    named = [model_folder(name), str(meta.get("revision"))]
    parts = list(where.parts)
    good = parts[:2] == named and (len(parts) == 2 or (len(parts) == 4 and parts[2] == "experiments"))
    yield _finding(where, "path is <organisation>__<name>/<revision>", good, f"model_meta.json says {'/'.join(named)}")
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # raised for a former name
            known = f"{mteb.get_model_meta(name).name} is in its list"
    except KeyError:
        known = ""
    yield _finding(where, "MTEB knows the model", bool(known), known or f"{name or 'no name'} is not in its list")
    experiment: Mapping[str, Any] = meta.get("experiment_kwargs") or {}
    ours = is_ours(experiment)
    yield _finding(
        where,
        "made with the reference implementation",
        not ours,
        "run by stella-mteb, which is not MTEB's implementation; propose it to MTEB first (docs/upstream.md)"
        if ours
        else "no sign of another implementation",
    )


def _result(root: Path, path: Path, against: Path | None) -> Iterator[Finding]:
    where = path.relative_to(root)
    size = path.stat().st_size
    yield _finding(where, f"at most {MAX_BYTES:,} bytes", size <= MAX_BYTES, f"{size:,} bytes")
    try:
        result = read_result(path)
        scores = _main_scores(result)
    except ConfigError as error:
        yield Finding(str(where), "the result can be read", "not met", str(error))
        return
    try:
        loaded = TaskResult.from_disk(path)
    except (ValueError, KeyError) as error:
        yield Finding(str(where), "MTEB can load the result", "not met", str(error).replace("\n", " "))
        return
    task = str(result.get("task_name"))
    yield _finding(where, "the file is named after its task", path.stem == task, f"task_name is {task}")
    yield _one_revision(root, where, against)
    wrong = [place for place, score in scores.items() if score is None]
    detail = f"no finite main score in {', '.join(map('/'.join, wrong))}" if wrong else f"{len(scores)} main scores"
    yield _finding(where, "every main score is a number", bool(scores) and not wrong, detail)
    beyond = [f"{'/'.join(place)} is {score:g}" for place, score in scores.items() if score and not -1 <= score <= 1]
    yield _finding(where, "every main score is from -1 to 1", not beyond, "; ".join(beyond) or "all are")
    known = is_mteb_task(task)
    detail = f"MTEB has {task}" if known else f"{task} is your own task; publish it in MTEB first"
    yield _finding(where, "MTEB knows the task", known, detail)
    if known:
        yield _fits_task(where, loaded)
    yield _unchanged(where, scores, against)


def _one_revision(root: Path, where: Path, against: Path | None) -> Finding:
    model, revision, *rest = where.parts
    models = [base / model for base in (root, results_folder(against or root))]
    revisions = {
        one.name for base in models if base.is_dir() for one in base.iterdir() if one.joinpath(*rest).is_file()
    }
    others = sorted(revisions - {revision})
    detail = f"also at {', '.join(others)}; keep the file of one revision" if others else f"only at {revision}"
    return _finding(where, "a task has results of one revision of the model", not others, detail)


def _fits_task(where: Path, loaded: TaskResult) -> Finding:
    task = loaded.task
    subsets = {"default"} if task.is_aggregate else set(task.metadata.hf_subsets)
    languages = {} if task.is_aggregate else task.metadata.hf_subsets_to_langscripts
    scored = task.metadata.eval_splits  # one of them is enough for the repository
    faults = [] if set(scored) & set(loaded.scores) else [f"none of the splits {', '.join(scored)} is present"]
    for split, entries in loaded.scores.items():
        for entry in entries:
            subset, stated = entry["hf_subset"], set(entry["languages"])
            if subset not in subsets:
                faults.append(f"{split} has a subset {subset}, which the task does not have")
            elif stated != set(languages.get(subset, stated)):
                faults.append(f"{split}/{subset} states the languages {', '.join(sorted(stated)) or 'none'}")
    return _finding(where, "splits, subsets and languages are the task's", not faults, "; ".join(faults) or "they are")


def _unchanged(where: Path, scores: Mapping[tuple[str, str], float | None], against: Path | None) -> Finding:
    rule = f"published scores change by {MAX_CHANGE} at most, and none is removed"
    if against is None:
        return Finding(str(where), rule, "not checked", "give a checkout of the results repository with --against")
    path = results_folder(against) / where
    if not path.is_file():
        return _finding(where, rule, True, "not published yet")
    before = _main_scores(read_result(path))
    removed = [place for place in before if place not in scores]
    changed = [
        place
        for place, old in before.items()
        if old is not None and (new := scores.get(place)) is not None and abs(new - old) > MAX_CHANGE
    ]
    faults = [f"{'/'.join(place)} is missing" for place in removed]
    faults += [f"{'/'.join(place)} was {before[place]:.5f}, is {scores[place]:.5f}" for place in changed]
    return _finding(where, rule, not faults, "; ".join(faults) or f"{len(before)} main scores as published")


def _main_scores(result: Mapping[str, Any]) -> dict[tuple[str, str], float | None]:
    """Return the main score of each split and subset, or None where it is not a finite number."""
    found: dict[tuple[str, str], float | None] = {}
    for split, entries in entries_by_split(result).items():
        for subset, entry in entries.items():
            try:
                found[split, subset] = main_score(entry)
            except ConfigError:
                found[split, subset] = None
    return found


def _finding(where: Path, rule: str, good: bool, detail: str) -> Finding:
    return Finding(str(where), rule, "met" if good else "not met", detail)
