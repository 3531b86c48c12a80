"""What can this machine's devices do, and how is their memory spared?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from .errors import InputError

T = TypeVar("T")


def find_device(name: str = "auto") -> torch.device:
    """The device of this name; of "auto", a GPU where there is one. Raises InputError for one that is not here."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    here = [*(["cuda", *gpus] if gpus else []), *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    if name == "auto":
        return torch.device(here[0])
    if name not in here:
        raise InputError(f"device {name!r} is not here; here are {', '.join(here)}, and 'auto' takes the first")
    return torch.device(name)


def native_bf16(device: torch.device) -> bool:
    """Does the device compute in bfloat16 by instructions of its own? Where it only emulates it, float32 is faster.

    Of CPUs those with AMX or AVX-512's bf16 instructions, and Arm's alike; of NVIDIA's GPUs those since A100. Apple's
    (mps) count as emulating it: torch cannot say which of them do not. A torch too old to be asked says no.
    """
    match device.type:
        case "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            has = getattr(torch.cpu, "get_capabilities", dict)()
            # oneDNN is what computes by them
            return torch.backends.mkldnn.is_available() and any(map(has.get, ("amx_bf16", "avx512_bf16", "bf16")))
        case _:
            return False


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """``with autocast(...):`` mixed precision in "bf16" or "fp16"; with "fp32" nothing changes."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, half, enabled=half is not None)


def checkpointed(on: bool, function: Callable[..., T], *args, **more) -> T:
    """``function(*args, **more)``; with ``on``, only what goes in and comes out is kept for the backward pass.

    What was let go is computed again when its gradient is due (Chen et al. 2016, "Training Deep Nets with Sublinear
    Memory Cost"). Gradients are the same, to the last bit where the function's sums are: the second time
    it draws the same dropout.
    """
    if on and torch.is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False, **more)
    return function(*args, **more)
