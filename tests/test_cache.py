"""The store of pooled vectors: what is kept, what is never shared, and what damage does."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb import cache
from stella_mteb.cache import VectorStore
from stella_mteb.engine import Pooling, TextEncoder
from stella_mteb.engine.encoder import text_key
from stella_mteb.errors import EnvironmentProblem
from tests.spies import S2S, twin, watch

TEXTS = [f"text {number}, " + "and so on " * number for number in range(12)]


def stored(encoder: TextEncoder, folder: Path) -> TextEncoder:
    """The same model as a new process would have it, with what is on disk."""
    fresh = twin(encoder)
    fresh.store = VectorStore(folder, fresh.fingerprint)
    return fresh


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


# ------------------------------------------------------------------------------------------------------ what is kept


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


@pytest.mark.parametrize("prompt", [" ", S2S, "text"])
def test_a_text_under_another_prompt_is_another_text(stella: TextEncoder, tmp_path: Path, prompt: str) -> None:
    expected = stella.encode(TEXTS, prompt)
    encoder = stored(stella, tmp_path)
    encoder.encode(TEXTS)

    np.testing.assert_allclose(encoder.encode(TEXTS, prompt), expected, atol=1e-5)
    assert encoder.stats.encoded == 2 * len(TEXTS)


_prompts = st.text(st.characters(exclude_characters="\0", exclude_categories=[]), max_size=6)
_texts = st.text(st.characters(exclude_categories=[]), max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(_prompts, _texts), min_size=2, unique=True))
def test_no_two_prompted_texts_share_a_key(pairs: list[tuple[str, str]]) -> None:
    keys = {text_key(prompt, text) for prompt, text in pairs}

    assert len(keys) == len(pairs)
    assert {len(key) for key in keys} == {16}


def test_prompt_and_text_are_not_merely_joined_in_a_key() -> None:
    assert text_key("ab", "c") != text_key("a", "bc")


# ------------------------------------------------------------------------------------------------------ interruption


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
    """A process that is killed runs no `finally`; what is older than some seconds is on disk by then."""
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


# ----------------------------------------------------------------------------------------------- what is never shared


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
def test_what_changes_a_vector_makes_another_store(stella: TextEncoder, tmp_path: Path, other: dict[str, Any]) -> None:
    stored(stella, tmp_path).encode(TEXTS, S2S)
    different = twin(stella, **other)
    expected = different.encode(TEXTS, S2S)
    different.store = VectorStore(tmp_path, different.fingerprint)

    assert len(different.store) == 0
    np.testing.assert_array_equal(different.encode(TEXTS, S2S), expected)


def test_another_dtype_makes_another_store(stella_folder: Path, stella: TextEncoder, tmp_path: Path) -> None:
    from stella_mteb.models import resolve

    stored(stella, tmp_path).encode(TEXTS)
    half = resolve(f"{stella_folder}@1024[bf16]").load("cpu")

    assert len(VectorStore(tmp_path, half.fingerprint)) == 0


def test_what_does_not_change_a_pooled_vector_shares_the_store(stella: TextEncoder, tmp_path: Path) -> None:
    stored(stella, tmp_path).encode(TEXTS)
    other = twin(stella, dimension=256, normalize=False, batch_size=1)

    assert len(VectorStore(tmp_path, other.fingerprint)) == len(TEXTS)


def test_the_folder_says_what_its_fingerprint_stands_for(stella: TextEncoder, tmp_path: Path) -> None:
    store = VectorStore(tmp_path, stella.fingerprint)

    written = json.loads((store.folder / "fingerprint.json").read_text())
    assert written == {"schema": "1", **stella.fingerprint}
    assert (written["dtype"], written["max_length"]) == ("float32", "512")


@pytest.mark.parametrize("writers", [2, 4])
def test_writers_in_one_folder_give_the_union(tmp_path: Path, writers: int) -> None:
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


def test_two_encoders_on_one_folder_leave_a_union_for_the_third(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two = stored(stella, tmp_path), stored(stella, tmp_path)
    first, second = one.encode(TEXTS[:7]), two.encode(TEXTS[5:])  # both encode texts 5 and 6
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
    stored(stella, tmp_path).encode(TEXTS[6:])  # sets it aside, and writes a shard of its own
    (good,) = shards(tmp_path)
    warnings = [record.message for record in caplog.records if record.name == "stella_mteb.cache"]
    caplog.clear()
    encoder = stored(stella, tmp_path)
    vectors = encoder.encode(TEXTS)

    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert encoder.stats.encoded == 6
    assert bad.with_suffix(".damaged").exists()
    assert good in shards(tmp_path)
    assert len(warnings) == 1
    assert f"{bad} is damaged" in warnings[0]
    assert f"set aside as {bad.stem}.damaged, its texts are encoded again" in warnings[0]
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


def test_what_a_killed_writer_left_behind_disturbs_nobody(stella: TextEncoder, tmp_path: Path) -> None:
    stored(stella, tmp_path).encode(TEXTS)
    (shard,) = shards(tmp_path)
    (shard.parent / f".{shard.name}.x7.tmp").write_bytes(shard.read_bytes()[:100])

    assert len(VectorStore(tmp_path, stella.fingerprint)) == len(TEXTS)


def test_a_store_that_cannot_be_written_is_an_environment_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(EnvironmentProblem, match=r"cannot be written"):
        VectorStore(tmp_path / "file" / "cache", {"model": "a"})
