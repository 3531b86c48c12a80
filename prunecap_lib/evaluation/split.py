"""How is a whole split captioned, by one process or by many? Each takes whole batches, and all get every caption.

A batch's captions can depend on its size: sums of floats are taken in another order. So a process takes batches as
they are in one process, and not a share of each; and a batch's random numbers depend on the seed and on its first
picture, not on what was captioned before.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..captioner import Caption, Captioner
from ..datasets.base import CaptionDataset
from ..distributed import gather_sorted, processes, seeded_rng
from ..features.cache import FeatureCache
from ..text import pad_batch
from ..tokens import VisualTokens
from .statistics import token_accuracy


class EncoderInputs:
    """What the captioner gets of picture i: stored features, or the picture itself."""

    def __init__(self, captioner: Captioner, dataset: CaptionDataset, *, cache_features: bool = False,
                 progress: bool = False):
        self.captioner, self.dataset, self.cache = captioner, dataset, None
        if cache_features:
            with processes().main_process_first():  # one builds, then all open
                self.cache = FeatureCache.open_or_build(dataset, captioner.encoder, progress=progress)

    def batches(self, batch_size: int, progress: bool = False) -> Iterator[tuple[list[int], Tensor | VisualTokens]]:
        """Yield (positions, images or tokens), in order: this process's share of the batches."""
        from tqdm import tqdm
        here = processes()
        chunks = torch.arange(len(self.dataset)).split(batch_size)[here.process_index :: here.num_processes]
        shown = progress and here.is_main_process
        for chunk in tqdm(chunks, disable=None if shown else True,  # None: where nobody looks, too
                          desc=f"{self.dataset.name} {self.dataset.split}"):
            positions = chunk.tolist()
            if self.cache is not None:
                yield positions, self.cache.tokens(positions).to(self.captioner.device)
            else:
                yield positions, self.captioner.preprocess([self.dataset.image(i) for i in positions])


@torch.inference_mode()
def encode_split(captioner: Captioner, dataset: CaptionDataset, *, batch_size: int = 64, cache_features: bool = False,
                  progress: bool = False, seed: int = 0, prune_ratio: float | None = None,
                  scorer: str | None = None) -> Iterator[tuple[list[int], VisualTokens]]:
    """Yield (positions, the tokens that were kept) of this process's batches: each picture is encoded once."""
    training = captioner.training
    for positions, images in EncoderInputs(captioner, dataset, cache_features=cache_features,
                                   progress=progress).batches(batch_size, progress):
        with seeded_rng(seed, positions[0]):
            captioner.eval()
            _, kept = captioner.encode_memory(images, prune_ratio, scorer)
            captioner.train(training)
            yield positions, kept


def caption_split(captioner: Captioner, dataset: CaptionDataset, *, method: str = "greedy", beam_size: int = 5,
                  max_length: int = 20, **settings) -> dict[int | str, Caption]:
    """A caption for every picture: image_id -> Caption, in the data set's order.

    Of n processes, each captions every n-th batch, and all return the same: what one process returns.

    Args:
        method, beam_size, max_length: see ``Captioner.generate``.
        settings: go to ``encode_split``; its ``seed`` is of the scorer 'random'.
    """
    found = []
    for positions, kept in encode_split(captioner, dataset, **settings):
        found += captions_of(captioner, positions, kept, method=method, beam_size=beam_size, max_length=max_length)
    return by_id(dataset, found)


def split_accuracy(captioner: Captioner, dataset: CaptionDataset, **settings) -> float:
    """Token accuracy under teacher forcing, against each picture's first caption (the presentation's ACC).

    Several processes share the batches, as in ``caption_split``. ``settings`` go to ``encode_split``.
    """
    return accuracy_of([words_hit(captioner, dataset, positions, kept)
                        for positions, kept in encode_split(captioner, dataset, **settings)])


def captions_of(captioner: Captioner, positions: list[int], kept: VisualTokens,
                **search) -> Iterator[tuple[int, Caption]]:
    """(position, caption) of a batch of ``encode_split``. ``search``: method, beam_size, max_length."""
    return zip(positions, captioner.generate(kept, prune_ratio=0.0, **search), strict=True)


def by_id(dataset: CaptionDataset, found: list[tuple[int, Caption]]) -> dict[int | str, Caption]:
    """The captions of all processes: image_id -> Caption."""
    return {dataset.image_ids[i]: caption for i, caption in gather_sorted(found)}


@torch.inference_mode()
def words_hit(captioner: Captioner, dataset: CaptionDataset, positions: list[int],
              kept: VisualTokens) -> tuple[int, float, int]:
    """(the batch's first position, words foretold, words) under teacher forcing."""
    ids = pad_batch([captioner.vocabulary.encode(dataset.captions[i][0], captioner.config.max_length - 2)
                     for i in positions]).to(captioner.device)
    words = int((ids[:, 1:] != 0).sum())
    logits = captioner.decoder(ids[:, :-1], captioner.projection(kept.sequence))
    return positions[0], token_accuracy(logits, ids[:, 1:]) * words, words


def accuracy_of(found: list[tuple[int, float, int]]) -> float:
    """Share of words foretold, of all processes' batches."""
    hits = total = 0
    for _, right, words in gather_sorted(found):
        hits, total = hits + right, total + words
    return hits / total
