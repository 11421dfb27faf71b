"""The command `stella-mteb judge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say, token_progress
from stella_mteb.cli.options import Cache, Device, Format, Nli, Offline, PromptKind
from stella_mteb.cli.registry import registry
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.tables import many

if TYPE_CHECKING:
    from stella_mteb.judge.inputs import Candidate
    from stella_mteb.judge.page import JudgedClips
    from stella_mteb.judge.similarity import Several
    from stella_mteb.models.resolve import ResolvedModel
    from stella_mteb.prompts.profiles import PromptType


@app.command(short_help="Score many models' summaries against references.")
def judge(
    references: Annotated[Path, typer.Option(metavar="FILE", help="JSON list of {id, summary}, or another layout.")],
    predictions: Annotated[
        list[Path], typer.Option(metavar="PATH", help="Folder, or files {id: text}, one for each model.")
    ],
    models: Annotated[list[str], typer.Option("--model", "-m", metavar="SPEC", help="A judge; may be repeated.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results.")] = Path("stella-results/judge"),
    id_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of ids, or its position from 1.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of texts, or its position from 1.")
    ] = None,
    prompt_type: PromptKind = "s2s",
    several: Annotated[
        Literal["best", "mean"], typer.Option("--several-references", help="Score of the best reference, or the mean.")
    ] = "best",
    unwrap: Annotated[bool, typer.Option("--unwrap", help="Remove reasoning, headings and chat phrases.")] = False,
    nli: Nli = None,
    device: Device = None,
    offline: Offline = False,
    cache: Cache = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page: ranking, clips, matches by the first judge.")
    ] = None,
    form: Format = "table",
) -> None:
    """Score many models' summaries against references. After an interruption, the same command resumes."""
    set_offline(offline)
    from stella_mteb.cli.rank import print_ranking  # noqa: PLC0415
    from stella_mteb.files.keyed_texts import KeyedColumns, data_files, require_columns  # noqa: PLC0415
    from stella_mteb.judge.inputs import read_candidates, read_references  # noqa: PLC0415
    from stella_mteb.models.resolve import resolve  # noqa: PLC0415

    columns = KeyedColumns(id_column, text_column)
    require_columns(columns, [references, *(file for path in predictions for file in data_files(path))])
    texts = read_references(references, columns)
    candidates = read_candidates(predictions, texts, columns, unwrapped=unwrap)
    for candidate in candidates:
        wrappers = "removed" if unwrap else "scored as part of it (--unwrap removes it)"
        for what, clips in (
            ("without a prediction, not scored", candidate.missing),
            ("with an empty prediction, not scored", candidate.empty),
            ("without a reference, left out", candidate.unknown),
            *((f"with {kind} around the summary, {wrappers}", clips) for kind, clips in candidate.wrapped.items()),
        ):
            if clips:
                shown = ", ".join(clips[:5]) + (", ..." if len(clips) > 5 else "")
                say(f"{candidate.slug}: {many(len(clips), 'clip')} {what}: {shown}")
    judged = [
        judge_with(
            model,
            prompt_type,
            texts,
            candidates,
            output,
            several=several,
            unwrapped=unwrap,
            nli=nli,
            device=device,
            cache=cache or cache_folder(),
            matched=html is not None and number == 0,
        )
        for number, model in enumerate([resolve(spec, registry=registry) for spec in models])
    ]
    print_ranking(output, form)
    say(f"results: {output}; `stella-mteb rank {output}` ranks them again")
    if html is not None and judged[0] is not None:
        from stella_mteb.judge.page import write_page  # noqa: PLC0415
        from stella_mteb.judge.reports import read_results  # noqa: PLC0415

        write_page(html, read_results(output), judged[0])
        say(f"page: {html}")


def judge_with(
    model: ResolvedModel,
    prompt_type: PromptType,
    references: Mapping[str, Sequence[str]],
    candidates: Sequence[Candidate],
    output: Path,
    *,
    several: Several = "best",
    unwrapped: bool = False,
    nli: Path | None = None,
    device: str | None,
    cache: Path,
    matched: bool = False,
) -> JudgedClips | None:
    """Judge all candidates with one model and write the results; if `matched`, also return the matched sentences."""
    from stella_mteb.files.rows import digest  # noqa: PLC0415
    from stella_mteb.judge.judge import SCORING, TextVectors, distinct_texts, judge_all, load_judge  # noqa: PLC0415
    from stella_mteb.judge.nli import NliModel  # noqa: PLC0415
    from stella_mteb.judge.reports import judge_slug, require_same_judge, write_judgement  # noqa: PLC0415
    from stella_mteb.outputs.layout import require_writable  # noqa: PLC0415

    require_writable(output)
    nli_model = NliModel(nli, device) if nli else None
    summaries = distinct_texts(references, candidates)
    say(f"loading {model.spec} ...")
    encoder, prompt = load_judge(model, prompt_type, summaries, device=device, cache=cache)
    identity = {
        **encoder.fingerprint,
        "spec": str(model.spec),
        "revision": model.revision,
        "dimension": model.dimension,
        "prompt": prompt,
        "scoring": SCORING,
        "references": digest(references.items()),
        "several_references": several,
        "unwrapped": unwrapped,
        "nli": nli_model and nli_model.revision,
    }
    slug = judge_slug(str(model.spec))
    require_same_judge(output, slug, identity)
    judgements = []
    with token_progress(f"judging with {model.spec}") as progress:
        for judgement in judge_all(encoder, prompt, references, candidates, progress, several, nli_model):
            write_judgement(output, slug, judgement, identity)
            judgements.append(judgement)
            say(f"judged {judgement.candidate.slug}: {many(len(judgement.scores), 'clip')}")
    stats = encoder.stats
    say(
        f"{stats.texts:,} distinct texts and sentences: {stats.encoded:,} encoded ({stats.tokens:,} tokens in "
        f"{stats.seconds:.1f} s), {stats.texts - stats.encoded:,} from the cache"
    )
    full = sum(len(ids) >= encoder.tokenise.longest(prompt) for ids in encoder.tokenise(summaries, prompt))
    if full:
        say(
            f"{full:,} of {len(summaries):,} summaries reach the judge's limit of {encoder.max_length} tokens: "
            "coarse uses only their beginning (sentences are encoded whole)"
        )
    if not matched:
        return None
    from stella_mteb.judge.matches import chance_level, match_all  # noqa: PLC0415
    from stella_mteb.judge.page import JudgedClips  # noqa: PLC0415

    vectors = TextVectors(encoder, prompt, summaries)  # from the store, without encoding again
    matches = match_all(vectors, references, candidates, nli_model)
    return JudgedClips(str(model.spec), references, judgements, matches, chance_level(vectors, references, candidates))
