"""`stella-mteb demo`: the main jobs on bundled data with the embedded model, without network."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Device

MODEL = "all_minilm_l6_v2"
SHORT = f"{MODEL}[max_length=16]"
TASKS = ("VideoSummarySTS", "VideoSummaryRetrieval")
CANDIDATES = {
    "faithful": "paraphrase",
    "omits": "omission",
    "swaps": "order_swap",
    "negates": "negation",
}
"""The demo's candidate models, and the fault of the bundled task that each makes."""


@app.command(short_help="Run the main jobs with a small packaged model.")
def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results.")] = Path("demo-output"),
    device: Device = None,
) -> None:
    """Run the bundled video-summary tasks, the judge and the comparison with a small model; needs no network."""
    set_offline(True)
    from stella_mteb.cli.compare import compare  # noqa: PLC0415
    from stella_mteb.cli.judge import judge  # noqa: PLC0415
    from stella_mteb.cli.run import run  # noqa: PLC0415

    common: dict[str, Any] = {"device": device, "offline": True, "cache": output / "vectors"}
    say(f"1. Run: {MODEL} on two bundled MTEB tasks, reading texts whole or their first 16 tokens")
    _show(1, run, models=[MODEL, SHORT], tasks=list(TASKS), output=output, **common)
    say("2. Judge: four models' summaries of 12 clips; three of them make one kind of fault each")
    references, predictions = write_judge_inputs(output / "judge-input")
    judged = {"references": references, "predictions": [predictions], "output": output / "judge"}
    _show(2, judge, models=[MODEL], html=output / "judge.html", **judged, **common)
    say("hm_cf alone puts `negates` first; low consistency gives it away, low order `swaps`.")
    say("3. Compare: are the first 16 tokens enough?")
    _show(2, compare, models=[MODEL, SHORT], results=[output], html=output / "report.html")
    say(f"Two pages to open in a browser: {output / 'judge.html'} and {output / 'report.html'}")


def _show(sections: int, command: Callable[..., None], **options: Any) -> None:
    """Run a command and print only the first sections of its output: a demo fits two screens."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command(**options)
    typer.echo("\n\n".join(out.getvalue().split("\n\n")[:sections]).rstrip())


def write_judge_inputs(folder: Path) -> tuple[Path, Path]:
    """Write clips of the bundled task in the judge's input form: references, and the candidate models' predictions.

    Returns:
        The references' file and the predictions' folder. Each candidate model makes one kind of fault, on every clip
        for which the task has all of `CANDIDATES`.
    """
    from stella_mteb.files.atomic import write_json  # noqa: PLC0415
    from stella_mteb.harness.task_yaml import bundled_tasks  # noqa: PLC0415

    file = bundled_tasks()["VideoSummarySTS"]
    assert file.spec.data is not None  # noqa: S101 -- the bundled task names its file
    rows = [json.loads(line) for line in (file.path.parent / file.spec.data).read_text(encoding="utf-8").splitlines()]
    texts: dict[str, dict[str, str]] = {model: {} for model in CANDIDATES}
    for model, fault in CANDIDATES.items():
        texts[model] = {row["clip_id"]: row["candidate"] for row in rows if row["fault"] == fault}
    clips = [row["clip_id"] for row in rows if all(row["clip_id"] in own for own in texts.values())]
    references = {row["clip_id"]: row["reference"] for row in rows if row["clip_id"] in clips}
    write_json(folder / "references.json", [{"id": clip, "summary": text} for clip, text in references.items()])
    for model, own in texts.items():
        write_json(folder / "predictions" / f"{model}.json", {clip: own[clip] for clip in references})
    return folder / "references.json", folder / "predictions"
