"""How does a run go on exactly where it stopped? Optimizer moments, random state and step, without pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .config import TrainConfig

# settings that may differ between a run and its continuation
_FREE = {"out", "root", "workers", "progress", "log_every", "save_every", "keep_last", "tracker"}


def _same_run(config: TrainConfig) -> dict:
    return json.loads(json.dumps({key: value for key, value in asdict(config).items() if key not in _FREE}))


def save_state(folder: Path, optimizer: torch.optim.Optimizer, step: int, config: TrainConfig,
               trained: torch.nn.Module | None = None) -> None:
    """Write ``state.safetensors`` and ``state.json`` into ``folder``.

    Args: trained: the module in training, where the checkpoint holds a moving average of it.
    """
    from safetensors.torch import save_file
    tensors = {f"optimizer.{i}.{name}": value for i, moments in optimizer.state_dict()["state"].items()
               for name, value in moments.items()}
    if trained is not None:
        tensors |= {f"trained/{name}": value for name, value in trained.named_parameters() if value.requires_grad}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()},
              folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps({"step": step, "config": _same_run(config)}, indent=1))


def saved_step(folder: Path, config: TrainConfig) -> int:
    """The step a checkpoint stands at. Raises CheckpointError where it is another run's."""
    try:
        state = json.loads((folder / "state.json").read_text())
        step, saved = state["step"], state["config"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: state.json cannot be used ({error}); train into another folder") from error
    changed = [f"{key} {saved.get(key)!r} -> {value!r}" for key, value in _same_run(config).items()
               if saved.get(key) != value]
    if changed:
        raise CheckpointError(f"{folder} holds a run with other settings ({', '.join(changed[:4])}); "
                              "choose another --out, or the same settings to resume it")
    return step


def load_state(folder: Path, optimizer: torch.optim.Optimizer, trained: torch.nn.Module) -> None:
    """Restore the optimizer's moments, the random state, and the weights in training where the checkpoint's are others.
    """
    from safetensors.torch import load_file
    tensors: dict[str, Tensor] = load_file(folder / "state.safetensors")
    torch.set_rng_state(tensors.pop("rng.cpu"))
    if (cuda := tensors.pop("rng.cuda", None)) is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    with torch.no_grad():
        for name, value in trained.named_parameters():
            if (saved := tensors.pop(f"trained/{name}", None)) is not None:
                value.copy_(saved)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        _, i, name = key.split(".")
        moments.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
