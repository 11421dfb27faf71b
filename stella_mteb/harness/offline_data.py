"""Offline, MTEB sees every configuration of a data set that is in the cache.

A reranking task keeps its candidates in a configuration `top_ranked`, an instruction task its instructions in
`instruction`. MTEB asks `datasets` which there are, and `datasets` 5.2 answers `default` when it may not ask the hub,
whatever the cache holds. MTEB then ranks the whole corpus, without a word: another score.
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
def cached_configurations() -> Iterator[None]:
    """Within it (or in a function that it decorates), and only offline, MTEB finds the configurations of the cache."""
    if not datasets.config.HF_HUB_OFFLINE:
        yield
        return
    known = datasets.get_dataset_config_names

    def names(path: str, revision: str | None = None, **options: Any) -> list[str]:
        return sorted({*known(path, revision=revision, **options), *_cached(path, revision)})

    place, _, function = CONFIG_NAMES.partition(":")
    loaders = resolve_name(place)
    before = getattr(loaders, function)
    setattr(loaders, function, names)
    try:
        yield
    finally:
        setattr(loaders, function, before)


def _cached(path: str, revision: str | None) -> list[str]:
    """The configurations of a data set of the hub in the cache of `datasets`, prepared at a commit."""
    organisation, _, name = path.rpartition("/")
    folder = f"{organisation}___{camelcase_to_snakecase(name)}" if organisation else camelcase_to_snakecase(name)
    prepared = (Path(datasets.config.HF_DATASETS_CACHE) / folder).glob(f"*/*/{revision or '*'}/dataset_info.json")
    return [info.parents[2].name for info in prepared]
