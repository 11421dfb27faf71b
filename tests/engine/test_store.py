"""The store of pooled vectors: persistence, separation of models, and damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
import uuid
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from stella_mteb.engine import store as cache
from stella_mteb.engine import store_upkeep as cache_upkeep
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import Pooling
from stella_mteb.engine.store import VectorStore, text_key
from stella_mteb.errors import EnvironmentProblem, StorageProblem
from tests.support.spies import S2S, twin, watch

TEXTS = [f"text {number}, " + "and so on " * number for number in range(12)]


def stored(encoder: TextEncoder, folder: Path) -> TextEncoder:
    """The same model in the state of a new process."""
    fresh = twin(encoder)
    fresh.store = VectorStore(folder, fresh.fingerprint)
    return fresh


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


# ------------------------------------------------------------------------------------------------------ persistence


def test_the_second_call_runs_no_forward_pass(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder = stored(stella, tmp_path)
    first = encoder.encode(TEXTS, S2S)
    shapes = watch(monkeypatch, stella)

    again = encoder.encode(TEXTS, S2S)
    backwards = encoder.encode(TEXTS[::-1], S2S)

    assert shapes == []
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(backwards, first[::-1])
    assert encoder.stats.encoded == len(TEXTS)


def test_the_next_process_runs_no_forward_pass_for_any_dimension(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = {dimension: stella.encode(TEXTS, dimension=dimension) for dimension in (256, 1024, 8192)}
    stored(stella, tmp_path).encode(TEXTS, dimension=256)
    shapes = watch(monkeypatch, stella)
    later = stored(stella, tmp_path)

    for dimension, vectors in expected.items():
        np.testing.assert_array_equal(later.encode(TEXTS, dimension=dimension), vectors)

    assert shapes == []


def test_only_new_texts_are_encoded(stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = stella.encode(TEXTS)
    stored(stella, tmp_path).encode(TEXTS[::2])
    shapes = watch(monkeypatch, stella)

    vectors = stored(stella, tmp_path).encode(TEXTS)

    assert sum(rows for rows, _ in shapes) == len(TEXTS) // 2
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.fault(16, "two entries: the prompt is part of the key")
@pytest.mark.parametrize("prompt", [" ", S2S, "text"])
def test_a_text_under_another_prompt_is_another_text(stella: TextEncoder, tmp_path: Path, prompt: str) -> None:
    expected = stella.encode(TEXTS, prompt)
    encoder = stored(stella, tmp_path)
    encoder.encode(TEXTS)

    np.testing.assert_allclose(encoder.encode(TEXTS, prompt), expected, atol=1e-5)
    assert encoder.stats.encoded == 2 * len(TEXTS)


_prompts = st.text(st.characters(exclude_characters="\0", exclude_categories=[]), max_size=6)
_texts = st.text(st.characters(exclude_categories=[]), max_size=6)


@pytest.mark.fault(16, "two entries: the prompt is part of the key")
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(_prompts, _texts), min_size=2, unique=True))
def test_no_two_prompted_texts_share_a_key(pairs: list[tuple[str, str]]) -> None:
    keys = {text_key(prompt, text) for prompt, text in pairs}

    assert len(keys) == len(pairs)
    assert {len(key) for key in keys} == {16}


def test_prompt_and_text_are_not_merely_joined_in_a_key() -> None:
    assert text_key("ab", "c") != text_key("a", "bc")


# ------------------------------------------------------------------------------------------------------ interruption


@pytest.mark.fault(2, "finished batches keep their vectors")
@pytest.mark.parametrize("finished", [1, 3, 7])
def test_an_interruption_keeps_what_was_finished(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: int
) -> None:
    expected = stella.encode(TEXTS)
    done: list[int] = []

    def interrupt(*_: torch.Tensor) -> None:
        if len(done) == finished:
            raise KeyboardInterrupt
        done.append(1)

    encoder = stored(stella, tmp_path)
    encoder.token_budget = 1  # each text is a batch of its own, longest first
    with monkeypatch.context() as patch:
        watch(patch, stella, interrupt)
        with pytest.raises(KeyboardInterrupt):
            encoder.encode(TEXTS)

    resumed = stored(stella, tmp_path)
    shapes = watch(monkeypatch, stella)
    kept = resumed.store.read([text_key("", text) for text in TEXTS], np.empty((len(TEXTS), 32), np.float32))
    vectors = resumed.encode(TEXTS)

    assert kept.tolist() == [n >= len(TEXTS) - finished for n in range(len(TEXTS))]
    assert sum(rows for rows, _ in shapes) == len(TEXTS) - finished
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_long_run_writes_on_the_way(stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A killed process runs no `finally`; vectors older than some seconds are on disk by then."""
    monkeypatch.setattr(cache, "_FLUSH_SECONDS", 0.0)
    on_disk: list[int] = []
    encoder = stored(stella, tmp_path)
    encoder.token_budget = 1

    encoder.encode(TEXTS, progress=lambda *_: on_disk.append(len(VectorStore(tmp_path, encoder.fingerprint))))

    assert on_disk == list(range(1, len(TEXTS) + 1))


def test_many_rows_are_written_without_waiting(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, {"model": "a"})
    keys = [text_key("", str(n)) for n in range(5_000)]

    store.add(keys[:4_000], np.ones((4_000, 4), np.float32))
    before = len(VectorStore(tmp_path, {"model": "a"}))
    store.add(keys[4_000:], np.ones((1_000, 4), np.float32))

    assert before == 0
    assert len(VectorStore(tmp_path, {"model": "a"})) == 5_000


# ----------------------------------------------------------------------------------------------- separation


@pytest.mark.fault(15, "each has its own store; all dimensions share one backbone pass")
@pytest.mark.parametrize(
    "other",
    [
        {"max_length": 64},
        {"fingerprint": "another model@another revision"},
        {"pooling": Pooling(("cls",))},
        {"pooling": Pooling(("mean",), include_prompt=False)},
        {"pooling": Pooling(("max",))},
    ],
    ids=["length", "model", "cls", "prompt", "max"],
)
def test_a_setting_that_changes_vectors_has_its_own_store(
    stella: TextEncoder, tmp_path: Path, other: dict[str, Any]
) -> None:
    stored(stella, tmp_path).encode(TEXTS, S2S)
    different = twin(stella, **other)
    expected = different.encode(TEXTS, S2S)
    different.store = VectorStore(tmp_path, different.fingerprint)

    assert len(different.store) == 0
    np.testing.assert_array_equal(different.encode(TEXTS, S2S), expected)


@pytest.mark.fault(15, "each has its own store; all dimensions share one backbone pass")
def test_another_dtype_makes_another_store(stella_folder: Path, stella: TextEncoder, tmp_path: Path) -> None:
    from stella_mteb.models.resolve import resolve

    stored(stella, tmp_path).encode(TEXTS)
    half = resolve(f"{stella_folder}@1024[bf16]").load("cpu")

    assert len(VectorStore(tmp_path, half.fingerprint)) == 0


def test_settings_that_leave_pooled_vectors_unchanged_share_a_store(stella: TextEncoder, tmp_path: Path) -> None:
    stored(stella, tmp_path).encode(TEXTS)
    other = twin(stella, dimension=256, normalize=False, batch_size=1)

    assert len(VectorStore(tmp_path, other.fingerprint)) == len(TEXTS)


def test_the_folder_states_the_meaning_of_its_fingerprint(stella: TextEncoder, tmp_path: Path) -> None:
    store = VectorStore(tmp_path, stella.fingerprint)

    written = json.loads((store.folder / "fingerprint.json").read_text())
    assert written == {"schema": "2", **stella.fingerprint}
    assert (written["dtype"], written["max_length"]) == ("float32", "512")


@pytest.mark.fault(9, "the cache contains the union; each shard is written once under a unique name")
@pytest.mark.parametrize("writers", [2, 4])
def test_several_writers_in_one_folder_leave_the_union_of_their_vectors(tmp_path: Path, writers: int) -> None:
    rows = 30
    expected = np.arange(writers * rows * 4, dtype=np.float32).reshape(-1, 4)
    keys = [text_key("", str(n)) for n in range(writers * rows)]

    def write(writer: int) -> None:
        store = VectorStore(tmp_path, {"model": "a"})
        for n in range(writer * rows, (writer + 1) * rows):
            store.add([keys[n]], expected[n : n + 1])
            store.flush()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = np.empty_like(expected)
    assert VectorStore(tmp_path, {"model": "a"}).read(keys, found).all()
    np.testing.assert_array_equal(found, expected)


def test_a_third_encoder_finds_what_two_others_stored_in_one_folder(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two = stored(stella, tmp_path), stored(stella, tmp_path)
    first, second = one.encode(TEXTS[:7]), two.encode(TEXTS[5:])
    shapes = watch(monkeypatch, stella)

    vectors = stored(stella, tmp_path).encode(TEXTS)

    assert shapes == []
    np.testing.assert_allclose(vectors, np.concatenate([first[:5], second]), atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ damage


def _flip_last_vector_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    _, end = json.loads(content[8 : 8 + header])["vectors"]["data_offsets"]
    content[8 + header + end - 1] ^= 1
    path.write_bytes(content)


def _flip_checksum_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    start, _ = json.loads(content[8 : 8 + header])["crc"]["data_offsets"]
    content[8 + header + start] ^= 1
    path.write_bytes(content)


def _cut(keep: float) -> Any:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    return damage


def _other_file(path: Path) -> None:
    path.write_bytes(b"{}" * 50)


@pytest.mark.parametrize(
    "damage",
    [_flip_last_vector_byte, _flip_checksum_byte, _cut(0.9), _cut(0.01), _cut(0), _other_file],
    ids=["bit flip", "checksum flip", "cut", "cut in the header", "empty", "another file"],
)
@pytest.mark.fault(17, "set aside; its texts are encoded again")
def test_a_damaged_shard_is_set_aside_and_its_texts_encoded_again(
    stella: TextEncoder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Any,
) -> None:
    expected = stella.encode(TEXTS)
    stored(stella, tmp_path).encode(TEXTS[:6])
    (bad,) = shards(tmp_path)
    damage(bad)
    second = stored(stella, tmp_path)
    second.encode(TEXTS[6:])  # writes a shard of its own
    second.encode(TEXTS[:6])  # a row is looked at when it is read: now at the latest the damage is found
    good = shards(tmp_path)
    warnings = [record.message for record in caplog.records if record.name == "stella_mteb.engine.store"]
    caplog.clear()
    encoder = stored(stella, tmp_path)
    vectors = encoder.encode(TEXTS)

    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    one_row = damage in (_flip_last_vector_byte, _flip_checksum_byte)
    assert (second.stats.encoded, encoder.stats.encoded) == (7 if one_row else 12, 0)
    assert stored(stella, tmp_path).store.contains([text_key("", text) for text in TEXTS]).all()
    assert bad.with_suffix(".damaged").exists()
    assert bad not in good
    assert set(good) <= set(shards(tmp_path))
    assert len(warnings) == 1
    assert f"{bad} is damaged" in warnings[0]
    left = "5 of its 6 vectors are kept" if one_row else "its texts are encoded again"
    assert f"set aside as {bad.stem}.damaged, {left}" in warnings[0]
    assert caplog.records == []  # said once, not in every run


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_flipped_bit_gives_a_wrong_vector(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("store")
    keys = [text_key("", str(n)) for n in range(3)]
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    store = VectorStore(folder, {"model": "a"})
    store.add(keys, vectors)
    store.flush()
    (path,) = shards(folder)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1), "byte")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    path.write_bytes(content)

    found = np.zeros_like(vectors)
    known = VectorStore(folder, {"model": "a"}).read(keys, found)

    np.testing.assert_array_equal(found[known], vectors[known])


def test_leftovers_of_a_killed_writer_are_harmless(stella: TextEncoder, tmp_path: Path) -> None:
    stored(stella, tmp_path).encode(TEXTS)
    (shard,) = shards(tmp_path)
    (shard.parent / f".{shard.name}.x7.tmp").write_bytes(shard.read_bytes()[:100])

    assert len(VectorStore(tmp_path, stella.fingerprint)) == len(TEXTS)


@pytest.mark.fault(7, "exit code 3 with the option that selects another folder")
def test_a_store_that_cannot_be_written_is_an_environment_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(EnvironmentProblem, match=r"cannot be written"):
        VectorStore(tmp_path / "file" / "cache", {"model": "a"})


# ------------------------------------------------------------------------------------------------- row by row

IDENTITY = {"model": "a"}


def write_shard(store: VectorStore, keys: np.ndarray, vectors: np.ndarray) -> Path:
    """Write a shard in the layout of the store, independently of it."""
    crc = [zlib.crc32(row.tobytes(), zlib.crc32(key.tobytes())) for key, row in zip(keys, vectors, strict=True)]
    path = store.folder / f"{uuid.uuid4().hex}.safetensors"
    save_file({"keys": keys, "vectors": vectors, "crc": np.array(crc, dtype=np.uint32)}, path)
    return path


def random_rows(count: int, width: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    keys = generator.integers(0, 256, size=(count, 16), dtype=np.uint8)
    return keys, generator.normal(size=(count, width)).astype(np.float32)


def as_bytes(keys: np.ndarray) -> list[bytes]:
    return [key.tobytes() for key in keys]


def read(store: VectorStore, keys: list[bytes], width: int = 4) -> tuple[np.ndarray, np.ndarray]:
    into = np.full((len(keys), width), np.nan, dtype=np.float32)
    return store.read(keys, into), into


def test_an_open_store_holds_no_vectors(tmp_path: Path) -> None:
    keys, vectors = random_rows(200_000, 16)
    for start in range(0, len(keys), 50_000):
        write_shard(VectorStore(tmp_path, IDENTITY), keys[start : start + 50_000], vectors[start : start + 50_000])
    chosen = np.random.default_rng(1).choice(len(keys), 1_000, replace=False)
    wanted, into = as_bytes(keys[chosen]), np.empty((1_000, 16), dtype=np.float32)

    tracemalloc.start()
    store = VectorStore(tmp_path, IDENTITY)
    assert len(store) == len(keys)
    opened, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    found = store.read(wanted, into)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert opened < 50 * len(keys) < vectors.nbytes
    assert kept - opened < 10_000
    assert peak - opened < 4 * into.nbytes
    assert found.all()
    np.testing.assert_array_equal(into, vectors[chosen])


def test_rows_of_many_shards_come_in_the_order_asked_for_and_a_duplicate_counts_once(tmp_path: Path) -> None:
    keys, vectors = random_rows(60)
    store = VectorStore(tmp_path, IDENTITY)
    for start in (0, 15, 30):  # each shares half its rows with the next
        write_shard(store, keys[start : start + 30], vectors[start : start + 30])
    order = np.random.default_rng(2).permutation(np.r_[0:60, 20:25])  # some twice
    unknown = [b"\0" * 16, b"\xff" * 16]

    store = VectorStore(tmp_path, IDENTITY)
    found, into = read(store, [*as_bytes(keys[order]), *unknown])

    assert len(store) == 60
    assert found.tolist() == [True] * len(order) + [False, False]
    np.testing.assert_array_equal(into[:-2], vectors[order])
    assert np.isnan(into[-2:]).all()
    assert store.contains([*as_bytes(keys[order]), *unknown]).tolist() == found.tolist()


def test_keys_with_zero_bytes_anywhere_are_kept_apart(tmp_path: Path) -> None:
    """They are held as fixed-width strings, of which numpy drops zero bytes at the end."""
    keys = [b"", b"a", b"a\0b", b"\0a", b"a" * 15, b"\0" * 15 + b"a", b"a" * 16]
    padded = [key.ljust(16, b"\0") for key in keys]
    vectors = np.arange(len(keys) * 4, dtype=np.float32).reshape(-1, 4)
    store = VectorStore(tmp_path, IDENTITY)
    store.add(padded, vectors)
    store.flush()

    for known in (store, VectorStore(tmp_path, IDENTITY)):
        found, into = read(known, padded[::-1])
        assert found.all()
        np.testing.assert_array_equal(into, vectors[::-1])
    (info,) = cache_upkeep.stores(tmp_path)
    assert [problem for _, problem in cache_upkeep.check_store(info)] == [""]


def test_swapped_keys_never_give_a_text_the_vector_of_another(tmp_path: Path) -> None:
    keys, vectors = random_rows(6)
    store = VectorStore(tmp_path, IDENTITY)
    store.add(as_bytes(keys), vectors)
    store.flush()
    (path,) = shards(tmp_path)
    content = load_file(path)
    content["keys"][[1, 4]] = content["keys"][[4, 1]]
    save_file(content, path)

    for row in (1, 4):
        shutil.copy(path, path.with_suffix(".kept"))
        found, _ = read(VectorStore(tmp_path, IDENTITY), as_bytes(keys[[row]]))
        assert not found.any()
        path.with_suffix(".kept").rename(path)


@pytest.mark.parametrize("damaged", [0, 7, 19])
@pytest.mark.fault(17, "a shard with damaged rows keeps its other rows")
def test_a_damaged_row_spoils_no_other_row(tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: int) -> None:
    keys, vectors = random_rows(40)
    store = VectorStore(tmp_path, IDENTITY)
    bad, good = (write_shard(store, keys[part], vectors[part]) for part in (slice(20), slice(20, 40)))
    content = bytearray(bad.read_bytes())
    content[content.index(vectors[damaged].tobytes())] ^= 1
    bad.write_bytes(content)
    store = VectorStore(tmp_path, IDENTITY)

    found, into = read(store, as_bytes(keys))
    again, _ = read(store, as_bytes(keys))

    assert found.tolist() == [row != damaged for row in range(40)]
    np.testing.assert_array_equal(into[found], vectors[found])
    assert again.tolist() == store.contains(as_bytes(keys)).tolist() == found.tolist()
    assert len(store) == len(VectorStore(tmp_path, IDENTITY)) == 39
    assert good.exists()
    assert not bad.exists()
    assert [record.message for record in caplog.records] == [
        f"{bad} is damaged (the checksum of a row does not match); set aside as {bad.stem}.damaged, "
        "19 of its 20 vectors are kept"
    ]


@pytest.mark.fault(17, "a shard with damaged rows keeps its other rows")
@pytest.mark.fault(19, "stored and found like any other vector")
def test_a_zeroed_block_is_damage_and_a_vector_of_zeros_is_not(tmp_path: Path) -> None:
    keys, vectors = random_rows(20)
    vectors[[3, 11]] = 0
    path = write_shard(VectorStore(tmp_path, IDENTITY), keys, vectors)
    content = bytearray(path.read_bytes())
    start = content.index(vectors[5].tobytes())
    content[start : start + vectors[5:8].nbytes] = bytes(vectors[5:8].nbytes)
    path.write_bytes(content)

    found, into = read(VectorStore(tmp_path, IDENTITY), as_bytes(keys))

    assert np.flatnonzero(~found).tolist() == [5, 6, 7]
    np.testing.assert_array_equal(into[found], vectors[found])
    assert read(VectorStore(tmp_path, IDENTITY), as_bytes(keys))[0].tolist() == found.tolist()


def test_the_intact_rows_of_a_damaged_read_only_shard_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, vectors = random_rows(9)
    path = write_shard(VectorStore(tmp_path, IDENTITY), keys, vectors)
    content = bytearray(path.read_bytes())
    content[content.index(vectors[4].tobytes())] ^= 1
    path.write_bytes(content)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    store = VectorStore(tmp_path, IDENTITY)
    before = sorted(store.folder.iterdir())

    for _ in range(2):
        found, into = read(store, as_bytes(keys))
        assert np.flatnonzero(~found).tolist() == [4]
        np.testing.assert_array_equal(into[found], vectors[found])
    assert sorted(store.folder.iterdir()) == before


def test_verifying_a_store_saves_what_is_intact_of_a_damaged_shard(tmp_path: Path) -> None:
    keys, vectors = random_rows(7)
    path = write_shard(VectorStore(tmp_path, IDENTITY), keys, vectors)
    content = bytearray(path.read_bytes())
    content[content.index(vectors[2].tobytes())] ^= 1
    path.write_bytes(content)
    (info,) = cache_upkeep.stores(tmp_path)

    first = list(cache_upkeep.check_store(info))
    second = [problem for _, problem in cache_upkeep.check_store(info)]

    damage = "the checksum of a row does not match"
    assert first == [(path, f"{damage}; set aside, 6 of its 7 vectors are kept")]
    assert second == [""]
    assert np.flatnonzero(~read(VectorStore(tmp_path, IDENTITY), as_bytes(keys))[0]).tolist() == [2]


def test_an_open_store_finds_vectors_that_another_writer_adds(tmp_path: Path) -> None:
    keys, vectors = random_rows(6)
    store = VectorStore(tmp_path, IDENTITY)
    unknown = store.contains(as_bytes(keys))
    for rows in (slice(0, 2), slice(2, 6)):
        write_shard(VectorStore(tmp_path, IDENTITY), keys[rows], vectors[rows])
        found, into = read(store, as_bytes(keys[: rows.stop]))
        assert found.all()
        np.testing.assert_array_equal(into, vectors[: rows.stop])

    assert not unknown.any()


@pytest.mark.fault(18, "written again; the vectors are still found, because there is no index")
def test_a_store_that_lost_its_label_keeps_its_vectors_and_writes_the_label_again(tmp_path: Path) -> None:
    keys, vectors = random_rows(3)
    store = VectorStore(tmp_path, IDENTITY)
    write_shard(store, keys, vectors)
    label = store.folder / "fingerprint.json"
    written = label.read_bytes()
    for damage in (None, b"", b"[]", written[:9]):
        label.unlink() if damage is None else label.write_bytes(damage)

        assert read(VectorStore(tmp_path, IDENTITY), as_bytes(keys))[0].all()
        assert label.read_bytes() == written


def test_opening_a_store_removes_what_a_writer_left_an_hour_ago(tmp_path: Path) -> None:
    folder = VectorStore(tmp_path, IDENTITY).folder
    old, new = folder / ".a.safetensors.x.tmp", folder / ".b.safetensors.y.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3_700,) * 2)

    VectorStore(tmp_path, IDENTITY)

    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("how", ["the shard is deleted", "the store is deleted", "the shard is cut", "it is emptied"])
def test_changes_by_another_process_to_an_open_store_cost_only_another_encoding(
    stella: TextEncoder, tmp_path: Path, how: str
) -> None:
    expected = stella.encode(TEXTS)
    stored(stella, tmp_path).encode(TEXTS)
    (shard,) = shards(tmp_path)
    encoder = stored(stella, tmp_path)
    if how == "the shard is deleted":
        shard.unlink()
    elif how == "the store is deleted":
        shutil.rmtree(shard.parent)
    else:
        os.truncate(shard, shard.stat().st_size // 2 if how == "the shard is cut" else 0)

    vectors = encoder.encode(TEXTS)

    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert encoder.stats.encoded > 0
    later = stored(stella, tmp_path)
    later.encode(TEXTS)
    assert later.stats.encoded + encoder.stats.encoded == len(TEXTS)


def test_a_store_deleted_while_open_writes_its_label_again_with_the_next_vectors(
    stella: TextEncoder, tmp_path: Path
) -> None:
    encoder = stored(stella, tmp_path)
    shutil.rmtree(encoder.store.folder)

    encoder.encode(TEXTS)

    (info,) = cache_upkeep.stores(tmp_path)
    assert (info.texts, info.fingerprint) == (len(TEXTS), {"schema": "2", **encoder.fingerprint})


def test_a_shard_that_cannot_be_opened_now_is_not_set_aside_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, vectors = random_rows(3)
    path = write_shard(VectorStore(tmp_path, IDENTITY), keys, vectors)
    store = VectorStore(tmp_path, IDENTITY)
    with monkeypatch.context() as patch:

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        patch.setattr(Path, "open", refuse)
        found, _ = read(store, as_bytes(keys))

    assert not found.any()
    assert path.exists()
    assert read(VectorStore(tmp_path, IDENTITY), as_bytes(keys))[0].all()


# Without torch, because only the files of two processes are tested.
_WRITER = """
import sys
from pathlib import Path
import numpy as np
from stella_mteb.engine.store import VectorStore

store, first = VectorStore(Path(sys.argv[1]), {"model": "a"}), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for n in range(first, first + 60):
    store.add([n.to_bytes(16, "big")], np.full((1, 4), n, dtype=np.float32))
    if n % 3 == 0:
        store.flush()
store.flush()
print(sorted({"torch", "mteb", "transformers"} & set(sys.modules)), flush=True)
"""


@pytest.mark.fault(9, "the cache contains the union; each shard is written once under a unique name")
def test_two_processes_that_write_at_once_leave_the_union_and_import_no_torch(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, tmp_path, str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (0, 40)  # texts 40 to 59 by both
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    said = [writer.communicate("go\n", timeout=600)[0] for writer in writers]

    store = VectorStore(tmp_path, IDENTITY)
    found, into = read(store, [n.to_bytes(16, "big") for n in range(100)])
    assert said == ["[]\n", "[]\n"]
    assert len(store) == 100
    assert found.all()
    assert into[:, 0].tolist() == list(range(100))
    assert len(list(tmp_path.iterdir())) == 1


def test_flushed_vectors_are_written_once(tmp_path: Path) -> None:
    keys, vectors = random_rows(4)
    store = VectorStore(tmp_path, IDENTITY)
    store.add(as_bytes(keys[:3]), vectors[:3])
    store.flush()
    store.flush()
    store.add(as_bytes(keys[3:]), vectors[3:])
    store.flush()

    assert sorted(len(load_file(path)["keys"]) for path in shards(tmp_path)) == [1, 3]


@pytest.mark.fault(6, "encoded vectors stay in memory until they can be written")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_loses_nothing_that_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    keys, vectors = random_rows(5)
    store = VectorStore(tmp_path, IDENTITY)
    store.add(as_bytes(keys[:2]), vectors[:2])

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
        for _ in range(2):
            with pytest.raises(StorageProblem, match="No space left on device"):
                store.flush()
    assert shards(tmp_path) == []
    assert sorted(path.name for path in store.folder.iterdir()) == ["fingerprint.json"]
    store.add(as_bytes(keys[2:]), vectors[2:])
    store.flush()

    found, into = read(VectorStore(tmp_path, IDENTITY), as_bytes(keys))
    assert found.all()
    np.testing.assert_array_equal(into, vectors)
    assert len(shards(tmp_path)) == 1


def test_a_full_disk_stops_an_encoding_and_the_next_flush_writes_what_was_done(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder = stored(stella, tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageProblem, match="No space left on device"):
            encoder.encode(TEXTS)
    encoder.store.flush()

    assert stored(stella, tmp_path).store.contains([text_key("", text) for text in TEXTS]).all()


_numbers = st.integers(0, 11)
_steps = st.one_of(
    st.tuples(st.just("add"), st.lists(_numbers, min_size=1, max_size=4, unique=True)),
    st.tuples(st.just("read"), st.lists(_numbers, max_size=8)),
    st.tuples(st.sampled_from(["flush", "reopen", "other writer"]), st.lists(_numbers, min_size=1, max_size=3)),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_steps, max_size=14))
def test_a_store_behaves_like_a_dictionary_of_the_flushed_vectors(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    # In no order of their numbers, and with zero bytes at both ends.
    keys = [bytes([0, n * 23 % 256]) + bytes(13) + bytes([n % 2]) for n in range(12)]
    store, pending, known, on_disk = VectorStore(folder, IDENTITY), set[int](), set[int](), set[int]()

    def rows(numbers: list[int]) -> np.ndarray:
        return np.array([[n, n + 0.5, -n] for n in numbers], dtype=np.float32)

    for step, numbers in steps:
        if step == "add":
            store.add([keys[n] for n in numbers], rows(numbers))
            pending |= set(numbers)
        elif step == "flush":
            store.flush()
            known, on_disk, pending = known | pending, on_disk | pending, set()
        elif step == "reopen":  # without a flush: what was only added is lost, as in a killed process
            store, pending, known = VectorStore(folder, IDENTITY), set(), set(on_disk)
        elif step == "other writer":
            other = VectorStore(folder, IDENTITY)
            other.add([keys[n] for n in numbers], rows(numbers))
            other.flush()
            on_disk |= set(numbers)
        else:
            if not known.issuperset(numbers):  # then it looks at what others have written
                known |= on_disk
            found, into = read(store, [keys[n] for n in numbers], 3)
            assert found.tolist() == [n in known for n in numbers]
            np.testing.assert_array_equal(into[found], rows([n for n in numbers if n in known]).reshape(-1, 3))
            assert store.contains([keys[n] for n in numbers]).tolist() == found.tolist()
            assert len(store) == len(known)
