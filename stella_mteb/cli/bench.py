"""`stella-mteb bench`: measures the speed of a model on this machine, and the fastest token budget."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import typer

from stella_mteb.cli.app import app, set_offline
from stella_mteb.cli.display import say
from stella_mteb.cli.options import Device, Format, Model, Offline
from stella_mteb.cli.registry import registry
from stella_mteb.files.tables import render

if TYPE_CHECKING:
    from stella_mteb.engine.encoder import TextEncoder
    from stella_mteb.models.resolve import ResolvedModel

_SECONDS = 3.0
"""Approximate duration of one pass over the texts; there are about 20 passes."""
_ROUNDS = 3
_OURS = "stella-mteb"


@app.command(short_help="Measure the speed of models on this machine.")
def bench(
    model: Model,
    device: Device = None,
    offline: Offline = False,
    form: Format = "table",
) -> None:
    """Measure speed on this machine, compare it with sentence-transformers, and recommend a token budget."""
    set_offline(offline)
    from stella_mteb.diagnostics.bench import recommend_budget  # noqa: PLC0415
    from stella_mteb.models.resolve import resolve  # noqa: PLC0415

    resolved = resolve(model, registry=registry)
    say(f"loading {resolved.spec} ...")
    encoder = resolved.load(device)
    texts = _sample(encoder)
    tokens = sum(map(len, encoder.tokenise(texts)))
    say(f"{len(texts)} bundled summaries and their sentences, {tokens} tokens, {encoder.dtype}, {encoder.device}")
    rows = _side_by_side(resolved, encoder, texts, tokens)
    say("token budgets ...")
    found = recommend_budget(encoder, texts, repeats=_ROUNDS)
    budgets: list[dict[str, object]] = [
        {
            "token budget": budget,
            "tokens/s": round(speed),
            "": "recommended" if budget == found.recommended else "",
        }
        for budget, speed in found.tokens_per_second.items()
    ]
    if form == "json":
        typer.echo(json.dumps({"speed": rows, "budgets": budgets, "token_budget": found.recommended}, indent=2))
        return
    typer.echo(render(rows, form) + "\n\n" + render(budgets, form))
    if found.out_of_memory:
        say(f"a budget of {found.out_of_memory} tokens does not fit in memory")
    if found.recommended != encoder.token_budget:
        say(f"to use it: token_budget: {found.recommended} in the model's YAML (now {encoder.token_budget})")


def _sample(encoder: TextEncoder) -> list[str]:
    """Select summaries and sentences, as many as take some seconds on this machine."""
    from stella_mteb.harness.task_yaml import bundled_tasks  # noqa: PLC0415
    from stella_mteb.judge.sentences import split_sentences  # noqa: PLC0415

    pairs = bundled_tasks()["VideoSummarySTS"].pairs
    summaries = list(dict.fromkeys([*pairs.first, *pairs.second]))
    sentences = list(dict.fromkeys(sentence for text in summaries for sentence in split_sentences(text)))
    # Three sentences for each summary: as in real work, most texts are short but most tokens are in long ones.
    turns = zip(*[iter(sentences)] * 3, strict=False)
    mixed = [text for summary, three in zip(summaries, turns, strict=False) for text in (summary, *three)]
    encoder.encode(mixed[:4])  # the first pass also loads the head and warms up
    started = time.perf_counter()
    encoder.encode(mixed[:24])
    per_text = (time.perf_counter() - started) / 24
    wanted = min(max(60, round(_SECONDS / per_text)), 50 * len(mixed))
    # A fast device needs more texts than there are; numbers make copies distinct.
    copies = (f"{text} {copy}" if copy else text for copy in itertools.count() for text in mixed)
    return list(itertools.islice(copies, wanted))


def _side_by_side(model: ResolvedModel, encoder: TextEncoder, texts: list[str], tokens: int) -> list[dict[str, object]]:
    from stella_mteb.diagnostics.bench import attended_length, flops_per_token, interleave, matmul_rate, ratio  # noqa: PLC0415

    variants: dict[str, Any] = {_OURS: lambda: encoder.encode(texts)}
    reference = _reference(model, encoder)
    if reference is not None:

        def peer(batch_size: int) -> Any:
            return lambda: reference.encode(texts, batch_size=batch_size, show_progress_bar=False)

        # The default batch size, and one that is near the best on such a device.
        sizes = (32, 8) if encoder.device.type == "cpu" else (32, 128)
        variants |= {f"sentence-transformers, {size}": peer(size) for size in sizes}
    say("comparing speed ...")
    times = interleave(variants, _ROUNDS, device=encoder.device, warm_up=False)
    lengths = [len(ids) for ids in encoder.tokenise(texts)]
    flops = flops_per_token(encoder.backbone, attended_length(lengths))
    peak = matmul_rate(encoder.device, encoder.dtype).sustained
    return [
        {
            "what": name,
            "tokens/s": round(tokens / statistics.median(seconds)),
            "texts/s": round(len(texts) / statistics.median(seconds), 1),
            "of matmul": f"{tokens / statistics.median(seconds) * flops / peak:.0%}",
            "times ours": round(ratio(times, name, _OURS).median, 2),
        }
        for name, seconds in times.items()
    ]


def _reference(model: ResolvedModel, encoder: TextEncoder) -> Any:
    """Load sentence-transformers from the same folder; return None if it fails or gives different vectors."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    from stella_mteb.diagnostics.bench import differences  # noqa: PLC0415
    from stella_mteb.engine import packing  # noqa: PLC0415

    try:
        reference = SentenceTransformer(
            str(model.folder), device=str(encoder.device), model_kwargs={"dtype": encoder.dtype}
        )
    except Exception as error:
        say(f"sentence-transformers cannot load {model.folder}: {error}")
        return None
    reference[0].model.config.is_causal = packing.is_causal(encoder.backbone.config)
    reference.max_seq_length, reference.prompts = encoder.max_length, {}
    probe = ["A man opens a door.", "Rain falls on the empty street, and the train is late again."]
    expected = reference.encode(probe, show_progress_bar=False)
    dimension = expected.shape[1]
    if (
        dimension not in encoder.dimensions
        or differences(encoder.encode(probe, dimension=dimension), expected).min_cosine < 0.99
    ):
        say("sentence-transformers gives different vectors for this folder (its head or attention); not compared")
        return None
    return reference
