"""Read scores from a folder in MTEB's layout, without mteb: one system per model, revision and experiment."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from stella_mteb.compare.alike import with_aggregates
from stella_mteb.compare.naming import Meaning
from stella_mteb.compare.published import remarks_on, task_facts
from stella_mteb.compare.records import Score, System
from stella_mteb.compare.score_file import TaskFacts, read_score
from stella_mteb.compare.selection import EVERYTHING, Selection
from stella_mteb.compare.sources import Found, Row, labelled, no_results
from stella_mteb.errors import ConfigError
from stella_mteb.files.tables import listed
from stella_mteb.models.identity import is_ours
from stella_mteb.outputs.items import task_type
from stella_mteb.outputs.layout import details_path, model_folder, results_folder
from stella_mteb.outputs.old_result import current_name, is_old
from stella_mteb.outputs.result_file import read_result

Facts = Callable[[str], TaskFacts]
"""Function from the name of a task to its facts."""

_LAYOUT = "results/<organisation>__<name>/<revision>/<Task>.json"
_CURE = "give --results the --output folder of stella-mteb run, or a clone of MTEB's public results"
_EXTERNAL = "external"  # MTEB's revision folder for self-reported scores
_UNKNOWN = {_EXTERNAL, "no_revision_available"}


def local_scores(
    folder: Path,
    *,
    models: Sequence[str] | None = None,
    selection: Selection = EVERYTHING,
    facts: Facts = task_facts,
) -> Found:
    """Read the scores of a folder in MTEB's layout.

    Args:
        folder: An output folder (`<folder>/results/...`), a results folder itself, or a clone of MTEB's public results.
        models: Specs; only results of these models are read. None for all.
        selection: The tasks to read, and the splits and subsets to keep.
        facts: Function that returns the facts of a task; by default it knows the tasks of MTEB(eng, v1).

    Raises:
        ConfigError: If the folder does not exist, or holds no results in this layout.
    """
    return read_folder(folder, models, origin=str(folder), selection=selection, facts=facts)


def read_folder(
    folder: Path,
    models: Sequence[str] | None,
    *,
    origin: str,
    selection: Selection = EVERYTHING,
    facts: Facts = task_facts,
    of_others: bool = False,
) -> Found:
    """Read a folder like `local_scores`, with a name for display and a choice of provenance.

    Args:
        folder: As for `local_scores`.
        models: As for `local_scores`.
        origin: Name of the folder in reports.
        selection: As for `local_scores`.
        facts: As for `local_scores`.
        of_others: Whether all results were measured by others.

    Raises:
        ConfigError: As for `local_scores`.
    """
    root = results_folder(folder)
    if not root.is_dir():
        raise ConfigError(f"{folder}: no such folder; {_CURE}")
    present = {path.name: path for path in _subfolders(root)}
    chosen, notes = set(present), []
    if models is not None:
        wanted = {name: folders_of(name) for name in models}
        chosen &= set().union(*wanted.values())
        for name, names in wanted.items():
            if not names & chosen:
                near = difflib.get_close_matches(max(names, key=len), present, n=3)
                hint = f"; the nearest are {', '.join(map(_model_of, near))}" if near else ""
                notes.append(f"{origin}: {no_results(name)}{hint}")
    places, stray = _places(root, [present[name] for name in sorted(chosen)])
    if stray:
        notes.append(f"{origin}: ignored {listed(stray)}, because a result is at {_LAYOUT}")
    if not places and models is None:
        raise ConfigError("\n".join([f"{folder}: holds no results in MTEB's layout, {_LAYOUT}; {_CURE}", *notes]))
    rows = [_row(place, root, origin, facts, selection, of_others=of_others) for place in places]
    return Found(labelled(rows), tuple(notes))


class _Place(NamedTuple):
    """A folder of result files, with the model, revision and experiment from its path."""

    folder: Path
    files: list[Path]
    model: str
    revision: str | None = None
    experiment: str = ""


def _places(root: Path, models: Sequence[Path]) -> tuple[list[_Place], list[str]]:
    """Find the folders of result files of models, and the JSON files under the models or the root that are outside."""
    places = []
    for model in models:
        # Early versions of mteb did not create a folder for the revision.
        if (model / "model_meta.json").is_file() or any(map(_is_result, _result_files(model))):
            places.append(_Place(model, _result_files(model), model.name))
        for revision in _subfolders(model):
            places.append(_Place(revision, _result_files(revision), model.name, revision.name))
            for experiment in _subfolders(revision / "experiments"):
                files = _result_files(experiment)
                places.append(_Place(experiment, files, model.name, revision.name, experiment.name))
    known = {path for place in places for path in place.files}
    stray = [
        path
        for path in [*root.glob("*.json"), *(path for model in models for path in model.rglob("*.json"))]
        if path not in known and path.name != "model_meta.json"
    ]
    return [place for place in places if place.files], [path.relative_to(root).as_posix() for path in sorted(stray)]


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _result_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.name != "model_meta.json")


def _is_result(path: Path) -> bool:
    try:
        content = read_result(path)
    except ConfigError:
        return False
    return "scores" in content or is_old(content)


def folders_of(spec: str) -> set[str]:
    """List the possible names of the results folders of a spec or a label."""
    return _folder_names(Meaning.of(spec.partition(" (")[0]).models)  # a label has its details after the spec


def _folder_names(models: Iterable[str]) -> set[str]:
    """List the possible names of the results folders of models: with and without the organisation."""
    return {name for model in models for name in (model_folder(model), model_folder(model.rpartition("/")[2]))}


def _model_of(folder_name: str) -> str:
    return folder_name.replace("__", "/", 1)


def _row(place: _Place, root: Path, origin: str, facts: Facts, selection: Selection, *, of_others: bool) -> Row:
    system, faults = _system(place, root, origin, of_others=of_others)
    scores: dict[str, Score] = {}
    gaps: dict[str, str] = {}
    undecided: list[str] = []
    for path in place.files:
        task = current_name(path.stem)
        known = facts(task)
        if known == TaskFacts() and (details := details_path(path)):
            # For an unknown task, use the type that the run stored.
            known = TaskFacts(task_type(details) or known.type)
        if not selection.reads(task, known.type):
            continue
        try:
            score, others = read_score(path, known, selection)
        except ConfigError as error:
            gaps[task] = str(error)
            continue
        if score is None:
            continue
        scores[task] = replace(score, source=(path.relative_to(root) if of_others else path).as_posix())
        if others:
            undecided.append(f"{task} ({', '.join(others)})")
    remarks = [*remarks_on(system), *faults]
    if undecided:
        remarks.append(f"the scores are on the split test; other splits exist for {', '.join(undecided)}")
    taken = {task: score for task, score in with_aggregates(scores).items() if selection.takes(task, score.type)}
    return Row(system, taken, gaps, tuple(remarks))


def _system(place: _Place, root: Path, origin: str, *, of_others: bool) -> tuple[System, list[str]]:
    """Read the system of a folder of result files, and the faults in its model_meta.json."""
    description = place.folder / "model_meta.json"
    faults = []
    meta: Mapping[str, Any] = {}
    if place.experiment or description.exists():
        try:
            meta = read_result(description)
        except ConfigError as error:
            faults.append(f"settings are unknown: {description.relative_to(root).as_posix()}: {error}")
    stated = meta.get("experiment_kwargs")
    settings: dict[str, Any] = {"experiment": place.experiment} if place.experiment else {}
    if isinstance(stated, dict) and stated:
        plain = bool | int | float | None
        settings = {key: value if isinstance(value, plain) else str(value) for key, value in stated.items()}
    model, name = _model_of(place.model), meta.get("name")
    if isinstance(name, str) and (place.revision is None or place.model in _folder_names([name])):
        model = name
    elif isinstance(name, str):
        faults.append(f"model_meta.json states another model, {name}")
    revision = place.revision or meta.get("revision")
    system = System(
        label="",
        model=model,
        provenance="self-reported"
        if revision == _EXTERNAL
        else "measured here"
        if is_ours(settings) and not of_others
        else "measured by others",
        origin=origin,
        revision=revision if isinstance(revision, str) and revision not in _UNKNOWN else None,
        settings=settings,
    )
    return system, faults
