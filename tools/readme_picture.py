"""Which picture does the README show? Four test scenes before and after pruning, with what the model says of them.

    python tools/readme_picture.py        writes book/images/readme.png
"""

from __future__ import annotations

import textwrap

import matplotlib

import chapters
from prunecap_lib import Captioner
from prunecap_lib.datasets.scenes import make_scenes
from prunecap_lib.plotting import draw_pruning

matplotlib.use("Agg")
SCENES, PRUNE_RATIO = (0, 3, 9, 17), 0.3


def main() -> None:
    scenes = make_scenes(max(SCENES) + 1, split="test", size=224)
    pictures = [scenes[i].image for i in SCENES]
    captions = Captioner.load("scenes-convnext").generate(pictures, prune_ratio=PRUNE_RATIO)
    fig = draw_pruning(pictures, captions, [textwrap.fill(caption.text, 26) for caption in captions])
    out = chapters.ROOT / "book" / "images" / "readme.png"
    out.parent.mkdir(exist_ok=True)
    fig.savefig(out, dpi=100)
    print(f"{out.relative_to(chapters.ROOT)}: " + "; ".join(caption.text for caption in captions))


if __name__ == "__main__":
    main()
