"""What a duel comes to, in a sentence for people: plain, and careful."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from stella_mteb.compare.records import Duel, System
from stella_mteb.compare.statistics import tasks_needed


def winner(duel: Duel, alpha: float) -> System | None:
    """The system that is better beyond doubt over tasks, if one is."""
    if duel.difference is None or duel.p_holm is None or duel.p_holm >= alpha:
        return None
    return duel.first if duel.difference > 0 else duel.second


def verdict(duel: Duel, duels: int, alpha: float) -> str:
    """What a duel says, over tasks and item by item.

    Args:
        duel: Tested, and adjusted.
        duels: How many there are, for the adjustment to be named.
        alpha: Level of the tests.
    """
    return "; ".join(filter(None, [_over_tasks(duel, duels, alpha), _over_items(duel, alpha)]))


def _over_tasks(duel: Duel, duels: int, alpha: float) -> str:
    first, second = duel.first.label, duel.second.label
    if duel.difference is None:
        return f"{first} and {second} have no task in common that was measured alike"
    if not duel.wins and not duel.losses:
        return f"{first} and {second} have the same score on {many(duel.tasks, 'common task')}"
    if duel.tasks < tasks_needed(alpha):
        return (
            f"{first} and {second}: too few tasks to tell: {duel.tasks}, where no test can tell with fewer than "
            f"{tasks_needed(alpha)} (difference {_points(duel.difference)})"
        )
    better = winner(duel, alpha)
    where = f"over {duel.tasks} tasks, {_p(duel.p_holm)}{f' (Holm, {duels} duels)' if duels > 1 else ''}"
    if better is None:
        figures = f"difference {_points(duel.difference)}{_interval(duel.low, duel.high)}"
        return f"{first} and {second} cannot be separated: {figures} {where}"
    if better is duel.second:
        return (
            f"{second} is better than {first}: {_points(-duel.difference)}{_interval(duel.high, duel.low, -1)} {where}"
        )
    return f"{first} is better than {second}: {_points(duel.difference)}{_interval(duel.low, duel.high)} {where}"


def _over_items(duel: Duel, alpha: float) -> str:
    if not duel.by_task:
        return ""
    said = defaultdict(list)
    for one in duel.by_task:
        better = duel.first if one.difference > 0 else duel.second
        said[f"{better.label} is better on" if one.p_holm < alpha else "no difference is certain on"].append(one.task)
    return "item by item " + ", ".join(f"{words} {listed(tasks)}" for words, tasks in said.items())


def _points(difference: float) -> str:
    return f"{round(100 * difference, 2) + 0:+.2f} points"  # no -0.00


def _interval(low: float | None, high: float | None, sign: int = 1) -> str:
    if low is None or high is None:
        return ""
    return " [" + ", ".join(f"{round(100 * sign * end, 2) + 0:+.2f}" for end in (low, high)) + "]"


def _p(p: float | None) -> str:
    return "" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a row, no more than `most` of them."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def many(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
