"""Pooled vectors on disk: no text goes through a backbone twice.

Not after an interruption, not in another task, not for another dimension.

    <folder>/<fingerprint>/<uuid>.safetensors     keys uint8 [n, 16], vectors float32 [n, width], crc uint32 [n]
    <folder>/<fingerprint>/fingerprint.json       what the fingerprint stands for

Shards are written once, under a name of their own, and never changed: two writers cannot collide and need no
lock. What is kept is the vector *before* the head, so that every dimension comes out of one backbone pass.
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
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from stella_mteb.engine.encoder import FloatMatrix
from stella_mteb.files import atomic_write, write_json

logger = logging.getLogger(__name__)

SCHEMA = "1"
_FLUSH_ROWS = 4_096
_FLUSH_SECONDS = 20.0


class VectorStore:
    """The pooled vectors of one fingerprint; a `stella_mteb.engine.encoder.PooledStore`.

    Args:
        folder: Where the stores of all models are.
        fingerprint: Everything that changes a pooled vector, by name (`TextEncoder.fingerprint`).
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str]) -> None:
        named = {"schema": SCHEMA, **fingerprint}
        text = json.dumps(named, sort_keys=True)
        self.folder = folder / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        self._known: dict[bytes, tuple[int, int]] = {}  # key -> shard, row
        self._shards: list[FloatMatrix] = []
        self._pending_keys: list[bytes] = []
        self._pending: list[FloatMatrix] = []
        self._flushed = time.monotonic()
        if not (self.folder / "fingerprint.json").exists():
            write_json(self.folder / "fingerprint.json", named)
        for path in sorted(self.folder.glob("*.safetensors")):
            self._open(path)

    def __len__(self) -> int:
        return len(self._known)

    def read(self, keys: Sequence[bytes], into: FloatMatrix) -> NDArray[np.bool_]:
        """Fill the rows of `into` whose key is known; return which are."""
        found = np.zeros(len(keys), dtype=bool)
        for row, key in enumerate(keys):
            where = self._known.get(key)
            if where is not None:
                into[row] = self._shards[where[0]][where[1]]
                found[row] = True
        return found

    def add(self, keys: Sequence[bytes], vectors: FloatMatrix) -> None:
        """Keep rows; they become durable within some seconds, and at `flush`."""
        self._pending_keys += keys
        self._pending.append(vectors)
        overdue = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if len(self._pending_keys) >= _FLUSH_ROWS or overdue:
            self.flush()

    def flush(self) -> None:
        """Write what was added as one shard."""
        self._flushed = time.monotonic()
        if not self._pending_keys:
            return
        vectors = np.ascontiguousarray(np.concatenate(self._pending), dtype=np.float32)
        content = save(
            {
                "keys": np.frombuffer(b"".join(self._pending_keys), dtype=np.uint8).reshape(-1, 16).copy(),
                "vectors": vectors,
                "crc": _checksums(vectors),
            }
        )
        with atomic_write(self.folder / f"{uuid.uuid4().hex}.safetensors", "wb") as file:
            file.write(content)
        self._index(self._pending_keys, vectors)
        self._pending_keys, self._pending = [], []

    def _open(self, path: Path) -> None:
        try:
            shard = load_file(path)
            keys, vectors, crc = shard["keys"], shard["vectors"], shard["crc"]
            if not np.array_equal(_checksums(vectors), crc):
                raise ValueError("a row does not have the checksum it was written with")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            aside = path.with_suffix(".damaged")
            with contextlib.suppress(FileNotFoundError):  # another process was first
                path.rename(aside)
            logger.warning("%s is damaged (%s); set aside as %s, its texts are encoded again", path, error, aside.name)
            return
        self._index([row.tobytes() for row in keys], vectors)

    def _index(self, keys: Sequence[bytes], vectors: FloatMatrix) -> None:
        shard = len(self._shards)
        self._shards.append(vectors)
        for row, key in enumerate(keys):
            self._known[key] = (shard, row)


def _checksums(vectors: FloatMatrix) -> NDArray[np.uint32]:
    return np.fromiter((zlib.crc32(row.tobytes()) for row in vectors), dtype=np.uint32, count=len(vectors))
