"""BGE-en-ICL has the tokens and the vectors of FlagEmbedding."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.layouts.bge import bge_yaml, write_bge, write_tokenizer
from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.models.config import load_config
from stella_mteb.models.resolve import resolve
from stella_mteb.models.spec import Spec
from stella_mteb.prompts.examples import Example, find_examples, frame, read_examples
from stella_mteb.prompts.profiles import PromptConfig, TaskInfo, choose, prompts_id
from tests.conftest import RATED_PAIRS, SHARED, needs_shared

INSTRUCTION = "Retrieve semantically similar text."
LONG = "the definition of a summit is the highest point of a mountain " * 8
EXAMPLES = (
    Example("what is a summit", "the top of a mountain"),
    Example(" odd  spaces ", "\nin a response\n"),
    Example("a boat </s> and a <query>", "\N{GRINNING FACE} é"),
)
SHOTS = {
    "zero-shot": (),
    "one": EXAMPLES[:1],
    "three": EXAMPLES,
    "with instructions of their own": (
        Example("how do I boil rice", "one cup in two cups of water", "Given a cooking question, retrieve recipes."),
        EXAMPLES[0],
        Example("a query", "a response", ""),
    ),
    "over-long": (Example(LONG, LONG), Example("short", LONG)),
}
TEXTS = [
    "a man drives a car", "", " ", "  two before", "two behind  ", "two  in   between", "\n", "line\nline\n\nline\n",
    "\t tab", "\r\n", "\u3000wide", "<instruct>", "x <query>y", "a<response>b", "\n<response>", "a </s> b", "</s>",
    "<s>", "<s> x", "  <query>  y  ", "<unk>", "<0x0A>",
    "e\u0301 \u200b \N{GRINNING FACE} Ωß", "ﬁ ① \N{FULLWIDTH LATIN CAPITAL LETTER A}",
    "\N{LOWER ONE EIGHTH BLOCK}marked", "a\N{LOWER ONE EIGHTH BLOCK}", "A , b . c 's do n't", "x\x00y",
    LONG, LONG + "\n", "\N{GRINNING FACE}" * 300, "<query>" * 100,
]  # fmt: skip
GOLDEN = Path(__file__).parent / "bge_golden.json"
odd_texts = st.lists(
    st.sampled_from(["<instruct>", "<query>", "<response>", "</s>", "<s>", " ", "  ", "\n", "a man", "x"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    max_size=12,
).map("".join)

Reference = Callable[..., Any]


def of(yaml: Path, spec: str = "") -> Any:
    return resolve(f"{yaml}{spec}").load("cpu")


@pytest.fixture(scope="module", params=["normalizer", "pre-tokenizer"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a model whose tokenizer marks words in a normalizer or a pre-tokenizer."""
    folder = tmp_path_factory.mktemp("kind")
    write_bge(folder / "model", metaspace=request.param == "pre-tokenizer")
    return bge_yaml(folder / f"{request.param}.yaml", folder / "model")


@pytest.fixture(scope="module")
def encoder(kind: Path) -> Any:
    return of(kind)


@pytest.fixture(scope="module")
def flag(kind: Path) -> Any:
    """FlagEmbedding's embedder for the same folder; `fed` has the token ids of its last pass."""
    pytest.importorskip(
        "FlagEmbedding", reason="needs FlagEmbedding, and transformers 5.23 or older: pip install FlagEmbedding"
    )
    from FlagEmbedding.inference.embedder.decoder_only.icl import ICLLLMEmbedder

    embedder = ICLLLMEmbedder(
        str(kind.parent / "model"),
        use_fp16=False,
        devices="cpu",
        query_instruction_for_retrieval=INSTRUCTION,
        query_max_length=64,
        passage_max_length=64,
        batch_size=8,
    )
    forward = embedder.model.forward

    def spy(**given: Any) -> Any:
        rows = zip(given["input_ids"].tolist(), given["attention_mask"].tolist(), strict=True)
        embedder.fed = [[token for token, seen in zip(*row, strict=True) if seen] for row in rows]
        return forward(**given)

    embedder.model.forward = spy
    return embedder


def show(flag: Any, examples: tuple[Example, ...]) -> str:
    """Set the same examples on both sides, for ours as a prompt."""
    own = [INSTRUCTION if one.instruct is None else one.instruct for one in examples]
    rows = [
        {"instruct": instruct, "query": one.query, "response": one.response}
        for instruct, one in zip(own, examples, strict=True)
    ]
    if rows:
        flag.set_examples(rows)
    else:
        flag.prefix = ""
    return frame(INSTRUCTION, examples, None)


# --------------------------------------------------------------------------------------- the same as FlagEmbedding


@pytest.mark.parametrize("examples", SHOTS.values(), ids=SHOTS)
def test_tokens_are_those_that_flagembedding_feeds_its_model(
    encoder: Any, flag: Any, examples: tuple[Example, ...]
) -> None:
    prompt = show(flag, examples)

    for text in TEXTS:
        flag.encode_queries([text])

        assert [encoder.tokenise([text], prompt)[0].tolist()] == flag.fed, repr(text[:40])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=odd_texts, query=odd_texts, response=odd_texts)
@example(text="", query="", response="")
def test_tokens_of_any_text_under_any_example_are_flagembeddings(
    encoder: Any, flag: Any, text: str, query: str, response: str
) -> None:
    prompt = show(flag, (Example(query, response),))

    flag.encode_queries([text])

    assert [encoder.tokenise([text], prompt)[0].tolist()] == flag.fed


@pytest.mark.parametrize("examples", SHOTS.values(), ids=SHOTS)
def test_vectors_are_flagembeddings(encoder: Any, flag: Any, examples: tuple[Example, ...]) -> None:
    prompt = show(flag, examples)

    np.testing.assert_allclose(encoder.encode(TEXTS, prompt), flag.encode_queries(TEXTS), atol=1e-5)


def test_documents_get_no_prompt_and_are_cut_as_flagembedding_cuts_them(encoder: Any, flag: Any) -> None:
    np.testing.assert_allclose(encoder.encode(TEXTS), flag.encode_corpus(TEXTS), atol=1e-5)
    for text in TEXTS:
        flag.encode([text])

        assert [encoder.tokenise([text])[0].tolist()] == flag.fed, repr(text[:40])


def test_tokens_are_those_that_flagembedding_1_4_2_gave_once(kind: Path, encoder: Any) -> None:
    rows = [row for row in json.loads(GOLDEN.read_text()) if row["tokenizer"] == kind.stem]

    assert len(rows) >= 20
    for row in rows:
        ids = encoder.tokenise([row["text"]], frame(INSTRUCTION, SHOTS[row["examples"]], None))[0].tolist()
        assert ids == row["ids"], row["text"]


# ------------------------------------------------------------------------------------------------- compat and clean


@pytest.fixture(scope="module")
def clean(kind: Path) -> Any:
    return of(bge_yaml(kind.parent / "clean.yaml", kind.parent / "model", few_shot="clean"))


@pytest.mark.parametrize("examples", SHOTS.values(), ids=SHOTS)
def test_clean_tokenises_prompt_text_and_suffix_once(clean: Any, examples: tuple[Example, ...]) -> None:
    prompt = frame(INSTRUCTION, examples, None)

    for text in TEXTS[:-4]:
        assert clean.tokenise([text], prompt)[0].tolist() == clean.tokenizer(f"{prompt}{text}\n<response>")["input_ids"]


def test_clean_cuts_the_text_and_keeps_its_closing_tokens(clean: Any) -> None:
    prompt = frame(INSTRUCTION, (), 0)

    (cut,) = clean.tokenise([LONG], prompt)

    whole = clean.tokenizer(f"{prompt}{LONG}\n<response>")["input_ids"]
    kept = len(cut) - 3
    assert len(cut) in (63, 64)
    assert cut.tolist() == whole[:kept] + whole[-3:]
    assert clean.tokenizer.convert_ids_to_tokens(cut[-3:].tolist()) == ["<0x0A>", "<response>", "</s>"]


def test_the_round_trip_of_compat_adds_a_space_where_the_normalizer_marks_words_and_else_changes_nothing(
    kind: Path, encoder: Any, clean: Any
) -> None:
    prompt = frame(INSTRUCTION, EXAMPLES, None)
    one, other = (model.tokenise(["a man"], prompt)[0].tolist() for model in (encoder, clean))

    if kind.stem == "pre-tokenizer":
        assert one == other
    else:
        assert len(one) == len(other) + 2
        own = encoder.tokenizer.decode(one[len(encoder.tokenizer(frame("", EXAMPLES, None))) :])
        assert own.endswith("<instruct>  Retrieve semantically similar text.\n<query>  a man\n<response></s>")


def test_a_character_cut_in_bytes_is_a_replacement_character_in_compat_and_its_bytes_in_clean(
    encoder: Any, clean: Any
) -> None:
    prompt, text = frame(INSTRUCTION, (), 0), "\N{GRINNING FACE}" * 300
    mark = encoder.tokenizer("x\ufffd", add_special_tokens=False)["input_ids"][-3:]
    seen = []
    for shift in range(4):
        asked = "x" * shift + text
        one, other = (model.tokenise([asked], prompt)[0].tolist() for model in (encoder, clean))
        seen.append(any(one[at : at + 3] == mark for at in range(len(one))))
        assert other[:-3] == clean.tokenizer(prompt + asked)["input_ids"][: len(other) - 3]

    # Four bytes each: a cut falls between two characters or in one.
    assert set(seen) == {True, False}


def test_compat_and_clean_never_share_a_store(encoder: Any, clean: Any) -> None:
    assert encoder.fingerprint != clean.fingerprint


# -------------------------------------------------------------------------------------------------- lengths, counts


def test_the_longest_length_does_not_count_examples(encoder: Any) -> None:
    prompt = frame(INSTRUCTION, SHOTS["over-long"], None)
    before = len(encoder.tokenizer(prompt[: prompt.rindex("<instruct>")], add_special_tokens=False)["input_ids"])

    (ids,) = encoder.tokenise(["a man drives"], prompt)

    assert before > 300
    assert before + 63 <= encoder.tokenise.longest(prompt) <= before + 64
    assert encoder.tokenizer.decode(ids).endswith("a man drives\n<response></s>")


def test_texts_that_are_cut_are_counted_as_at_the_limit(encoder: Any, clean: Any) -> None:
    for model in (encoder, clean):
        before = model.stats.at_limit

        model.encode(["a man", LONG, LONG + "x", "the dog"], frame(INSTRUCTION, EXAMPLES, None))
        model.encode(["a man", LONG])

        assert model.stats.at_limit - before == 3


def test_a_lone_surrogate_is_encoded_as_a_replacement_character(encoder: Any) -> None:
    prompt = frame(INSTRUCTION, EXAMPLES, None)

    one, other = (encoder.tokenise([text], prompt)[0].tolist() for text in ("a\ud800", "a\ufffd"))

    assert one == other


# ---------------------------------------------------------------------------------------------------------- loading


def test_vectors_are_the_same_without_the_files_of_sentence_transformers(bge: Path, tmp_path: Path) -> None:
    write_bge(tmp_path / "plain", modules=False)
    prompt = frame(INSTRUCTION, EXAMPLES, None)

    plain = of(bge_yaml(tmp_path / "plain.yaml", tmp_path / "plain"))

    np.testing.assert_array_equal(plain.encode(TEXTS, prompt), of(bge).encode(TEXTS, prompt))
    assert plain.fingerprint["pooling"] == "lasttoken, prompt in"


@pytest.mark.parametrize("template", ["$A </s>", "<s> $A", "$A"])
def test_a_tokenizer_that_does_not_open_or_close_a_text_is_refused(tmp_path: Path, template: str) -> None:
    write_bge(tmp_path / "model")
    write_tokenizer(tmp_path / "model", template=template)

    with pytest.raises(ConfigError) as error:
        of(bge_yaml(tmp_path / "bge.yaml", tmp_path / "model"))

    first, last = ("1" if "<s>" in template else "\\d+"), ("2" if "</s>" in template else "\\d+")
    assert "a text must begin with token 1 and end with 2, but this tokenizer gives" in str(error.value)
    error.match(f"gives {first} and {last}; it is not the model's own: download tokenizer.json again")
    error.match(str(tmp_path / "model"))


def test_a_tokenizer_without_the_added_tokens_is_refused_and_they_are_named(tmp_path: Path) -> None:
    write_bge(tmp_path / "model")
    write_tokenizer(tmp_path / "model", added=("<query>",))

    with pytest.raises(ConfigError, match="the tokenizer lacks <instruct>, <response>, which few-shot prompts"):
        of(bge_yaml(tmp_path / "bge.yaml", tmp_path / "model"))


@pytest.mark.fault(28, "too long: refused, with the number of tokens")
@pytest.mark.parametrize("limit", [{"sliding_window": 256}, {"sliding_window": None, "max_position_embeddings": 256}])
def test_examples_longer_than_the_models_input_are_refused(tmp_path: Path, limit: dict[str, Any]) -> None:
    """A packed pass ignores the sliding window, so longer texts must not be packed."""
    write_bge(tmp_path / "model", **limit)
    model = of(bge_yaml(tmp_path / "bge.yaml", tmp_path / "model"))

    model.encode(["a man"], frame(INSTRUCTION, EXAMPLES, None))
    with pytest.raises(
        ConfigError, match=r"the examples of this task take \d{3} tokens.* input limit of 256 .*shots=N"
    ):
        model.encode(["a man"], frame(INSTRUCTION, SHOTS["over-long"], None))


def test_few_shot_prompts_are_refused_for_a_model_that_was_not_made_for_them(stella_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"profile icl is made for BGE-en-ICL; .* does not declare few_shot"):
        resolve(f"{stella_folder}[icl]")


def test_a_config_with_the_profile_must_say_how_prompts_are_assembled(bge: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(bge.read_text().replace("few_shot: compat\n", ""))

    with pytest.raises(ConfigError, match=r"mine.yaml:\d+: prompts.profile: prompts.profile icl needs few_shot"):
        load_config(path)


# ------------------------------------------------------------------------------------------------ shots and examples


STS = TaskInfo("OwnSTS", "STS", instruction={None: "Find the same text"})
OWN = [{"query": f"query {i}", "response": f"response {i}"} for i in range(4)]


def examples_folder(folder: Path, rows: Any = OWN, task: str = "OwnSTS") -> PromptConfig:
    folder.mkdir(exist_ok=True)
    (folder / f"{task}.json").write_text(json.dumps(rows))
    return PromptConfig(profile="icl", examples=str(folder))


@pytest.mark.parametrize(("option", "shots"), [("", 4), ("[shots=3]", 3), ("[shots=0]", 0), ("[shots=9]", 4)])
def test_the_shots_of_a_spec_are_the_number_of_examples_in_the_prompt(tmp_path: Path, option: str, shots: int) -> None:
    prompts = examples_folder(tmp_path / "examples")
    spec = Spec.parse(str(Spec.parse(f"bge_en_icl{option}")))

    chosen = choose("icl", prompts, STS, None, shots=spec.shots)

    shown = [f"<instruct>Find the same text.\n<query>query {i}\n<response>response {i}\n\n" for i in range(shots)]
    assert chosen.text == "".join(shown) + "<instruct>Find the same text.\n<query>"
    assert [one.query for one in chosen.examples] == [f"query {i}" for i in range(shots)]
    assert not chosen.fallback


def test_shots_of_a_model_without_few_shot_prompts_are_refused(stella_folder: Path) -> None:
    with pytest.raises(ConfigError, match="shots needs a model with few-shot prompts"):
        resolve(f"{stella_folder}[shots=3]")


def test_documents_get_neither_instruction_nor_examples(tmp_path: Path) -> None:
    prompts = examples_folder(tmp_path / "examples")

    assert choose("icl", prompts, TaskInfo("OwnSTS", "Retrieval"), "document").text == ""


def test_an_instruction_ends_with_one_full_stop(tmp_path: Path) -> None:
    for given_, expected in [("Find it", "Find it."), ("Find it.", "Find it."), ("Find it..", "Find it.")]:
        task = TaskInfo("Other", "STS", instruction={None: given_})

        assert choose("icl", PromptConfig(), task, None, shots=0).text == f"<instruct>{expected}\n<query>"


@pytest.mark.fault(29, "no examples: zero-shot, and the result says so")
def test_a_task_without_examples_is_zero_shot_and_says_so() -> None:
    chosen = choose("icl", PromptConfig(), STS, None, offline=True)

    assert chosen.text == "<instruct>Find the same text.\n<query>"
    assert chosen.fallback
    assert "zero-shot, no examples for this task" in chosen.source


def test_the_folder_of_examples_is_relative_to_the_config_and_overrides_the_published_ones(
    bge: Path, tmp_path: Path
) -> None:
    examples_folder(tmp_path / "examples", task="STSBenchmark")
    path = bge_yaml(tmp_path / "mine.yaml", bge.parent / "bge-en-icl", prompts="  examples: examples\n")

    found = find_examples("STSBenchmark", Path(load_config(path).prompts.examples or ""), offline=True)

    assert found is not None
    assert [one.query for one in found.rows] == ["query 0", "query 1", "query 2", "query 3"]
    assert not found.published


def test_a_folder_of_examples_that_is_not_there_is_named_with_its_line(bge: Path, tmp_path: Path) -> None:
    path = bge_yaml(tmp_path / "mine.yaml", bge.parent / "bge-en-icl", prompts="  examples: nowhere\n")

    with pytest.raises(ConfigError, match=r"mine.yaml:\d+: prompts.examples: .*nowhere is not a folder"):
        load_config(path)


@pytest.mark.fault(28, "malformed or empty: the error names file and number")
@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({}, "must be a list of examples"),
        ([], "must be a list of examples"),
        ([*OWN, "x"], "example 5: must have a query and a response"),
        ([{**OWN[0], "pos": ["x"]}], "example 1: unknown key 'pos'; the keys are query, response and instruct"),
        ([{**OWN[0], "instruct": None}], "example 1: instruct must be text (got None)"),
        ([OWN[0], {"query": "x"}], "example 2: must have a query and a response"),
        ([OWN[0], {"query": 3, "response": "x"}], "example 2: must have"),
        ([{"query": " \n", "response": "x"}], "example 1: must have"),
    ],
)
def test_a_broken_file_of_examples_is_named_with_the_number(tmp_path: Path, rows: Any, says: str) -> None:
    prompts = examples_folder(tmp_path / "examples", rows)

    with pytest.raises(ConfigError) as error:
        choose("icl", prompts, STS, None)

    assert str(error.value).startswith(str(tmp_path / "examples" / "OwnSTS.json"))
    assert says in str(error.value)


# -------------------------------------------------------------------------------------------------- the published ones


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[str]]:
    """Replace the network by bytes or an error; records the requested addresses."""

    def serve(answer: Any) -> list[str]:
        asked: list[str] = []

        def urlopen(url: str, **_: Any) -> io.BytesIO:
            asked.append(url)
            if isinstance(answer, Exception):
                raise answer
            return io.BytesIO(answer)

        monkeypatch.setattr("urllib.request.urlopen", urlopen)
        return asked

    return serve


def pinned(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    import stella_mteb.prompts.examples as module

    known = module.published() | {"sha256": {"STSBenchmark": hashlib.sha256(content).hexdigest()}}
    monkeypatch.setattr(module, "published", lambda: known)


def test_a_published_file_is_fetched_once_at_the_pinned_commit_and_kept(
    monkeypatch: pytest.MonkeyPatch, served: Callable[[Any], list[str]]
) -> None:
    content = json.dumps(OWN).encode()
    pinned(monkeypatch, content)
    asked = served(content)

    found = [find_examples("STSBenchmark", None, offline=offline) for offline in (False, False, True)]

    assert len(asked) == 1
    assert "/90ac1333ee65203675c47f4bfbc817f6707dbf26/" in asked[0]
    assert asked[0].endswith("/STSBenchmark.json")
    assert all(one is not None and len(one.rows) == 4 and one.published for one in found)


def test_a_file_with_another_checksum_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, served: Callable[[Any], list[str]]
) -> None:
    served(b"[]")

    with pytest.raises(
        EnvironmentProblem, match=r"STSBenchmark.json: sha256 is 4f53\w+, not \w{64}; the file is discarded"
    ):
        find_examples("STSBenchmark", None, offline=False)
    with pytest.raises(EnvironmentProblem, match="not on this machine, and it is offline"):
        find_examples("STSBenchmark", None, offline=True)


def test_a_kept_file_that_was_changed_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, served: Callable[[Any], list[str]], tmp_path: Path
) -> None:
    content = json.dumps(OWN).encode()
    pinned(monkeypatch, content)
    asked = served(content)
    find_examples("STSBenchmark", None, offline=False)
    (kept,) = (tmp_path / "vector-cache" / "icl_examples").rglob("STSBenchmark.json")
    kept.write_text("[]")

    find_examples("STSBenchmark", None, offline=False)

    assert len(asked) == 2
    assert kept.read_bytes() == content


@pytest.mark.fault(41, "few-shot examples: an error with the URL and the path for the file")
def test_offline_never_asks_the_network_and_says_where_to_put_the_file(served: Callable[[Any], list[str]]) -> None:
    asked = served(b"")

    with pytest.raises(
        EnvironmentProblem, match=r"download https://\S+/ArguAna.json elsewhere .* or run with \[shots=0\]"
    ):
        find_examples("ArguAna", None, offline=True)

    assert asked == []


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), TimeoutError("timed out"), OSError("reset")])
def test_a_failing_network_is_an_environment_problem_with_a_cure(
    served: Callable[[Any], list[str]], error: Exception
) -> None:
    served(error)

    with pytest.raises(
        EnvironmentProblem, match=r"examples of ArguAna could not be downloaded \(.+\); run `stella-mteb fetch"
    ):
        find_examples("ArguAna", None, offline=False)


def test_zero_shot_needs_no_file(served: Callable[[Any], list[str]]) -> None:
    asked = served(b"")

    chosen = choose("icl", PromptConfig(), TaskInfo("ArguAna", "Retrieval"), "query", shots=0)

    assert chosen.text.startswith("<instruct>Given a claim")
    assert asked == []


@needs_shared
def test_every_published_file_has_the_pinned_checksum_and_reads() -> None:
    from stella_mteb.prompts.examples import published

    checksums = published()["sha256"]
    files = {path.stem: path for path in (SHARED / "icl_examples").glob("*.json")}

    assert files.keys() == checksums.keys()
    for task, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == checksums[task]
        assert read_examples(path)


# -------------------------------------------------------------------------------------------------- under evaluation


def own_encoder(bge: Path, folder: Path, option: str = "", rows: Any = OWN, task: str = "OwnSTS") -> Any:
    from stella_mteb.harness.adapter import load_encoder

    examples_folder(folder / "examples", rows, task)
    path = bge_yaml(folder / "mine.yaml", bge.parent / "bge-en-icl", prompts="  examples: examples\n")
    return load_encoder(f"{path}{option}", device="cpu")


def own_task(folder: Path) -> Any:
    from stella_mteb.harness.task_classes import task_class
    from stella_mteb.harness.task_yaml import load_task_file

    rows = [dict(zip(("left", "right", "rating"), row, strict=True)) for row in RATED_PAIRS]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "own.yaml").write_text(
        "name: OwnSTS\ntype: STS\ndata: pairs.jsonl\n"
        "columns: {sentence1: left, sentence2: right, score: rating}\ninstruction: Find the same text\n"
    )
    return task_class(load_task_file(folder / "own.yaml"))()


def evaluate(encoder: Any, task: Any) -> Any:
    import mteb

    return mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)[0]


def test_an_evaluation_uses_the_vectors_of_the_prompted_texts(bge: Path, tmp_path: Path) -> None:
    from scipy.stats import spearmanr

    result = evaluate(own_encoder(bge, tmp_path, "[shots=2]"), own_task(tmp_path))

    prompt = frame("Find the same text.", tuple(Example(**row) for row in OWN), 2)
    first, second = (of(bge).encode([row[side] for row in RATED_PAIRS], prompt) for side in (0, 1))
    cosines = (first * second).sum(axis=1)
    expected = spearmanr(cosines, [row[2] for row in RATED_PAIRS]).statistic
    assert result.get_score() == pytest.approx(expected, abs=1e-6)


@pytest.mark.fault(28, "an example among the scored texts is refused; the error names it")
@pytest.mark.parametrize("row", [{"query": "a dog runs", "response": "x"}, {"query": "x", "response": "a dog runs"}])
def test_an_example_in_the_scored_data_is_refused_by_name(bge: Path, tmp_path: Path, row: dict[str, str]) -> None:
    encoder = own_encoder(bge, tmp_path, rows=[*OWN, row])

    with pytest.raises(ConfigError, match="task OwnSTS: the example 'a dog runs' is also in the scored data"):
        evaluate(encoder, own_task(tmp_path))


def test_an_example_beyond_the_shots_may_stand_in_the_data(bge: Path, tmp_path: Path) -> None:
    encoder = own_encoder(bge, tmp_path, "[shots=4]", rows=[*OWN, {"query": "a dog runs", "response": "x"}])

    assert np.isfinite(evaluate(encoder, own_task(tmp_path)).get_score())


def test_a_task_without_examples_is_warned_about(bge: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = own_encoder(bge, tmp_path, task="AnotherTask")

    with caplog.at_level(logging.WARNING):
        evaluate(encoder, own_task(tmp_path))

    assert caplog.text.count("zero-shot, no examples for this task") == 1
    assert encoder.prompt_notes("OwnSTS")["both"]["fallback"]


def metadata(task_type: str) -> Any:
    import mteb

    return mteb.get_task("STSBenchmark").metadata.model_copy(update={"name": "OwnSTS", "type": task_type})


def test_vectors_of_classification_keep_their_length_and_the_note_says_so(bge: Path, tmp_path: Path) -> None:
    encoder = own_encoder(bge, tmp_path)
    batches = [{"text": ["a man", "the dog"]}]
    lengths = {}
    for task_type in ("Classification", "STS", "Clustering"):
        encoder.prompts_used.clear()
        vectors = encoder.encode(batches, task_metadata=metadata(task_type), hf_split="test", hf_subset="default")
        note = encoder.prompt_notes("OwnSTS")["both"]
        lengths[task_type] = np.linalg.norm(vectors, axis=1), note.get("normalized", True)

    assert abs(lengths["Classification"][0] - 1).min() > 0.1
    assert lengths["Classification"][1] is False
    for task_type in ("STS", "Clustering"):
        np.testing.assert_allclose(lengths[task_type][0], 1, atol=1e-5)
        assert lengths[task_type][1] is True


def test_classification_under_another_profile_is_normalised(bge: Path, tmp_path: Path) -> None:
    encoder = own_encoder(bge, tmp_path, "[card]")

    vectors = encoder.encode(
        [{"text": ["a man"]}], task_metadata=metadata("Classification"), hf_split="test", hf_subset="default"
    )

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_shots_and_examples_are_part_of_a_results_identity(bge: Path, tmp_path: Path) -> None:
    def folder(option: str, rows: Any = OWN, task: str = "OwnSTS") -> str:
        own = tmp_path / "own"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        return str(own_encoder(bge, own, option, rows, task).mteb_model_meta.experiment_name)

    names = [folder(option) for option in ("", "[shots=0]", "[shots=3]", "[shots=4]", "[card]")]
    names += [folder("", OWN[::-1]), folder("", OWN, "AnotherTask")]

    assert len(set(names)) == len(names)
    assert folder("") == names[0]


def test_own_examples_have_an_id_of_their_own_beside_the_published(tmp_path: Path) -> None:
    prompts = examples_folder(tmp_path / "examples")

    assert prompts_id("icl", PromptConfig(profile="icl"), []) == "icl"
    assert prompts_id("icl", prompts, []).startswith("icl-")
