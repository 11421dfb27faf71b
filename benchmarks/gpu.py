"""Measures a GPU with the shapes of Stella 1.5B and BGE-en-ICL, beside its matrix-product rate and other engines.

    PYTHONPATH=. python3 -m benchmarks.gpu --models stella --stages environment matmul check speed --out 1.json
    PYTHONPATH=. python3 -m benchmarks.gpu --models stella --stages matmul peers heads table compile --out 2.json
    PYTHONPATH=. python3 -m benchmarks.gpu --models bge --stages matmul check speed table --out 3.json
    PYTHONPATH=. python3 -m benchmarks.gpu --tiny --out tiny.json      # every step on a CPU, in a minute

Needs numpy, torch from 2.11 on, transformers 5, and for the stage `peers` sentence-transformers; no installation, no
weights, no network. Weights are random and made on the device: speed and memory do not depend on their values. Words
stand for tokens, so that lengths are exact; their tokenizer costs less than Stella's, and `tokenise_seconds` says how
much of the time is its. Each command is meant for less than ten minutes. A stage that fails is recorded with its error,
and the rest goes on; the file is written anew after every step.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import shutil
import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AttentionInterface, AutoModel, MistralConfig, PreTrainedTokenizerFast, Qwen2Config

from stella_mteb.diagnostics import bench
from stella_mteb.engine import devices, packing
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import Head, Pooling

STARTED = time.perf_counter()
MAX_LENGTH = 512
# config.json of NovaSearch/stella_en_1.5B_v5 at d03be74 and of BAAI/bge-en-icl.
SHAPES = {"stella": (1536, 28, 12, 2, 8960, 151_646), "bge": (4096, 32, 32, 8, 14336, 32_003)}
TINY = (64, 2, 4, 2, 128, 2_000)
KEYS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "intermediate_size", "vocab_size"),
)
DIMENSIONS = (256, 768, 1024, 2048, 4096, 6144, 8192)
# Tokens of real texts under Stella's tokenizer, cut at 512: the 40 middles of 40 equal parts of `mixture` in
# benchmarks/speed.py (45 % sentences, 40 % passages of some 50 words, 15 % summaries; 400 000 tokens, mean 86.8).
MIXTURE = (
    *(6, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 13, 14, 15, 17, 19, 23, 35, 47, 49),
    *(51, 52, 54, 55, 57, 59, 60, 62, 64, 66, 69, 72, 77, 83, 256, 296, 334, 379, 452, 512),
)
LENGTHS = {**{str(length): (length,) for length in (16, 32, 64, 128, 256, 512)}, "mixture": MIXTURE}
WORDS = 1_000
END = "</s>"


# ------------------------------------------------------------------------------------------------- models and texts


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word, and a closing token."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)} | {END: WORDS}, unk_token=END))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, WORDS)])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END, pad_token=END)


def texts_of(lengths: Sequence[int], tokens: int, seed: int = 0) -> list[str]:
    """Build texts of the given lengths in mixed order, up to a total number of tokens."""
    generator = np.random.default_rng(seed)
    count = max(2, round(tokens / float(np.mean(lengths))))
    chosen = generator.permutation(np.resize(lengths, count))
    return [" ".join(f"w{i}" for i in generator.integers(0, WORDS, length - 1)) for length in chosen]


class Setup:
    """A model shape on a device, with the amount of work for each stage."""

    def __init__(self, name: str, device: str, *, tiny: bool) -> None:
        self.name, self.device, self.tiny = name, device, tiny
        self.causal = name == "bge"
        shape: dict[str, Any] = dict(zip(KEYS, TINY if tiny else SHAPES[name], strict=True))
        # Large enough for attention to look at something: near zero, all texts would be alike and no leak would show.
        shape = {**shape, "initializer_range": 0.8 / shape["hidden_size"] ** 0.5, "use_cache": False}
        if self.causal:
            self.config: Any = MistralConfig(**shape, sliding_window=4096, max_position_embeddings=32_768)
        else:
            self.config = Qwen2Config(**shape, rope_theta=1e6, max_position_embeddings=131_072)
            self.config.is_causal = False
        self.backbone = self.build()
        self.tokens = 4_096 if tiny else (131_072 if name == "stella" else 65_536)
        self.budgets = (512, 1024) if tiny else (4_096, 8_192, 16_384, 32_768, 65_536)
        self.rates: dict[str, bench.MatmulRate] = {}

    def build(self) -> Any:
        """Create weights in bf16 on the device, without a copy in host memory."""
        packing.register()
        torch.manual_seed(0)
        with torch.device(self.device):
            return AutoModel.from_config(self.config, dtype=torch.bfloat16, attn_implementation=packing.NAME).eval()

    def encoder(self, backbone: Any = None, budget: int | None = None, heads: Sequence[int] = (1024,)) -> TextEncoder:
        """Build the engine around the backbone, or around another one of the same shape."""
        width = self.config.hidden_size
        return TextEncoder(
            tokenizer=tokenizer(),
            backbone=backbone or self.backbone,
            pooling=Pooling(("lasttoken",) if self.causal else ("mean",)),
            heads=[Head(size, lambda size=size: torch.nn.Linear(width, size)) for size in heads],
            dimension=1024,
            max_length=MAX_LENGTH,
            token_budget=budget or (16_384 if not self.tiny else 1_024),
        )


def figures(setup: Setup, texts: Sequence[str], seconds: Sequence[float]) -> dict[str, Any]:
    """Measure tokens per second, tokenizer included, and the share of the sustained matrix-product rate."""
    lengths = [text.count(" ") + 2 for text in texts]
    speed = sum(lengths) / statistics.median(seconds)
    flops = bench.flops_per_token(setup.backbone, bench.attended_length(lengths))
    share = speed * flops / rate(setup, "bfloat16").sustained
    return {"tokens_per_second": speed, "share_of_matmul_rate": share, "seconds": list(seconds)}


def rate(setup: Setup, dtype: str) -> bench.MatmulRate:
    if dtype not in setup.rates:
        setup.rates[dtype] = bench.matmul_rate(setup.device, getattr(torch, dtype))
    return setup.rates[dtype]


def with_peak(setup: Setup, run: Callable[[], Any]) -> dict[str, int]:
    """Run once more to measure memory."""
    if setup.device != "cuda":
        run()
        return {"peak_memory": devices.peak_memory()}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    weights = torch.cuda.memory_allocated()
    run()
    return {"peak_memory": devices.peak_memory("cuda"), "memory_before": weights}


# ----------------------------------------------------------------------------------------------------------- stages


def environment(setup: Setup) -> dict[str, Any]:
    found: dict[str, Any] = {"date": datetime.now(tz=UTC).isoformat(timespec="minutes")}
    packages = ("torch", "transformers", "sentence_transformers", "numpy")
    found |= {name: version(name) for name in packages if find_spec(name)}
    if setup.device == "cuda":
        found |= {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    if shutil.which("nvidia-smi"):
        query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv"]
        found["nvidia_smi"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()  # noqa: S603
    return found


def matmul(setup: Setup) -> dict[str, Any]:
    return {dtype: vars(rate(setup, dtype)) for dtype in ("bfloat16", "float32")}


def check(setup: Setup) -> dict[str, Any]:
    """Compare vectors with float32, one text at a time, through transformers' attention; neighbours have no effect."""
    texts = texts_of([3, 16, 17, 64, 129, 256, 511, 512, 512], 3_000 if setup.tiny else 8_000, seed=1)
    packed = setup.encoder().pool(texts)
    alone = np.concatenate([setup.encoder().pool([text]) for text in texts])
    single = copy.deepcopy(setup.backbone).float()
    packed32 = setup.encoder(single).pool(texts)
    alone32 = np.concatenate([setup.encoder(single).pool([text]) for text in texts])
    single.set_attn_implementation("sdpa")
    expected = np.concatenate([setup.encoder(single).pool([text]) for text in texts])
    shuffled = np.random.default_rng(0).permutation(len(texts))
    again = setup.encoder().pool([texts[i] for i in shuffled])
    pairs = {
        "bf16_packed_to_float32": (packed, expected),
        "bf16_alone_to_packed": (alone, packed),
        "bf16_other_order_to_packed": (again, packed[shuffled]),
        "float32_packed_to_float32": (packed32, expected),
        "float32_alone_to_packed": (alone32, packed32),
    }
    found: dict[str, Any] = {name: vars(bench.differences(*pair)) for name, pair in pairs.items()}
    return found | canary(setup)


def canary(setup: Setup) -> dict[str, float]:
    """Measure the change of all vectors when the last token of one text changes, with and without separated texts."""
    encoder = setup.encoder()
    first, neighbour, other = (np.asarray(ids, dtype=np.int32) for ids in encoder.tokenise(texts_of([40], 120, seed=2)))
    changed = first.copy()
    changed[-1] = 7

    def moved(a: list[Any], b: list[Any], where: slice) -> float:
        return float((encoder.hidden(a)[where] - encoder.hidden(b)[where]).float().abs().max())

    return {
        "first_state_by_own_last_token": moved([first], [changed], slice(0, 1)),  # 0 if and only if causal
        "text_by_its_neighbour": moved([neighbour, first], [other, first], slice(len(other), None)),  # 0
        "text_by_its_neighbour_if_it_saw_it": moved(
            [np.concatenate([neighbour, first])], [np.concatenate([other, first])], slice(len(other), None)
        ),
    }


def speed(setup: Setup) -> dict[str, Any]:
    """Measure speed, share of the matrix-product rate and memory over token budgets and lengths."""
    kinds = LENGTHS if setup.name == "stella" else {key: LENGTHS[key] for key in ("16", "128", "512", "mixture")}
    found: dict[str, Any] = {}
    for kind, lengths in kinds.items():
        texts = texts_of(lengths, setup.tokens)
        variants = {str(budget): partial(setup.encoder(budget=budget).pool, texts) for budget in setup.budgets}
        times = bench.interleave(variants, 3, device=setup.device)
        started = time.perf_counter()
        setup.encoder().tokenise(texts)
        found[kind] = {"texts": len(texts), "tokenise_seconds": time.perf_counter() - started} | {
            key: figures(setup, texts, times[key]) | with_peak(setup, variants[key]) for key in variants
        }
        say(setup, kind, " ".join(f"{key}: {found[kind][key]['tokens_per_second']:.0f}" for key in variants))
    return found


def peers(setup: Setup) -> dict[str, Any]:
    """Measure sentence-transformers on the same weights: bf16, default attention, default and best batch size."""
    with tempfile.TemporaryDirectory() as folder:
        reference = load_reference(setup, Path(folder))
    sizes = (16, 32, 64, 128, 256, 512, 1024) if not setup.tiny else (16, 32)
    found: dict[str, Any] = {}
    for kind in ("16", "128", "512", "mixture"):
        texts = texts_of(LENGTHS[kind], setup.tokens // 2)
        variants: dict[str, Callable[[], Any]] = {"engine": partial(setup.encoder().pool, texts)}
        encode = partial(reference.encode, texts, show_progress_bar=False)
        variants |= {str(size): partial(encode, batch_size=size) for size in sizes}
        difference = bench.differences(variants["32"](), variants["engine"]())
        if not difference.min_cosine > 0.99:
            raise RuntimeError(f"not the same vectors: {difference}")
        times = bench.interleave(variants, 2, device=setup.device)
        best = min(sizes, key=lambda size: statistics.median(times[str(size)]))
        ratios = {f"{size}_to_engine": bench.ratio(times, str(size), "engine") for size in (16, 32, best)}
        found[kind] = {key: figures(setup, texts, each) for key, each in times.items()}
        found[kind] |= {"best": best, **vars(difference)}
        found[kind] |= {key: vars(value) for key, value in ratios.items()}
        say(setup, kind, ", ".join(f"{key}: {value}" for key, value in ratios.items()))
    return found


def load_reference(setup: Setup, folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    setup.backbone.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    transformer = modules.Transformer(str(folder))
    transformer.processor = tokenizer()  # transformers reads the folder's as Qwen2's
    pooling = modules.Pooling(setup.config.hidden_size, pooling_mode="lasttoken" if setup.causal else "mean")
    reference = SentenceTransformer(modules=[transformer, pooling], device=setup.device)
    reference.max_seq_length = MAX_LENGTH
    parameter = next(reference.parameters())
    say(setup, "sentence-transformers", f"{parameter.dtype}, {transformer.model.config._attn_implementation}")
    return reference


def heads(setup: Setup) -> dict[str, Any]:
    """Compare the time of all seven heads with that of one."""
    times = bench.time_heads(setup.encoder(heads=DIMENSIONS), texts_of(MIXTURE, setup.tokens), 5)
    return {"seconds": times, "all_to_one": vars(bench.ratio(times, "all", "one"))}


def table(setup: Setup) -> dict[str, Any]:
    """Measure a batch of 16 texts of 512 tokens, as in the comparison of Stella with BGE-ICL."""
    texts, found = texts_of([512], 16 * 512), {}
    try:
        for dtype in (torch.bfloat16, torch.float32):
            backbone = setup.backbone if dtype == torch.bfloat16 else copy.deepcopy(setup.backbone).float()
            if backbone is not setup.backbone:
                setup.backbone.to("cpu")  # so that only one of the two counts
            batch = partial(setup.encoder(backbone, budget=16 * 512).encode, texts)
            seconds = bench.interleave({"batch": batch}, 10, device=setup.device)["batch"]
            memory = with_peak(setup, batch)
            found[str(dtype)] = {"seconds": seconds, "median": statistics.median(seconds), **memory}
            say(setup, str(dtype), f"{statistics.median(seconds):.4f} s, {memory['peak_memory'] / 2**30:.2f} GiB")
    finally:
        setup.backbone.to(setup.device)  # the stages after this one need it there, whatever happened
    return found


def compile_layers(setup: Setup) -> dict[str, Any]:
    """Compare torch.compile of each decoder layer with eager mode, with attention inside and outside the graph."""
    # On a CPU the attention is compiled anew for every number of lengths; one is enough to see that it runs.
    texts = texts_of([16], 256) if setup.tiny else texts_of(MIXTURE, setup.tokens)
    found: dict[str, Any] = {}
    for name, attention in (
        ("attention_outside", torch.compiler.disable(packing.attention)),
        ("attention_inside", packing.attention),
    ):
        try:
            found[name] = compiled(setup, texts, attention)
        except Exception:  # the other way may work
            found[name] = {"error": traceback.format_exc()[-3000:]}
        finally:
            packing.register()
            torch._dynamo.reset()
        say(setup, name, str({key: found[name][key] for key in ("eager_to_compiled", "error") if key in found[name]}))
    return found


def compiled(setup: Setup, texts: Sequence[str], attention: Callable[..., Any]) -> dict[str, Any]:
    AttentionInterface.register(packing.NAME, attention)
    backbone = copy.deepcopy(setup.backbone)
    for layer in backbone.layers:
        layer.compile(dynamic=True)
    eager, fast = setup.encoder(), setup.encoder(backbone)
    started = time.perf_counter()
    difference = bench.differences(fast.pool(texts), eager.pool(texts))
    first = time.perf_counter() - started
    variants = {"eager": partial(eager.pool, texts), "compiled": partial(fast.pool, texts)}
    times = bench.interleave(variants, 5, device=setup.device)
    return {
        "first_seconds": first,
        "eager_to_compiled": vars(bench.ratio(times, "eager", "compiled")),
        "eager": figures(setup, texts, times["eager"]),
        "compiled": figures(setup, texts, times["compiled"]) | with_peak(setup, variants["compiled"]),
        **vars(difference),
    }


# ------------------------------------------------------------------------------------------------------------- main

STAGES: dict[str, Callable[[Setup], Any]] = {
    "environment": environment,
    "matmul": matmul,
    "check": check,
    "speed": speed,
    "peers": peers,
    "heads": heads,
    "table": table,
    "compile": compile_layers,
}


def say(setup: Setup, what: str, text: str) -> None:
    print(f"[{time.perf_counter() - STARTED:5.0f} s] {setup.name} {what}: {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=["stella", "bge"], default=["stella", "bge"])
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, for a trial run on a CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    for name in options.models:
        setup = Setup(name, options.device, tiny=options.tiny)
        say(setup, "built", f"{sum(p.numel() for p in setup.backbone.parameters()) / 1e9:.2f} billion parameters")
        for stage in options.stages:
            started = time.perf_counter()
            try:
                found = STAGES[stage](setup)
            except Exception:  # recorded; the rest goes on
                found = {"error": traceback.format_exc()[-3000:]}
            seconds = round(time.perf_counter() - started, 1)
            report.setdefault(name, {})[stage] = {"stage_seconds": seconds, **found}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=2) + "\n")
            say(setup, stage, found.get("error", f"done in {seconds} s"))
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()
        del setup


if __name__ == "__main__":
    main()
