"""How good is it on pictures it never learned from? The loss of the next word, and the captions themselves."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..captioner import Captioner
from ..datasets.base import CaptionDataset
from ..evaluation import per_image_cider, token_accuracy
from ..reports import caption_split, mean
from .batches import Batches, open_split
from .config import TrainConfig
from .objective import next_words


class Judge:
    """Validates after an epoch: the loss after each, CIDEr-D after every ``caption_every`` and after the last."""

    def __init__(self, val: Batches, config: TrainConfig):
        self.val, self.config = val, config
        self.pictures = open_split(config, "val", config.caption_limit) if config.caption_every else None

    def __call__(self, model, captioner: Captioner, epoch: int) -> dict[str, float]:
        """What the log is told of the epoch, counted from 1. ``model`` is the captioner, perhaps wrapped."""
        found, every = validate(model, self.val, captioner.device), self.config.caption_every
        if every and (epoch % every == 0 or epoch == self.config.epochs):
            found["cider"] = caption_score(captioner, self.pictures, self.config)
        return found


@torch.no_grad()
def validate(model, val: Batches, device) -> dict[str, float]:
    """Loss and token accuracy under teacher forcing, over the validation pictures."""
    model.eval()
    sums = torch.zeros(3, dtype=torch.double)
    for images, ids in val.epoch(0, shuffle=False, drop_last=False):
        images, ids = images.to(device), ids.to(device)
        logits, due = next_words(model, images, ids)
        sums += torch.tensor([F.cross_entropy(logits, due, reduction="sum"),
                              token_accuracy(logits, due) * len(due), len(due)])
    return {"val_loss": float(sums[0] / sums[2]), "val_accuracy": float(sums[1] / sums[2])}


def caption_score(captioner: Captioner, dataset: CaptionDataset, config: TrainConfig) -> float:
    """CIDEr-D of captions of the validation pictures, written as a user would have them: no word is given.

    Raises MissingFileError without Java, whose tokenizer pycocoevalcap uses.
    """
    device = captioner.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
        captions = caption_split(captioner, dataset, batch_size=config.batch_size, seed=config.seed,
                                 cache_features=config.cache_features, **writing(config))
    texts = {key: caption.text for key, caption in captions.items()}
    return mean(per_image_cider(dataset.references(), texts).values())


def writing(config: TrainConfig) -> dict:
    """How captions are written on the way: ``Captioner.generate``'s settings."""
    method = "greedy" if config.caption_beams == 1 else "beam"
    return dict(method=method, beam_size=config.caption_beams, max_length=config.max_words)
