"""Which pictures and captions are there to learn from? One function opens them all.

``open_dataset`` returns a ``CaptionDataset``: Scenes (drawn here, no download), Flickr8k or COCO (from disk), or any of
them in shards.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .base import CaptionDataset, ImageId, PhotoDataset, photos_root
from .coco import read_coco
from .flickr8k import read_flickr8k
from .scenes import ScenesDataset
from .shards.dataset import is_url, read_shards

__all__ = ["CaptionDataset", "ImageId", "PhotoDataset", "open_dataset"]

_SCENES = {"train": 20_000, "val": 500, "test": 1_000, "heldout": 500}


def open_dataset(name: str, *, split: str, root: str | Path | None = None, size: int | None = None,
                 limit: int | None = None, seed: int = 0) -> CaptionDataset:
    """Open a split of "scenes", "flickr8k", "coco" or "shards".

    Args:
        split: "train", "val" or "test"; Scenes have "heldout" too, and Flickr8k calls val "dev".
        root: the data set's folder; without it $PRUNECAP_PHOTOS/name. Scenes need none; shards may
            lie at an address (http, https).
        size: side in pixels of the Scenes to draw (64 without it); photographs keep their own size.
        limit: take only the first so many pictures; for Scenes, how many to draw.
        seed: of the Scenes.

    Raises: InputError for an unknown name or split; MissingFileError for absent files.
    """
    if limit is not None and limit < 1:
        raise InputError(f"data set {name}: a limit of {limit} pictures leaves nothing; give at least 1")
    if name == "scenes":
        if split not in _SCENES:
            raise InputError(f"data set scenes: no split {split!r}; choose one of {', '.join(_SCENES)}")
        return ScenesDataset(split, limit or _SCENES[split], size=size or 64, seed=seed)
    if name == "flickr8k":
        return read_flickr8k(photos_root(name, root), split, limit=limit)
    if name == "coco":
        return read_coco(photos_root(name, root), split, limit=limit)
    if name == "shards":
        return read_shards(root if is_url(root) else photos_root(name, root), split, limit=limit)
    raise InputError(f"no data set {name!r}; choose scenes, flickr8k, coco or shards")
