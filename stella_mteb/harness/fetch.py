"""Downloads the files of models and tasks from the hub, or reports which are on this machine and their size.

Downloads use the same loaders as a run, so files land in the caches where a run looks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import datasets
import huggingface_hub
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from stella_mteb.errors import StellaMtebError
from stella_mteb.harness.known_models import known_config
from stella_mteb.models.download import DOWNLOADED, NOT_DOWNLOADED
from stella_mteb.models.locate import find_config
from stella_mteb.models.resolve import resolve
from stella_mteb.models.spec import Spec
from stella_mteb.prompts.examples import find_examples, published

_SEARCHED = {
    "Retrieval": ("corpus", "queries"),
    "InstructionRetrieval": ("corpus", "queries"),
    "Reranking": ("corpus", "queries", "top_ranked"),
    "InstructionReranking": ("corpus", "queries", "top_ranked"),
}


@dataclass(frozen=True)
class Item:
    """Something to download.

    Attributes:
        kind: `model`, `data` or `examples`.
        name: Name on the hub; for `examples`, the name of the task.
        revision: The commit; None for the newest.
        tasks: The tasks that read it.
        get: Downloads it unless it is here.
        is_here: Checks without network whether it is on this machine.
    """

    kind: Literal["model", "data", "examples"]
    name: str
    revision: str | None
    tasks: tuple[str, ...]
    get: Callable[[], object]
    is_here: Callable[[], bool]


def items(specs: Sequence[Spec], tasks: Sequence[Any]) -> Iterator[Item]:
    """List what models and tasks need from the hub: weights, data sets, published examples.

    Args:
        specs: The models.
        tasks: MTEB tasks; tasks on local data need nothing.
    """
    configs = [find_config(spec.name, known_config, spec.registered_as) for spec in specs]
    for spec, config in zip(specs, configs, strict=True):
        if config.hub is not None and config.path is None:
            find = partial(resolve, spec, registry=known_config)
            here = partial(_succeeds, partial(find, offline=True))
            yield Item("model", config.hub.name, config.hub.revision, (), partial(find, offline=False), here)
    hub = [task for whole in tasks for task in (whole.metadata.tasks if whole.is_aggregate else [whole])]
    for task in hub:
        file = getattr(task, "stella_mteb_file", None)
        if file is None or not file.is_local:
            data, names = task.metadata.dataset, (task.metadata.name,)

            def load(task: Any = task) -> None:
                task.load_data()
                task.unload_data()

            yield Item("data", data["path"], data.get("revision"), names, load, partial(_is_prepared, task))
    if any((spec.prompts or config.prompts.profile) == "icl" for spec, config in zip(specs, configs, strict=True)):
        for name in (task.metadata.name for task in hub if task.metadata.name in published()["sha256"]):
            get = partial(find_examples, name, None)
            here = partial(_succeeds, partial(get, offline=True))
            yield Item("examples", name, published()["commit"], (name,), partial(get, offline=False), here)


def _succeeds(find: Callable[[], object]) -> bool:
    try:
        find()
    except StellaMtebError:
        return False
    return True


def _is_prepared(task: Any) -> bool:
    """Check whether every configuration of a task's data is in the cache of `datasets`, without reading the data."""
    metadata, source = task.metadata, task.metadata.dataset
    names: list[str | None] = [source.get("name")]
    if parts := _SEARCHED.get(metadata.type):
        subsets = [f"{subset}-" if subset != "default" else "" for subset in task.hf_subsets]
        names = [f"{subset}{part}" for subset in subsets for part in parts]
    elif metadata.is_multilingual and not task.fast_loading:  # which is all subsets from one configuration
        names = list(task.hf_subsets)
    offline, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        for name in names:
            datasets.load_dataset_builder(source["path"], name, revision=source.get("revision"))
    except (OSError, ValueError):  # ConnectionError is an OSError
        return False
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    return True


def size(item: Item) -> int | None:
    """Return the bytes of an item's files on the hub, or None if unknown. A data set counts all its configurations."""
    if item.kind == "examples":
        return None
    api = huggingface_hub.HfApi()
    if item.kind == "model":
        found = api.model_info(item.name, revision=item.revision, files_metadata=True)
        wanted = huggingface_hub.utils.filter_repo_objects(
            found.siblings or [],
            allow_patterns=DOWNLOADED,
            ignore_patterns=NOT_DOWNLOADED,
            key=lambda file: file.rfilename,
        )
        return sum(file.size or 0 for file in wanted)
    data = api.dataset_info(item.name, revision=item.revision, files_metadata=True)
    return sum(file.size or 0 for file in data.siblings or [])


def fault(error: BaseException) -> str:
    """Explain why a download failed and how to fix it."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, GatedRepoError):
            return "gated: accept the terms on its hub page and set HF_TOKEN"
        if isinstance(link, RevisionNotFoundError):
            return "changed: the hub no longer has this commit; a newer version of mteb may name another"
        if isinstance(link, RepositoryNotFoundError):
            return "missing: the hub has no such repository, or it is private (HF_TOKEN)"
        link = link.__cause__ or link.__context__
    return f"{type(error).__name__}: {error}"


FAULTS = (StellaMtebError, HfHubHTTPError, OSError, ValueError, RuntimeError)
"""Exceptions that `Item.get` and `size` may raise."""
