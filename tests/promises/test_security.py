"""The promises of SECURITY.md: no foreign code runs, no file is written elsewhere, no token is shown."""

from __future__ import annotations

import ast
import contextlib
import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_mteb.errors import ConfigError, EnvironmentProblem, StellaMtebError
from stella_mteb.files.rows import read_rows
from stella_mteb.judge.inputs import read_candidates, read_references
from stella_mteb.models.resolve import resolve
from tests.conftest import RATED_PAIRS, Call

ROOT = Path(__file__).resolve().parents[2]
SECRET = "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"  # noqa: S105 -- the form of a token, and nobody's
COMMIT = "d03be74b361d4eb24f42a2fe5bd2e29917df4604"


def own_task(folder: Path, more: str = "data: pairs.jsonl\n", name: str = "OwnSafeSTS") -> Path:
    lines = [json.dumps({"a": first, "b": second, "s": score}) for first, second, score in RATED_PAIRS]
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(
        f"name: {name}\ntype: STS\ncolumns: {{sentence1: a, sentence2: b, score: s}}\n{more}"
    )
    return folder / f"{name}.yaml"


def rewrite(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------------------------------------- names and places

HOSTILE_NAMES = [
    *("../../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:\\x", "CON", "con.txt", "LPT1", "trailing.", ".hidden"),
    *("-rf",),
    *("nul\0byte", "new\nline", "a b", "a:b", "~", "$HOME", "%2e%2e", "\u2025", "x" * 101),
]  # fmt: skip


@pytest.mark.fault(47, "refused as the name of a task or model; the error names file and line")
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_is_invalid_on_any_file_system_is_refused(tmp_path: Path, name: str) -> None:
    from stella_mteb.harness.task_yaml import load_task_file
    from stella_mteb.models.config import load_config

    quoted = json.dumps(name)
    (tmp_path / "model.yaml").write_text(f"path: .\nname: {quoted}\n")
    task = own_task(tmp_path)
    task.write_text(task.read_text().replace("OwnSafeSTS", quoted))

    with pytest.raises(ConfigError, match=r"model\.yaml:2: name: "):
        load_config(tmp_path / "model.yaml")
    with pytest.raises(ConfigError, match=r"yaml:1: name: "):
        load_task_file(task)


@pytest.mark.fault(47, "refused as a revision, which must be a full commit")
@pytest.mark.parametrize("revision", ["../../..", "main", "/", "a" * 39, "A" * 40, f"{COMMIT}/..", f"{COMMIT}\n"])
def test_a_revision_must_be_a_full_commit(tmp_path: Path, revision: str) -> None:
    from stella_mteb.harness.task_yaml import load_task_file
    from stella_mteb.models.config import load_config

    hub = f"{{name: org/model, revision: {json.dumps(revision)}}}"
    (tmp_path / "model.yaml").write_text(f"name: m\nhub: {hub}\n")

    with pytest.raises(ConfigError, match="a full commit of 40"):
        load_config(tmp_path / "model.yaml")
    with pytest.raises(ConfigError, match="a full commit of 40"):
        load_task_file(own_task(tmp_path, f"hub: {hub.replace('name', 'path')}\n"))


@pytest.mark.fault(47, "refused as the name of a hub repository")
@pytest.mark.parametrize(
    "name", ["../model", "org/..", "org/../x", "/org/model", "org\\model", "org/model/x", "org/m."]
)
def test_a_hub_name_must_be_organisation_and_name(tmp_path: Path, name: str) -> None:
    from stella_mteb.harness.task_yaml import load_task_file
    from stella_mteb.models.config import load_config

    (tmp_path / "model.yaml").write_text(f"name: m\nhub: {{name: {json.dumps(name)}}}\n")

    with pytest.raises(ConfigError, match=r"hub\.name"):
        load_config(tmp_path / "model.yaml")
    with pytest.raises(ConfigError, match=r"hub\.path"):
        load_task_file(own_task(tmp_path, f"hub: {{path: {json.dumps(name)}, revision: {COMMIT}}}\n"))


@pytest.mark.fault(47, "plain `mteb.evaluate` also writes results under such names inside the folder, or not at all")
@pytest.mark.parametrize("hostile", ["../../../x", "../../../../../../x", "/{root}/x"])
@pytest.mark.parametrize("where", ["task", "model", "revision"])
def test_no_result_is_written_outside_the_output_folder(tmp_path: Path, where: str, hostile: str) -> None:
    from mteb.results import TaskResult

    from stella_mteb.harness.result_cache import AtomicResultCache

    hostile = hostile.format(root=tmp_path)
    names = {"task": "Task", "model": "org/model", "revision": "abc"} | {where: hostile}
    scores = {"test": [{"main_score": 0.5, "hf_subset": "default", "languages": ["eng-Latn"]}]}
    result = TaskResult(
        task_name=names["task"], dataset_revision="1", mteb_version="2.26.24", scores=scores, evaluation_time=1.0
    )
    output = tmp_path / "deep" / "er" / "out"
    output.mkdir(parents=True)

    with contextlib.suppress(StellaMtebError, ValueError):
        AtomicResultCache(output).save_to_cache(result, names["model"], names["revision"])

    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(output)]
    assert outside == []


@pytest.mark.fault(47, "results of a model folder of any name get a safe name")
@pytest.mark.parametrize("name", ["CON", "..stella..", "a b", "stella\n", "$(id)", "x" * 200])
def test_a_folder_of_any_name_has_a_harmless_result_folder(stella_folder: Path, tmp_path: Path, name: str) -> None:
    from stella_mteb.models.locate import find_config

    (tmp_path / name).mkdir()

    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?<!\.)", find_config(str(tmp_path / name)).name)


@pytest.mark.fault(47, "results of predictions of any file name get a safe name")
def test_predictions_of_any_file_name_have_a_harmless_result_file(tmp_path: Path) -> None:
    for name in ("a b\n", "$(id)", "\\..\\x", "<b>", "x..", "~"):
        (tmp_path / f"{name}.json").write_text('{"1": "a"}')

    candidates = read_candidates([tmp_path], {"1": "a"})

    assert len(candidates) == 6
    for candidate in candidates:
        assert re.fullmatch(r"[\w+-][\w.+-]*", candidate.slug)


# ------------------------------------------------------------------------------------------------------ the weights


def sharded(copy: Path, *names: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "other.safetensors").write_bytes(b"")
    index = {"metadata": {}, "weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.place), "w")


@pytest.mark.fault(25, "an index that names pickles is refused")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors.bin"])
def test_an_index_that_names_pickled_shards_is_refused(copy: Path, tmp_path: Path, name: str) -> None:
    sharded(copy, "other.safetensors", name)
    (copy / name).write_bytes(pickle.dumps(Trap(tmp_path / "ran")))

    with pytest.raises(ConfigError, match=rf"index\.json: names '{name}'; shards must be \*\.safetensors"):
        resolve(str(copy)).load("cpu")

    assert not (tmp_path / "ran").exists()


@pytest.mark.fault(47, "a shard or module outside the model's folder is refused")
@pytest.mark.parametrize("name", ["../stolen.safetensors", "/stolen.safetensors", "sub/stolen.safetensors"])
def test_an_index_that_leaves_the_folder_is_refused(copy: Path, name: str) -> None:
    sharded(copy, name)

    with pytest.raises(ConfigError, match=r"shards must be \*\.safetensors in the same folder"):
        resolve(str(copy)).load("cpu")


def test_missing_shards_are_named(copy: Path) -> None:
    sharded(copy, "model-00001-of-00002.safetensors", "other.safetensors")

    with pytest.raises(EnvironmentProblem, match=r"lacks model-00001-of-00002.safetensors of 2 shards; download"):
        resolve(str(copy)).load("cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"transformers_weights": "adapter_model.bin"},
        {"quantization_config": {"quant_method": "fp8"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_config_that_names_other_weights_is_refused(copy: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    rewrite(copy / "config.json", **changes)
    (copy / "adapter_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))

    with pytest.raises(ConfigError, match=f"config.json: {next(iter(changes))} is not supported"):
        resolve(str(copy)).load("cpu")

    assert not (tmp_path / "ran").exists()


def test_a_config_cannot_ask_for_a_kernel_of_the_hub(copy: Path) -> None:
    # With a window that cuts texts, attention is transformers' own.
    window = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}
    rewrite(copy / "config.json", **window)
    expected = resolve(str(copy)).load("cpu").encode(["a text of some words"])
    rewrite(copy / "config.json", **window, attn_implementation="someone/kernel")

    encoder = resolve(str(copy)).load("cpu")

    assert not encoder.packed
    np.testing.assert_array_equal(encoder.encode(["a text of some words"]), expected)


@pytest.mark.fault(42, "without consent, no Python file is downloaded")
@pytest.mark.parametrize("consent", [False, True])
def test_no_python_file_is_downloaded_without_consent(
    tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, consent: bool
) -> None:
    import fnmatch

    import huggingface_hub

    asked: list[dict[str, Any]] = []

    def snapshot(*, dry_run: bool = False, **options: Any) -> str | list[Any]:
        asked.append(options)
        return [] if dry_run else str(copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    more = "trust_remote_code: true\n" if consent else ""
    (tmp_path / "model.yaml").write_text(f"name: m\nhub: {{name: org/model, revision: {COMMIT}}}\n{more}")

    resolve(str(tmp_path / "model.yaml"), offline=False)

    def comes(name: str) -> bool:
        wanted = any(fnmatch.fnmatch(name, pattern) for pattern in asked[0]["allow_patterns"])
        return wanted and not any(fnmatch.fnmatch(name, pattern) for pattern in asked[0]["ignore_patterns"])

    assert asked[0]["revision"] == COMMIT
    assert comes("modeling.py") == consent
    assert comes("2_Dense_1024/model.safetensors")
    assert not any(map(comes, ("pytorch_model.bin", "model.pt", "data.pkl", "archive.zip", "run.sh", "lib.so")))


# --------------------------------------------------------------------------------------------------------- the data

PICKLED = ["npy", "npz", "pkl", "pickle", "pt", "pth", "bin", "joblib", "h5"]
PACKED = ["zip", "gz", "jsonl.gz", "json.zip", "tar", "tgz", "bz2", "xz", "zst", "7z", "rar"]


@pytest.mark.fault(37, "these formats are refused as data, references or predictions")
@pytest.mark.fault(38, "archives are not opened")
@pytest.mark.parametrize("suffix", [*PICKLED, *PACKED])
def test_pickles_and_archives_are_refused_as_data(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(pickle.dumps([Trap(tmp_path / "ran")]))

    for read in (read_rows, read_references, lambda path: read_candidates([path], {"1": "a"})):
        with pytest.raises(ConfigError, match="the suffix must be one of"):
            read(path)
    with pytest.raises(ConfigError, match="no predictions in"):
        read_candidates([tmp_path], {"1": "a"})

    assert not (tmp_path / "ran").exists()


def packed(kind: str, folder: Path) -> bytes:
    content, out = b"0" * 1_000_000, io.BytesIO()
    if kind == "gzip":
        return gzip.compress(content)
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../../escaped.jsonl", content)
        return out.getvalue()
    if kind == "tar":
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            member = tarfile.TarInfo("../../escaped.jsonl")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return out.getvalue()
    if kind == "pickle":
        return pickle.dumps([Trap(folder / "ran")])
    np.save(out, np.array([Trap(folder / "ran")], dtype=object), allow_pickle=True)
    return out.getvalue()


@pytest.mark.fault(37, "under the suffix of a text or Parquet file: an error (not UTF-8, not Parquet); never unpickled")
@pytest.mark.fault(38, "under the suffix of a text or Parquet file: an error (not UTF-8, not Parquet); never unpacked")
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet", "json"])
@pytest.mark.parametrize("kind", ["gzip", "zip", "tar", "pickle", "numpy"])
def test_an_archive_with_a_text_suffix_is_not_unpacked(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / "in" / "er" / f"data.{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(packed(kind, tmp_path))

    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_references(path)

    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


@pytest.mark.fault(38, "a Parquet file of more than 20 million rows or 4 GiB of content is refused")
@pytest.mark.parametrize(("rows", "text"), [(3_000, "x"), (100, "x" * 10_000)])
def test_a_parquet_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, text: str
) -> None:
    import pyarrow
    import pyarrow.parquet

    from stella_mteb.files import rows as data

    path = tmp_path / "bomb.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [text] * rows}), path)
    assert path.stat().st_size < rows * len(text) or rows > 1_000
    assert len(list(read_rows(path))) == rows
    monkeypatch.setattr(data, "MAX_PARQUET_ROWS", 2_000)
    monkeypatch.setattr(data, "MAX_PARQUET_BYTES", 500_000)

    with pytest.raises(ConfigError, match=r"bomb\.parquet: (has 3000 rows, but at most|unpacks to more than)"):
        list(read_rows(path))


@pytest.mark.fault(37, "metadata that another program wrote to a Parquet file is ignored")
def test_a_pickle_in_the_metadata_of_a_parquet_file_is_not_loaded(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    trap = pickle.dumps(Trap(tmp_path / "ran"), protocol=0)  # ASCII, as text must be
    schema = pyarrow.schema(
        [pyarrow.field("a", pyarrow.string(), metadata={b"pickle": trap})], metadata={b"pandas": trap}
    )
    pyarrow.parquet.write_table(pyarrow.table({"a": ["x"]}, schema=schema), tmp_path / "data.parquet")

    assert [row for _, row in read_rows(tmp_path / "data.parquet")] == [{"a": "x"}]  # type: ignore[misc]
    assert not (tmp_path / "ran").exists()


def test_a_star_in_a_file_name_is_not_a_pattern(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for name, text in (("*", "own"), ("other", "other")):
        pyarrow.parquet.write_table(pyarrow.table({"a": [text]}), tmp_path / f"{name}.parquet")

    assert [row for _, row in read_rows(tmp_path / "*.parquet")] == [{"a": "own"}]  # type: ignore[misc]


_NEVER_IMPORTED = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "diskcache",
    "imp",
    "tarfile",
    "zipfile",
}
_NEVER_CALLED = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "np.load", "numpy.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "shutil.unpack_archive"),
}


def test_the_package_never_executes_data() -> None:
    found = []
    for path in sorted((ROOT / "stella_mteb").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            elif isinstance(node, ast.Call):
                names = [ast.unparse(node.func), *(f"{k.arg}={ast.unparse(k.value)}" for k in node.keywords)]
            never = (
                _NEVER_CALLED | {"shell=True", "allow_pickle=True"} if isinstance(node, ast.Call) else _NEVER_IMPORTED
            )
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in names if name in never]  # type: ignore[attr-defined]

    assert found == []


# ---------------------------------------------------------------------------------------------------------- tokens


def everything_in(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", SECRET[::-1])
    return SECRET


@pytest.mark.fault(43, "absent from every result, cache, log and output of a run")
def test_a_run_writes_no_token_anywhere(call: Call, tmp_path: Path, stella_folder: Path, secret: str) -> None:
    task, output = own_task(tmp_path), tmp_path / "out"

    code, out, err = call(
        "run", "-m", f"{stella_folder}@256", "-t", task, "--output", output, "--cache", tmp_path / "cache",
        "--device", "cpu", "--format", "json",
    )  # fmt: skip

    assert code == 0, err
    assert list(output.rglob("OwnSafeSTS.json"))
    for text in (everything_in(output), everything_in(tmp_path / "cache"), out, err):
        assert secret not in text
        assert secret[::-1] not in text


@pytest.mark.fault(43, "masked in errors, tracebacks, tables and the command that resumes")
@pytest.mark.parametrize("form", ["table", "json", "csv", "md"])
def test_a_token_in_an_error_is_masked(
    call: Call, tmp_path: Path, stella_folder: Path, monkeypatch: pytest.MonkeyPatch, secret: str, form: str
) -> None:
    from stella_mteb.harness import run

    def fails(*_: Any) -> Any:
        raise RuntimeError(
            f"403 for https://me:pass-word@host.example/x?a=1&token=query-token ({secret}, Bearer header-tok)"
        )

    monkeypatch.setattr(run, "_evaluate", fails)
    task = own_task(tmp_path)

    code, out, err = call(
        "run",
        "-m",
        f"{stella_folder}@256",
        "-t",
        task,
        "--output",
        tmp_path / "out",
        "--device",
        "cpu",
        "--format",
        form,
    )

    assert code == 1
    assert "Traceback" in err
    assert "403 for https://***@host.example/x?a=1&token=***" in err
    for hidden in (secret, "pass-word", "query-token", "header-tok"):
        assert hidden not in out + err + everything_in(tmp_path / "out")
    if form == "json":
        assert json.loads(out)[0]["error"].startswith("RuntimeError: 403 for https://***@host")


_BUG = f"""
import logging, sys
from stella_mteb.cli import app, main
@app.command()
def bug():
    logging.getLogger("mteb.somewhere").error("cannot load {SECRET} \\x1b]0;owned\\x07")
    raise RuntimeError("https://me:pass-word@host?token=x {SECRET}")
sys.argv = ["stella-mteb", "bug"]
main()
"""


@pytest.mark.fault(43, "masked in the traceback of a bug, and in log lines of libraries")
def test_a_token_in_the_traceback_of_a_bug_is_masked() -> None:
    done = subprocess.run([sys.executable, "-c", _BUG], capture_output=True, text=True, check=False, timeout=600)

    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "cannot load ***  ]0;owned "
    assert done.stderr.splitlines()[1].startswith("Traceback (most recent call last)")
    assert done.stderr.splitlines()[-1] == "RuntimeError: https://***@host?token=*** ***"
    assert "pass-word" not in done.stdout + done.stderr


@pytest.mark.fault(43, "masked where an error repeats the arguments")
def test_a_token_in_a_models_address_is_masked(call: Call, secret: str) -> None:
    code, out, err = call("verify", "-m", f"https://me:{secret}@hub.example/org/model", "--offline")

    assert (code, out) == (2, "")
    assert "https://***@hub.example/org/model" in err
    assert secret not in err


def test_text_that_resembles_a_token_is_kept() -> None:
    from stella_mteb.files.tables import plain

    for text in ("hf_transfer", "hf_hub_download", "user@host", "a@b.c", "tokens=12", "git@github.com:org/model"):
        assert plain(text) == text


# --------------------------------------------------------------------------------------------------------- offline

# Every attempt fails, and is remembered. Not counted is the socket with which urllib3, when it is imported, asks the
# machine whether it has IPv6; nothing is sent over it.
_WATCH = """
import socket, sys
watched = []
def refuse_sockets(event, arguments):
    if not watched or not event.startswith("socket."):
        return
    frame, names = sys._getframe(), set()
    while frame:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    inet = event == "socket.__new__" and arguments[1] in (socket.AF_INET, socket.AF_INET6) and "_has_ipv6" not in names
    if inet or event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}:
        watched[0].append(event)
        raise OSError("a socket was opened")
sys.addaudithook(refuse_sockets)
"""


@pytest.fixture(scope="session")
def watched() -> list[list[str]]:
    """Puts the watch into this process; it cannot be removed, and does nothing while the list is empty."""
    names: dict[str, Any] = {}
    exec(_WATCH, names)  # noqa: S102
    return names["watched"]  # type: ignore[no-any-return]


@pytest.fixture
def opened(watched: list[list[str]]) -> Iterator[list[str]]:
    """Record the connections that any library tries to open; each attempt fails."""
    watched.append([])
    yield watched[0]
    watched.clear()


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def judge_inputs(folder: Path) -> list[object]:
    (folder / "predictions").mkdir()
    (folder / "references.json").write_text('[{"id": "1", "summary": "A man opens a door. He leaves."}]')
    (folder / "predictions/good.json").write_text('{"1": "A man leaves through a door."}')
    return ["--references", folder / "references.json", "--predictions", folder / "predictions"]


Arguments = Callable[[Path, Path], list[object]]
COMMANDS: dict[str, tuple[int, Arguments]] = {
    "tasks": (0, lambda *_: ["tasks"]),
    "models": (0, lambda *_: ["models"]),
    "doctor": (0, lambda *_: ["doctor", "--offline"]),
    "cache": (0, lambda *_: ["cache", "ls"]),
    "verify": (1, lambda model, _: ["verify", "-m", f"{model}@256", "--device", "cpu", "--offline"]),
    "judge": (
        0,
        lambda model, place: [
            *("judge", *judge_inputs(place), "-m", f"{model}@256", "--device", "cpu", "--offline"),
            *("--output", place / "out"),
        ],
    ),
    "run": (
        1,  # the data of STS12 are not there
        lambda model, place: [
            *("run", "-m", f"{model}@256", "-t", own_task(place), "-t", "STS12", "--device", "cpu", "--offline"),
            *("--output", place / "out"),
        ],
    ),
}


@pytest.mark.fault(41, "no socket is opened, as the interpreter's audit events confirm")
@pytest.mark.usefixtures("empty_hub")
@pytest.mark.parametrize("command", COMMANDS)
def test_offline_no_command_opens_a_socket(
    call: Call, tmp_path: Path, stella_folder: Path, opened: list[str], command: str
) -> None:
    code, arguments = COMMANDS[command]

    got, out, err = call(*arguments(stella_folder, tmp_path))

    assert opened == []
    assert got == code, err
    if command == "run":
        assert re.search(r"OwnSafeSTS\s+-?0\.\d+\s+done", out)
        assert "the task's data is not on this machine" in err


@pytest.mark.fault(41, "exit code 3 in under three seconds, with the command that downloads the missing files")
@pytest.mark.usefixtures("empty_hub")
def test_offline_a_missing_model_is_reported_at_once(call: Call, tmp_path: Path, opened: list[str]) -> None:
    arguments = ["run", "-m", "stella_en_1.5B_v5", "-t", "STS12", "--offline", "--output", tmp_path / "out"]
    call(*arguments)  # what is imported on the way is no part of it
    started = time.process_time()

    code, out, err = call(*arguments)

    assert time.process_time() - started < 3
    assert (code, out) == (3, "")
    assert f"`hf download NovaSearch/stella_en_1.5B_v5 --revision {COMMIT}`" in err
    assert opened == []


_CHILD = f"""{_WATCH}
watched.append([])
from stella_mteb.cli import main
try:
    main()
finally:
    print(f"\\nopened {{len(watched[0])}} sockets", file=sys.stderr)
"""


def as_a_user(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    environment |= {"HF_HOME": str(home)}
    environment.pop("HF_HUB_CACHE", None)
    return subprocess.run(
        [sys.executable, "-c", _CHILD, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )


@pytest.mark.fault(41, "the option is sufficient: no environment variable is needed")
def test_the_offline_option_alone_prevents_network_access(tmp_path: Path, stella_folder: Path) -> None:
    _, arguments = COMMANDS["run"]

    done = as_a_user(tmp_path / "home", *arguments(stella_folder, tmp_path))

    assert done.returncode == 1, done.stderr
    assert "opened 0 sockets" in done.stderr
    assert re.search(r"OwnSafeSTS\s+-?0\.\d+\s+done", done.stdout)


def test_the_audit_hook_detects_network_access(call: Call, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="a socket was opened"):
        urllib.request.urlopen("https://huggingface.co", timeout=3)
    assert opened
    opened.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

    call("doctor")

    assert opened


def test_a_local_model_through_the_library_opens_no_socket(stella_folder: Path, opened: list[str]) -> None:
    resolve(f"{stella_folder}@256", offline=True).load("cpu").encode(["x"])

    assert opened == []


# -------------------------------------------------------------------------------------------------------- the page


def test_every_test_named_in_security_md_exists() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/test_\w+)::(test_\w+)`", page)

    for module, test in named:
        source = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
        assert f"\ndef {test}(" in source, f"{module}::{test}"
    assert len(named) > 10
    assert len(page.splitlines()) < 80
