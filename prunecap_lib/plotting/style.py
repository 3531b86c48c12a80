"""How do the figures look? One look for all: light ground, direct labels, colours that everybody can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager

# Okabe & Ito's palette, and where it ends two of Tol's. One thing keeps one colour through the whole book.
COLOURS = {
    "vit": "#0072B2", "convnext": "#D55E00", "lite0": "#009E73",
    "pilot": "#0072B2", "random": "#7f7f7f", "grid": "#000000", "norm_largest": "#E69F00",
    "norm_smallest": "#D55E00", "cls_attention": "#009E73", "attention_received": "#CC79A7",
    "diversity": "#56B4E9", "relevance": "#882255", "key_norm": "#999933",
}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
HEAT = "plasma"


@contextmanager
def style():
    """Context in which figures get the book's look. Figures are opaque, so that dark pages show them whole."""
    import matplotlib.pyplot as plt
    from cycler import cycler
    settings = {
        "figure.facecolor": "#fcfcfa", "axes.facecolor": "#fcfcfa", "savefig.facecolor": "#fcfcfa",
        "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 11, "axes.titlesize": 11,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e0",
        "axes.axisbelow": True, "lines.linewidth": 2, "legend.frameon": False,
        "axes.prop_cycle": cycler(color=PALETTE),
    }
    with plt.rc_context(settings):
        yield plt


def label_line(ax, x, y, text: str, colour: str | None = None) -> None:
    """Write a line's name at its end, in its colour, instead of a legend."""
    ax.annotate(text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", color=colour, fontsize=10,
                annotation_clip=False)


def label_lines(ax, ends: Sequence[tuple[float, float, str, str | None]]) -> None:
    """``label_line`` for several lines, (x, y, text, colour) each: names that would overlap are pushed apart.

    Call it when the axis limits stand.
    """
    ends = sorted(ends, key=lambda end: end[1])
    height = ax.get_position().height * ax.figure.get_figheight() * 72  # points
    low, high = ax.get_ylim()
    places = []
    for _, y, *_ in ends:
        wanted = (y - low) / (high - low) * height
        places.append(max(wanted, places[-1] + 11) if places else wanted)
    for (x, y, text, colour), place in zip(ends, places, strict=True):
        shift = place - (y - low) / (high - low) * height
        ax.annotate(text, (x, y), xytext=(5, shift), textcoords="offset points", va="center", color=colour, fontsize=10,
                    annotation_clip=False)
