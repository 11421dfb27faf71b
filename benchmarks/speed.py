"""Times the engine beside sentence-transformers on the same texts, after comparing the vectors.

    python -m benchmarks.speed --model all_minilm_l6_v2 --data ../shared/data --out results/performance/minilm.json
    python -m benchmarks.speed --model stella_shape --layers 2 --dtype bf16 --heads \
        --data ../shared/data --out results/performance/stella_shape.json

`stella_shape` has the layers and the tokenizer of Stella 1.5B, fewer layers and random weights: its time for a layer is
the real one's. All variants run in one process, in turns, on the same number of threads; a speed is reported only after
the vectors were compared (float32: no component may differ by more than 1e-4). No text stands twice in a workload, so
deduplication is of no help to anybody, and no prompt is added. On stdout: tokens/s, and how many times as long each
variant takes as the engine (median of the rounds).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from datasets import Dataset
from mteb._create_dataloaders import create_dataloader
from mteb.models import SentenceTransformerEncoderWrapper
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks.full_shape import write_full
from benchmarks.workloads import workloads
from stella_mteb.diagnostics import bench
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.files.atomic import write_json
from stella_mteb.models.resolve import resolve

Vectors = NDArray[np.float32]
Variants = dict[str, Callable[[], Vectors]]

ENGINE, REFERENCE = "engine", "sentence-transformers, batch 32"
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
MAX_LENGTH = 512
LARGEST_DIFFERENCE = 1e-4


# -------------------------------------------------------------------------------------------------------- variants


@contextmanager
def model_folder(name: str, layers: int, data: Path) -> Iterator[Path]:
    if name != "stella_shape":
        yield resolve(name).folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "stella_shape"
        write_full(folder, layers=layers, tokenizer=data / "stella_repo_layout")
        yield folder


def load_engine(name: str, folder: Path, dtype: str) -> TextEncoder:
    spec = f"{folder}@1024" if name == "stella_shape" else name
    return resolve(f"{spec}[{dtype},max_length={MAX_LENGTH}]").load("cpu")


def load_reference(folder: Path) -> Any:
    reference = SentenceTransformer(str(folder), device="cpu")
    # Not known to the folder: the code of Stella's repository does it. Of no effect on an encoder like MiniLM.
    reference[0].model.config.is_causal = False
    reference.max_seq_length = MAX_LENGTH
    reference.prompts = {}  # none is used, and mteb's wrapper warns of names that it does not know
    return reference


def st_variant(reference: Any, texts: Sequence[str], batch_size: int) -> Callable[[], Vectors]:
    return lambda: reference.encode(
        list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
    )


def mteb_variant(reference: Any, texts: Sequence[str]) -> Callable[[], Vectors]:
    """Return MTEB's own wrapper, called with a data loader like that of `mteb.evaluate`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of sentence-transformers, on what mteb calls
        wrapper = SentenceTransformerEncoderWrapper(reference)
    metadata = mteb.get_task("STSBenchmark").metadata
    dataset = Dataset.from_dict({"text": list(texts)})

    def run() -> Vectors:
        loader = create_dataloader(dataset, task_metadata=metadata, batch_size=32)
        vectors = wrapper.encode(
            loader,
            task_metadata=metadata,
            hf_split="test",
            hf_subset="default",
            batch_size=32,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors)

    return run


def pair_variant(reference: Any, texts: Sequence[str]) -> Callable[[], Vectors]:
    """Encode one pair per call, like the in-house module."""

    def run() -> Vectors:
        pairs = [list(texts[i : i + 2]) for i in range(0, len(texts), 2)]
        return np.concatenate(
            [reference.encode(pair, normalize_embeddings=True, show_progress_bar=False) for pair in pairs]
        )

    return run


def flag_variant(name: str, folder: Path, texts: Sequence[str]) -> Callable[[], Vectors] | str:
    """Return FlagEmbedding's model, or the reason why it is unavailable."""
    if find_spec("FlagEmbedding") is None:
        return "not installed"
    if name == "stella_shape":
        return "has neither a bidirectional Qwen2 nor a linear head"
    from FlagEmbedding import FlagModel

    model = FlagModel(
        str(folder), pooling_method="mean", normalize_embeddings=True, use_fp16=False, devices="cpu", batch_size=32
    )
    return lambda: np.asarray(model.encode(list(texts), max_length=MAX_LENGTH))


# -------------------------------------------------------------------------------------------------------- measures


class VectorsDifferError(RuntimeError):
    """Two variants give different vectors, so their speeds are not comparable."""


def compare(variants: Mapping[str, Callable[[], Vectors]], exempt: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Run every variant once and compare its vectors with those of `REFERENCE`.

    Raises:
        VectorsDifferError: If one that is not exempt differs by more than `LARGEST_DIFFERENCE`.
    """
    expected = variants[REFERENCE]()
    found: dict[str, dict[str, float]] = {}
    for name, variant in variants.items():
        difference = bench.differences(variant(), expected)
        if name not in exempt and not difference.max_difference <= LARGEST_DIFFERENCE:
            raise VectorsDifferError(
                f"{name}: a component differs from {REFERENCE} by {difference.max_difference:.2g}; no speed is given"
            )
        found[name] = vars(difference)
    return found


def padded_share(reference: Any, texts: Sequence[str], batch_size: int) -> float:
    """Return the share of padding among the tokens that reach the backbone."""
    seen = {"all": 0, "real": 0}

    def count(_: Any, given: Any) -> None:
        seen["all"] += given[0]["input_ids"].numel()
        seen["real"] += int(given[0]["attention_mask"].sum())

    hook = reference[0].register_forward_pre_hook(count)
    try:
        st_variant(reference, texts, batch_size)()
    finally:
        hook.remove()
    return 1 - seen["real"] / seen["all"]


def best_batch_size(reference: Any, texts: Sequence[str], sizes: Sequence[int]) -> tuple[int, dict[str, float]]:
    variants = {str(size): st_variant(reference, texts, size) for size in sizes}
    times = bench.interleave(variants, 2, warm_up=False)
    seconds = {size: min(each) for size, each in times.items()}
    return int(min(seconds, key=lambda size: seconds[size])), seconds


def measure(
    texts: Sequence[str],
    engines: Mapping[str, TextEncoder],
    reference: Any,
    flag: Any,
    repeats: int,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> dict[str, Any]:
    lengths = [len(ids) for ids in engines[ENGINE].tokenise(texts)]
    best, scan = best_batch_size(reference, texts, batch_sizes)
    variants: Variants = {name: (lambda encoder=engine: encoder.encode(texts)) for name, engine in engines.items()}
    variants |= {REFERENCE: st_variant(reference, texts, 32)}
    if best != 32:
        variants[f"sentence-transformers, batch {best} (its best)"] = st_variant(reference, texts, best)
    variants |= {"mteb's wrapper": mteb_variant(reference, texts), "pair by pair": pair_variant(reference, texts)}
    if callable(flag):
        variants["FlagEmbedding"] = flag
    compared = compare(variants, exempt=[name for name in engines if name != ENGINE])
    times = bench.interleave(variants, repeats, warm_up=False)
    return {
        "texts": len(texts),
        "tokens": sum(lengths),
        "attended_length": bench.attended_length(lengths),
        "length_percentiles": {str(q): float(np.percentile(lengths, q)) for q in (5, 25, 50, 75, 95)},
        "padded_share_of_batches": {str(size): padded_share(reference, texts, size) for size in {32, best}},
        "seconds_by_batch_size": scan,
        "variants": {
            name: compared[name]
            | {"seconds": seconds, "tokens_per_second": sum(lengths) / statistics.median(seconds)}
            | {"times_the_engine": vars(bench.ratio(times, name, ENGINE))}
            for name, seconds in times.items()
        },
    }


def add_shares(report: dict[str, Any], engines: Mapping[str, TextEncoder], rates: Mapping[str, float]) -> None:
    """Add to every variant its share of the measured matrix-product rate."""
    flops = bench.flops_per_token(engines[ENGINE].backbone, report["attended_length"])
    for name, variant in report["variants"].items():
        rate = rates[name if name in rates else ENGINE]
        variant["share_of_matmul_rate"] = variant["tokens_per_second"] * flops / rate


def measure_heads(encoder: TextEncoder, texts: Sequence[str], repeats: int) -> dict[str, Any]:
    """Compare one backbone pass and all heads with one pass and one head."""
    times = bench.time_heads(encoder, texts, repeats)
    return {"heads": encoder.dimensions, "seconds": times, "all_to_one": vars(bench.ratio(times, "all", "one"))}


# ------------------------------------------------------------------------------------------------------------ main


def show(kind: str, report: dict[str, Any]) -> None:
    padded = ", ".join(f"{share:.0%} at batch {size}" for size, share in report["padded_share_of_batches"].items())
    print(f"\n{kind}: {report['texts']} texts, {report['tokens']} tokens; sentence-transformers pads {padded}")
    print(f"{'':46}{'tokens/s':>9}{'of matmul':>11}{'time to engine':>24}{'max diff':>10}{'min cos':>10}")
    for name, row in report["variants"].items():
        times = bench.Ratio(**row["times_the_engine"])
        print(
            f"{name:46}{row['tokens_per_second']:9.0f}{row['share_of_matmul_rate']:11.0%}{times!s:>24}"
            f"{row['max_difference']:10.1e}{row['min_cosine']:10.6f}"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["all_minilm_l6_v2", "stella_shape"], required=True)
    parser.add_argument("--layers", type=int, default=2, help="of stella_shape")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=16_000, help="of each workload")
    parser.add_argument("--workloads", nargs="+", default=["sts", "passages", "long", "mixture"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES, help="of sentence-transformers")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="bf16: the engine in bf16 as well")
    parser.add_argument("--heads", action="store_true", help="also all heads against one (stella_shape)")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    engines = {ENGINE: load_engine(options.model, folder, "fp32")}
    if options.dtype == "bf16":
        engines["engine, bf16"] = load_engine(options.model, folder, "bf16")
    reference = load_reference(folder)
    rates = {name: bench.matmul_rate("cpu", engine.dtype).burst for name, engine in engines.items()}
    texts = workloads(options.data, options.tokens, lambda text: len(engines[ENGINE].tokenise([text])[0]))
    reports: dict[str, Any] = {}
    for kind in options.workloads:
        flag = flag_variant(options.model, folder, texts[kind])
        if isinstance(flag, str) and not reports:
            print(f"FlagEmbedding is left out: {flag}")
        reports[kind] = measure(texts[kind], engines, reference, flag, options.repeats, options.batch_sizes)
        add_shares(reports[kind], engines, rates)
        show(kind, reports[kind])
    figures: dict[str, Any] = {"matmul_flop_per_second": rates, "workloads": reports}
    if options.heads:
        figures["heads"] = measure_heads(engines[ENGINE], texts["mixture"], options.repeats)
        print(f"\nall {len(figures['heads']['heads'])} heads to one: {bench.Ratio(**figures['heads']['all_to_one'])}")
    return figures


def main() -> None:
    options = arguments()
    with model_folder(options.model, options.layers, options.data) as folder:
        figures = run(options, folder)
    packages = ("torch", "transformers", "sentence-transformers", "mteb")
    machine = {
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
    asked = {key: value for key, value in vars(options).items() if key not in {"out", "data"}}
    date = datetime.now(tz=UTC).date().isoformat()
    write_json(options.out, {"date": date, "machine": machine, "options": asked, **figures})


if __name__ == "__main__":
    main()
