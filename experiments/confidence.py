"""Does a captioner know that a picture is unlike its photographs? How sure it is of its captions, on pictures of kinds.

    PRUNECAP_PHOTOS=photos python experiments/confidence.py --out data/results/confidence.json

The mean log-probability a word (``Caption.mean_log_prob``) of photos-lite0's captions: of Flickr8k's dev photographs,
like which it was trained, and of Scenes, charts, pages of text, plain colours and noise, like which it was not. For
each kind: the AUC, how often a photograph's caption is the surer one of two; and how many are below a threshold under
which 5% of the photographs lie. It comes from one half of the photographs, and the 5% are checked on the other.
"""

from __future__ import annotations

import argparse
import io

import numpy as np
import torch
from PIL import Image

from prunecap_lib import Captioner
from prunecap_lib.datasets import open_dataset
from prunecap_lib.datasets.scenes import make_scenes
from prunecap_lib.evaluation import bootstrap_interval, ranking_auc
from prunecap_lib.provenance import provenance, write_json

SIDE = 320
FALSE_ALARMS = 0.05
WORDS = "the of and to in is that for it as was with be by on not he his but at are this have from or".split()


def noise(rng: np.random.Generator) -> Image.Image:
    """From single pixels to clouds."""
    side = int(2 ** rng.uniform(2, np.log2(SIDE)))
    small = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def plain(rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in rng.integers(0, 256, 3)))


def chart(rng: np.random.Generator) -> Image.Image:
    """Lines, bars or points."""
    return drawn(lambda axes: [
        lambda: axes.plot(rng.normal(size=(30, 3)).cumsum(axis=0)), lambda: axes.bar(range(8), rng.random(8)),
        lambda: axes.scatter(*rng.normal(size=(2, 60)))][rng.integers(3)]())


def page(rng: np.random.Generator) -> Image.Image:
    """A page of words, dark on light."""
    lines = [" ".join(rng.choice(WORDS, 9)) for _ in range(18)]

    def write(axes):
        axes.axis("off")
        axes.text(0, 0, "\n".join(lines), size=float(rng.uniform(7, 12)), wrap=False)
    return drawn(write)


def drawn(draw) -> Image.Image:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(4, 4), dpi=SIDE / 4)
    draw(axes)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    pyplot.close(figure)
    return Image.open(file).convert("RGB")


def sureness(captioner: Captioner, pictures) -> torch.Tensor:
    """Mean log-probability a word of each picture's caption, by the command line's search: [n]."""
    found, pictures = [], list(pictures)
    for start in range(0, len(pictures), 32):
        found += [caption.mean_log_prob for caption in captioner.generate(pictures[start : start + 32], method="beam")]
    return torch.tensor(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="photos-lite0")
    parser.add_argument("--photographs", type=int, default=400)
    parser.add_argument("--others", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    captioner, rng = Captioner.load(given.checkpoint), np.random.default_rng(given.seed)
    dev = open_dataset("flickr8k", split="dev", limit=given.photographs)
    known = sureness(captioner, (dev.image(i) for i in range(len(dev))))
    scenes = make_scenes(given.others, split="test", size=224)
    kinds = {"scenes": (scene.image for scene in scenes),
             **{draw.__name__: (draw(rng) for _ in range(given.others)) for draw in (chart, page, plain, noise)}}
    threshold = float(known[::2].quantile(FALSE_ALARMS))
    rows = {}
    for kind, pictures in kinds.items():
        other = sureness(captioner, pictures)
        holds = torch.cat([torch.ones(len(known)), torch.zeros(len(other))])
        rows[kind] = {"pictures": len(other), "mean_log_prob": round(other.mean().item(), 4),
                      "AUC": round(ranking_auc(torch.cat([known, other]), holds), 4),
                      "below_threshold": round((other < threshold).float().mean().item(), 4)}
        print(kind, rows[kind], flush=True)
    interval = bootstrap_interval((known[1::2] < threshold).float().tolist(), seed=given.seed)
    write_json(given.out, {
        "checkpoint": given.checkpoint, "search": "beam5", "photographs": len(known),
        "mean_log_prob": round(known.mean().item(), 4), "threshold": round(threshold, 4),
        "photographs_below_threshold": round((known[1::2] < threshold).float().mean().item(), 4),
        "photographs_below_threshold_interval": [round(bound, 4) for bound in interval],
        "others": rows, "provenance": provenance() | {"seed": given.seed}})


if __name__ == "__main__":
    main()
