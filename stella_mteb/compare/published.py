"""Published scores that ship with the package, and remarks on results of others."""

from __future__ import annotations

import csv
import functools
import importlib.resources
import io
from pathlib import Path

from stella_mteb.compare.records import Part, Score, System
from stella_mteb.compare.score_file import TaskFacts
from stella_mteb.compare.selection import EVERYTHING, Selection
from stella_mteb.compare.sources import Found, Row, labelled
from stella_mteb.files.atomic import read_text
from stella_mteb.files.strict_yaml import read_yaml

_FOLDER = Path(str(importlib.resources.files("stella_mteb.compare"))) / "published"


def published(selection: Selection = EVERYTHING) -> Found:
    """Read the bundled scores on MTEB(eng, v1) that the authors of Stella and BGE-en-ICL published.

    Args:
        selection: The tasks to read, and the splits and subsets to keep.
    """
    scores: dict[str, dict[str, Score]] = {}
    for line in published_table():
        part = Part(line["split"], line["subset"], float(line["main_score"]), (line["language"],))
        score = Score(line["task"], line["type"], part.value, "", (), source=line["source"]).made_of([part])
        if selection.takes(score.task, score.type) and (counted := selection.narrow(score)):
            scores.setdefault(line["model"], {})[line["task"]] = counted
    systems = {
        model: System("", model, "self-reported", "published scores that ship with stella-mteb") for model in scores
    }
    rows = [Row(system, scores[model], remarks=tuple(remarks_on(system))) for model, system in systems.items()]
    return Found(labelled(rows))


@functools.cache
def published_table() -> list[dict[str, str]]:
    """Read the lines of `published/mteb_eng_v1.csv`."""
    return list(csv.DictReader(io.StringIO(read_text(_FOLDER / "mteb_eng_v1.csv"))))


def task_facts(task: str) -> TaskFacts:
    """Look up type and split of a task of MTEB(eng, v1); unknown for any other task."""
    return next(
        (TaskFacts(line["type"], (line["split"],)) for line in published_table() if line["task"] == task), TaskFacts()
    )


def remarks_on(system: System) -> list[str]:
    """Read the remarks on a system's scores from `published/remarks.yaml`."""
    return [
        f"{entry['text']} ({entry['source']})"
        for entry in _remarks()
        if (entry["model"], entry["provenance"]) == (system.model, system.provenance)
        and entry.get("revision", system.revision) == system.revision
    ]


@functools.cache
def _remarks() -> list[dict[str, str]]:
    entries: list[dict[str, str]] = read_yaml(_FOLDER / "remarks.yaml")[0]["remarks"]
    return entries
