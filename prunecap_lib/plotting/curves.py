"""How did a run go, what did pruning cost, which is larger? Lines over steps and prune ratios, dots with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .style import COLOURS, PALETTE, label_lines, style


def smooth(values: Sequence[float], window: int = 9) -> np.ndarray:
    """Centred running mean. Towards both ends its window shrinks on both sides alike, else the ends would be bent."""
    values = np.asarray(values, dtype=float)
    half = [min(window // 2, i, len(values) - 1 - i) for i in range(len(values))]
    return np.array([values[i - h : i + h + 1].mean() for i, h in enumerate(half)])


def plot_training(histories: Mapping[str, Sequence[dict]], *, window: int = 9):
    """Loss and token accuracy of several runs side by side, and CIDEr-D where one has it; returns the figure.

    Args: histories: run name -> lines of metrics.jsonl. Points are the validation split.
    """
    captioned = any("cider" in line for lines in histories.values() for line in lines)
    with style() as plt:
        fig, axes = plt.subplots(1, 3 if captioned else 2, figsize=(13 if captioned else 9, 3.6))
        ends = {ax: [] for ax in axes}
        for place, (name, lines) in enumerate(histories.items()):
            colour = COLOURS.get(name, PALETTE[place % len(PALETTE)])
            for ax, key in zip(axes, ("loss", "accuracy"), strict=False):
                train = [line for line in lines if key in line]
                val = [line for line in lines if f"val_{key}" in line]
                curve = smooth([line[key] for line in train], window)
                ax.plot([line["epoch"] for line in train], curve, color=colour)
                ax.plot([line["epoch"] for line in val], [line[f"val_{key}"] for line in val], "o", ms=4,
                        color=colour, mfc="white")
                if len(curve):
                    ends[ax].append((train[-1]["epoch"], curve[-1], name, colour))
            if scored := [line for line in lines if "cider" in line]:
                axes[2].plot([line["epoch"] for line in scored], [line["cider"] for line in scored], "o-", ms=4,
                             color=colour, mfc="white")
                ends[axes[2]].append((scored[-1]["epoch"], scored[-1]["cider"], name, colour))
        axes[0].set(xlabel="epoch", ylabel="cross-entropy a word (nats)", title="loss")
        axes[1].set(xlabel="epoch", ylabel="share of words right", title="token accuracy")
        if captioned:
            axes[2].set(xlabel="epoch", ylabel="CIDEr-D", title="captions of the validation split")
        for ax in axes:
            label_lines(ax, ends[ax])
        fig.supxlabel("lines: training batches, running mean; circles: validation split", fontsize=9)
        return fig


def plot_sweep(sweeps: Mapping[str, Mapping[str, Sequence[dict]]], *, metric: str = "CIDEr",
               ylabel: str = "CIDEr-D"):
    """Quality over prune ratio, one panel a model below the other, one line a scorer; returns the figure.

    Args:
        sweeps: model -> scorer -> points ``{"prune_ratio", metric, f"{metric}_interval": (low, high)}``.
    """
    with style() as plt:
        fig, axes = plt.subplots(len(sweeps), 1, figsize=(5.0, 3.7 * len(sweeps)), sharex=True, sharey=True,
                                 squeeze=False)
        labels = []
        for ax, (model, scorers) in zip(axes[:, 0], sweeps.items(), strict=True):
            ends = []
            for place, (scorer, points) in enumerate(scorers.items()):
                colour = COLOURS.get(scorer, PALETTE[place % len(PALETTE)])
                x = [100 * point["prune_ratio"] for point in points]
                y = [point[metric] for point in points]
                ax.plot(x, y, color=colour, marker="o", ms=4, ls="--" if scorer in ("random", "grid") else "-")
                intervals = [point.get(f"{metric}_interval") for point in points]
                if all(intervals):
                    low, high = zip(*intervals, strict=True)
                    ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
                ends.append((x[-1], y[-1], scorer, colour))
            ax.set(ylabel=ylabel, title=model)
            labels.append((ax, ends))
        axes[-1, 0].set_xlabel("tokens removed (%)")
        for ax, ends in labels:  # the panels share one y axis: names are placed when all lines are drawn
            label_lines(ax, ends)
        return fig


def plot_intervals(panels: Mapping[str, Mapping[str, tuple[float, float, float]]], *, xlabel: str,
                   chance: float | None = None):
    """One dot with its interval a row, one panel a group; returns the figure.

    Args:
        panels: title -> row name -> (value, low, high). The rows of the first panel name all panels' rows.
        chance: value that a guess would reach, drawn as a thin line.
    """
    with style() as plt:
        rows = list(next(iter(panels.values())))
        fig, axes = plt.subplots(1, len(panels), figsize=(min(9, 2.2 + 3.4 * len(panels)), 1.3 + 0.42 * len(rows)),
                                 sharex=True, sharey=True, squeeze=False)
        for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
            for place, name in enumerate(rows):
                if name not in values:
                    continue
                value, low, high = values[name]
                colour = COLOURS.get(name, PALETTE[0])
                ax.plot([low, high], [place, place], color=colour, lw=3, alpha=0.45)
                ax.plot(value, place, "o", ms=6, color=colour)
                ax.annotate(f"{value:.2f}", (value, place), xytext=(0, 6), textcoords="offset points", ha="center",
                            fontsize=9, color=colour)
            if chance is not None:
                ax.axvline(chance, color="#7f7f7f", lw=1, ls="--")
            ax.set(xlabel=xlabel, title=title, ylim=(len(rows) - 0.4, -0.7))
            ax.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
        return fig
