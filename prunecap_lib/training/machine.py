"""How is the captioner computed on this machine? In which precision, with less memory, or compiled."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..captioner import Captioner
from ..checkpoint import CHECKPOINT
from ..devices import native_bf16
from ..files import recover_folder
from .config import TrainConfig
from .state import read_state


def settle_precision(config: TrainConfig, device: torch.device) -> TrainConfig:
    """``config`` with what precision "auto" stands for: that of the run found in ``config.out``, and for a new run bf16
    where the device has instructions for it, else fp32.

    Raises CheckpointError where the run that is found cannot be read.
    """
    if config.precision != "auto":
        return config
    saved = config.folder / "checkpoint"
    recover_folder(saved, CHECKPOINT)
    begun = read_state(saved).config.get("precision") if saved.exists() else None
    if begun not in ("fp32", "bf16", "fp16"):
        begun = "bf16" if native_bf16(device) else "fp32"
    return replace(config, precision=begun)


def precision_line(asked: str, settled: str, device: torch.device) -> str:
    """What to tell of it. Args: asked: the precision before it was settled."""
    native, why = native_bf16(device), "as the run began" if asked == "auto" else "as asked"
    who = "this processor" if device.type == "cpu" else "this GPU"
    match settled:
        case "bf16" if not native:
            return f"precision bf16, {why}; {who} has no instructions for it, and fp32 would be several times faster"
        case "fp32" if not native:
            return f"precision fp32: {who} has no instructions for bf16"
        case "fp32":
            return f"precision fp32, {why}; {who} has instructions for bf16, which would be faster"
    return f"precision {settled}"


def fit_to_machine(captioner: Captioner, config: TrainConfig) -> None:
    """Follow ``config.checkpoint_activations`` and ``config.compile``, which change nothing of what is computed.

    Encoder and decoder are compiled apart: which tokens stay is decided between them, and is no work for a compiler.
    Raises InputError where the encoder cannot compute its blocks again.
    """
    captioner.encoder.set_recompute(config.checkpoint_activations)
    captioner.decoder.recompute = config.checkpoint_activations
    if config.compile:
        captioner.encoder.compile()
        captioner.decoder.compile(dynamic=True)  # captions of another batch have another length
