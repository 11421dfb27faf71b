from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest

STELLA = "NovaSearch/stella_en_1.5B_v5"
OLD_NAME = "dunzhang/stella_en_1.5B_v5"
REVISION = "d03be74b361d4eb24f42a2fe5bd2e29917df4604"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
HEADS = [256, 768, 1024, 2048, 4096, 6144, 8192]
OUR_TASKS = ["VideoSummarySTS", "VideoSummaryRetrieval", "VideoSummaryFaithfulness"]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    import stella_mteb

    stella_mteb.register()


@pytest.fixture(scope="module")
def hub_cache(stella_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A hub cache with the tiny Stella under the pinned commit of the real one."""
    import huggingface_hub

    cache = tmp_path_factory.mktemp("hub")
    snapshots = cache / "models--NovaSearch--stella_en_1.5B_v5" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / REVISION).symlink_to(stella_folder, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="module")
def results(hub_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return MTEB's results of a run of our benchmark with a model found by name."""
    import mteb

    cache = mteb.ResultCache(tmp_path_factory.mktemp("results"))
    benchmark = mteb.get_benchmark("stella-video")
    encoder = mteb.get_model(STELLA, embed_dim=256, device="cpu")
    mteb.evaluate(encoder, benchmark, cache=cache, show_progress_bar=False)
    return cache.load_results(models=[STELLA], tasks=benchmark, load_experiments="match_name")


def user_task(folder: Path, name: str, second: str = "b") -> Any:
    from stella_mteb.harness.task_classes import task_class
    from stella_mteb.harness.task_yaml import load_task_file

    (folder / "pairs.csv").write_text(f"left,right,rating\na,{second},1\nc,d,4\n")
    path = folder / "task.yaml"
    path.write_text(
        f"name: {name}\ntype: STS\ndata: pairs.csv\ncolumns: {{sentence1: left, sentence2: right, score: rating}}\n"
    )
    return task_class(load_task_file(path))


# --------------------------------------------------------------------------------------------------------- models


@pytest.mark.versions
@pytest.mark.parametrize("name", [STELLA, OLD_NAME])
def test_stella_has_its_seven_heads_and_its_trained_length(name: str) -> None:
    import mteb

    meta = mteb.get_model_meta(name)

    assert meta.name == STELLA
    assert meta.embed_dim == HEADS
    assert meta.max_tokens == 512
    assert meta.revision == REVISION


@pytest.mark.versions
def test_facts_about_stella_from_mteb_are_kept() -> None:
    import mteb
    from mteb.models.model_implementations.stella_models import stella_en_1_5b as theirs

    ours = mteb.get_model_meta(STELLA)

    assert ours is not theirs
    for field in ("training_datasets", "license", "release_date", "n_parameters", "memory_usage_mb", "languages"):
        assert getattr(ours, field) == getattr(theirs, field)
    assert theirs.embed_dim == 8960  # MTEB's own object is not touched


@pytest.mark.versions
@pytest.mark.parametrize("name", [STELLA, OLD_NAME])
@pytest.mark.parametrize("dimension", [333, 512, 8960])
def test_a_dimension_that_stella_lacks_is_refused_before_anything_is_loaded(name: str, dimension: int) -> None:
    import mteb

    expected = rf"embedding dimension {dimension} is not in the model's supported .*256, 768, 1024.*8192"
    with pytest.raises(ValueError, match=expected):
        mteb.get_model(name, embed_dim=dimension)


@pytest.mark.versions
def test_a_model_found_by_name_is_the_one_that_load_encoder_gives(hub_cache: Path) -> None:
    import mteb

    from stella_mteb import load_encoder

    found = mteb.get_model(STELLA, embed_dim=256, device="cpu")
    loaded = load_encoder("stella_en_1.5B_v5@256", device="cpu")
    texts = ["A dog barks.", "Three boats leave the harbour."]

    for encoder in (found, loaded):
        meta = encoder.mteb_model_meta
        assert (meta.name, meta.revision, meta.embed_dim) == (STELLA, REVISION, 256)
        assert meta.experiment_kwargs["embed_dim"] == 256
    assert found.mteb_model_meta.experiment_name == loaded.mteb_model_meta.experiment_name
    np.testing.assert_array_equal(found.text_encoder.encode(texts), loaded.text_encoder.encode(texts))


@pytest.mark.versions
def test_settings_given_to_get_model_reach_the_engine_and_the_identity(hub_cache: Path) -> None:
    import mteb

    from stella_mteb import load_encoder

    settings = {"prompts": "leaderboard", "max_length": 64, "dtype": "bfloat16"}
    found = mteb.get_model(STELLA, embed_dim=768, device="cpu", **settings)
    loaded = load_encoder("stella_en_1.5B_v5@768[bf16,leaderboard,max_length=64]", device="cpu")

    assert found.text_encoder.max_length == 64
    assert found.text_encoder.fingerprint["dtype"] == "bfloat16"
    assert found.prompt_for(mteb.get_task("SciFact").metadata, None).text == (
        "Instruct: Given a scientific claim, retrieve documents that support or refute the claim\nQuery: "
    )
    assert found.mteb_model_meta.experiment_name == loaded.mteb_model_meta.experiment_name


@pytest.mark.versions
def test_normalize_given_to_get_model_is_not_swallowed(hub_cache: Path) -> None:
    """The vectors are unchanged, or the setting is refused."""
    import mteb

    from stella_mteb.errors import ConfigError

    try:
        encoder = mteb.get_model(STELLA, embed_dim=256, device="cpu", normalize=False)
    except (ConfigError, TypeError):
        return
    lengths = np.linalg.norm(encoder.text_encoder.encode(["a", "b c"]), axis=1)

    assert not np.allclose(lengths, 1.0)


@pytest.mark.versions
def test_the_old_name_finds_the_same_files(hub_cache: Path) -> None:
    import mteb

    new, old = (mteb.get_model(name, embed_dim=256, device="cpu") for name in (STELLA, OLD_NAME))

    assert old.resolved.revision == new.resolved.revision == REVISION
    np.testing.assert_array_equal(old.text_encoder.encode(["a"]), new.text_encoder.encode(["a"]))


@pytest.mark.versions
def test_minilm_by_name_is_ours_and_scores_as_through_load_encoder() -> None:
    import mteb

    from stella_mteb import load_encoder
    from stella_mteb.harness.adapter import Encoder

    by_name = mteb.get_model(MINILM, device="cpu", max_length=16)
    direct = load_encoder("all_minilm_l6_v2[max_length=16]", device="cpu")
    task = mteb.get_task("VideoSummarySTS")
    scores = [
        mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)[0].get_score()
        for encoder in (by_name, direct)
    ]

    assert isinstance(by_name, Encoder)
    assert scores[0] == scores[1]
    assert by_name.mteb_model_meta.experiment_name == direct.mteb_model_meta.experiment_name


# ---------------------------------------------------------------------------------------------- tasks, benchmark


@pytest.mark.versions
@pytest.mark.parametrize(("name", "task_type"), zip(OUR_TASKS, ["STS", "Retrieval", "PairClassification"], strict=True))
def test_our_tasks_are_found_by_name_type_and_language(name: str, task_type: str) -> None:
    import mteb

    assert mteb.get_task(name).metadata.type == task_type
    for found in (
        mteb.get_tasks(tasks=[name]),
        mteb.get_tasks(task_types=[task_type]),
        mteb.get_tasks(task_types=[task_type], languages=["eng"], modalities=["text"]),
    ):
        assert [task.metadata.name for task in found].count(name) == 1


@pytest.mark.versions
def test_the_benchmark_is_found_by_name_and_alias() -> None:
    import mteb

    by_name, by_alias = mteb.get_benchmark("StellaMTEB(video)"), mteb.get_benchmark("stella-video")

    assert by_name.name == by_alias.name == "StellaMTEB(video)"
    assert sorted(task.metadata.name for task in by_alias.tasks) == sorted(OUR_TASKS)
    assert "StellaMTEB(video)" in {benchmark.name for benchmark in mteb.get_benchmarks()}


@pytest.mark.versions
def test_registering_twice_changes_nothing() -> None:
    import mteb
    from mteb.models.model_implementations import MODEL_REGISTRY

    import stella_mteb

    tasks = importlib.import_module("mteb.get_tasks")

    def state() -> dict[str, Any]:
        return {
            "models": {name: meta.model_dump(exclude={"loader"}) for name, meta in MODEL_REGISTRY.items()},
            "loaders": {name: meta.loader for name, meta in MODEL_REGISTRY.items()},
            "task list": [task.metadata.name for task in tasks.TASK_LIST],
            "task registry": list(tasks._TASKS_REGISTRY),
            "benchmarks": sorted(benchmark.name for benchmark in mteb.get_benchmarks()),
            "benchmark": [task.metadata.name for task in mteb.get_benchmark("stella-video").tasks],
        }

    before = state()
    stella_mteb.register()
    after = state()

    assert after == before
    assert len(after["task list"]) == len(set(after["task list"]))
    assert set(OUR_TASKS) <= set(after["task list"])


@pytest.mark.versions
def test_a_task_of_mteb_is_never_replaced(tmp_path: Path) -> None:
    import mteb

    from stella_mteb.harness import registry

    theirs = type(mteb.get_task("STSBenchmark"))
    registry.add_task(user_task(tmp_path, "STSBenchmark"))

    assert type(mteb.get_task("STSBenchmark")) is theirs
    everything = mteb.get_tasks(task_types=["STS"], exclude_superseded=False)
    assert [type(task) for task in everything if task.metadata.name == "STSBenchmark"] == [theirs]
    assert registry.is_mteb_task("STSBenchmark")


@pytest.mark.versions
def test_a_task_of_a_user_is_found_and_a_later_one_of_its_name_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    from stella_mteb.harness import registry

    tasks = importlib.import_module("mteb.get_tasks")
    monkeypatch.setattr(tasks, "_TASKS_REGISTRY", dict(tasks._TASKS_REGISTRY))
    monkeypatch.setattr(tasks, "TASK_LIST", tasks.TASK_LIST)
    for second in ("first edition", "second edition"):
        registry.add_task(user_task(tmp_path, "MyOwnSTS", second))
        task = mteb.get_task("MyOwnSTS")
        task.load_data()

        assert task.dataset["test"]["sentence2"][0] == second
    assert [task.metadata.name for task in tasks.TASK_LIST].count("MyOwnSTS") == 1
    assert not registry.is_mteb_task("MyOwnSTS")
    assert "MyOwnSTS" in registry.task_names()


# ---------------------------------------------------------------------------------------------------- result table


def test_the_summary_table_of_the_benchmark_has_our_row(results: Any) -> None:
    frame = results.get_benchmark_result()
    main_scores = {r.task_name: r.get_score() for r in results.model_results[0].task_results}

    assert list(frame["Model"]) == [STELLA]
    assert set(main_scores) == set(OUR_TASKS)
    row = frame.iloc[0]
    assert row["Mean (Task)"] == pytest.approx(np.mean(list(main_scores.values())), abs=1e-6)
    assert row["STS"] == pytest.approx(main_scores["VideoSummarySTS"], abs=1e-6)


def test_a_table_made_before_registering_does_not_hide_the_model_afterwards(results: Any) -> None:
    from mteb.models.model_implementations import MODEL_REGISTRY

    import stella_mteb
    from stella_mteb.harness import registry

    ours = MODEL_REGISTRY.pop(STELLA)
    try:
        registry._clear_caches()
        hidden = results.get_benchmark_result()
        MODEL_REGISTRY[STELLA] = ours
        stale = results.get_benchmark_result()
    finally:
        MODEL_REGISTRY[STELLA] = ours
        stella_mteb.register()

    assert len(hidden) == len(stale) == 0  # MTEB says nothing, and goes on saying nothing
    assert list(results.get_benchmark_result()["Model"]) == [STELLA]


# ---------------------------------------------------------------------------------------------- used names of MTEB


@pytest.fixture
def fresh_check() -> Iterator[None]:
    """Repeat the check, which runs once per process, here and once again afterwards."""
    from stella_mteb.harness import lazy_columns, registry

    for check in (registry.require_names, lazy_columns.warn_of_unknown):
        check.cache_clear()
    yield
    for check in (registry.require_names, lazy_columns.warn_of_unknown):
        check.cache_clear()


def test_the_version_that_errors_recommend_is_the_one_in_the_constraints() -> None:
    from stella_mteb.harness.registry import NEWEST_TESTED

    constraints = Path(__file__).parents[2] / "constraints.txt"
    assert f"mteb=={NEWEST_TESTED}" in constraints.read_text().splitlines()


@pytest.mark.versions
@pytest.mark.parametrize(
    "place",
    [
        "mteb.get_tasks:_TASKS_REGISTRY",
        "mteb.get_tasks:TASK_LIST",
        "mteb.models.model_implementations:MODEL_REGISTRY",
        "mteb.abstasks.abstask:get_abstask_prompt",
        "mteb.abstasks.abstask:AbsTask._save_task_predictions",
        "mteb.abstasks.sts:AbsTaskSTS._calculate_scores",
        "mteb.abstasks.retrieval:AbsTaskRetrieval.task_specific_scores",
    ],
)
def test_a_private_name_that_is_gone_is_named_at_registration(
    place: str, monkeypatch: pytest.MonkeyPatch, fresh_check: None
) -> None:
    import mteb

    import stella_mteb
    from stella_mteb.errors import EnvironmentProblem

    owner, _, name = place.replace(":", ".").rpartition(".")
    monkeypatch.delattr(resolve_name(owner), name)

    with pytest.raises(EnvironmentProblem) as error:
        stella_mteb.register()
    assert f"mteb {mteb.__version__} " in str(error.value)
    assert name in str(error.value)
    assert "pip install mteb==" in str(error.value)


@pytest.mark.versions
def test_a_module_that_is_gone_is_named_at_registration(monkeypatch: pytest.MonkeyPatch, fresh_check: None) -> None:
    import stella_mteb
    from stella_mteb.errors import EnvironmentProblem

    monkeypatch.setitem(sys.modules, "mteb.benchmarks._create_table", None)  # as if it could not be imported
    monkeypatch.delattr("mteb.benchmarks._create_table", raising=False)

    with pytest.raises(EnvironmentProblem, match=r"there is no mteb\.benchmarks\._create_table"):
        stella_mteb.register()


@pytest.mark.versions
def test_a_method_that_is_replaced_must_have_the_parameters_that_are_used(
    monkeypatch: pytest.MonkeyPatch, fresh_check: None
) -> None:
    import mteb

    import stella_mteb
    from stella_mteb.errors import EnvironmentProblem

    monkeypatch.setattr(mteb.ResultCache, "save_to_cache", lambda self, task_result, model_name, model_revision: None)

    with pytest.raises(EnvironmentProblem, match=r"ResultCache\.save_to_cache has no parameter encode_kwargs"):
        stella_mteb.register()


@pytest.mark.versions
def test_a_new_parameter_of_mteb_is_no_reason_to_refuse_it(monkeypatch: pytest.MonkeyPatch, fresh_check: None) -> None:
    import mteb

    import stella_mteb

    original = mteb.ResultCache.save_to_cache

    def save_to_cache(self: Any, task_result: Any, model_name: Any, model_revision: Any = None, *,
                      encode_kwargs: Any = None, compress: bool = False) -> None:  # fmt: skip
        original(self, task_result, model_name, model_revision, encode_kwargs=encode_kwargs)

    monkeypatch.setattr(mteb.ResultCache, "save_to_cache", save_to_cache)
    stella_mteb.register()


@pytest.mark.versions
def test_a_task_that_is_seeded_in_another_way_is_refused() -> None:
    """Its samples would silently differ between models."""
    import mteb

    from stella_mteb.errors import EnvironmentProblem
    from stella_mteb.harness import registry

    task = mteb.get_task("STSBenchmark")
    del task.rng_state

    with pytest.raises(EnvironmentProblem, match="task STSBenchmark has no rng_state"):
        registry.reset_randomness(task)


@pytest.mark.versions
def test_a_reader_of_columns_that_has_changed_is_a_warning_that_names_it(
    monkeypatch: pytest.MonkeyPatch, fresh_check: None, caplog: pytest.LogCaptureFixture
) -> None:
    import mteb
    from mteb.abstasks.regression import AbsTaskRegression

    import stella_mteb

    monkeypatch.setattr(AbsTaskRegression, "_calculate_scores", lambda self, scores: None)

    with caplog.at_level("WARNING", "stella_mteb.harness.lazy_columns"):
        stella_mteb.register()
        stella_mteb.register()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert f"mteb {mteb.__version__}: mteb.abstasks.regression.AbsTaskRegression._calculate_scores" in warning
    assert "Scores are the same" in warning
    assert "pip install mteb==" in warning
