from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from stella_mteb.compare.comparison import best
from stella_mteb.compare.facts import model_facts, number_of_parameters, within
from stella_mteb.compare.records import ModelFacts, Score, System
from stella_mteb.compare.text import render_comparison
from stella_mteb.errors import ConfigError
from stella_mteb.harness.mteb_facts import load_facts
from tests.support.comparisons import two_published

MODELS = [
    "NovaSearch/stella_en_1.5B_v5",
    "BAAI/bge-en-icl",
    "sentence-transformers/all-MiniLM-L6-v2",
    "google/gemini-embedding-001",
    "Qwen/Qwen3-Embedding-8B",
    "nvidia/NV-Embed-v2",
    "BAAI/bge-large-en-v1.5",
]


def row(model: str, **settings: object) -> System:
    return System(model, model, "measured by others", "r", None, settings)


def test_parameters_licence_date_and_zero_shot_share_equal_mtebs() -> None:
    tasks = list(load_facts()["benchmarks"]["MTEB(eng, v2)"]["tasks"])
    code = (
        "import json, mteb\n"
        f"tasks = {tasks!r}\n"
        f"metas = [mteb.get_model_meta(name, fetch_from_hf=False) for name in {MODELS!r}]\n"
        "print(json.dumps([[m.n_parameters, str(m.license) if m.license else None, m.open_weights,\n"
        "    str(m.release_date), m.zero_shot_percentage(tasks)] for m in metas]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    for model, expected in zip(MODELS, json.loads(done.stdout.splitlines()[-1]), strict=True):
        found = model_facts(row(model), load_facts(), tasks)
        assert found.zero_shot is not None
        share = int(100 * found.zero_shot + 1e-9)
        assert [found.parameters, found.license, found.open, found.released, share] == expected


def test_length_and_dimension_come_from_the_row_the_config_or_mteb() -> None:
    stella, other = "NovaSearch/stella_en_1.5B_v5", "Qwen/Qwen3-Embedding-8B"

    def of(system: System) -> tuple[int | None, int | None]:
        found = model_facts(system, load_facts(), ())
        return found.max_tokens, found.dimension

    assert of(row(stella, embed_dim=256, max_length=128)) == (128, 256)
    assert of(row(stella)) == (512, 8192)
    assert of(row(other)) == (32768, 4096)


def test_a_model_that_mteb_does_not_know_has_no_facts() -> None:
    assert model_facts(row("org/nobody"), load_facts(), ["STS12"]) == ModelFacts()


def test_limits_exclude_larger_closed_and_unstated_models_with_a_note() -> None:
    scores = {row(model): {} for model in [*MODELS, "org/nobody"]}

    kept, notes = within(scores, load_facts(), max_parameters=8 * 10**9, open_weights=False)
    small, _ = within(scores, load_facts(), max_parameters=10**9, open_weights=False)
    free, why = within(scores, load_facts(), max_parameters=None, open_weights=True)

    assert [system.model for system in kept] == [MODELS[i] for i in (0, 1, 2, 4, 5, 6)]
    assert notes == [
        "Left out, MTEB does not state the number of parameters: google/gemini-embedding-001 and org/nobody"
    ]
    assert [system.model for system in small] == [MODELS[2], MODELS[6]]
    assert [system.model for system in free] == [MODELS[i] for i in (0, 1, 2, 4, 5, 6)]
    assert why == ["Left out, weights not known to be open: google/gemini-embedding-001 and org/nobody"]


@pytest.mark.parametrize(
    ("text", "number"), [("8B", 8 * 10**9), ("1.5 b", 1_500_000_000), ("600M", 600_000_000), ("7", 7)]
)
def test_a_number_of_parameters_has_a_unit_or_none(text: str, number: int) -> None:
    assert number_of_parameters(text) == number


def test_an_invalid_number_of_parameters_is_refused_with_the_fix() -> None:
    with pytest.raises(ConfigError, match="'eight' is not a number of parameters; write 8B, 600M or 1000000"):
        number_of_parameters("eight")


def test_the_terminal_view_has_a_table_of_facts() -> None:
    comparison = two_published()
    stella, bge = (system.label for system in comparison.systems)
    facts = {
        stella: ModelFacts(1_540_000_000, 512, 8192, "mit", True, "2024-07-12", 0.678),
        bge: ModelFacts(None, None, None, None, False, None, None),
    }

    shown = render_comparison(replace(comparison, facts=facts), "table", 80)

    assert re.search(r"stella\S+5@1024 +1\.54 B +512 +8,192 +mit +2024-07 +67 %\n", shown)
    assert re.search(r"bge_en_icl\[shots=3\] +- +- +- +closed +- +-\n", shown)


def test_top_keeps_the_highest_means_and_the_named_systems() -> None:
    tasks = [f"T{i}" for i in range(6)]
    scores = {
        row(f"org/m{i}"): {
            task: Score(task, "STS", i / 10 + number / 100, "test", ("default",)) for number, task in enumerate(tasks)
        }
        for i in (3, 1, 5, 2, 4)
    }
    named = [system for system in scores if system.model in {"org/m1", "org/m5"}]

    assert [system.model for system in best(scores, 2)] == ["org/m5", "org/m4"]
    assert [system.model for system in best(scores, 2, kept=named)] == ["org/m3", "org/m1", "org/m5", "org/m4"]
