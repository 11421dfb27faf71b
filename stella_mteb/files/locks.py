"""Locks for work that two processes must not do at the same time.

A lock is a lock of the operating system (flock). It ends with its process, so it is never stale. The files in
`<output>/.stella-mteb/locks` are not locks themselves; they record the last holder.

On a network file system, locks work between machines if it supports them (NFS 4 does; Lustre with the mount option
`flock`). Without support there is a warning and no lock. Files are then still complete, but two processes may run the
same task, and if both write to a file at the same instant, only one of the two changes survives; the next run computes
the other one again.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from stella_mteb.errors import StorageProblem

OWN_FOLDER = ".stella-mteb"
"""Subfolder of an output folder for internal files."""

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
_PATIENCE = 2.0


@contextlib.contextmanager
def locked(output: Path, name: str, what: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock within the block. Locks of the same name in the same output folder exclude each other.

    Args:
        output: The output folder.
        name: Name of the lock; this thread must not hold it already.
        what: Description of the work for the message to a waiting user, which also names the holder.
        wait: Whether to wait for the lock.

    Yields:
        Whether the lock is held; False if another process has it and `wait` is not set.

    Raises:
        StorageProblem: If the folder cannot be written.
    """
    path = output / OWN_FOLDER / "locks" / f"{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}.lock"
    lock = FileLock(path, fallback_to_soft=False, on_acquired=_sign)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=_PATIENCE if wait else 0)
        if wait and not lock.is_locked:
            logger.warning("%s: waiting for %s", what, _owner(path))
            lock.acquire(poll_interval=0.5)
        held = lock.is_locked
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise StorageProblem(f"{path}: cannot be written: {error.strerror or error}") from error
        _warn_once(output)
        held = True
    try:
        yield held
    finally:
        if lock.is_locked:
            lock.release()


def writing(output: Path, folder: Path) -> contextlib.AbstractContextManager[bool]:
    """Lock a folder for the milliseconds in which its files are read and rewritten."""
    return locked(output, str(folder.relative_to(output)), f"the files in {folder}")


def _sign(descriptor: int) -> None:
    now = datetime.datetime.now(tz=datetime.UTC).isoformat(sep=" ", timespec="seconds")
    with contextlib.suppress(OSError):  # the lock holds even if the disk is full
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} (since {now})".encode(), 0)


def _owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"


@functools.cache
def _warn_once(output: Path) -> None:
    logger.warning(
        "%s: this file system has no locks; do not run two processes on the same task here at the same time", output
    )
