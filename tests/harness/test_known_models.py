"""A model of MTEB's registry gets the prompts of MTEB's own wrapper."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from stella_mteb.errors import ConfigError
from stella_mteb.harness.known_models import (
    BY_INSTRUCTION,
    LOADERS,
    TAKEN_OVER,
    WITHOUT_EFFECT,
    express,
    given_to_wrapper,
    known_config,
)
from stella_mteb.harness.registry import NEWEST_TESTED, side_of, task_info
from stella_mteb.models.config import ModelConfig
from stella_mteb.prompts.profiles import choose

NOT_EXPRESSED = {
    "llamaindex/vdr-2b-multi-v1": "its template contains the literal text {instruction}",
    "Octen/Octen-Embedding-4B-INT8": "its setting embed_dim is not supported",
    "Octen/Octen-Embedding-8B-INT8": "its setting embed_dim is not supported",
    "Sailesh97/Hinvec": "its entry has add_eos_token, which its loader",
}
"""Models of the two wrappers that are refused, and why."""


class Recorder(SentenceTransformer):
    """sentence-transformers without weights; records the prompt of `encode`."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.prompts: dict[str, Any] = {"query": "", "document": ""}  # as of a folder without any
        self.default_prompt_name = None

    def encode(self, inputs: Any, *, prompt: str | None = None, prompt_name: str | None = None, **_: Any) -> Any:
        self.prompt = self._resolve_prompt(prompt, prompt_name) or ""
        return torch.zeros(len(inputs), 1)


@functools.cache
def loader_of_texts() -> Any:
    from datasets import Dataset
    from torch.utils.data import DataLoader

    return DataLoader(Dataset.from_dict({"text": ["a cat sits on a mat"]}))


def mteb_wrapper(name: str) -> Any:
    """MTEB's own wrapper with the settings of the registry, around a recorder."""
    meta = MODEL_REGISTRY[name]
    given = given_to_wrapper(meta)
    if LOADERS[meta.loader.__name__] == BY_INSTRUCTION:
        made = object.__new__(InstructSentenceTransformerModel)
        made.instruction_template = given.get("instruction_template")
        made.apply_instruction_to_passages = given.get("apply_instruction_to_passages", True)
        made.prompts_dict = given.get("prompts_dict")
        made.model = Recorder()
        return made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(meta), "from_sentence_transformer_model", lambda _: meta)
        return SentenceTransformerEncoderWrapper(Recorder(), model_prompts=given.get("model_prompts"))


def tasks() -> list[Any]:
    """Return the first tasks of every task type with each form of instruction."""
    found: dict[Any, Any] = {}
    for task in mteb.get_tasks(modalities=["text"], exclusive_modality_filter=True, exclude_aggregate=True):
        prompt = task.metadata.prompt
        form = tuple(sorted(prompt)) if isinstance(prompt, dict) else type(prompt)
        found.setdefault((task.metadata.type, form), task)
    return [task for task in found.values() if task.metadata.name != "TERRa.V2"]


def prompt_types(task: Any) -> list[PromptType | None]:
    from mteb.abstasks import AbsTaskRetrieval

    return [PromptType.query, PromptType.document] if isinstance(task, AbsTaskRetrieval) else [None]


def differences(name: str, config: ModelConfig, some: list[Any]) -> dict[Any, tuple[str, str]]:
    wrapper, wrong = mteb_wrapper(name), {}
    for task in some:
        for prompt_type in prompt_types(task):
            wrapper.encode(
                loader_of_texts(), task_metadata=task.metadata, hf_split="", hf_subset="", prompt_type=prompt_type
            )
            info, side = task_info(task.metadata), side_of(prompt_type)
            ours = choose(config.prompts.profile, config.prompts, info, side).text
            if ours != wrapper.model.prompt:
                wrong[info.name, side] = (ours, wrapper.model.prompt)
    return wrong


@pytest.mark.filterwarnings("ignore")
def test_every_model_of_the_registry_has_mtebs_prompts_on_every_task_type() -> None:
    some, wrong, compared = tasks(), {}, 0
    for name, meta in MODEL_REGISTRY.items():
        if getattr(meta.loader, "__name__", "") in LOADERS and name not in NOT_EXPRESSED:
            compared += 1
            if found := differences(name, express(meta), some):
                wrong[name] = found

    assert len({task.metadata.type for task in some}) >= 10
    assert compared > 400
    assert wrong == {}


# ---------------------------------------------------------------------------------------------------- refused models


@pytest.mark.parametrize(("name", "why"), NOT_EXPRESSED.items())
def test_an_unsupported_model_is_refused_by_name_with_the_command_that_runs_it(name: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        known_config(name)

    assert str(error.value).startswith(f"{name}: {why}")
    assert f"`stella-mteb mteb run -m {name} -t TASK`" in str(error.value)


def test_another_loader_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="MTEB loads it with NomicWrapper"):
        known_config("nomic-ai/nomic-embed-text-v1.5")


def test_an_unknown_setting_of_the_registry_is_refused() -> None:
    meta = MODEL_REGISTRY["intfloat/e5-small-v2"]
    later = meta.model_copy(update={"loader_kwargs": {**meta.loader_kwargs, "pooling_temperature": 2}})

    with pytest.raises(ConfigError, match="its setting pooling_temperature is not supported"):
        express(later)


def test_a_name_that_the_registry_does_not_know_is_none() -> None:
    assert known_config("nobody/nothing") is None


def test_every_setting_of_the_two_wrappers_is_taken_over_without_effect_or_refused() -> None:
    """Every listed model is in the registry, so that the table is correct."""
    nested = {"model_kwargs", "config_kwargs", "tokenizer_kwargs", "processor_kwargs"}
    used: set[str] = set()
    for meta in MODEL_REGISTRY.values():
        if getattr(meta.loader, "__name__", "") in LOADERS:
            used |= meta.loader_kwargs.keys() - nested
            used |= {key for name in nested for key in meta.loader_kwargs.get(name, {})}

    assert used - TAKEN_OVER.keys() - WITHOUT_EFFECT.keys() == {"embed_dim"}
    unused = (TAKEN_OVER.keys() | WITHOUT_EFFECT.keys()) - used
    assert not unused or mteb.__version__ != NEWEST_TESTED, unused  # older registries use fewer settings


def test_the_table_in_the_documents_is_that_of_this_mteb() -> None:
    """Read the registry in a separate process, because `register()` adds our models to it."""
    root = Path(__file__).parents[2]
    documented = (root / "docs/registry.md").read_text()
    if f"from mteb {mteb.__version__}." not in documented:
        pytest.skip("docs/registry.md was made from another version of mteb")
    command = [sys.executable, "-m", "tests.support.registry_page"]

    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout == documented


# ---------------------------------------------------------------------------------------------- settings that are used


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("intfloat/e5-mistral-7b-instruct", "dtype", "float16"),
        ("intfloat/e5-mistral-7b-instruct", "add_eos_token", True),
        ("intfloat/e5-mistral-7b-instruct", "add_bos_token", True),
        ("GritLM/GritLM-7B", "include_prompt", False),
        ("nvidia/Nemotron-3-Embed-1B-BF16", "max_length", 4096),
        ("codefuse-ai/C2LLM-0.5B", "max_length", 2048),
        ("iara-project/BERTimbau-large-matryoshka-sts-pt", "matryoshka", [64, 128, 256, 512, 1024]),
    ],
)
def test_settings_of_the_registry_are_in_the_config(name: str, key: str, value: Any) -> None:
    assert getattr(known_config(name), key) == value


def test_the_revision_is_that_of_the_registry() -> None:
    config = known_config("intfloat/e5-small-v2")

    assert config is not None and config.hub is not None
    assert (config.full_name, config.hub.revision) == (
        "intfloat/e5-small-v2",
        "dca8b1a9dae0d4575df2bf423a5edb485a431236",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged MiniLM with its own prompt."""
    from stella_mteb.models.resolve import resolve

    copy = tmp_path / "mine"
    shutil.copytree(resolve("all_minilm_l6_v2").folder, copy)
    declared = {"prompts": {"query": "own query: ", "STS": "own sts: "}, "default_prompt_name": None}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(declared))
    return copy


@pytest.fixture(params=["spec", "yaml"])
def as_e5(folder: Path, request: pytest.FixtureRequest) -> str:
    """A spec that runs the folder with the registry's settings of e5."""
    if request.param == "spec":
        return f"{folder}[as=intfloat/e5-small-v2]"
    (folder.parent / "mine.yaml").write_text("name: mine\npath: mine\nregistered_as: intfloat/e5-small-v2\n")
    return str(folder.parent / "mine.yaml")


def test_a_folder_runs_as_the_registry_says_of_a_name(as_e5: str, folder: Path) -> None:
    from mteb.models import ModelMeta

    from stella_mteb import load_encoder

    encoder = load_encoder(as_e5, device="cpu")
    theirs = SentenceTransformerEncoderWrapper(
        str(folder), device="cpu", model_prompts=MODEL_REGISTRY["intfloat/e5-small-v2"].loader_kwargs["model_prompts"]
    )
    assert isinstance(encoder.mteb_model_meta, ModelMeta)
    assert encoder.mteb_model_meta.name == "intfloat/e5-small-v2"
    assert encoder.mteb_model_meta.revision.startswith("local-")
    for task in (mteb.get_task("SciFact"), mteb.get_task("STSBenchmark")):
        for prompt_type in prompt_types(task):
            given = {"task_metadata": task.metadata, "hf_split": "", "hf_subset": "", "prompt_type": prompt_type}
            expected = theirs.encode(loader_of_texts(), **given)
            np.testing.assert_allclose(encoder.encode(loader_of_texts(), **given), expected, atol=1e-5)
    assert encoder.prompt_for(mteb.get_task("SciFact").metadata, PromptType.document).text == "passage: "
    assert encoder.prompt_for(mteb.get_task("STSBenchmark").metadata, None).text == ""


def test_settings_of_a_yaml_override_the_registry(folder: Path) -> None:
    from stella_mteb import load_encoder

    path = folder.parent / "mine.yaml"
    path.write_text(
        "name: mine\npath: mine\nregistered_as: intfloat/e5-small-v2\nprompts: {profile: own, own: {query: 'q: '}}\n"
    )
    encoder = load_encoder(str(path), device="cpu")

    assert encoder.prompt_for(mteb.get_task("SciFact").metadata, PromptType.query).text == "q: "


def test_the_same_folder_as_another_model_is_another_run(folder: Path) -> None:
    from stella_mteb.harness.adapter import load_encoder

    plain = load_encoder(str(folder), device="cpu").experiment
    registered = load_encoder(f"{folder}[as=intfloat/e5-small-v2]", device="cpu").experiment

    assert plain["prompts"] != registered["prompts"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{}[as=nobody/nothing]", "mine is configured to run as 'nobody/nothing', which is not in MTEB's registry"),
        ("{}[as=nothing]", "unknown setting 'as=nothing'; .* as=ORGANISATION/NAME"),
        ("nobody/nothing[as=intfloat/e5-small-v2]", "needs a folder or a YAML, but 'nobody/nothing' is neither"),
    ],
)
def test_a_name_that_is_not_registered_is_refused(folder: Path, spec: str, says: str) -> None:
    from stella_mteb.harness.adapter import load_encoder

    with pytest.raises(ConfigError, match=says):
        load_encoder(spec.format(folder), device="cpu")


def test_without_mteb_a_registered_name_is_not_guessed(folder: Path) -> None:
    from stella_mteb.models.resolve import resolve

    with pytest.raises(ConfigError, match="to run as intfloat/e5-small-v2 of MTEB's registry, which is not used here"):
        resolve(f"{folder}[as=intfloat/e5-small-v2]")
