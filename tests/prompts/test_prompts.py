from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.layouts.stella import PROMPTS
from stella_mteb.errors import ConfigError
from stella_mteb.models.config import bundled_configs, load_config
from stella_mteb.models.declared import read_declared
from stella_mteb.prompts.profiles import PROFILES, PromptConfig, TaskInfo, choose, judge_prompt, prompts_id, table
from tests.conftest import SHARED, needs_shared

S2S = "Instruct: Retrieve semantically similar text.\nQuery: "
S2P = "Instruct: Given a web search query, retrieve relevant passages that answer the query.\nQuery: "
SYMMETRIC = {
    "BitextMining", "Classification", "Clustering", "MultilabelClassification", "PairClassification",
    "Regression", "STS", "Summarization", "ZeroShotClassification",
}  # fmt: skip
ASYMMETRIC = {"InstructionReranking", "InstructionRetrieval", "Reranking", "Retrieval"}
CQADUPSTACK = [
    "Android", "English", "Gaming", "Gis", "Mathematica", "Physics", "Programmers", "Stats", "Tex", "Unix",
    "Webmasters", "Wordpress", "",
]  # fmt: skip
DUPLICATE_QUESTIONS = (
    "Given a question, retrieve detailed question descriptions from Stackexchange that are duplicates to the "
    "given question"
)


@pytest.fixture(scope="module")
def stella_prompts() -> PromptConfig:
    return load_config(bundled_configs()["stella_en_1.5B_v5"]).prompts


def framed(instruction: str) -> str:
    return f"Instruct: {instruction}\nQuery: "


def on_leaderboard(name: str, side: Any) -> Any:
    import mteb

    from stella_mteb.harness.registry import task_info

    return choose("leaderboard", PromptConfig(), task_info(mteb.get_task(name).metadata), side)


# ------------------------------------------------------------------------------------------------- profile card


def test_the_card_table_has_one_row_for_every_task_type_of_mteb() -> None:
    from mteb.abstasks.task_metadata import TaskType

    path = Path(__file__).parents[2] / "stella_mteb/prompts/card.yaml"
    keys = [key.value for key, _ in yaml.compose(path.read_text(encoding="utf-8")).value]

    assert sorted(keys) == sorted(get_args(TaskType))  # a list, so that a duplicate row is noticed


def test_the_card_rows_are_asymmetric_exactly_where_mteb_encodes_queries_and_documents() -> None:
    import mteb
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    tasks = [task for task in mteb.get_tasks() if not isinstance(task, AbsTaskAggregate)]
    wrong = {
        task.metadata.name: task.metadata.type
        for task in tasks
        if isinstance(task, AbsTaskRetrieval) != ("query" in table("card")[task.metadata.type])
    }

    assert len(tasks) > 1_000
    assert wrong == {}


@pytest.mark.parametrize("task_type", sorted(SYMMETRIC))
def test_symmetric_tasks_get_s2s_of_the_card(task_type: str, stella_prompts: PromptConfig) -> None:
    prompt = choose("card", stella_prompts, TaskInfo("SomeTask", task_type), None)

    assert (prompt.text, prompt.fallback) == (S2S, False)


@pytest.mark.parametrize("task_type", sorted(ASYMMETRIC))
def test_queries_get_s2p_of_the_card_and_documents_get_no_prompt(task_type: str, stella_prompts: PromptConfig) -> None:
    task = TaskInfo("SomeTask", task_type, instruction={None: "Find it"}, type_instruction="Search")
    query = choose("card", stella_prompts, task, "query")
    document = choose("card", stella_prompts, task, "document")

    assert (query.text, query.fallback) == (S2P, False)
    assert (document.text, document.fallback) == ("", False)


@pytest.mark.parametrize("model", ["stella_en_1.5B_v5", "stella_en_400M_v5"])
def test_the_bundled_prompts_are_those_of_the_hub_repository(model: str) -> None:
    prompts = yaml.safe_load(bundled_configs()[model].read_text(encoding="utf-8"))["prompts"]

    assert prompts["s2s"] == PROMPTS["s2s_query"] == S2S
    assert prompts["s2p"] == PROMPTS["s2p_query"] == S2P
    assert "document" not in prompts


@needs_shared
def test_the_bundled_prompts_are_those_of_the_published_file(stella_prompts: PromptConfig) -> None:
    published = json.loads((SHARED / "stella_repo_layout/config_sentence_transformers.json").read_text())

    assert published["prompts"] == {"s2s_query": stella_prompts.s2s, "s2p_query": stella_prompts.s2p}


def test_a_document_prompt_of_the_config_is_used(stella_prompts: PromptConfig) -> None:
    prompts = stella_prompts.model_copy(update={"document": "passage: "})

    assert choose("card", prompts, TaskInfo("SomeTask", "Retrieval"), "document").text == "passage: "


@pytest.mark.parametrize(("side", "text"), [(None, S2S), ("query", S2P), ("document", "")])
def test_a_new_task_type_gets_the_prompt_of_its_side_as_a_fallback(
    side: Any, text: str, stella_prompts: PromptConfig
) -> None:
    prompt = choose("card", stella_prompts, TaskInfo("SomeTask", "SmellRetrieval"), side)

    assert prompt.text == text
    assert prompt.fallback
    assert "SmellRetrieval" in prompt.source


# ------------------------------------------------------------------------------------------ profile leaderboard


def test_the_frame_is_that_of_the_card() -> None:
    task = TaskInfo("SomeTask", "Classification", instruction={None: "Tell good from bad"})

    prompt = choose("leaderboard", PromptConfig(), task, None)

    assert prompt.text == "Instruct: Tell good from bad\nQuery: "


def test_the_table_has_the_same_instruction_as_mteb_wherever_mteb_has_one() -> None:
    import mteb

    ours = table("leaderboard")["tasks"]
    theirs = {}
    for name in ours:
        prompt = mteb.get_task(name).metadata.prompt
        theirs[name] = prompt.get("query") if isinstance(prompt, dict) else prompt
    compared = {name: text for name, text in theirs.items() if text}

    assert len(compared) >= 44
    assert {name: ours[name] for name in compared} == compared


@needs_shared
def test_the_table_agrees_with_the_collected_instructions() -> None:
    rules = table("leaderboard")
    with (SHARED / "task_instructions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong, compared = {}, 0
    for row in rows:
        own, default = row["mteb_2.26.24_prompt"], "[abstask default]"
        ours = rules["tasks"].get(row["task"]) or rules["types"].get(row["type"])
        # Where MTEB has none, the instruction is that of the other collection, whose lines end in a full stop.
        other = row["flagembedding_prompts.py"]
        expected = own.removeprefix(default).strip() or other.removesuffix(".")
        compared += 1
        if ours != expected:
            wrong[row["task"]] = (ours, expected)

    assert compared == 56
    assert wrong == {}


@pytest.mark.parametrize("part", CQADUPSTACK)
def test_every_cqadupstack_task_asks_for_duplicate_questions(part: str) -> None:
    name = f"CQADupstack{part}Retrieval"

    query, document = on_leaderboard(name, "query"), on_leaderboard(name, "document")

    assert (query.text, query.fallback) == (framed(DUPLICATE_QUESTIONS), False)
    assert document.text == ""


@pytest.mark.parametrize(
    ("name", "side", "parent"),
    [
        ("FEVERHardNegatives", "query", "FEVER"),
        ("ClimateFEVERHardNegatives", "query", "ClimateFEVER"),
        ("HotpotQAHardNegatives", "query", "HotpotQA"),
        ("Touche2020Retrieval.v3", "query", "Touche2020"),
        ("ArXivHierarchicalClusteringP2P", None, "ArxivClusteringP2P"),
        ("ArXivHierarchicalClusteringS2S", None, "ArxivClusteringS2S"),
    ],
)
def test_a_variant_inherits_the_instruction_of_its_parent(name: str, side: Any, parent: str) -> None:
    prompt = on_leaderboard(name, side)

    assert prompt.text == on_leaderboard(parent, side).text == framed(table("leaderboard")["tasks"][parent])
    assert not prompt.fallback
    assert parent in prompt.source


@pytest.mark.parametrize("benchmark", ["MTEB(eng, v1)", "MTEB(eng, v2)"])
def test_every_task_of_the_english_benchmarks_has_an_instruction(benchmark: str) -> None:
    import mteb
    from mteb.abstasks.abstask import get_abstask_prompt

    from stella_mteb.harness.registry import task_info

    chosen = {}
    for task in mteb.get_benchmark(benchmark).tasks:
        side = "query" if task.metadata.type in ASYMMETRIC else None
        chosen[task.metadata.name] = (
            choose("leaderboard", PromptConfig(), task_info(task.metadata), side),
            framed(get_abstask_prompt(task.metadata.name)),
            task.metadata.type,
        )

    assert {name for name, (prompt, _, _) in chosen.items() if prompt.fallback} == set()
    # Only for these two types is MTEB's default what the published scores used.
    generic = {kind for prompt, default, kind in chosen.values() if prompt.text == default}
    assert generic == {"STS", "Summarization"}


def test_documents_get_no_leaderboard_prompt_whatever_the_task_says() -> None:
    task = TaskInfo("SomeTask", "Retrieval", instruction={"query": "Find", "document": "Represent"})
    prompts = PromptConfig(document="passage: ")

    assert choose("leaderboard", prompts, task, "query").text == framed("Find")
    assert choose("leaderboard", prompts, task, "document").text == ""


def test_a_task_without_any_instruction_falls_back_and_says_so() -> None:
    task = TaskInfo("NewTask", "Classification", type_instruction="Classify user passages.")

    prompt = choose("leaderboard", PromptConfig(), task, None)

    assert prompt.text == framed("Classify user passages.")
    assert prompt.fallback
    assert prompt.source == "leaderboard: no instruction, MTEB's default for Classification"


def test_the_nearest_parent_with_an_instruction_wins() -> None:
    parents = (("Nameless", None), ("FEVER", "ignored, the table has it"), ("Far", "Far away"))

    unknown_parents = TaskInfo("New", "Retrieval", parents=(("Nameless", None), ("Far", "Far away")))

    assert choose("leaderboard", PromptConfig(), TaskInfo("New", "Retrieval", parents=parents), "query").text == (
        framed("Given a claim, retrieve documents that support or refute the claim")
    )
    assert choose("leaderboard", PromptConfig(), unknown_parents, "query").text == framed("Far away")


# ---------------------------------------------------------------------------------------------- profile builtin


@pytest.fixture(scope="module")
def mteb_wrapper() -> Any:
    """MTEB's own wrapper with its settings of Stella, without weights."""
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
    from mteb.models.model_implementations.stella_models import stella_en_1_5b

    settings_of_stella = stella_en_1_5b.loader_kwargs
    assert stella_en_1_5b.loader is InstructSentenceTransformerModel
    assert not set(settings_of_stella) & {"instruction_template", "prompts_dict", "prompt_priority"}
    wrapper = object.__new__(InstructSentenceTransformerModel)
    wrapper.instruction_template = None
    wrapper.prompts_dict = None
    wrapper.apply_instruction_to_passages = settings_of_stella["apply_instruction_to_passages"]
    return wrapper


def test_builtin_gives_the_prompts_of_mtebs_own_stella(
    mteb_wrapper: Any, monkeypatch: pytest.MonkeyPatch, stella_prompts: PromptConfig
) -> None:
    import mteb
    from datasets import Dataset
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

    from stella_mteb.harness.registry import side_of, task_info

    class Recorder:
        def encode(self, sentences: list[str], prompt: str | None, **kwargs: Any) -> None:
            self.prompt = prompt or ""

    recorder = Recorder()
    monkeypatch.setattr(mteb_wrapper, "model", recorder, raising=False)
    theirs, ours = {}, {}
    for task in mteb.get_benchmark("MTEB(eng, v2)").tasks:
        kind, info = task.metadata.type, task_info(task.metadata)
        for prompt_type in [PromptType.query, PromptType.document] if kind in ASYMMETRIC else [None]:
            key = (info.name, prompt_type)
            loader = DataLoader(Dataset.from_dict({"text": ["a cat sits on a mat"]}))
            mteb_wrapper.encode(
                loader,
                task_metadata=task.metadata,
                hf_split="test",
                hf_subset="default",
                prompt_type=prompt_type,
            )
            theirs[key] = recorder.prompt
            ours[key] = choose("builtin", stella_prompts, info, side_of(prompt_type)).text

    assert len(theirs) == 41 + 12
    assert len(set(theirs.values())) > 20
    assert ours == theirs


def test_builtin_gives_mtebs_prompts_on_all_its_text_tasks(mteb_wrapper: Any) -> None:
    import mteb
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.types import PromptType

    from stella_mteb.harness.registry import side_of, task_info

    wrong, compared = {}, 0
    for task in mteb.get_tasks(modalities=["text"], exclusive_modality_filter=True):
        prompt_type = PromptType.query if isinstance(task, AbsTaskRetrieval) else None
        theirs = mteb_wrapper.get_task_instruction(task.metadata, prompt_type)
        if isinstance(theirs, dict):
            continue  # TERRa.V2 names a query's instruction although it is symmetric; MTEB cannot run it
        info = task_info(task.metadata)
        ours = choose("builtin", PromptConfig(), info, side_of(prompt_type)).text
        compared += 1
        if ours != theirs:
            wrong[info.name] = (ours, theirs)

    assert compared > 1_000
    assert wrong == {}


# -------------------------------------------------------------------------------------------------- profile own

_OWN_KEYS = [f"{name}{suffix}" for name in ("MyTask", "Retrieval") for suffix in ("-query", "-document", "")]


@given(keys=st.sets(st.sampled_from(_OWN_KEYS), min_size=1), side=st.sampled_from(["query", "document"]))
@settings(max_examples=50, deadline=None)
def test_the_most_specific_own_prompt_is_used(keys: set[str], side: Any) -> None:
    prompts = PromptConfig(s2p="s2p: ", document="doc: ", own={key: f"<{key}> " for key in keys})
    order = [f"MyTask-{side}", "MyTask", f"Retrieval-{side}", "Retrieval"]
    applicable = [key for key in order if key in keys]

    prompt = choose("own", prompts, TaskInfo("MyTask", "Retrieval"), side)

    if applicable:
        assert (prompt.text, prompt.source, prompt.fallback) == (
            f"<{applicable[0]}> ",
            f"own: {applicable[0]}",
            False,
        )
    else:
        assert (prompt.text, prompt.fallback) == ({"query": "s2p: ", "document": "doc: "}[side], True)
        assert "no prompt for MyTask or Retrieval" in prompt.source


def test_own_prompts_of_one_side_do_not_reach_symmetric_texts() -> None:
    prompts = PromptConfig(s2s="s2s: ", own={"STS-query": "q: ", "MyTask-document": "d: "})

    prompt = choose("own", prompts, TaskInfo("MyTask", "STS"), None)

    assert (prompt.text, prompt.fallback) == ("s2s: ", True)


def test_an_empty_own_prompt_counts_as_a_prompt() -> None:
    prompts = PromptConfig(s2s="s2s: ", own={"MyTask": "", "STS": "sts: "})

    prompt = choose("own", prompts, TaskInfo("MyTask", "STS"), None)

    assert (prompt.text, prompt.fallback) == ("", False)


def test_the_own_profile_without_prompts_is_refused_with_the_key() -> None:
    with pytest.raises(ConfigError, match=r"profile own needs prompts\.own in the model's YAML"):
        choose("own", PromptConfig(), TaskInfo("MyTask", "STS"), None)


def test_an_unknown_profile_lists_the_known_ones() -> None:
    expected = r"unknown prompt profile 'cards'; the profiles are card, leaderboard, builtin, own"
    with pytest.raises(ConfigError, match=expected):
        choose("cards", PromptConfig(), TaskInfo("MyTask", "STS"), None)


def test_an_own_prompt_for_a_side_alone_is_used_last() -> None:
    prompts = PromptConfig(own={"query": "q: ", "document": "d: ", "Retrieval": "any: "})

    assert choose("own", prompts, TaskInfo("MyTask", "Reranking"), "query").text == "q: "
    assert choose("own", prompts, TaskInfo("MyTask", "Reranking"), "document").text == "d: "
    assert choose("own", prompts, TaskInfo("MyTask", "Retrieval"), "document").text == "any: "
    assert choose("own", prompts, TaskInfo("MyTask", "STS"), None).text == ""


def test_the_default_prompt_is_for_texts_of_no_side_and_no_other_prompt() -> None:
    """As `default_prompt_name` of sentence-transformers, which always has a query and a document prompt."""
    prompts = PromptConfig(own={"query": "", "document": "", "STS": "sts: ", "any": "any: "}, default="any")

    assert choose("own", prompts, TaskInfo("MyTask", "Clustering"), None).text == "any: "
    assert choose("own", prompts, TaskInfo("MyTask", "STS"), None).text == "sts: "
    assert choose("own", prompts, TaskInfo("MyTask", "Retrieval"), "query").text == ""


@pytest.mark.parametrize("name", ["passage", "corpus"])
def test_a_prompt_that_neither_mteb_nor_sentence_transformers_reads_is_named(name: str) -> None:
    prompts = PromptConfig(own={"query": "query: ", "document": "", name: "passage: "})

    prompt = choose("own", prompts, TaskInfo("MyTask", "Retrieval"), "document")

    assert (prompt.text, prompt.fallback) == ("", True)
    assert f"read the prompt document, not {name}" in prompt.source


@pytest.mark.fault(29, "prompts that a folder gives by task, type or side are those that MTEB chooses")
@pytest.mark.parametrize(
    ("task", "side", "expected"),
    [
        (TaskInfo("VideoSummarySTS", "STS"), None, "task: sentence similarity | query: "),
        (TaskInfo("VideoSummaryRetrieval", "Retrieval"), "query", "task: search result | query: "),
        (TaskInfo("VideoSummaryRetrieval", "Retrieval"), "document", "title: none | text: "),
        (TaskInfo("SciFact", "Retrieval"), "query", "claim: "),
        (TaskInfo("SciFact", "Retrieval"), "document", "title: none | text: "),
    ],
)
def test_prompts_by_task_type_of_a_folder_are_used(task: TaskInfo, side: Any, expected: str, tmp_path: Path) -> None:
    """As in EmbeddingGemma (mteb #3641)."""
    declared = {
        "query": "task: search result | query: ",
        "document": "title: none | text: ",
        "STS": "task: sentence similarity | query: ",
        "SciFact-query": "claim: ",
    }
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": declared}))
    prompts = read_declared(tmp_path).prompt_config

    assert prompts is not None
    prompt = choose(prompts.profile, prompts, task, side)

    assert (prompt.text, prompt.fallback) == (expected, False)


# ------------------------------------------------------------------------------------------------ profile instruct

_INSTRUCT = PromptConfig(
    profile="instruct",
    template={"both": "Instruct: {instruction}\nQuery: ", "query": "Instruct: {instruction}\nQuery: "},
    without_instruction={"query": "Query: "},
    instructions={"MyTask": "Do mine", "STS": "Compare", "query": "Search", "Empty": "", "Sided": {"query": "Ask"}},
)


@pytest.mark.parametrize(
    ("task", "side", "expected"),
    [
        (TaskInfo("MyTask", "STS"), None, "Instruct: Do mine\nQuery: "),
        (TaskInfo("Other", "STS", {None: "Its own"}), None, "Instruct: Compare\nQuery: "),
        (TaskInfo("Other", "Retrieval", {"query": "Its own"}), "query", "Instruct: Search\nQuery: "),
        (TaskInfo("Other", "Clustering", {None: "Its own"}), None, "Instruct: Its own\nQuery: "),
        (TaskInfo("Other", "Clustering", type_instruction="Any"), None, "Instruct: Any\nQuery: "),
        (TaskInfo("Empty", "Clustering", {None: "Its own"}, "Any"), None, "Instruct: Any\nQuery: "),
        (TaskInfo("Sided", "Retrieval", {None: "Its own"}), "query", "Instruct: Ask\nQuery: "),
        (TaskInfo("Other", "Retrieval", {None: "Its own"}), "document", ""),
    ],
)
def test_an_instruction_is_chosen_in_mtebs_order(task: TaskInfo, side: Any, expected: str) -> None:
    assert choose("instruct", _INSTRUCT, task, side).text == expected


def test_a_task_without_an_instruction_has_a_prompt_of_its_own() -> None:
    prompts = _INSTRUCT.model_copy(update={"instructions": {}})

    assert choose("instruct", prompts, TaskInfo("Other", "Retrieval", {"document": "x"}), "query").text == "Query: "


def test_the_instruct_profile_without_a_template_is_refused_with_the_key() -> None:
    with pytest.raises(ConfigError, match=r"profile instruct needs prompts\.template in the model's YAML"):
        choose("instruct", PromptConfig(), TaskInfo("MyTask", "STS"), None)


@pytest.mark.parametrize(
    ("prompts", "s2s", "s2p"),
    [
        (PromptConfig(s2s="s: ", s2p="p: "), "s: ", "p: "),
        (PromptConfig(profile="own", own={"STS": "sts: ", "query": "q: "}), "sts: ", "q: "),
        (_INSTRUCT, "Instruct: Compare\nQuery: ", "Instruct: Search\nQuery: "),
    ],
)
def test_the_judge_has_the_prompt_of_an_sts_task_or_of_a_query(prompts: PromptConfig, s2s: str, s2p: str) -> None:
    assert judge_prompt(prompts.profile, prompts, "s2s").text == s2s
    assert judge_prompt(prompts.profile, prompts, "s2p").text == s2p
    assert judge_prompt(prompts.profile, prompts, "none").text == ""


# ------------------------------------------------------------------------------------------------ identity, notes

_TEXTS = st.sampled_from(["", S2S, S2P, "query: "])
_EMPTY, _STELLA = PromptConfig(), PromptConfig(s2s=S2S, s2p=S2P)
_CONFIGS = st.sampled_from([_EMPTY, _STELLA]) | st.builds(
    PromptConfig,
    s2s=_TEXTS,
    s2p=_TEXTS,
    document=_TEXTS,
    own=st.dictionaries(st.sampled_from(["STS", "Retrieval"]), _TEXTS, min_size=1, max_size=2),
    template=st.dictionaries(st.sampled_from(["both", "query"]), _TEXTS, min_size=1),
)


def chosen_prompts(profile: str, prompts: PromptConfig) -> list[str]:
    """Return the prompts of a profile for a symmetric task and for both sides of an asymmetric one."""
    sides: list[tuple[str, Any]] = [("STS", None), ("Retrieval", "query"), ("Retrieval", "document")]
    return [choose(profile, prompts, TaskInfo("SomeTask", kind), side).text for kind, side in sides]


@given(
    profiles=st.tuples(st.sampled_from(PROFILES), st.sampled_from(PROFILES)),
    configs=st.tuples(_CONFIGS, _CONFIGS),
    bundled=st.sampled_from([_EMPTY, _STELLA]),
)
@settings(max_examples=50, deadline=None)
def test_prompts_that_differ_never_share_an_id(
    profiles: tuple[str, str], configs: tuple[PromptConfig, PromptConfig], bundled: PromptConfig
) -> None:
    needs = {"own": "own", "instruct": "template"}
    pairs = [pair for pair in zip(profiles, configs, strict=True) if getattr(pair[1], needs.get(pair[0], "profile"))]
    ids = [prompts_id(profile, prompts, [bundled]) for profile, prompts in pairs]
    texts = [chosen_prompts(profile, prompts) for profile, prompts in pairs]

    assert len(set(map(str, texts))) <= len(set(ids))


@given(profile=st.sampled_from(PROFILES), prompts=_CONFIGS, default=st.sampled_from(PROFILES))
@settings(max_examples=50, deadline=None)
def test_the_same_prompts_have_the_same_id(profile: str, prompts: PromptConfig, default: Any) -> None:
    """The config's default profile has no effect if the spec names one."""
    other = PromptConfig(**{**prompts.model_dump(), "profile": default, "own": dict(reversed(prompts.own.items()))})

    assert prompts_id(profile, prompts, [_STELLA]) == prompts_id(profile, other, [_STELLA])


def test_the_id_of_bundled_prompts_is_the_name_of_the_profile(stella_prompts: PromptConfig) -> None:
    changed = stella_prompts.model_copy(update={"s2s": S2S.lower()})

    assert prompts_id("card", stella_prompts, [_STELLA]) == "card"
    assert prompts_id("card", changed, [_STELLA]).startswith("card-")
    assert prompts_id("card", PromptConfig(), [_STELLA, PromptConfig()]) == "none"


@pytest.mark.parametrize("profile", ["leaderboard", "builtin"])
def test_the_id_of_a_profile_that_ignores_the_configs_prompts_does_not_depend_on_them(
    profile: str, stella_prompts: PromptConfig
) -> None:
    changed = stella_prompts.model_copy(update={"s2s": S2S.lower()})

    assert prompts_id(profile, stella_prompts, [_STELLA]) == prompts_id(profile, changed, [_STELLA]) == profile


@pytest.mark.fault(29, "the next best prompt is used, with a warning and a note in the result")
def test_a_fallback_is_warned_about_once_and_noted_with_the_result(
    stella_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import mteb
    from mteb.mocks.mock_tasks import MockClassificationTask

    from stella_mteb.harness.adapter import load_encoder

    encoder = load_encoder(f"{stella_folder}@256[leaderboard]", device="cpu")
    tasks = [MockClassificationTask(), mteb.get_task("STSBenchmark")]
    with caplog.at_level(logging.WARNING, logger="stella_mteb"):
        mteb.evaluate(encoder, MockClassificationTask(), cache=None, show_progress_bar=False)
        encoder.prompt_for(tasks[1].metadata, None)
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("stella_mteb")]
    default = framed("Classify user passages.")

    assert encoder.text_encoder.stats.texts > 2  # it was asked more than once
    assert warnings == [
        "task MockClassificationTask (both): leaderboard: no instruction, MTEB's default for Classification; "
        f"prompt {default!r}"
    ]
    assert encoder.prompt_notes("MockClassificationTask") == {
        "both": {
            "text": default,
            "source": "leaderboard: no instruction, MTEB's default for Classification",
            "fallback": True,
        }
    }
    assert encoder.prompt_notes("STSBenchmark")["both"]["fallback"] is False
