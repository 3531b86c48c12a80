"""``prunecap data shards``: pictures, resized once, in WebDataset shards that training reads fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import printable
from ...ranges import Count, Fraction, JpegQuality, Natural, PerShard, Side


@dataclass(frozen=True)
class ShardsCommand:
    """Resize a split's pictures and pack them, with their captions, into WebDataset shards under OUT/SPLIT.

    What was stopped goes on with the same command; finished shards are compared with their checksums, and written
    again if they are damaged. Training reads them with --dataset shards --root OUT.

    OUT may lie on a web server: give its address as --root (http://host/shards/coco). Each machine then keeps the
    shards that it reads in the folder PRUNECAP_CACHE (default ~/.cache/prunecap), at most PRUNECAP_CACHE_GB of them
    (default 20; COCO's have about 5). Both are environment variables.

    examples:
      prunecap data shards --dataset coco --root photos/coco --split train --out shards/coco --workers 8
      prunecap data shards --dataset coco --root photos/coco --split val --out shards/coco --workers 8
      prunecap train --dataset shards --root shards/coco --workers 4 --out runs/coco
    """

    out: Path
    """Folder for the splits."""
    dataset: Literal["scenes", "flickr8k", "coco"] = "coco"
    split: str = "train"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS."""
    limit: Count | None = None
    """Only the first so many pictures."""
    side: Side = 256
    """Pixels of the shorter side; smaller pictures are not enlarged. For encoders of 224 pixels, 256."""
    quality: JpegQuality = 90
    """Of the JPEGs, 1 to 95."""
    per_shard: PerShard = 1000
    """Pictures in a shard."""
    workers: Natural = 0
    """Processes that decode and resize, beside the one that writes."""
    max_unreadable: Fraction = 0.001
    """Share of the pictures that may be left out because they cannot be read."""
    progress: bool = True

    def run(self) -> None:
        from tqdm import tqdm

        from ...datasets import open_dataset
        from ...datasets.shards.build import SHARDS, build_shards
        from ...datasets.shards.index import ShardSettings, split_folder
        from ...files import check_output_folder

        settings = ShardSettings(self.side, self.quality, self.per_shard)
        check_output_folder(self.out, SHARDS)
        dataset = open_dataset(self.dataset, split=self.split, root=self.root, limit=self.limit,
                               size=self.side if self.dataset == "scenes" else None)
        index = build_shards(dataset, self.out, settings, workers=self.workers, max_unreadable=self.max_unreadable,
                             progress=self.progress, say=tqdm.write)
        size, left_out = sum(shard.bytes for shard in index.shards), index.unreadable
        print(f"{printable(self.out / split_folder(dataset.split))}: {len(dataset) - len(left_out):,} pictures in "
              f"{len(index.shards)} shards, {size / 1e6:,.0f} MB"
              + (f"; {len(left_out)} unreadable ones left out, listed in index.json" if left_out else ""))
