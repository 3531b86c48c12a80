"""How good is it on pictures it never learned from, was that the best so far, and which weights are kept?

Nothing is remembered but the log: a resumed run reads there how good the best was, and how long ago. Means of weights:
along the way by Polyak & Juditsky 1992; of the last few checkpoints by Vaswani et al. 2017, section 6.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
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
from ..errors import CheckpointError, InputError
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
        logits, targets = masked_logits_and_targets(model, *batch.to(accelerator.device))
        if len(targets):
            sums += torch.tensor([F.cross_entropy(logits, targets, reduction="sum"),
                                  token_accuracy(logits, targets) * len(targets), len(targets)])
    loss, hits, words = gather_numbers(accelerator, sums.tolist()).sum(dim=0).tolist()
    return {"val_loss": loss / words, "val_accuracy": hits / words}


def caption_score(captioner: Captioner, dataset: CaptionDataset, config: TrainConfig) -> float:
    """CIDEr-D of captions of the validation pictures, written as a user would have them: no word is given. Raises
    MissingFileError without Java, whose tokenizer pycocoevalcap uses."""
    with autocast(config.precision, captioner.device):
        captions = caption_split(captioner, dataset, batch_size=config.batch_size, seed=config.seed,
                                 cache_features=config.cache_features, **generation_settings(config))
    texts = {key: caption.text for key, caption in captions.items()}
    return mean(per_image_cider(dataset.references(), texts).values())


def generation_settings(config: TrainConfig) -> dict:
    """``Captioner.generate``'s settings for captions of validation pictures."""
    method = "greedy" if config.caption_beams == 1 else "beam"
    return dict(method=method, beam_size=config.caption_beams, max_length=config.max_words)


def scores(lines: Sequence[dict], config: TrainConfig) -> list[float]:
    """How good each validation in metrics.jsonl was: CIDEr-D where captions are scored, else minus the loss."""
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
