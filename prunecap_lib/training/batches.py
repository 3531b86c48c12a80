"""What does the loop eat? Pictures (or their stored features) with R captions each, in an order fixed by the seed.

A step may be shared out: among processes, and in each among several parts, one after another. Whatever is random in a
step is drawn for all of it, and each part takes its own pictures'. So neither number changes what a step sees.

Shapes: B pictures, R captions per picture, T words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..captioner import Captioner
from ..datasets import open_dataset
from ..datasets.base import CaptionDataset
from ..datasets.loading import ImageLoader, exact_pixels, fast_pixels, map_in_workers
from ..distributed import derive_seed
from ..errors import InputError
from ..features import FeatureCache
from ..preprocessing import crop, draw_crops
from ..text import BOS, PAD, pad_batch
from ..tokens import VisualTokens
from .config import TrainConfig


def open_split(config: TrainConfig, split: str, limit: int | None = None) -> CaptionDataset:
    """The configured dataset's split. Scenes are always those of seed 0: ``config.seed`` is the training's."""
    return open_dataset(config.dataset, split=split, root=config.root, size=config.image_size, limit=limit)


class MicroBatchKey(NamedTuple):
    """Which micro-batch of which step: all that it is made from, so that any worker makes the same one."""

    seed: int
    pictures: list[int]  # positions of all the step's pictures
    number: int  # which of the step's micro-batches


@dataclass(frozen=True)
class Batch:
    """One micro-batch of a step; ``images, ids = batch``."""

    images: Tensor | VisualTokens
    ids: Tensor  #: [B*R, T]
    key: MicroBatchKey | None = None  #: None: made by hand.
    source_rows: Sequence[int] = ()  #: Whose picture each is: its place in ``key.pictures``.
    loss_scales: tuple[float, float] = (1.0, 1.0)
    """What the micro-batch's mean over words is multiplied by, and its mean over pictures, so that the mean over all
    micro-batches of the step is the mean over all its words, or pictures: above 1 where it has more than others."""

    def __iter__(self) -> Iterator:
        return iter((self.images, self.ids))

    def to(self, device) -> Batch:
        return replace(self, images=self.images.to(device), ids=self.ids.to(device))


class Batches:
    """Batches of one split, as this process gets them.

    Args: process, processes: which one this is, and of how many. All must have the same ``config``.
    """

    def __init__(self, dataset: CaptionDataset, captioner: Captioner, config: TrainConfig, *, process: int = 0,
                 processes: int = 1):
        self.dataset, self.config, self.process, self.processes = dataset, config, process, processes
        self.parts = processes * config.accumulate
        self.preprocessing = captioner.preprocessing
        self.ids = [[captioner.vocabulary.encode(caption, config.max_words) for caption in captions]
                    for captions in dataset.captions]
        self.features = self.pixels = None
        if config.cache_features:
            pruned = (config.scorer, config.prune_ratio) if config.cache_pruned else None
            self.features = FeatureCache.open_or_build(dataset, captioner.encoder, pruned=pruned,
                                                       workers=config.workers,
                                                       progress=config.progress and not process)
        elif (pixels := dataset.pixels()) is not None:
            self.pixels = torch.from_numpy(pixels)
        else:
            look = fast_pixels if config.fast_decode and dataset.split == "train" else exact_pixels
            self.load_images = ImageLoader(dataset, self.preprocessing, look, most=config.max_unreadable)

    @property
    def pictures(self) -> int:
        """Pictures in one step, of all processes together."""
        return self.config.batch_size * self.parts

    @property
    def steps(self) -> int:
        """Steps in one training epoch."""
        return max(1, len(self.dataset) // self.pictures)

    def pictures_of(self, key: MicroBatchKey) -> list[int]:
        """Positions of the micro-batch's own pictures."""
        return torch.tensor(key.pictures).tensor_split(self.parts)[key.number].tolist()

    def __getitem__(self, key: MicroBatchKey) -> Batch:
        """One whole batch. All of the step's random choices are made, and those of this micro-batch are followed."""
        generator = torch.Generator().manual_seed(key.seed)
        R, total = self.config.captions_per_image, len(key.pictures)
        rows = [_choose(self.ids[i], R, generator) for i in key.pictures]
        crops = draw_crops(total, generator) if self.config.augment and self.features is None else None
        mine = torch.arange(total).tensor_split(self.parts)[key.number]
        if not len(mine):  # the others' last pictures: this one looks at one of them, too, and has no target
            return Batch(self._load(key.pictures[-1:], None)[0], torch.tensor([[BOS, PAD]] * R), key,
                         [total - 1], (0.0, 0.0))
        images, rows_of = self._load([key.pictures[i] for i in mine], None if crops is None else crops[mine])
        rows_of = mine[rows_of].tolist()
        words, mean = (sum(len(row) for i in some for row in rows[i]) - R * len(some)
                       for some in (rows_of, range(total)))
        return Batch(images, pad_batch([row for i in rows_of for row in rows[i]]), key, rows_of,
                     (self.parts * words / mean, self.parts * len(mine) / total))

    def _load(self, indices: list[int], crops: Tensor | None) -> tuple[Tensor | VisualTokens, list[int]]:
        """Images or tokens, and whose each is: its place in ``indices``, unless a picture could not be read."""
        shown = list(range(len(indices)))
        if self.features is not None:
            return self.features.tokens(indices), shown
        if self.pixels is not None:
            images = self.pixels[indices]
        else:
            images, shown = self.load_images(indices)
        return self.preprocessing.normalize(images if crops is None else crop(images, crops)), shown

    def epoch(self, epoch: int, *, start: int = 0, shuffle: bool = True, drop_last: bool = True) -> Iterator[Batch]:
        """This process's batches of one epoch from step ``start`` on, ``accumulate`` of them a step. The short last
        step is left out in training. Raises InputError where there are too few pictures for one."""
        order = torch.arange(len(self.dataset))
        if shuffle:
            generator = torch.Generator().manual_seed(self.config.seed + 7919 * epoch)
            order = self.dataset.order(generator)
        chunks = [chunk.tolist() for chunk in order.split(self.pictures)]
        if drop_last and len(chunks) > 1 and len(chunks[-1]) < self.pictures:
            chunks.pop()
        if drop_last and len(chunks[0]) < self.parts:
            raise InputError(f"data set {self.dataset.name}: {len(order)} pictures cannot be shared out to "
                             f"{self.processes} processes with accumulate {self.config.accumulate}; take fewer "
                             "processes, or more pictures")
        parts = range(self.process, self.parts, self.processes)
        keys = [MicroBatchKey(derive_seed(self.config.seed, epoch, i), chunk, part)
                for i, chunk in enumerate(chunks) if i >= start for part in parts]
        return map_in_workers(self, keys, self.config.workers)


def _choose(rows: list[list[int]], R: int, generator: torch.Generator) -> list[list[int]]:
    """R of a picture's captions, each used once before any is repeated."""
    order = torch.randperm(len(rows), generator=generator).tolist()
    return [rows[order[i % len(rows)]] for i in range(R)]
