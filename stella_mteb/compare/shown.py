"""What views call a system: the name that tells it apart, with the rest of its label beside it."""

from __future__ import annotations

from dataclasses import dataclass

from stella_mteb.compare.records import Comparison
from stella_mteb.compare.words import names


@dataclass(frozen=True)
class Name:
    """A system's name in parts.

    Attributes:
        short: Without organisation and details where that is enough to tell it from all others.
        telling: Without organisation, with the details.
        model: As short, even where others share it; `rest` stands beside it.
        rest: The organisation, settings, and who measured, unless that is the same for all.
    """

    short: str
    telling: str
    model: str
    rest: str


def shown(comparison: Comparison) -> dict[str, Name]:
    """The names by label."""
    everywhere = shared_provenance(comparison)
    forms: dict[str, tuple[str, str, str]] = {}
    rests = {}
    for label, name in names(comparison).items():
        full, _, details = name.removesuffix(")").partition(" (") if name.endswith(")") else (name, "", "")
        organisation, _, model = full.rpartition("/")
        told = [one for one in details.split(", ") if one and one != everywhere]
        forms[label] = (model or name, f"{model or name} ({', '.join(told)})" if told else model or name, name)
        rests[label] = " \N{MIDDLE DOT} ".join(filter(None, [organisation, *told]))
    taken = [form for of_system in forms.values() for form in set(of_system)]
    return {
        label: Name(
            next((form for form in of_system if taken.count(form) == 1), of_system[-1]),
            next((form for form in of_system[1:] if taken.count(form) == 1), of_system[-1]),
            of_system[0],
            rests[label],
        )
        for label, of_system in forms.items()
    }


def shared_provenance(comparison: Comparison) -> str | None:
    """Name the source of the scores if all rows share it."""
    found = {system.provenance for system in comparison.systems}
    return found.pop() if len(found) == 1 else None
