"""Stores pooled vectors on disk, so that a text goes through a backbone only once.

This holds after an interruption, in another task and for another dimension.

    <folder>/<store>/<uuid>.safetensors     keys uint8 [n, 16], vectors float32 [n, width], crc uint32 [n]
    <folder>/<store>/fingerprint.json       the meaning of the store's name; its date is that of the last use

Shards have unique names and are never changed, so writers need no lock, and a process finds what another one has
written as soon as it lacks a text. The stored vector is the one *before* the head, so one backbone pass serves every
dimension. Memory holds 28 bytes for each text; vectors are read from disk on demand and checked against their checksum.
The intact rows of a damaged shard are moved to a new one; the others are encoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from stella_mteb.errors import StellaMtebError, StorageProblem
from stella_mteb.files.atomic import atomic_write, read_json_object, remove_leftovers, write_json

if TYPE_CHECKING:
    from stella_mteb.engine.pooling import FloatMatrix

logger = logging.getLogger(__name__)

SCHEMA = "2"
_FLUSH_ROWS = 4_096
_FLUSH_SECONDS = 20.0
_COARSEST_CLOCK = 2 * 10**9
_KEY = np.dtype("S16")  # pads shorter keys with zero bytes, but every key has 16
_ROW_BITS = 32


class VectorStore:
    """The pooled vectors of one fingerprint, shared by calls and runs.

    Args:
        folder: Parent folder of all stores. In a read-only folder the store is read but not extended.
        fingerprint: Everything that changes a pooled vector, by name (`TextEncoder.fingerprint`).

    Raises:
        StorageProblem: If the store does not exist and cannot be created.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str]) -> None:
        self._named = {"schema": SCHEMA, **fingerprint}
        self.folder = store_folder(folder, fingerprint)
        self._shards: list[_Shard] = []
        # For every known text: its key, sorted, and the location of its vector, shard number << 32 | row.
        self._keys, self._where = np.empty(0, dtype=_KEY), np.empty(0, dtype=np.int64)
        self._unsorted: list[tuple[NDArray[np.bytes_], NDArray[np.int64]]] = []
        self._pending_keys: list[bytes] = []
        self._pending: list[FloatMatrix] = []
        self._flushed = time.monotonic()
        self._known: set[str] = set()
        self._looked = 0
        self.keeps = self._claim()
        self._look()

    def _claim(self) -> bool:
        """Create the folder or update the date of its last use; return whether it is writable."""
        label = self.folder / "fingerprint.json"
        try:
            if read_label(self.folder) != self._named:
                write_json(label, self._named)
            label.touch()
        except StorageProblem as error:
            raise _with_cure(error) from error
        except OSError as error:  # a read-only store that somebody else has filled
            logger.warning("%s: read-only (%s); new vectors are not stored", self.folder, error.strerror)
            return False
        remove_leftovers(self.folder.glob(".*.tmp"))
        return True

    def __len__(self) -> int:
        self._sort()
        return len(self._keys)

    def contains(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Check which keys are known, without reading their vectors."""
        return self._find(keys) >= 0

    def read(self, keys: Sequence[bytes], into: FloatMatrix) -> NDArray[np.bool_]:
        """Fill the rows of `into` whose key is known and whose vector is intact; return which rows these are."""
        where, found = self._find(keys), np.zeros(len(keys), dtype=bool)
        order = np.argsort(where)  # reads a file from front to back
        shards = where >> _ROW_BITS
        for number in np.unique(shards[where >= 0]):
            shard, damaged = self._shards[number], []
            try:
                with shard.path.open("rb") as file:
                    for i in order[shards[order] == number]:
                        try:
                            shard.read_row(file, int(where[i] % (1 << _ROW_BITS)), keys[i], into[i])
                            found[i] = True
                        except ValueError:
                            damaged.append(where[i])
            except FileNotFoundError:  # pruned or set aside by another process
                self._forget(self._where >> _ROW_BITS == number)
            except OSError as error:
                _pass_over(shard.path, error)
            if damaged:
                self._recover(number, damaged)
        return found

    def _recover(self, number: np.int64, damaged: Sequence[np.int64]) -> None:
        self._forget(np.isin(self._where, damaged))
        if not self.keeps:
            logger.warning("%s is damaged; the damaged vectors are encoded again", self._shards[number].path)
            return
        try:
            recover(self._shards[number].path)
        except FileNotFoundError:  # another process was first
            pass
        except OSError as error:
            _pass_over(self._shards[number].path, error)
        self._forget(self._where >> _ROW_BITS == number)  # the new shard with the intact rows is indexed instead
        self._looked = 0

    def add(self, keys: Sequence[bytes], vectors: FloatMatrix) -> None:
        """Add rows. They are written within some seconds, at the latest by `flush`."""
        if not self.keeps:
            return
        self._pending_keys += keys
        self._pending.append(vectors)
        overdue = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if len(self._pending_keys) >= _FLUSH_ROWS or overdue:
            self.flush()

    def flush(self) -> None:
        """Write the added rows as one shard.

        Raises:
            StorageProblem: If the disk is full or the folder cannot be written; the rows stay in memory.
        """
        self._flushed = time.monotonic()
        if not self._pending_keys:
            return
        vectors = np.ascontiguousarray(np.concatenate(self._pending), dtype=np.float32)
        keys = np.frombuffer(b"".join(self._pending_keys), dtype=np.uint8).reshape(-1, 16)
        if not (self.folder / "fingerprint.json").exists():  # somebody has deleted the folder
            self._claim()
        try:
            path = write_shard(self.folder, keys, vectors)
        except StorageProblem as error:
            raise _with_cure(error) from error
        self._known.add(path.name)
        self._index(*open_shard(path))
        self._pending_keys, self._pending = [], []

    def _look(self) -> bool:
        """Index new shards; return whether there may be any."""
        try:
            changed = self.folder.stat().st_mtime_ns
        except FileNotFoundError:  # somebody has deleted the folder
            return False
        if changed == self._looked:
            return False
        # If a folder changed just now, a further change may not change its date.
        self._looked = changed if time.time_ns() - changed > _COARSEST_CLOCK else 0
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._known:
                continue
            self._known.add(path.name)
            try:
                self._index(*open_shard(path))
            except FileNotFoundError:  # set aside by another process
                pass
            except DAMAGE as error:
                _set_aside(path, error)
            except OSError as error:
                _pass_over(path, error)
        return True

    def _forget(self, which: NDArray[np.bool_]) -> None:
        self._keys, self._where = self._keys[~which], self._where[~which]

    def _index(self, shard: _Shard, keys: NDArray[np.bytes_]) -> None:
        where = (len(self._shards) << _ROW_BITS) + np.arange(len(keys), dtype=np.int64)
        self._shards.append(shard)
        self._unsorted.append((keys, where))

    def _sort(self) -> None:
        if not self._unsorted:
            return
        keys, first = np.unique(np.concatenate([keys for keys, _ in self._unsorted]), return_index=True)
        where = np.concatenate([where for _, where in self._unsorted])[first]
        self._unsorted = []
        unknown = self._find_sorted(keys) < 0  # another writer may have encoded the same text
        at = np.searchsorted(self._keys, keys[unknown])
        self._keys = np.insert(self._keys, at, keys[unknown])
        self._where = np.insert(self._where, at, where[unknown])

    def _find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        self._sort()
        wanted = np.array(keys, dtype=_KEY)
        where = self._find_sorted(wanted)
        if (where < 0).any() and self._look():
            self._sort()
            where = self._find_sorted(wanted)
        return where

    def _find_sorted(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        if not len(self._keys):
            return np.full(len(keys), -1, dtype=np.int64)
        at = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._where[at], -1)


# ------------------------------------------------------------------------------------------------------------ shards


@dataclass(frozen=True)
class _Shard:
    """One file: the offset and width of its vectors, and the checksum of each."""

    path: Path
    offset: int
    width: int
    crc: NDArray[np.uint32]

    def read_row(self, file: IO[bytes], row: int, key: bytes, into: FloatMatrix) -> None:
        """Read one vector; raise ValueError if it differs from what was written under this key."""
        file.seek(self.offset + row * self.width * 4)
        # Not a memory map: if another process truncates the file, access to a map kills this process.
        if into.shape != (self.width,) or file.readinto(into) != into.nbytes:  # type: ignore[attr-defined]
            raise ValueError("a row is truncated")
        if _checksum(key, into) != self.crc[row]:
            raise ValueError("the checksum of a row does not match")


DAMAGE = (SafetensorError, KeyError, ValueError)
"""Exceptions of a damaged file; an OSError says nothing about its content."""


def open_shard(path: Path) -> tuple[_Shard, NDArray[np.bytes_]]:
    """Open a shard without reading its vectors; return it and its keys. Raises one of `DAMAGE` if it is damaged."""
    with safe_open(path, framework="numpy") as shard:  # checks that header and length agree
        keys, crc = shard.get_tensor("keys"), shard.get_tensor("crc")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        vectors = json.loads(file.read(length))["vectors"]
    rows, width = vectors["shape"]
    if (keys.shape, keys.dtype, crc.shape, crc.dtype) != ((rows, 16), np.uint8, (rows,), np.uint32):
        raise ValueError("its keys, checksums and vectors do not match")
    return _Shard(path, 8 + length + vectors["data_offsets"][0], width, crc), keys.view(_KEY).ravel()


def write_shard(folder: Path, keys: NDArray[np.uint8], vectors: FloatMatrix) -> Path:
    """Write rows as a new shard.

    Args:
        folder: The store.
        keys: uint8 [rows, 16].
        vectors: float32 [rows, width].

    Raises:
        StorageProblem: If it cannot be written.
    """
    crc = np.fromiter((_checksum(key.tobytes(), row) for key, row in zip(keys, vectors, strict=True)), np.uint32)
    path = folder / f"{uuid.uuid4().hex}.safetensors"
    with atomic_write(path, "wb") as file:
        file.write(save({"keys": keys.copy(), "vectors": vectors, "crc": crc}))
    return path


def recover(path: Path) -> str:
    """Read every vector of a shard. If one is damaged, move the intact ones to a new shard and set the shard aside.

    Returns:
        A description of the damage; empty if there is none.

    Raises:
        OSError: If it cannot be read.
        StorageProblem: If the new shard cannot be written; the old one stays.
    """
    try:
        shard, keys = open_shard(path)
    except DAMAGE as error:
        return _set_aside(path, error)
    vectors = np.empty((len(keys), shard.width), dtype=np.float32)
    good, damage = np.zeros(len(keys), dtype=bool), ValueError()
    with path.open("rb") as file:
        for row, key in enumerate(keys):
            try:
                shard.read_row(file, row, key.ljust(16, b"\0"), vectors[row])
                good[row] = True
            except ValueError as error:
                damage = error
    if good.all():
        return ""
    if good.any():
        write_shard(path.parent, keys[good].view(np.uint8).reshape(-1, 16), vectors[good])
    return _set_aside(path, damage, f"{good.sum()} of its {len(good)} vectors are kept")


def _checksum(key: bytes, vector: FloatMatrix) -> int:
    # The checksum covers the key: a vector with a damaged key would be used for another text.
    return zlib.crc32(vector.tobytes(), zlib.crc32(key))


def _set_aside(path: Path, error: Exception, left: str = "its texts are encoded again") -> str:
    aside = path.with_suffix(".damaged")
    with contextlib.suppress(OSError):
        path.rename(aside)
    logger.warning("%s is damaged (%s); set aside as %s, %s", path, error, aside.name, left)
    return f"{error}; set aside, {left}"


def _pass_over(path: Path, error: OSError) -> None:
    logger.warning("%s cannot be read now (%s); its texts are encoded again", path, error.strerror or error)


def _with_cure(error: StorageProblem) -> StorageProblem:
    return StorageProblem(
        f"{error}. Vectors are stored there: free space, or see --cache, --no-cache and STELLA_MTEB_CACHE; finished "
        "work is kept"
    )


def store_folder(folder: Path, fingerprint: Mapping[str, str]) -> Path:
    """Return the folder of the store with this fingerprint; see `VectorStore`."""
    text = json.dumps({"schema": SCHEMA, **fingerprint}, sort_keys=True)
    return folder / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def read_label(folder: Path) -> dict[str, str]:
    """Read the meaning of a store's name; empty if `fingerprint.json` is lost."""
    try:
        return {key: str(value) for key, value in read_json_object(folder / "fingerprint.json").items()}
    except StellaMtebError:
        return {}


def text_key(prompt: str, text: str) -> bytes:
    """Return the 16-byte key of a prompted text."""
    head, tail = (part.encode("utf-8", "surrogatepass") for part in (prompt, text))
    # The length distinguishes ("a", "bc") from ("ab", "c"): the end of the prompt can matter to the pooling.
    return hashlib.blake2b(len(head).to_bytes(8, "big") + head + tail, digest_size=16).digest()
