"""Facts of MTEB about models, such as size and license, and selection of rows by them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from stella_mteb.compare.naming import bundled
from stella_mteb.compare.records import Comparison, ModelFacts, Scores, System
from stella_mteb.compare.words import count
from stella_mteb.errors import ConfigError
from stella_mteb.files.tables import listed

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def facts_of(comparison: Comparison, mteb: Mapping[str, Any]) -> Mapping[str, ModelFacts]:
    """Look up the facts of all systems of a comparison, by label.

    The zero-shot share is taken over the tasks of the means.

    Args:
        comparison: The comparison.
        mteb: MTEB's table, with `models` and `training_sets`.
    """
    return {system.label: model_facts(system, mteb, comparison.mean_tasks) for system in comparison.systems}


def model_facts(system: System, mteb: Mapping[str, Any], tasks: Sequence[str]) -> ModelFacts:
    """Look up the facts of a model in MTEB's table.

    The system's own settings take precedence, then the model's bundled config. For Stella, MTEB states the intermediate
    size, 8960, as a dimension, and 131072 positions as the longest input.

    Args:
        system: A row of the model.
        mteb: MTEB's table.
        tasks: The tasks for the zero-shot share.
    """
    known, config = mteb["models"].get(system.model, {}), bundled().get(system.model)
    length = system.settings.get("max_length") or (config and config.max_length)
    trained_on = known.get("trained_on")
    seen = {*tasks} & {*mteb["training_sets"][trained_on]} if trained_on is not None else {*tasks}
    dimension = system.dimension or (config and max([*config.dimensions, config.dimension or 0]))
    return ModelFacts(
        parameters=known.get("parameters"),
        max_tokens=length or known.get("max_tokens"),
        dimension=dimension or known.get("dimension"),
        license=known.get("license"),
        open=known.get("open"),
        released=known.get("released"),
        zero_shot=1 - len(seen) / len(tasks) if tasks and trained_on is not None else None,
    )


def within(
    scores: Scores, mteb: Mapping[str, Any], *, max_parameters: int | None, open_weights: bool
) -> tuple[Scores, list[str]]:
    """Keep the rows of models within a size limit and with open weights.

    Args:
        scores: The scores to choose from.
        mteb: MTEB's table; a limit excludes models that the table does not know.
        max_parameters: The largest number of parameters; None for no limit.
        open_weights: Whether to keep only models with open weights.

    Returns:
        The scores that are kept, and one note for each reason to leave models out.
    """
    kept, out = {}, defaultdict(list)
    for system, of in scores.items():
        if reason := _refused(model_facts(system, mteb, ()), max_parameters, open_weights=open_weights):
            out[reason].append(system.label)
        else:
            kept[system] = of
    return kept, [f"Left out, {reason}: {listed(labels)}" for reason, labels in out.items()]


def _refused(facts: ModelFacts, max_parameters: int | None, *, open_weights: bool) -> str | None:
    if max_parameters is not None:
        if facts.parameters is None:
            return "MTEB does not state the number of parameters"
        if facts.parameters > max_parameters:
            return f"more than {count(max_parameters)} parameters"
    return "weights not known to be open" if open_weights and not facts.open else None


def number_of_parameters(text: str) -> int:
    """Parse a number of parameters: `8B`, `600M` or a plain number.

    Raises:
        ConfigError: If the text is none of these.
    """
    if not (found := re.fullmatch(r"(\d+\.?\d*)\s*([KMB]?)", text.strip().upper())):
        raise ConfigError(f"{text!r} is not a number of parameters; write 8B, 600M or 1000000")
    return round(float(found[1]) * _UNITS[found[2]])
