"""stella-mteb: runs Stella and other embedding models on MTEB, judges video summaries, and compares models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stella_mteb.harness.adapter import load_encoder
    from stella_mteb.harness.register import register
    from stella_mteb.inhouse.evaluator import BgeIclEvaluator, BgeIclModel, StellaEvaluator, StellaModel

__all__ = [
    "BgeIclEvaluator",
    "BgeIclModel",
    "StellaEvaluator",
    "StellaModel",
    "__version__",
    "load_encoder",
    "register",
]
__version__ = "0.2.0"
PIPELINE = "2"
"""Must be raised when the engine's result for the same files and texts changes; stored vectors become invalid."""

_HOME = {
    "BgeIclEvaluator": "stella_mteb.inhouse.evaluator",
    "BgeIclModel": "stella_mteb.inhouse.evaluator",
    "StellaEvaluator": "stella_mteb.inhouse.evaluator",
    "StellaModel": "stella_mteb.inhouse.evaluator",
    "load_encoder": "stella_mteb.harness.adapter",
    "register": "stella_mteb.harness.register",
}


def __getattr__(name: str) -> Any:
    # Lazy imports: torch and mteb take seconds, and `stella-mteb --help` needs neither.
    if name not in _HOME:
        raise AttributeError(f"module 'stella_mteb' has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    return getattr(importlib.import_module(_HOME[name]), name)
