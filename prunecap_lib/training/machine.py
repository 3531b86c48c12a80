"""How is the captioner computed on this machine? With less memory, or compiled; what it computes stays the same."""

from __future__ import annotations

from ..captioner import Captioner
from .config import TrainConfig


def fit_to_machine(captioner: Captioner, config: TrainConfig) -> None:
    """Follow ``config.checkpoint_activations`` and ``config.compile``.

    Encoder and decoder are compiled apart: which tokens stay is decided between them, and is no work for a compiler.
    Raises InputError where the encoder cannot compute its blocks again.
    """
    captioner.encoder.set_recompute(config.checkpoint_activations)
    captioner.decoder.recompute = config.checkpoint_activations
    if config.compile:
        captioner.encoder.compile()
        captioner.decoder.compile(dynamic=True)  # captions of another batch have another length
