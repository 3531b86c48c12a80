"""What a run computes with on this machine: its processes, its device and precision, memory, compilation, signals."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace

import torch

from ..captioner import Captioner
from ..checkpoint import CHECKPOINT
from ..devices import native_bf16
from ..distributed import PATIENCE, destroy_process_group_at_exit, gather_numbers, is_sharded
from ..errors import CheckpointError, InputError
from ..files import recover_folder
from .config import TrainConfig
from .resume import read_state
from .run_log import tracker_settings

SAME_SIGNAL = 1.0  # seconds within which signals count as one: a terminal and a launcher may pass on the same Ctrl-C


def device_here() -> torch.device:
    """Where this process will train."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start_accelerator(config: TrainConfig):
    """Hugging Face's Accelerator, told by ``accelerate launch``, ``torchrun`` or Slurm what processes there are, and
    whether they shard the weights (FSDP).

    Raises InputError for a precision that is not here, a tracker that is not installed, and FSDP with a setting that
    needs whole weights.
    """
    settings = tracker_settings(config)
    from accelerate import Accelerator, InitProcessGroupKwargs  # late: it doubles the time to import torch
    from accelerate.state import AcceleratorState
    on_cpu = device_here().type == "cpu"
    if config.precision == "fp16" and on_cpu:
        raise InputError("precision fp16 needs a GPU, and there is none; train with bf16 or fp32")
    # A run before this one, in this process, may have had another precision, which Accelerate would insist on. It has
    # no public way to forget one; the processes' connection stays as it is.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="no" if config.precision == "fp32" else config.precision, cpu=on_cpu,
                              gradient_accumulation_steps=config.accumulate,
                              kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)], **settings)
    for name, off in (("ema", 0), ("caption_every", 0), ("objective", "cross_entropy")):
        if is_sharded(accelerator) and getattr(config, name) != off:
            raise InputError(f"{name} {getattr(config, name)} needs the whole captioner in each process, and FSDP "
                             f"shards it; leave {name} {off}, or train without FSDP")
    if accelerator.num_processes > 1:
        destroy_process_group_at_exit()
    return accelerator


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


def settle_precision(config: TrainConfig, device: torch.device) -> TrainConfig:
    """``config`` with what precision "auto" stands for: that of the run found in ``config.out``, and for a new run bf16
    where the device has instructions for it, else fp32. Raises CheckpointError for a run that cannot be read."""
    if config.precision != "auto":
        return config
    saved = config.folder / "checkpoint"
    recover_folder(saved, CHECKPOINT)
    begun = read_state(saved).config.get("precision") if saved.exists() else None
    if begun not in ("fp32", "bf16", "fp16"):
        begun = "bf16" if native_bf16(device) else "fp32"
    return replace(config, precision=begun)


def precision_line(asked: str, settled: str, device: torch.device) -> str:
    """What to say of the precision that ``settle_precision`` found, for the one that was ``asked``."""
    native, why = native_bf16(device), "as the run began" if asked == "auto" else "as asked"
    who = "this processor" if device.type == "cpu" else "this GPU"
    advice = {("bf16", False): f", {why}; {who} has no instructions for it, and fp32 would be several times faster",
              ("fp32", False): f": {who} has no instructions for bf16",
              ("fp32", True): f", {why}; {who} has instructions for bf16, which would be faster"}
    return f"precision {settled}{advice.get((settled, native), '')}"


def apply_compute_options(captioner: Captioner, config: TrainConfig) -> None:
    """Follow ``config.checkpoint_activations`` and ``config.compile``, which change nothing of what is computed. Raises
    InputError where the encoder cannot compute its blocks again."""
    captioner.encoder.set_grad_checkpointing(config.checkpoint_activations)
    captioner.decoder.grad_checkpointing = config.checkpoint_activations
    if config.compile:  # apart: which tokens stay is decided between them, and is no work for a compiler
        captioner.encoder.compile()
        captioner.decoder.compile(dynamic=True)  # captions of another batch have another length


class StopSignals:
    """``with StopSignals() as stop:``: SIGTERM and SIGINT set ``stop.asked`` to their number; a second acts at once.

    Nothing changes outside of the main thread, where Python allows no handlers, nor for an ignored signal (``nohup``).
    """

    def __init__(self):
        self.asked, self._since, self._before = 0, 0.0, {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._since = number, now
        elif now - self._since > SAME_SIGNAL:
            self.__exit__()
            signal.raise_signal(number)
