"""ROUGE-1 recall, which agrees with people better than cosines on news summaries."""

from __future__ import annotations

import re
from collections import Counter


def words_of(text: str) -> Counter[str]:
    """Count the words of a text in lower case; a word is a run of letters and digits."""
    return Counter(re.findall(r"[^\W_]+", text.lower()))


def rouge_1_recall(reference: Counter[str], candidate: Counter[str]) -> float:
    """Compute the share of the reference's words that the candidate has too, counted with repetitions.

    Source: C.-Y. Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004); without stemming.
    """
    return (reference & candidate).total() / max(1, reference.total())
