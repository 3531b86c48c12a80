"""Prune & Tell: image captioning whose decoder looks at fewer visual tokens.

The public names are imported when first used, so that ``import prunecap_lib`` stays quick.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "BytePairs": "bytepairs", "Caption": "captioner", "Captioner": "captioner", "CaptionerConfig": "captioner",
    "TrainConfig": "training", "train": "training",
    "VisualTokens": "tokens", "Vocabulary": "text",
    "build_encoder": "encoders", "score_captions": "evaluation",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
