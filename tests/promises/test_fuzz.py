"""Random input: files of any bytes, values of any kind, texts of any characters, interruptions at any point."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from markdown_it import MarkdownIt
from pydantic import TypeAdapter, ValidationError

from benchmarks.layouts.stella import write_json
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import Pooling
from stella_mteb.engine.store import VectorStore
from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_json
from stella_mteb.files.rows import read_rows
from stella_mteb.files.strict_yaml import FileName, file_name, read_yaml
from stella_mteb.files.tables import render
from stella_mteb.harness.task_yaml import load_task_file
from stella_mteb.judge.inputs import read_candidates, read_references
from stella_mteb.judge.reports import judge_slug
from stella_mteb.models.config import ModelConfig, load_config
from stella_mteb.models.layout import read_layout
from stella_mteb.models.spec import DTYPES, Spec
from stella_mteb.prompts.examples import read_examples
from tests.conftest import RATED_PAIRS
from tests.support.spies import twin, watch

COMMIT = "d03be74b361d4eb24f42a2fe5bd2e29917df4604"
BOUNDED = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
ANY_TEXT = st.text(st.characters(), max_size=40)  # half characters too
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9_-])?", fullmatch=True).filter(
    lambda name: file_name(name) == name
)

# ------------------------------------------------------------------------------------------------- readers of files

MODEL_YAML = (
    f"name: m\nhub: {{name: org/model, revision: {COMMIT}}}\nprompts: {{s2s: 'a', own: {{STS: b}}}}\nmax_length: 64\n"
)
TASK_YAML = "name: T\ntype: STS\ndata: x.jsonl\ncolumns: {sentence1: a, sentence2: b, score: s}\nscore_range: [0, 5]\n"
ROW = '{"a": "one", "b": "two", "s": 1.5}\n'
CLIPS = '[{"id": "1", "summary": "A man leaves."}, {"id": "2", "summary": "A dog barks."}]'
PIECES = [
    *('{"a": ', '"b"', ": ", ", ", "}", "[", "]", "NaN", "1e999", "9" * 4400, '"\\ud800"', "null", "true", "\\", "-"),
    *("a,b,c", ",", "\t", '"', '""', "\n", "\r", "\r\n", "\x00", "\x0b", "\x85", "\u2028", "\ufeff", "[" * 3_000),
    *("&x ", "*x", "<<: ", "!!int ", "!!python/object:os.system ", "%YAML 1.1\n", "---\n", "? ", "- ", "|", ">", "#"),
    *("\\UFFFFFFFF", "2020-13-41", "0123", "1:30", ".inf", "~", "name: ", "hub: ", "\n  ", "=1+1", "id", "'"),
]  # fmt: skip

Reader = Callable[[Path], object]
READERS: dict[str, tuple[str, bytes, Reader]] = {
    "YAML": ("x.yaml", MODEL_YAML.encode(), read_yaml),
    "model": ("x.yaml", MODEL_YAML.encode(), load_config),
    "task": ("x.yaml", TASK_YAML.encode(), load_task_file),
    "JSON": ("x.json", CLIPS.encode(), read_json),
    "JSONL": ("x.jsonl", ROW.encode() * 2, lambda path: list(read_rows(path))),
    "CSV": ("x.csv", b'a,b,s\n"one","t\nwo",1\nx,y,2\n', lambda path: list(read_rows(path))),
    "TSV": ("x.tsv", b"a\tb\ts\none\ttwo\t1\n", lambda path: list(read_rows(path))),
    "no header": ("x.csv", b'one\t"two\t1\nx\ty"\t2\n', lambda path: list(read_rows(path, (1, 3)))),
    "rows of JSON": ("x.json", CLIPS.encode(), lambda path: list(read_rows(path))),
    "references": ("x.json", CLIPS.encode(), read_references),
    "references as rows": ("x.jsonl", b'{"id": "1", "summary": "a"}\n', read_references),
    "captions": (
        "x.json",
        b'{"images": [], "annotations": [{"image_id": 1, "id": 2, "caption": "a"}]}',
        read_references,
    ),
    "dense captions": ("x.json", b'{"results": {"v": [{"sentence": "a", "timestamp": [0, 1]}]}}', read_references),
    "predictions": ("x.json", b'{"1": "a", "2": null}', lambda path: read_candidates([path], {"1": "a", "2": "b"})),
    "examples": ("x.json", b'[{"query": "a", "response": "b"}]', read_examples),
}


def contents(sample: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of any kind, pieces that mean something, and a good file with some bytes changed."""
    places = st.lists(st.tuples(st.integers(0, len(sample) - 1), st.binary(max_size=3)), min_size=1, max_size=4)

    def changed(edits: Sequence[tuple[int, bytes]]) -> bytes:
        content = sample
        for place, new in edits:
            content = content[:place] + new + content[place + 1 :]
        return content

    pieces = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
    inserted = st.tuples(st.integers(0, len(sample)), pieces).map(
        lambda given: sample[: given[0]] + given[1].encode() + sample[given[0] :]
    )
    return st.one_of(st.binary(max_size=60), places.map(changed), inserted, pieces.map(str.encode))


def fuzz(reader: str, folder: Path, examples: int) -> None:
    name, sample, read = READERS[reader]
    path = folder / name
    path.write_bytes(sample)
    assert read(path) is not None  # the sample itself is good

    @settings(max_examples=examples, deadline=2_000, suppress_health_check=list(HealthCheck))
    @given(content=contents(sample))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path)
        except ConfigError as error:
            assert str(path) in str(error)

    check()


@pytest.mark.fault(39, "any bytes give a value, or an error that names the file, within two seconds")
@pytest.mark.parametrize("reader", READERS)
def test_any_bytes_are_a_value_or_an_error_that_names_the_file(reader: str, tmp_path: Path) -> None:
    fuzz(reader, tmp_path, 100)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_more_bytes_are_a_value_or_an_error_that_names_the_file(reader: str, tmp_path: Path) -> None:
    fuzz(reader, tmp_path, 5_000)


MODEL_FILES = [
    *("config.json", "modules.json", "1_Pooling/config.json", "2_Dense_1024/config.json"),
    *("sentence_bert_config.json", "tokenizer_config.json", "config_sentence_transformers.json"),
]


def places_in(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Yield every place in a JSON value."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [at, *(place for key, value in inner for place in places_in(value, (*at, key)))]


def put(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    changed = content.copy()
    changed[place[0]] = put(content[place[0]], place[1:], value)
    return changed


@pytest.fixture
def skeleton(stella_folder: Path, tmp_path: Path) -> Path:
    """The small files of the tiny Stella, with empty weights."""
    for path in stella_folder.rglob("*"):
        target = tmp_path / "model" / path.relative_to(stella_folder)
        if path.suffix == ".json" and path.name != "tokenizer.json":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        elif path.suffix == ".safetensors":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
    return tmp_path / "model"


@pytest.mark.fault(23, "any value anywhere in a model's small files gives a layout, or an error that names the file")
def test_any_value_in_a_models_files_is_a_layout_or_a_config_error(skeleton: Path) -> None:
    from stella_mteb.models.locate import find_config

    originals = {name: json.loads((skeleton / name).read_text()) for name in MODEL_FILES}
    prompts = {"prompts": {"query": "a", "document": None}, "default_prompt_name": "query"}
    originals["config_sentence_transformers.json"] = prompts  # Stella's are known by their names, and not read

    @settings(BOUNDED, max_examples=150)
    @given(data=st.data(), name=st.sampled_from(MODEL_FILES))
    def check(data: st.DataObject, name: str) -> None:
        place = data.draw(st.sampled_from(places_in(originals[name])))
        value = data.draw(JSON | st.sampled_from([None, 0, -1, 2**63, "", "..", "../x", [], {}, True, 1.5]))
        write_json(skeleton / name, put(originals[name], place, value))
        try:
            layout = read_layout(skeleton)
            find_config(str(skeleton))
        except ConfigError as error:
            assert str(skeleton) in str(error)
        else:
            assert isinstance(layout.max_length, int)
            assert layout.max_length > 0
            assert layout.default_dimension in layout.heads or layout.without_weights
        finally:
            write_json(skeleton / name, originals[name])

    check()


# ------------------------------------------------------------------------------------------------- configurations

HUBS = st.fixed_dictionaries({"name": st.tuples(NAMES, NAMES).map("/".join), "revision": st.just(COMMIT)})
CONFIGS = st.fixed_dictionaries(
    {"name": NAMES, "hub": HUBS},
    optional={
        "attention": st.sampled_from(["bidirectional", "causal"]),
        "eos_token_id": st.integers(0, 200_000),
        "pooling": st.sampled_from(["cls", "mean", "lasttoken"]),
        "dimension": st.integers(1, 9_999),
        "max_length": st.integers(8, 131_072),
        "batch_size": st.integers(1, 512),
        "normalize": st.booleans(),
        "dtype": st.sampled_from(list(DTYPES.values())),
        "trust_remote_code": st.booleans(),
        "prompts": st.fixed_dictionaries(
            {}, optional={"s2s": ANY_TEXT, "document": ANY_TEXT, "own": st.dictionaries(NAMES, ANY_TEXT, max_size=2)}
        ),
    },
)  # fmt: skip


@BOUNDED
@given(given_values=CONFIGS)
def test_a_configuration_comes_back_from_its_yaml(
    given_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(yaml.safe_dump(given_values), encoding="utf-8")

    config = load_config(path)

    dumped = config.model_dump(exclude_unset=True)
    assert {key: dumped[key] for key in given_values} == given_values
    assert ModelConfig.model_validate(config.model_dump()) == config


@BOUNDED
@given(good=CONFIGS, key=st.sampled_from(sorted(ModelConfig.model_fields)), value=JSON)
def test_any_value_of_any_key_is_taken_or_named_with_its_line(
    good: dict[str, Any], key: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fault.yaml"
    path.write_text(yaml.safe_dump({**good, key: value}, sort_keys=False), encoding="utf-8")

    try:
        load_config(path)
    except ConfigError as error:
        assert str(error).startswith(f"{path}:")
        assert any(said in str(error) for said in (key, "the file", "a key must be plain text", "not allowed in YAML"))


@BOUNDED
@given(text=st.text(st.characters(), max_size=200))
def test_any_text_has_a_nearest_file_name(text: str) -> None:
    TypeAdapter(FileName).validate_python(file_name(text))


@BOUNDED
@given(name=st.one_of(NAMES, ANY_TEXT))
def test_a_valid_file_name_is_its_own_nearest_name(name: str) -> None:
    try:
        TypeAdapter(FileName).validate_python(name)
    except ValidationError:
        return
    assert file_name(name) == name


# -------------------------------------------------------------------------------------------- specs and fingerprints

SPECS = st.builds(
    Spec,
    name=st.one_of(NAMES, st.tuples(NAMES, NAMES).map("/".join), st.sampled_from(["./a b", "/x/y.yaml", "ä/ö"])),
    dimension=st.none() | st.integers(1, 10**17),
    dtype=st.none() | st.sampled_from(list(DTYPES.values())),
    prompts=st.none() | st.sampled_from(["card", "leaderboard", "builtin", "own", "icl"]),
    max_length=st.none() | st.integers(1, 10**17),
    shots=st.none() | st.integers(0, 10**17),
)


@settings(BOUNDED, max_examples=200)
@given(one=SPECS, other=SPECS)
def test_specs_are_equal_if_their_texts_are(one: Spec, other: Spec) -> None:
    assert Spec.parse(str(one)) == one
    assert (str(one) == str(other)) == (one == other)
    if one != other:
        assert judge_slug(str(one)) != judge_slug(str(other))


@BOUNDED
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_the_folder_of_any_judge_is_one_name_inside_the_output(text: str) -> None:
    slug = judge_slug(text)

    assert Path("out", slug).name == slug
    assert slug not in {".", ".."}


FINGERPRINTS = st.dictionaries(ANY_TEXT.filter(lambda text: text.isascii()), st.text(max_size=12), max_size=4)


@pytest.mark.fault(15, "the name of the store depends on every setting that changes a vector")
@settings(BOUNDED, max_examples=100)
@given(one=FINGERPRINTS, other=FINGERPRINTS)
def test_two_stores_share_a_folder_only_if_all_their_fields_agree(
    one: dict[str, str], other: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "stores"

    same = VectorStore(folder, one).folder == VectorStore(folder, other).folder

    assert same == (one == other)


MODES = st.lists(st.sampled_from(["cls", "mean", "max", "lasttoken"]), min_size=1, max_size=2, unique=True).map(tuple)
ENGINES = st.fixed_dictionaries(
    {
        "pooling": st.builds(Pooling, MODES, st.booleans()),
        "max_length": st.sampled_from([16, 64, 512]),
        "fingerprint": st.sampled_from(["a@1", "a@2", "b@1", "a@1, causal"]),
    }
)  # fmt: skip


@pytest.mark.fault(15, "the name of the store depends on every setting that changes a vector")
def test_engines_share_a_fingerprint_only_if_their_vectors_are_equal(stella: TextEncoder) -> None:
    @BOUNDED
    @given(one=ENGINES, other=ENGINES)
    def check(one: dict[str, Any], other: dict[str, Any]) -> None:
        first, second = twin(stella, **one), twin(stella, **other)

        assert (first.fingerprint == second.fingerprint) == (one == other)

    check()


@BOUNDED
@given(one=CONFIGS, other=CONFIGS)
def test_configurations_that_load_a_model_differently_have_different_identities(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    keys = ("attention", "eos_token_id", "pooling", "trust_remote_code")
    loads = [tuple(ModelConfig.model_validate(given).model_dump()[key] for key in keys) for given in (one, other)]

    assert (ModelConfig.model_validate(one).loading == ModelConfig.model_validate(other).loading) == (
        loads[0] == loads[1]
    )


# --------------------------------------------------------------------------------------------------- text to vector


@pytest.mark.fault(30, "any text: a finite vector of unit length, in the order of the texts")
@pytest.mark.fault(31, "any text: a finite vector; a lone surrogate is replaced by U+FFFD")
def test_any_texts_have_finite_vectors_that_depend_on_no_other_text(stella: TextEncoder) -> None:
    encoder = twin(stella, max_length=48)

    @BOUNDED
    @given(texts=st.lists(st.text(st.characters(), max_size=80), max_size=8), prompt=ANY_TEXT, data=st.data())
    def check(texts: list[str], prompt: str, data: st.DataObject) -> None:
        vectors = encoder.encode(texts, prompt)
        order = data.draw(st.permutations(range(len(texts))))
        again = encoder.encode([texts[i] for i in order], prompt)

        assert vectors.shape == (len(texts), 1024)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(again, vectors[list(order)], atol=1e-5)

    check()


# ------------------------------------------------------------------------------------------------------------ tables

CELLS = st.one_of(st.none(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False), ANY_TEXT)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@pytest.fixture
def no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)


@pytest.mark.usefixtures("no_colour")
@pytest.mark.fault(45, "in tables of every format: plain text within its cell")
@pytest.mark.fault(46, "in tables of every format: text without control characters")
@settings(BOUNDED, max_examples=150)
@given(rows=st.lists(st.fixed_dictionaries({"model": ANY_TEXT, "score": CELLS}), min_size=1, max_size=4))
def test_any_cell_content_stays_plain_text(rows: list[dict[str, Any]]) -> None:
    texts = {form: render(rows, form, width=200) for form in ("table", "md", "json", "csv")}  # type: ignore[arg-type]

    for text in texts.values():
        text.encode()
        assert not any((ord(mark) < 32 and mark != "\n") or 127 <= ord(mark) < 160 for mark in text)
    assert len(json.loads(texts["json"])) == len(rows)
    assert [len(line) for line in csv.reader(io.StringIO(texts["csv"]))] == [2] * (len(rows) + 1)
    assert not any(row["model"].startswith(FORMULA) for row in csv.DictReader(io.StringIO(texts["csv"])))
    tokens = MarkdownIt("commonmark").enable("table").parse(texts["md"])
    assert sum(token.type == "tr_open" for token in tokens) == len(rows) + 1
    inside = [child.type for token in tokens for child in token.children or []]
    assert set(inside) <= {"text", "text_special"}


# ------------------------------------------------------------------------------------------------------------ resume

SENTENCES = [f"{number} cooks argue about {number + 3} grains of salt" for number in range(14)]


class Resume(RuleBasedStateMachine):
    """Encoding that is interrupted, loses files, and resumes gives the vectors of one run without a store."""

    model: TextEncoder
    expected: np.ndarray[Any, np.dtype[np.float32]]
    folder: Path

    @initialize()
    def start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.begin()

    @rule()
    def begin(self) -> None:
        """Kill the process and start another; unflushed vectors are lost."""
        self.encoder = twin(self.model, token_budget=40)
        self.encoder.store = VectorStore(self.folder, self.encoder.fingerprint)

    @rule(texts=st.lists(st.integers(0, len(SENTENCES) - 1), min_size=1, max_size=6))
    def encode(self, texts: list[int]) -> None:
        vectors = self.encoder.encode([SENTENCES[i] for i in texts])
        np.testing.assert_allclose(vectors, self.expected[texts], atol=1e-5)

    @rule(
        texts=st.lists(st.integers(0, len(SENTENCES) - 1), min_size=2, max_size=6, unique=True),
        passes=st.integers(0, 2),
    )
    def die_in_the_middle(self, texts: list[int], passes: int) -> None:
        left = iter(range(passes))

        def fault(*_: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            watch(patch, self.encoder, fault)
            with contextlib.suppress(KeyboardInterrupt):
                self.encoder.encode([SENTENCES[i] for i in texts])
        self.begin()

    @rule(which=st.integers(0, 10), at=st.floats(0, 1), new=st.sampled_from([None, 0, 255]))
    def damage(self, which: int, at: float, new: int | None) -> None:
        """Cut a shard short, or change a byte of it."""
        shards = sorted(self.folder.rglob("*.safetensors"))
        if shards:
            shard = shards[which % len(shards)]
            content = shard.read_bytes()
            place = int(at * (len(content) - 1))
            shard.write_bytes(content[:place] + (b"" if new is None else bytes([new]) + content[place + 1 :]))

    @invariant()
    def nothing_is_half_written(self) -> None:
        assert not list(self.folder.rglob("*.tmp"))

    def teardown(self) -> None:
        self.begin()
        np.testing.assert_allclose(self.encoder.encode(SENTENCES), self.expected, atol=1e-5)
        self.begin()
        self.encoder.encode(SENTENCES)
        assert self.encoder.stats.encoded == 0  # and all of it is kept


@pytest.mark.fault(2, "after resuming from any state, vectors are the same, and finished texts are not encoded again")
@pytest.mark.fault(17, "set aside; its texts are encoded again")
def test_encoding_resumed_from_any_state_gives_the_same_vectors(stella: TextEncoder, tmp_path: Path) -> None:
    Resume.model, Resume.expected, Resume.folder = stella, stella.encode(SENTENCES), tmp_path / "store"

    run_state_machine_as_test(
        Resume,
        settings=settings(
            max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def own_tasks(folder: Path) -> list[Path]:
    paths = []
    for number in range(3):
        name = f"Resume{number}"
        rows = [{"a": f"{first} {number}", "b": second, "s": score} for first, second, score in RATED_PAIRS]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / f"{name}.yaml").write_text(
            f"name: {name}\ntype: STS\ndata: {name}.jsonl\ncolumns: {{sentence1: a, sentence2: b, score: s}}\n"
        )
        paths.append(folder / f"{name}.yaml")
    return paths


@pytest.mark.fault(2, "after resuming at any point of a run, scores are the same, and finished tasks are not run again")
@pytest.mark.fault(4, "set aside, and the task runs again")
def test_a_run_resumed_from_any_state_gives_the_same_scores(stella_folder: Path, tmp_path: Path) -> None:
    from stella_mteb.harness.adapter import family
    from stella_mteb.harness.find_tasks import find_tasks
    from stella_mteb.harness.run import run
    from stella_mteb.models.resolve import resolve

    tasks = find_tasks(list(map(str, own_tasks(tmp_path))))
    (encoder,) = family(resolve(f"{stella_folder}@256"), [], device="cpu", cache=tmp_path / "cache")

    def scores(chosen: list[Any], output: Path) -> tuple[dict[str, float | None], list[str]]:
        outcomes = run([[encoder]], chosen, output, lambda _: None)
        return {one.task: one.score for one in outcomes}, [one.status for one in outcomes]

    expected, _ = scores(tasks, tmp_path / "whole")

    @settings(BOUNDED, max_examples=12)
    @given(
        finished=st.lists(st.integers(0, 2), unique=True, max_size=3),
        damaged=st.sets(st.integers(0, 2)),
        keep=st.floats(0, 1, exclude_max=True),
    )
    def check(finished: list[int], damaged: set[int], keep: float) -> None:
        output = tmp_path / "resumed"
        shutil.rmtree(output, ignore_errors=True)
        if finished:
            scores([tasks[i] for i in finished], output)
        for number in damaged:
            for path in output.rglob(f"results/**/Resume{number}.json"):
                path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

        found, status = scores(tasks, output)

        assert found == pytest.approx(expected, abs=1e-6)
        whole = set(finished) - damaged
        assert status == ["kept" if number in whole else "done" for number in range(3)]

    check()
