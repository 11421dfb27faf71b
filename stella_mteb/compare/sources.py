"""Scores from where they stand: result folders, the published tables that ship with the package, MTEB's public results.

    found = merge(local_scores(Path("results/sts")), published())
    scores = select(found.scores, ["all_minilm_l6_v2", "NovaSearch/stella_en_1.5B_v5"])
    notes = found.notes_on(scores)

A folder of MTEB's layout gives one system for each model, revision and experiment. What cannot be read is a gap with
its reason, never a score and never silent. Needs no mteb, except for `remote_scores` and for tasks that it alone knows.
"""

from __future__ import annotations

import csv
import difflib
import functools
import importlib.resources
import io
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stella_mteb.compare.naming import Meaning, labels
from stella_mteb.compare.records import Provenance, Score, Scores, System
from stella_mteb.compare.score_file import TaskBook, TaskFacts, read_score
from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import read_text
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.strict_yaml import COMMIT, read_yaml
from stella_mteb.files.tables import clean
from stella_mteb.models.identity import is_ours
from stella_mteb.outputs.items import task_type
from stella_mteb.outputs.layout import details_path, model_folder, results_folder
from stella_mteb.outputs.result_file import read_result

Subsets = Literal["all", "eng"]
"""`all` that a file has; `eng`: of the tasks of MTEB(eng, v1) only the subset that this benchmark scores."""

PUBLIC_RESULTS = "https://github.com/embeddings-benchmark/results"

_EXTERNAL = "external"  # MTEB's revision folder of what authors report of themselves
_SHOWN_LABELS = 10
_CLONE_REVISION = (2, 49)  # the git that brought `git clone --revision`


@dataclass(frozen=True)
class Row:
    """What one source has of one system.

    Attributes:
        system: The system.
        scores: By task.
        gaps: Why a task that has a file has no score, by task.
        remarks: What else a reader must know.
    """

    system: System
    scores: Mapping[str, Score] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What sources have.

    Attributes:
        rows: One for each system; no two have the same label.
        notes: What belongs to no system.
    """

    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> Scores:
        """All scores. A system of which nothing could be read is there too, with none."""
        return {row.system: row.scores for row in self.rows}

    @property
    def gaps(self) -> Mapping[System, Mapping[str, str]]:
        """Why a task that has a file has no score, by system and task."""
        return {row.system: row.gaps for row in self.rows}

    def notes_on(self, systems: Iterable[System]) -> tuple[str, ...]:
        """Everything a reader must know of these systems, and what belongs to none."""
        wanted = set(systems)
        rows = [row for row in self.rows if row.system in wanted]
        return (*(f"{row.system.label}: {note}" for row in rows for note in _notes(row)), *self.notes)


def _notes(row: Row) -> Iterator[str]:
    yield from _known_remarks(row.system)
    yield from row.remarks
    yield from (f"{task}: {gap}" for task, gap in row.gaps.items())


def merge(*found: Found) -> Found:
    """The rows of several sources, labelled anew so that no two are called the same.

    A system whose results stand in several folders, each task once, is one row: so are the tasks of two runs compared
    together. Where folders have different scores of one task, each keeps its row.
    """
    rows: list[Row] = []
    for row in (row for source in found for row in source.rows):
        at = next((i for i, other in enumerate(rows) if _is_one_system(other, row)), None)
        if at is None:
            rows.append(row)
        elif row != rows[at]:
            rows[at] = _joined(rows[at], row)
    return Found(_labelled(rows), tuple(note for source in found for note in source.notes))


def _is_one_system(one: Row, other: Row) -> bool:
    if replace(one.system, label="", origin="") != replace(other.system, label="", origin=""):
        return False
    if one.system.settings != other.system.settings or one.system.provenance != "measured here":
        return one == other
    twice = one.scores.keys() & other.scores.keys()
    return all(replace(one.scores[task], source="") == replace(other.scores[task], source="") for task in twice)


def _joined(one: Row, other: Row) -> Row:
    origins = dict.fromkeys([*one.system.origin.split("; "), other.system.origin])
    return Row(
        replace(one.system, origin="; ".join(origins)),
        {**other.scores, **one.scores},
        {task: gap for task, gap in {**other.gaps, **one.gaps}.items() if task not in {**one.scores, **other.scores}},
        tuple(dict.fromkeys([*one.remarks, *other.remarks])),
    )


def _labelled(rows: Sequence[Row]) -> tuple[Row, ...]:
    names = labels([row.system for row in rows])
    return tuple(replace(row, system=replace(row.system, label=name)) for row, name in zip(rows, names, strict=True))


# ---------------------------------------------------------------------------------------------- published scores


def published() -> Found:
    """The scores on MTEB(eng, v1) that the authors of Stella and BGE-en-ICL published; they ship with the package."""
    scores: dict[str, dict[str, Score]] = {}
    for line in _published_table():
        scores.setdefault(line["model"], {})[line["task"]] = Score(
            task=line["task"],
            type=line["type"],
            value=float(line["main_score"]),
            split=line["split"],
            subsets=(line["subset"],),
            languages=(line["language"],),
            source=line["source"],
        )
    origin = "published scores that ship with stella-mteb"
    return Found(_labelled([Row(System("", model, "self-reported", origin), each) for model, each in scores.items()]))


def published_scores() -> Scores:
    """The scores of `published`."""
    return published().scores


def _published_file(name: str) -> Path:
    return Path(str(importlib.resources.files("stella_mteb.compare"))) / "published" / name


@functools.cache
def _published_table() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_text(_published_file("mteb_eng_v1.csv")))))


@functools.cache
def _remarks() -> list[dict[str, str]]:
    entries: list[dict[str, str]] = read_yaml(_published_file("remarks.yaml"))[0]["remarks"]
    return entries


def _known_remarks(system: System) -> list[str]:
    return [
        f"{entry['text']} ({entry['source']})"
        for entry in _remarks()
        if (entry["model"], entry["provenance"]) == (system.model, system.provenance)
        and entry.get("revision", system.revision) == system.revision
    ]


# ------------------------------------------------------------------------------------------------ result folders


def local_scores(folder: Path, *, models: Sequence[str] | None = None, subsets: Subsets = "all") -> Found:
    """The scores of a folder in MTEB's layout.

    Args:
        folder: An output folder (`<folder>/results/...`), a results folder itself, or a clone of MTEB's public results.
        models: Specs; only results of these models are read. None for all.
        subsets: `eng` to score the tasks of MTEB(eng, v1) on the subset that this benchmark scores.

    Raises:
        ConfigError: If there is no such folder, or it holds nothing of that layout.
    """
    return _Folder(folder, str(folder), subsets).read(models)


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _result_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.name != "model_meta.json")


class _Folder:
    def __init__(self, folder: Path, origin: str, subsets: Subsets, *, of_others: bool = False) -> None:
        self.root = results_folder(folder)
        if not self.root.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        self.models = [path for path in _subfolders(self.root) if "__" in path.name]
        if not self.models:
            layout = "results/<organisation>__<name>/<revision>/<Task>.json"
            raise ConfigError(f"{folder}: holds no results in MTEB's layout, {layout}")
        self.origin = clean(origin)
        self.of_others = of_others
        lines = _published_table()
        self.tasks = TaskBook({line["task"]: TaskFacts(line["type"], (line["split"],)) for line in lines}, folder)
        self.subset_of = {line["task"]: line["subset"] for line in lines} if subsets == "eng" else {}

    def read(self, models: Sequence[str] | None) -> Found:
        chosen, notes = self.models, []
        if models is not None:
            specs = {name: name.partition(" (")[0] for name in models}  # a label has its details after the spec
            wanted = {name: set(map(model_folder, Meaning.of(spec).models)) for name, spec in specs.items()}
            chosen = [path for path in chosen if any(path.name in names for names in wanted.values())]
            present = [path.name for path in self.models]
            for name, names in wanted.items():
                if not names.intersection(present):
                    near = difflib.get_close_matches(min(names), present, n=3)
                    hint = f"; the nearest are {', '.join(map(_model_of, near))}" if near else ""
                    notes.append(f"{self.origin}: no results of {clean(name)}{hint}")
        rows = [
            self.read_system(path)
            for model in chosen
            for revision in _subfolders(model)
            for path in (revision, *_subfolders(revision / "experiments"))
            if _result_files(path)
        ]
        return Found(_labelled(rows), tuple(notes))

    def read_system(self, folder: Path) -> Row:
        system, remarks = self.describe(folder)
        scores: dict[str, Score] = {}
        gaps: dict[str, str] = {}
        undecided: list[str] = []
        for path in _result_files(folder):
            task = clean(path.stem)
            try:
                score, others = read_score(path, self.tasks[path.stem], self.subset_of.get(path.stem))
            except ConfigError as error:
                gaps[task] = str(error)
                continue
            place = path.relative_to(self.root) if self.of_others else path
            scores[task] = replace(score, source=clean(place.as_posix()), type=_type_of(score, path))
            if others:
                undecided.append(f"{task} ({clean(', '.join(others))})")
        if undecided:
            remarks.append(f"the split test is shown; there are others of {', '.join(undecided)}")
        return Row(system, scores, gaps, tuple(remarks))

    def describe(self, folder: Path) -> tuple[System, list[str]]:
        """The system of a folder of result files, and what is wrong with its description."""
        place = folder.relative_to(self.root).parts  # model, revision[, "experiments", experiment]
        experiment = place[3] if len(place) > 2 else ""
        remarks = []
        meta: Mapping[str, Any] = {}
        if experiment or (folder / "model_meta.json").exists():
            try:
                meta = read_result(folder / "model_meta.json")
            except ConfigError as error:
                remarks.append(f"settings are not known: {clean('/'.join(place))}/model_meta.json: {clean(error)}")
        stated = meta.get("experiment_kwargs")
        settings = {clean(key): _setting(value) for key, value in stated.items()} if isinstance(stated, dict) else {}
        if experiment and not settings:
            settings = {"experiment": clean(experiment)}
        name = meta.get("name")
        system = System(
            label="",
            model=clean(name if isinstance(name, str) and model_folder(name) == place[0] else _model_of(place[0])),
            provenance=self.provenance(place[1], settings),
            origin=self.origin,
            revision=None if place[1] in {_EXTERNAL, "no_revision_available"} else clean(place[1]),
            settings=settings,
        )
        return system, remarks

    def provenance(self, revision: str, settings: Mapping[str, Any]) -> Provenance:
        if revision == _EXTERNAL:
            return "self-reported"
        ours = is_ours(settings)
        return "measured here" if ours and not self.of_others else "measured by others"


def _type_of(score: Score, path: Path) -> str:
    """Of a task that nobody knows any more, as the run noted it."""
    details = details_path(path) if score.type == TaskFacts().type else None
    return (clean(task_type(details) or "") if details else "") or score.type


def _model_of(folder_name: str) -> str:
    return folder_name.replace("__", "/", 1)


def _setting(value: object) -> object:
    return value if isinstance(value, bool | int | float) or value is None else clean(value)


# ------------------------------------------------------------------------------------------ MTEB's public results


def remote_scores(
    models: Sequence[str],
    cache: Path | None = None,
    *,
    revision: str,
    remote: str = PUBLIC_RESULTS,
    subsets: Subsets = "all",
) -> Found:
    """The scores of models in MTEB's public results at one commit.

    The first call clones the whole repository. While the commit stays the same, later calls ask no network.

    Args:
        models: Specs; only results of these models are read.
        cache: Folder of the clone, as `mteb.ResultCache` takes it; None for one of our own.
        revision: The full commit. It has no default: the results change, and a comparison must say of when they are.
        remote: Where the repository is.
        subsets: See `local_scores`.

    Raises:
        ConfigError: If the revision is no full commit.
        EnvironmentProblem: If the repository is not to be had.
    """
    if not re.fullmatch(COMMIT, revision):
        raise ConfigError(
            f"revision {revision!r} of the public results must be a full commit of 40 hexadecimal digits; "
            f"`git ls-remote {_shown(remote)} HEAD` prints the newest"
        )
    clone = _clone(cache or cache_folder() / "public-results", remote, revision)
    return _Folder(clone, f"{_shown(remote)}@{revision}", subsets, of_others=True).read(models)


def _clone(cache: Path, remote: str, revision: str) -> Path:
    where = _shown(remote)
    cure = (
        f"check the network, or clone {where} on a machine that has one, check out {revision} there, "
        "and give that folder as a results folder"
    )
    try:
        from mteb import ResultCache  # noqa: PLC0415 -- seconds

        results = ResultCache(cache)
        folder: Path = results.remote_repo_path
        if not results.has_remote:
            # MTEB pins a fresh clone with `git clone --revision`. An older git gets the newest commit first.
            results.download_from_remote(remote, revision=revision if _git_version() >= _CLONE_REVISION else None)
        if (other := _git(folder, "config", "--get", "remote.origin.url")) != remote:
            raise EnvironmentProblem(f"{folder} is a clone of {_shown(other)}; remove it, or give another cache")
        if _git(folder, "rev-parse", "HEAD") != revision:
            _git(folder, "fetch", "--quiet", "--depth", "1", "origin", revision)
            _git(folder, "checkout", "--quiet", "--force", "--detach", revision)
    except FileNotFoundError as error:
        raise EnvironmentProblem(f"git is needed for {where} and is not installed; {cure}") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines()
        why = f": {clean(_shown(lines[-1]))}" if lines else ""
        raise EnvironmentProblem(f"{where} at {revision} could not be fetched{why}; {cure}") from error
    except OSError as error:
        raise EnvironmentProblem(f"{cache}: {error.strerror or error}") from error
    return folder


def _shown(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)  # a token in an address must not get into a report


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def _git_version() -> tuple[int, ...]:
    printed = subprocess.run(["git", "--version"], check=True, capture_output=True, text=True).stdout  # noqa: S607
    return tuple(int(number) for number in re.findall(r"\d+", printed)[:2])


# ----------------------------------------------------------------------------------------------------- selection


def select(scores: Scores, names: Sequence[str], *, searched: Sequence[str] = ()) -> Scores:
    """The systems that specs mean, in their order.

    A label means its system. A bare name (of a config, or of the hub) means every row of that model, whoever measured
    it. A spec with settings means the rows with exactly these: what it does not name is as the model's config has it.

    Args:
        scores: From which to choose.
        names: Specs or labels.
        searched: Where the scores are from, for the message; by default the origins of the systems.

    Raises:
        ConfigError: If one of them matches nothing; the text gives what comes nearest, and where it was looked for.
    """
    chosen: dict[System, Mapping[str, Score]] = {}
    for name in names:
        matching = _matching(name, scores)
        if not matching:
            raise ConfigError(_nothing_of(name, scores, searched))
        chosen |= {system: scores[system] for system in matching}
    return chosen


def _matching(name: str, scores: Scores) -> list[System]:
    labelled = [system for system in scores if system.label == name]
    try:
        meaning = Meaning.of(name)
    except ConfigError:
        if not labelled:
            raise
        return labelled
    return [system for system in scores if meaning.fits(system)] or labelled


def _nothing_of(name: str, scores: Scores, searched: Sequence[str]) -> str:
    models = Meaning.of(name).models
    names = [system.label for system in scores]
    called = {text.casefold(): system.label for system in scores for text in (system.model, system.label)}
    near = difflib.get_close_matches(name.casefold(), called, n=3, cutoff=0.5)
    if of_model := [system.label for system in scores if system.model in models]:
        hint = f"of this model there are {'; '.join(of_model)}"
    elif near:
        hint = f"the nearest are {'; '.join(dict.fromkeys(called[text] for text in near))}"
    else:
        hint = f"there are {'; '.join(names[:_SHOWN_LABELS])}" if names else "there are no results at all"
    places = ", ".join(searched or dict.fromkeys(system.origin for system in scores)) or "nothing"
    return f"no results of {name!r}; {hint}. Searched: {places}"
