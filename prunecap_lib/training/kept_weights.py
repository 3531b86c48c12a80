"""Whose weights are kept? Of the best epoch, of the last few, and their mean: over steps, or over finished checkpoints.

Polyak & Juditsky 1992 average the weights along the way; Vaswani et al. 2017, section 6.1, the last few checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from .. import checkpoint
from ..captioner import Captioner
from ..checkpoint import CHECKPOINT
from ..errors import CheckpointError, InputError
from ..files import delete_folder, replace_folder
from .config import TrainConfig
from .resume import signature
from .validation import is_best


def moving_average(captioner: Captioner, decay: float):
    """timm's ``ModelEmaV3`` of a captioner: ``.update(captioner, step)`` after each step, counted from 1; ``.module``.

    In step t the decay is min(decay, 1 - t^(-3/4)): the average never reaches back to the random weights of the start.
    Buffers (statistics of a batch norm) are copied as they are.
    """
    from timm.utils import ModelEmaV3  # late: timm takes as long to import as torch
    average = ModelEmaV3(captioner, decay=decay, use_warmup=True, warmup_power=3 / 4, exclude_buffers=True)
    average.module.requires_grad_(False)
    return average


def checkpoint_folders(lines: Sequence[dict], epoch: int, config: TrainConfig) -> list[Path]:
    """Where the weights of this epoch, which ``lines`` end with, go: to ``best`` if they are that, and to
    ``last/epoch_NNN``; nowhere if the run asks for none of caption_every, patience and keep_last."""
    found = []
    if (config.scored_every or config.patience or config.keep_last) and is_best(lines, config):
        found.append(config.folder / "best")
    if config.keep_last:
        found.append(config.folder / "last" / f"epoch_{epoch:03d}")
    return found


def save_kept_epochs(captioner: Captioner, folders: Sequence[Path], epoch: int, config: TrainConfig,
                     weights: dict[str, Tensor] | None = None) -> None:
    """Write checkpoints to caption with, not to go on from; delete those in ``last`` that are not the last any more.
    ``weights``: the captioner's, where it holds only parts of them."""
    for folder in folders:
        with replace_folder(folder, CHECKPOINT) as new:
            checkpoint.write(new, captioner, signature=signature(config), weights=weights)
    for old in epochs_kept(config.folder) if config.keep_last else ():
        if not epoch - config.keep_last < _epoch(old) <= epoch:  # later ones are of a run that was here before
            try:
                delete_folder(old, CHECKPOINT)
            except OSError as error:
                raise CheckpointError(f"could not delete {old}: {error.strerror or error}; see to its permissions, or "
                                      "train with --keep-last 0") from error


def epochs_kept(run: str | Path) -> list[Path]:
    """The checkpoints that a run has kept of its last epochs, oldest first."""
    return sorted((folder for folder in (Path(run) / "last").glob("epoch_*")
                   if re.fullmatch(r"epoch_\d+", folder.name) and CHECKPOINT.owns(folder)), key=_epoch)


def _epoch(kept: Path) -> int:
    """12 of last/epoch_012."""
    return int(kept.name.removeprefix("epoch_"))


def average_checkpoints(folders: Sequence[str | Path]) -> Captioner:
    """The captioner whose every weight is the mean of the same weight in all these checkpoints. Raises InputError for
    none, and for two that differ in more than weights; CheckpointError for one that is damaged."""
    if not folders:
        raise InputError("no checkpoint to average; name at least one")
    mean = Captioner.load(folders[0])
    sums = {key: value.double() for key, value in mean.state_dict().items() if value.is_floating_point()}
    for folder in folders[1:]:
        other = Captioner.load(folder)
        first, second = ({**asdict(one.config), "preprocessing": one.preprocessing, "schedule": one.encoder.schedule,
                          "vocabulary": one.vocabulary.fingerprint()} for one in (mean, other))
        if differ := [f"{key} ({first[key]!r} and {second[key]!r})" for key in first if first[key] != second[key]]:
            raise InputError(f"checkpoints {folders[0]} and {folder} cannot be averaged: they differ in "
                             f"{', '.join(differ[:4])}. Average checkpoints of one run")
        for key, value in other.state_dict().items():
            if key in sums:
                sums[key] += value
    mean.load_state_dict({key: value / len(folders) for key, value in sums.items()}, strict=False)
    return mean.eval()
