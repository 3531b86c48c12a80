"""How does a run go on exactly where it stopped? Optimizer moments, random states and step, without pickle.

``state.safetensors`` holds AdamW's moments by parameter (``optimizer.NAME.exp_avg``) and the random state of each
process (``rng.cpu`` [P, bytes]), and, where the checkpoint holds their moving average, the weights in training
(``trained.NAME``); ``state.json`` where the run stands, and what may not change before it goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import checkpoint
from ..checkpoint import CHECKPOINT
from ..distributed import derive_seed, is_sharded, raise_on_all_ranks
from ..errors import CheckpointError
from ..files import Kind, alone, file_sha256, replace_folder
from ..ranges import Count, Natural
from ..reading import open_file, read_json
from .config import TrainConfig
from .self_critical import reward_signature

# settings that may differ between a run and its continuation; of batch_size and accumulate only the product with the
# processes may not
_FREE = {"out", "root", "workers", "progress", "log_every", "save_every", "save_steps", "max_unreadable", "batch_size",
         "accumulate", "checkpoint_activations", "compile", "keep_last", "tracker"}
_AGAIN = "copy the run's folder again as a whole, or train into another"
LOCK = ".prunecap.lock"


class RunPosition(NamedTuple):
    """Where a run stands: steps done, and epochs that are finished, their validation included."""

    step: int = 0
    epochs: int = 0


def is_run(folder: Path) -> bool:
    """Was this folder written by a run, finished or not?"""
    if (folder / LOCK).is_file() or (folder / "checkpoint" / "state.json").is_file():
        return True
    with open_file(folder / "metrics.jsonl") as log:
        return {"step", "seconds"} <= json.loads(log.readline(1 << 20)).keys()


RUN = Kind("run of prunecap train", is_run)


@contextmanager
def own_folder(accelerator, folder: Path) -> Iterator[None]:
    """Inside, this run alone writes into its folder; entered in all processes. Raises InputError where it is taken."""
    with ExitStack() as stack:
        with raise_on_all_ranks(accelerator):
            if accelerator.is_main_process:
                stack.enter_context(alone(folder / LOCK, f"run {folder}"))
        yield


def _same_run(config: TrainConfig) -> dict:
    """Settings that a continuation must have, too, as ``state.json`` holds them."""
    return json.loads(json.dumps({key: value for key, value in asdict(config).items() if key not in _FREE}))


def _start_fingerprint(config: TrainConfig) -> str | None:
    """What the run started from, in 16 hex digits: the weights of ``config.start``, which are the teacher's."""
    if config.start is None:
        return None
    return file_sha256(checkpoint.find(config.start) / "model.safetensors")[:16]


def signature(config: TrainConfig) -> str:
    """A checkpoint's note of its origin: the run's settings, as JSON."""
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "root")}
    if config.self_critical:
        settings["reward"] = reward_signature(eos=config.reward_eos, baseline=config.baseline, samples=config.samples)
    return json.dumps(settings)


def save(folder: Path, accelerator, model, optimizer, config: TrainConfig, position: RunPosition, kept) -> None:
    """Swap in a folder of what is ``kept`` (the model or its moving average) and the state to go on from.

    To be called in all processes. Raises CheckpointError, in all of them, where the file system refuses; what was there
    before stays.
    """
    weights = whole_weights(accelerator, kept)
    tensors = _moments(model, optimizer) | _random_states(accelerator)
    if kept is not model and accelerator.is_main_process:
        tensors |= {f"trained.{name}": p.detach().cpu().contiguous() for name, p in _trained(accelerator, model)}
    with raise_on_all_ranks(accelerator):
        if accelerator.is_main_process:
            with replace_folder(folder, CHECKPOINT) as new:
                checkpoint.write(new, accelerator.unwrap_model(kept), signature=signature(config), weights=weights)
                _write_state(new, tensors, accelerator, config, position)


def whole_weights(accelerator, model) -> dict[str, Tensor] | None:
    """All weights where processes shard them, in the main one; None where each has them. To be called in all."""
    return _state_dicts().get_model_state_dict(model, options=_whole()) if is_sharded(accelerator) else None


class State(msgspec.Struct):
    """``state.json``."""

    step: Natural
    epochs: Natural
    processes: Count
    batch_size: Count
    accumulate: Count
    config: dict[str, Any]
    start: str | None = None
    scaler: dict[str, Any] | None = None


def _write_state(folder: Path, tensors: dict[str, Tensor], accelerator, config: TrainConfig,
                 position: RunPosition) -> None:
    save_file(tensors, folder / "state.safetensors")
    state = State(*position, accelerator.num_processes, config.batch_size, config.accumulate, _same_run(config),
                  _start_fingerprint(config), accelerator.scaler.state_dict() if accelerator.scaler else None)
    (folder / "state.json").write_text(json.dumps(msgspec.structs.asdict(state), indent=1))


def read_state(folder: Path) -> State:
    """``state.json``. Raises CheckpointError where it cannot be used."""
    return read_json(folder / "state.json", State, "state of a run", _AGAIN, error=CheckpointError)


def saved_position(folder: Path, config: TrainConfig, processes: int = 1) -> RunPosition:
    """Where a checkpoint stands; the beginning where there is none. Raises CheckpointError where it is a run with other
    settings, another start, or other pictures in a step."""
    if not folder.exists():
        return RunPosition()
    state = read_state(folder)
    changed = [f"{key} {state.config.get(key)!r} -> {value!r}" for key, value in _same_run(config).items()
               if state.config.get(key) != value]
    if changed:
        raise CheckpointError(f"{folder} holds a run with other settings ({', '.join(changed[:4])}); "
                              "choose another --out, or the same settings to resume it")
    if state.start not in (None, now := _start_fingerprint(config)):
        raise CheckpointError(f"{folder} holds a run that started from, and is taught by, another {config.start} "
                              f"(weights {state.start}, not {now}); put that checkpoint back, or choose another --out")
    if state.epochs > config.epochs:
        raise CheckpointError(f"{folder / 'state.json'}: {state.epochs} of {config.epochs} epochs are finished, which "
                              f"cannot be; {_AGAIN}")
    _check_pictures(folder, state, config, processes)
    return RunPosition(state.step, state.epochs)


def _check_pictures(folder: Path, state: State, config: TrainConfig, processes: int) -> None:
    """Raises CheckpointError where a step would see another number of pictures than before."""
    before = dict(batch_size=state.batch_size, processes=state.processes, accumulate=state.accumulate)
    now = dict(batch_size=config.batch_size, processes=processes, accumulate=config.accumulate)
    there, here = prod(before.values()), prod(now.values())
    if there != here:
        was, is_ = (" x ".join(f"{key} {n}" for key, n in factors.items()) for factors in (before, now))
        rest, over = divmod(there, config.batch_size * processes)
        remedy = f"give --accumulate {rest}" if rest and not over else "give another --batch-size"
        raise CheckpointError(f"{folder} holds a run that sees {there} pictures a step ({was}), and this one would see "
                              f"{here} ({is_}); {remedy}, or start {state.processes} processes again")


def load_state(folder: Path, accelerator, model, optimizer, config: TrainConfig) -> None:
    """Restore the optimizer's moments, the loss scale, this process's random state, and the weights in training where
    the checkpoint holds their moving average. Processes that there were not before draw new noise."""
    state = read_state(folder)
    shapes = None if is_sharded(accelerator) else {name: p.shape for name, p in _trained(accelerator, model)}
    tensors = _read_tensors(folder / "state.safetensors", state.processes, shapes)
    whole = _state_dicts().get_optimizer_state_dict(model, optimizer.optimizer, options=_whole())
    if accelerator.is_main_process:
        whole["state"] = moments = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                name, moment = key.removeprefix("optimizer.").rsplit(".", 1)
                moments.setdefault(name, {})[moment] = value
    _state_dicts().set_optimizer_state_dict(model, optimizer.optimizer, whole,
                                            options=_whole(broadcast_from_rank0=accelerator.num_processes > 1))
    with torch.no_grad():
        for name, value in _trained(accelerator, model):
            if (before := tensors.get(f"trained.{name}")) is not None:
                value.copy_(before)
    if accelerator.scaler and state.scaler:
        accelerator.scaler.load_state_dict(state.scaler)
    index = accelerator.process_index
    if index >= state.processes:
        torch.manual_seed(derive_seed(config.seed, state.step, index))
        return
    try:
        torch.set_rng_state(tensors["rng.cpu"][index].clone())  # torch crashes on a view that starts later
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{folder}: the random state is damaged ({error}); {_AGAIN}") from error
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"][index].clone())


def _read_tensors(path: Path, processes: int, shapes: dict[str, torch.Size] | None) -> dict[str, Tensor]:
    """``state.safetensors``. Raises CheckpointError where it is damaged, or of another model than one of ``shapes``."""
    open_file(path, "state of a run", error=CheckpointError).close()
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"state of a run {path} is damaged ({error}); {_AGAIN}") from error

    def fits(key: str, value: Tensor) -> bool:
        kind, _, name = key.partition(".")
        if kind == "rng":
            return value.dtype == torch.uint8 and value.ndim == 2 and len(value) == processes
        name, _, moment = name.rpartition(".") if kind == "optimizer" else (name, "", "")
        return shapes is None or name in shapes and (value.shape == shapes[name] or moment == "step")

    wrong = ["rng.cpu"] * ("rng.cpu" not in tensors) + [key for key, value in tensors.items() if not fits(key, value)]
    if wrong:
        raise CheckpointError(f"state of a run {path}: its {wrong[0]} is missing or not this run's; {_AGAIN}")
    return tensors


def _state_dicts():
    """torch's state dicts of models and optimizers that processes share out."""
    from torch.distributed.checkpoint import state_dict  # late: half a second, which only a run needs
    return state_dict


def _whole(**more):
    """Whole tensors on the CPU of the main process."""
    return _state_dicts().StateDictOptions(full_state_dict=True, cpu_offload=True, **more)


def _trained(accelerator, model) -> list[tuple[str, Tensor]]:
    """The weights in training, by name."""
    return [(name, p) for name, p in accelerator.unwrap_model(model).named_parameters() if p.requires_grad]


def _moments(model, optimizer) -> dict[str, Tensor]:
    """AdamW's state by names of parameters, whole, in the main process alone."""
    state = _state_dicts().get_optimizer_state_dict(model, optimizer.optimizer, options=_whole()).get("state", {})
    return {f"optimizer.{name}.{moment}": value.detach().cpu().contiguous() for name, moments in state.items()
            for moment, value in moments.items()}


def _random_states(accelerator) -> dict[str, Tensor]:
    """Each process's: [P, bytes]."""
    own = {"rng.cpu": torch.get_rng_state()[None]}
    if torch.cuda.is_available():
        own["rng.cuda"] = torch.cuda.get_rng_state()[None]
    if accelerator.num_processes == 1:
        return own
    return {name: accelerator.gather(value.to(accelerator.device)).cpu() for name, value in own.items()}
