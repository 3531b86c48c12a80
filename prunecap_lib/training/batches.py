"""What does the loop eat? Pictures (or their stored features) with R captions each, in an order fixed by the seed.

Shapes: B pictures, R captions per picture, T words.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..captioner import Captioner
from ..datasets import open_dataset
from ..datasets.base import CaptionDataset
from ..datasets.decode import exact_pixels, fast_pixels
from ..datasets.features import FeatureCache
from ..datasets.readable import Readable
from ..datasets.workers import end_with_parent
from ..preprocessing import augment
from ..text import Tokenizer, pad_batch
from ..tokens import VisualTokens
from .config import TrainConfig


def open_split(config: TrainConfig, split: str, limit: int | None = None) -> CaptionDataset:
    """The configured dataset's split. Scenes are always those of seed 0: ``config.seed`` is the training's."""
    return open_dataset(config.dataset, split=split, root=config.root, size=config.image_size, limit=limit)


class Batches:
    """Batches of one split: ``(images or tokens, ids [B*R, T])``."""

    def __init__(self, dataset: CaptionDataset, captioner: Captioner, config: TrainConfig):
        self.dataset, self.config = dataset, config
        self.preprocessing = captioner.preprocessing
        self.ids = [encode_captions(captions, captioner.vocabulary, config.max_words)
                    for captions in dataset.captions]
        self.features = self.pixels = None
        if config.cache_features:
            pruned = (config.scorer, config.prune_ratio) if config.cache_pruned else None
            self.features = FeatureCache.open_or_build(dataset, captioner.encoder, pruned=pruned,
                                                       workers=config.workers, progress=config.progress)
        elif hasattr(dataset, "pixels"):
            self.pixels = torch.from_numpy(dataset.pixels())
        else:
            look = fast_pixels if config.fast_decode and dataset.split == "train" else exact_pixels
            self.readable = Readable(dataset, self.preprocessing, look, most=config.max_unreadable)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, batch: tuple[int, list[int]]) -> tuple[Tensor | VisualTokens, Tensor]:
        """One whole batch; its first entry seeds everything random in it, so any worker makes the same one."""
        seed, indices = batch
        generator = torch.Generator().manual_seed(seed)
        R = self.config.captions_per_image
        rows = [list(choose_captions(self.ids[i], R, generator)) for i in indices]
        images, shown = self._look(indices, generator)
        return images, pad_batch([row for k in shown for row in rows[k]])

    def _look(self, indices: list[int], generator: torch.Generator):
        """Images or tokens, and whose each is: its place in ``indices``, unless a picture could not be read."""
        shown = list(range(len(indices)))
        if self.features is not None:
            return self.features.tokens(indices), shown
        if self.pixels is not None:
            images = self.pixels[indices]
        else:
            images, shown = self.readable(indices)
        if self.config.augment:
            images = augment(images, generator)
        return self.preprocessing.normalize(images), shown

    def epoch(self, epoch: int, *, shuffle: bool = True, drop_last: bool = True) -> DataLoader:
        """Batches of one epoch; the short last one is left out in training."""
        order = torch.arange(len(self))
        if shuffle:
            generator = torch.Generator().manual_seed(self.config.seed + 7919 * epoch)
            near = getattr(self.dataset, "order", None)  # shards have an order that stays in a few files at a time
            order = torch.randperm(len(self), generator=generator) if near is None else near(generator)
        chunks = [chunk.tolist() for chunk in order.split(self.config.batch_size)]
        if drop_last and len(chunks) > 1 and len(chunks[-1]) < self.config.batch_size:
            chunks.pop()
        keys = [(hash((self.config.seed, epoch, i)) & 0x7FFFFFFF, chunk) for i, chunk in enumerate(chunks)]
        # a generator of its own: opening a loader must not disturb the run's random state
        return DataLoader(self, sampler=keys, batch_size=None, num_workers=self.config.workers,
                          worker_init_fn=end_with_parent, generator=torch.Generator())

    @property
    def steps(self) -> int:
        """Batches in one training epoch."""
        return max(1, len(self) // self.config.batch_size)


def encode_captions(captions: list[str], vocabulary: Tokenizer, max_words: int) -> list[list[int]]:
    """Ids of each caption, cut after ``max_words`` words or pieces of words."""
    return [vocabulary.encode(caption, max_words) for caption in captions]


def choose_captions(rows: list[list[int]], R: int, generator: torch.Generator) -> Iterator[list[int]]:
    """R of a picture's captions, each used once before any is repeated."""
    order = torch.randperm(len(rows), generator=generator).tolist()
    return (rows[order[i % len(rows)]] for i in range(R))
