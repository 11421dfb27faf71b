"""What views call a system: the name that tells it apart, with the rest of its label beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stella_mteb.compare.records import Comparison, Provenance
from stella_mteb.compare.words import names


@dataclass(frozen=True)
class Name:
    """A system's name in parts.

    Attributes:
        short: Without organisation and details where that is enough to tell it from all others.
        telling: Without organisation, with the details.
        model: As short, even where others share it; `rest` stands beside it.
        rest: The organisation, settings, and who measured, unless that is as for most.
    """

    short: str
    telling: str
    model: str
    rest: str


def shown(comparison: Comparison) -> dict[str, Name]:
    """The names by label."""
    usual = usual_provenance(comparison)
    provenance = {system.label: system.provenance for system in comparison.systems}
    forms: dict[str, tuple[str, str, str]] = {}
    rests = {}
    for label, name in names(comparison).items():
        full, _, details = name.removesuffix(")").partition(" (") if name.endswith(")") else (name, "", "")
        organisation, _, model = full.rpartition("/")
        told = [one for one in dict.fromkeys([provenance[label], *details.split(", ")]) if one and one != usual]
        forms[label] = (model or name, f"{model or name} ({', '.join(told)})" if told else model or name, name)
        rests[label] = " \N{MIDDLE DOT} ".join(filter(None, [organisation, *told]))
    models, tellings = ([of_system[i] for of_system in forms.values()] for i in (0, 1))
    found = {}
    for label, (model, telling, name) in forms.items():
        own = telling if tellings.count(telling) == 1 else name
        found[label] = Name(model if models.count(model) == 1 else own, own, model, rests[label])
    return found


def usual_provenance(comparison: Comparison) -> Provenance | None:
    """Name the source of most rows' scores; None without one. That a row mixes sources is always said beside it."""
    counts = Counter(system.provenance for system in comparison.systems if system.provenance != "mixed")
    return max(counts, key=counts.__getitem__, default=None)
