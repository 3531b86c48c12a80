"""How do several processes train one captioner? Accelerate joins them; here is what they must agree on.

Shapes: P processes.
"""

from __future__ import annotations

import torch

from ..distributed import PATIENCE, destroy_process_group_at_exit, gather_numbers
from ..errors import CheckpointError, InputError
from .config import TrainConfig
from .tracking import accelerator_settings


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
        destroy_process_group_at_exit()
    return accelerator


def is_sharded(accelerator) -> bool:
    """Does each process hold a part of the weights only?"""
    return accelerator.distributed_type == "FSDP"


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
