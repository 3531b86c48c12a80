"""How good is it on pictures it never learned from? The loss of the next word, and the captions themselves."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..captioner import Captioner
from ..datasets.base import CaptionDataset
from ..devices import autocast
from ..distributed import gather_numbers
from ..evaluation import caption_split, mean, per_image_cider, token_accuracy
from .batches import Batches
from .config import TrainConfig
from .objective import next_words


@torch.no_grad()
def validate(model, val: Batches, accelerator) -> dict[str, float]:
    """Loss and token accuracy under teacher forcing, over the validation pictures: each process looks at its share."""
    model.eval()
    sums = torch.zeros(3, dtype=torch.double)
    for batch in val.epoch(0, shuffle=False, drop_last=False):
        images, ids = batch.to(accelerator.device)
        logits, due = next_words(model, images, ids)
        if len(due):
            sums += torch.tensor([F.cross_entropy(logits, due, reduction="sum"),
                                  token_accuracy(logits, due) * len(due), len(due)])
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
