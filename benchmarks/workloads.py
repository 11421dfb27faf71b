"""Texts for speed measurements: sentences, passages and summaries from the development data."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from stella_mteb.judge.sentences import split_sentences

MIXTURE = {"sts": 0.45, "passages": 0.40, "long": 0.15}


def short_sentences(data: Path) -> list[str]:
    """Return the distinct sentences of the STS sets."""
    rows = [json.loads(line) for path in sorted((data / "sts").glob("*.jsonl")) for line in path.open()]
    return list(dict.fromkeys(row[key] for row in rows for key in ("sentence1", "sentence2")))


def all_texts(data: Path) -> dict[str, list[str]]:
    """Return distinct texts by kind: sentences, passages of some 50 words, and summaries of at least 200 words."""
    references = [row["summary"] for row in json.loads((data / "clip_cc/ground_truth.json").read_text())]
    files = sorted((data / "clip_cc/predictions").glob("*.json"))
    summaries = references + [text for path in files for text in json.loads(path.read_text()).values()]
    passages = [passage for summary in summaries for passage in _groups(summary)]
    return {
        "sts": short_sentences(data),
        "passages": list(dict.fromkeys(passages)),
        "long": list(dict.fromkeys(text for text in summaries if len(text.split()) >= 200)),
    }


def _groups(summary: str, words: int = 40) -> Iterator[str]:
    group: list[str] = []
    for sentence in split_sentences(summary):
        group.append(sentence)
        if sum(len(part.split()) for part in group) >= words:
            yield " ".join(group)
            group = []


def workloads(data: Path, tokens: int, count: Callable[[str], int]) -> dict[str, list[str]]:
    """Draw texts of each kind, and of all in the shares of `MIXTURE`, up to that many tokens."""
    generator = random.Random(0)
    kinds = all_texts(data)
    for texts in kinds.values():
        generator.shuffle(texts)
    drawn = {kind: _until(iter(texts), tokens, count) for kind, texts in kinds.items()}
    # Backwards, so that it is not the same texts again.
    piles = {kind: iter(reversed(texts)) for kind, texts in kinds.items()}
    shares = iter(lambda: generator.choices(list(MIXTURE), list(MIXTURE.values()))[0], None)
    return drawn | {"mixture": _until((next(piles[kind]) for kind in shares), tokens, count)}


def _until(texts: Iterator[str], tokens: int, count: Callable[[str], int]) -> list[str]:
    chosen, total = [], 0
    while total < tokens and (text := next(texts, None)) is not None:
        chosen.append(text)
        total += count(text)
    return chosen
