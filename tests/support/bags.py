"""Texts as bags of words, whose cosines are known by hand, and a task scored with them through MTEB."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import numpy as np

from stella_mteb.harness.task_classes import task_class
from stella_mteb.harness.task_yaml import TaskFile


def bag(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def cosine(one: str, two: str) -> float:
    a, b = bag(one), bag(two)
    dot = sum(a[word] * b[word] for word in a)
    return dot / math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))


def bag_vector() -> Any:
    """Return a vector with one place for each word, in the order of first occurrence."""
    places: dict[str, int] = {}

    def vector(text: str) -> np.ndarray:
        result = np.zeros(500)
        for word, count in bag(text).items():
            result[places.setdefault(word, len(places))] = count
        return result

    return vector


def evaluate(encoder: Any, file: TaskFile) -> Any:
    import mteb

    (result,) = mteb.evaluate(
        encoder, task_class(file)(), cache=None, co2_tracker=False, show_progress_bar=False
    ).task_results
    return result
