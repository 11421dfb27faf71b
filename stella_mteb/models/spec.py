"""Model specs: one string that identifies a model on the command line, in results and in reports.

    stella_en_1.5B_v5                      the model with the defaults of its config
    stella_en_1.5B_v5@1024                 another head
    stella_en_1.5B_v5@8192[bf16,card]      with a dtype and a prompt profile
    stella_en_1.5B_v5[max_length=256]      a setting with a value
    bge_en_icl[shots=3]                    at most three few-shot examples
    ./my_model[as=intfloat/e5-small-v2]    a folder with the settings of that model in MTEB's registry
    ./my_model@128[cut]                    the first 128 numbers of each vector (Matryoshka)
    ./my_models/stella@256                 a local folder

`Spec.parse(str(spec)) == spec` for every spec.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.strict_yaml import NAME

DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
_SHORT_DTYPES = {long: short for short, long in DTYPES.items()}

_FORM = re.compile(r"(?P<name>[^\[\]@]+)(?:@(?P<dimension>\d+))?(?:\[(?P<options>[^\[\]]*)\])?")
_PROFILE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Spec:
    """A model and the settings of a run.

    Attributes:
        name: Name of a config, path of a config file, local folder, or hub name.
        dimension: Dimension of the head, or None for the config's default.
        dtype: `bfloat16`, `float32` or `float16`, or None for the device's default.
        prompts: Name of the prompt profile, or None for the config's default.
        max_length: Longest input in tokens, prompt and special tokens included, or None for the config's.
        shots: Maximum number of few-shot examples for each task, or None for all.
        registered_as: Model in MTEB's registry whose prompts and settings apply to the folder.
        cut: Whether the dimension is a truncated longer vector, not a head.
    """

    name: str
    dimension: int | None = None
    dtype: str | None = None
    prompts: str | None = None
    max_length: int | None = None
    shots: int | None = None
    cut: bool | None = None
    registered_as: str | None = None

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Parse a spec.

        Args:
            text: For example `stella_en_1.5B_v5@1024[bf16,card]`.

        Raises:
            ConfigError: If the form, a number or an option is invalid.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ConfigError(
                f"invalid model spec {text!r}. "
                "The form is NAME[@DIMENSION][[OPTION,...]], for example stella_en_1.5B_v5@1024[bf16,card]"
            )
        dimension = _positive(text, "dimension", match["dimension"]) if match["dimension"] else None
        spec = cls(name=match["name"].strip(), dimension=dimension)
        for option in filter(None, map(str.strip, (match["options"] or "").split(","))):
            key, equals, value = option.partition("=")
            field: str
            parsed: Any
            if equals and key in {"max_length", "shots"}:
                field, parsed = key, 0 if key == "shots" and value == "0" else _positive(text, key, value)
            elif equals and key == "as" and re.fullmatch(f"{NAME}/{NAME}", value):
                field, parsed = "registered_as", value
            elif equals:
                known = "the settings are max_length=N, shots=N and as=ORGANISATION/NAME"
                raise ConfigError(f"model spec {text!r}: unknown setting {option!r}; {known}")
            elif option == "cut":
                field, parsed = "cut", True
            elif option in DTYPES:
                field, parsed = "dtype", DTYPES[option]
            elif _PROFILE.fullmatch(option):
                field, parsed = "prompts", option
            else:
                raise ConfigError(
                    f"model spec {text!r}: option {option!r} is neither a dtype ({', '.join(DTYPES)}) "
                    "nor the name of a prompt profile"
                )
            if getattr(spec, field) is not None:
                raise ConfigError(f"model spec {text!r} sets {field} twice")
            spec = replace(spec, **{field: parsed})
        return spec

    def __str__(self) -> str:
        options = [
            _SHORT_DTYPES[self.dtype] if self.dtype else None,
            self.prompts,
            f"max_length={self.max_length}" if self.max_length else None,
            f"shots={self.shots}" if self.shots is not None else None,
        ]
        options += ["cut" if self.cut else None, f"as={self.registered_as}" if self.registered_as else None]
        named = ",".join(option for option in options if option)
        return self.name + (f"@{self.dimension}" if self.dimension else "") + (f"[{named}]" if named else "")


def _positive(text: str, field: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 18 or int(value) == 0:
        raise ConfigError(f"model spec {text!r}: {field} must be a positive whole number (got {value!r})")
    return int(value)
