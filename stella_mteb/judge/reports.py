"""Judgements as files, with the field names of the in-house leaderboard, and back.

<output>/aggregated/<judge>/<model>.json     means over clips, what `rank` reads
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
from stella_mteb.judge.similarity import PairScore

logger = logging.getLogger(__name__)

BESIDE = ("order", "consistency", "nli", "rouge_1_recall")
"""Measures that the in-house files do not have: each as `<measure>_stats`, null where no clip has it."""
_LONGEST_SLUG = 200  # bytes, of the 255 that a file system takes in a name


def judge_slug(spec: str) -> str:
    """A judge's spec as a folder name; one that has to be changed gets a digest, so that no two share a folder."""
    slug = (re.sub(r"[^\w.@=,+-]+", "_", spec).strip("_.") or "judge").encode()[:_LONGEST_SLUG].decode(errors="ignore")
    return slug if slug == spec else f"{slug}-{hashlib.blake2b(spec.encode(), digest_size=3).hexdigest()}"


def require_same_judge(output: Path, judge: str, identity: Mapping[str, Any]) -> None:
    """Raise unless what stands in a judge's folder was made by the same judge from the same references.

    A file that does not parse is set aside: whoever wrote it, its scores are lost, and are computed again.

    Raises:
        ConfigError: Names a file that was not; a ranking over both would compare what cannot be compared.
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
                f"{path} was judged with another {', '.join(changed)}; give this run an --output of its own, or remove "
                f"{path.parent} to judge again"
            )


def write_judgement(output: Path, judge: str, judgement: Judgement, identity: Mapping[str, Any]) -> None:
    """Write one candidate's pairs and means, each file atomically, the means last.

    Another process that judges into the same folder is waited for, and what it wrote is held against the identity.

    Args:
        output: The output folder.
        judge: The judge's folder name, from `judge_slug`.
        judgement: The scores.
        identity: What the judge was: revision, dimension, dtype, prompt and so on.

    Raises:
        ConfigError: If another judge's results have come into the folder.
        StorageProblem: If the files cannot be written; the old ones are intact.
    """
    slug = judgement.candidate.slug
    pairs = [{"video_id": clip, **dataclasses.asdict(score)} for clip, score in judgement.scores.items()]
    with writing(output, output / "aggregated" / judge):
        _require_same_judge(output, judge, identity)
        write_json(output / "pairs" / judge / f"{slug}.json", pairs)
        write_json(output / "aggregated" / judge / f"{slug}.json", aggregate(judge, judgement, identity))


def aggregate(judge: str, judgement: Judgement, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Means over clips, in the form of the in-house aggregated files.

    `total_evaluations` counts the clips that have a reference, `successful_evaluations` those that were scored;
    the others are named under `missing` and `empty`, and are in no mean. `wrapped` names the clips with a reasoning
    block, a heading and so on around the summary.
    """
    candidate, scores = judgement.candidate, list(judgement.scores.values())
    total = len(scores) + len(candidate.missing) + len(candidate.empty)
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
        **{f"{name}_stats": _stats_or_none(scores, name) for name in BESIDE},
        "missing": list(candidate.missing),
        "empty": list(candidate.empty),
        "unknown": list(candidate.unknown),
        "wrapped": {kind: list(clips) for kind, clips in candidate.wrapped.items()},
        "judge": dict(identity),
    }


def _stats_or_none(scores: Sequence[PairScore], name: str) -> dict[str, float] | None:
    values = [value for score in scores if (value := getattr(score, name)) is not None]
    return _stats(values) if values else None


def _stats(values: Sequence[float]) -> dict[str, float]:
    # Population standard deviation: with it, and not the sample's, the published files are reproduced.
    return {
        "mean": float(np.mean(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "std": float(np.std(values)),
    }


@dataclass(frozen=True)
class Result:
    """Figures of one judge for one candidate model.

    Attributes:
        mean: Mean HM-CF over the clips that were scored.
        count: How many these were; None where the file does not say.
        clips: HM-CF by clip; None where only the mean is known, as in in-house folders.
        means: Means of the other measures that the file has, over the clips that were scored.
    """

    mean: float
    count: int | None = None
    clips: Mapping[str, float] | None = None
    means: Mapping[str, float] = field(default_factory=dict)

    def values(self, clips: Sequence[str]) -> list[float]:
        """HM-CF of these clips."""
        return [(self.clips or {})[clip] for clip in clips]

    def mean_over(self, clips: Sequence[str] | None) -> float:
        """Mean HM-CF over these clips, or over its own."""
        return self.mean if clips is None else math.fsum(self.values(clips)) / len(clips)


def read_results(folder: Path) -> dict[str, dict[str, Result]]:
    """Results by judge and candidate model, from our own folders and in-house ones alike.

    Args:
        folder: An output folder of `judge`, or a folder with one folder of aggregated files for each judge.

    Raises:
        ConfigError: If there is no aggregated file, or one has another form; names it.
    """
    root = folder / "aggregated" if (folder / "aggregated").is_dir() else folder
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder")
    pairs = root.parent / "pairs" if root.name == "aggregated" else root / "pairs"
    found: dict[str, dict[str, Result]] = {}
    for path in sorted(root.glob("*/*.json")):
        content = read_json(path)
        try:
            mean, count = content["hybrid_stats"]["hm_cf"]["mean"], content.get("successful_evaluations")
            if not isinstance(mean, float | int) or not math.isfinite(mean):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{path}: has no number at hybrid_stats.hm_cf.mean; not an aggregated file") from None
        clips = _read_clips(pairs / path.parent.name / path.name)
        found.setdefault(path.parent.name, {})[path.stem] = Result(
            mean, count if isinstance(count, int) else None, clips, _other_means(content)
        )
    if not found:
        raise ConfigError(f"{root}: no aggregated files (<judge>/<model>.json)")
    return found


def _other_means(content: Mapping[str, Any]) -> dict[str, float]:
    fine = content.get("fine_grained_stats") or {}
    stats = {
        "coarse": content.get("coarse_grained_stats"),
        "precision": fine.get("precision"),
        "recall": fine.get("recall"),
        **{name: content.get(f"{name}_stats") for name in BESIDE},
    }
    return {name: float(own["mean"]) for name, own in stats.items() if own}


def _read_clips(path: Path) -> dict[str, float] | None:
    if not path.exists():
        return None
    try:
        return {str(row["video_id"]): float(row["hm_cf"]) for row in read_json(path)}
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path}: must be a list of objects with video_id and hm_cf") from None
