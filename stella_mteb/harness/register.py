"""Registers this project's models, tasks and benchmark with MTEB."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import mteb
from mteb.cli import main as mteb_main

from stella_mteb.harness import lazy_columns, registry
from stella_mteb.harness.adapter import load_for_mteb
from stella_mteb.harness.task_classes import task_class
from stella_mteb.harness.task_yaml import bundled_tasks
from stella_mteb.models.config import bundled_models
from stella_mteb.models.identity import default_identity


def register() -> None:
    """Register this project's models, tasks and benchmark with MTEB, in this process. Idempotent.

    Afterwards `mteb.get_model("NovaSearch/stella_en_1.5B_v5", embed_dim=256)`, `mteb.get_task("VideoSummarySTS")`,
    `mteb.get_benchmark("stella-video")` and MTEB's command line (`stella-mteb mteb run ...`) find them. MTEB's own
    entries of the same models are replaced: its Stella cannot be loaded with transformers 5.

    Raises:
        EnvironmentProblem: If MTEB lacks a private name that this project uses (`registry.require_names`).
    """
    registry.require_names()
    lazy_columns.warn_of_unknown()
    for config in bundled_models():
        for name in (config.full_name, *(config.hub.aliases if config.hub else ())):
            meta = registry.model_meta(
                config,
                revision=config.hub.revision if config.hub else None,
                dimensions=None,
                experiment=default_identity(config),
                loader=load_for_mteb,
            )
            registry.add_model(name, meta)
    for task_file in bundled_tasks().values():
        registry.add_task(task_class(task_file))
    video = mteb.Benchmark(
        name=registry.BENCHMARK,
        aliases=[registry.BENCHMARK_ALIAS],
        tasks=[
            task_class(file)() for file in bundled_tasks().values() if file.spec.data and file.spec.layout == "rows"
        ],
        description="Video-summary similarity on the data bundled with stella-mteb; no download.",
    )
    registry.add_benchmark("stella_video", video)


def mteb_command_line(arguments: Sequence[str]) -> None:
    """Run MTEB's command line in this process, with this project's models and tasks registered."""
    register()
    sys.argv = ["mteb", *arguments]
    mteb_main()
