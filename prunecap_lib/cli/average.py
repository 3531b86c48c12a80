"""``prunecap average``: one checkpoint whose weights are the mean of several."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import InputError, printable

DESCRIPTION = """Average the weights of checkpoints of one run. It costs no training, and the mean of the last few
epochs often captions a little better than each of them.

examples:
  prunecap average runs/coco --out runs/coco/averaged
  prunecap average runs/coco/last/epoch_028 runs/coco/last/epoch_030 --out averaged
"""


@dataclass(frozen=True)
class AverageCommand:
    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of checkpoints, or one run, whose last epochs are taken (train with --keep-last)."""
    out: Path  # Folder for the averaged checkpoint.


def run(command: AverageCommand) -> None:
    from ..checkpoint import CHECKPOINT, find, origin  # late: options are read without torch, which takes seconds
    from ..files import check_output_folder
    from ..training.validation import average_checkpoints
    out = check_output_folder(command.out, CHECKPOINT, swapped=True)
    folders = [folder for given in command.checkpoints for folder in checkpoints_in(given)]
    if out in [find(folder).resolve() for folder in folders]:
        raise InputError(f"checkpoint {command.out} is one of those to be averaged and would be lost; give "
                         "another --out")
    signature = json.dumps(origin(folders[0]) | {"average_of": [str(folder) for folder in folders]})
    average_checkpoints(folders).save(command.out, signature=signature)
    print(printable(f"{command.out}: mean of {len(folders)} checkpoints, "
                    f"{', '.join(folder.name for folder in folders)}"))


def checkpoints_in(given: Path) -> list[Path]:
    """A checkpoint as it is; of a run's folder, the epochs that it kept. Raises InputError where it kept none."""
    from ..training.validation import epochs_kept  # late, as above
    if not (given / "metrics.jsonl").exists() or (given / "config.json").exists():
        return [given]
    if found := epochs_kept(given):
        return found
    raise InputError(f"run {given} has kept no epochs in last/; train with --keep-last 5, or name checkpoints")
