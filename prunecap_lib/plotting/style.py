"""How do the figures look? One look for all: light ground, direct labels, colours that everybody can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager

# Okabe & Ito's palette, and where it ends two of Tol's. One thing keeps one colour through the whole book.
COLOURS = {
    "vit": "#0072B2", "convnext": "#D55E00", "lite0": "#009E73",
    "pilot": "#0072B2", "random": "#7f7f7f", "grid": "#000000", "norm_largest": "#E69F00",
    "norm_smallest": "#D55E00", "cls_attention": "#009E73", "attention_received": "#CC79A7",
    "diversity": "#56B4E9", "relevance": "#882255", "key_norm": "#999933",
    "objects_first": "#b22222", "objects_last": "#4b0082",
}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
HEAT = "plasma"
# For words that DejaVu lacks letters for: what systems and browsers bring for other scripts, as far as it is installed.
FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
         "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "WenQuanYi Zen Hei",
         "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS", "Noto Sans Devanagari", "Nirmala UI",
         "Noto Sans Thai", "Leelawadee UI", "Noto Emoji", "Segoe UI Symbol")


@contextmanager
def style():
    """Context in which figures get the book's look. Figures are opaque, so that dark pages show them whole."""
    import matplotlib.pyplot as plt
    from cycler import cycler
    from matplotlib.font_manager import fontManager
    installed = set(fontManager.get_font_names())
    settings = {
        "font.family": [font for font in FONTS if font in installed] or ["sans-serif"],
        "text.parse_math": False,  # a "$" in a caption is a dollar
        "figure.facecolor": "#fcfcfa", "axes.facecolor": "#fcfcfa", "savefig.facecolor": "#fcfcfa",
        "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 11, "axes.titlesize": 11,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e0",
        "axes.axisbelow": True, "lines.linewidth": 2, "legend.frameon": False,
        "axes.prop_cycle": cycler(color=PALETTE),
    }
    with plt.rc_context(settings):
        yield plt


def label_line(ax, x, y, text: str, colour: str | None = None, *, shift: float = 0) -> None:
    """Write a line's name at its end, in its colour, instead of a legend; ``shift`` points higher."""
    ax.annotate(text, (x, y), xytext=(5, shift), textcoords="offset points", va="center", color=colour, fontsize=10,
                annotation_clip=False)


def label_lines(ax, ends: Sequence[tuple[float, float, str, str | None]]) -> None:
    """``label_line`` for several lines, (x, y, text, colour) each: names that would overlap are pushed apart.

    Call it when the axis limits stand.
    """
    height = ax.get_position().height * ax.figure.get_figheight() * 72  # points
    low, high = ax.get_ylim()
    place = -math.inf
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        wanted = (y - low) / (high - low) * height
        place = max(wanted, place + 11)
        label_line(ax, x, y, text, colour, shift=place - wanted)


def label_points(ax, points: Sequence[tuple[float, float, str, str | None]]) -> None:
    """Write a name beside each point, (x, y, text, colour), where it covers no other point or name.

    Right of the point if there is room, else left, above, below, or wherever is least in the way. Call it when the
    axis limits stand. Widths are estimated: 6 points a letter.
    """
    box = ax.get_position()
    size = box.width * ax.figure.get_figwidth() * 72, box.height * ax.figure.get_figheight() * 72
    limits = ax.get_xlim(), ax.get_ylim()
    spots = [tuple((value - low) / (high - low) * length for value, (low, high), length
                   in zip(point[:2], limits, size, strict=True)) for point in points]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    for (x, y), (*place, text, colour) in zip(spots, points, strict=True):
        width, height = 6 * len(text), 11
        boxes = {}
        for dx, dy in ((6, 0), (-6 - width, 0), *((-width * share, dy) for dy in (10, -10, 20, -20)
                                                   for share in (0.5, 0.1, 0.9)), (6, 8), (6, -8)):
            left, low = x + dx, y + dy - height / 2
            boxes[dx, dy] = (left, low, left + width, low + height)
        free = min(boxes, key=lambda at: sum(_overlap(boxes[at], other) for other in taken)
                   + 1e3 * (boxes[at][0] < 4 or boxes[at][2] > size[0] + 40))
        taken.append(boxes[free])
        ax.annotate(text, place, xytext=free, textcoords="offset points", va="center", color=colour, fontsize=9,
                    annotation_clip=False)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area that two boxes (left, low, right, high) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
