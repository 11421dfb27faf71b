"""`stella-mteb compare` on the command line: sources, output, and errors."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Call
from tests.support.result_folders import entry, of_others, our_run, result
from tests.support.submissions import write

STELLA, BGE = "NovaSearch/stella_en_1.5B_v5", "BAAI/bge-en-icl"


def test_published_means_equal_the_model_cards_and_do_not_separate(call: Call) -> None:
    code, out, _ = call("compare", "--published", "--format", "json")
    found = json.loads(out)

    means = {row["system"].partition(" (")[0]: round(100 * row["mean"], 2) for row in found["standings"]}
    (duel,) = found["duels"]
    assert code == 0
    assert means == {STELLA: 71.20, BGE: 71.68}
    assert {(row["best_rank"], row["worst_rank"]) for row in found["standings"]} == {(1, 2)}
    assert (duel["tasks"], duel["wins"], duel["losses"]) == (56, 25, 31)
    assert duel["low"] < 0 < duel["high"]


def test_specs_select_rows_and_their_order(call: Call) -> None:
    _, out, _ = call("compare", "bge_en_icl", "--published", "--format", "csv")

    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 56
    assert {row["model"] for row in rows} == {BGE}


def test_results_of_others_are_compared_with_published_scores_and_keep_their_provenance(
    call: Call, tmp_path: Path
) -> None:
    write(tmp_path)

    _, out, _ = call("compare", "--published", "--results", tmp_path, "--format", "csv")

    rows = [row for row in csv.DictReader(io.StringIO(out)) if row["task"] == "STSBenchmark"]
    assert sorted(row["provenance"] for row in rows) == ["measured by others", "self-reported", "self-reported"]


def test_the_html_report_is_written_to_the_given_path(call: Call, tmp_path: Path) -> None:
    code, _, err = call("compare", "--published", "--html", tmp_path / "deep/report.html")

    assert code == 0
    assert "71.68" in (tmp_path / "deep/report.html").read_text()
    assert f"report: {tmp_path / 'deep/report.html'}" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give --results DIR, --published, or --remote"),
        (["--results", "nowhere"], "nowhere: no such folder; give --results the --output folder of stella-mteb run"),
        (["org/other", "--published"], "or make them with stella-mteb run -m org/other"),
        (
            ["--published", "-t", "NFCorpusX"],
            "no score could be read; use other -b, -t, --type, --language or --exclude",
        ),
        (["stella_en_1.5B_v6", "--published"], "stella_en_1.5B_v5"),
        (["--remote", "main"], "--remote needs the models"),
        (["--remote"], "--remote needs the models"),
        (
            ["--published", "-b", "MTEB(end, v2)"],
            "MTEB has no benchmark 'MTEB(end, v2)'; the nearest are MTEB(eng, v2)",
        ),
        (["--published", "--type", "Retrievals"], "MTEB has no task type 'Retrievals'; the nearest are Retrieval"),
        (
            ["--published", "-b", "MTEB(eng, v1)", "-t", "STS99"],
            "MTEB(eng, v1) has no task 'STS99'; the nearest are STS",
        ),
        (["--published", "--language", "en"], "MTEB's codes have three letters"),
        (["--published", "-t", "STS12", "--exclude", "STS12"], "the selection is empty"),
        (["--published", "--coverage", "50"], "more than 50 and at most 100"),
    ],
    ids=[
        "nothing",
        "no-folder",
        "unknown-organisation",
        "no-such-task",
        "unknown",
        "remote-of-all",
        "newest-of-all",
        "benchmark",
        "type",
        "task",
        "language",
        "empty",
        "coverage",
    ],
)
def test_an_impossible_comparison_is_an_error_with_the_fix(
    call: Call, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    code, out, err = call("compare", *arguments)

    assert (code, out) == (2, "")
    assert said in err


def run_compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; the last line on stderr lists the heavy modules that it imported."""
    program = (
        f"import sys; sys.argv = {['stella-mteb', 'compare', *arguments]!r}\n"
        "from stella_mteb.cli import app\n"
        "try: app(standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'mteb', 'transformers') if name in sys.modules], file=sys.stderr)"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)


def test_compare_imports_neither_torch_nor_mteb() -> None:
    assert run_compare("--published").stderr.splitlines()[-1] == "[]"


def types_and_splits(shown: str) -> dict[str, tuple[str, str]]:
    return {row["task"]: (row["type"], row["split"]) for row in csv.DictReader(io.StringIO(shown))}


def test_bundled_yaml_and_published_tasks_are_known_without_mteb(tmp_path: Path) -> None:
    for task in ("VideoSummaryRetrieval", "MineSTS"):
        result(our_run(tmp_path), task, 0.9)
    result(our_run(tmp_path), "MSMARCO", {"test": [entry(0.9)], "dev": [entry(0.4)]})
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(
        "name: MineSTS\ntype: STS\ndata: p.csv\ncolumns: {sentence1: a, sentence2: b, score: c}\n"
    )
    (tmp_path / "other.yaml").write_text("not: a task\n")

    done = run_compare("--results", str(tmp_path), "--format", "csv")

    assert types_and_splits(done.stdout) == {
        "MSMARCO": ("Retrieval", "dev"),
        "MineSTS": ("STS", "test"),
        "VideoSummaryRetrieval": ("Retrieval", "test"),
    }
    assert done.stderr.splitlines()[-1] == "[]"


def test_types_of_other_tasks_come_from_mteb_or_are_unknown(call: Call, tmp_path: Path) -> None:
    result(our_run(tmp_path), "BornholmBitextMining", 0.4)
    result(our_run(tmp_path), "NoSuchTask", 0.4)

    _, shown, _ = call("compare", "--results", tmp_path, "--format", "csv")

    assert types_and_splits(shown) == {
        "BornholmBitextMining": ("BitextMining", "test"),
        "NoSuchTask": ("unknown", "test"),
    }


def test_the_split_of_a_users_task_comes_from_its_yaml(call: Call, tmp_path: Path) -> None:
    text = "name: MineSTS\ntype: STS\ndata: p.csv\nsplit: gold\ncolumns: {sentence1: a, sentence2: b, score: c}\n"
    (tmp_path / "mine.yaml").write_text(text)
    result(our_run(tmp_path), "MineSTS", {"gold": [entry(0.4)], "test": [entry(0.9)]})

    _, shown, _ = call("compare", "--results", tmp_path, "--format", "csv")

    assert types_and_splits(shown) == {"MineSTS": ("STS", "gold")}


def test_only_the_files_of_the_named_models_are_read(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stella_mteb.compare import folder

    result(our_run(tmp_path), "STS12", 0.4)
    result(of_others(tmp_path, "someone/else"), "STS12", 0.5)
    read, read_score = [], folder.read_score
    monkeypatch.setattr(folder, "read_score", lambda path, *rest: read.append(path.parts) or read_score(path, *rest))

    code, _, _ = call("compare", "all_minilm_l6_v2", "--results", tmp_path)
    _, _, err = call("compare", "someone/elsewhere", "--results", tmp_path)

    assert code == 0
    assert [parts for parts in read if "someone__else" in parts] == []
    assert "no results for 'someone/elsewhere'; the nearest are someone/else" in err
