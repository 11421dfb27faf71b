"""Every command and code block of the documentation is executed, in a folder as the documents describe it.

A fenced block may say `file=NAME` (it is written to that file), or `not-run="why"`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "docs/package.md",
    "docs/start.md",
    "docs/run.md",
    "docs/judge.md",
    "docs/validate.md",
    "docs/compare.md",
    "docs/own-data.md",
    "docs/reference.md",
    "docs/upstream.md",
]
_FENCE = re.compile(r"^```(?P<kind>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    kind: str
    file: str | None
    not_run: str | None
    body: str


def blocks(page: str) -> list[Block]:
    found = []
    for match in _FENCE.finditer((ROOT / page).read_text()):
        info = dict(part.split("=", 1) for part in shlex.split(match["info"]))
        found.append(Block(match["kind"], info.get("file"), info.get("not-run"), match["body"]))
    return found


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of all pages, as of one reader: several of them run the same model on the same task."""
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture
def workplace(tmp_path: Path, vectors: Path, stella_folder: Path, bge: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the in-house model folder, Stella in the hub's cache (tiny, random), and data."""
    import huggingface_hub.constants

    from stella_mteb.harness import adapter
    from stella_mteb.models.config import bundled_configs, load_config

    place = tmp_path / "work"
    (place / "encoder_models").mkdir(parents=True)
    (place / "encoder_models/stella-en-1.5b-v5").symlink_to(stella_folder)
    (place / "encoder_models/bge-en-icl").symlink_to(bge.parent / "bge-en-icl")
    hub = load_config(bundled_configs()["stella_en_1.5B_v5"]).hub
    assert hub is not None
    repository = tmp_path / "hub" / f"models--{hub.name.replace('/', '--')}"
    shutil.copytree(stella_folder, repository / "snapshots" / str(hub.revision))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("STELLA_MTEB_CACHE", str(vectors))
    monkeypatch.setattr("stella_mteb.harness.pace._SECONDS", 1.0)
    load = adapter.load_engine  # without a store, load_encoder("...") on two pages would encode the same texts again
    monkeypatch.setattr(adapter, "load_engine", lambda model, device, cache=None: load(model, device, cache or vectors))
    (place / "msrvid.jsonl").write_text(
        '{"sentence1": "A man is riding a bicycle.", "sentence2": "A man rides a bike.", "score": 5.0}\n'
        '{"sentence1": "A dog runs.", "sentence2": "A woman peels a potato.", "score": 0.0}\n'
        '{"sentence1": "A girl plays a flute.", "sentence2": "A girl plays a guitar.", "score": 2.0}\n'
    )
    (place / "clip_cc/predictions").mkdir(parents=True)
    (place / "clip_cc/ground_truth.json").write_text(
        json.dumps([{"id": "1", "summary": "A man opens a safe."}, {"id": "2", "summary": "A horse wins a race."}])
    )
    (place / "clip_cc/predictions/vlm.json").write_text('{"1": "Someone cracks a safe.", "2": "Horses are racing."}')
    demo = place / "demo-output/judge-input"
    shutil.copytree(place / "clip_cc/predictions", demo / "predictions")
    shutil.copy(place / "clip_cc/ground_truth.json", demo / "references.json")
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_code_of_the_page_run(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(page):
        if block.file:
            path = workplace / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body)
        elif block.kind == "python" and not block.not_run:
            exec(compile(block.body, page, "exec"), {})  # noqa: S102 -- our own documentation
        elif block.kind == "console" and not block.not_run:
            for line in block.body.splitlines():
                if line.startswith("$ "):
                    _run(line.removeprefix("$ "), monkeypatch)


def _run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        # The targets themselves are what CI runs; here they must exist.
        subprocess.run(
            [shutil.which("make") or "make", "-n", *words[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
        return
    if words[0] in {"git", "cd", "pip"} or words == [
        "stella-mteb",
        "demo",
    ]:  # tests/cli runs the demo, which takes a minute
        return
    assert words[0] == "stella-mteb", f"the documents show a command that no test can run: {command}"
    from stella_mteb.cli import main

    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0, f"{command} ended with {stop.value.code}"


def test_skipped_code_blocks_state_a_reason() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.not_run is None or len(block.not_run) > 10, (page, block.body)


def test_prose_has_at_most_120_columns() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tasks/*/*.md"), ROOT / "results/README.md"]
    for path in pages:
        for number, line in enumerate(re.sub(r"(?ms)^```.*?^```$", "", path.read_text()).splitlines(), start=1):
            is_prose = not line.startswith(("|", "[![")) and " " in line.strip()
            assert len(line) <= 120 or not is_prose, f"{path.relative_to(ROOT)}:{number}"


def test_links_between_documents_have_targets() -> None:
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("results/**/*.md"),
        *ROOT.glob("tasks/*/*.md"),
    ]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"


def test_the_package_page_has_no_relative_links() -> None:
    assert re.findall(r"\]\((?!https://)[^)]*\)", (ROOT / "docs/package.md").read_text()) == []


def test_the_tree_in_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in (ROOT / "stella_mteb").rglob("*.py"):
        if path.name not in {"__init__.py", "__main__.py"} and path.parent.name != "cli":
            assert f" {path.name} " in text, f"ARCHITECTURE.md does not say what {path.name} is"
