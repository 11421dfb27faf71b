"""The page calls a system by the name that tells it apart, and shows the rest of its label beside it."""

from __future__ import annotations

from dataclasses import dataclass

from stella_mteb.compare.records import Comparison
from stella_mteb.compare.words import names


@dataclass(frozen=True)
class Name:
    """A system's name in parts.

    Attributes:
        short: Without organisation and details where that is enough to tell it from all others.
        model: As short, even where others share it; `rest` stands beside it.
        rest: The organisation, settings, and who measured, unless that is the same for all.
    """

    short: str
    model: str
    rest: str


def shown(comparison: Comparison) -> dict[str, Name]:
    """The names by label."""
    everywhere = shared_provenance(comparison)
    parts = {}
    for label, name in names(comparison).items():
        full, _, details = name.removesuffix(")").partition(" (") if name.endswith(")") else (name, "", "")
        organisation, _, model = full.rpartition("/")
        told = [one for one in details.split(", ") if one and one != everywhere]
        parts[label] = (name, model or name, " \N{MIDDLE DOT} ".join(filter(None, [organisation, *told])))
    models = [model for _, model, _ in parts.values()]
    return {
        label: Name(model if models.count(model) == 1 else name, model, rest)
        for label, (name, model, rest) in parts.items()
    }


def shared_provenance(comparison: Comparison) -> str | None:
    """Name the source of the scores if all rows share it."""
    found = {system.provenance for system in comparison.systems}
    return found.pop() if len(found) == 1 else None
