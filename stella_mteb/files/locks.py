"""One process at a time, where two would undo each other's work.

A lock is the operating system's (flock): it ends with its process, however that ends, so no lock is ever stale. The
files that stay behind in `<output>/.stella-mteb/locks` are none; they say who held one last.

On a network file system locks hold between machines where the file system has them (NFS 4 does; Lustre with the mount
option `flock`). Where there are none, a warning says so and the work goes on. Every file is whole then too, the old one
or the new; but two processes may do one task twice, and of what they finish in the same instant for the same file only
the later part may stand, and the next run computes the other again.
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
"""What of an output folder is neither a result nor of use to anybody else."""

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
_PATIENCE = 2.0


@contextlib.contextmanager
def locked(output: Path, name: str, what: str, *, wait: bool = True) -> Iterator[bool]:
    """Within it no other process is within it, of those that give the same name for the same output folder.

    Args:
        output: The output folder.
        name: Of the lock; not one that this thread holds already.
        what: For the message of who waits, which names the process and the machine that it waits for.
        wait: Whether to wait at all.

    Yields:
        Whether the lock is held: False if another process has it and `wait` is not set.

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
            logger.warning("%s: %s is at it; waiting", what, _owner(path))
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
    """The lock of whoever reads files of one folder in order to write them anew; for milliseconds."""
    return locked(output, str(folder.relative_to(output)), f"the files in {folder}")


def _sign(descriptor: int) -> None:
    now = datetime.datetime.now(tz=datetime.UTC).isoformat(sep=" ", timespec="seconds")
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
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
        "%s: this file system has no locks; let no two processes work on the same task here at the same time", output
    )
