"""The agreement with people in words and tables, for terminal and page: from the result of `Validation.as_json`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from stella_mteb.files.tables import listed, many
from stella_mteb.judge.similarity import SHOWN_AS

LEVELS = {
    ("item", "rater"): "Over all texts, each rater's score as an item",
    ("item", "each"): "Over all texts, against each rater: mean over raters",
    ("item", "mean"): "Over all texts, against the mean of the raters",
    ("clip", "rater"): "Within clips, each rater's score as an item: mean over clips",
    ("clip", "mean"): "Within clips, against the mean of the raters: mean over clips",
    ("system", "mean"): "Over the means of the systems",
}
SHORT = {"spearman": "rho", "kendall_b": "tau-b", "kendall_c": "tau-c", "pearson": "r"}
_ALPHA = 0.05
_NAMED = 4


def advice(found: Mapping[str, Any]) -> str:
    """Answer in one sentence which measure to use.

    It is the measure with the highest rho against the raters' mean, of those that are defined for all texts, and HM-CF
    if several have the same to three decimals; without ratings, the one with the highest accuracy.
    """
    best = best_row(found)
    if best is None:
        return "Nothing tells the measures apart: no agreement with these ratings is defined"
    name = _spoken(best, found)
    if "accuracy" in best:
        if best["low"] is None or best["low"] <= 0.5:
            return f"No measure is better than chance for certain; the best is {name} (accuracy {best['accuracy']:.3f})"
        return f"Use {name}: it prefers what people prefer most often (accuracy {best['accuracy']:.3f})"
    if best["spearman"] <= 0 or (best["low"] is not None and best["low"] <= 0):
        return f"No measure agrees with people for certain; the highest rho is {best['spearman']:.3f} ({name})"
    if best["low"] is None:
        return f"Too few clips to be sure; {name} agrees with people best so far (rho {best['spearman']:.3f})"
    own = [best["judge"], best["measure"]]
    pairs = [[[*one["first"]], [*one["second"]]] for one in found["differences"] if one["p_adjusted"] >= _ALPHA]
    others = [other for pair in pairs if own in pair for other in pair if other != own]
    tied = [_spoken({"judge": judge, "measure": measure}, found) for judge, measure in others]
    others_told = listed(tied) if len(tied) <= _NAMED else f"{len(tied)} others"
    doubt = f"; {others_told} cannot be told apart from it" if tied else ""
    return f"Use {name}: it agrees with people best (rho {best['spearman']:.3f}){doubt}"


def best_row(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the row of the measure to use, of `rows` or of `preferences`; None if no agreement is defined."""
    sizes = found["sizes"]
    rows: list[Mapping[str, Any]] = [
        row
        for row in found["rows"]
        if (row["level"], row["against"], row["references"]) == ("item", "mean", "best")
        and row["n"] == sizes["texts"]
        and row["spearman"] is not None
    ]
    if rows:
        return max(rows, key=lambda row: (round(row["spearman"], 3), row["measure"] == "hm_cf"))
    pairs: list[Mapping[str, Any]] = [
        row for row in found["preferences"] if row["references"] == "best" and row["n"] == sizes["preferences"]
    ]
    return max(pairs, key=lambda row: row["accuracy"], default=None)


def _spoken(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return for_people(row["measure"]) + (f" of {row['judge']}" if _several_judges(found) else "")


def in_support(found: Mapping[str, Any]) -> str:
    """Say in sentences what the advice rests on: interval, sizes, and the raters' own agreement."""
    sizes, best, ceiling = found["sizes"], best_row(found), found["ceiling"]
    rated = [many(sizes[what], what[:-1]) for what in ("texts", "preferences") if sizes[what]]
    sentences = [f"People rated {' and '.join(rated)} of {many(sizes['clips'], 'clip')}."]
    if best and best["low"] is not None:
        figure = "accuracy" if "accuracy" in best else "rho"
        sentences.append(
            f"The 95\N{NO-BREAK SPACE}% interval of this {figure} is {best['low']:.3f} to {best['high']:.3f}."
        )
    if ceiling and ceiling["spearman"] is not None:
        sentences.append(
            f"One of {ceiling['raters']} raters agrees with the mean of the others at {ceiling['spearman']:.3f}."
        )
    over_systems = {
        row["measure"]: row
        for row in found["rows"]
        if best
        and (row["judge"], row["level"], row["references"]) == (best["judge"], "system", "best")
        and row["spearman"]
    }
    if best and best["measure"] in over_systems:
        first = max(over_systems.values(), key=lambda row: row["spearman"])
        own = over_systems[best["measure"]]
        if first["spearman"] > own["spearman"] + 1e-3:
            sentences.append(
                f"To rank the {own['n']} systems rather than texts, {for_people(first['measure'])} agrees better: rho "
                f"of their means {first['spearman']:.3f}, where {for_people(own['measure'])} has {own['spearman']:.3f}."
            )
    return " ".join(sentences)


def tables(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Choose the displayed rows by title: the best reference for every measure, the other modes for HM-CF only."""
    shown: dict[str, list[dict[str, Any]]] = {}
    judges = dict.fromkeys(row["judge"] for row in found["rows"])
    for judge, (kind, title) in itertools.product(judges, LEVELS.items()):
        rows = [row for row in found["rows"] if (row["judge"], row["level"], row["against"]) == (judge, *kind)]
        own = title if len(judges) == 1 else f"{judge}: {title}"
        shown[own] = [_shown(row) for row in rows if row["references"] == "best" or row["measure"] == "hm_cf"]
    shown["Published by others"] = [
        {"metric": row["metric"], "refs": row["references"], "against": row["against"]}
        | {short: row[name] for name, short in SHORT.items()}
        for row in found["published"]
    ]
    shown["Share of pairs in which the measure prefers the text that people prefer"] = [
        {"judge": row["judge"], "measure": for_people(row["measure"]), "refs": row["references"]}
        | {name: row[name] for name in ("accuracy", "low", "high", "n")}
        for row in found["preferences"]
    ]
    shown["Differences of rho over all texts, with the best reference"] = [
        {side: named(dict(zip(("judge", "measure"), one[side], strict=True)), found) for side in ("first", "second")}
        | {name: round(one[name], 3) for name in ("difference", "low", "high", "p_adjusted")}
        for one in found["differences"]
    ]
    return {title: rows for title, rows in shown.items() if rows}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    figures = {short: None if row[name] is None else round(row[name], 3) for name, short in SHORT.items()}
    ends = {name: None if row[name] is None else round(row[name], 3) for name in ("low", "high")}
    return {"measure": for_people(row["measure"]), "refs": row["references"], **figures, **ends, "n": row["n"]}


def named(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Name a measure for people, with its judge if there are several."""
    return (f"{row['judge']}: " if _several_judges(found) else "") + for_people(row["measure"])


def _several_judges(found: Mapping[str, Any]) -> bool:
    return len({one["judge"] for one in (*found["rows"], *found["preferences"])}) > 1


def for_people(measure: str) -> str:
    """Return the name of a measure in tables and pages."""
    return SHOWN_AS.get(measure, measure)
