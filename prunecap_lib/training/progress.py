"""Is it getting better? What the log says of the best epoch and of when to stop, and which checkpoints stay on disk.

Nothing is remembered but the log: a resumed run reads there how good the best was, and how long ago.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .. import checkpoint
from ..captioner import Captioner
from ..files import replace_folder
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


def keep(captioner: Captioner, lines: Sequence[dict], epoch: int, config: TrainConfig,
         weights: dict[str, Tensor] | None = None) -> None:
    """Write the weights of this epoch to ``best`` if it is that, and to ``last/epoch_NNN``, where older ones go.

    ``captioner`` was just validated, and ``lines`` end with that. A run that asks for none of caption_every, patience
    and keep_last keeps its last checkpoint alone. ``weights``: the captioner's, where it holds only parts of them.
    """
    if (config.scored_every or config.patience or config.keep_last) and is_best(lines, config):
        write(config.folder / "best", captioner, config, weights)
    if config.keep_last:
        write(config.folder / "last" / f"epoch_{epoch:03d}", captioner, config, weights)
        for old in epochs_kept(config.folder)[: -config.keep_last]:
            shutil.rmtree(old)


def write(folder: Path, captioner: Captioner, config: TrainConfig, weights: dict[str, Tensor] | None) -> None:
    """A checkpoint to caption with, not to go on from."""
    with replace_folder(folder) as new:
        checkpoint.write(new, captioner, signature=signature(config), weights=weights)


def epochs_kept(run: str | Path) -> list[Path]:
    """The checkpoints that a run has kept of its last epochs, oldest first."""
    return sorted((Path(run) / "last").glob("epoch_*"), key=lambda path: int(path.name.removeprefix("epoch_")))
