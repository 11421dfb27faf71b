"""Strict YAML and JSON, and atomic writes."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import atomic_write, read_json, read_text, write_json
from stella_mteb.files.strict_yaml import read_yaml


def yaml_error(folder: Path, content: str | bytes) -> str:
    path = folder / "some.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


def json_error(folder: Path, content: str) -> str:
    path = folder / "some.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


# -------------------------------------------------------------------------------------------------- atomic files


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target.json"
    path.write_text("old")
    return path


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def only_file(path: Path, content: str) -> bool:
    return [file.name for file in path.parent.iterdir()] == [path.name] and path.read_text() == content


@pytest.mark.parametrize("reason", [RuntimeError("a bug"), KeyboardInterrupt(), UnicodeError("odd")], ids=repr)
def test_the_target_is_unchanged_when_the_body_raises(target: Path, reason: BaseException) -> None:
    with pytest.raises(type(reason)), atomic_write(target) as file:
        file.write("new")
        file.flush()
        raise reason

    assert only_file(target, "old")


def test_no_target_appears_when_the_body_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "new.json") as file:
        file.write("half")
        raise RuntimeError

    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(6, "exit code 3; the old file is intact, and no temporary file remains")
@pytest.mark.parametrize(
    "step", ["os.fsync", "os.fdopen", "pathlib.Path.replace", "pathlib.Path.chmod", "tempfile.mkstemp"]
)
def test_a_full_disk_leaves_the_old_file_and_says_so(target: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(step, full)

    with pytest.raises(EnvironmentProblem) as caught, atomic_write(target) as file:
        file.write("new")
    assert str(caught.value) == f"{target}: cannot be written: No space left on device"
    assert caught.value.exit_code == 3
    assert only_file(target, "old")


@pytest.mark.fault(6, "exit code 3; the old file is intact, and no temporary file remains")
def test_a_disk_that_fills_up_while_writing_leaves_the_old_file(target: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="No space left"), atomic_write(target) as file:
        file.write("half of the new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert only_file(target, "old")


@pytest.mark.fault(7, "the error names the path")
def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    path = tmp_path / "taken" / "result.json"

    with pytest.raises(EnvironmentProblem, match=re.escape(f"{path}: cannot be written")):
        write_json(path, {})
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_reader_sees_the_old_content_until_the_body_ends(target: Path) -> None:
    with atomic_write(target) as file:
        file.write("new")
        file.flush()

        assert target.read_text() == "old"
    assert only_file(target, "new")


def test_the_content_is_on_the_disk_before_it_takes_the_targets_place(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append(("flush", "folder" if is_folder else os.pread(descriptor, 100, 0).decode()))
        fsync(descriptor)

    def recorded_replace(self: Path, other: Path) -> Path:
        steps.append(("replace", str(self.parent)))
        return replace(self, other)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    write_json(target, "new")

    assert steps == [("flush", '"new"\n'), ("replace", str(target.parent)), ("flush", "folder")]


@pytest.mark.fault(1, "the old file or the new one, never a mixture")
def test_a_process_killed_while_writing_leaves_the_old_file(target: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from stella_mteb.files.atomic import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write('half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    done = subprocess.run([sys.executable, "-c", script, str(target)], check=False, timeout=600)

    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_the_files_permissions_are_what_the_umask_says(tmp_path: Path, mask: int, mode: int) -> None:
    os.umask(mask)
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("x")

    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode
    assert os.umask(mask) == mask


def test_missing_parent_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    write_json(path, [1])

    assert only_file(path, "[\n  1\n]\n")


def test_bytes_are_written_unchanged(tmp_path: Path) -> None:
    content = bytes(range(256)) + b"\r\n\n"
    with atomic_write(tmp_path / "a.bin", "wb") as file:
        file.write(content)

    assert (tmp_path / "a.bin").read_bytes() == content


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("naïve 映像 🎬\n")

    assert (tmp_path / "a.txt").read_bytes() == "naïve 映像 🎬\n".encode()


@pytest.mark.fault(13, "a name of 255 bytes can be written")
@pytest.mark.parametrize("letter", ["a", "映", "🎬"])
def test_the_longest_name_that_the_file_system_takes_can_be_written(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_json(path, 1)

    assert only_file(path, "1\n")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_write_json_refuses_nan_and_infinity_and_leaves_the_old_file(target: Path, number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, {"scores": [0.5, number]})

    assert only_file(target, "old")


def test_write_json_refuses_a_lone_surrogate_and_leaves_the_old_file(target: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_json(target, {"text": "\ud800"})

    assert only_file(target, "old")


def test_write_json_is_readable_by_people_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "café", "a": [1, 0.1]})

    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "b": "café",\n  "a": [\n    1,\n    0.1\n  ]\n}\n'


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBER | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(content=_JSON)
def test_read_json_restores_what_write_json_wrote(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.getbasetemp() / "round.json"
    write_json(path, content)

    assert read_json(path) == content
    assert json.loads(path.read_text(encoding="utf-8")) == content


# -------------------------------------------------------------------------------------------------------- YAML


@pytest.mark.fault(39, "refused with file and line")
@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3:", "duplicate key 'a' (first on line 1)"),
        ("a:\n  x: 1\n  x: 2\n", ":3:", "duplicate key 'x' (first on line 2)"),
        ("a:\n  - x: 1\n    x: 2\n", ":3:", "duplicate key 'x' (first on line 2)"),
        ("a: &me 1\nb:\n  c: *me\n", ":3:", "aliases are not allowed"),
        ("\na: " + "[" * 3000, ":2:", "nested deeper than 50 levels"),
        ("a:\n" + "- " * 3000 + "x\n", ":2:", "nested deeper than 50 levels"),
        ("a: " + "{b: " * 3000 + "}" * 3000, ":1:", "nested deeper than 50 levels"),
        ("a:\n\tb: 1\n", ":2:", r"'\t'"),
        ("a: [1, 2\nb: 3\n", ":2:", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", ":2:", "another document"),
        ("a: 1\n? [x]\n: 2\n", ":2:", "a key must be plain text"),
        ("- a\n- b\n", ":1:", "must be a mapping of keys to values"),
        ("only words\n", ":1:", "must be a mapping of keys to values"),
        ("", ":1:", "must be a mapping of keys to values"),
    ],
)
def test_a_faulty_yaml_is_refused_with_its_line(tmp_path: Path, content: str, place: str, reason: str) -> None:
    message = yaml_error(tmp_path, content)

    assert message.startswith(place)
    assert reason in message


@pytest.mark.fault(39, "refused with file and line")
@pytest.mark.parametrize(
    "value",
    [
        "!!python/object:os.system x",
        "!!python/object/apply:os.system [exit 1]",
        "!custom x",
        "!!int x",
        "!!int ''",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "!!timestamp 2020-99-99",
        "!!binary aGVsbG8=",
        "!!set {x, y}",
        "!!omap [x: 1]",
    ],
)
def test_every_tag_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    message = yaml_error(tmp_path, f"a: 1\nb: {value}\n")

    assert message.startswith(":2:")
    assert "tag" in message


def test_a_merge_by_tag_brings_in_no_unseen_keys(tmp_path: Path) -> None:
    assert yaml_error(tmp_path, "a: 1\n!!merge x: {b: 2}\n").startswith(":2:")


@pytest.mark.parametrize(
    "value",
    ["\x00", "x\x01y", "\x7f", '"\\UFFFFFFFF"', "1" * 5000, "-" + "9" * 5000],
    ids=lambda value: ascii(value[:12]),
)
def test_a_value_that_python_cannot_hold_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    """Control characters, a code point past the last, and an integer of more than 4300 digits."""
    assert yaml_error(tmp_path, f"a: 1\nb: {value}\n").startswith(":2:")


@pytest.mark.fault(39, "a file of more than a megabyte is refused")
def test_a_yaml_of_more_than_a_megabyte_is_refused(tmp_path: Path) -> None:
    assert "larger than 1000000 bytes" in yaml_error(tmp_path, "a: " + "x" * 1_000_001)


def test_the_megabyte_is_counted_in_bytes_not_characters(tmp_path: Path) -> None:
    assert "larger than 1000000 bytes" in yaml_error(tmp_path, "a: " + "é" * 600_000)


def test_a_yaml_that_is_not_utf8_names_the_byte(tmp_path: Path) -> None:
    assert yaml_error(tmp_path, b"a: caf\xe9\n") == ": not UTF-8 (byte 6); save it as UTF-8"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.yaml"

    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"{path}: no such file"


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}: cannot be read")):
        read_yaml(tmp_path)


@pytest.mark.fault(39, "`no` and `0123` stay text")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("no", "yes", "on", "off", "No", "y", "n", "TRUE")],
        *[(word, word) for word in ("0123", "0o17", "0x10", "0b1", "1_000", "1:30", "2020-01-01", "1e3")],
        *[(word, word) for word in (".inf", ".nan", "<<", "=")],
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("1.50", 1.5),
        ("2.5e-3", 0.0025),
        ("'1'", "1"),
        ('"true"', "true"),
    ],
)
def test_only_the_plain_forms_of_numbers_and_booleans_are_converted(tmp_path: Path, text: str, value: object) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"key: {text}\n")

    read = read_yaml(path)[0]["key"]

    assert (read, type(read)) == (value, type(value))


def test_the_line_of_every_key_and_list_entry_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# a comment\na: 1\n\nb:\n  c: [x,\n    y]\n  d:\n  - e: 1\n")

    assert read_yaml(path)[1] == {
        ("a",): 2,
        ("b",): 4,
        ("b", "c"): 5,
        ("b", "c", 0): 5,
        ("b", "c", 1): 6,
        ("b", "d"): 7,
        ("b", "d", 0): 8,
        ("b", "d", 0, "e"): 8,
    }


def test_fifty_levels_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: " + "[" * 49 + "x" + "]" * 49)

    value = read_yaml(path)[0]["a"]
    for _ in range(49):
        (value,) = value
    assert value == "x"


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: caf\xc3\xa9\n")

    assert read_yaml(path)[0] == {"name": "café"}
    assert read_text(path) == "name: café\n"


_PIECES = [
    *("a: ", "b: ", "? ", "- ", ": ", "\n", "\n  ", "  ", "\t", "[", "]", "{", "}", ", ", "#", "|", ">", "'", '"'),
    *("&x ", "*x", "<<: ", "!", "!!int ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!merge "),
    *("!!python/object:os.system ", "%TAG ! x\n", "%YAML 1.1\n", "---\n", "...\n", "\\ud800", "\\UFFFFFFFF", "\\x"),
    *("2020-13-41", "1", "0123", "1.0e+999", "9" * 4400, "true", "no", "~", "\x00", "\x85", "\u2028", "\ufeff"),
]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    content=st.one_of(
        st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(st.sampled_from(_PIECES), max_size=14).map(lambda pieces: "".join(pieces).encode()),
        st.binary(max_size=60),
    )
)
def test_any_file_is_a_mapping_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)

    try:
        data, lines = read_yaml(path)
    except ConfigError as error:
        assert str(error).startswith(str(path))
        return
    assert isinstance(data, dict)
    assert all((str(key),) in lines or not isinstance(key, str) for key in data)


# -------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_in_json_are_refused(tmp_path: Path, word: str) -> None:
    assert f"{word} is not a JSON number" in json_error(tmp_path, f'{{"a": [1, {word}]}}')


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_json_number_past_the_largest_float_is_refused(tmp_path: Path, number: str) -> None:
    assert number in json_error(tmp_path, f'{{"a": [1, {number}]}}')


@pytest.mark.parametrize("content", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]'])
def test_a_duplicate_json_key_is_refused(tmp_path: Path, content: str) -> None:
    assert "duplicate key 'a'" in json_error(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "line"), [('{"a": [1,\n2', 2), ('{"a":\n\n', 3), ("", 1), ('{"a": 1}\nmore', 2), ("{'a': 1}", 1)]
)
def test_json_that_is_cut_off_or_malformed_names_the_line(tmp_path: Path, content: str, line: int) -> None:
    assert json_error(tmp_path, content).startswith(f":{line}: not valid JSON")


@pytest.mark.fault(39, "JSON nested past the stack: an error")
def test_json_nested_past_the_stack_is_an_error_not_a_crash(tmp_path: Path) -> None:
    assert "nested too deeply" in json_error(tmp_path, "[" * 100_000)
    assert "nested too deeply" in json_error(tmp_path, '{"a":' * 100_000)


def test_a_json_integer_of_thousands_of_digits_is_an_error_not_a_crash(tmp_path: Path) -> None:
    assert "4300" in json_error(tmp_path, "1" * 5000)


def test_valid_json_is_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"a": [1, -2.5, null, true, "caf\\u00e9"], "b": {}}', encoding="utf-8")

    assert read_json(path) == {"a": [1, -2.5, None, True, "café"], "b": {}}
