"""How do several processes train one captioner? Accelerate joins them; here is what they must agree on.

Shapes: P processes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, PrunecapError
from ..reports import part_at_exit
from .config import TrainConfig
from .tracking import accelerator_settings

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: one of them may be encoding a whole data set for all."""


def device_here() -> torch.device:
    """Where this process will train."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start_accelerator(config: TrainConfig):
    """Hugging Face's Accelerator. How many processes there are, where, and whether they shard the weights (FSDP), it
    learns from ``accelerate launch``, ``torchrun`` or Slurm.

    Raises InputError where the machine cannot compute in the precision that was asked for, where the tracker is not
    installed, and where weights are sharded that must be whole.
    """
    told = accelerator_settings(config)
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState
    on_cpu = device_here().type == "cpu"
    if config.precision == "fp16" and on_cpu:
        raise InputError("precision fp16 needs a GPU, and there is none; train with bf16 or fp32")
    # A run before this one, in this process, may have had another precision, which Accelerate would insist on. It has
    # no public way to forget one; the processes' connection stays as it is.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="no" if config.precision == "fp32" else config.precision, cpu=on_cpu,
                              gradient_accumulation_steps=config.accumulate,
                              kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
                              **told)
    for name, off in (("ema", 0), ("caption_every", 0), ("objective", "cross_entropy")):
        if is_sharded(accelerator) and getattr(config, name) != off:
            raise InputError(f"{name} {getattr(config, name)} needs the whole captioner in each process, and FSDP "
                             f"shards it; leave {name} {off}, or train without FSDP")
    if accelerator.num_processes > 1:
        part_at_exit()
    return accelerator


def is_sharded(accelerator) -> bool:
    """Does each process hold a part of the weights only?"""
    return accelerator.distributed_type == "FSDP"


def one_after_another(accelerator, make: Callable[[], T]) -> T:
    """``make()`` in every process: first in the main one, then in each machine's first, then in the others.

    For what one process writes and the others find (a feature cache, a download), whether or not machines share a disk.
    """
    if accelerator.num_processes == 1:
        return make()
    made = None
    turn = 0 if accelerator.is_main_process else 1 if accelerator.is_local_main_process else 2
    for now in range(3):
        failed = None
        if turn == now:
            try:
                made = make()
            except PrunecapError as error:
                failed = error
        raise_together(accelerator, failed)
    return made


def raise_together(accelerator, error: PrunecapError | None) -> None:
    """Raise ``error``; and where another process has one, stop too, instead of waiting for it for ever."""
    failed = [i for i, one in enumerate(gather_numbers(accelerator, [float(error is not None)])[:, 0]) if one]
    if error is not None:
        raise error
    if failed:
        raise CheckpointError(f"process {accelerator.process_index} of {accelerator.num_processes} stops because "
                              f"process {failed[0]} failed; see its message")


def gather_numbers(accelerator, numbers: list[float]) -> Tensor:
    """A few numbers of every process: [P, n], float64, on the CPU of all of them."""
    own = torch.tensor([numbers], dtype=torch.double)
    if accelerator.num_processes == 1:
        return own
    return accelerator.gather(own.to(accelerator.device)).cpu()


def check_same_start(accelerator, step: int, config: TrainConfig, folder) -> None:
    """Raises CheckpointError where processes have found different checkpoints, and InputError where their devices
    would choose different precisions."""
    steps, halves = gather_numbers(accelerator, [step, config.precision == "bf16"]).T.int().tolist()
    if len(set(steps)) > 1:
        raise CheckpointError(f"{folder}: processes find checkpoints of different steps there ({steps}); all of them "
                              "must see one folder, on a disk that the machines share")
    if len(set(halves)) > 1:
        raise InputError("some of the processes' devices have instructions for bf16 and some have none; choose one "
                         "precision for all, like --precision fp32")


def own_random_state(accelerator, config: TrainConfig) -> None:
    """Let every process but the first draw its own noise for dropout; the weights have been drawn alike by then."""
    if accelerator.process_index:
        torch.manual_seed(hash((config.seed, -1, accelerator.process_index)) & 0x7FFFFFFF)
