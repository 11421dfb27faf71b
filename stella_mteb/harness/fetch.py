"""Fetch the files of models and tasks from the hub, or say which are on this machine and how large they are.

Everything goes through the loaders that a run uses, so that it lands in the caches where a run looks for it.
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

_RETRIEVAL = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}


@dataclass(frozen=True)
class Item:
    """One thing to fetch.

    Attributes:
        kind: `model`, `data` or `examples`.
        name: On the hub, or of the task that examples are for.
        revision: The commit; None for the newest.
        tasks: The tasks that read it.
        get: Fetches it; does nothing where it is here.
        is_here: Whether it is on this machine, without asking the network.
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
        tasks: MTEB tasks; local data is not the hub's.
    """
    configs = [find_config(spec.name, known_config, spec.registered_as) for spec in specs]
    for spec, config in zip(specs, configs, strict=True):
        if config.hub is not None and config.path is None:
            find = partial(resolve, spec, registry=known_config)
            here = _holds(partial(find, offline=True))
            yield Item("model", config.hub.name, config.hub.revision, (), partial(find, offline=False), here)
    hub = [task for whole in tasks for task in (whole.metadata.tasks if whole.is_aggregate else [whole])]
    for task in hub:
        file = getattr(task, "stella_mteb_file", None)
        if file is None or not file.is_local:
            source = task.metadata.dataset
            yield Item(
                "data", source["path"], source.get("revision"), (task.metadata.name,), _loads(task), _is_prepared(task)
            )
    if any((spec.prompts or config.prompts.profile) == "icl" for spec, config in zip(specs, configs, strict=True)):
        for name in (task.metadata.name for task in hub if task.metadata.name in published()["sha256"]):
            get = partial(find_examples, name, None)
            here = _holds(partial(get, offline=True))
            yield Item("examples", name, published()["commit"], (name,), partial(get, offline=False), here)


def _holds(find: Callable[[], object]) -> Callable[[], bool]:
    def is_here() -> bool:
        try:
            find()
        except StellaMtebError:
            return False
        return True

    return is_here


def _loads(task: Any) -> Callable[[], object]:
    def get() -> None:
        task.load_data()
        task.unload_data()

    return get


def _is_prepared(task: Any) -> Callable[[], bool]:
    """Whether `datasets` has every configuration of a task's data in its cache; no data is read."""
    source = task.metadata.dataset

    def is_here() -> bool:
        offline, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
        try:
            for name in _configurations(task):
                datasets.load_dataset_builder(source["path"], name, revision=source.get("revision"))
        except (OSError, ValueError):  # ConnectionError is an OSError
            return False
        finally:
            datasets.config.HF_HUB_OFFLINE = offline
        return True

    return is_here


def _configurations(task: Any) -> list[str | None]:
    if task.metadata.type in _RETRIEVAL:
        subsets = [f"{subset}-" if subset != "default" else "" for subset in task.hf_subsets]
        return [f"{subset}{part}" for subset in subsets for part in ("corpus", "queries")]
    return list(task.hf_subsets) if task.metadata.is_multilingual else [task.metadata.dataset.get("name")]


def size(item: Item) -> int | None:
    """Bytes of an item's files on the hub; of a data set with many configurations, of all of them. None if unknown."""
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
    """Why something could not be fetched, and the cure."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, GatedRepoError):
            return "gated: accept its terms on its page of the hub and set HF_TOKEN"
        if isinstance(link, RevisionNotFoundError):
            return "changed: the hub has it no longer at this commit; a newer version of mteb may name another"
        if isinstance(link, RepositoryNotFoundError):
            return "missing: the hub has no such repository, or it is private (HF_TOKEN)"
        link = link.__cause__ or link.__context__
    return f"{type(error).__name__}: {error}"


FAULTS = (StellaMtebError, HfHubHTTPError, OSError, ValueError, RuntimeError)
"""`Item.get` and `size` may raise these."""
