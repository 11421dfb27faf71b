"""The MTEB task classes for tasks from YAML; `stella_mteb.harness.task_yaml` reads the YAML and the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskPairClassification, AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.languages import check_language_code
from mteb.types import Licenses

from stella_mteb.errors import ConfigError
from stella_mteb.files.strict_yaml import read_yaml
from stella_mteb.harness.task_yaml import MAIN_SCORE, Pairs, TaskFile, TaskSpec
from stella_mteb.statistics.correlation import Correlations, correlate


def metadata(spec: TaskSpec) -> TaskMetadata:
    """Build MTEB's description of a task from YAML."""
    source = spec.hub.path if spec.hub else f"local/{spec.name}"
    return TaskMetadata(
        name=spec.name,
        description=spec.description or spec.name,
        type=spec.type,
        category="t2t",
        modalities=["text"],
        dataset={"path": source, "revision": spec.hub.revision if spec.hub else "local"},
        eval_splits=[spec.split],
        eval_langs=spec.languages,
        main_score=MAIN_SCORE[spec.type],
        prompt=spec.instruction,
        bibtex_citation=spec.citation,
        license=spec.licence if spec.licence in get_args(Licenses) or spec.licence.startswith("http") else None,
    )


class _FromYaml:
    """A mixin that loads `self.dataset` from the rows of the YAML's data."""

    stella_mteb_file: TaskFile
    metadata: TaskMetadata
    dataset: Any
    data_loaded = False

    def load_data(self, num_proc: int | None = None, *, timer: Any = None, **kwargs: Any) -> None:
        """Read and check the rows; see `AbsTask.load_data`."""
        if self.data_loaded:
            return
        pairs = self.stella_mteb_file.pairs
        self.metadata = self.metadata.model_copy(
            update={"dataset": {**self.metadata.dataset, "revision": self.stella_mteb_file.revision}}
        )
        self.dataset = self._dataset(pairs)
        self.data_loaded = True

    def _dataset(self, pairs: Pairs) -> Any:
        raise NotImplementedError

    @property
    def _split(self) -> str:
        return self.stella_mteb_file.spec.split


class _STS(_FromYaml, AbsTaskSTS):  # type: ignore[misc]
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.min_score, self.max_score = self.stella_mteb_file.spec.score_range

    def _dataset(self, pairs: Pairs) -> DatasetDict:
        rows = [
            (reference, text, score)
            for references, text, score in zip(pairs.references, pairs.second, pairs.scores, strict=True)
            for reference in references
        ]
        columns = zip(("sentence1", "sentence2", "score"), map(list, zip(*rows, strict=True)), strict=True)
        return DatasetDict({self._split: Dataset.from_dict(dict(columns))})

    def of_best_reference(self, values: Sequence[float]) -> list[float]:
        """Return the highest value of each text over its references; MTEB sees one row per reference."""
        counts = [len(references) for references in self.stella_mteb_file.pairs.references]
        found: list[float] = np.maximum.reduceat(np.asarray(values), np.cumsum([0, *counts[:-1]])).tolist()
        return found

    def _calculate_scores(self, scores: Any, normalized_scores: list[float]) -> Any:
        pairs = self.stella_mteb_file.pairs
        # MTEB negates distances, so the highest value is the best for them too.
        of_texts = {
            name: values if values is None else self.of_best_reference(values) for name, values in scores.items()
        }
        result = dict(super()._calculate_scores(of_texts, self.of_best_reference(normalized_scores)))
        cosines = of_texts["cosine_scores"] or []
        if pairs.labels:
            result["per_label"] = per_label(pairs.labels, pairs.first, pairs.scores, cosines)
        if pairs.raters:
            result["raters"] = against_raters(pairs.raters, cosines)
        if pairs.systems:
            result["systems"] = over_systems(pairs.systems, pairs.scores, cosines)
        return result


class _PairClassification(_FromYaml, AbsTaskPairClassification):  # type: ignore[misc]
    def _dataset(self, pairs: Pairs) -> DatasetDict:
        positive_from = self.stella_mteb_file.spec.positive_from or 0.0
        labels = [int(score >= positive_from) for score in pairs.scores]
        columns = {"sentence1": pairs.first, "sentence2": pairs.second, "labels": labels}
        return DatasetDict({self._split: Dataset.from_dict(columns)})


class _Retrieval(_FromYaml, AbsTaskRetrieval):  # type: ignore[misc]
    def _dataset(self, pairs: Pairs) -> dict[str, Any]:
        scores = pairs.scores or [1.0] * len(pairs.first)
        grades = _grades(scores, self.stella_mteb_file.spec.positive_from or 0.0)
        judged = list(zip(pairs.first, pairs.second, grades, strict=True))
        queries = {text: f"query-{i}" for i, text in enumerate(dict.fromkeys(q for q, _, grade in judged if grade))}
        documents = {text: f"document-{i}" for i, text in enumerate(dict.fromkeys(pairs.second))}
        relevant: dict[str, dict[str, int]] = {}
        for query, document, grade in judged:
            if grade:
                of_query = relevant.setdefault(queries[query], {})
                of_query[documents[document]] = max(grade, of_query.get(documents[document], 0))
        split = {
            "queries": Dataset.from_dict({"id": list(queries.values()), "text": list(queries)}),
            "corpus": Dataset.from_dict(
                {"id": list(documents.values()), "text": list(documents), "title": [""] * len(documents)}
            ),
            "relevant_docs": relevant,
            "top_ranked": None,
        }
        return {"default": {self._split: split}}


def _grades(scores: Sequence[float], positive_from: float) -> list[int]:
    """Compute the gain of each pair, 0 where it is not positive.

    MTEB needs whole numbers as gains, and nDCG does not change if all gains are scaled. If scores of zero or less count
    as positive, scores cannot serve as gains, and every positive pair has the gain 1.
    """
    positive = [score for score in scores if score >= positive_from]
    if min(positive, default=0) <= 0:
        return [int(score >= positive_from) for score in scores]
    scale = 1 if all(score.is_integer() for score in positive) else 1_000
    return [max(1, round(scale * score)) if score >= positive_from else 0 for score in scores]


BASES: dict[str, type[Any]] = {
    "STS": _STS,
    "PairClassification": _PairClassification,
    "Retrieval": _Retrieval,
}


def task_class(file: TaskFile) -> type[Any]:
    """Create the MTEB task class of a YAML.

    The data is read when MTEB asks for it; only then is the revision of local data, a digest of its rows, known.

    Raises:
        ConfigError: If MTEB does not know one of its languages.
    """
    spec = file.spec
    for i, code in enumerate(spec.languages):
        try:
            check_language_code(code)
        except ValueError:
            line = read_yaml(file.path)[1].get(("languages", i), 1)
            raise ConfigError(f"{file.path}:{line}: languages.{i}: unknown language or script: {code!r}") from None
    body: Mapping[str, Any] = {
        "metadata": metadata(spec),
        "stella_mteb_file": file,
        "stella_mteb_spec": spec,
        "__doc__": spec.description,
        "__module__": __name__,
    }
    return type(spec.name, (BASES[spec.type],), dict(body))


def per_label(
    labels: Sequence[str], first: Sequence[str], gold: Sequence[float], predicted: Sequence[float]
) -> list[dict[str, Any]]:
    """Compute scores for each label, which show where a model fails.

    Args:
        labels: Label of each pair.
        first: sentence1 of each pair; pairs that share it are candidates for the same reference.
        gold: Gold scores.
        predicted: Cosines.

    Returns:
        For each label, by descending mean gold score: `label`, `pairs`, `gold_mean`, `cosine_mean`, and `order_kept`.
        The latter compares each pair of this label with the pairs of the same sentence1 and a different gold score,
        and is the share in which the cosines have the order of the gold scores (ties count half; 0.5 is chance; None
        if there is nothing to compare).
    """
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(first):
        groups.setdefault(text, []).append(i)
    rows = []
    for label in dict.fromkeys(labels):
        members = [i for i, own in enumerate(labels) if own == label]
        kept = [
            (np.sign(predicted[i] - predicted[j]) * np.sign(gold[i] - gold[j]) + 1) / 2
            for i in members
            for j in groups[first[i]]
            if gold[i] != gold[j]
        ]
        rows.append(
            {
                "label": label,
                "pairs": len(members),
                "gold_mean": float(np.mean([gold[i] for i in members])),
                "cosine_mean": float(np.mean([predicted[i] for i in members])),
                "order_kept": float(np.mean(kept)) if kept else None,
            }
        )
    return sorted(rows, key=lambda row: -row["gold_mean"])


def against_raters(raters: Sequence[Sequence[float]], predicted: Sequence[float]) -> dict[str, Any] | None:
    """Compute the agreement of cosines with single raters, and of the raters with each other.

    Returns:
        Spearman's rho and Kendall's tau-b between the cosines and a rater's scores, averaged over raters. The ceiling
        is the same between a rater's scores and the mean of the others. None unless all texts have the same number
        of raters, two or more.
    """
    count = min(map(len, raters))
    if count < 2 or count != max(map(len, raters)):
        return None
    table = np.array(raters)
    found = [correlate(np.asarray(predicted), table[:, one]) for one in range(count)]
    others = [correlate(table[:, one], np.delete(table, one, axis=1).mean(axis=1)) for one in range(count)]
    return {
        "count": count,
        **{name: _mean(found, name) for name in ("spearman", "kendall_b")},
        **{f"ceiling_{name}": _mean(others, name) for name in ("spearman", "kendall_b")},
    }


def _mean(found: Sequence[Correlations], name: str) -> float | None:
    known = [value for one in found if (value := getattr(one, name)) is not None]
    return float(np.mean(known)) if known else None


def over_systems(systems: Sequence[str], gold: Sequence[float], predicted: Sequence[float]) -> dict[str, Any]:
    """Compute the means of each system, highest gold score first, and Spearman's rho over the systems."""
    rows = []
    for system in dict.fromkeys(systems):
        members = [i for i, own in enumerate(systems) if own == system]
        means = {"gold_mean": gold, "cosine_mean": predicted}
        rows.append(
            {"system": system, "texts": len(members)}
            | {name: float(np.mean([values[i] for i in members])) for name, values in means.items()}
        )
    of_means = correlate(*(np.array([row[name] for row in rows]) for name in ("gold_mean", "cosine_mean")))
    return {"spearman": of_means.spearman, "means": sorted(rows, key=lambda row: -row["gold_mean"])}
