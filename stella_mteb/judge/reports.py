"""Writing and reading of judgements as JSON files with the field names of the in-house leaderboard.

<output>/aggregated/<judge>/<model>.json     means over clips, which `rank` reads
<output>/pairs/<judge>/<model>.json          the scores of every clip
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_json, read_json_object, set_aside, write_json
from stella_mteb.files.locks import writing
from stella_mteb.judge.judge import Judgement

logger = logging.getLogger(__name__)

BESIDE = ("order", "consistency", "nli", "rouge_1_recall")
"""Measures that in-house files lack; each is written as `<measure>_stats`, null if no clip has it."""
_LONGEST_SLUG = 200  # bytes; file systems limit a name to 255


def judge_slug(spec: str) -> str:
    """Convert a judge's spec to a folder name; a changed one gets a digest, so that no two specs share a folder."""
    slug = (re.sub(r"[^\w.@=,+-]+", "_", spec).strip("_.") or "judge").encode()[:_LONGEST_SLUG].decode(errors="ignore")
    return slug if slug == spec else f"{slug}-{hashlib.blake2b(spec.encode(), digest_size=3).hexdigest()}"


def require_same_judge(output: Path, judge: str, identity: Mapping[str, Any]) -> None:
    """Require that all results in a judge's folder are from the same judge and the same references.

    A file that does not parse is set aside, and its scores are computed again.

    Raises:
        ConfigError: Names a file of another judge or other references; a ranking must not mix the two.
        StorageProblem: If the folder cannot be written.
    """
    with writing(output, output / "aggregated" / judge):
        _require_same_judge(output, judge, identity)


def _require_same_judge(output: Path, judge: str, identity: Mapping[str, Any]) -> None:
    for path in sorted((output / "aggregated" / judge).glob("*.json")):
        try:
            before = {**read_json_object(path).get("judge", {})}
        except (ConfigError, TypeError) as error:
            logger.warning("%s; set aside as %s", error, set_aside(path).name)
            continue
        changed = [key for key in identity if before.get(key) != identity[key]]
        if changed:
            raise ConfigError(
                f"{path} was judged with different settings ({', '.join(changed)}); give this run its own "
                f"--output, or remove {path.parent} to judge again"
            )


def write_judgement(output: Path, judge: str, judgement: Judgement, identity: Mapping[str, Any]) -> None:
    """Write one candidate's pairs and means, each file atomically, the means last.

    The function waits for another process that writes to the same folder, then checks its files against the identity.

    Args:
        output: The output folder.
        judge: The judge's folder name, from `judge_slug`.
        judgement: The candidate's scores.
        identity: The judge's settings: revision, dimension, dtype, prompt and so on.

    Raises:
        ConfigError: If the folder now has another judge's results.
        StorageProblem: If the files cannot be written; the old ones are intact.
    """
    slug = judgement.candidate.slug
    pairs = [{"video_id": clip, **dataclasses.asdict(score)} for clip, score in judgement.scores.items()]
    with writing(output, output / "aggregated" / judge):
        _require_same_judge(output, judge, identity)
        write_json(output / "pairs" / judge / f"{slug}.json", pairs)
        write_json(output / "aggregated" / judge / f"{slug}.json", aggregate(judge, judgement, identity))


def aggregate(judge: str, judgement: Judgement, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Average over clips, in the format of the in-house aggregated files.

    `total_evaluations` counts the clips with a reference, `successful_evaluations` the scored ones. The other clips are
    listed in `missing` and `empty`, and are excluded from all means. `wrapped` lists the clips with a reasoning block,
    a heading and so on around the summary.
    """
    candidate, scores = judgement.candidate, list(judgement.scores.values())
    total = len(scores) + len(candidate.missing) + len(candidate.empty)
    beside = {name: [value for one in scores if (value := getattr(one, name)) is not None] for name in BESIDE}
    return {
        "decoder_name": judge,
        "model_name": candidate.slug,
        "total_evaluations": total,
        "successful_evaluations": len(scores),
        "error_rate": (total - len(scores)) / total,
        "coarse_grained_stats": _stats([score.coarse for score in scores]),
        "timestamp": datetime.datetime.now(tz=datetime.UTC).isoformat(),
        "fine_grained_stats": {
            name: _stats([getattr(score, name) for score in scores]) for name in ("precision", "recall", "f1")
        },
        "hybrid_stats": {"hm_cf": _stats([score.hm_cf for score in scores])},
        **{f"{name}_stats": _stats(values) if values else None for name, values in beside.items()},
        "missing": list(candidate.missing),
        "empty": list(candidate.empty),
        "unknown": list(candidate.unknown),
        "wrapped": {kind: list(clips) for kind, clips in candidate.wrapped.items()},
        "judge": dict(identity),
    }


def _stats(values: Sequence[float]) -> dict[str, float]:
    # The published files use the population standard deviation, not the sample's.
    return {
        "mean": float(np.mean(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "std": float(np.std(values)),
    }


@dataclass(frozen=True)
class Result:
    """One judge's results for one candidate model.

    Attributes:
        mean: Mean HM-CF over the scored clips.
        count: Number of scored clips; None if the file does not give it.
        clips: HM-CF by clip; None if only the mean is known, as in in-house folders.
        means: Means of the other measures in the file, over the scored clips.
    """

    mean: float
    count: int | None = None
    clips: Mapping[str, float] | None = None
    means: Mapping[str, float] = field(default_factory=dict)

    def values(self, clips: Sequence[str]) -> list[float]:
        """Return the HM-CF of these clips."""
        return [(self.clips or {})[clip] for clip in clips]

    def mean_over(self, clips: Sequence[str] | None) -> float:
        """Return the mean HM-CF over these clips; for None, over all scored clips."""
        return self.mean if clips is None else math.fsum(self.values(clips)) / len(clips)


def read_results(folder: Path) -> dict[str, dict[str, Result]]:
    """Read results by judge and candidate model, from an output folder of `judge` or an in-house folder.

    Args:
        folder: An output folder of `judge`, or a folder that has a folder of aggregated files for each judge.

    Raises:
        ConfigError: If there is no aggregated file, or one is malformed; names the file.
    """
    root = folder / "aggregated" if (folder / "aggregated").is_dir() else folder
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder; give the --output folder of stella-mteb judge")
    pairs = root.parent / "pairs" if root.name == "aggregated" else root / "pairs"
    found: dict[str, dict[str, Result]] = {}
    for path in sorted(root.glob("*/*.json")):
        content = read_json(path)
        try:
            mean, count = content["hybrid_stats"]["hm_cf"]["mean"], content.get("successful_evaluations")
            if not isinstance(mean, float | int) or not math.isfinite(mean):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{path}: no number at hybrid_stats.hm_cf.mean; not an aggregated file") from None
        clips = _read_clips(pairs / path.parent.name / path.name)
        fine = content.get("fine_grained_stats") or {}
        others = {
            "coarse": content.get("coarse_grained_stats"),
            "precision": fine.get("precision"),
            "recall": fine.get("recall"),
            **{name: content.get(f"{name}_stats") for name in BESIDE},
        }
        found.setdefault(path.parent.name, {})[path.stem] = Result(
            mean,
            count if isinstance(count, int) else None,
            clips,
            {name: float(own["mean"]) for name, own in others.items() if own},
        )
    if not found:
        raise ConfigError(
            f"{root}: no aggregated files (<judge>/<model>.json); give the --output folder of stella-mteb judge"
        )
    return found


def _read_clips(path: Path) -> dict[str, float] | None:
    if not path.exists():
        return None
    try:
        return {str(row["video_id"]): float(row["hm_cf"]) for row in read_json(path)}
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path}: must be a list of objects with video_id and hm_cf") from None
