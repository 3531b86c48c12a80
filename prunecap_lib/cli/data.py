"""``prunecap data``: draw Scenes into COCO's files, or look at what is in a data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

DESCRIPTION = """Draw Scenes, or look at what is in a data set.

examples:
  prunecap data scenes --out data/scenes --n 1000 --size 224
  prunecap data info --dataset flickr8k --root photos/flickr8k --split train
"""


@dataclass(frozen=True)
class ScenesCommand:
    """Draw Scenes: images/, captions_SPLIT.json and instances_SPLIT.json as COCO has them."""

    out: Path = Path("data/scenes")
    n: int = 1000
    """Number of pictures."""
    size: int = 224
    """Side in pixels."""
    split: Literal["train", "val", "test", "heldout"] = "train"
    seed: int = 0


@dataclass(frozen=True)
class InfoCommand:
    """Count pictures, captions and words of a split, and show a few."""

    dataset: Literal["scenes", "flickr8k", "coco"] = "scenes"
    split: str = "val"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS."""
    limit: int | None = None


def main(argv: list[str]) -> None:
    command = tyro.cli(Annotated[ScenesCommand, tyro.conf.subcommand("scenes")]
                       | Annotated[InfoCommand, tyro.conf.subcommand("info")],
                       args=argv, prog="prunecap data", description=DESCRIPTION)
    match command:
        case ScenesCommand():
            draw(command)
        case InfoCommand():
            info(command)


def draw(command: ScenesCommand) -> None:
    from ..datasets.scenes import make_scenes, write_coco
    write_coco(make_scenes(command.n, seed=command.seed, size=command.size, split=command.split), command.out)
    print(f"{command.n} scenes of {command.size} px in {command.out}")


def info(command: InfoCommand) -> None:
    from ..datasets import open_dataset
    from ..text import tokenize
    dataset = open_dataset(command.dataset, split=command.split, root=command.root, limit=command.limit)
    captions = [caption for row in dataset.captions for caption in row]
    words = Counter(word for caption in captions for word in tokenize(caption))
    print(f"{dataset.name} {dataset.split}: {len(dataset)} pictures, {len(captions)} captions, "
          f"{len(words)} different words, {sum(words.values()) / len(captions):.1f} words a caption")
    for i in range(min(3, len(dataset))):
        print(f"  {dataset.image_ids[i]}: {dataset.captions[i][0]}")
