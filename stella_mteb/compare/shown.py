"""Short names of systems for display, with the rest of the label beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stella_mteb.compare.records import Comparison, Provenance
from stella_mteb.compare.words import names


@dataclass(frozen=True)
class Name:
    """The display name of a system, in parts.

    Attributes:
        short: Model name, with details only if another system has the same model name.
        telling: Model name with details, without the organisation.
        model: Model name alone, not necessarily unique; shown beside `rest`.
        rest: Organisation, settings, and the provenance unless it is the most frequent one.
    """

    short: str
    telling: str
    model: str
    rest: str


def shown(comparison: Comparison) -> dict[str, Name]:
    """Compute the display names of all systems, by label."""
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
    """Find the provenance of most rows; None without one. Rows of mixed provenance always state it."""
    counts = Counter(system.provenance for system in comparison.systems if system.provenance != "mixed")
    return max(counts, key=counts.__getitem__, default=None)
