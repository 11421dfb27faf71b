"""Sentences and formatted figures of a comparison, shared by all views. Points are scores x 100."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from stella_mteb.compare.records import Comparison, Duel, Gap, ModelFacts, Standing, System, TaskDifference
from stella_mteb.files.tables import listed, many, plain

# -------------------------------------------------------------------------------------------------------- sentences


def headline(comparison: Comparison, shown: Mapping[str, str] | None = None) -> str:
    """Summarize a comparison in one sentence: the best system, or that the results cannot tell.

    Args:
        comparison: The comparison.
        shown: Display names by label; by default the labels.
    """
    shown = names(comparison) if shown is None else shown
    standings = [standing for standing in comparison.standings if standing.tasks]
    labels = [shown[standing.system.label] for standing in standings]
    if len(labels) < 2 or not comparison.mean_tasks:
        return _too_few(comparison, labels, shown)
    known = [duel for duel in comparison.duels if duel.families]
    if known and all(
        duel.families < comparison.needed and not duel.items and not winner(duel, comparison.alpha) for duel in known
    ):
        most = many(max(duel.families for duel in known), "independent task")
        return f"No finding is possible: these systems share {most}, and a test needs {comparison.needed} to tell"
    top = [label for standing, label in zip(standings, labels, strict=True) if standing.best_rank == 1]
    if len(top) != 1:
        start = "These" if len(top) == len(labels) else "At the top, these"
        return f"{start} results cannot separate {listed(top or labels)}"
    others = [label for label in labels if label != top[0]]
    if min(standing.worst_rank for standing in standings) > 1:
        return f"{top[0]} leads, but the results do not separate it from each of the others"
    return f"{top[0]} is better than {others[0] if len(others) == 1 else f'each of the other {len(others)}'}"


def _too_few(comparison: Comparison, ranked: Sequence[str], shown: Mapping[str, str]) -> str:
    systems = len(comparison.systems)
    if len(comparison.duels) == 1 and (duel := comparison.duels[0]).families >= max(comparison.needed, 1):
        better = winner(duel, comparison.alpha)
        one, other = shown[duel.first.label], shown[duel.second.label]
        if better is duel.second:
            one, other = other, one
        said = f"{one} is better than {other}" if better else f"these results cannot separate {one} and {other}"
        return f"On the {many(duel.tasks, 'task')} that both have, {said}"
    if systems < 2:
        return f"{ranked[0]} has no other system to be compared with" if ranked else "No results to compare"
    if not comparison.mean_tasks and not _nobody_has_enough(comparison):
        return f"No task has comparable scores for {'both' if systems == 2 else 'more than half of the'} systems"
    return f"Of {systems} systems, {f'only {ranked[0]}' if ranked else 'none'} has enough of the tasks to be ranked"


def winner(duel: Duel, alpha: float) -> System | None:
    """Return the significantly better system of a duel, or None."""
    if duel.difference is None or duel.p_adjusted is None or duel.p_adjusted >= alpha:
        return None
    return duel.first if duel.difference > 0 else duel.second


def verdict(duel: Duel, needed: int, duels: int, alpha: float) -> str:
    """Summarize a duel in one sentence: the test over tasks and the tests over items.

    Args:
        duel: The duel, with adjusted p-values.
        needed: The number of task families that a finding needs.
        duels: The number of duels that the adjustment covers.
        alpha: Level of the tests.
    """
    said = defaultdict(list)
    for one in duel.by_task:
        better = duel.first if one.difference > 0 else duel.second
        said[f"{better.label} is better on" if one.p_adjusted < alpha else "no significant difference on"].append(
            one.task
        )
    by_item = ", ".join(f"{words} {listed(tasks)}" for words, tasks in said.items())
    return _over_tasks(duel, needed, duels, alpha) + (f"; over items, {by_item}" if by_item else "")


def _over_tasks(duel: Duel, needed: int, duels: int, alpha: float) -> str:
    first, second = duel.first.label, duel.second.label
    if duel.difference is None:
        return f"{first} and {second} have no task with comparable scores"
    if not duel.wins and not duel.losses:
        return f"{first} and {second} have the same score on {many(duel.tasks, 'common task')}"
    better = winner(duel, alpha)
    if better is None and duel.families < needed and not duel.items:
        of = f" on {many(duel.families, 'data set')}" if duel.families < duel.tasks else ""
        return (
            f"{first} and {second}: {many(duel.tasks, 'task')}{of}, too few to tell; a test needs {needed} "
            f"(difference {signed(duel.difference)} points)"
        )
    start = f"{first} and {second} cannot be separated: difference"
    if better is duel.first:
        start = f"{first} is better than {second}:"
    elif better:
        start = f"{second} is better than {first}:"
    turned = better is not None and better is not duel.first
    difference = -duel.difference if turned else duel.difference
    between = "" if duel.low is None else f" ({interval(*ends(duel, turned=turned))})"
    p = p_value(duel.p_adjusted)
    over = many(duel.tasks, "task")
    if why := left_out(duel):
        over = f"{duel.tasks} of {duel.tasks + duel.lacking + duel.apart} tasks ({why})"
    if duel.items:
        over = f"{duel.items:,} items of {over}"
    return f"{start} {signed(difference)} points{between} over {over}, p {p if p[0] == '<' else f'= {p}'}" + (
        f" (adjusted for {duels} pairs)" if duels > 1 else ""
    )


def left_out(duel: Duel, lacking: str = "lacking", apart: str = "on other data") -> str:
    """Count the tasks that a duel leaves out, by reason: `16 lacking, 4 on other data`; empty without any."""
    return ", ".join(f"{number} {why}" for number, why in ((duel.lacking, lacking), (duel.apart, apart)) if number)


LEFT_OUT = (
    "Left out of a pair are tasks that one of the two lacks, and tasks on other data: their revisions, splits or "
    "subsets differ."
)


def no_mean(comparison: Comparison) -> str:
    """Say why there is no mean."""
    if _nobody_has_enough(comparison):
        return "No mean: no system has enough of the tasks to be ranked."
    return "No mean: no task has comparable scores for more than half of the systems."


def _nobody_has_enough(comparison: Comparison) -> bool:
    return bool(comparison.selected) and not comparison.standings


def unread(
    gaps: Mapping[System, Mapping[str, str]], systems: Iterable[System], shown: Container[str] = ()
) -> list[str]:
    """List the scores of systems that could not be read, with reasons, except on the `shown` tasks."""
    return [
        f"{system.label}: {task}: {reason}"
        for system in systems
        for task, reason in gaps.get(system, {}).items()
        if task not in shown
    ]


def means_over(comparison: Comparison) -> str:
    """Describe the tasks of the means: `37 of the 41 tasks of MTEB(eng, v2)`."""
    of = comparison.selection.benchmark if comparison.selection else None
    used, all_of_them = len(comparison.mean_tasks), len(comparison.selected)
    return (f"{used} of the " if used < all_of_them else "") + many(all_of_them, "task") + (f" of {of}" if of else "")


def about_means(comparison: Comparison, shown: Mapping[str, str] | None = None) -> list[str]:
    """Say in sentences, with counts, which scores of ranked systems the means leave out, and which they estimate.

    Args:
        comparison: The comparison.
        shown: Display names by label; by default the labels.
    """
    shown = names(comparison) if shown is None else shown
    ranked = {one.system for one in comparison.standings}
    apart = {
        row.task: [
            cell
            for system, cell in zip(comparison.systems, row.cells, strict=True)
            if isinstance(cell, Gap) and cell.value is not None and system in ranked
        ]
        for row in comparison.rows
        if row.task in comparison.selected and row.task not in comparison.mean_tasks
    }
    out = [f"{task} ({many(len(cells), 'score')})" for task, cells in apart.items() if cells]
    by_revision = [cell.by_revision for cells in apart.values() for cell in cells]
    scores = len(by_revision)
    said = []
    if out:
        said.append(
            f"The means leave out {many(len(out), 'task')} on which {many(scores, 'score')} of ranked "
            f"systems {'is' if scores == 1 else 'are'} on other data than most: {listed(out, 12)}."
        )
        if any(by_revision):
            which = "them" if all(by_revision) else "those of other revisions"
            said[-1] += f" --any-data-revision counts {which}, as MTEB's leaderboard does."
    lacking = [one for one in comparison.standings if one.estimated]
    if lacking:
        each = [f"{shown[one.system.label]}: {one.estimated}" for one in lacking]
        said.append(
            f"The means use estimates for {many(sum(one.estimated for one in lacking), 'score')} that "
            f"{many(len(lacking), 'ranked system')} {'lacks' if len(lacking) == 1 else 'lack'} on the data of most "
            f"others ({listed(each)}): a system effect plus a task effect, fitted by least squares to all scores of "
            "ranked systems."
        )
    return said


# ---------------------------------------------------------------------------------------------------------- figures


def points(value: float | None) -> str:
    """Format a score x 100 with two decimals."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.2f}"


def signed(value: float | None) -> str:
    """Format a difference x 100 with its sign and two decimals."""
    return "-" if value is None or not math.isfinite(value) else f"{round(100 * value, 2) + 0:+.2f}"  # no -0.00


def interval(low: float | None, high: float | None) -> str:
    """Format an interval of differences: `-0.10 to +2.44`."""
    return "-" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def ends(one: Duel | TaskDifference, *, turned: bool = False) -> tuple[float | None, float | None]:
    """Return the ends of an interval; `turned` for those of second minus first."""
    if not turned or one.low is None or one.high is None:
        return one.low, one.high
    return -one.high, -one.low


def p_value(value: float | None) -> str:
    """Format a p-value with three decimals."""
    if value is None or not math.isfinite(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def per_cent(alpha: float) -> str:
    """Format the level of intervals: `95 %`."""
    return f"{100 * (1 - alpha):g} %"


def rank(standing: Standing) -> str:
    """Format a rank: `1`, a range such as `1-2`, or `-` without any score."""
    low, high = standing.best_rank, standing.worst_rank
    if not standing.tasks:
        return "-"
    return str(low) if low == high else f"{low}-{high}"


def in_bytes(value: float | None) -> str:
    """Format bytes in decimal units with three digits."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def count(value: float | None) -> str:
    """Format a large number with three digits: `1.54 B`."""
    return _scaled(value, ("", "k", "M", "B"))


def weights(facts: ModelFacts) -> str:
    """Name the license of open weights; `closed` for closed weights."""
    return "closed" if facts.open is False else facts.license or "-"


def share(value: float | None) -> str:
    """Format a share in whole percent, rounded down as MTEB does."""
    return "-" if value is None else f"{math.floor(100 * value + 1e-9)} %"


def _scaled(value: float | None, units: Sequence[str]) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    figures = f"{value:,.0f}" if value >= 99.95 or power == 0 else f"{value:.3g}"
    return f"{figures} {units[power]}".rstrip()


# --------------------------------------------------------------------------------------- parts of a comparison


def names(comparison: Comparison) -> dict[str, str]:
    """Clean all labels to single lines without control characters; they stay distinct."""
    shown: dict[str, str] = {}
    for system in comparison.systems:
        name = plain(system.label).strip() or "(no name)"
        count, unique = 1, name
        while unique in shown.values():
            count += 1
            unique = f"{name} ({count})"
        shown[system.label] = unique
    return shown


def settings(system: System) -> str:
    """Join the settings of a system into one line."""
    return ", ".join(f"{key}={value}" for key, value in sorted(system.settings.items()))


def types(comparison: Comparison) -> dict[str, int]:
    """Count the tasks of the means by task type, in alphabetical order."""
    of_task = {row.task: row.type for row in comparison.rows}
    counted = [of_task[task] for task in comparison.mean_tasks if task in of_task]
    return {name: counted.count(name) for name in sorted(set(counted))}


def machines(comparison: Comparison) -> list[str]:
    """List the machines of the measured prices; an unknown machine is 'not stated'."""
    return sorted({price.machine or "not stated" for price in comparison.prices})


def placed(comparison: Comparison) -> list[System]:
    """List the ranked systems, best mean first, then the unranked ones."""
    return [*(one.system for one in comparison.standings), *(one.system for one in comparison.unranked)]


def beside_the_first(comparison: Comparison) -> dict[str, Duel]:
    """Find the duel of each unranked system with the first place, or the first system if none is ranked, by label."""
    labels = {one.system.label for one in comparison.unranked}
    return {
        duel.second.label: duel
        for duel in comparison.duels
        if duel.first == comparison.duels[0].first and duel.second.label in labels
    }


def main_duels(comparison: Comparison) -> Sequence[Duel]:
    """Select the duels shown task by task: all up to three, else only that of the first two places."""
    return comparison.duels if len(comparison.duels) <= 3 else comparison.duels[:1]


class Missing(NamedTuple):
    """Gaps with one reason, on the same tasks in several systems."""

    reason: str
    tasks: Sequence[str]
    labels: Sequence[str]


def gaps(comparison: Comparison) -> list[Missing]:
    """Group all gaps by reason and tasks, those of the most scores first."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for row in comparison.rows:
        for system, cell in zip(comparison.systems, row.cells, strict=True):
            if isinstance(cell, Gap):
                tasks.setdefault((system.label, cell.reason), []).append(row.task)
    labels: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (label, reason), of in tasks.items():
        labels.setdefault((reason, tuple(of)), []).append(label)
    found = [Missing(reason, of, own) for (reason, of), own in labels.items()]
    return sorted(found, key=lambda one: -len(one.tasks) * len(one.labels))
