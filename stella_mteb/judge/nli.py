"""Probabilities of contradiction by a cross-encoder for natural-language inference (NLI) from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stella_mteb.errors import ConfigError
from stella_mteb.models.locate import folder_fingerprint

_BATCH = 32


class NliModel:
    """A cross-encoder with an output for contradiction, such as `cross-encoder/nli-deberta-v3-base`.

    transformers' own classes load it from safetensors. Nothing is downloaded, and no code of the folder runs.

    Args:
        folder: A model folder as transformers saves it.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; None is `auto`.

    Raises:
        ConfigError: If the folder holds no such model; names the missing part.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415 -- seconds

        from stella_mteb.engine.devices import resolve_device  # noqa: PLC0415 -- imports torch

        if not (folder / "config.json").is_file():
            raise ConfigError(f"--nli {folder}: has no config.json; give the folder of a downloaded NLI cross-encoder")
        only_here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **only_here)
            model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, **only_here)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--nli {folder}: cannot be loaded: {error}") from error
        labels = {int(number): str(label).lower() for number, label in model.config.id2label.items()}
        found = [number for number, label in labels.items() if label.startswith("contradict")]
        if len(found) != 1:
            raise ConfigError(
                f"--nli {folder}: no output is named contradiction, only {', '.join(labels.values())}; name it in "
                "id2label of config.json"
            )
        self._model, self._contradiction = model.eval().to(resolve_device(device)), found[0]
        self._known: dict[tuple[str, str], float] = {}
        self.revision = f"local-{folder_fingerprint(folder)}"

    def contradiction(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Compute the probability that two sentences contradict each other, averaged over both directions.

        Each pair is computed once, because a judge asks for the figures and for the page.

        Returns:
            float64 [pairs], from 0 to 1.
        """
        import torch  # noqa: PLC0415

        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        # A tokenizer without a configured limit reports 10^30.
        longest = min(self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", 512))
        both = [*new, *((other, one) for one, other in new)]
        order = sorted(range(len(both)), key=lambda place: sum(map(len, both[place])))
        found = np.empty(len(both))
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            given = self._tokenizer(
                *map(list, zip(*(both[place] for place in places), strict=True)),
                padding=True, truncation=True, max_length=int(longest), return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                logits = self._model(**given.to(self._model.device)).logits.float()
            found[places] = logits.softmax(dim=-1)[:, self._contradiction].cpu().numpy()
        means = (found[: len(new)] + found[len(new) :]) / 2
        self._known |= dict(zip(new, means.tolist(), strict=True))
        return np.array([self._known[pair] for pair in pairs])
