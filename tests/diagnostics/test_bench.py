"""Speed measurements: the order of timing, the counts, and the recommended token budget."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.diagnostics import bench
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.store import VectorStore
from tests.conftest import SHARED, needs_shared
from tests.support.spies import twin

TEXTS = [f"text {i}" for i in range(100)]


@pytest.fixture
def clock() -> Any:
    """A clock that changes only when `now` is set."""
    time = SimpleNamespace(now=0.0)
    time.read = lambda: time.now
    return time


# ---------------------------------------------------------------------------------------------------------- timing


def test_variants_alternate_after_an_untimed_run_of_each(clock: Any) -> None:
    runs: list[str] = []
    seconds = {"a": iter([100.0, 1.0, 2.0]), "b": iter([100.0, 4.0, 5.0])}

    def variant(name: str) -> Callable[[], None]:
        def run() -> None:
            runs.append(name)
            clock.now += next(seconds[name])

        return run

    times = bench.interleave({name: variant(name) for name in "ab"}, 2, clock.read)

    assert "".join(runs) == "ababab"
    assert times == {"a": [1.0, 2.0], "b": [4.0, 5.0]}


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians() -> None:
    """Rounds 1 and 2 are slowed down tenfold; within a round b takes at least twice as long."""
    times = {"a": [10.0, 10.0, 1.0], "b": [20.0, 21.0, 3.0]}

    found = bench.ratio(times, "b", "a")

    assert found == bench.Ratio(median=2.1, low=2.0, high=3.0)
    assert str(found) == "2.10 (2.00 to 3.00)"


@settings(max_examples=50, deadline=None)
@given(rounds=st.lists(st.tuples(*[st.floats(0.01, 100.0)] * 2), min_size=1, max_size=9), factor=st.floats(0.1, 10.0))
def test_a_machine_that_changes_speed_between_rounds_changes_no_ratio(
    rounds: list[tuple[float, float]], factor: float
) -> None:
    pace = [second for _, second in rounds]
    times = {"a": pace, "b": [factor * second for second in pace]}

    assert bench.ratio(times, "b", "a").median == pytest.approx(factor)


def test_all_heads_are_timed_with_one_pass_through_the_backbone() -> None:
    calls: list[Any] = []
    encoder = SimpleNamespace(device="cpu", dimension=256, dimensions=[256, 1024])
    encoder.pool = lambda _: calls.append("pool")
    encoder.project = lambda _, dimension: calls.append(dimension)

    bench.time_heads(encoder, TEXTS, 1)  # type: ignore[arg-type]

    one_and_all = ["pool", 256, "pool", 256, 1024]
    assert calls == one_and_all * 2


def test_a_device_that_slows_down_has_a_burst_above_its_sustained_rate(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each product takes a hundredth of a second for the first half second of a shape, then a fiftieth."""
    shapes: dict[tuple[int, ...], float] = {}

    def product(a: torch.Tensor, b: torch.Tensor) -> None:
        shape = (*a.shape, b.shape[1])
        shapes.setdefault(shape, clock.now)
        clock.now += 0.01 if clock.now - shapes[shape] < 0.5 else 0.02

    monkeypatch.setattr(torch, "mm", product)

    found = bench.matmul_rate("cpu", torch.float32, seconds=30.0, clock=clock.read)

    m, k, n = max((512, 1536, 8960), (2048, 2048, 1024), key=lambda shape: shape[0] * shape[1] * shape[2])
    assert found.burst == pytest.approx(2 * m * k * n / 0.01)
    assert found.sustained == pytest.approx(2 * m * k * n / 0.02, rel=0.05)


# -------------------------------------------------------------------------------------------------------- counting


def _empty(kind: str, **shape: Any) -> torch.nn.Module:
    import transformers

    with torch.device("meta"):
        return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**shape))


@pytest.fixture(scope="module")
def backbones() -> Mapping[str, torch.nn.Module]:
    """The real shapes, without weights."""
    from benchmarks.gpu import KEYS, SHAPES

    stella = _empty("Qwen2", **dict(zip(KEYS, SHAPES["stella"], strict=True)))
    stella.config.is_causal = False
    return {
        "stella": stella,
        "bge": _empty("Mistral", **dict(zip(KEYS, SHAPES["bge"], strict=True))),
        "minilm": _empty("Bert", hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stella", 2.62e9),
        ("bge", 13.96e9),
        ("minilm", 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)),  # neither embeddings nor pooler
    ],
)
def test_a_token_costs_two_operations_per_weight(
    backbones: Mapping[str, torch.nn.Module], name: str, expected: float
) -> None:
    assert bench.flops_per_token(backbones[name]) == pytest.approx(expected, rel=2e-3)


def test_attention_costs_by_length_and_half_if_causal(
    backbones: Mapping[str, torch.nn.Module],
) -> None:
    def attention(name: str) -> float:
        return bench.flops_per_token(backbones[name], 512) - bench.flops_per_token(backbones[name])

    assert attention("stella") == 4 * 1536 * 28 * 512
    assert attention("bge") == 2 * 4096 * 32 * 512


def test_the_attended_length_weighs_each_text_by_its_tokens() -> None:
    assert bench.attended_length([10, 30]) == (10 * 10 + 30 * 30) / 40
    assert bench.attended_length([]) == 0


def test_differences_compare_directions() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 2.0]])

    assert bench.differences(reference * 5, reference) == bench.Difference(0.0, 1.0)
    turned = bench.differences(np.array([[1.0, 0.0], [3.0, 4.0]]), reference)
    assert turned.max_difference == pytest.approx(0.6)
    assert turned.min_cosine == pytest.approx(0.8)


def test_a_nan_vector_is_not_a_small_difference() -> None:
    found = bench.differences(np.array([[np.nan, 1.0]]), np.array([[1.0, 0.0]]))

    assert not found.max_difference <= 1e6
    assert not found.min_cosine >= -1


def test_the_peak_includes_freed_memory() -> None:
    """Run in a separate process with a clean environment."""
    code = (
        "import numpy\n"
        "from stella_mteb.engine.devices import peak_memory\n"
        "before = peak_memory()\n"
        "numpy.ones(100_000_000)\n"
        "print(peak_memory() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert 700e6 < int(done.stdout) < 900e6


# --------------------------------------------------------------------------------------------------- token budgets


def _encoder(clock: Any, seconds: Callable[[int], float], *, tokens: int, fits: int = 10**9) -> Any:
    """A stand-in whose passes take a time set by its token budget, for 100 texts."""
    encoder = SimpleNamespace(token_budget=1024, batch_size=7, store="a store", device=torch.device("cpu"))
    encoder.tokenise = lambda texts: [range(tokens // len(texts))] * len(texts)

    def pool(_: Any) -> None:
        assert (encoder.store, encoder.batch_size) == (None, None)
        clock.now += seconds(encoder.token_budget)
        encoder.token_budget = min(encoder.token_budget, fits)

    encoder.pool = pool
    return encoder


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({256: 2.0, 512: 1.5, 1024: 1.02, 2048: 1.0, 4096: 1.0, 8192: 1.1}, 1024),  # within three per cent
        ({256: 2.0, 512: 1.5, 1024: 1.04, 2048: 1.0, 4096: 1.0, 8192: 1.1}, 2048),
        ({256: 1.0, 512: 1.2, 1024: 1.4, 2048: 1.6, 4096: 2.0, 8192: 3.0}, 256),
        ({256: 6.0, 512: 5.0, 1024: 4.0, 2048: 3.0, 4096: 2.0, 8192: 1.0}, 8192),
    ],
)
def test_the_smallest_budget_near_the_fastest_is_recommended(
    clock: Any, seconds: dict[int, float], expected: int
) -> None:
    encoder = _encoder(clock, seconds.__getitem__, tokens=20_000)

    found = bench.recommend_budget(encoder, TEXTS, clock=clock.read)

    assert found.recommended == expected
    assert found.tokens_per_second == pytest.approx({budget: 20_000 / each for budget, each in seconds.items()})
    assert found.out_of_memory is None


def test_budgets_end_at_the_memory_limit(clock: Any) -> None:
    encoder = _encoder(clock, lambda budget: 1 / budget, tokens=20_000, fits=1500)

    found = bench.recommend_budget(encoder, TEXTS, clock=clock.read)

    assert list(found.tokens_per_second) == [256, 512, 1024]
    assert (found.recommended, found.out_of_memory) == (1024, 2048)


def test_if_the_smallest_budget_does_not_fit_a_smaller_one_is_recommended(clock: Any) -> None:
    found = bench.recommend_budget(_encoder(clock, float, tokens=20_000, fits=130), TEXTS, clock=clock.read)

    assert (found.recommended, found.out_of_memory) == (130, 256)


def test_a_budget_that_the_texts_do_not_fill_twice_is_not_measured(clock: Any) -> None:
    found = bench.recommend_budget(_encoder(clock, float, tokens=2_100), TEXTS, clock=clock.read)

    assert list(found.tokens_per_second) == [256, 512, 1024]


def test_an_encoder_is_restored_even_after_an_error(clock: Any) -> None:
    encoder = _encoder(clock, float, tokens=20_000)
    bench.recommend_budget(encoder, TEXTS, clock=clock.read)
    assert (encoder.token_budget, encoder.batch_size, encoder.store) == (1024, 7, "a store")

    def fail(_: int) -> float:
        raise KeyboardInterrupt

    broken = _encoder(clock, fail, tokens=20_000)
    with pytest.raises(KeyboardInterrupt):
        bench.recommend_budget(broken, TEXTS, clock=clock.read)
    assert (broken.token_budget, broken.batch_size, broken.store) == (1024, 7, "a store")


def test_a_real_encoder_is_measured_without_its_store(stella: TextEncoder, tmp_path: Path) -> None:
    encoder = twin(stella)
    store = encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    encoder.pool(TEXTS[:1])

    found = bench.recommend_budget(encoder, TEXTS, repeats=1)

    assert found.recommended in found.tokens_per_second
    assert encoder.store is store
    assert len(store) == 1


# --------------------------------------------------------------------------------------------------------- scripts


def test_no_speed_is_reported_if_vectors_differ() -> None:
    from benchmarks.speed import ENGINE, REFERENCE, VectorsDifferError, compare

    rows = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    wrong = rows.copy()
    wrong[2, 3] += 0.01
    variants = {ENGINE: lambda: rows, REFERENCE: lambda: rows, "other": lambda: wrong}

    with pytest.raises(VectorsDifferError, match="other: a component differs from sentence-transformers"):
        compare(variants)
    with pytest.raises(VectorsDifferError, match="by nan"):
        compare(variants | {"other": lambda: wrong * np.nan})
    assert 0.99 < compare(variants, exempt=["other"])["other"]["min_cosine"] < 1


def test_the_padding_of_sentence_transformers_is_counted(minilm: TextEncoder) -> None:
    from benchmarks.speed import load_reference, padded_share
    from stella_mteb.models.resolve import resolve

    reference = load_reference(resolve("all_minilm_l6_v2").folder)
    texts = ["a a a a", "b b"]  # with [CLS] and [SEP] 6 and 4 tokens

    assert [len(ids) for ids in minilm.tokenise(texts)] == [6, 4]
    assert padded_share(reference, texts, 2) == pytest.approx(2 / 12)
    assert padded_share(reference, texts, 1) == 0


@needs_shared
def test_the_texts_of_a_workload_are_distinct_and_each_has_its_tokens() -> None:
    from benchmarks.workloads import workloads

    found = workloads(SHARED, 5_000, lambda text: len(text.split()))

    assert list(found) == ["sts", "passages", "long", "mixture"]
    for texts in found.values():
        assert len(set(texts)) == len(texts)
        words = [len(text.split()) for text in texts]
        assert sum(words[:-1]) < 5_000 <= sum(words)
    assert min(len(text.split()) for text in found["long"]) >= 200
    assert not set(found["mixture"]) & set(found["sts"])


def test_sentences_of_the_scaling_texts_are_distinct_and_as_long_as_the_real_ones() -> None:
    from benchmarks.scaling import distinct

    sentences = ["a red boat leaves the harbour", "two cooks argue", "the rain stops"]

    found = distinct(sentences, 60)

    assert len(set(found)) == len(found) == 60
    assert set(sentences) <= set(found)
    assert {len(text.split()) for text in found} == {3, 6}


def test_a_failure_in_one_half_of_the_gpu_table_leaves_the_backbone_on_its_device() -> None:
    from benchmarks import gpu

    class Backbone:
        places: ClassVar[list[str]] = []

        def float(self) -> Backbone:
            return self

        def to(self, device: str) -> None:
            self.places.append(device)

    class Setup:
        backbone, device, name = Backbone(), "meta", "stella"

        def encoder(self, backbone: Any, budget: int) -> Any:
            if backbone is not self.backbone:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return SimpleNamespace(encode=len)

    setup: Any = Setup()
    with pytest.raises(torch.OutOfMemoryError):
        gpu.table(setup)

    assert setup.backbone.places == ["cpu", "meta"]


@pytest.mark.slow
def test_the_gpu_script_runs_every_stage_on_a_tiny_shape(tmp_path: Path) -> None:
    out = tmp_path / "tiny.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device", "cpu", "--out", str(out)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert list(report) == ["stella", "bge"]
    for stages in report.values():
        assert [name for name, found in stages.items() if "error" in str(found)] == []
        check = stages["check"]
        assert check["float32_packed_to_float32"]["max_difference"] < 1e-5
        assert check["float32_alone_to_packed"]["max_difference"] < 1e-5
        assert check["bf16_packed_to_float32"]["min_cosine"] > 0.999
        assert check["text_by_its_neighbour"] == 0
        assert check["text_by_its_neighbour_if_it_saw_it"] > 0.1
        assert stages["peers"]["mixture"]["min_cosine"] > 0.999
    assert report["bge"]["check"]["first_state_by_own_last_token"] == 0
    assert report["stella"]["check"]["first_state_by_own_last_token"] > 0.01
