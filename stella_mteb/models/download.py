"""A model's files at their commit: from the hub's cache, or fetched into it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stella_mteb.errors import EnvironmentProblem
from stella_mteb.files.folders import hub_cache_folder
from stella_mteb.models.config import Hub

logger = logging.getLogger(__name__)

# Weights as safetensors only: a pickle can run code when it is read.
DOWNLOADED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
NOT_DOWNLOADED = ["onnx/*", "openvino/*", "*.bin", "*.pt", "*.msgpack", "*.h5"]
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DISK = {*_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def fetch(hub: Hub, *, offline: bool, remote_code: bool) -> Path:
    """The folder of a repository in the hub's cache; what is not there is fetched, unless offline.

    The hub's client asks again after a failure, and goes on within a file whose transfer broke. Files that it has
    finished are kept for the next start.

    Raises:
        EnvironmentProblem: If the files are not to be had; the text says why and how to get them.
    """
    import huggingface_hub  # noqa: PLC0415 -- reads its environment on import, which --offline sets first
    from huggingface_hub.errors import HTTPError  # noqa: PLC0415 -- that of httpx, by whichever name

    what: dict[str, Any] = {
        "repo_id": hub.name,
        "revision": hub.revision,
        "allow_patterns": [*DOWNLOADED, *(["*.py"] if remote_code else [])],
        "ignore_patterns": NOT_DOWNLOADED,
        "local_files_only": offline,
    }
    try:
        if not offline:
            files = [file for file in huggingface_hub.snapshot_download(**what, dry_run=True) if file.will_download]
            if files:
                size = sum(file.file_size for file in files) / 1e9
                logger.info("fetching %s from the hub: %d files, %.2f GB", hub.name, len(files), size)
        folder = Path(huggingface_hub.snapshot_download(**what, tqdm_class=_bar()))
    except (HTTPError, OSError) as error:
        raise EnvironmentProblem(_explained(hub, error, offline=offline)) from error
    if not any(folder.glob("*.safetensors")):
        raise EnvironmentProblem(f"model {hub.name}: {folder} holds no *.safetensors; {_by_hand(hub)}")
    return folder


def _bar() -> type:
    from tqdm import tqdm  # noqa: PLC0415

    class Bar(tqdm):  # type: ignore[misc]
        """Shown on a terminal, and nowhere else, whatever TQDM_DISABLE says of other libraries' bars."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": None})

    return Bar


def _explained(hub: Hub, error: Exception, *, offline: bool) -> str:
    from huggingface_hub import constants  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes = list(_causes(error))

    def met(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    # The client hides an answer that it did not like behind "not in the cache".
    statuses = (getattr(getattr(cause, "response", None), "status_code", None) for cause in causes)
    status = next((status for status in statuses if status), None)
    disk = next((cause for cause in causes if isinstance(cause, OSError) and cause.errno in _DISK), None)
    model, kept = f"model {hub.name}", "files that are complete are kept, and the same command goes on"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    why = "not in the hub's cache, and " + ("offline" if offline else "no network; --offline saves the waiting")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    cases = [
        (met(GatedRepoError), f"{model} is gated: ask for access at {constants.ENDPOINT}/{hub.name}, then {log_in}"),
        (
            met(RevisionNotFoundError),
            f"{model} has no commit {hub.revision} on the hub; correct `hub.revision` in the model's YAML",
        ),
        (
            met(RepositoryNotFoundError) or status in {401, 403},
            f"the hub has no {model} for you ({status}): correct the name; if it is private, {log_in}",
        ),
        (status == 404, f"{model} lacks a file that the hub lists ({lines[-1]}); {_by_hand(hub)}"),
        (status == 429, f"the hub asks for fewer requests (429): wait some minutes, or {log_in}; {kept}"),
        (status, f"the hub failed ({status}) over {model}: try again later; {kept}"),
        (
            disk and disk.errno in _FULL,
            f"no space for {model} in {hub_cache_folder()}: make room, or set HF_HOME to another disk; {kept}",
        ),
        (
            disk,
            f"{model} cannot be kept in {hub_cache_folder()} ({disk and disk.strerror}): set HF_HOME to another folder",
        ),
        (met(LocalEntryNotFoundError), f"{model} is not on this machine ({why}); {_by_hand(hub)}"),
        (True, f"{model}: the connection to the hub broke ({lines[0]}); {kept}"),
    ]
    return next(text for holds, text in cases if holds)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _by_hand(hub: Hub) -> str:
    pinned = f" --revision {hub.revision}" if hub.revision else ""
    return (
        f"on a machine with network run `stella-mteb fetch -m {hub.name}` (or `hf download {hub.name}{pinned}`) and "
        "copy the cache, or give the folder with the files: `path:` in the YAML, or its path as the model"
    )
