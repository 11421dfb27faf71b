"""Model configs: bundled ones load, and every error names file, line, key and fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stella_mteb.errors import ConfigError
from stella_mteb.models.config import bundled_configs, load_config

COMMIT = "d03be74b361d4eb24f42a2fe5bd2e29917df4604"
LEAST = "name: mine\npath: weights\n"


def load(folder: Path, text: str):
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_config(path)


def faults(folder: Path, text: str) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "").split("\n")


# ------------------------------------------------------------------------------------------------------ bundled


@pytest.mark.parametrize("name", sorted(bundled_configs()))
def test_every_bundled_config_loads_and_is_pinned(name: str) -> None:
    config = load_config(bundled_configs()[name])

    assert config.name == name
    assert config.hub is not None
    assert re.fullmatch("[0-9a-f]{40}", config.hub.revision or "")
    assert config.full_name == config.hub.name
    assert not config.trust_remote_code


@pytest.mark.parametrize("name", ["stella_en_1.5B_v5", "stella_en_400M_v5"])
def test_stella_has_the_prompts_of_its_card_and_refuses_fp16(name: str) -> None:
    config = load_config(bundled_configs()[name])

    assert config.prompts.profile == "card"
    assert config.prompts.s2s == "Instruct: Retrieve semantically similar text.\nQuery: "
    assert config.prompts.s2p == (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query.\nQuery: "
    )
    assert config.prompts.document == ""
    assert "NaN" in config.refused_dtypes["float16"]
    assert f"dunzhang/{name}" in config.hub.aliases


def test_stella_1_5b_is_bidirectional_and_closes_with_its_eos() -> None:
    config = load_config(bundled_configs()["stella_en_1.5B_v5"])

    assert config.hub.revision == COMMIT
    assert (config.attention, config.eos_token_id) == ("bidirectional", 151_643)
    assert (config.dimension, config.max_length, config.normalize) == (1024, 512, True)
    assert config.goldens.similarity == [[0.8178789, 0.2958377], [0.31938642, 0.7853526]]
    assert (len(config.goldens.queries), len(config.goldens.documents)) == (2, 2)


# ------------------------------------------------------------------------------------------------------- faults


@pytest.mark.fault(40, "the error names the line and the nearest key")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LEAST + "batchsize: 3\n", "mine.yaml:3: unknown key 'batchsize'; did you mean 'batch_size'?"),
        (LEAST + "\nmax_len: 3\n", "mine.yaml:4: unknown key 'max_len'; did you mean 'max_length'?"),
        (LEAST + "prompts:\n  s2x: hi\n", "mine.yaml:4: unknown key 'prompts.s2x'; did you mean 's2s'?"),
        (
            f"name: mine\nhub:\n  name: a/b\n  revison: {COMMIT}\n",
            "mine.yaml:4: unknown key 'hub.revison'; did you mean 'revision'?",
        ),
        (
            LEAST + "goldens:\n  source: x\n  dimension: 2\n  tolerance: 0.1\n  querys: [a]\n",
            "mine.yaml:7: unknown key 'goldens.querys'; did you mean 'queries'?",
        ),
        (
            LEAST + "goldens:\n  source: x\n  dimension: 2\n  tolerance: 0.1\n  tokens:\n"
            "    - text: hi\n      ids: [1]\n      txt: hi\n",
            "mine.yaml:10: unknown key 'goldens.tokens.0.txt'; did you mean 'text'?",
        ),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_key(tmp_path: Path, text: str, message: str) -> None:
    assert faults(tmp_path, text) == [message]


def test_an_unknown_key_without_a_near_match_lists_the_known_ones(tmp_path: Path) -> None:
    (message,) = faults(tmp_path, LEAST + "prompts:\n  zzz: 1\n")

    assert message == (
        "mine.yaml:4: unknown key 'prompts.zzz'; known are default, document, examples, "
        "instructions, own, profile, s2p, s2s, template, without_instruction"
    )


@pytest.mark.parametrize("key", ["1", "true", "1.5"])
def test_a_key_that_is_not_text_is_named_with_its_line(tmp_path: Path, key: str) -> None:
    (message,) = faults(tmp_path, f"{LEAST}{key}: x\n")

    assert message.startswith("mine.yaml:3:")
    assert key in message


@pytest.mark.parametrize(
    ("line", "key", "reason"),
    [
        ("batch_size: 0", "batch_size", "greater than or equal to 1 (got 0)"),
        ("batch_size: 4.0", "batch_size", "integer (got 4.0)"),
        ("batch_size: true", "batch_size", "integer (got True)"),
        ("batch_size: '4'", "batch_size", "integer (got '4')"),
        ("batch_size: 016", "batch_size", "integer (got '016')"),
        ("max_length: 1", "max_length", "greater than or equal to 8 (got 1)"),
        ("max_length: 131073", "max_length", "less than or equal to 131072 (got 131073)"),
        ("dimension: -3", "dimension", "greater than or equal to 1 (got -3)"),
        ("eos_token_id: -1", "eos_token_id", "greater than or equal to 0 (got -1)"),
        ("normalize: yes", "normalize", "boolean (got 'yes')"),
        ("normalize: 1", "normalize", "boolean (got 1)"),
        ("dtype: bf16", "dtype", "'bfloat16', 'float32' or 'float16' (got 'bf16')"),
        ("attention: full", "attention", "'bidirectional' or 'causal' (got 'full')"),
        ("prompts: {profile: cards}", "prompts.profile", "(got 'cards')"),
        ("prompts: {s2s: [a]}", "prompts.s2s", "string (got ['a'])"),
        ("prompts: {own: {STS: 3}}", "prompts.own.STS", "string (got 3)"),
        ("refused_dtypes: {int8: bad}", "refused_dtypes.int8", "(got 'int8')"),
        ("hub: {name: a/b, revision: main}", "hub.revision", "(got 'main')"),
        (f"hub: {{name: a/b, revision: {COMMIT[:-1]}}}", "hub.revision", f"(got '{COMMIT[:-1]}')"),
        (f"hub: {{name: a/b, revision: {COMMIT.upper()}}}", "hub.revision", f"(got '{COMMIT.upper()}')"),
        (f"hub: {{name: a/b, revision: {COMMIT}0}}", "hub.revision", f"(got '{COMMIT}0')"),
        ("hub: {name: no-slash}", "hub.name", "(got 'no-slash')"),
        ("hub: {name: ../../etc}", "hub.name", "(got '../../etc')"),
        ("hub: a/b", "hub", "(got 'a/b')"),
        ("package: {module: a, folder: b, sha256: abc}", "package.sha256", "(got 'abc')"),
    ],
)
def test_an_impossible_value_is_named_with_line_key_and_what_was_given(
    tmp_path: Path, line: str, key: str, reason: str
) -> None:
    (message,) = faults(tmp_path, f"{LEAST}{line}\n")

    assert message.startswith(f"mine.yaml:3: {key}")
    assert message.endswith(reason)


@pytest.mark.fault(47, "refused as the name of a task or model; the error names file and line")
@pytest.mark.parametrize("name", ["../escape", "a/b", "''", ".hidden", "a@b", "'a b'"])
def test_a_name_that_cannot_stand_in_a_spec_or_a_path_is_refused(tmp_path: Path, name: str) -> None:
    (message,) = faults(tmp_path, f"name: {name}\npath: weights\n")

    assert message.startswith("mine.yaml:1: name: ")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path, "path: weights\n") == ["mine.yaml: key 'name' is missing"]
    assert faults(tmp_path, "name: mine\nhub:\n  revision: null\n") == ["mine.yaml:2: key 'hub.name' is missing"]


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    messages = faults(
        tmp_path,
        "path: weights\nbatch_size: 0\nmax_length: 1\ndimension: -3\nnormlize: true\n"
        "hub:\n  name: a/b\n  revision: main\nprompts:\n  profile: none\n  s2d: x\n",
    )

    places = sorted(re.match(r"mine\.yaml(?::(\d+))?: ", message)[1] or "" for message in messages)
    assert places == ["", "10", "11", "2", "3", "4", "5", "8"]


def test_a_config_without_the_models_location_is_refused(tmp_path: Path) -> None:
    (message,) = faults(tmp_path, "name: mine\n")

    assert message.startswith("mine.yaml")
    assert "hub, path and package" in message


@pytest.mark.fault(42, "consent without a full commit is refused")
@pytest.mark.parametrize("where", ["path: weights", "hub: {name: a/b}"])
def test_remote_code_without_a_pinned_commit_is_refused(tmp_path: Path, where: str) -> None:
    (message,) = faults(tmp_path, f"name: mine\n{where}\ntrust_remote_code: true\n")

    assert message.startswith("mine.yaml")
    assert "trust_remote_code needs hub.revision" in message


def test_remote_code_at_a_pinned_commit_is_allowed(tmp_path: Path) -> None:
    config = load(tmp_path, f"name: mine\nhub: {{name: a/b, revision: {COMMIT}}}\ntrust_remote_code: true\n")

    assert (config.trust_remote_code, config.hub.revision) == (True, COMMIT)


def test_the_own_profile_without_own_prompts_is_refused(tmp_path: Path) -> None:
    (message,) = faults(tmp_path, LEAST + "prompts:\n  profile: own\n")

    assert message.startswith("mine.yaml")
    assert "prompts.own is empty" in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (LEAST + "trust_remote_code: true\n", 3),
        (LEAST + "prompts:\n  profile: own\n", 4),
    ],
)
def test_a_contradiction_of_two_keys_is_named_with_the_line_of_one(tmp_path: Path, text: str, line: int) -> None:
    (message,) = faults(tmp_path, text)

    assert message.startswith(f"mine.yaml:{line}: ")


def test_own_prompts_are_kept_unchanged(tmp_path: Path) -> None:
    config = load(tmp_path, LEAST + 'prompts:\n  profile: own\n  own: {STS: "Same?\\nText: ", no: " x "}\n')

    assert config.prompts.own == {"STS": "Same?\nText: ", "no": " x "}


# ------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("given", "expected"),
    [("weights", "models/weights"), ("./weights", "models/weights"), ("../weights", "weights")],
)
def test_a_relative_path_starts_at_the_yaml_whatever_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models" / "m.yaml").write_text(f"name: m\npath: {given}\n")
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert load_config(Path("../models/m.yaml")).path == str((tmp_path / expected).resolve())


def test_absolute_and_home_paths_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))

    assert load(tmp_path, "name: m\npath: /opt/stella\n").path == "/opt/stella"
    assert load(tmp_path, "name: m\npath: ~/stella\n").path == str((tmp_path / "me/stella").resolve())


def test_a_local_model_has_a_name_that_cannot_be_taken_for_a_hub_repository(tmp_path: Path) -> None:
    assert load(tmp_path, LEAST).full_name == "local/mine"
