"""The NLI cross-encoder, compared with sentence-transformers' CrossEncoder on tiny weights in the real layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stella_mteb.errors import ConfigError
from stella_mteb.judge.judge import TextVectors, score
from stella_mteb.judge.nli import NliModel
from tests.conftest import Call
from tests.support.judging import GIVEN, PREDICTIONS, REFERENCES
from tests.support.pages import data_of, read, rows_of

LABELS = {0: "contradiction", 1: "entailment", 2: "neutral"}
PAIRS = [
    ("A man opens a door.", "A man closes a door."),
    ("Three boats leave the harbour. Nobody waves them goodbye.", "A cook burns the soup!"),
    ("Rain.", "It rains on the street and on the two cooks who argue about salt."),
]


@pytest.fixture(scope="session")
def nli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("nli")
    words = {word.strip(".!,").lower() for text in REFERENCES.values() for word in text.split()}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "!", *sorted(words)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, id2label=LABELS, label2id={v: k for k, v in LABELS.items()}, initializer_range=1.0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def with_labels(folder: Path, copy: Path, *labels: str) -> Path:
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    config = json.loads((copy / "config.json").read_text())
    config |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_a_contradiction_is_the_mean_of_both_directions_as_cross_encoder_gives_them(nli_folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(nli_folder), device="cpu")
    there, back = (
        theirs.predict(pairs, apply_softmax=True)[:, 0] for pairs in (PAIRS, [(other, one) for one, other in PAIRS])
    )

    found = NliModel(nli_folder, "cpu").contradiction(PAIRS)

    assert np.ptp(found) > 0.01
    assert found == pytest.approx((there + back) / 2, abs=1e-5)


def test_the_output_is_found_by_its_name(nli_folder: Path, tmp_path: Path) -> None:
    turned = with_labels(nli_folder, tmp_path, "ENTAILMENT", "neutral", "CONTRADICTION")

    ours, other = NliModel(nli_folder, "cpu"), NliModel(turned, "cpu")

    assert not np.allclose(ours.contradiction(PAIRS), other.contradiction(PAIRS))
    assert ours.revision != other.revision


@pytest.mark.parametrize(
    ("labels", "said"),
    [(("LABEL_0", "LABEL_1", "LABEL_2"), "no output is named contradiction, only label_0, label_1, label_2")],
)
def test_a_model_without_that_output_is_refused(
    labels: tuple[str, ...], said: str, nli_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        NliModel(with_labels(nli_folder, tmp_path, *labels), "cpu")


def test_a_folder_without_a_model_or_safetensors_is_refused_by_name(nli_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: has no config\.json"):
        NliModel(tmp_path / "nowhere")
    copy = with_labels(nli_folder, tmp_path, *LABELS.values())
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        NliModel(copy)


def test_a_texts_figure_is_one_less_the_worst_of_its_matched_sentences(nli_folder: Path, minilm) -> None:
    nli = NliModel(nli_folder, "cpu")
    reference, candidate = "Three boats leave the harbour. Nobody waves.", "Nobody waves. Three boats leave."
    vectors = TextVectors(minilm, "", [reference, candidate])

    found = score(vectors.read(reference), vectors.read(candidate), nli)

    pairs = [("Three boats leave the harbour.", "Three boats leave."), ("Nobody waves.", "Nobody waves.")]
    assert found.nli == pytest.approx(1 - nli.contradiction(pairs).max())
    assert score(vectors.read(reference), vectors.read(candidate)).nli is None


def test_a_pair_is_computed_once(nli_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nli = NliModel(nli_folder, "cpu")
    first = nli.contradiction(PAIRS)
    monkeypatch.setattr(nli._model, "forward", None)

    assert list(nli.contradiction([PAIRS[2], PAIRS[0], PAIRS[2]])) == [first[2], first[0], first[2]]


def test_the_page_marks_what_the_model_finds_more_likely_a_contradiction_than_not(
    nli_folder: Path, tmp_path: Path, call: Call, minilm
) -> None:
    (tmp_path / "refs.json").write_text(json.dumps({clip: list(texts) for clip, texts in GIVEN.items()}))
    (tmp_path / "good.json").write_text(json.dumps(PREDICTIONS["good"]))
    code, _, err = call(
        "judge", "--references", tmp_path / "refs.json", "--predictions", tmp_path / "good.json", "-m",
        "all_minilm_l6_v2", "--output", tmp_path / "out", "--nli", nli_folder, "--html", tmp_path / "page.html",
    )  # fmt: skip
    assert code == 0, err
    page, nli = (tmp_path / "page.html").read_text(), NliModel(nli_folder, "cpu")
    marked, expected = {}, {}
    data = data_of(page)
    for one in data["models"][0]:
        known, own = data["references"][one["reference"]]["texts"], one["texts"]
        cosines = minilm.encode(own, "") @ minilm.encode(known, "").T
        likely = nli.contradiction([(known[row.argmax()], text) for row, text in zip(cosines, own, strict=True)]) > 0.5
        unmatched = one["marks"].get("unmatched", [])
        marked[one["clip"]] = one["marks"].get("disputed", [])
        expected[one["clip"]] = [i for i, yes in enumerate(likely) if yes and i not in unmatched]

    assert marked == expected
    assert 0 < sum(map(len, marked.values())) < sum(len(one["texts"]) for one in data["models"][0])
    row = rows_of(read(page).all("table", id="ranking-table")[0])[0]
    means = json.loads((tmp_path / "out/aggregated/all_minilm_l6_v2/good.json").read_text())
    assert row[-3] == f"{means['nli_stats']['mean']:.3f}"


def test_judge_writes_the_column_and_refuses_to_mix_it_with_results_without(
    nli_folder: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "refs.json").write_text(json.dumps({clip: list(texts) for clip, texts in GIVEN.items()}))
    (tmp_path / "good.json").write_text(json.dumps(PREDICTIONS["good"]))
    asked = ["judge", "--references", tmp_path / "refs.json", "--predictions", tmp_path / "good.json",
             "-m", "all_minilm_l6_v2", "--output", tmp_path / "out", "--cache", tmp_path / "cache"]  # fmt: skip

    assert call(*asked, "--nli", nli_folder)[0] == 0
    pairs = json.loads((tmp_path / "out/pairs/all_minilm_l6_v2/good.json").read_text())
    means = json.loads((tmp_path / "out/aggregated/all_minilm_l6_v2/good.json").read_text())
    code, _, err = call(*asked)

    assert means["nli_stats"]["mean"] == pytest.approx(np.mean([pair["nli"] for pair in pairs]))
    assert 0 < means["nli_stats"]["mean"] < 1
    assert means["judge"]["nli"].startswith("local-")
    assert code == 2
    assert "judged with different settings (nli)" in err
