"""Rows of scores from several sources, and their selection by specs.

    found = merge(local_scores(Path("results/sts")), published())
    scores = select(found.scores, ["all_minilm_l6_v2", "NovaSearch/stella_en_1.5B_v5"])
    notes = found.notes_on(scores)

An unreadable score becomes a gap with its reason; it is never dropped silently.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stella_mteb.compare.alike import with_aggregates
from stella_mteb.compare.naming import Meaning, labels
from stella_mteb.compare.records import Score, Scores, System
from stella_mteb.errors import ConfigError
from stella_mteb.files.tables import many

_SHOWN_LABELS = 10


@dataclass(frozen=True)
class Row:
    """The scores of one system in one source.

    Attributes:
        system: The system.
        scores: The scores, by task.
        gaps: Reasons why a result file has no score, by task.
        remarks: Further caveats for the reader.
    """

    system: System
    scores: Mapping[str, Score] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The rows found in one or more sources.

    Attributes:
        rows: One row per system, with distinct labels.
        notes: Notes that do not concern a single system.
        commit: The commit of MTEB's public results, if rows come from there.
    """

    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    commit: str | None = None

    @property
    def scores(self) -> Scores:
        """All scores by system. A system without a readable score is included with an empty mapping."""
        return {row.system: row.scores for row in self.rows}

    @property
    def gaps(self) -> Mapping[System, Mapping[str, str]]:
        """Reasons why a result file has no score, by system and task."""
        return {row.system: row.gaps for row in self.rows}

    def notes_on(self, systems: Iterable[System]) -> tuple[str, ...]:
        """Collect the remarks on these systems, and the notes that do not concern a single system."""
        wanted = set(systems)
        remarks = [f"{row.system.label}: {note}" for row in self.rows if row.system in wanted for note in row.remarks]
        return (*remarks, *self.notes)


def merge(*found: Found) -> Found:
    """Combine the rows of several sources, with new distinct labels.

    If results of one system are in several folders and the folders do not disagree on any task, they become one row, so
    the tasks of two runs are compared together. If the folders have different scores for a task, each keeps its row.
    """
    rows: list[Row] = []
    for row in (row for source in found for row in source.rows):
        at = next((i for i, other in enumerate(rows) if _is_one_system(other, row)), None)
        if at is None:
            rows.append(row)
        elif row != rows[at]:
            one = rows[at]
            scores = {**row.scores, **one.scores}
            rows[at] = Row(
                replace(
                    one.system, origin="; ".join(dict.fromkeys([*one.system.origin.split("; "), row.system.origin]))
                ),
                scores,
                {task: gap for task, gap in {**row.gaps, **one.gaps}.items() if task not in scores},
                tuple(dict.fromkeys([*one.remarks, *row.remarks])),
            )
    commit = next((source.commit for source in found if source.commit), None)
    return Found(labelled(rows), tuple(note for source in found for note in source.notes), commit)


def join(found: Found, main_revisions: Mapping[str, str | None]) -> Found:
    """Join the rows of each model and settings, as MTEB's leaderboard joins revisions and self-reported scores.

    Among several scores on a task, the score of the model's main revision is preferred, then one that states its
    version of MTEB, then one that states a model revision, then the one of the newest version. Our own runs are not
    joined.

    Args:
        found: The rows to join.
        main_revisions: The revision in MTEB's registry, by model.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for i, row in enumerate(found.rows):
        alone = f"{i}" if row.system.provenance == "measured here" else ""
        groups.setdefault((row.system.model, alone + repr(sorted(row.system.settings.items()))), []).append(row)
    rows = [
        group[0] if len(group) == 1 else _mixed(group, main_revisions.get(model))
        for (model, _), group in groups.items()
    ]
    return Found(labelled(rows), found.notes, found.commit)


def _mixed(rows: Sequence[Row], main_revision: str | None) -> Row:
    def priority(row: Row, score: Score) -> tuple[bool, bool, bool, list[int]]:
        version = score.mteb_version or ""
        is_main = row.system.revision is not None and row.system.revision == main_revision
        return (
            is_main,
            bool(version),
            row.system.revision is not None,
            [int(part) for part in re.findall(r"\d+", version)],
        )

    taken: dict[str, Row] = {}
    for row in rows:
        for task, score in row.scores.items():
            if task not in taken or priority(row, score) > priority(taken[task], taken[task].scores[task]):
                taken[task] = row
    used = [row for row in rows if any(one is row for one in taken.values())]
    if len(used) < 2:
        return (used or rows)[0]
    scores = {task: row.scores[task] for task, row in taken.items()}
    counts = [(sum(one is row for one in taken.values()), row) for row in used]
    provenances = {row.system.provenance for row in used}
    return Row(
        replace(
            used[0].system,
            provenance=provenances.pop() if len(provenances) == 1 else "mixed",
            origin="; ".join(dict.fromkeys(row.system.origin for row in used)),
            revision=None,
            joined=tuple(f"{many(count, 'score')} {row.system.provenance}, {at(row.system)}" for count, row in counts),
        ),
        with_aggregates(scores),
        {task: gap for row in used for task, gap in row.gaps.items() if task not in scores},
        (
            f"its scores are combined from several rows: {', '.join(f'{count} {_name(row)}' for count, row in counts)}",
            *(f"scores {_name(row)}: {remark}" for row in used for remark in row.remarks),
        ),
    )


def _name(row: Row) -> str:
    revision = row.system.revision
    return row.system.provenance + (f" (revision {revision[:7]})" if revision else "")


def at(system: System) -> str:
    """Name the revision of the model that a system states."""
    return f"revision {system.revision or 'not stated'}"


def _is_one_system(one: Row, other: Row) -> bool:
    if one.system.model != other.system.model:
        return False
    if replace(one.system, label="", origin="") != replace(other.system, label="", origin=""):
        return False
    if one.system.settings != other.system.settings or one.system.provenance != "measured here":
        return one == other
    twice = one.scores.keys() & other.scores.keys()
    return all(replace(one.scores[task], source="") == replace(other.scores[task], source="") for task in twice)


def labelled(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Give the rows distinct labels."""
    names = labels([row.system for row in rows])
    return tuple(replace(row, system=replace(row.system, label=name)) for row, name in zip(rows, names, strict=True))


def select(scores: Scores, names: Sequence[str], *, notes: Sequence[str] = ()) -> Scores:
    """Select the systems that match specs, in the order of the specs.

    A label matches its system. A bare name (of a config, or of the hub) matches every row of that model from every
    source. A spec with settings matches the rows with exactly these settings; those that it does not name have the
    values of the model's config.

    Args:
        scores: The scores to select from.
        names: Specs or labels.
        notes: Notes of the sources, used in the error for a model that they lack.

    Raises:
        ConfigError: If a spec matches nothing; the text lists the nearest names and the places searched.
    """
    chosen: dict[System, Mapping[str, Score]] = {}
    for name in names:
        matching = [system for system in scores if system.label == name]
        try:
            meaning = Meaning.of(name)
        except ConfigError:
            if not matching:
                raise
        else:
            matching = [system for system in scores if meaning.fits(system)] or matching
        if not matching:
            cure = f"add --results DIR, --remote or --published, or make them with stella-mteb run -m {name}"
            raise ConfigError(f"{_nothing_of(name, scores, notes)}; {cure}")
        chosen |= {system: scores[system] for system in matching}
    return chosen


def _nothing_of(name: str, scores: Scores, notes: Sequence[str]) -> str:
    if told := [note for note in notes if no_results(name) in note]:
        return "; ".join(told)
    models = Meaning.of(name).models
    names = [system.label for system in scores]
    called = {text.casefold(): system.label for system in scores for text in (system.model, system.label)}
    near = difflib.get_close_matches(name.casefold(), called, n=3, cutoff=0.5)
    if of_model := [system.label for system in scores if system.model in models]:
        hint = f"the results of this model are {'; '.join(of_model)}"
    elif near:
        hint = f"the nearest are {'; '.join(dict.fromkeys(called[text] for text in near))}"
    else:
        hint = f"found {'; '.join(names[:_SHOWN_LABELS])}" if names else "found no results at all"
    places = ", ".join(dict.fromkeys(system.origin for system in scores)) or "nothing"
    return f"{no_results(name)}; {hint}. Searched: {places}"


def no_results(name: str) -> str:
    """Word the error for a model without results."""
    return f"no results for {name!r}"
