from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.conftest import SHARED, needs_shared
from tests.support.runs import PAIRS, find, write_some_summaries

S2S = "Instruct: Retrieve semantically similar text.\nQuery: "
S2P = "Instruct: Given a web search query, retrieve relevant passages that answer the query.\nQuery: "
QUERIES = ["This is a test sentence", "This is another test sentence"]

Calls = list[tuple[list[str], str]]


@pytest.fixture(scope="module")
def encoder(stella_folder: Path) -> Any:
    from stella_mteb import load_encoder

    return load_encoder(f"{stella_folder}@256", device="cpu")


@pytest.fixture(scope="module")
def minilm_encoder() -> Any:
    from stella_mteb import load_encoder

    return load_encoder("all_minilm_l6_v2", device="cpu")


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Calls]:
    """Record the texts and the prompt of every call of an encoder's engine."""

    def watch(encoder: Any) -> Calls:
        calls: Calls = []
        original = encoder.text_encoder.encode

        def encode(texts: list[str], prompt: str = "", **kwargs: Any) -> Any:
            calls.append((list(texts), prompt))
            return original(texts, prompt, **kwargs)

        monkeypatch.setattr(encoder.text_encoder, "encode", encode)
        return calls

    return watch


def evaluate(encoder: Any, task: Any, cache: Any = None, **kwargs: Any) -> Any:
    import mteb

    return mteb.evaluate(encoder, task, cache=cache, show_progress_bar=False, **kwargs)


def experiment_name(spec: str) -> str:
    from stella_mteb import load_encoder

    return load_encoder(spec, device="cpu").mteb_model_meta.experiment_name


def result_folder(encoder: Any) -> tuple[str, str, str]:
    meta = encoder.mteb_model_meta
    return meta.name, meta.revision, meta.experiment_name


# ------------------------------------------------------------------------------------------------- MTEB's protocol


def test_mteb_accepts_the_adapter_as_an_encoder(encoder: Any) -> None:
    from mteb.models import EncoderProtocol

    assert isinstance(encoder, EncoderProtocol)


@pytest.mark.versions
def test_every_text_mock_task_of_mteb_runs(encoder: Any) -> None:
    import mteb
    from mteb.mocks import ALL_MOCK_TASK_TEST_GRID
    from mteb.results import TaskResult

    text_only = {t.metadata.name for t in ALL_MOCK_TASK_TEST_GRID if t.metadata.modalities == ["text"]}
    outcome = mteb.mock_run(encoder)
    ran = {name for name, status in outcome.items() if isinstance(status, TaskResult)}

    assert outcome.all_passed
    assert len(text_only) > 20
    assert text_only <= ran
    assert {name for name, status in outcome.items() if status is not None} == ran  # none failed, none skipped


def test_plain_mteb_gives_the_spearman_of_our_own_cosines(encoder: Any) -> None:
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]

    def spearman(prompt: str) -> float:
        first, second = (
            encoder.text_encoder.encode([row[column] for row in rows], prompt).astype(np.float64)
            for column in ("reference", "candidate")
        )
        cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
        return float(spearmanr(cosines, [row["score"] for row in rows]).statistic)

    result = evaluate(encoder, find("VideoSummarySTS"))[0]

    # MTEB's cosines are float32, and those of random weights so near to 1 that some change places.
    assert result.get_score() == pytest.approx(spearman(S2S), abs=5e-4)
    assert result.get_score() != pytest.approx(spearman(""), abs=5e-3)


def test_vectors_are_float32_and_in_the_order_of_the_texts(encoder: Any) -> None:
    from mteb.mocks.mock_tasks import MockSTSTask

    texts = ["a longer text than the others, which is sorted first", "b", "cc", "b"]
    batches = [{"text": texts[:1]}, {"text": texts[1:]}]
    vectors = encoder.encode(
        batches, task_metadata=MockSTSTask.metadata, hf_split="test", hf_subset="default", batch_size=2
    )
    alone = np.concatenate([encoder.text_encoder.encode([text], S2S) for text in texts])

    assert isinstance(vectors, np.ndarray)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_quantised_vectors_are_refused(encoder: Any, precision: str, spied: Callable[[Any], Calls]) -> None:
    from mteb.mocks.mock_tasks import MockSTSTask

    from stella_mteb.errors import ConfigError

    calls = spied(encoder)
    with pytest.raises(ConfigError, match=f"precision '{precision}' is not supported; vectors are float32"):
        evaluate(encoder, MockSTSTask(), encode_kwargs={"precision": precision})
    assert calls == []


# ------------------------------------------------------------------------------------------ input of the engine


def test_both_sides_of_an_sts_task_get_s2s(encoder: Any, spied: Callable[[Any], Calls]) -> None:
    from mteb.mocks.mock_tasks import MockSTSTask

    calls = spied(encoder)
    evaluate(encoder, MockSTSTask())

    assert calls == [
        (QUERIES, S2S),
        (["dette er en test sætning", "denne her matche ikke den ovenstående"], S2S),
    ]


@pytest.mark.parametrize("name", ["MockRetrievalTask", "MockRerankingTask"])
def test_queries_get_s2p_and_documents_get_no_prompt(name: str, encoder: Any, spied: Callable[[Any], Calls]) -> None:
    from mteb.mocks import mock_tasks

    task = getattr(mock_tasks, name)()
    task.load_data()
    corpus = next(iter(task.dataset["default"].values()))["corpus"]
    documents = [f"{row.get('title') or ''} {row['text']}".strip() for row in corpus]
    calls = spied(encoder)
    evaluate(encoder, task)
    prompts = {text: prompt for texts, prompt in calls for text in texts}

    assert prompts == {**dict.fromkeys(QUERIES, S2P), **dict.fromkeys(documents, "")}
    assert len(documents) == 2


def test_training_and_test_texts_of_a_classification_get_s2s(encoder: Any, spied: Callable[[Any], Calls]) -> None:
    from mteb.mocks.mock_tasks import MockClassificationTask

    calls = spied(encoder)
    evaluate(encoder, MockClassificationTask())

    assert {text for texts, _ in calls for text in texts} == {*QUERIES, "This is another train sentence"}
    assert {prompt for _, prompt in calls} == {S2S}


def test_the_prompts_of_a_run_are_noted_by_side(encoder: Any) -> None:
    from mteb.mocks.mock_tasks import MockRetrievalTask

    evaluate(encoder, MockRetrievalTask())

    assert encoder.prompt_notes("MockRetrievalTask") == {
        "query": {"text": S2P, "source": "card: s2p", "fallback": False},
        "document": {"text": "", "source": "card: none", "fallback": False},
    }


def test_the_batch_size_given_to_mteb_reaches_the_engine(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mteb.mocks.mock_tasks import MockSTSTask

    sizes: list[int | None] = []
    original = encoder.text_encoder.encode

    def encode(texts: list[str], prompt: str = "", **kwargs: Any) -> Any:
        sizes.append(kwargs.get("batch_size"))
        return original(texts, prompt, **kwargs)

    monkeypatch.setattr(encoder.text_encoder, "encode", encode)
    evaluate(encoder, MockSTSTask(), encode_kwargs={"batch_size": 3})

    assert sizes == [3, 3]


# -------------------------------------------------------------------------------------------------- identity, cache


def own_config(folder: Path, model: Path, name: str, extra: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(f"name: stella\npath: {model}\ndimension: 256\n{extra}")
    return path


@pytest.mark.fault(15, "each has its own folder of results")
def test_every_setting_that_changes_a_score_changes_the_name_of_the_experiment(
    stella_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import stella_mteb

    own = "prompts: {{profile: own, own: {{STS: '{}'}}}}\nnormalize: {}\n"
    specs = {
        "default": f"{stella_folder}@256",
        "dimension": f"{stella_folder}@768",
        "profile": f"{stella_folder}@256[leaderboard]",
        "dtype": f"{stella_folder}@256[bf16]",
        "length": f"{stella_folder}@256[max_length=128]",
        "own prompts": str(own_config(tmp_path, stella_folder, "a", own.format("same: ", "true"))),
        "text of own prompts": str(own_config(tmp_path, stella_folder, "b", own.format("same:", "true"))),
        "not normalised": str(own_config(tmp_path, stella_folder, "c", own.format("same: ", "false"))),
    }
    names = {what: experiment_name(spec) for what, spec in specs.items()}
    again = {what: experiment_name(spec) for what, spec in specs.items()}
    monkeypatch.setattr(stella_mteb, "PIPELINE", "99")
    names["pipeline"] = experiment_name(specs["default"])

    assert len(set(names.values())) == len(names)
    assert {what: name for what, name in names.items() if what != "pipeline"} == again


def test_a_config_without_prompts_does_not_share_results_with_one_that_has_them(
    stella_folder: Path, tmp_path: Path
) -> None:
    from stella_mteb import load_encoder

    prompts = json.dumps({"s2s": S2S, "s2p": S2P})
    stella = "attention: bidirectional\nnormalize: true\nmax_length: 512\n"
    bare = own_config(tmp_path, stella_folder, "bare", f"{stella}prompts: {{s2s: '', s2p: ''}}\n")
    prompted = own_config(tmp_path, stella_folder, "prompted", f"{stella}prompts: {prompts}\n")
    encoders = [load_encoder(str(path), device="cpu") for path in (bare, prompted)]

    assert result_folder(encoders[0]) != result_folder(encoders[1])


def test_another_dimension_is_encoded_again_and_the_same_one_is_not(
    stella_folder: Path, tmp_path: Path, spied: Callable[[Any], Calls]
) -> None:
    import mteb
    from mteb.mocks.mock_tasks import MockSTSTask

    from stella_mteb import load_encoder

    cache = mteb.ResultCache(tmp_path / "results")
    calls = []
    for dimension in (256, 768, 256, 768):
        encoder = load_encoder(f"{stella_folder}@{dimension}", device="cpu")
        watched = spied(encoder)
        evaluate(encoder, MockSTSTask(), cache=cache)
        calls.append(len(watched))

    assert calls == [2, 2, 0, 0]


def test_a_meta_that_mteb_assigns_does_not_change_what_was_loaded(stella_folder: Path) -> None:
    """MTEB's get_model(embed_dim=...) assigns the registry's meta after loading."""
    from stella_mteb import load_encoder

    encoder = load_encoder(f"{stella_folder}@256[leaderboard]", device="cpu")
    before = encoder.mteb_model_meta
    wrong = {"revision": "other", "embed_dim": [768, 1024], "experiment_kwargs": {"embed_dim": 1024}}
    encoder.mteb_model_meta = before.model_copy(update=wrong)
    after = encoder.mteb_model_meta

    assert (after.revision, after.embed_dim) == (before.revision, 256)
    assert after.experiment_name == before.experiment_name
    assert after.experiment_kwargs["prompts"] == "leaderboard"


def test_the_revision_of_a_local_model_changes_with_its_weights_and_only_with_its_files(
    stella_folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from stella_mteb import load_encoder

    copy = shutil.copytree(stella_folder, tmp_path / "stella_en_1.5B_v5")
    revisions = [
        load_encoder(f"{folder}@256", device="cpu").mteb_model_meta.revision for folder in (stella_folder, copy)
    ]
    for file, change in (("2_Dense_256/model.safetensors", "linear.bias"), ("model.safetensors", "")):
        weights = load_file(copy / file)
        with_change = {name: weight + 1e-3 if name.startswith(change) else weight for name, weight in weights.items()}
        save_file(with_change, copy / file, metadata={"format": "pt"})
        revisions.append(load_encoder(f"{copy}@256", device="cpu").mteb_model_meta.revision)

    assert revisions[0] == revisions[1]
    assert revisions[0].startswith("local-")
    assert len(set(revisions)) == 3


@pytest.mark.fault(29, "missing own prompts are refused before any text is encoded")
def test_own_prompts_that_are_missing_are_noticed_before_anything_is_encoded(stella_folder: Path) -> None:
    from stella_mteb import load_encoder
    from stella_mteb.errors import ConfigError

    with pytest.raises(ConfigError, match=r"needs prompts\.own"):
        load_encoder(f"{stella_folder}@256[own]", device="cpu")


def test_a_family_loads_its_weights_once_and_only_when_a_text_comes(
    stella_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb.mocks.mock_tasks import MockSTSTask

    from stella_mteb.harness.adapter import family
    from stella_mteb.models.resolve import ResolvedModel, resolve

    loads: list[str] = []
    original = ResolvedModel.load

    def load(model: ResolvedModel, device: str | None = None) -> Any:
        loads.append(str(model.spec))
        return original(model, device)

    monkeypatch.setattr(ResolvedModel, "load", load)
    members = family(resolve(str(stella_folder)), [256, 8192], device="cpu")
    assert (loads, [member.loaded for member in members]) == ([], [False, False])

    inputs = [{"text": QUERIES}]
    vectors = [
        member.encode(inputs, task_metadata=MockSTSTask.metadata, hf_split="test", hf_subset="default")
        for member in members
    ]

    assert len(loads) == 1
    assert all(member.loaded for member in members)
    assert [member.mteb_model_meta.embed_dim for member in members] == [256, 8192]
    assert len({result_folder(member) for member in members}) == 2
    for member, found in zip(members, vectors, strict=True):
        expected = member.text_encoder.encode(QUERIES, S2S, dimension=found.shape[1])
        np.testing.assert_array_equal(found, expected)
    assert [found.shape[1] for found in vectors] == [256, 8192]


def test_the_store_of_load_encoder_keeps_vectors_for_the_next(stella_folder: Path, tmp_path: Path) -> None:
    from stella_mteb import load_encoder

    first = load_encoder(f"{stella_folder}@256", device="cpu", cache=tmp_path)
    expected = first.text_encoder.encode(QUERIES)
    later = load_encoder(f"{stella_folder}@256", device="cpu", cache=tmp_path)

    np.testing.assert_array_equal(later.text_encoder.encode(QUERIES), expected)
    assert later.text_encoder.stats.encoded == 0
    assert load_encoder(f"{stella_folder}@256", device="cpu").text_encoder.store is None


def test_texts_come_out_of_all_batches_in_order_and_other_media_are_refused() -> None:
    from mteb.mocks.mock_tasks import MockSTSTask

    from stella_mteb.errors import ConfigError
    from stella_mteb.harness.adapter import texts_of

    assert texts_of([{"text": ["b", "a"]}, {"text": ["b"], "title": ["x"]}], MockSTSTask.metadata) == ["b", "a", "b"]
    with pytest.raises(ConfigError, match="MockSTSTask has audio, image; this model reads text only"):
        texts_of([{"text": ["a"]}, {"text": ["b"], "image": [1], "audio": [2]}], MockSTSTask.metadata)


# ------------------------------------------------------------------------------------------------ published scores


@needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "STSBenchmark",
        pytest.param("STS13", marks=pytest.mark.slow),
        pytest.param("STS15", marks=pytest.mark.slow),
    ],
)
def test_minilm_has_its_published_score(name: str, minilm_encoder: Any, tmp_path: Path) -> None:
    from stella_mteb.harness.task_classes import task_class
    from stella_mteb.harness.task_yaml import load_task_file

    with (SHARED / "sts/all_minilm_l6_v2_published.csv").open(newline="") as file:
        published = {row["task"]: float(row["cosine_spearman"]) for row in csv.DictReader(file)}
    path = tmp_path / "task.yaml"
    columns = "{sentence1: sentence1, sentence2: sentence2, score: score}"
    path.write_text(f"name: {name}Local\ntype: STS\ndata: {SHARED / 'sts' / name}.jsonl\ncolumns: {columns}\n")
    result = evaluate(minilm_encoder, task_class(load_task_file(path))())[0]

    assert result.get_score() == pytest.approx(published[name], abs=5e-4)
    assert minilm_encoder.prompt_notes(f"{name}Local")["both"]["text"] == ""


def test_attention_and_closing_token_tell_results_and_vectors_apart(stella_folder: Path, tmp_path: Path) -> None:
    from stella_mteb.harness.adapter import load_encoder

    found = []
    for attention in ("bidirectional", "causal"):
        path = tmp_path / f"{attention}.yaml"
        path.write_text(f"name: same\npath: {stella_folder}\nattention: {attention}\ndimension: 256\n")
        found.append(load_encoder(str(path), device="cpu"))

    assert found[0].experiment != found[1].experiment
    assert found[0].text_encoder.fingerprint != found[1].text_encoder.fingerprint


def test_a_local_folder_with_the_hub_name_does_not_replace_the_hubs_model(
    stella_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    from stella_mteb import register

    (tmp_path / "sentence-transformers").mkdir()
    (tmp_path / "sentence-transformers/all-MiniLM-L6-v2").symlink_to(stella_folder)
    monkeypatch.chdir(tmp_path)
    register()

    encoder = mteb.get_model("sentence-transformers/all-MiniLM-L6-v2", device="cpu")

    assert encoder.resolved.revision == encoder.resolved.config.hub.revision
    assert encoder.text_encoder.dimension == 384


# ------------------------------------------------------------------------------------------------- similarity


def minilm_with(folder: Path, **declared: Any) -> Path:
    """A copy of the packaged MiniLM without Normalize that declares more."""
    from stella_mteb.models.resolve import resolve

    shutil.copytree(resolve("all_minilm_l6_v2").folder, folder)
    modules = [one for one in json.loads((folder / "modules.json").read_text()) if "Normalize" not in one["type"]]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(declared))
    return folder


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_retrieval_is_ranked_by_the_similarity_that_the_folder_names(name: str, tmp_path: Path) -> None:
    """mteb #1731: multi-qa-mpnet-base-dot-v1 and its like."""
    from sentence_transformers import SentenceTransformer

    from stella_mteb import load_encoder

    write_some_summaries(tmp_path / "some.jsonl", clips=20)  # on these, every similarity gives another nDCG
    task = find(f"VideoSummaryRetrieval={tmp_path / 'some.jsonl'}")
    folder = minilm_with(tmp_path / "minilm", similarity_fn_name=name)
    ours, theirs = load_encoder(str(folder), device="cpu"), SentenceTransformer(str(folder), device="cpu")

    scores = [evaluate(model, task).task_results[0].get_score() for model in (ours, theirs)]

    assert ours.mteb_model_meta.similarity_fn_name.value == name
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_vectors_are_compared_as_sentence_transformers_compares_them(name: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from stella_mteb import load_encoder

    folder = minilm_with(tmp_path / "minilm", similarity_fn_name=name)
    ours, theirs = load_encoder(str(folder), device="cpu"), SentenceTransformer(str(folder), device="cpu")
    one, two = np.random.default_rng(0).normal(size=(2, 3, 384)).astype(np.float32)

    np.testing.assert_allclose(ours.similarity(one, two), theirs.similarity(one, two), rtol=1e-5, atol=1e-5)
    expected = theirs.similarity_pairwise(one, two)
    np.testing.assert_allclose(ours.similarity_pairwise(one, two), expected, rtol=1e-5, atol=1e-5)


def test_a_yaml_may_choose_the_similarity_and_has_results_of_its_own(tmp_path: Path) -> None:
    from stella_mteb import load_encoder

    minilm_with(tmp_path / "minilm", similarity_fn_name="dot")
    (tmp_path / "mine.yaml").write_text("name: mine\npath: minilm\nsimilarity: cosine\n")
    plain = load_encoder(str(tmp_path / "minilm"), device="cpu")
    chosen = load_encoder(str(tmp_path / "mine.yaml"), device="cpu")

    assert chosen.mteb_model_meta.similarity_fn_name.value == "cosine"
    assert chosen.mteb_model_meta.experiment_name != plain.mteb_model_meta.experiment_name


# ------------------------------------------------------------------------------------- MTEB's older runner


@pytest.mark.fault(
    15, "each has its own results with MTEB's older runner too, which distinguishes only model and revision"
)
def test_mtebs_older_runner_keeps_the_results_of_two_dimensions_apart(stella_folder: Path, tmp_path: Path) -> None:
    """sentence-transformers #3375 and most tutorials: mteb.MTEB(tasks).run(model, output_folder=...)."""
    import mteb

    from stella_mteb import load_encoder

    write_some_summaries(tmp_path / "some.jsonl", clips=12)
    task = find(f"VideoSummarySTS={tmp_path / 'some.jsonl'}")
    files = []
    for dimension in (256, 1024, 256):
        encoder = load_encoder(f"{stella_folder}@{dimension}", device="cpu")
        (result,) = mteb.MTEB(tasks=[task]).run(encoder, output_folder=str(tmp_path), verbosity=0)
        expected = evaluate(encoder, task).task_results[0]
        assert result.get_score() == pytest.approx(expected.get_score(), abs=1e-6)
        files.append(len(list(tmp_path.rglob("VideoSummarySTS.json"))))
    assert files == [1, 2, 2]


def test_mtebs_older_runner_keeps_the_folder_of_other_models(tmp_path: Path) -> None:
    import mteb

    from stella_mteb import load_encoder

    load_encoder("all_minilm_l6_v2", device="cpu")
    model = mteb.get_model("mteb/baseline-random-encoder")
    mteb.MTEB(tasks=[mteb.get_task("VideoSummarySTS")]).run(model, output_folder=str(tmp_path), verbosity=0)

    (path,) = tmp_path.rglob("VideoSummarySTS.json")
    assert "experiments" not in path.parts
