"""Sources give rows of systems; specs choose among them.

    found = merge(local_scores(Path("results/sts")), published())
    scores = select(found.scores, ["all_minilm_l6_v2", "NovaSearch/stella_en_1.5B_v5"])
    notes = found.notes_on(scores)

What cannot be read is a gap with its reason, never a score and never silent.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stella_mteb.compare.naming import Meaning, labels
from stella_mteb.compare.records import Score, Scores, System
from stella_mteb.errors import ConfigError

_SHOWN_LABELS = 10


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
        of_rows = [
            f"{row.system.label}: {note}"
            for row in rows
            for note in (*row.remarks, *(f"{task}: {gap}" for task, gap in row.gaps.items()))
        ]
        return (*of_rows, *self.notes)


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
    return Found(labelled(rows), tuple(note for source in found for note in source.notes))


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


def labelled(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same rows, no two called the same."""
    names = labels([row.system for row in rows])
    return tuple(replace(row, system=replace(row.system, label=name)) for row, name in zip(rows, names, strict=True))


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
