"""Loads a model folder as a TextEncoder, with native classes and safetensors, without code of the repository."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from stella_mteb.engine import packing
from stella_mteb.engine.devices import is_out_of_memory, resolve_device
from stella_mteb.engine.encoder import TextEncoder, store_fingerprint
from stella_mteb.engine.pooling import Head, Pooling
from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.models.gte import gte_config
from stella_mteb.models.heads import load_head
from stella_mteb.models.icl import IclTokeniser
from stella_mteb.models.layout import positions
from stella_mteb.models.trust import remote_model, require_known_code, require_plain_weights
from stella_mteb.prompts.examples import TOKENS

if TYPE_CHECKING:
    from stella_mteb.models.resolve import ResolvedModel

_OBEYS_IS_CAUSAL = (5, 2)
"""The first transformers version that applies `is_causal` of a config to padded batches."""
_ENCODER_HALVES = ("mt5", "t5", "umt5")


def load_text_encoder(model: ResolvedModel, device: str | None) -> TextEncoder:
    """Load a resolved model; see `ResolvedModel.load`."""
    where = resolve_device(device)
    layout, config = model.layout, model.config
    backbone = _load_backbone(model, getattr(torch, model.dtype(device)), where)
    tokenizer = tokenizer_of(model)
    return TextEncoder(
        tokenizer=tokenizer,
        tokenise=_icl_tokeniser(model, tokenizer) if config.few_shot else None,
        backbone=backbone,
        pooling=_pooling(model),
        heads=[
            Head(dimension, functools.partial(load_head, chain, dimension)) for dimension, chain in layout.heads.items()
        ],
        dimension=model.dimension,
        max_length=_checked_length(model),
        normalize=model.normalize,
        batch_size=config.batch_size,
        token_budget=config.token_budget,
        fingerprint=_fingerprint(model),
    )


def fingerprint_of(model: ResolvedModel, device: str | None) -> dict[str, str]:
    """Return `TextEncoder.fingerprint` of a model without loading it."""
    return store_fingerprint(
        _fingerprint(model), getattr(torch, model.dtype(device)), model.max_length, _pooling(model)
    )


def _fingerprint(model: ResolvedModel) -> str:
    from transformers import __version__ as version  # noqa: PLC0415 -- takes seconds; not needed to show an error

    # A change in transformers can change the vectors of the same files.
    return f"{model.config.full_name}@{model.revision}, {model.config.loading or 'as is'}, transformers {version}"


def _pooling(model: ResolvedModel) -> Pooling:
    config, layout = model.config, model.layout
    include_prompt = layout.include_prompt if config.include_prompt is None else config.include_prompt
    return Pooling((config.pooling,) if config.pooling else layout.pooling_modes, include_prompt)


def _checked_length(model: ResolvedModel) -> int:
    limit = positions(model.layout.config)
    if limit is not None and model.max_length > limit:
        raise ConfigError(f"max_length {model.max_length} is more than the {limit} positions of {model.config.name}")
    return model.max_length


def _is_bidirectional(model: ResolvedModel) -> bool:
    if model.config.attention is not None:
        return model.config.attention == "bidirectional"
    # gte-Qwen2 and models derived from it declare their bidirectional Qwen2 only in auto_map.
    return remote_model(model).startswith("modeling_qwen.")


def _load_backbone(model: ResolvedModel, dtype: torch.dtype, where: torch.device) -> torch.nn.Module:
    from transformers import AutoConfig  # noqa: PLC0415 -- takes seconds; not needed to show an error
    from transformers import __version__ as version  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    folder = model.layout.transformer
    require_plain_weights(model)
    trusted = model.config.trust_remote_code
    if model.layout.config.get("model_type") == "new" and not trusted:
        config = gte_config(model.layout.config)
    else:
        require_known_code(model)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    if _is_bidirectional(model):
        if tuple(map(int, version.split(".")[:2])) < _OBEYS_IS_CAUSAL:
            raise EnvironmentProblem(
                f"transformers {version} always attends causally in a padded batch and would give wrong vectors for "
                f"{model.config.name}: pip install -U transformers"
            )
        # It must be set in the config: transformers silently drops it as an argument, and the modules' attribute
        # does not change the mask of a padded batch.
        config.is_causal = False
    config.use_cache = False
    packing.register()
    try:
        backbone, info = _model_class(config, folder).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            # Explicitly None: otherwise config.json decides, and may name code on the hub (a "kernel").
            attn_implementation=packing.NAME if packing.supports(config, model.max_length) else None,
            use_safetensors=True,
            trust_remote_code=trusted,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the check below names them; transformers would raise a RuntimeError
        )
        loaded = backbone.to(where)
    except SafetensorError as error:
        raise EnvironmentProblem(
            f"{folder}: the weights are damaged ({error}); delete model.safetensors and download it again"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise EnvironmentProblem(f"{folder}: not enough memory on {where} for the weights in {dtype}") from error
        raise
    # transformers initialises missing weights randomly and only warns. The pooler is not used here.
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing or info["mismatched_keys"]:
        wrong = missing or sorted(str(key) for key in info["mismatched_keys"])
        raise EnvironmentProblem(
            f"{folder}: {len(wrong)} weights are missing or have the wrong shape ({', '.join(wrong[:3])}, ...); "
            "the file is damaged or belongs to another model: download it again"
        )
    return loaded  # type: ignore[no-any-return]


def tokenizer_of(model: ResolvedModel) -> Any:
    """Load the tokenizer of a model; see `load_tokenizer`."""
    return load_tokenizer(
        model.layout.transformer,
        opens=model.config.bos_token_id,
        closes=model.config.eos_token_id,
        settings={"add_bos_token": model.config.add_bos_token, "add_eos_token": model.config.add_eos_token},
        lower_case=model.layout.lower_case,
        trusted=model.config.trust_remote_code,
    )


def _model_class(config: Any, folder: Path) -> Any:
    """Return the class that loads a backbone; of an encoder-decoder, only the encoder, as in sentence-transformers."""
    from transformers import AutoModel, AutoModelForTextEncoding  # noqa: PLC0415

    if config.model_type in _ENCODER_HALVES:
        return AutoModelForTextEncoding
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"{folder / 'config.json'}: the encoder of a {config.model_type} is not supported; supported are those of "
            f"{', '.join(_ENCODER_HALVES)}. `stella-mteb mteb run` runs such a model with MTEB's own wrapper"
        )
    return AutoModel


def load_tokenizer(
    folder: Path,
    *,
    opens: int | None = None,
    closes: int | None = None,
    settings: Mapping[str, bool | None] | None = None,
    lower_case: bool = False,
    trusted: bool = False,
) -> Any:
    """Load a fast tokenizer.

    Args:
        folder: Folder with tokenizer.json.
        opens: The token id with which every text must begin; None for what the files say.
        closes: The token id with which every text must end; None for what the files say.
        settings: Settings of the tokenizer's class; None for what the files say.
        lower_case: Whether texts are lower-cased.
        trusted: Whether code of the repository may run.

    Raises:
        ConfigError: If it is not a fast tokenizer, or does not add these tokens.
    """
    from tokenizers.normalizers import Lowercase, Sequence  # noqa: PLC0415
    from tokenizers.processors import TemplateProcessing  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    # trust_remote_code must be explicit: otherwise transformers prompts the user.
    stated = {key: value for key, value in (settings or {}).items() if value is not None}
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted, **stated)
    if not tokenizer.is_fast:
        raise ConfigError(f"{folder}: needs a fast tokenizer (tokenizer.json)")
    # The file may define fixed padding and truncation (Stella 400M pads everything to 512).
    tokenizer.backend_tokenizer.no_padding()
    if lower_case:
        own = tokenizer.backend_tokenizer.normalizer
        tokenizer.backend_tokenizer.normalizer = Sequence([Lowercase(), *([own] if own else [])])
    if opens is None and closes not in (None, tokenizer("x")["input_ids"][-1]):
        # A tokenizer.json without a template silently drops the last token, and with it a pooled state.
        token = tokenizer.convert_ids_to_tokens(closes)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"$A {token}", special_tokens=[(token, closes)]
        )
    if any(tokenizer("x").get("token_type_ids", [])):
        raise ConfigError(f"{folder}: the tokenizer's token types other than 0 (as in XLNet) are not supported")
    ids = tokenizer("x")["input_ids"]
    if opens not in (None, *ids[:1]) or closes not in (None, *ids[-1:]):
        raise ConfigError(
            f"{folder}: a text must {f'begin with token {opens} and ' if opens is not None else ''}end with {closes}, "
            f"but this tokenizer gives {ids[0]} and {ids[-1]}; it is not the model's own: download tokenizer.json again"
        )
    return tokenizer


def _icl_tokeniser(model: ResolvedModel, tokenizer: Any) -> IclTokeniser:
    lacking = [token for token in TOKENS if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id)]
    if lacking:
        raise ConfigError(
            f"{model.layout.transformer}: the tokenizer lacks {', '.join(lacking)}, which few-shot prompts require; "
            "it is not the tokenizer of BGE-en-ICL"
        )
    max_length = _checked_length(model)
    # A packed pass ignores a window that no text without examples reaches, so texts with examples must not reach it.
    window = model.layout.config.get("sliding_window") or 0
    limits = [limit for limit in (positions(model.layout.config), window) if limit and limit >= max_length]
    compat = model.config.few_shot == "compat"
    return IclTokeniser(tokenizer, max_length, compat=compat, most=min(limits, default=None))
