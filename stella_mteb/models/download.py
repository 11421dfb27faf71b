"""Finds a model's files at their commit in the hub's cache, or downloads them."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stella_mteb.errors import EnvironmentProblem
from stella_mteb.files.folders import hub_cache_folder
from stella_mteb.models.config import Hub

logger = logging.getLogger(__name__)

# Only safetensors: unpickling weights can run code.
DOWNLOADED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
NOT_DOWNLOADED = ["onnx/*", "openvino/*", "*.bin", "*.pt", "*.msgpack", "*.h5"]
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DISK = {*_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def fetch(hub: Hub, *, offline: bool, remote_code: bool) -> Path:
    """Return the folder of a repository in the hub's cache; download missing files unless offline.

    The client retries after a failure. Complete files, and parts of large files where symlinks work, are kept
    for the next start.

    Raises:
        EnvironmentProblem: If the files are unavailable; the text says why and how to get them.
    """
    import huggingface_hub  # noqa: PLC0415 -- reads the environment on import, which --offline must set before
    from huggingface_hub.errors import HTTPError  # noqa: PLC0415 -- an alias that exists with any HTTP library

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
                size = sum(file.file_size or 0 for file in files) / 1e9
                logger.info("downloading %s from the hub: %d files, %.2f GB", hub.name, len(files), size)
                _keep_parts(hub, files)
        folder = Path(huggingface_hub.snapshot_download(**what, tqdm_class=_bar()))
        for part in folder.parents[1].glob("blobs/*.part"):
            if part.with_suffix("").exists():  # the client, or another process, brought the whole
                with suppress(OSError):
                    part.unlink()
    except (HTTPError, OSError) as error:
        raise EnvironmentProblem(_explained(hub, error, offline=offline)) from error
    if not any(folder.glob("*.safetensors")):
        raise EnvironmentProblem(f"model {hub.name}: {folder} has no *.safetensors; {_by_hand(hub)}")
    return folder


def _keep_parts(hub: Hub, files: Iterable[Any]) -> None:
    """Put large files into the hub's cache by way of a part that outlives this process.

    The client (huggingface-hub 1.18 and newer, with hf-xet or without) discards what an interrupted download has
    received, and Stella's weights are one file of 6 GB. What fails here is left to the client, except where it would
    fail too and discard more.
    """
    from huggingface_hub.errors import HTTPError  # noqa: PLC0415

    for file in files:
        try:
            _keep_part(hub, file)
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", 500)  # none: the connection is lost
            lost = isinstance(error, HTTPError) and (status == 429 or status >= 500)
            if lost or (isinstance(error, OSError) and error.errno in _FULL):
                raise
            logger.info("%s is left to the hub's client: %s", file.filename, error)


def _keep_part(hub: Hub, file: Any) -> None:
    from huggingface_hub import constants, file_download  # noqa: PLC0415
    from huggingface_hub.utils import WeakFileLock  # noqa: PLC0415

    cache, folder = Path(constants.HF_HUB_CACHE), file_download.repo_folder_name(repo_id=hub.name, repo_type="model")
    if not constants.DOWNLOAD_CHUNK_SIZE < (file.file_size or 0) < constants.MAX_HTTP_DOWNLOAD_SIZE:
        return  # less than the client writes at once, or more than the hub sends in one answer
    if not file_download.are_symlinks_supported(cache):
        return  # the client would copy the file, which takes the space twice
    url = file_download.hf_hub_url(hub.name, file.filename, revision=file.commit_hash)
    etag = file_download.get_hf_file_metadata(url, retry_on_errors=True).etag
    if not etag:
        return
    blob = cache / folder / "blobs" / etag
    lock = cache / ".locks" / folder / f"{etag}.lock"  # the client's own
    for place in (blob, lock):
        place.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not blob.exists():
            part = blob.with_name(f"{etag}.part")
            sha256 = _complete(part, url, file)
            if len(etag) == 64 and sha256 != etag:  # the etag of a large file is its sha256
                part.unlink(missing_ok=True)
                raise OSError("it arrived damaged, and was discarded")
            part.replace(blob)


def _complete(part: Path, url: str, file: Any) -> str:
    """Download what a part lacks and return the sha256 of the whole.

    On a file system that grants a lock to everyone several processes write into one part. Each writes the true bytes
    at their place, never "at the end", so that none damages what another has written.
    """
    from huggingface_hub.file_download import http_get  # noqa: PLC0415
    from huggingface_hub.utils import build_hf_headers  # noqa: PLC0415

    part.touch()
    with part.open("r+b") as out:
        size = out.seek(0, os.SEEK_END)
        if size > file.file_size:
            size = out.truncate(out.seek(0))
        http_get(
            url,
            out,
            resume_size=size,
            headers=build_hf_headers(),
            expected_size=file.file_size,
            displayed_filename=file.filename,
            tqdm_class=_bar(),
        )
        out.seek(0)
        return hashlib.file_digest(out, "sha256").hexdigest()


def _bar() -> type:
    from tqdm import tqdm  # noqa: PLC0415

    class Bar(tqdm):  # type: ignore[misc]
        """A progress bar that is shown only on a terminal, and not affected by TQDM_DISABLE."""

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

    causes: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        causes.append(link)
        link = link.__cause__ or link.__context__

    def met(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    # The client hides HTTP errors behind "not in the cache".
    statuses = (getattr(getattr(cause, "response", None), "status_code", None) for cause in causes)
    status = next((status for status in statuses if status), None)
    disk = next((cause for cause in causes if isinstance(cause, OSError) and cause.errno in _DISK), None)
    model, kept = f"model {hub.name}", "what has arrived is kept; run the same command again to resume"
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    why = "not in the hub's cache, and " + ("offline" if offline else "no network; --offline avoids the wait")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    cases = [
        (
            met(GatedRepoError),
            f"{model} is gated: request access at {constants.ENDPOINT}/{hub.name}, then {log_in}",
        ),
        (
            met(RevisionNotFoundError),
            f"{model} has no commit {hub.revision} on the hub; correct `hub.revision` in the model's YAML",
        ),
        (
            met(RepositoryNotFoundError) or status in {401, 403},
            f"the hub has no {model}, or you have no access ({status}): check the name; if it is private, {log_in}",
        ),
        (status == 404, f"{model} lacks a file that the hub lists ({lines[-1]}); {_by_hand(hub)}"),
        (status == 429, f"too many requests to the hub (429): wait some minutes, or {log_in}; {kept}"),
        (status, f"the hub failed with status {status} for {model}: try again later; {kept}"),
        (
            disk and disk.errno in _FULL,
            f"no space for {model} in {hub_cache_folder()}: free some, or set HF_HOME to another disk; {kept}",
        ),
        (
            disk,
            f"{model} cannot be saved in {hub_cache_folder()} ({disk and disk.strerror}): set HF_HOME to another "
            "folder",
        ),
        (met(LocalEntryNotFoundError), f"{model} is not on this machine ({why}); {_by_hand(hub)}"),
        (True, f"{model}: the connection to the hub was interrupted ({lines[0]}); {kept}"),
    ]
    return next(text for holds, text in cases if holds)


def _by_hand(hub: Hub) -> str:
    pinned = f" --revision {hub.revision}" if hub.revision else ""
    return (
        f"on a machine with network run `stella-mteb fetch -m {hub.name}` (or `hf download {hub.name}{pinned}`) and "
        "copy the cache, or give a folder with the files: as `path:` in the YAML, or as the model"
    )
