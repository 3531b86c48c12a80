"""Is it getting better? What the log says of the best epoch and of when to stop, and which checkpoints stay on disk.

Nothing is remembered but the log: a resumed run reads there how good the best was, and how long ago.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .. import checkpoint
from ..captioner import Captioner
from ..checkpoint import CHECKPOINT
from ..errors import CheckpointError
from ..files import delete_folder, replace_folder
from .config import TrainConfig
from .state import signature


def scores(lines: Sequence[dict], config: TrainConfig) -> list[float]:
    """How good each validation in the log was, more is better: CIDEr-D where captions are scored, else minus the loss.

    Args: lines of metrics.jsonl.
    """
    key, sign = ("cider", 1) if config.scored_every else ("val_loss", -1)
    return [sign * line[key] for line in lines if key in line]


def is_best(lines: Sequence[dict], config: TrainConfig) -> bool:
    """Was the last line a validation, and better than every one before it?"""
    before, now = scores(lines[:-1], config), scores(lines[-1:], config)
    return bool(now) and now[0] > max(before, default=float("-inf"))


def out_of_patience(lines: Sequence[dict], config: TrainConfig) -> bool:
    """Have ``patience`` validations in a row not been better than the best before them?"""
    found = scores(lines, config)
    return 0 < config.patience < len(found) and max(found[-config.patience :]) <= max(found[: -config.patience])


def places(lines: Sequence[dict], epoch: int, config: TrainConfig) -> list[Path]:
    """Where the weights of this epoch go: to ``best`` if they are that, and to ``last/epoch_NNN``.

    ``lines`` end with the epoch's validation. A run that asks for none of caption_every, patience and keep_last keeps
    its last checkpoint alone.
    """
    found = []
    if (config.scored_every or config.patience or config.keep_last) and is_best(lines, config):
        found.append(config.folder / "best")
    if config.keep_last:
        found.append(config.folder / "last" / f"epoch_{epoch:03d}")
    return found


def keep(captioner: Captioner, folders: Sequence[Path], epoch: int, config: TrainConfig,
         weights: dict[str, Tensor] | None = None) -> None:
    """Write checkpoints to caption with, not to go on from; epochs in ``last`` that are not the last any more, go.

    ``weights``: the captioner's, where it holds only parts of them.
    """
    for folder in folders:
        with replace_folder(folder, CHECKPOINT) as new:
            checkpoint.write(new, captioner, signature=signature(config), weights=weights)
    if config.keep_last:
        for old in epochs_kept(config.folder):  # those beyond this epoch are of a run that was here before
            if not epoch - config.keep_last < number(old) <= epoch:
                try:
                    delete_folder(old, CHECKPOINT)
                except OSError as error:
                    raise CheckpointError(f"could not delete {old}: {error.strerror or error}; see to its permissions, "
                                          "or train with --keep-last 0") from error


def epochs_kept(run: str | Path) -> list[Path]:
    """The checkpoints that a run has kept of its last epochs, oldest first."""
    return sorted((folder for folder in (Path(run) / "last").glob("epoch_*")
                   if re.fullmatch(r"epoch_\d+", folder.name) and CHECKPOINT.owns(folder)), key=number)


def number(kept: Path) -> int:
    """Of which epoch a checkpoint is: 12 of last/epoch_012."""
    return int(kept.name.removeprefix("epoch_"))
