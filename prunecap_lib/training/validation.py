"""How good is it on pictures it never learned from, was that the best so far, and which checkpoints are kept?

Nothing is remembered but the log: a resumed run reads there how good the best was, and how long ago.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import checkpoint
from ..captioner import Captioner
from ..checkpoint import CHECKPOINT
from ..datasets.base import CaptionDataset
from ..devices import autocast
from ..distributed import gather_numbers
from ..errors import CheckpointError
from ..evaluation import caption_split, mean, per_image_cider, token_accuracy
from ..files import delete_folder, replace_folder
from .batches import Batches
from .config import TrainConfig
from .objective import masked_logits_and_targets
from .resume import signature


@torch.no_grad()
def validate(model, val: Batches, accelerator) -> dict[str, float]:
    """Loss and token accuracy under teacher forcing, over the validation pictures: each process looks at its share."""
    model.eval()
    sums = torch.zeros(3, dtype=torch.double)
    for batch in val.epoch(0, shuffle=False, drop_last=False):
        images, ids = batch.to(accelerator.device)
        logits, targets = masked_logits_and_targets(model, images, ids)
        if len(targets):
            sums += torch.tensor([F.cross_entropy(logits, targets, reduction="sum"),
                                  token_accuracy(logits, targets) * len(targets), len(targets)])
    loss, hits, words = gather_numbers(accelerator, sums.tolist()).sum(dim=0).tolist()
    return {"val_loss": loss / words, "val_accuracy": hits / words}


def caption_score(captioner: Captioner, dataset: CaptionDataset, config: TrainConfig) -> float:
    """CIDEr-D of captions of the validation pictures, written as a user would have them: no word is given.

    Raises MissingFileError without Java, whose tokenizer pycocoevalcap uses.
    """
    with autocast(config.precision, captioner.device):
        captions = caption_split(captioner, dataset, batch_size=config.batch_size, seed=config.seed,
                                 cache_features=config.cache_features, **writing(config))
    texts = {key: caption.text for key, caption in captions.items()}
    return mean(per_image_cider(dataset.references(), texts).values())


def writing(config: TrainConfig) -> dict:
    """How captions are written on the way: ``Captioner.generate``'s settings."""
    method = "greedy" if config.caption_beams == 1 else "beam"
    return dict(method=method, beam_size=config.caption_beams, max_length=config.max_words)


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


def checkpoint_folders(lines: Sequence[dict], epoch: int, config: TrainConfig) -> list[Path]:
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


def save_kept_epochs(captioner: Captioner, folders: Sequence[Path], epoch: int, config: TrainConfig,
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
