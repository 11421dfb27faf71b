"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stella_mteb.files.tables import TableFormat

Benchmarks = Annotated[
    list[str], typer.Option("--benchmark", "-b", metavar="NAME", help="All tasks of a benchmark; may be repeated.")
]
Cache = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="Vectors of earlier runs [~/.cache/stella-mteb].")
]
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N, mps.")]
Format = Annotated[TableFormat, typer.Option("--format", help="Output format.")]
Model = Annotated[str, typer.Option("--model", "-m", metavar="SPEC", help="A model.")]
Models = Annotated[list[str], typer.Option("--model", "-m", metavar="SPEC", help="A model; may be repeated.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not access the network.")]
PromptKind = Annotated[
    Literal["s2s", "s2p", "none"], typer.Option("--prompt-type", help="s2s (compares summaries), s2p or none.")
]
Tasks = Annotated[
    list[str], typer.Option("--task", "-t", metavar="TASK", help="A task: name, NAME=PATH or YAML; may be repeated.")
]
Nli = Annotated[Path | None, typer.Option("--nli", metavar="FOLDER", help="NLI cross-encoder, for the measure nli.")]
