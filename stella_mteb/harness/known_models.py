"""Translates a model entry of MTEB's registry into a config of this engine.

Two of MTEB's wrappers are supported: `SentenceTransformerEncoderWrapper` with named prompts, and
`InstructSentenceTransformerModel`, which fills an instruction into a template. Every setting in
`ModelMeta.loader_kwargs` is either translated or refused by name; docs/registry.md has the table.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import mteb
from mteb.models import ModelMeta
from mteb.types import PromptType

from stella_mteb.errors import ConfigError
from stella_mteb.files.strict_yaml import COMMIT, file_name
from stella_mteb.models.config import Hub, ModelConfig

BY_NAME, BY_INSTRUCTION = "SentenceTransformerEncoderWrapper", "InstructSentenceTransformerModel"
LOADERS = {
    BY_NAME: BY_NAME,
    BY_INSTRUCTION: BY_INSTRUCTION,
    "sentence_transformers_loader": BY_NAME,
    "q3e_instruct_loader": BY_INSTRUCTION,
}
"""The supported loaders, and the wrapper that each one creates."""

TAKEN_OVER = {
    "model_prompts": "`prompts.own`",
    "instruction_template": "`prompts.template`, `prompts.without_instruction`",
    "apply_instruction_to_passages": "whether `prompts.template` has `document`",
    "prompts_dict": "`prompts.instructions`",
    "max_seq_length": "`max_length`",
    "model_max_length": "`max_length`",
    "include_prompt": "`include_prompt`",
    "add_eos_token": "`add_eos_token`",
    "add_bos_token": "`add_bos_token`",
    "dtype": "`dtype`; auto is the default of the device",
    "torch_dtype": "`dtype`; auto is the default of the device",
}
"""Settings of the registry, and the keys of a model YAML that they are translated to."""

WITHOUT_EFFECT = {
    "device": "the command line chooses the device",
    "trust_remote_code": "code of a repository runs only with consent in a model YAML; a model that needs it says so",
    "padding_side": "texts are computed without padding, or with positions that padding does not move",
    "num_frames": "of videos; texts only are read",
    "max_samples": "of sounds; texts only are read",
    "attn_implementation": "how attention is computed, not what",
    "use_cache": "nothing is generated",
    "pad_token": "padding is never seen",
}
"""Settings of the registry that do not change vectors here, and why."""

_NESTED = ("model_kwargs", "config_kwargs", "tokenizer_kwargs", "processor_kwargs")
_ONLY_INSTRUCTING = {
    "instruction_template", "apply_instruction_to_passages", "prompts_dict", "max_seq_length", "include_prompt",
    "add_eos_token", "padding_side",
}  # fmt: skip
_SIDES: dict[str, PromptType | None] = {"both": None, "query": PromptType.query, "document": PromptType.document}


def known_config(name: str) -> ModelConfig | None:
    """Return the config of a model in MTEB's registry, or None if the registry does not know the name.

    Raises:
        ConfigError: If MTEB runs the model in a way that this engine does not support.
    """
    try:
        return express(mteb.get_model_meta(name, fetch_from_hf=False))
    except KeyError:
        return None


def express(meta: ModelMeta) -> ModelConfig:
    """Translate an entry of the registry into a config.

    Raises:
        ConfigError: Names the unsupported setting, and the command that runs the model with MTEB's own wrapper.
    """
    loader = getattr(meta.loader, "__name__", "no loader at all")
    if loader not in LOADERS:
        raise _refused(meta, f"MTEB loads it with {loader}")
    wrapper, given = LOADERS[loader], given_to_wrapper(meta)
    if wrapper == BY_NAME and (wrong := sorted(given.keys() & _ONLY_INSTRUCTING)):
        raise _refused(meta, f"its entry has {wrong[0]}, which its loader {loader} does not take")
    flat = {key: value for key, value in given.items() if key not in _NESTED}
    for key in _NESTED:
        flat |= given.get(key, {})
    if strange := sorted(flat.keys() - TAKEN_OVER.keys() - WITHOUT_EFFECT.keys()):
        raise _refused(meta, f"its setting {strange[0]} is not supported")
    name = str(meta.name)
    fields: dict[str, Any] = {
        "name": file_name(name.partition("/")[2]),
        "registered_as": name,
        "hub": Hub(name=name, revision=meta.revision if re.fullmatch(COMMIT, str(meta.revision)) else None),
        "max_length": flat.get("max_seq_length", flat.get("model_max_length")),
        "matryoshka": meta.embed_dim if isinstance(meta.embed_dim, list) else [],
        **{key: flat.get(key) for key in ("include_prompt", "add_eos_token", "add_bos_token")},
    }
    dtype = str(getattr(found := flat.get("dtype", flat.get("torch_dtype")), "value", found))
    if dtype in {"float32", "float16", "bfloat16"}:
        fields["dtype"] = dtype
    if wrapper == BY_INSTRUCTION:
        fields["prompts"] = _instructing(meta, flat)
        fields["similarity"] = meta.similarity_fn_name and meta.similarity_fn_name.value
    elif flat.get("model_prompts"):
        fields["prompts"] = {"profile": "own", "own": flat["model_prompts"]}
    return ModelConfig(**{key: value for key, value in fields.items() if value not in (None, [])})


def given_to_wrapper(meta: ModelMeta) -> dict[str, Any]:
    """Return the settings that a loader passes to its wrapper: the registry's and, for Qwen3, the loader's own."""
    given = dict(meta.loader_kwargs or {})
    if getattr(meta.loader, "__name__", "") == "q3e_instruct_loader":
        template = vars(sys.modules[meta.loader.__module__])["instruction_template"]
        return {"instruction_template": template, "apply_instruction_to_passages": False, **given}
    return given


def _instructing(meta: ModelMeta, given: dict[str, Any]) -> dict[str, Any]:
    """Return the prompts of a model that fills instructions into a template; MTEB may have a function for it."""
    template, sides = given.get("instruction_template") or "{instruction}", dict(_SIDES)
    if not given.get("apply_instruction_to_passages", True):
        del sides["document"]
    filled, empty = dict.fromkeys(sides, template), {}
    if callable(template):
        mark = "\ue000"  # occurs in no prompt
        made = {side: template(mark, prompt_type) for side, prompt_type in sides.items()}
        if any("{instruction}" in text for text in made.values()):
            raise _refused(meta, "its template contains the literal text {instruction}")
        filled = {side: text.replace(mark, "{instruction}") for side, text in made.items()}
        empty = {side: template("", prompt_type) for side, prompt_type in sides.items()}
    instructions = {
        # MTEB reads the names of sides and ignores all other keys.
        key: {side: text for side, text in stated.items() if side in _SIDES} if isinstance(stated, dict) else stated
        for key, stated in (given.get("prompts_dict") or {}).items()
    }
    return {"profile": "instruct", "template": filled, "without_instruction": empty, "instructions": instructions}


def _refused(meta: ModelMeta, why: str) -> ConfigError:
    return ConfigError(
        f"{meta.name}: {why}, which this engine does not support; `stella-mteb mteb run -m {meta.name} -t TASK` runs "
        "it with MTEB's own wrapper"
    )
