"""Loads Stella 400M, which has Alibaba's "new" architecture, with the GTE classes of transformers.

The checkpoint's own code is refused: it needs xformers and an older transformers. It is not needed either, because GTE
is the same network and transformers renames the weights. Only the rotary embedding must be translated, since GTE lacks
"ntk" scaling. With scaling factor f, base b and head dimension d, the original computes

    inverse frequency_i = (f * b) ** (-2i / d) / f ** (2 / d)

which is linear scaling by f ** (2 / d) at base f * b.
"""

from __future__ import annotations

from typing import Any

from stella_mteb.errors import ConfigError


def gte_config(original: dict[str, Any]) -> Any:
    """Translate a config.json of model_type "new" into a GteConfig.

    Raises:
        ConfigError: If it uses something that GTE does not support.
    """
    from transformers import GteConfig  # noqa: PLC0415

    scaling = original.get("rope_scaling") or {}
    factor, base = float(scaling.get("factor", 1.0)), float(original.get("rope_theta", 10_000.0))
    head = original["hidden_size"] // original["num_attention_heads"]
    kind = scaling.get("rope_type", scaling.get("type", "ntk"))
    if kind != "ntk" or scaling.get("mixed_b") is not None or original.get("logn_attention_scale"):
        raise ConfigError(
            f"config.json: rope_scaling {scaling} is not supported; only plain ntk is, without logn scaling"
        )
    if original.get("position_embedding_type", "rope") != "rope" or original.get("layer_norm_type") == "rms_norm":
        raise ConfigError("config.json: only rotary positions and layer_norm are supported for this model_type")
    rope = {"rope_type": "linear", "factor": factor ** (2 / head), "rope_theta": base * factor}
    same = {
        key: original[key]
        for key in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "hidden_act",
            "max_position_embeddings",
            "type_vocab_size",
            "layer_norm_eps",
            "pad_token_id",
        )
        if key in original
    }
    return GteConfig(**same, rope_parameters=rope)
