"""What was kept, and where did each word look? Pictures with tokens and attention maps drawn over them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..attention_maps import dim_dropped, mean_map, scale_map, seen_part
from ..captioner import Caption
from ..preprocessing import Preprocessing
from ..pruning import keep_count
from ..tokens import cell_size
from .style import HEAT, style

SIDE = 336  # pixels of a drawn picture


def show_picture(ax, picture: Image.Image, title: str = "", *, grid: tuple[int, int] | None = None) -> None:
    """A picture without axes; with ``grid``, the lines between the H x W cells."""
    ax.imshow(picture)
    ax.set_title(title)
    ax.axis("off")
    if grid:
        sides = picture.height, picture.width
        for cells, cell, side, line in zip(grid, cell_size(grid, sides), sides, (ax.axhline, ax.axvline), strict=True):
            for i in range(1, cells + 1):
                if i * cell < side - 0.5:  # behind the last cell there may be pixels without one
                    line(i * cell - 0.5, color="white", lw=0.7, alpha=0.8)


def contact_sheet(pictures: Sequence[Image.Image], titles: Sequence[str], *, columns: int = 3, width: int = 30):
    """Pictures side by side, each under its title broken at ``width`` letters; returns the figure."""
    rows = math.ceil(len(pictures) / columns)
    broken = [textwrap.fill(title, width) for title in titles]
    lines = max((title.count("\n") + 1 for title in broken), default=1)
    with style() as plt:
        fig = plt.figure(figsize=(2.9 * columns, (2.9 + 0.2 * lines) * rows))
        for ax, picture, title in zip(axes_of(fig, rows, columns), pictures, broken, strict=False):
            show_picture(ax, picture, title)
        return fig


def show_map(ax, picture: Image.Image, values: Tensor, title: str = "", *, highest: float | None = None,
             grid: tuple[int, int] | None = None) -> None:
    """An attention map [H, W] over its picture, scaled by interpolation. ``highest``: value of the strongest colour.

    The map is opaque where attention is high and clear where there is none, so that the picture stays visible.
    ``grid``: the encoder's, as for ``scale_map``.
    """
    heat = scale_map(values, (picture.height, picture.width), "bilinear", grid=grid)
    heat = (heat / (highest or max(float(heat.max()), 1e-9))).clamp(0, 1)
    ax.imshow(picture.convert("L"), cmap="gray", vmin=-120, vmax=300)
    ax.imshow(heat, cmap=HEAT, alpha=(0.85 * heat**0.75).numpy(), vmin=0, vmax=1)
    ax.set_title(title)
    ax.axis("off")


def show_pruned(ax, picture: Image.Image, caption: Caption, when: str = "after prune") -> None:
    """A picture with the cells faded out whose tokens the caption was written without."""
    show_picture(ax, dim_dropped(picture, caption.kept, caption.grid),
                 f"{when}: {len(caption.kept)} of {caption.grid[0] * caption.grid[1]} tokens")


def show_caption(axes, picture: Image.Image, caption: Caption) -> None:
    """What the encoder sees, what pruning leaves of it, and where the words looked, on three axes."""
    show_picture(axes[0], picture, "what the encoder sees", grid=caption.grid)
    show_pruned(axes[1], picture, caption)
    show_map(axes[2], picture, mean_map(caption.attention), "mean attention of all words", grid=caption.grid)


def draw_pruning(pictures: Sequence[Image.Image], captions: Sequence[Caption], titles: Sequence[str] | None = None):
    """Each picture (as ``seen_part`` cuts it) before and after pruning; returns the figure."""
    with style() as plt:
        fig, axes = plt.subplots(2, len(pictures), figsize=(2.6 * len(pictures), 5.4), squeeze=False)
        for column, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            picture = ImageOps.contain(picture, (SIDE, SIDE))
            show_picture(axes[0, column], picture, titles[column] if titles else "before", grid=caption.grid)
            show_pruned(axes[1, column], picture, caption, "after")
        return fig


def draw_kept(picture: Image.Image, kept: Mapping[str, Tensor], grid: tuple[int, int], *, columns: int = 4):
    """One picture (as ``seen_part`` cuts it) under several scores: name -> kept cells [K]; returns the figure."""
    picture = ImageOps.contain(picture, (SIDE, SIDE))
    columns = min(columns, 1 + len(kept))
    rows = math.ceil((1 + len(kept)) / columns)
    with style() as plt:
        fig = plt.figure(figsize=(2.2 * columns, 2.5 * rows))
        axes = axes_of(fig, rows, columns)
        show_picture(axes[0], picture, "all tokens", grid=grid)
        for ax, (name, cells) in zip(axes[1:], kept.items(), strict=False):
            show_picture(ax, dim_dropped(picture, cells, grid), name)
        return fig


def draw_scores(picture: Image.Image, scores: Mapping[str, Tensor], grid: tuple[int, int],
                ratios: Sequence[float] = (0.3, 0.5, 0.7)):
    """One picture (as ``seen_part`` cuts it), one row a score: its order as heat, and what stays; returns the figure.

    The heat is a cell's place in the order, not its value: pruning knows nothing else of a score.

    Args: scores: name -> [N], one number for each cell of ``grid``.
    """
    picture = ImageOps.contain(picture, (SIDE, SIDE))
    shape = len(scores), 1 + len(ratios)
    with style() as plt:
        fig, axes = plt.subplots(*shape, figsize=(1.45 * shape[1], 1.62 * shape[0]), squeeze=False)
        for row, (name, values) in enumerate(scores.items()):
            order = values.flatten().sort(descending=True, stable=True).indices
            place = torch.empty(len(order)).scatter(0, order.cpu(), torch.arange(len(order), 0, -1).float())
            show_map(axes[row, 0], picture, place.view(grid), grid=grid)
            axes[row, 0].set_title(name, loc="left")
            for ax, ratio in zip(axes[row, 1:], ratios, strict=True):
                title = f"{ratio:.0%} removed" if row == 0 else ""
                show_picture(ax, dim_dropped(picture, order[: keep_count(len(order), ratio)].cpu(), grid), title)
        return fig


def draw_caption(picture: Image.Image, caption: Caption, preprocessing: Preprocessing, *, columns: int = 5):
    """One caption explained: ``show_caption``, and one map a word; returns the figure.

    All words share one colour scale, which ends at the 98th percentile of all cells: one word that rests on a single
    cell would leave all others dark. ``caption`` must carry attention.
    """
    picture = seen_part(picture, preprocessing, SIDE)
    words = [word.replace("<eos>", "(end)") for word in caption.words]
    rows = math.ceil(len(words) / columns)
    width, shape = 2.1 * columns, picture.height / picture.width
    heights = width / 3 * shape + 1.0, rows * (width / columns * shape + 0.4)  # inches, titles included
    with style() as plt:
        fig = plt.figure(figsize=(width, sum(heights)))
        top, bottom = fig.subfigures(2, 1, height_ratios=heights)
        show_caption(top.subplots(1, 3), picture, caption)
        top.suptitle(f"“{caption.text}”   log p = {caption.log_prob:.2f}", fontsize=13)
        highest = float(caption.attention.flatten().quantile(0.98))
        for ax, word, values in zip(axes_of(bottom, rows, columns), words, caption.attention, strict=False):
            show_map(ax, picture, values, word, highest=highest, grid=caption.grid)
        return fig


def axes_of(figure, rows: int, columns: int):
    """All axes of a grid in reading order, switched off until something is drawn."""
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes:
        ax.axis("off")
    return axes


def describe_caption(caption: Caption) -> str:
    """Alt text of ``draw_caption``."""
    cells = caption.grid[0] * caption.grid[1]
    return (f"A picture, the same picture with {cells - len(caption.kept)} of its {cells} cells faded out, a map "
            f"of the mean attention, and one map for each of the {len(caption.words)} words of “{caption.text}”.")
