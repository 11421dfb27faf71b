"""Shared fixtures: tiny models in the real layout, built in code; no test needs the network.

Heavy imports (mteb, sentence-transformers) happen inside fixtures, once for the session.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# For torch and its like, here and in started processes: two threads on such small models take up to three times the
# processor time of one, most where other processes want the cores too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Development data beside the checkout; tests that need it are skipped where it is absent."""

RATED_PAIRS = [
    ("a red boat leaves", "a red boat leaves at dawn", 5.0),
    ("a red boat leaves", "the blue boat stays", 2.5),
    ("two cooks argue", "two cooks argue about salt", 4.0),
    ("two cooks argue", "rain on an empty street", 0.5),
    ("a dog runs", "the child sleeps", 1.0),
]
"""Rows of a small task: sentence, sentence, score from 0 to 5."""

Call = Callable[..., tuple[int, str, str]]
"""The type of the fixture `call`."""

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the development data, which is not published: the folder ../shared/data"
)


def pytest_configure() -> None:
    """Stop with one line if the checkout is not installed with `-e`, which maps configs/ and tasks/ into it."""
    if find_spec("stella_mteb.configs") is None:
        raise pytest.UsageError("the tests need the checkout itself installed: pip install -e '.[dev]', or make test")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print at the end how many tests were skipped, and their requirements."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    if reasons:
        terminalreporter.section(f"{reasons.total()} skipped")
        for reason, tests in reasons.most_common():
            terminalreporter.line(f"{tests:4} {reason}")


@pytest.fixture(scope="session")
def stella_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stella 1.5B's layout with tiny random weights, all seven heads, and a small tokenizer with Stella's EOS id."""
    from benchmarks.layouts.stella import write_stella

    return write_stella(tmp_path_factory.mktemp("stella") / "stella_en_1.5B_v5")


@pytest.fixture(scope="session")
def stella(stella_folder: Path):
    """The tiny Stella loaded through the engine, float32 on the CPU, at 1024 dimensions."""
    from stella_mteb.models.resolve import resolve

    return resolve(f"{stella_folder}@1024").load("cpu")


@pytest.fixture(scope="session")
def bge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML of a tiny random model in BGE-en-ICL's layout, float32, at most 64 tokens without the examples."""
    from benchmarks.layouts.bge import bge_yaml, write_bge

    folder = tmp_path_factory.mktemp("bge")
    return bge_yaml(folder / "tiny_bge.yaml", write_bge(folder / "bge-en-icl"))


@pytest.fixture(scope="session")
def minilm():
    """The packaged all-MiniLM-L6-v2 through the engine; real weights."""
    from stella_mteb.models.resolve import resolve

    return resolve("all_minilm_l6_v2").load("cpu")


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep tests away from the user's caches, and restore the environment after each test."""
    before = dict(os.environ)
    monkeypatch.setenv("STELLA_MTEB_CACHE", str(tmp_path / "vector-cache"))
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb-cache"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Call `stella-mteb` in this process; returns exit code, stdout and stderr. Global settings are restored."""
    from stella_mteb.cli import main

    logger = logging.getLogger("stella_mteb")
    propagate, level = logger.propagate, logging.getLogger("mteb").level

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stella-mteb", *map(str, arguments)])
        handlers = list(logger.handlers)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop, warnings.catch_warnings():
            main()
        logger.handlers[:] = handlers
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    yield run
    logger.propagate = propagate
    logging.getLogger("mteb").setLevel(level)


@pytest.fixture(scope="session")
def hand_made():
    """A factory of MTEB encoders from a function of one text."""
    import numpy as np
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ScoringFunction

    class HandMade(AbsEncoder):
        def __init__(self, vector: Any) -> None:
            self.vector = vector
            self.mteb_model_meta = ModelMeta.create_empty(
                overwrites={
                    "name": "test/hand-made",
                    "revision": "1",
                    "similarity_fn_name": ScoringFunction.COSINE,
                }
            )

        def encode(self, inputs: Any, **kwargs: Any) -> Any:
            return np.array([self.vector(text) for batch in inputs for text in batch["text"]], np.float32)

    return HandMade


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from tests.support.pages import FLAGS

    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs the extra: pip install 'stella-mteb[browser]'"
    )
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit_file(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page and records every request and error of the browser."""
    from tests.support.pages import Visit

    opened = []

    def go(path: Path, width: int = 1280, **options: Any) -> Any:
        tab = chromium.new_page(viewport={"width": width, "height": 900}, **options)
        result = Visit(tab, path.as_uri(), [], [])
        tab.on("request", lambda request: result.requests.append(request.url))
        tab.on("console", lambda message: result.complaints.append(message.text))
        tab.on("pageerror", lambda error: result.complaints.append(str(error)))
        tab.on("dialog", lambda dialog: result.complaints.append(dialog.message))
        tab.goto(result.url)
        opened.append(tab)
        return result

    yield go
    for tab in opened:
        tab.close()
