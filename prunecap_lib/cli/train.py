"""``prunecap train``: every field of TrainConfig is an option, and a preset can fill them in first."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Literal

import torch
from tyro.constructors import PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..costs.forecast import out_of_memory
from ..distributed import processes
from ..errors import InputError, TrainingError, printable
from ..pruning import Schedule
from ..ranges import Natural
from ..training import TrainConfig, train
from ..training.config import FAMILIES
from ..training.validation import scores
from .options import REGISTRY

DESCRIPTION = """Train a captioner. The run's folder gets checkpoint/, metrics.jsonl, curves.png and samples/; the same
command goes on with a run that was stopped, or that SIGTERM or Ctrl-C stops: it finishes its step and saves first.

examples:
  prunecap train --encoder vit --out runs/vit
  prunecap train --encoder convnext --prune-ratio 0.5 --scorer random --out runs/convnext-random
  prunecap train --encoder vit --schedule 0.7@2,4/key_norm --out runs/vit-inside
  PRUNECAP_PHOTOS=photos prunecap train --dataset flickr8k --encoder tf_efficientnet_lite0@last_stage \\
      --encoder-weights package --freeze-encoder --cache-features --out runs/photos
  prunecap train --preset recommended --encoder convnext_tiny --root photos/coco --out runs/coco
  prunecap train --start runs/vit/checkpoint --objective self_critical --lr 1e-4 --epochs 5 --encoder vit \\
      --out runs/vit-self-critical
  prunecap train --preset seed --root photos/coco --out runs/seed
  torchrun --nproc_per_node 8 -m prunecap_lib train --batch-size 32 --out runs/eight-gpus

one of each family for --preset recommended, and a schedule to train it under:
""" + "".join(f"  {name:11} --encoder {family.encoder:44} inside: --schedule {family.schedule}\n"
              for name, family in FAMILIES.items())


@REGISTRY.primitive_rule
def read_schedule(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """``--schedule 0.7@3,6,9`` is a ``Schedule``, ``--schedule none`` is None."""
    if kind.type != Schedule | None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1, metavar="RATES@BLOCKS|none",
        instance_from_str=lambda args: _run_schedule(args[0]),
        is_instance=lambda value: value is None or isinstance(value, Schedule),
        str_from_instance=lambda schedule: ["none" if schedule is None else str(schedule)])


def _run_schedule(written: str) -> Schedule | None:
    if written == "auto":
        raise InputError("schedule 'auto' cannot train: it goes by the clock, and training must not; name keep rates "
                         "and blocks, like 0.7@3,6,9, and choose 'auto' when the trained model captions")
    return None if written == "none" else Schedule.parse(written)


@dataclass(frozen=True)
class TrainCommand(TrainConfig):
    preset: Literal["seed", "recommended"] | None = None
    """Other defaults than these: the presentation's table, or what is recommended for photographs (pretrained encoder,
    moving average, early stop). All other options still count."""
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "tensorboard"
    """Experiment tracker that also receives every line of metrics.jsonl. TensorBoard: tensorboard --logdir RUN."""
    draw: Natural = 4  # Validation pictures that are captioned and drawn after every epoch, in samples/; 0: none.


def run(command: TrainCommand) -> None:
    config = TrainConfig(**{field.name: getattr(command, field.name) for field in fields(TrainConfig)})
    import matplotlib  # late: wrong options are told before what draws is loaded
    matplotlib.use("Agg")  # no window
    from ..plotting.runs import RunFigures
    try:
        result = train(config, after_epoch=RunFigures(config, command.draw))
    except torch.OutOfMemoryError as error:
        raise TrainingError(out_of_memory(config)) from error
    if not processes().is_main_process:
        return
    out, validated = printable(result.out), [line for line in result.history if "val_loss" in line]
    if not validated:
        print(f"{out}/checkpoint: the run was finished before, and its log says nothing of it")
        return
    last = validated[-1]
    cider = f"CIDEr-D {last['cider']:.3f}, " if "cider" in last else ""
    print(f"{out}/checkpoint: {cider}validation loss {last['val_loss']:.3f}, token accuracy "
          f"{last['val_accuracy']:.3f}, {last['seconds'] / 60:.1f} min; drawn in {out}/curves.png")
    if (result.out / "best").exists():
        best = max(scores(result.history, config))
        print(f"{out}/best: " + (f"CIDEr-D {best:.3f}" if config.scored_every else f"validation loss {-best:.3f}"))


def with_preset(argv: list[str]) -> TrainCommand:
    """The command before its other options are read: a preset's settings, for the encoder that is named."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--preset", "--encoder", "--start"):
        reader.add_argument(name)
    try:
        named = vars(reader.parse_known_args(argv)[0])
    except argparse.ArgumentError:  # an option without its value: the full parser says so
        return TrainCommand()
    preset = named.pop("preset")
    make = {"seed": TrainConfig.seed_preset, "recommended": TrainConfig.recommended}.get(preset)
    if make is None:
        return TrainCommand()
    config = make(**{name: value for name, value in named.items() if value is not None})
    return TrainCommand(**vars(config) | {"preset": preset, "tracker": "tensorboard"})
