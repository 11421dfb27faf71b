"""Lets MTEB find every cached configuration of a data set when offline.

A reranking task keeps its candidates in the configuration `top_ranked`, an instruction task its instructions in
`instruction`. MTEB asks `datasets` for the list of configurations. Offline, `datasets` 5.2 always answers `default`,
even if the cache has others; MTEB then silently ranks the whole corpus, which gives a different score.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import datasets
from datasets.naming import camelcase_to_snakecase

from stella_mteb.harness.registry import CONFIG_NAMES


@contextmanager
def cached_configurations(task: Any) -> Iterator[None]:
    """Add cached configurations of a task's data to what MTEB finds, within the block, when offline.

    Raises:
        ConnectionError: From the task's loader, if it is a reranking and its candidates are not in the cache.
    """
    if not datasets.config.HF_HUB_OFFLINE:
        yield
        return
    known = datasets.get_dataset_config_names

    def names(path: str, revision: str | None = None, **options: Any) -> list[str]:
        # Configurations that `datasets` has prepared in its cache, at this commit.
        owner, _, name = path.rpartition("/")
        folder = Path(
            datasets.config.HF_DATASETS_CACHE, "___".join(filter(None, (owner, camelcase_to_snakecase(name))))
        )
        prepared = folder.glob(f"*/*/{revision or '*'}/dataset_info.json")
        found = sorted({*known(path, revision=revision, **options), *(info.parents[2].name for info in prepared)})
        if "Reranking" in task.metadata.type and not any(config.endswith("top_ranked") for config in found):
            raise ConnectionError(f"of {path} the cache has no configuration top_ranked, the candidates to rank")
        return found

    place, _, function = CONFIG_NAMES.partition(":")
    loaders = resolve_name(place)
    before = getattr(loaders, function)
    setattr(loaders, function, names)
    try:
        yield
    finally:
        setattr(loaders, function, before)
