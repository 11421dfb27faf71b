"""Access to the private names of MTEB that this project uses.

MTEB has no plug-in mechanism. It finds a model, task or benchmark by name only if its private registries hold an entry
and the caches made from them are cleared. `require_names` checks every private name at registration, so that an
incompatible MTEB causes an error that names what is missing, not a wrong score.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import mteb
import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType

import stella_mteb
from stella_mteb.errors import EnvironmentProblem
from stella_mteb.models.config import ModelConfig
from stella_mteb.models.identity import is_ours
from stella_mteb.prompts.profiles import Side, TaskInfo

NEWEST_TESTED = "2.26.24"
"""The version in constraints.txt."""
CURE = f"install a newer stella-mteb, or the mteb that this one was tested with: pip install mteb=={NEWEST_TESTED}"
BENCHMARK = "StellaMTEB(video)"
BENCHMARK_ALIAS = "stella-video"
SAVE_PREDICTIONS = "_save_task_predictions"
"""Method of a task that MTEB calls with the predictions if a prediction folder is given."""
CONFIG_NAMES = "mteb.abstasks.retrieval_dataset_loaders:get_dataset_config_names"
"""Function with which MTEB lists the configurations of a retrieval data set."""

_TASKS, _TASK_LIST = "mteb.get_tasks:_TASKS_REGISTRY", "mteb.get_tasks:TASK_LIST"
_MODELS = "mteb.models.model_implementations:MODEL_REGISTRY"
_BENCHMARKS = "mteb.benchmarks.benchmarks"
_TYPE_PROMPT = "mteb.abstasks.abstask:get_abstask_prompt"
_OLDER_FOLDER = "mteb:MTEB._create_output_folder"
_WITH_CACHES = ("mteb.benchmarks.get_benchmark", "mteb.benchmarks._create_table", "mteb.results.benchmark_results")
"""Modules whose cached functions depend on the registries."""
_USED = {
    **dict.fromkeys((_TASKS, _TASK_LIST, _MODELS, _BENCHMARKS, *_WITH_CACHES), ""),
    _TYPE_PROMPT: "task_name",
    _OLDER_FOLDER: "model_meta output_folder",
    CONFIG_NAMES: "path revision",
    "mteb.cli:main": "",
    "mteb:evaluate": "model tasks cache overwrite_strategy encode_kwargs show_progress_bar co2_tracker",
    "mteb:ResultCache.load_task_result": "task_name model_name model_revision experiment_name",
    "mteb:ResultCache.save_to_cache": "task_result model_name model_revision encode_kwargs",
    "mteb:ResultCache.get_task_result_path": "task_name model_name model_revision experiment_name",
    "mteb.models:ModelMeta": "loader_kwargs experiment_kwargs",
    "mteb.models:ModelMeta.experiment_name": "",
    "mteb.abstasks:AbsTask.evaluate": "model split subsets_to_run prediction_folder",
    "mteb.abstasks:AbsTask.unload_data": "",
    f"mteb.abstasks:AbsTask.{SAVE_PREDICTIONS}": "predictions hf_split hf_subset",
    "mteb.abstasks:AbsTaskRetrieval.task_specific_scores": "scores hf_split hf_subset",
    "mteb.abstasks:AbsTaskSTS._calculate_scores": "scores normalized_scores",
}
"""Every private name that this room uses, with the parameters that it must have."""


@functools.cache
def require_names() -> None:
    """Check every private name of MTEB that this room uses, and the parameters of every function that it replaces.

    Raises:
        EnvironmentProblem: If one is missing. The text states the name, MTEB's version and the cure.
    """
    for place, parameters in _USED.items():
        found = _of_mteb(place)
        if missing := set(parameters.split()).difference(inspect.signature(found).parameters if parameters else ()):
            raise _changed(f"{place} has no parameter {', '.join(sorted(missing))}")


def _of_mteb(place: str) -> Any:
    try:
        return resolve_name(place)
    except (ImportError, AttributeError) as error:
        raise _changed(f"there is no {place}") from error


def _changed(what: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"mteb {mteb.__version__} is not as stella-mteb {stella_mteb.__version__} needs it: {what}; {CURE}"
    )


def add_model(name: str, meta: ModelMeta) -> None:
    """Make a model findable by name. An entry of the same name is replaced in this process."""
    _of_mteb(_MODELS)[name] = meta


def add_benchmark(attribute: str, benchmark: mteb.Benchmark) -> None:
    """Make a benchmark findable by its name and aliases.

    Call it after `add_model` and `add_task`: it also clears the caches that MTEB made from its registries.

    Args:
        attribute: Name of the variable in MTEB's benchmark module.
        benchmark: The benchmark.
    """
    setattr(_of_mteb(_BENCHMARKS), attribute, benchmark)
    _clear_caches()


def add_task(task: Any) -> None:
    """Make a task class findable by name. It replaces an earlier class of this project, but never one of MTEB."""
    name = task.metadata.name
    if is_mteb_task(name):
        return
    previous = _of_mteb(_TASKS).get(name)
    _of_mteb(_TASKS)[name] = task
    others = (other for other in _of_mteb(_TASK_LIST) if other is not previous)
    module, _, attribute = _TASK_LIST.partition(":")
    setattr(_of_mteb(module), attribute, (*others, task))


def is_mteb_task(name: str) -> bool:
    """Check whether MTEB itself has a task of this name."""
    known = _of_mteb(_TASKS).get(name)
    return known is not None and not getattr(known, "stella_mteb_spec", None)


def task_facts(name: str) -> tuple[str, tuple[str, ...], str | None]:
    """Return type, evaluated splits and main score of a task, or `("unknown", (), None)` if MTEB does not know it."""
    task = _of_mteb(_TASKS).get(name)
    if task is None:
        return "unknown", (), None
    return str(task.metadata.type), tuple(task.metadata.eval_splits), str(task.metadata.main_score)


def task_names() -> list[str]:
    """Return every registered task name, including those of this project."""
    return sorted(_of_mteb(_TASKS))


def _clear_caches() -> None:
    # With a stale cache, `get_benchmark_result()` silently returns an empty frame.
    for module in map(_of_mteb, _WITH_CACHES):
        for function in vars(module).values():
            if isinstance(function, functools._lru_cache_wrapper):
                function.cache_clear()


@functools.cache
def keep_runs_apart() -> None:
    """Give each run of MTEB's older runner, `mteb.MTEB(tasks).run(model, output_folder=...)`, its own folder.

    That runner names folders by model and revision only, so a run of `@1024` would find the result of `@256`. Models of
    this project get the folder that `mteb.evaluate` gives them. Other models keep theirs.
    """
    create = _of_mteb(_OLDER_FOLDER)

    @functools.wraps(create)
    def create_for_each_run(self: Any, model_meta: ModelMeta, output_folder: str | None) -> Path | None:
        path: Path | None = create(self, model_meta, output_folder)
        if path is None or not is_ours(model_meta.experiment_kwargs or {}):
            return path
        path = path / "experiments" / str(model_meta.experiment_name)
        path.mkdir(parents=True, exist_ok=True)
        return path

    mteb.MTEB._create_output_folder = create_for_each_run


def model_meta(
    config: ModelConfig,
    *,
    revision: str | None,
    dimensions: list[int] | None,
    experiment: Mapping[str, Any],
    similarity: str = "cosine",
    loader: Callable[..., Any] | None = None,
) -> ModelMeta:
    """Build MTEB's description of a model.

    Facts from MTEB's entry of the same name (training data, licence, release date) are kept. Its wrong values for
    Stella are corrected: MTEB gives Qwen2's intermediate size, 8960, as a dimension, and 131072 positions as the input
    length.

    Args:
        config: The model's config.
        revision: Commit on the hub, or fingerprint of a local folder.
        dimensions: Dimensions on disk; None if the files are not available.
        experiment: Settings that distinguish this run from others; they become part of the result folder.
        similarity: Similarity function for two vectors.
        loader: Function with which `mteb.get_model` loads the model.
    """
    update = {
        "name": config.full_name,
        "revision": revision or "no_revision_available",
        "embed_dim": dimensions or config.dimensions or config.dimension,
        "max_tokens": experiment["max_length"],
        "experiment_kwargs": dict(experiment),
        "loader": loader,
        "loader_kwargs": {},
        "framework": ["PyTorch", "Transformers", "safetensors"],
        "similarity_fn_name": ScoringFunction(similarity),
        "use_instructions": bool(config.prompts.s2s or config.prompts.own or config.prompts.template),
    }
    known = _of_mteb(_MODELS).get(config.full_name)
    if known is not None:
        if config.registered_as and known.similarity_fn_name:
            del update["similarity_fn_name"]  # MTEB's wrapper compares pairs by its entry, not by the model folder
        return known.model_copy(update=update)
    unknown = dict.fromkeys(
        ("release_date", "languages", "n_parameters", "memory_usage_mb", "license", "open_weights",
         "public_training_code", "public_training_data", "training_datasets"),
    )  # fmt: skip
    return ModelMeta(**{**unknown, **update})


def task_info(metadata: TaskMetadata) -> TaskInfo:
    """Collect the facts of an MTEB task that `stella_mteb.prompts` needs."""
    return TaskInfo(
        name=metadata.name,
        type=str(metadata.type),
        instruction=_instructions(metadata.prompt),
        type_instruction=_of_mteb(_TYPE_PROMPT)(metadata.name),
        parents=tuple(
            (
                parent,
                _instructions(task.metadata.prompt).get(None) or _instructions(task.metadata.prompt).get("query"),
            )
            for parent in metadata.adapted_from or ()
            if (task := _of_mteb(_TASKS).get(parent)) is not None
        ),
    )


def _instructions(prompt: str | Mapping[str, str] | None) -> dict[Side, str]:
    if not prompt:
        return {}
    if isinstance(prompt, str):
        return {None: prompt}
    return {side: text for side, text in prompt.items() if side in ("query", "document")}  # type: ignore[misc]


def reset_randomness(task: Any) -> None:
    """Reset the random state of a task to its seed.

    MTEB seeds a task once, and every evaluation advances the state. Without a reset, clustering and multilabel tasks
    would draw different samples for the second model or dimension.
    """
    if missing := {"seed", "rng_state", "np_rng"} - vars(task).keys():
        raise _changed(f"task {task.metadata.name} has no {', '.join(sorted(missing))}")
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
    for part in task.metadata.tasks if task.is_aggregate else ():
        reset_randomness(part)


def side_of(prompt_type: PromptType | None) -> Side:
    """Translate MTEB's prompt type into a side of `stella_mteb.prompts`."""
    return None if prompt_type is None else prompt_type.value
