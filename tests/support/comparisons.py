"""Comparisons with made-up scores, for tests of their output."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations

from stella_mteb.compare.records import (
    Comparison,
    Duel,
    Gap,
    Price,
    Provenance,
    Score,
    Standing,
    System,
    TaskDifference,
    TaskRow,
)

TYPES = {
    "Classification": 12,
    "Clustering": 11,
    "PairClassification": 3,
    "Reranking": 4,
    "Retrieval": 15,
    "STS": 10,
    "Summarization": 1,
}
"""Tasks of each type, as in MTEB(eng, v1): 56."""

LONG = "TweetSentimentExtractionClassification"

HOSTILE = [
    "</script><script>window.hacked=1</script>",
    "</style><script>window.hacked=1</script>",
    "</title></svg><script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "' onfocus='window.hacked=1' autofocus='",
    "<!--<script>window.hacked=1",
    "{{7*7}}{% raw %}${7*7}",
    "a | b `rm` **x** [l](http://y) <http://y>",
    "javascript:window.hacked=1",
    "one\ntwo\r\nthree",
    "\x1b[31mred\x1b[0m \x1b]8;;http://y\x1b\\link\x1b]8;;\x1b\\ \x1b]52;c;eA==\x07",
    "\u202egpj.exe \u2028 \x85 \x00",
    "=cmd()",
    "@SUM(1)",
    "# heading",
    "\ud800 surrogate",
]
"""Names that act where they are not taken as text."""


def system(label: str, provenance: Provenance = "measured here", **settings: object) -> System:
    model = f"organisation/{label.partition('@')[0].partition('[')[0]}"
    return System(label, model, provenance, f"results/{label}", "d03be74b361d4eb24f42a2fe5bd2e29917df4604", settings)


def score(task: str, kind: str, value: float, source: str = "") -> Score:
    return Score(
        task,
        kind,
        value,
        "test",
        ("default",),
        ("eng",),
        "0123456789abcdef",
        "main",
        "2.26.24",
        source or f"{task}.json",
    )


def compare_by_hand(
    systems: Sequence[System],
    cells: Mapping[tuple[str, str], Sequence[Score | Gap]],
    *,
    items: Mapping[tuple[str, str], Sequence[TaskDifference]] | None = None,
    ranks: Sequence[tuple[int, int]] | None = None,
    prices: Sequence[Price] = (),
    notes: Sequence[str] = (),
) -> Comparison:
    """Build a comparison from cells `{(task, type): one for each system}`; test results are given, not computed."""
    rows = tuple(TaskRow(task, kind, tuple(row), "test; default") for (task, kind), row in cells.items())
    common = tuple(row.task for row in rows if all(isinstance(cell, Score) for cell in row.cells))

    def mean(index: int, kind: str | None) -> float | None:
        values = [row.cells[index].value for row in rows if row.task in common and kind in {None, row.type}]
        return sum(values) / len(values) if values else None

    kinds = {row.type for row in rows if row.task in common}
    standings = [
        Standing(
            one,
            mean(i, None),
            {kind: mean(i, kind) for kind in sorted(kinds)},
            1,
            len(systems),
            sum(isinstance(row.cells[i], Score) for row in rows),
        )
        for i, one in enumerate(systems)
    ]
    standings.sort(key=lambda one: -(one.mean or 0))
    if ranks:
        standings = [replace(one, best_rank=a, worst_rank=b) for one, (a, b) in zip(standings, ranks, strict=True)]
    placed = [list(systems).index(standing.system) for standing in standings]
    duels = [_duel(rows, systems, i, j, items or {}) for i, j in combinations(placed, 2)]
    return Comparison(
        tuple(systems),
        rows,
        tuple(row.task for row in rows),
        common,
        tuple(standings),
        tuple(duels),
        0,
        tuple(prices),
        notes=tuple(notes),
        seed=7,
    )


def _duel(
    rows: Sequence[TaskRow],
    systems: Sequence[System],
    i: int,
    j: int,
    items: Mapping[tuple[str, str], Sequence[TaskDifference]],
) -> Duel:
    pairs = [(row.cells[i], row.cells[j]) for row in rows]
    differences = [a.value - b.value for a, b in pairs if isinstance(a, Score) and isinstance(b, Score)]
    first, second = systems[i], systems[j]
    by_task = items.get((first.label, second.label), ())
    if not differences:
        verdict = f"{first.label} and {second.label} share no task that can be compared."
        return Duel(first, second, 0, 0, None, None, None, None, None, 0, 0, 0, verdict, by_task)
    middle = sum(differences) / len(differences)
    return Duel(
        first,
        second,
        len(differences),
        len(differences),
        middle,
        middle - 0.012,
        middle + 0.012,
        0.4321,
        0.8642,
        sum(d > 0 for d in differences),
        sum(d == 0 for d in differences),
        sum(d < 0 for d in differences),
        f"{first.label} and {second.label} differ by {100 * middle:+.2f} points over {len(differences)} tasks: "
        "these results cannot separate the two (p = 0.864).",
        by_task,
    )


def two_published() -> Comparison:
    """Two self-reported systems on the 56 tasks of MTEB(eng, v1), without items and without gaps."""
    draw = random.Random(1)
    systems = [
        system("stella_en_1.5B_v5@1024", "self-reported", embed_dim=1024),
        system("bge_en_icl[shots=3]", "self-reported", embed_dim=4096, shots=3),
    ]
    cells = {}
    for kind, count in TYPES.items():
        for i in range(count):
            task = LONG if (kind, i) == ("Classification", 0) else f"{kind}Task{i + 1}"
            base = draw.uniform(0.3, 0.95)
            cells[task, kind] = [
                score(task, kind, base, "model card"),
                score(task, kind, min(base + draw.gauss(0, 0.03), 1), "results/external at f4cc6c8"),
            ]
    return compare_by_hand(
        systems, cells, notes=["Both are self-reported: nobody else has measured them under these settings."]
    )


def two_measured() -> Comparison:
    """Two systems on five tasks with items."""
    systems = [system("all_minilm_l6_v2"), system("all_minilm_l6_v2[bf16]", dtype="bfloat16")]
    values = {"STS12": (0.72, 0.70), "STS13": (0.81, 0.805), "STS14": (0.75, 0.76), "STS22": (0.66, 0.66)}
    cells = {(t, "STS"): [score(t, "STS", a), score(t, "STS", b)] for t, (a, b) in values.items()}
    cells["NFCorpus", "Retrieval"] = [score("NFCorpus", "Retrieval", 0.31), score("NFCorpus", "Retrieval", 0.30)]
    items = [
        TaskDifference("STS12", 0.02, 0.012, 0.028, 0.0001, 0.0005, 3108, "pairs"),
        TaskDifference("STS13", 0.005, -0.002, 0.012, 0.15, 0.6, 1500, "pairs"),
        TaskDifference("STS14", -0.01, -0.015, -0.005, 0.0002, 0.0008, 3750, "pairs"),
        TaskDifference("STS22", 0.0, -0.01, 0.01, 1.0, 1.0, 197, "pairs"),
    ]
    comparison = compare_by_hand(systems, cells, items={(systems[0].label, systems[1].label): items})
    labels = [
        {"label": "paraphrase", "pairs": 48, "gold_mean": 4.85, "cosine_mean": 0.684, "order_kept": 0.234},
        {"label": "negation", "pairs": 24, "gold_mean": 1.98, "cosine_mean": 0.916, "order_kept": None},
    ]
    return replace(comparison, per_label={"VideoSummarySTS": {systems[0].label: labels, systems[1].label: labels}})


def three_with_gaps(*, machines: Sequence[str] = ("Xeon, 2 cores",) * 3) -> Comparison:
    """Stella at three dimensions, with gaps, prices, and every place but the last in doubt."""
    systems = [system(f"stella@{size}", embed_dim=size, dtype="float32") for size in (256, 1024, 8192)]
    draw = random.Random(2)
    cells = {}
    for kind, count in {"Retrieval": 4, "STS": 5}.items():
        for i in range(count):
            base = draw.uniform(0.5, 0.9)
            cells[f"{kind}{i + 1}", kind] = [
                score(f"{kind}{i + 1}", kind, base + rise) for rise in (0, 0.011 + i / 1000, 0.013 + i / 900)
            ]
    whole = cells["STS2", "STS"][1]
    cells["STS2", "STS"] = [Gap("not run"), whole, Gap("another split: validation")]
    cells["Retrieval3", "Retrieval"][0] = Gap("another revision of the data: 89abcdef")
    prices = [
        Price(one, machine, "float32", 40_000 / size**0.1, 900 / size**0.1, 6_700_000_000, size * 4, 1_543_268_864)
        for one, size, machine in zip(systems, (256, 1024, 8192), machines, strict=True)
    ]
    notes = ["STS2 and Retrieval3 are in no mean.", "Two results do not state the revision of their data."]
    return compare_by_hand(systems, cells, ranks=[(1, 2), (1, 2), (3, 3)], prices=prices, notes=notes)


def ten_by_fifty() -> Comparison:
    """Ten systems on fifty tasks, with long sources and items everywhere: the largest report that must stay small."""
    draw = random.Random(3)
    systems = [system(f"organisation_model_{i}_v{i}@1024[bf16]", embed_dim=1024) for i in range(10)]
    source = "results/organisation__model/d03be74b361d4eb24f42a2fe5bd2e29917df4604/experiments/dtype_bfloat16/"
    cells = {}
    for number in range(50):
        kind = list(TYPES)[number % 7]
        task = f"{kind}Task{number}"
        base = draw.uniform(0.3, 0.9)
        cells[task, kind] = [
            score(task, kind, base + draw.gauss(0.005 * i, 0.02), f"{source}{task}.json") for i in range(10)
        ]
        if number % 5 == 0:
            cells[task, kind][number % 7] = Gap(f"another revision of the data: {number:08x}")
    items = {
        (a.label, b.label): [
            TaskDifference(task, middle, middle - 0.02, middle + 0.02, 0.04, 0.4, 1379, "pairs")
            for task, middle in ((task, draw.gauss(0, 0.02)) for task, _ in cells)
        ]
        for a, b in permutations(systems, 2)
    }
    ranks = [(1, 3), (1, 3), (1, 4), (3, 6), (4, 7), (4, 7), (4, 8), (7, 9), (8, 10), (9, 10)]
    prices = [
        Price(one, "H100", "bfloat16", 1e4 * (i + 1) ** 1.5, 1e3, 4_000_000_000, 4096, 10**9)
        for i, one in enumerate(systems)
    ]
    return compare_by_hand(systems, cells, items=items, ranks=ranks, prices=prices)


def hostile() -> Comparison:
    """A comparison whose names, reasons, notes and settings are markup or escape codes."""
    systems = [
        System(text, text, "measured here", text, text, {text: text, "embed_dim": 2**i})
        for i, text in enumerate(HOSTILE)
    ][:6]
    cells = {
        (text, HOSTILE[i - 1]): [
            Gap(text) if (i + j) % 5 == 0 else replace(score(text, HOSTILE[i - 1], 0.5 + j / 50, text), metric=text)
            for j, _ in enumerate(systems)
        ]
        for i, text in enumerate(HOSTILE)
    }
    cells["plain", "STS"] = [score("plain", "STS", 0.5 + j / 50) for j, _ in enumerate(systems)]
    items = {
        (a.label, b.label): [TaskDifference(HOSTILE[0], 0.01, -0.01, 0.03, 0.2, 0.4, 9, HOSTILE[3])]
        for a, b in permutations(systems, 2)
    }
    prices = [Price(one, HOSTILE[0], HOSTILE[3], 10.0 + i, 1.0, 1, 4, 1) for i, one in enumerate(systems)]
    comparison = compare_by_hand(systems, cells, items=items, prices=prices, notes=HOSTILE)
    labels = {text: {systems[0].label: [{"label": text, text: text, "pairs": 1}]} for text in HOSTILE}
    systems_of_one_model = tuple(replace(one, model=HOSTILE[0]) for one in systems)
    return replace(comparison, per_label=labels, systems=systems_of_one_model)


ALL = [two_published, two_measured, three_with_gaps, ten_by_fifty, hostile]
