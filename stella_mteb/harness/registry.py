"""All of MTEB's private names live here, and in `mteb_speed`, which replaces slow functions; nowhere else.

MTEB has no plug-in mechanism: to be found by name is to stand in four private registries and to clear the
caches that were made from them. Checked on the versions of `CHECKED_VERSIONS`; `tests/harness/test_registry.py` fails
on another one until somebody has looked.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import mteb
import numpy as np
from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType

from stella_mteb.models.config import ModelConfig
from stella_mteb.prompts.profiles import Side, TaskInfo

CHECKED_VERSIONS = ("2.26.24",)
BENCHMARK = "StellaMTEB(video)"
BENCHMARK_ALIAS = "stella-video"
SAVE_PREDICTIONS = "_save_task_predictions"
"""The method of a task that MTEB calls with its predictions, if there is a folder for them."""

# `import mteb.get_tasks` gives the function of that name, not the module.
_tasks: Any = importlib.import_module("mteb.get_tasks")
_benchmarks: Any = importlib.import_module("mteb.benchmarks.benchmarks")
_MADE_FROM_REGISTRIES = [
    ("mteb.benchmarks.get_benchmark", "_build_registry"),
    ("mteb.benchmarks.get_benchmark", "_build_aliases_registry"),
    ("mteb.benchmarks._create_table", "_static_model_meta"),
    ("mteb.benchmarks._create_table", "_meta_df_no_zs"),
    ("mteb.benchmarks._create_table", "_meta_df_with_zs"),
    ("mteb.benchmarks._create_table", "_training_datasets_cached"),
    ("mteb.benchmarks._create_table", "_zero_shot_pct_cached"),
    ("mteb.results.benchmark_results", "_get_cached_model_metas"),
]


def add_model(name: str, meta: ModelMeta) -> None:
    """Make a model findable by name; an entry of the same name is replaced in this process."""
    MODEL_REGISTRY[name] = meta


def add_benchmark(attribute: str, benchmark: mteb.Benchmark) -> None:
    """Make a benchmark findable by its name and aliases.

    Call it last: it clears what MTEB computed from its registries, of models and tasks too.

    Args:
        attribute: Its name in MTEB's module of benchmarks.
        benchmark: The benchmark.
    """
    setattr(_benchmarks, attribute, benchmark)
    _clear_caches()


def add_task(task: Any) -> None:
    """Make one task class findable by name; a later one of the same name replaces it."""
    name = task.metadata.name
    known = _tasks._TASKS_REGISTRY.get(name)
    if known is not None and not getattr(known, "stella_mteb_spec", None):
        return  # never replace a task of MTEB itself
    _tasks._TASKS_REGISTRY[name] = task
    _tasks.TASK_LIST = (*(known_task for known_task in _tasks.TASK_LIST if known_task is not known), task)


def is_mteb_task(name: str) -> bool:
    """Whether MTEB itself has a task of that name."""
    known = _tasks._TASKS_REGISTRY.get(name)
    return known is not None and not getattr(known, "stella_mteb_spec", None)


def task_names() -> list[str]:
    """Every task name that MTEB knows, ours included."""
    return sorted(_tasks._TASKS_REGISTRY)


def _clear_caches() -> None:
    # A stale one makes `get_benchmark_result()` return an empty frame without a word.
    for module, name in _MADE_FROM_REGISTRIES:
        getattr(importlib.import_module(module), name).cache_clear()


def model_meta(
    config: ModelConfig,
    *,
    revision: str | None,
    dimensions: list[int] | None,
    experiment: Mapping[str, Any],
    loader: Callable[..., Any] | None = None,
) -> ModelMeta:
    """MTEB's description of a model.

    What MTEB knows of a model of that name (training data, licence, release date) is kept; what is wrong for
    Stella there is set right: 8960 "dimensions" are Qwen2's intermediate size, 131072 tokens its positions.

    Args:
        config: The model's config.
        revision: Commit, or fingerprint of a local folder.
        dimensions: Those on disk; None if the files are not at hand.
        experiment: What tells this way of running it from others; becomes part of the result folder.
        loader: How `mteb.get_model` loads it.
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
        "similarity_fn_name": ScoringFunction.COSINE,
        "use_instructions": bool(config.prompts.s2s or config.prompts.own),
    }
    known = MODEL_REGISTRY.get(config.full_name)
    if known is not None:
        return known.model_copy(update=update)
    unknown = dict.fromkeys(
        ("release_date", "languages", "n_parameters", "memory_usage_mb", "license", "open_weights",
         "public_training_code", "public_training_data", "training_datasets"),
    )  # fmt: skip
    return ModelMeta(**{**unknown, **update})


def task_info(metadata: TaskMetadata) -> TaskInfo:
    """What `stella_mteb.prompts` needs to know of an MTEB task."""
    return TaskInfo(
        name=metadata.name,
        type=str(metadata.type),
        instruction=_instructions(metadata.prompt),
        type_instruction=get_abstask_prompt(metadata.name),
        parents=tuple(
            (
                parent,
                _instructions(task.metadata.prompt).get(None) or _instructions(task.metadata.prompt).get("query"),
            )
            for parent in metadata.adapted_from or ()
            if (task := _tasks._TASKS_REGISTRY.get(parent)) is not None
        ),
    )


def _instructions(prompt: str | Mapping[str, str] | None) -> dict[Side, str]:
    if not prompt:
        return {}
    if isinstance(prompt, str):
        return {None: prompt}
    return {side: text for side, text in prompt.items() if side in ("query", "document")}  # type: ignore[misc]


def reset_randomness(task: Any) -> None:
    """Give a task the random state that it was made with.

    MTEB seeds a task when it is made, and the state moves on with every evaluation: clustering and multilabel tasks
    would draw other samples for the second model, or dimension, than for the first.
    """
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
    for part in task.metadata.tasks if task.is_aggregate else ():
        reset_randomness(part)


def side_of(prompt_type: PromptType | None) -> Side:
    """MTEB's prompt type as `stella_mteb.prompts` names it."""
    return None if prompt_type is None else prompt_type.value
