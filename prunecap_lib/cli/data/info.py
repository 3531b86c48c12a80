"""``prunecap data info``: what is in a data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InfoCommand:
    """Count pictures, captions and words of a split, and show a few."""

    dataset: Literal["scenes", "flickr8k", "coco", "shards"] = "scenes"
    split: str = "val"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS."""
    limit: int | None = None

    def run(self) -> None:
        from ...datasets import open_dataset
        from ...text import tokenize
        dataset = open_dataset(self.dataset, split=self.split, root=self.root, limit=self.limit)
        captions = [caption for row in dataset.captions for caption in row]
        words = Counter(word for caption in captions for word in tokenize(caption))
        print(f"{dataset.name} {dataset.split}: {len(dataset)} pictures, {len(captions)} captions, "
              f"{len(words)} different words, {sum(words.values()) / len(captions):.1f} words a caption")
        for i in range(min(3, len(dataset))):
            print(f"  {dataset.image_ids[i]}: {dataset.captions[i][0]}")
