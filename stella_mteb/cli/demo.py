"""`stella-mteb demo`: the main jobs on bundled data with the embedded model, without network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Device

MODEL = "all_minilm_l6_v2"
SHORT = f"{MODEL}[max_length=64]"
TASKS = ("VideoSummarySTS", "VideoSummaryRetrieval")


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for results.")] = Path("demo-output"),
    device: Device = None,
) -> None:
    """Run the bundled video-summary tasks, the judge and the comparison with a small model; needs no network."""
    set_offline(True)
    from stella_mteb.cli.compare import compare  # noqa: PLC0415
    from stella_mteb.cli.judge import judge  # noqa: PLC0415
    from stella_mteb.cli.run import run  # noqa: PLC0415

    say(f"1. MTEB tasks on bundled data, with {MODEL}")
    run(models=[MODEL], tasks=list(TASKS), output=output, device=device, offline=True, cache=output / "vectors")
    references, predictions = write_judge_inputs(output / "judge-input")
    say("\n2. The judge: five candidate models, one faithful to every clip, the others with worse and worse faults")
    judge(
        references=references,
        predictions=[predictions],
        models=[MODEL],
        output=output / "judge",
        device=device,
        offline=True,
        cache=output / "vectors",
    )
    say("\n3. The same model reading 64 tokens of a text instead of 256, and the two compared")
    run(models=[SHORT], tasks=list(TASKS), output=output, device=device, offline=True, cache=output / "vectors")
    compare(models=[MODEL, SHORT], results=[output], html=output / "report.html")
    say(f"\nResults are in {output}. Open {output / 'report.html'} in a browser.")
    say("Next: stella-mteb doctor, and docs/own-data.md for data of your own.")


def write_judge_inputs(folder: Path) -> tuple[Path, Path]:
    """Write the bundled pairs as input for the judge: references, and the predictions of five candidate models.

    The first model is faithful. The others have each clip's four faulty candidates, ordered by their grades from the
    mildest to the worst fault.

    Returns:
        The references' file and the predictions' folder.
    """
    from stella_mteb.files.atomic import write_json  # noqa: PLC0415
    from stella_mteb.harness.task_yaml import bundled_tasks  # noqa: PLC0415

    file = bundled_tasks()["VideoSummarySTS"]
    assert file.spec.data is not None  # noqa: S101 -- the bundled task names its file
    rows = [json.loads(line) for line in (file.path.parent / file.spec.data).read_text(encoding="utf-8").splitlines()]
    references = {row["clip_id"]: row["reference"] for row in rows}
    write_json(folder / "references.json", [{"id": clip, "summary": text} for clip, text in references.items()])
    names = ("faithful", "mild_fault", "fault", "bad_fault", "worst_fault")
    texts: dict[str, dict[str, str]] = {name: {} for name in names}
    for clip in references:
        own = sorted((row for row in rows if row["clip_id"] == clip), key=lambda row: -row["score"])
        for name, row in zip(names, own, strict=True):
            texts[name][clip] = row["candidate"]
    for name, own_texts in texts.items():
        write_json(folder / "predictions" / f"{name}.json", own_texts)
    return folder / "references.json", folder / "predictions"
