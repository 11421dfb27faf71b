from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.conftest import RATED_PAIRS, Call

SCRIPT = Path(sys.executable).with_name("stella-mteb")
COMMANDS = [
    "bench",
    "compare",
    "demo",
    "judge",
    "rank",
    "models",
    "tasks",
    "validate",
    "verify",
    "doctor",
    "fetch",
    "run",
    "submit",
]
GROUPS = {"cache": ["ls", "prune", "verify"]}
HEAVY = ["torch", "mteb", "transformers", "pydantic", "numpy"]
TITLE = "\x1b]0;owned\x07"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
REFERENCES = {"001": "A man opens a red door.", "002": "Two boats leave the harbour at dawn."}
PREDICTIONS = {
    "copy": REFERENCES,
    "near": {"001": "A man opens a door.", "002": "At dawn two ships leave the port."},
    "far": {"001": "The stock market fell on Monday.", "002": "She likes to cook noodles."},
}


def write_judge_inputs(folder: Path, predictions: dict[str, dict[str, str]] = PREDICTIONS) -> list[object]:
    """The files of a small `judge` run, and the arguments that name them."""
    (folder / "predictions").mkdir(parents=True)
    rows = [{"id": clip, "summary": text} for clip, text in REFERENCES.items()]
    (folder / "references.json").write_text(json.dumps(rows))
    for name, texts in predictions.items():
        (folder / "predictions" / f"{name}.json").write_text(json.dumps(texts))
    return ["--references", folder / "references.json", "--predictions", folder / "predictions"]


def write_task(folder: Path, rows: list[Any] = RATED_PAIRS, more: str = "") -> Path:
    keys = ("left", "right", "rating")
    lines = [row if isinstance(row, str) else json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    (folder / "own.jsonl").write_text("\n".join(lines))
    (folder / "own.yaml").write_text(
        "name: OwnCliSTS\ntype: STS\ndata: own.jsonl\n"
        f"columns: {{sentence1: left, sentence2: right, score: rating}}\n{more}"
    )
    return folder / "own.yaml"


def sentence_cosines(first: list[str], second: list[str]) -> list[float]:
    """Cosines of the packaged model by sentence-transformers itself."""
    from sentence_transformers import SentenceTransformer

    from stella_mteb.models.resolve import resolve

    model = SentenceTransformer(str(resolve("all_minilm_l6_v2").folder), device="cpu")
    vectors = model.encode([*first, *second], normalize_embeddings=True)
    return [float(np.dot(a, b)) for a, b in zip(vectors[: len(first)], vectors[len(first) :], strict=True)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


# ----------------------------------------------------------------------------------------------------------- run


def test_run_scores_a_users_task_and_keeps_the_result_on_a_second_run(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.harness import pace

    monkeypatch.setattr(pace, "_SECONDS", 0.1)
    arguments = ["run", "-m", "all_minilm_l6_v2", "-t", write_task(tmp_path), "--output", tmp_path / "out"]

    import mteb  # noqa: F401 -- makes its folder when it is imported

    before = contents(tmp_path)
    plan = call(*arguments, "--dry-run", "--format", "json")
    assert contents(tmp_path) == before
    first = call(*arguments, "--format", "json")
    second = call(*arguments, "--format", "json")
    plan_after = call(*arguments, "--dry-run", "--format", "json")

    left, right, gold = (list(column) for column in zip(*RATED_PAIRS, strict=True))
    expected = spearmanr(sentence_cosines(left, right), gold).statistic
    (row,), (again,) = json.loads(first[1]), json.loads(second[1])
    assert list(row) == ["model", "task", "main score", "status", "seconds", "encoding", "error"]
    assert (row["model"], row["task"], row["status"]) == ("all_minilm_l6_v2", "OwnCliSTS", "done")
    assert row["main score"] == pytest.approx(expected, abs=1e-6)
    assert again["main score"] == pytest.approx(expected, abs=1e-6)
    assert again["status"] == "kept"
    assert [json.loads(out)[0]["status"] for _, out, _ in (plan, plan_after)] == ["to run", "on disk"]
    assert [code for code, *_ in (plan, first, second, plan_after)] == [0, 0, 0, 0]


def test_a_dry_run_prints_a_forecast_and_writes_nothing(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.harness import pace

    monkeypatch.setattr(pace, "_SECONDS", 0.1)
    arguments = ["run", "-m", "all_minilm_l6_v2", "-b", "stella-video", "-t", "STS17", "--dry-run", "--output"]

    code, out, err = call(*arguments, tmp_path / "out", "--format", "csv")
    shown = call(*arguments, tmp_path / "out")[1]

    assert code == 0
    rows = {row["task"]: row for row in csv.DictReader(io.StringIO(out))}
    assert set(rows) == {"VideoSummarySTS", "VideoSummaryRetrieval", "VideoSummaryFaithfulness", "STS17"}
    speed = float(re.search(r"all_minilm_l6_v2: ([\d,]+) tokens/s \(measured", err)[1].replace(",", ""))  # type: ignore[index]
    for row in rows.values():
        assert float(row["encoding"]) == pytest.approx(int(row["tokens"]) / speed, rel=0.01)
    assert (rows["VideoSummarySTS"]["texts"], rows["VideoSummarySTS"]["distinct"]) == ("480", "288")
    assert sorted(rows[name]["stored"] for name in ("VideoSummarySTS", "VideoSummaryFaithfulness")) == ["0", "288"]
    assert "STS17: tokens are estimated as for English; the texts are ara, deu" in err
    assert re.search(r"total \(4 to run\) +11.9k +11.2k ", shown)
    assert f"{tmp_path}/out/results/sentence-transformers__all-MiniLM-L6-v2/8b3219a92973c328" in err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_with_a_known_pace_loads_no_model_and_names_tasks_that_exceed_memory(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.engine import devices
    from stella_mteb.harness import pace
    from stella_mteb.models.resolve import ResolvedModel

    earlier = SimpleNamespace(machine="this one", tokens=50_000, seconds=20.0)
    monkeypatch.setattr(ResolvedModel, "load", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.setattr(pace, "machine", lambda _: "this one")
    monkeypatch.setattr(pace, "read_costs", lambda _: [earlier])

    monkeypatch.setattr(devices, "free_memory", lambda: 5_000_000)
    models = ("-m", "all_minilm_l6_v2", "-m", "all_minilm_l6_v2[bf16]")

    code, out, err = call("run", *models, "-t", "STS12", "-t", "BIOSSES", "--dry-run", "--device", "cpu")

    assert code == 0
    assert "2,500 tokens/s (1 earlier run on this machine)" in err
    sentence = (
        "STS12 will not fit in memory with {}: MTEB holds 9.55MB of vectors and similarities at once, 5MB are free"
    )
    assert [line for line in err.splitlines() if "memory" in line] == [
        sentence.format("all_minilm_l6_v2"), sentence.format("all_minilm_l6_v2[bf16]"),
    ]  # fmt: skip
    assert [line for line in out.splitlines() if line.startswith("all")] == [
        "all_minilm_l6_v2",
        "all_minilm_l6_v2[bf16]",
    ]


def test_a_failed_task_is_exit_code_1_and_the_others_are_printed(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    bad = write_task(tmp_path / "bad", [("same", "text", float(score)) for score in range(3)])
    bad.write_text(bad.read_text().replace("OwnCliSTS", "BadCliSTS"))
    good = write_task(tmp_path)

    code, out, err = call(
        "run",
        "-m",
        "all_minilm_l6_v2",
        "-t",
        bad,
        "-t",
        good,
        "--output",
        tmp_path / "out",
        "--format",
        "json",
    )

    rows = {row["task"]: row for row in json.loads(out)}
    assert code == 1
    assert (rows["BadCliSTS"]["status"], rows["BadCliSTS"]["main score"]) == ("failed", None)
    assert rows["OwnCliSTS"]["status"] == "done"
    assert "task BadCliSTS (test): subset default has no finite main score (got nan)" in err


def test_scores_by_label_are_printed_under_the_table(call: Call, tmp_path: Path) -> None:
    keys = ("reference", "candidate", "score", "fault")
    rows = [dict(zip(keys, (*row, fault), strict=True)) for row, fault in zip(RATED_PAIRS, "ababa", strict=True)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))

    code, out, _ = call(
        "run",
        "-m",
        "all_minilm_l6_v2",
        "-t",
        f"VideoSummarySTS={tmp_path}/own.jsonl",
        "--output",
        tmp_path / "out",
    )

    table = out.partition("by label")[2]
    cells = {line.split()[0]: line.split()[1:3] for line in table.splitlines() if re.match(r"\s*[ab] ", line)}
    assert code == 0
    # Label a: pairs 1, 3 and 5, rated 5, 4 and 1; label b: pairs 2 and 4, rated 2.5 and 0.5.
    assert cells == {"a": ["3", "3.33"], "b": ["2", "1.50"]}


# ----------------------------------------------------------------------------------------------- judge and rank


def test_judge_ranks_models_by_similarity(call: Call, tmp_path: Path) -> None:
    arguments = ["judge", *write_judge_inputs(tmp_path / "in"), "-m", "all_minilm_l6_v2"]
    folders = ["--output", tmp_path / "out", "--cache", tmp_path / "cache"]

    code, out, err = call(*arguments, *folders, "--format", "json")
    rows = json.loads(out)

    # One sentence each, so that coarse, precision and recall are one cosine, and so is their harmonic mean.
    expected = {
        name: np.mean(
            [max(cosine, 0.0) for cosine in sentence_cosines(list(REFERENCES.values()), list(texts.values()))]
        )
        for name, texts in PREDICTIONS.items()
    }
    assert code == 0
    figures = ["rank", "slug", "borda", "mean_hm_cf", "low", "high", "best_rank", "worst_rank", "clips"]
    assert [list(row) for row in rows] == [[*figures, "means", "duels"]] * 3
    assert [row["clips"] for row in rows] == [len(REFERENCES)] * 3
    assert [(row["rank"], row["slug"], row["borda"]) for row in rows] == [
        (1, "copy", 2),
        (2, "near", 1),
        (3, "far", 0),
    ]
    assert {row["slug"]: row["mean_hm_cf"] for row in rows} == pytest.approx(expected, abs=1e-5)
    assert "loading all_minilm_l6_v2" in err
    again = call("rank", tmp_path / "out", "--format", "json")
    assert json.loads(again[1]) == rows
    # The same again comes from the vectors on disk.
    code, out, err = call(*arguments, *folders, "--format", "json")
    assert json.loads(out) == rows
    assert ": 0 encoded (0 tokens" in err


def test_judge_reads_unknown_column_names_given_as_options(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    plain = call(
        "judge",
        *write_judge_inputs(folder),
        "-m",
        "all_minilm_l6_v2",
        "--output",
        tmp_path / "plain",
        "--format",
        "csv",
    )
    coco = [{"image_id": clip, "id": i, "caption": text} for i, (clip, text) in enumerate(REFERENCES.items())]
    (folder / "references.json").write_text(json.dumps({"images": [], "annotations": coco}))
    for path in (folder / "predictions").iterdir():
        rows = [
            {"film": clip, "said": text, "text": "?", "caption": "?"}
            for clip, text in json.loads(path.read_text()).items()
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = ["judge", "--references", folder / "references.json", "--predictions", folder / "predictions"]

    refused = call(*judge, "-m", "all_minilm_l6_v2", "--output", tmp_path / "out")
    read = call(
        *judge,
        "-m",
        "all_minilm_l6_v2",
        "--output",
        tmp_path / "out",
        "--format",
        "csv",
        "--id-column",
        "film",
        "--text-column",
        "said",
    )

    assert refused[0] == 2
    assert "which column has the id? Name it with --id-column: film, said, text, caption" in refused[2]
    assert (read[0], read[1]) == (0, plain[1])


def test_clips_without_a_prediction_are_named(call: Call, tmp_path: Path) -> None:
    inputs = write_judge_inputs(tmp_path / "in", {"one": {"001": "A door.", "002": " ", "999": "Who?"}})

    code, _, err = call("judge", *inputs, "-m", "all_minilm_l6_v2", "--output", tmp_path / "out")

    assert code == 0
    assert "one: 1 clip with an empty prediction, not scored: 002" in err
    assert "one: 1 clip without a reference, left out: 999" in err
    assert "judged one: 1 clip" in err


@pytest.mark.fault(46, "control characters become spaces")
@pytest.mark.parametrize("form", ["table", "json"])
def test_escape_codes_in_the_name_of_a_predictions_file_do_nothing(call: Call, tmp_path: Path, form: str) -> None:
    inputs = write_judge_inputs(tmp_path / "in", {f"evil{TITLE}\x1b[31m": REFERENCES})

    code, out, err = call("judge", *inputs, "-m", "all_minilm_l6_v2", "--output", tmp_path / "out", "--format", form)

    assert code == 0
    assert "evil" in out
    assert not CONTROL.search(out + err)
    assert not CONTROL.search("".join(contents(tmp_path / "out")))


@pytest.mark.fault(46, "control characters become spaces")
def test_escape_codes_in_the_ids_of_clips_do_nothing(call: Call, tmp_path: Path) -> None:
    inputs = write_judge_inputs(tmp_path / "in", {"one": {"001": "A door.", f"x{TITLE}": "Who?"}})

    code, _, err = call("judge", *inputs, "-m", "all_minilm_l6_v2", "--output", tmp_path / "out")

    assert code == 0
    assert "without a reference, left out: x" in err
    assert not CONTROL.search(err)


@pytest.mark.fault(46, "control characters become spaces")
def test_escape_codes_in_an_error_do_nothing(call: Call, tmp_path: Path) -> None:
    inputs = write_judge_inputs(tmp_path / "in", {f"evil{TITLE}": {"no such clip": "text"}})

    code, _, err = call("judge", *inputs, "-m", "all_minilm_l6_v2", "--output", tmp_path / "out")

    assert code == 2
    assert "no id is that of a reference" in err
    assert not CONTROL.search(err)


def test_judging_missing_files_is_exit_code_2_before_a_model_is_resolved(call: Call, tmp_path: Path) -> None:
    code, out, err = call(
        "judge", "--references", tmp_path / "none.json", "--predictions", tmp_path, "-m", "no_such_model"
    )

    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path}/none.json: no such file\n"


def test_ranking_a_folder_without_results_is_exit_code_2(call: Call, tmp_path: Path) -> None:
    code, out, err = call("rank", tmp_path)

    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path}: no aggregated files (<judge>/<model>.json); give the --output folder")


def test_a_model_without_scores_of_all_judges_is_named_and_not_ranked(call: Call, tmp_path: Path) -> None:
    for judge, scores in {"a": {"m": 0.5, "n": 0.4, "o": 0.9}, "b": {"m": 0.2, "n": 0.6}}.items():
        (tmp_path / judge).mkdir()
        for model, mean in scores.items():
            content = {"hybrid_stats": {"hm_cf": {"mean": mean}}}
            (tmp_path / judge / f"{model}.json").write_text(json.dumps(content))

    code, out, err = call("rank", tmp_path, "--format", "csv")

    assert code == 0
    assert out.splitlines() == [
        "rank,slug,borda,mean_hm_cf,low,high,best_rank,worst_rank,clips",
        "1,n,1.0,0.5,,,,,",
        "2,m,1.0,0.35,,,,,",
        ",o,,0.9,,,,,",
    ]
    assert "judges: a, b" in err
    assert "not ranked: o: not every judge has scored it" in err


@pytest.mark.parametrize("form", ["table", "md", "json", "csv"])
def test_a_model_with_predictions_for_one_clip_only_is_not_ranked(call: Call, tmp_path: Path, form: str) -> None:
    predictions = {
        "full": {"001": "A door opens.", "002": "Boats leave a harbour.", "003": "A chef chops onions."},
        "lazy": {"001": "A man opens a red door.", "002": "", "003": " "},
    }
    references = {"001": "A man opens a red door.", "002": "Two boats leave.", "003": "A cook sings."}
    inputs = write_judge_inputs(tmp_path / "in", predictions)
    (tmp_path / "in/references.json").write_text(json.dumps(references))

    code, out, err = call("judge", *inputs, "-m", "all_minilm_l6_v2", "--output", tmp_path / "out", "--format", form)

    assert code == 0
    assert "not ranked: lazy: scored on 1 of 3 clips" in err
    if form == "json":
        full, lazy = json.loads(out)
        assert (full["slug"], full["rank"], full["clips"]) == ("full", 1, 3)
        assert (lazy["slug"], lazy["rank"], lazy["borda"], lazy["clips"]) == ("lazy", None, None, 1)
        assert lazy["mean_hm_cf"] == pytest.approx(1)
        assert lazy["mean_hm_cf"] <= 1
    else:
        assert "clips" in out
        assert out.index("full") < out.index("lazy")


# -------------------------------------------------------------------------------------------------- interruption

# The real command line, with an engine that is slow enough to be caught after some batches.
_SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from stella_mteb.cli.demo import CANDIDATES
from stella_mteb.cli import main
from stella_mteb.engine import devices
from stella_mteb.engine.encoder import TextEncoder
devices.TOKEN_BUDGET["cpu"] = 64
forward = TextEncoder._forward
def slow(self, *arguments):
    pooled = forward(self, *arguments)
    print("batch", file=sys.stderr, flush=True)
    time.sleep(0.3)
    return pooled
TextEncoder._forward = slow
main()
"""


@pytest.mark.fault(3, "exit code 130; the last line is the command that resumes")
def test_the_command_printed_after_an_interruption_encodes_only_the_rest(call: Call, tmp_path: Path) -> None:
    predictions = {
        f"model {i}": {"001": f"A man opens door number {i}. He is seen by {i + 2} cats."} for i in range(40)
    }
    inputs = write_judge_inputs(tmp_path / "in put", predictions)
    arguments = [
        "judge", *inputs, "-m", "all_minilm_l6_v2", "--output", tmp_path / "out", "--cache", tmp_path / "cache",
        "--format", "json",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    while lines.count("batch\n") < 3:
        lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)

    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "interrupted; finished work is on disk" in err
    resume = err.splitlines()[-1].strip()
    assert re.match(r"stella-mteb judge --references '.*/in put/references\.json' ", resume)
    code, out, err = call(*shlex.split(resume)[1:])
    assert code == 0
    texts, encoded, known = map(
        int,
        re.search(r"^(\d+) distinct .*: (\d+) encoded .*, (\d+) from the cache", err, re.MULTILINE).groups(),  # type: ignore[union-attr]
    )
    assert known > 0
    assert texts == encoded + known
    fresh = call(*arguments[:-6], "--output", tmp_path / "out2", "--cache", tmp_path / "cache2", "--format", "json")
    assert [row["slug"] for row in json.loads(out)] == [row["slug"] for row in json.loads(fresh[1])]
    assert [row["mean_hm_cf"] for row in json.loads(out)] == pytest.approx(
        [row["mean_hm_cf"] for row in json.loads(fresh[1])], abs=1e-5
    )


# ------------------------------------------------------------------------------------------------------ dimensions


def mean_scores(output: Path) -> dict[str, float]:
    """Return the main score of each result of the user's task, by the dimension in its path."""
    found = {}
    for path in (output / "results").rglob("OwnCliSTS.json"):
        dimension = re.search(r"embed_dim_(\d+)", str(path))
        assert dimension is not None
        found[dimension[1]] = json.loads(path.read_text())["scores"]["test"][0]["main_score"]
    return found


def test_all_dimensions_are_scored_from_one_pass_into_separate_folders(
    call: Call, stella_folder: Path, tmp_path: Path
) -> None:
    arguments = ["-t", write_task(tmp_path), "--format", "json", "--device", "cpu"]
    texts = {text for first, second, _ in RATED_PAIRS for text in (first, second)}

    code, out, err = call(
        "run", "-m", stella_folder, *arguments, "--output", tmp_path / "out", "--dims", "all", "--cache", tmp_path / "c"
    )

    rows = json.loads(out)
    scores = {row["model"].rpartition("@")[2]: row["main score"] for row in rows}
    assert code == 0
    assert list(scores) == ["256", "768", "1024", "2048", "4096", "6144", "8192"]
    assert mean_scores(tmp_path / "out") == pytest.approx(scores, abs=1e-6)
    assert len(list((tmp_path / "out/results").rglob("OwnCliSTS.json"))) == 7
    assert json.loads(call("cache", "ls", "--cache", tmp_path / "c", "--format", "json")[1])[0]["texts"] == len(texts)
    for dimension in ("256", "8192"):
        alone = call(
            "run", "-m", f"{stella_folder}@{dimension}", *arguments, "--output", tmp_path / f"out{dimension}",
            "--cache", tmp_path / f"c{dimension}",
        )  # fmt: skip
        assert json.loads(alone[1])[0]["main score"] == scores[dimension]
    assert "Main score by dimension" not in out + err


def test_the_closing_table_has_a_column_for_each_dimension_in_ascending_order(
    call: Call, stella_folder: Path, tmp_path: Path
) -> None:
    words = ["boat", "dawn", "cook", "salt", "rain", "street", "dog"]
    rows = [(f"a {a}", f"the {b} and a {a}", i % 11 / 2) for i, (a, b) in enumerate(itertools.permutations(words, 2))]
    arguments = ["run", "-m", stella_folder, "-t", write_task(tmp_path, rows), "--output", tmp_path / "out"]

    code, out, _ = call(*arguments, "--dims", "1024, 256,1024", "--device", "cpu")

    lines = out.partition("Main score by dimension\n")[2].splitlines()
    header = next(line.split() for line in lines if "task" in line)
    cells = next(line.split() for line in lines if "OwnCliSTS" in line)
    scores = mean_scores(tmp_path / "out")
    assert code == 0
    assert header[-3:] == ["task", "256", "1024"]
    assert [float(cell) for cell in cells[-2:]] == pytest.approx([scores["256"], scores["1024"]], abs=1e-4)
    assert cells[-2] != cells[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dims", "512"], "has no head of 512; it has 256, 768, 1024, 2048, 4096, 6144, 8192"),
        (["--dims", "256,x,99"], "has no head of x, 99; it has 256"),
        (["--dims", ""], "must be all, or some of 256, 768"),
        (["@256", "--dims", "1024"], "@256 already has a dimension"),
        (["@256", "--dims", "all"], "@256 already has a dimension"),
        (["--dims", "all", "--no-cache"], "--dims needs the cache"),
        (["--prefill", "--no-cache"], "--prefill needs the cache"),
        (["--cache", "here", "--no-cache"], "--cache needs the cache"),
    ],
)
def test_impossible_dimensions_and_cache_options_are_exit_code_2(
    call: Call, stella_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    from stella_mteb.models.resolve import ResolvedModel

    monkeypatch.setattr(ResolvedModel, "load", lambda *_: pytest.fail("the model was loaded"))
    at = options.pop(0) if options[0].startswith("@") else ""

    code, out, err = call(
        "run", "-m", f"{stella_folder}{at}", "-t", write_task(tmp_path), "--output", tmp_path / "out", *options
    )

    unframed = " ".join(err.replace("│", " ").split())
    assert (code, out) == (2, "")
    assert said.strip() in unframed
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_run_keeps_its_vectors_unless_told_not_to(call: Call, stella_folder: Path, tmp_path: Path) -> None:
    arguments = ["run", "-m", stella_folder, "-t", write_task(tmp_path), "--device", "cpu", "--format", "json"]
    default = Path(os.environ["STELLA_MTEB_CACHE"])

    without = call(*arguments, "--output", tmp_path / "a", "--no-cache")
    assert not default.exists()
    kept = call(*arguments, "--output", tmp_path / "b")
    assert len(list(default.rglob("*.safetensors"))) > 0

    assert [code for code, *_ in (without, kept)] == [0, 0]
    assert json.loads(without[1])[0]["main score"] == json.loads(kept[1])[0]["main score"]


def test_prefill_reports_its_texts_and_changes_no_score(call: Call, stella_folder: Path, tmp_path: Path) -> None:
    arguments = ["run", "-m", stella_folder, "-t", write_task(tmp_path), "--device", "cpu", "--format", "json"]
    texts = {text for first, second, _ in RATED_PAIRS for text in (first, second)}

    plain = call(*arguments, "--output", tmp_path / "a", "--cache", tmp_path / "ca")
    code, out, err = call(*arguments, "--output", tmp_path / "b", "--cache", tmp_path / "cb", "--prefill")
    again = call(*arguments, "--output", tmp_path / "b", "--cache", tmp_path / "cb", "--prefill")

    assert code == 0
    assert json.loads(out)[0]["main score"] == json.loads(plain[1])[0]["main score"]
    assert re.search(rf"prefill: \S+: {2 * len(RATED_PAIRS)} texts of 1 task, {len(texts)} of them encoded", err)
    assert json.loads(again[1])[0]["status"] == "kept"
    assert "prefill:" not in again[2]


def test_truncated_texts_are_reported_with_prefill_too(call: Call, stella_folder: Path, tmp_path: Path) -> None:
    arguments = ["-m", f"{stella_folder}[max_length=32]", "-t", write_task(tmp_path), "--device", "cpu"]

    plain = call("run", *arguments, "--output", tmp_path / "a", "--cache", tmp_path / "ca")[2]
    prefilled = call("run", *arguments, "--output", tmp_path / "b", "--cache", tmp_path / "cb", "--prefill")[2]

    cut = re.search(r"(\d+) texts at max_length", plain)
    assert cut is not None
    assert cut[0] in prefilled


# ---------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.fault(40, "exit code 2 with the usage line")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--nonsense"], "No such option: --nonsense"),
        (["runn"], "No such command 'runn'"),
        (["run", "-t", "VideoSummarySTS"], "Missing option '--model' / '-m'"),
        (["rank"], "Missing argument 'DIR'"),
        (["tasks", "--format", "xml"], "'xml' is not one of"),
        (["run", "-m", "x", "--max-bad-rows", "-1"], "greater than or equal to 0"),
        (
            ["judge", "--references", "r", "--predictions", "p", "-m", "x", "--prompt-type", "s3s"],
            "'s2s', 's2p', 'none'",
        ),
    ],
)
def test_a_wrong_option_is_exit_code_2_without_traceback(call: Call, arguments: list[str], said: str) -> None:
    code, out, err = call(*arguments)

    assert (code, out) == (2, "")
    assert said in err
    assert "stella-mteb" in err.splitlines()[0]
    assert "Traceback" not in err


def test_no_command_shows_the_help(call: Call) -> None:
    code, out, err = call()

    assert code in {0, 2}
    assert re.search("^Usage: .*stella-mteb", out + err)
    assert "judge" in out + err


@pytest.mark.fault(40, "exit code 2 with the nearest name, before any model is loaded")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["-m", "stella_en_1.5B_v6", "-t", "STS12"],
            "unknown model 'stella_en_1.5B_v6'.*stella_en_1.5B_v5",
        ),
        (["-m", "all_minilm_l6_v2@512", "-t", "STS12"], "no head of dimension 512; the heads on disk are 384"),
        (["-m", "all_minilm_l6_v2[fp99", "-t", "STS12"], "The form is NAME"),
        (
            ["-m", "all_minilm_l6_v2[x=1]", "-t", "STS12"],
            "unknown setting 'x=1'; the settings are max_length=N, shots=N and as=",
        ),
        (
            ["-m", "all_minilm_l6_v2", "-t", "VideoSumarySTS"],
            "unknown task 'VideoSumarySTS'.*VideoSummarySTS",
        ),
        (["-m", "all_minilm_l6_v2", "-b", "stella-vidio"], "unknown benchmark 'stella-vidio'"),
        (["-m", "all_minilm_l6_v2", "-t", "STS12", "--prompts", "crad"], "crad.*card"),
        (["-m", "all_minilm_l6_v2", "-t", "STS12", "--device", "gpu9"], "gpu9"),
    ],
)
def test_an_unknown_name_is_exit_code_2_with_the_nearest_name(
    call: Call, tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, out, err = call("run", *arguments, "--output", tmp_path / "out")

    assert (code, out) == (2, "")
    assert re.search(f"^error: .*{said}", err, re.MULTILINE)
    assert "Traceback" not in err


@pytest.mark.fault(39, "exit code 2; all faults are listed, each with file and line")
def test_all_errors_of_a_yaml_are_reported_with_file_and_line(call: Call, tmp_path: Path) -> None:
    model = tmp_path / "model.yaml"
    model.write_text("name: x\npath: .\nbatch_sise: 4\nmax_length: two\n")

    code, out, err = call("verify", "-m", model)

    assert (code, out) == (2, "")
    assert f"{model}:3: unknown key 'batch_sise'" in err
    assert "batch_size" in err
    assert f"{model}:4: " in err


def test_bad_rows_stop_a_run_before_the_model_is_loaded(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.models.resolve import ResolvedModel

    monkeypatch.setattr(ResolvedModel, "load", lambda *_: pytest.fail("the model was loaded"))
    path = write_task(tmp_path, [*RATED_PAIRS, "{"])

    code, out, err = call("run", "-m", "all_minilm_l6_v2", "-t", path, "--output", tmp_path / "out")

    assert (code, out) == (2, "")
    assert f"{tmp_path}/own.jsonl:6: not valid JSON" in err


@pytest.mark.fault(7, "exit code 3 before any model is loaded")
def test_an_unwritable_output_is_exit_code_3_before_encoding(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    code, out, err = call("run", "-m", "all_minilm_l6_v2", "-t", "STS12", "--output", tmp_path / "file" / "out")

    assert (code, out) == (3, "")
    assert f"error: {tmp_path}/file/out: results cannot be written here: Not a directory" in err
    assert "encoding" not in err


def test_verify_prints_failed_checks_and_exits_with_1(call: Call, stella_folder: Path) -> None:
    code, out, err = call("verify", "-m", stella_folder, "--device", "cpu", "--format", "json")

    status = {row["check"]: row["status"] for row in json.loads(out)}
    assert code == 1
    assert (status["published similarities"], status["heads"]) == ("fail", "pass")
    assert "does not reproduce" in err


def test_verify_exits_with_0_for_an_intact_copy(call: Call) -> None:
    code, out, _ = call("verify", "-m", "all_minilm_l6_v2", "--device", "cpu", "--format", "json")

    assert code == 0
    assert {row["status"] for row in json.loads(out)} == {"pass", "not checked"}


@pytest.mark.fault(41, "exit code 3 at once, with the command that downloads the missing files")
def test_missing_weights_are_exit_code_3_with_the_fix(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    environment.pop("HF_HUB_CACHE", None)

    done = subprocess.run(
        [
            SCRIPT,
            "run",
            "-m",
            "stella_en_1.5B_v5",
            "-t",
            "VideoSummarySTS",
            "--offline",
            "--output",
            tmp_path / "out",
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )

    assert (done.returncode, done.stdout) == (3, "")
    assert (
        "error: model NovaSearch/stella_en_1.5B_v5 is not on this machine (not in the hub's cache, and offline"
        in done.stderr
    )
    assert "hf download NovaSearch/stella_en_1.5B_v5 --revision d03be74" in done.stderr
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------- stdout, stderr


@pytest.mark.parametrize("arguments", [["tasks"], ["models"], ["models", "all_minilm_l6_v2"]])
def test_json_csv_and_table_have_the_same_rows(call: Call, arguments: list[str]) -> None:
    rows = json.loads(call(*arguments, "--format", "json")[1])
    cells = list(csv.DictReader(io.StringIO(call(*arguments, "--format", "csv")[1])))
    table = call(*arguments)[1]

    assert rows
    # In CSV a cell that begins like a formula has a quote before it.
    assert [{key: value.removeprefix("'") for key, value in row.items()} for row in cells] == rows
    assert all(str(next(iter(row.values())))[:20] in table for row in rows)


def test_the_tasks_are_the_folders_of_tasks(call: Call) -> None:
    rows = json.loads(call("tasks", "--format", "json")[1])

    yamls = (Path(__file__).parents[2] / "tasks").glob("*/task.yaml")
    assert sorted(row["task"] for row in rows) == sorted(
        re.search(r"^name: (\S+)", path.read_text(), re.MULTILINE)[1]  # type: ignore[index]
        for path in yamls
    )


def test_models_names_the_available_heads_for_an_unknown_dimension(call: Call) -> None:
    from stella_mteb.models.resolve import resolve

    folder = resolve("all_minilm_l6_v2").folder
    code, _, err = call("models", f"{folder}@128")

    assert code == 2
    assert "no head of dimension 128; the heads on disk are 384" in err
    assert f"{folder}@128[cut] keeps the first 128 numbers" in err


def test_models_shows_mtebs_settings_of_a_model_that_is_not_downloaded(call: Call) -> None:
    code, out, err = call("models", "intfloat/e5-small-v2", "--format", "json")

    assert code == 0
    assert "on this machine: no; dimensions: as its files say; longest input: as its files say" in err
    (asymmetric,) = [row for row in json.loads(out) if "Reranking" in row["task types"].split(", ")]
    assert (asymmetric["text or query"], asymmetric["document"]) == ("query: ", "passage: ")


def test_models_shows_the_prompts_of_the_model_card(call: Call) -> None:
    code, out, err = call("models", "stella_en_1.5B_v5", "--format", "json")

    by_type = {name: row for row in json.loads(out) for name in row["task types"].split(", ")}
    s2p = "Instruct: Given a web search query, retrieve relevant passages that answer the query.\\nQuery: "
    assert code == 0
    assert by_type["Retrieval"]["text or query"] == s2p
    assert by_type["Retrieval"]["document"] == "(none)"
    assert by_type["STS"]["text or query"] == "Instruct: Retrieve semantically similar text.\\nQuery: "
    assert "profile card" in err


@pytest.mark.fault(43, "the doctor reports whether a token is set, and never shows it")
def test_doctor_opens_no_connection_offline_and_prints_json(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    code, out, err = call("doctor", "--offline", "--format", "json")

    found = {row["what"]: row for row in json.loads(out)}
    assert code == 0
    assert found["network"]["status"] == "note"
    assert found["all_minilm_l6_v2"]["status"] == "ok"
    assert "hf_secret" not in out + err


@pytest.mark.fault(44, "no traceback and no message")
def test_a_closed_pipe_gives_no_traceback() -> None:
    """`stella-mteb tasks | head -1`, with the reader gone before anything was written."""
    process = subprocess.Popen([SCRIPT, "tasks"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(60)

    assert err == ""


# ---------------------------------------------------------------------------------------------------------- help


def test_help_takes_half_a_second() -> None:
    seconds = []  # of processor time: other work on the machine does not count
    for _ in range(3):
        before = os.times()
        done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)

    assert min(seconds) < 0.5
    assert all(f"\n  {command} " in done.stdout for command in [*COMMANDS, *GROUPS, "mteb"])


def test_help_imports_neither_torch_nor_mteb() -> None:
    code = (
        "import sys\n"
        "from stella_mteb.cli import main\n"
        "for command in sys.argv[1].split(','):\n"
        "    sys.argv = ['stella-mteb', *command.split(), '--help']\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert not stop.code, command\n"
        f"    print(command, *[name for name in {HEAVY} if name in sys.modules], sep='|', file=sys.stderr)\n"
    )
    commands = [*COMMANDS, *(f"{group} {command}" for group, commands in GROUPS.items() for command in commands)]

    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(["", *commands])], capture_output=True, text=True, check=True
    )

    first, *others = done.stderr.splitlines()
    assert first == ""
    # typer itself reads the types of a command's options with pydantic.
    assert [line.replace("|pydantic", "") for line in others] == commands


@pytest.mark.parametrize("path", [(name,) for name in COMMANDS] + [(g, name) for g in GROUPS for name in GROUPS[g]])
def test_every_command_explains_its_options(call: Call, path: tuple[str, ...]) -> None:
    from typer.main import get_command

    from stella_mteb.cli import app

    code, out, err = call(*path, "--help")

    assert (code, err) == (0, "")
    assert f"stella-mteb {' '.join(path)} " in out.splitlines()[0]
    described: Any = get_command(app)
    for name in path:
        described = described.commands[name]
    flags = [option for parameter in described.params for option in parameter.opts if option.startswith("--")]
    assert flags
    assert all(flag in out for flag in flags)


def test_these_tests_cover_every_command() -> None:
    from typer.main import get_command

    from stella_mteb.cli import app

    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    assert sorted(commands) == sorted([*COMMANDS, *GROUPS, "mteb"])
    assert {name: sorted(commands[name].commands) for name in GROUPS} == GROUPS


def test_the_version_is_that_of_the_package(call: Call) -> None:
    import importlib.metadata

    assert call("--version") == (0, f"stella-mteb {importlib.metadata.version('stella-mteb')}\n", "")


# ----------------------------------------------------------------------------------------------------- the cache


def write_store(folder: Path, texts: int = 3, *, age: float = 0.0, **fingerprint: str) -> Path:
    """A store as this version writes it, unless its fingerprint says otherwise; last used some seconds ago."""
    from stella_mteb.engine.encoder import PIPELINE
    from stella_mteb.engine.store import VectorStore

    identity = {"pipeline": PIPELINE, "model": "org/some-model@0123456789abcdef", "dtype": "float32", **fingerprint}
    store = VectorStore(folder, identity)
    rows = np.random.default_rng(0).normal(size=(texts, 250)).astype(np.float32)
    store.add([n.to_bytes(16, "big") for n in range(texts)], rows)
    store.flush()
    for path in store.folder.iterdir():
        os.utime(path, (time.time() - age,) * 2)
    return store.folder


def damage(store: Path) -> Path:
    (shard,) = store.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-500] ^= 1
    shard.write_bytes(content)
    return shard


def test_the_list_of_stores_has_their_texts_size_age_and_state(call: Call, tmp_path: Path) -> None:
    good = write_store(tmp_path, 1000, age=3600)
    old = write_store(tmp_path, 3, age=400 * 86_400, pipeline="0", dtype="bfloat16")
    spoilt = write_store(tmp_path, 3, age=7200, dtype="float16")
    damage(spoilt).rename(spoilt / "x.damaged")
    os.utime(spoilt / "x.damaged", (0, 0))

    code, out, _ = call("cache", "ls", "--cache", tmp_path, "--format", "json")

    rows = json.loads(out)
    size = sum(path.stat().st_size for path in good.iterdir()) / 1e6
    assert code == 0
    assert [(row["store"], row["texts"], row["state"]) for row in rows] == [
        (good.name[:8], 1000, "good"),
        (spoilt.name[:8], 0, "1 damaged"),
        (old.name[:8], 3, "of another version"),
    ]
    assert rows[0]["MB"] == pytest.approx(size, abs=0.05)
    assert size > 1
    assert (rows[0]["model"], rows[0]["dtype"]) == ("some-model@01234567", "float32")
    assert rows[2]["last used"] == time.strftime("%Y-%m-%d", time.localtime(time.time() - 400 * 86_400))


def test_the_stores_in_the_table_are_those_in_json(call: Call, tmp_path: Path) -> None:
    store = write_store(tmp_path, 1234)

    out = call("cache", "ls", "--cache", tmp_path)[1]

    (line,) = [line for line in out.splitlines() if store.name[:8] in line]
    assert "some-model@01234567" in line
    assert "good" in line
    assert re.search(r"\b1,?234\b", line)


def test_cache_verify_passes_intact_files_and_sets_damaged_ones_aside_with_exit_code_1(
    call: Call, tmp_path: Path
) -> None:
    write_store(tmp_path, 5)
    store = write_store(tmp_path, 3, dtype="float16")

    sound = call("cache", "verify", "--cache", tmp_path)
    shard = damage(store)
    listed = call("cache", "ls", "--cache", tmp_path, "--format", "json")[1]
    code, out, err = call("cache", "verify", "--cache", tmp_path)
    after = call("cache", "verify", "--cache", tmp_path)

    assert sound[:2] == (0, "8 vectors in 2 files, 0 damaged\n")
    assert [row["state"] for row in json.loads(listed)] == ["good", "good"]  # ls looks at no vector
    assert code == 1
    assert f"{shard}: the checksum of a row does not match; set aside" in out
    assert "8 vectors in 2 files, 1 damaged" in out
    assert shard.with_suffix(".damaged").exists()
    assert "Traceback" not in err
    assert after[:2] == (0, "7 vectors in 2 files, 0 damaged\n")


@pytest.mark.fault(14, "never read; `cache prune` removes it")
def test_prune_deletes_only_damaged_files_leftovers_and_other_formats(call: Call, tmp_path: Path) -> None:
    good = write_store(tmp_path, 3)
    kept = contents(good)
    damaged, stale, fresh = good / "x.damaged", good / ".a.safetensors.b.tmp", good / ".c.safetensors.d.tmp"
    for path in (damaged, stale, fresh):
        path.write_bytes(b"\0" * 1_000_000)
    os.utime(stale, (time.time() - 3_700,) * 2)
    os.utime(fresh, (time.time() - 3_500,) * 2)
    other = write_store(tmp_path, 3, pipeline="0")
    schema = write_store(tmp_path, 3, dtype="float16")
    (schema / "fingerprint.json").write_text('{"schema": "1", "pipeline": "1"}')
    before = contents(tmp_path)

    planned = call("cache", "prune", "--cache", tmp_path, "--dry-run")
    assert contents(tmp_path) == before
    pruned = call("cache", "prune", "--cache", tmp_path)
    nothing = call("cache", "prune", "--cache", tmp_path)

    doomed = {str(path) for path in (damaged, stale, other, schema)}
    for code, out, _ in (planned, pruned):
        assert code == 0
        assert set(out.splitlines()[:-1]) == doomed
    assert planned[1].splitlines()[-1] == "would free 2.0 MB"
    assert pruned[1].splitlines()[-1] == "freed 2.0 MB"
    assert contents(tmp_path) == {str(good): b"", str(fresh): fresh.read_bytes(), **kept}
    assert nothing[:2] == (0, "freed 0.0 MB\n")


@pytest.mark.parametrize(("days", "goes"), [("10.5", False), ("9.5", True), ("0", True), (None, False)])
def test_prune_deletes_stores_older_than_the_given_age(
    call: Call, tmp_path: Path, days: str | None, goes: bool
) -> None:
    store = write_store(tmp_path, age=10 * 86_400)

    code, *_ = call("cache", "prune", "--cache", tmp_path, *(["--older-than", days] if days else []))

    assert (code, store.exists()) == (0, not goes)


def test_a_store_that_was_only_read_counts_as_used(call: Call, tmp_path: Path) -> None:
    store = write_store(tmp_path, age=10 * 86_400)
    from stella_mteb.engine.store import VectorStore

    identity = json.loads((store / "fingerprint.json").read_text())
    identity.pop("schema")
    assert len(VectorStore(tmp_path, identity)) == 3

    call("cache", "prune", "--cache", tmp_path, "--older-than", "5")

    assert store.exists()


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("command", ["ls", "verify", "prune"])
def test_a_missing_cache_is_no_error(call: Call, tmp_path: Path, command: str, made: bool) -> None:
    folder = tmp_path / "cache"
    if made:
        folder.mkdir()

    code, out, err = call("cache", command, "--cache", folder)

    assert code == 0
    assert "Traceback" not in err
    assert folder.exists() == made
    if command == "ls":
        assert f"{folder}: no stored vectors" in err
    if command == "verify":
        assert out == "0 vectors in 0 files, 0 damaged\n"


def test_a_folder_that_is_not_a_store_is_never_touched(call: Call, tmp_path: Path) -> None:
    write_store(tmp_path, 3)
    # The last has a name as stores have, and as the ids of some databases are.
    for folder in ("photos", "0123456789abcdef", "5f1d7a84e3b0c44298fc1c14"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "holiday.jpg").write_bytes(b"picture")
    (tmp_path / "holiday.damaged").write_bytes(b"picture")
    (tmp_path / ".holiday.tmp").write_bytes(b"picture")
    os.utime(tmp_path / ".holiday.tmp", (0, 0))
    (tmp_path / "a1d7a84e3b0c44298fc1c145").write_bytes(b"a file")
    before = contents(tmp_path)

    verified = call("cache", "verify", "--cache", tmp_path)
    pruned = call("cache", "prune", "--cache", tmp_path)

    assert (verified[0], pruned[0]) == (0, 0)
    assert contents(tmp_path) == before


def test_the_environment_sets_the_default_cache(call: Call) -> None:
    store = write_store(Path(os.environ["STELLA_MTEB_CACHE"]), 3)

    assert json.loads(call("cache", "ls", "--format", "json")[1])[0]["store"] == store.name[:8]


@pytest.mark.parametrize("command", ["ls", "verify", "prune"])
def test_cache_commands_import_neither_torch_nor_mteb(tmp_path: Path, command: str) -> None:
    write_store(tmp_path, 3)
    code = (
        "import sys, stella_mteb.engine.store\n"
        "from stella_mteb.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(sorted({'torch', 'mteb', 'transformers'} & set(sys.modules)), file=sys.stderr)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, "cache", command, "--cache", tmp_path], capture_output=True, text=True, check=True
    )

    assert done.stderr == "[]\n"


# ------------------------------------------------------------------------------------------------------ pass-through


def test_the_mteb_command_lists_our_tasks(call: Call) -> None:
    code, out, _ = call("mteb", "available-tasks", "--task-types", "STS")

    assert code == 0
    assert "VideoSummarySTS" in out
    assert "STSBenchmark" in out


@pytest.mark.slow
def test_the_mteb_command_runs_our_task_with_our_model(tmp_path: Path) -> None:
    from stella_mteb.harness.adapter import Encoder
    from stella_mteb.harness.find_tasks import find_tasks
    from stella_mteb.harness.run import run_task
    from stella_mteb.models.resolve import resolve

    subprocess.run(
        [SCRIPT, "mteb", "run", "-m", "sentence-transformers/all-MiniLM-L6-v2", "-t", "VideoSummarySTS",
         "--output-folder", tmp_path / "theirs"],
        check=True,
        capture_output=True,
    )  # fmt: skip

    (path,) = (tmp_path / "theirs").rglob("VideoSummarySTS.json")
    (task,) = find_tasks(["VideoSummarySTS"])
    ours = run_task(Encoder(resolve("all_minilm_l6_v2"), "cpu"), task, tmp_path / "ours")
    assert json.loads(path.read_text())["scores"]["test"][0]["main_score"] == pytest.approx(ours.score, abs=1e-5)


def test_the_demo_tells_its_story_in_sixty_lines(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, "demo", "--output", tmp_path / "demo"], check=True, capture_output=True, text=True)

    assert len(done.stdout.splitlines()) + len(done.stderr.splitlines()) <= 60
    rows = [line.split() for line in done.stdout.splitlines()]
    columns = next(row for row in rows if row[:2] == ["slug", "coarse"])
    of_models = [row for row in rows if row[:1] and row[0] in {"faithful", "omits", "swaps", "negates"}]
    found = {row[0]: dict(zip(columns[1:], map(float, row[1:]), strict=True)) for row in of_models}
    assert len(found) == 4
    lowest = {measure: min(found, key=lambda slug: found[slug][measure]) for measure in ("order", "consistency")}
    assert lowest == {"order": "swaps", "consistency": "negates"}
    assert found["omits"]["coverage"] < min(found["swaps"]["coverage"], found["negates"]["coverage"])
    assert "all_minilm_l6_v2 is better than" in done.stdout
    assert all((tmp_path / "demo" / page).is_file() for page in ("judge.html", "report.html"))
