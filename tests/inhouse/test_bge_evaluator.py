"""BGE-en-ICL with Stella's interface: evaluator, judge, task and `verify`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.layouts.bge import bge_yaml, write_bge
from stella_mteb import BgeIclEvaluator, BgeIclModel, StellaEvaluator
from stella_mteb.diagnostics.model_checks import check_model
from stella_mteb.errors import ConfigError
from stella_mteb.models.config import Goldens, load_config
from stella_mteb.models.resolve import resolve, resolve_config
from stella_mteb.prompts.examples import frame, read_examples
from stella_mteb.prompts.profiles import judge_prompt
from tests.conftest import Call

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "tasks/video-summary-sts/icl_examples/VideoSummarySTS.json"
PAIRS = [("A man opens a door.", "Someone opens a door.", "001"), ("Rain falls.", "A dog sleeps.", "002")]


def cosines(results: Any) -> list[float]:
    assert all(result.success for result in results), results
    return [result.similarity_score.cosine_similarity for result in results]


# ---------------------------------------------------------------------------------------------------- the evaluator


def test_stellas_configuration_works_for_both_evaluators(
    stella_folder: Path, bge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "encoders_config.yaml"
    config.write_text(
        f"encoder:\n  name: stella-en-1.5b-v5\n  path: {stella_folder}\n  type: stella\n  batch_size: 16\n"
        "  additional_params: {normalize_embeddings: true, embedding_dimension: 8192, prompt_type: s2s}\n"
        "processing: {device: cpu}\n"
    )
    monkeypatch.setattr(BgeIclModel, "default", str(bge))
    found = {}
    for evaluator_class in (StellaEvaluator, BgeIclEvaluator):
        evaluator = evaluator_class(config)
        evaluator.initialize()
        found[evaluator_class] = evaluator.evaluate_batch(PAIRS)

    metadata = {kind: results[0].similarity_score.metadata for kind, results in found.items()}
    assert cosines(found[StellaEvaluator]) != cosines(found[BgeIclEvaluator])
    assert metadata[StellaEvaluator]["embedding_dimension"] == 8192
    assert metadata[BgeIclEvaluator]["model"] == "local/tiny_bge"
    assert [record.levelname for record in caplog.records if "configuration is Stella's" in record.message] == [
        "WARNING"
    ]


def test_a_score_is_the_cosine_with_the_examples_of_the_video_task(bge: Path) -> None:
    evaluator = BgeIclEvaluator({"encoder": {"path": str(bge)}, "processing": {"device": "cpu"}})
    evaluator.initialize()

    prompt = frame("Retrieve semantically similar text.", read_examples(EXAMPLES), None)
    first, second = resolve(str(bge)).load("cpu").encode([PAIRS[0][0], PAIRS[0][1]], prompt)
    result = evaluator.evaluate_single(*PAIRS[0])

    assert cosines([result]) == pytest.approx([float(first @ second)], abs=1e-6)
    assert result.similarity_score.metadata["examples"] == 3


def test_shots_sets_the_number_of_examples(bge: Path) -> None:
    prompts = {shots: BgeIclModel(str(bge), shots=shots).prompt for shots in (0, 2, None)}

    assert [prompts[shots].count("<response>") for shots in (0, 2, None)] == [0, 2, 3]
    assert prompts[None].startswith(prompts[2].rpartition("<instruct>")[0])


@pytest.mark.fault(28, "an example among the scored texts is refused; the error names it")
def test_a_summary_that_equals_an_example_is_refused(bge: Path) -> None:
    evaluator = BgeIclEvaluator({"encoder": {"path": str(bge)}, "processing": {"device": "cpu"}})
    evaluator.initialize()
    shown = read_examples(EXAMPLES)[0].response

    with pytest.raises(ConfigError, match=r"the example 'At first light a pair of mountaineers"):
        evaluator.evaluate_single("A text.", shown, "003")


def test_a_model_without_few_shot_prompts_is_refused() -> None:
    with pytest.raises(ConfigError, match="all_minilm_l6_v2 is not BGE-en-ICL"):
        BgeIclModel("all_minilm_l6_v2")


def test_a_folder_inside_one_called_stella_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_bge(tmp_path / "stella-mteb" / "bge-en-icl")

    model = BgeIclModel(str(folder), device="cpu")

    assert model.settings.path == str(folder)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("modules", [True, False])
def test_a_folder_is_recognised_with_and_without_modules_json(tmp_path: Path, modules: bool) -> None:
    folder = write_bge(tmp_path / "model", modules=modules)
    declared = resolve(str(bge_yaml(tmp_path / "declared.yaml", folder))).load("cpu")

    recognised = resolve(f"{folder}[fp32,max_length=64]")
    texts, prompt = ["a man", "two children build a tower"], frame("Retrieve it.", (), 0)

    assert recognised.prompts == "icl"
    np.testing.assert_array_equal(recognised.load("cpu").encode(texts, prompt), declared.encode(texts, prompt))


def test_another_mistral_is_not_recognised_as_bge_en_icl(tmp_path: Path) -> None:
    folder = write_bge(tmp_path / "model")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<response>"]
    path.write_text(json.dumps(content))

    assert resolve(str(folder)).config.few_shot is None


# --------------------------------------------------------------------------------------------- judge, task, examples


def test_the_examples_of_the_video_task_are_in_none_of_its_pairs() -> None:
    rows = [json.loads(line) for line in (ROOT / "tasks/video-summary-sts/pairs.jsonl").read_text().splitlines()]
    scored = {row[key].casefold() for row in rows for key in ("reference", "candidate")}
    words = [set(text.split()) for text in scored]
    for one in read_examples(EXAMPLES):
        for text in (one.query, one.response):
            own = set(text.casefold().split())

            assert text.casefold() not in scored
            # A shared story would share more than the function words.
            assert max(len(own & other) / len(own | other) for other in words) < 0.3


def test_both_models_judge_and_run_the_video_task(stella_folder: Path, bge: Path, tmp_path: Path, call: Call) -> None:
    from stella_mteb.cli.demo import write_judge_inputs

    references, predictions = write_judge_inputs(tmp_path / "in")
    models = ["-m", f"{stella_folder}@256", "-m", bge, "--output", tmp_path / "out", "--offline"]

    judged = call("judge", "--references", references, "--predictions", predictions, *models)
    ran = call("run", "-t", "VideoSummarySTS", *models)

    assert (judged[0], ran[0]) == (0, 0), judged[2] + ran[2]
    judges = sorted((tmp_path / "out/aggregated").iterdir())
    identities = [json.loads((folder / "faithful.json").read_text())["judge"] for folder in judges]
    assert sorted(identity["prompt"].count("<response>") for identity in identities) == [0, 3]
    results = list((tmp_path / "out/results").rglob("VideoSummarySTS.json"))
    assert len(results) == 2
    settings = "".join(path.read_text() for path in (tmp_path / "out/results").rglob("run_settings.jsonl"))
    assert "3 of 3 examples of VideoSummarySTS (bundled with the task)" in settings


def test_few_shot_prompts_do_not_reach_a_judge_of_queries_or_documents(bge: Path) -> None:
    prompts = load_config(bge).prompts

    assert judge_prompt("icl", prompts, "s2p").text == prompts.s2p
    assert judge_prompt("icl", prompts, "none").text == ""


# ----------------------------------------------------------------------------------------------------------- verify


def checked(bge: Path, similarity: list[list[float]]) -> dict[str, Any]:
    bundled = load_config(ROOT / "configs/bge_en_icl.yaml").goldens
    goldens = bundled.model_copy(update={"dimension": 64, "similarity": similarity, "tokens": []})
    config = load_config(bge).model_copy(update={"goldens": goldens})
    return {check.name: check for check in check_model(resolve_config(config), "cpu")}


def test_verify_compares_a_copy_with_flagembeddings_similarities(bge: Path) -> None:
    """The tutorial gives the examples and no instruction; so does FlagEmbedding here, on the same tiny weights."""
    pytest.importorskip(
        "FlagEmbedding", reason="needs FlagEmbedding, and transformers 5.23 or older: pip install FlagEmbedding"
    )
    from FlagEmbedding import FlagICLModel

    goldens = load_config(ROOT / "configs/bge_en_icl.yaml").goldens
    assert isinstance(goldens, Goldens)
    assert goldens.query_prompt is not None
    flag = FlagICLModel(
        load_config(bge).path, use_fp16=False, devices="cpu", query_max_length=64, passage_max_length=64
    )
    shown = [part.removeprefix("<instruct>") for part in goldens.query_prompt.removesuffix("\n\n").split("\n\n")]
    examples = []
    for part in shown:
        instruct, _, rest = part.partition("\n<query>")
        query, _, response = rest.partition("\n<response>")
        examples.append({"instruct": instruct, "query": query, "response": response})
    flag.set_examples(examples)
    matrix = flag.encode_queries(goldens.queries) @ flag.encode_corpus(goldens.documents).T
    tight = checked(bge, matrix.tolist())["published similarities"]
    wrong = checked(bge, (matrix * 0.98).tolist())["published similarities"]

    assert len(examples) == 2
    assert float(tight.detail.split()[2]) < 1e-5
    assert (tight.status, wrong.status) == ("pass", "fail")


def test_verify_checks_the_opening_token_and_causal_attention(bge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = checked(bge, [[0.0, 0.0], [0.0, 0.0]])

    assert checks["opening token"].status == checks["causal attention"].status == "pass"

    from transformers import MistralConfig

    monkeypatch.setattr(MistralConfig, "is_causal", False, raising=False)
    assert checked(bge, [[0.0, 0.0], [0.0, 0.0]])["causal attention"].status == "fail"


def test_the_bundled_goldens_are_the_tutorials_figures() -> None:
    goldens = load_config(ROOT / "configs/bge_en_icl.yaml").goldens

    assert goldens is not None
    assert goldens.similarity == [[0.6064, 0.302], [0.257, 0.5366]]
    assert [golden.ids for golden in goldens.tokens] == [[1, 28643, 2], [1, 315, 2016, 5599, 5168, 304, 307, 12312, 2]]
