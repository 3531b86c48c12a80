"""``prunecap train``: every field of TrainConfig is an option."""

from __future__ import annotations

import torch

from ..costs.room import out_of_memory
from ..errors import TrainingError
from ..training import TrainConfig, train
from .options import parse

DESCRIPTION = """Train a captioner. The run's folder gets checkpoint/ and metrics.jsonl; the same command goes on
with a run that was stopped, or that SIGTERM or Ctrl-C stops: it finishes its step and saves first.

examples:
  prunecap train --encoder vit --out runs/vit
  prunecap train --encoder convnext --prune-ratio 0.5 --scorer random --out runs/convnext-random
  prunecap train --encoder vit --schedule 0.7@2,4/key_norm --out runs/vit-inside
  PRUNECAP_PHOTOS=photos prunecap train --dataset flickr8k --encoder tf_efficientnet_lite0@last_stage \\
      --encoder-weights package --freeze-encoder --cache-features --out runs/photos
  torchrun --nproc_per_node 8 -m prunecap_lib train --batch-size 32 --out runs/eight-gpus
"""


def main(argv: list[str]) -> None:
    config = parse(TrainConfig, argv, prog="prunecap train", description=DESCRIPTION)
    try:
        result = train(config)
    except torch.OutOfMemoryError as error:
        raise TrainingError(out_of_memory(config)) from error
    if not leave_processes():
        return
    last = [line for line in result.history if "val_loss" in line][-1]
    print(f"{result.out / 'checkpoint'}: validation loss {last['val_loss']:.3f}, "
          f"token accuracy {last['val_accuracy']:.3f}, {last['seconds'] / 60:.1f} min")


def leave_processes() -> bool:
    """Part from the other processes of the run, if any. Is this the one that speaks for all?"""
    speaks = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return speaks
