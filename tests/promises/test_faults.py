"""Faults of docs/faults.md that no other test injects, and the page itself."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stella_mteb.engine import store as cache_module
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.store import VectorStore, text_key
from stella_mteb.engine.store_upkeep import prunable, stores
from stella_mteb.errors import ConfigError, EnvironmentProblem, NonFiniteVectorError, StellaMtebError
from stella_mteb.judge.inputs import read_candidates, read_references
from stella_mteb.models.resolve import resolve
from tests.conftest import RATED_PAIRS, Call
from tests.support import faults
from tests.support.spies import S2S, padded, runs_out_above, twin, watch

KEYS = [bytes([number]) * 16 for number in range(1, 9)]
TEXTS = [f"{number} boats leave the harbour, and {number * 7} gulls follow them." for number in range(12)]


def rows(*values: float, width: int = 4) -> NDArray[np.float32]:
    return np.array([[value] * width for value in values], dtype=np.float32)


def own_task(folder: Path, pairs: list[tuple[str, str, float]], name: str = "OwnSTS", kind: str = "STS") -> Path:
    lines = [json.dumps({"a": first, "b": second, "s": score}) for first, second, score in pairs]
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    sides = ("query", "document") if kind == "Retrieval" else ("sentence1", "sentence2")
    positive = "" if kind == "STS" else "positive_from: 3\n"
    (folder / "task.yaml").write_text(
        f"name: {name}\ntype: {kind}\ndata: pairs.jsonl\n{positive}"
        f"columns: {{{sides[0]}: a, {sides[1]}: b, score: s}}\n"
    )
    return folder / "task.yaml"


# ------------------------------------------------------------------------------------------------------- the page


def test_the_table_of_faults_is_generated_from_the_tests() -> None:
    """Made anew with `python -m tests.support.faults > docs/faults.md`."""
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page()


def test_every_fault_has_a_test_or_a_reason() -> None:
    assert len(faults.FAULTS) == 51
    assert faults.untested() == []


# ------------------------------------------------------------------------------------------------------- signals


_WAITS = """
import sys, time
from stella_mteb.cli import app, main
@app.command()
def wait():
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
main()
"""


@pytest.mark.fault(3, "exit code 130; the last line is the command that resumes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_with_the_command_that_resumes(number: signal.Signals) -> None:
    command = [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler)\n{_WAITS}", "wait"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=600)

    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "  stella-mteb wait"


# ---------------------------------------------------------------------------------------------- clocks and names


@pytest.mark.fault(10, "names do not depend on the time or on seeded random numbers, so none is repeated")
def test_a_stopped_clock_gives_no_duplicate_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for clock in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: 0)
    for number, key in enumerate(KEYS):
        random.seed(0)
        np.random.seed(0)
        store = VectorStore(tmp_path, {"model": "m"})
        store.add([key], rows(number))
        store.flush()

    into = rows(*[-1.0] * len(KEYS))
    assert VectorStore(tmp_path, {"model": "m"}).read(KEYS, into).all()
    assert into[:, 0].tolist() == list(range(len(KEYS)))


@pytest.mark.fault(10, "a cache with a date in the future is not treated as old")
def test_a_clock_that_jumps_back_makes_no_file_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = VectorStore(tmp_path, {"pipeline": "2", "model": "m"})
    store.add(KEYS[:1], rows(1))
    store.flush()
    (info,) = stores(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert prunable(info, older_than=60) == []


@pytest.mark.fault(13, "task and model names are ASCII and at most 100 characters; others are refused with their line")
@pytest.mark.parametrize("name", ["x" * 101, "Größe", "unterschied\u0065\u0301", "模型"])
def test_a_name_that_is_not_a_portable_file_name_is_refused(tmp_path: Path, name: str) -> None:
    from stella_mteb.harness.task_yaml import load_task_file
    from stella_mteb.models.config import load_config

    (tmp_path / "model.yaml").write_text(f"path: .\nname: {name}\n", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"model\.yaml:2: name: "):
        load_config(tmp_path / "model.yaml")
    with pytest.raises(ConfigError, match=r"task\.yaml:1: name: "):
        load_task_file(own_task(tmp_path, RATED_PAIRS, name))


@pytest.mark.fault(13, "a folder or file of any name is read; its results get a shortened name")
def test_results_of_a_model_with_the_longest_folder_name_can_be_written(stella_folder: Path, tmp_path: Path) -> None:
    from stella_mteb.harness.adapter import Encoder
    from stella_mteb.harness.result_cache import AtomicResultCache

    folder = tmp_path / ("模" * 85)  # 255 bytes
    folder.symlink_to(stella_folder)
    yaml = tmp_path / "longest.yaml"
    yaml.write_text(f"name: {'x' * 100}\npath: {stella_folder}\nattention: bidirectional\neos_token_id: 151643\n")

    for spec in (f"{folder}@1024", f"{yaml}@1024[fp32,leaderboard,max_length=500]"):
        meta = Encoder(resolve(spec), "cpu").mteb_model_meta
        path = AtomicResultCache(tmp_path / "out").get_task_result_path("T" * 100, meta)
        assert max(len(part.encode()) for part in path.parts) <= 250


@pytest.mark.fault(13, "a folder or file of any name is read; its results get a shortened name")
def test_results_of_predictions_with_the_longest_name_can_be_written(tmp_path: Path) -> None:
    names = ["模" * 83 + "x.csv", "模" * 83 + "y.csv", "z" * 251 + ".csv"]
    for name in names:
        (tmp_path / name).write_text("id,summary\n1,a\n")

    slugs = [candidate.slug for candidate in read_candidates([tmp_path], {"1": "a"})]

    assert len(set(slugs)) == 3
    assert max(len(f"{slug}.json".encode()) for slug in slugs) <= 255


@pytest.mark.fault(
    13, "two files of predictions whose names are equal on some file system are refused; the error names both"
)
def test_names_that_differ_only_in_their_unicode_form_are_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / form).mkdir()
        (tmp_path / form / f"{unicodedata.normalize(form, '모델')}.json").write_text('{"1": "a"}')

    with pytest.raises(ConfigError, match=r"NFC.*NFD.* are both predictions|NFD.*NFC.* are both predictions"):
        read_candidates([tmp_path / "NFC", tmp_path / "NFD"], {"1": "a"})


# --------------------------------------------------------------------------------------------------- the cache


@pytest.mark.fault(14, "never read; `cache prune` removes it")
def test_a_store_of_an_older_schema_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(cache_module, "SCHEMA", "1")
        store = VectorStore(tmp_path, {"pipeline": "2", "model": "m"})
        store.add(KEYS[:1], rows(7))
        store.flush()

    assert len(VectorStore(tmp_path, {"pipeline": "2", "model": "m"})) == 0
    old = next(info for info in stores(tmp_path) if info.fingerprint["schema"] == "1")
    assert prunable(old) == [old.folder]


@pytest.mark.fault(19, "stored and found like any other vector")
def test_a_zero_vector_is_valid(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, {"model": "m"})
    store.add(KEYS[:2], rows(0, 1))
    store.flush()

    into = rows(5, 5, 5)
    assert VectorStore(tmp_path, {"model": "m"}).read(KEYS[:3], into).tolist() == [True, True, False]
    assert into.tolist() == rows(0, 1, 5).tolist()


@pytest.mark.fault(16, "two entries: the prompt is part of the key")
def test_a_text_has_separate_vectors_as_query_and_document(stella: TextEncoder, tmp_path: Path) -> None:
    encoder = twin(stella)
    query, document = encoder.encode(TEXTS[:1], S2S), encoder.encode(TEXTS[:1])
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)

    for _ in range(2):
        np.testing.assert_allclose(encoder.encode(TEXTS[:1], S2S), query, atol=1e-6)
        np.testing.assert_allclose(encoder.encode(TEXTS[:1]), document, atol=1e-6)

    assert np.abs(query - document).max() > 1e-3
    assert encoder.stats.encoded == 4  # two without the store, two with it


# --------------------------------------------------------------------------------------------- model and numbers


@pytest.fixture(params=["packed", "padded"])
def overflowing(stella: TextEncoder, request: pytest.FixtureRequest) -> Callable[[float], TextEncoder]:
    """A tiny Stella in float16 with states so large that this share of the texts has infinite ones; NaN for NaN."""

    def make(share: float) -> TextEncoder:
        encoder = twin(stella, backbone=deepcopy(stella.backbone)) if request.param == "packed" else padded(stella)
        backbone = encoder.backbone.half()
        weight = backbone.norm.weight.data  # type: ignore[union-attr]
        weight.fill_(1)  # type: ignore[operator]
        largest = sorted(float(encoder.hidden([ids]).abs().max()) for ids in encoder.tokenise(TEXTS))
        weight.fill_(65_504 / np.quantile(largest, 1 - share) if share < 1 else share * 65_000)  # type: ignore[operator]
        return twin(encoder, backbone=backbone, token_budget=64)

    return make


@pytest.mark.fault(20, "half precision: an error that names the text and recommends fp32, which then succeeds")
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_an_overflow_in_half_precision_is_an_error_that_names_the_text(
    overflowing: Callable[[float], TextEncoder], share: float, tmp_path: Path
) -> None:
    encoder = overflowing(share)
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)
    ids = encoder.tokenise(TEXTS)
    too_large = [i for i, row in enumerate(ids) if not encoder.hidden([row]).isfinite().all()]
    assert (0 < len(too_large) < len(TEXTS)) if share < 1 else (len(too_large) == len(TEXTS))

    with pytest.raises(NonFiniteVectorError, match=r"float16 on cpu.* and fp32 is needed") as failure:
        encoder.pool(TEXTS)

    assert int(re.findall(r"text (\d+) \(counted from 0\)", str(failure.value))[0]) in too_large
    stored = VectorStore(tmp_path, encoder.fingerprint).contains([text_key("", text) for text in TEXTS])
    assert not stored[too_large].any()
    assert np.isfinite(twin(encoder, backbone=deepcopy(encoder.backbone).float()).pool(TEXTS)).all()


@pytest.mark.fault(20, "an overflow in float32 too: an error that names the text; nothing is stored for it")
def test_an_overflow_in_float32_is_an_error_that_names_the_text(
    overflowing: Callable[[float], TextEncoder], tmp_path: Path
) -> None:
    encoder = overflowing(float("nan"))
    encoder = twin(encoder, backbone=encoder.backbone.float())
    encoder.store = VectorStore(tmp_path, encoder.fingerprint)

    with pytest.raises(NonFiniteVectorError, match=r"vector of text \d+ \(counted from 0\) .* damaged") as failure:
        encoder.pool(TEXTS)

    assert "fp32" not in str(failure.value)
    assert len(VectorStore(tmp_path, encoder.fingerprint)) == 0


@contextmanager
def states_changed(encoder: TextEncoder, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    forward = encoder.backbone.forward

    def changed(**given: Any) -> Any:
        output = forward(**given)
        output.last_hidden_state = change(output.last_hidden_state)
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder.backbone, "forward", changed)
        yield


@pytest.mark.fault(22, "an error that gives the expected shape; nothing is returned")
@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize(
    "change",
    [
        lambda states: states[:, :-1],
        lambda states: torch.cat([states, states], dim=1),
        lambda states: torch.cat([states, states]),
        lambda states: states[:0],
        lambda states: states[..., :-1],
        lambda states: states.mean(dim=1),
    ],
    ids=["fewer", "more", "twice", "none", "narrow", "pooled"],
)
def test_states_of_another_shape_are_refused(stella: TextEncoder, kind: str, change: Callable[..., Any]) -> None:
    encoder = twin(stella) if kind == "packed" else padded(stella)

    with states_changed(encoder, change), pytest.raises(StellaMtebError, match=r"hidden states of shape .*, not \("):
        encoder.encode(TEXTS)


@pytest.mark.fault(22, "float64 and bfloat16 states are pooled in float32")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 2e-2)])
def test_states_of_another_dtype_are_pooled_in_float32(
    stella: TextEncoder, dtype: torch.dtype, tolerance: float
) -> None:
    expected = stella.pool(TEXTS)
    encoder = twin(stella)

    with states_changed(encoder, lambda states: states.to(dtype)):
        pooled = encoder.pool(TEXTS)

    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, expected, atol=tolerance * np.abs(expected).max())


HEADERS = {
    "2^64": b"\xff" * 8,
    "2^63": b"\x00" * 7 + b"\x80",
    "longer than the file": (1 << 40).to_bytes(8, "little"),
    "no JSON": (16).to_bytes(8, "little") + b"{" * 16,
    "bytes beyond the end": (70).to_bytes(8, "little")
    + b'{"x": {"dtype": "F32", "shape": [999], "data_offsets": [0, 3996]}}    ',
}


@pytest.mark.fault(24, "an error that names the file and says to download it again")
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("name", ["model.safetensors", "2_Dense_1024/model.safetensors"])
def test_weights_with_a_broken_header_are_named(copy: Path, name: str, header: bytes) -> None:
    path = copy / name
    path.unlink()
    path.write_bytes(header + b"\0" * 64)

    with pytest.raises(EnvironmentProblem, match=r"damaged \(.*download it again") as error:
        resolve(str(copy)).load("cpu").encode(["x"])

    assert str(path.parent) in str(error.value)


@pytest.mark.fault(17, "set aside; its texts are encoded again")
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_shard_with_a_broken_header_is_set_aside(tmp_path: Path, header: bytes) -> None:
    store = VectorStore(tmp_path, {"model": "m"})
    store.add(KEYS[:1], rows(1))
    store.flush()
    (shard,) = store.folder.glob("*.safetensors")
    shard.write_bytes(header + b"\0" * 64)

    assert len(VectorStore(tmp_path, {"model": "m"})) == 0
    assert shard.with_suffix(".damaged").exists()


@pytest.mark.fault(30, "a finite vector; texts beyond the longest input are truncated and counted")
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0",
        "\ufeff",
        "\u202e\u05e9\u05dc\u05d5\u05dd",
        "\u0645\u0631\u062d\u0628\u0627 " * 40,
        "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 30,
        "a" * 1_000_000,
        "ab " * 333_333,
        "\u0301" * 500,
    ],
    ids=["empty", "blank", "NUL", "BOM", "Hebrew", "Arabic", "family", "one word", "many words", "accents"],
)
def test_any_text_has_a_finite_vector_and_truncated_texts_are_counted(stella: TextEncoder, text: str) -> None:
    encoder = twin(stella, max_length=64)

    vectors = encoder.encode(["before", text, "after"])

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.stats.at_limit == (len(stella.tokenise([text])[0]) >= 64)


@pytest.mark.fault(31, "in an id: refused, with file and line, because the id could not be written to a file")
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_an_id_with_a_lone_surrogate_is_refused_before_encoding(tmp_path: Path, suffix: str) -> None:
    row = json.dumps({"id": "clip \ud83d", "summary": "a"})
    path = tmp_path / f"x.{suffix}"
    path.write_text(f"[{row}]" if suffix == "json" else row)

    for read in (read_references, lambda path: read_candidates([path], {"1": "a"})):
        with pytest.raises(ConfigError, match=r"column 'id': 'clip \\ud83d' contains a lone surrogate"):
            read(path)


# ------------------------------------------------------------------------------------------------------- the data


@pytest.mark.fault(34, "a warning counts repeated and swapped pairs, and shows one")
@pytest.mark.parametrize(("kind", "repeats"), [("STS", 2), ("PairClassification", 2), ("Retrieval", 1)])
def test_duplicate_pairs_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str, repeats: int
) -> None:
    from stella_mteb.harness.task_yaml import load_task_file

    monkeypatch.setattr("stella_mteb.harness.task_yaml.logger.parent.propagate", True)
    twice = [("the cat sat", "a dog ran", 1.0), ("a dog ran", "the cat sat", 4.0), ("the cat sat", "a dog ran", 2.0)]

    pairs = load_task_file(own_task(tmp_path, [*twice, ("x", "y", 5.0)], kind=kind)).pairs

    assert len(pairs.first) == 4
    assert f"task OwnSTS: {repeats} of 4 rows repeat a pair (" in caplog.text
    assert "'the cat sat'" in caplog.text


def test_distinct_pairs_are_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.harness.task_yaml import load_task_file

    monkeypatch.setattr("stella_mteb.harness.task_yaml.logger.parent.propagate", True)

    _ = load_task_file(own_task(tmp_path, RATED_PAIRS)).pairs

    assert caplog.text == ""


@pytest.mark.fault(35, "an error that names data set and split, and says how to give a local file")
def test_a_split_that_a_data_set_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from stella_mteb.files.rows import read_hub

    (tmp_path / "test.jsonl").write_text('{"a": 1}\n')
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda _, *more, **named: load(str(tmp_path), *more, **named))

    with pytest.raises(EnvironmentProblem, match=r"data set org/set \(split dev\).*-t NAME=FILE"):
        list(read_hub("org/set", "a" * 40, None, "dev"))


@pytest.mark.fault(36, "refused, and not executed")
def test_a_loading_script_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from stella_mteb.files.rows import read_hub

    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda _, *more, **named: load(str(folder), *more, **named))

    with pytest.raises(EnvironmentProblem, match=r"scripts are no longer supported.*-t NAME=FILE"):
        list(read_hub("org/scripted", "a" * 40, None, "test"))

    assert not (tmp_path / "ran").exists()


@pytest.mark.fault(35, "a local folder with the name of a pinned hub data set is refused")
def test_a_folder_with_a_data_sets_name_is_not_read_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stella_mteb.files.rows import read_hub

    (tmp_path / "org/set").mkdir(parents=True)
    (tmp_path / "org/set/test.jsonl").write_text('{"a": 1}\n')
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match=r"would be read instead"):
        list(read_hub("org/set", "a" * 40, None, "test"))


# -------------------------------------------------------------------------------------------------------- output


@pytest.mark.fault(46, "in logs and tracebacks too")
def test_escape_codes_in_a_log_line_do_nothing(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    from stella_mteb.cli import models

    def loud(*_: Any, **__: Any) -> Any:
        logging.getLogger("stella_mteb.some.module").error("odd \x1b]0;owned\x07\nsecond \x1b[2J line")
        return []

    monkeypatch.setattr(models, "bundled_tasks", loud, raising=False)
    monkeypatch.setattr("stella_mteb.harness.task_yaml.bundled_tasks", lambda: loud() or {})

    _, out, err = call("tasks")

    assert "odd ]0;owned" in err.replace("  ", " ")
    assert "\x1b" not in out + err
    assert "\x07" not in out + err


@pytest.mark.fault(27, "the batch is halved, down to one text if necessary, and the smaller batch size is kept")
def test_out_of_memory_with_any_two_texts_ends_at_single_texts(
    stella: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stella.encode(TEXTS)
    encoder = twin(stella, max_length=64, token_budget=4_096)
    shapes = watch(monkeypatch, encoder, runs_out_above(1))

    vectors = encoder.encode(TEXTS)

    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert sum(texts == 1 for texts, _ in shapes) == len(TEXTS)
    assert encoder.token_budget == 64
