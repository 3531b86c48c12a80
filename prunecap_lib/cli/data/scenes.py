"""``prunecap data scenes``: draw Scenes as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import printable
from ...ranges import Count, Seed, Side


@dataclass(frozen=True)
class ScenesCommand:
    """Draw Scenes: images/, captions_SPLIT.json and instances_SPLIT.json as COCO has them."""

    out: Path = Path("data/scenes")
    n: Count = 1000
    """Number of pictures."""
    size: Side = 224
    """Side in pixels."""
    split: Literal["train", "val", "test", "heldout"] = "train"
    seed: Seed = 0

    def run(self) -> None:
        from ...datasets.scenes import SCENES, make_scenes, write_coco
        from ...files import check_output_folder
        check_output_folder(self.out, SCENES)
        write_coco(make_scenes(self.n, seed=self.seed, size=self.size, split=self.split), self.out)
        print(f"{self.n} scenes of {self.size} px in {printable(self.out)}")
