"""How good is it on pictures it never learned from, was that the best so far, and is patience out?

Nothing is remembered but the log: a resumed run reads there how good the best was, and how long ago.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ..captioner import Captioner
from ..datasets.base import CaptionDataset
from ..devices import autocast
from ..distributed import gather_numbers
from ..evaluation import caption_split, mean, per_image_cider, token_accuracy
from .batches import Batches
from .config import TrainConfig
from .objective import masked_logits_and_targets


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
