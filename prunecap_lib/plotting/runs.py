"""What does a run see while it trains? A few validation pictures, captioned after every epoch, and its curves."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..attention_maps import seen_part
from ..captioner import Caption, Captioner
from ..preprocessing import Preprocessing
from ..training import TrainConfig
from ..training.batches import open_split
from ..training.validation import generation_settings
from .curves import plot_training
from .pictures import SIDE, show_caption
from .style import style


def draw_samples(pictures: Sequence[Image.Image], captions: Sequence[Caption], references: Sequence[str],
                 preprocessing: Preprocessing):
    """One picture a row: itself, what is left of it, where the words looked, and what was written; returns the figure.

    Args: captions that carry attention; references, one caption that a person wrote for each picture.
    """
    rows = len(pictures)
    with style() as plt:
        fig = plt.figure(figsize=(7.5, 3.2 * rows))
        parts = fig.subfigures(rows, 1, squeeze=False)[:, 0]
        for part, picture, caption, reference in zip(parts, pictures, captions, references, strict=True):
            show_caption(part.subplots(1, 3), seen_part(picture, preprocessing, SIDE), caption)
            said = [textwrap.fill(text, 80) for text in (f"“{caption.text}”", f"a person: {reference}")]
            part.suptitle("\n".join(said), fontsize=10, x=0.02, ha="left")
        return fig


class RunFigures:
    """For ``train(config, after_epoch=RunFigures(config, 4))``: RUN/samples/epoch_NNN.png and RUN/curves.png.

    Args: pictures: how many of the validation split are captioned, always the same.
    """

    def __init__(self, config: TrainConfig, pictures: int):
        self.config, self.pictures, self.dataset = config, pictures, None

    def __call__(self, captioner: Captioner, lines: Sequence[dict]) -> dict[str, Path]:
        """``lines`` of metrics.jsonl so far; returns what was drawn, by name."""
        folder = self.config.folder
        drawn = {"curves": folder / "curves.png"}
        _save(plot_training({folder.name: lines}), drawn["curves"], "Loss, token accuracy and CIDEr-D so far.")
        if not self.pictures:
            return drawn
        drawn["samples"] = folder / "samples" / f"epoch_{round(lines[-1]['epoch']):03d}.png"
        self.dataset = self.dataset or open_split(self.config, "val", self.pictures)
        pictures = [self.dataset.image(i) for i in range(len(self.dataset))]
        captions = captioner.generate(pictures, return_attention=True, **generation_settings(self.config))
        figure = draw_samples(pictures, captions, [rows[0] for rows in self.dataset.captions], captioner.preprocessing)
        _save(figure, drawn["samples"], "One picture a row: itself, what pruning left, where the words looked; below, "
              "the captions " + "; ".join(f"“{caption.text}”" for caption in captions))
        return drawn


def _save(figure, path: Path, description: str) -> None:
    from matplotlib import pyplot
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Title": path.stem, "Description": description})
    pyplot.close(figure)
