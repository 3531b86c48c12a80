"""How did a run go, what did pruning cost and save? Lines over steps and ratios, dots with intervals, bars of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..costs import Ledger
from .style import COLOURS, PALETTE, label_lines, style

KEPT, PRUNED = "#b8b8b2", "#0072B2"
RARELY = 0.2  # a stage larger than all others by 1 / RARELY hides them: then they get a panel without it


def smooth(values: Sequence[float], window: int = 9) -> np.ndarray:
    """Centred running mean. Towards both ends its window shrinks on both sides alike, else the ends would be bent."""
    values = np.asarray(values, dtype=float)
    half = [min(window // 2, i, len(values) - 1 - i) for i in range(len(values))]
    return np.array([values[i - h : i + h + 1].mean() for i, h in enumerate(half)])


def series(lines: Sequence[dict], key: str) -> tuple[list, list]:
    """Epochs and values of the lines that hold ``key``."""
    found = [line for line in lines if key in line]
    return [line["epoch"] for line in found], [line[key] for line in found]


def plot_training(histories: Mapping[str, Sequence[dict]], *, window: int = 9):
    """Loss and token accuracy of several runs side by side, and CIDEr-D where one has it; returns the figure.

    Args: histories: run name -> lines of metrics.jsonl. Points are the validation split.
    """
    panels = [("loss", "cross-entropy a word (nats)", "loss", "val_loss"),
              ("token accuracy", "share of words right", "accuracy", "val_accuracy")]
    if any("cider" in line for lines in histories.values() for line in lines):
        panels.append(("captions of the validation split", "CIDEr-D", None, "cider"))
    with style() as plt:
        fig, axes = plt.subplots(1, len(panels), figsize=(1 + 4 * len(panels), 3.6))
        ends = {ax: [] for ax in axes}
        for ax, (title, ylabel, train, val) in zip(axes, panels, strict=True):
            for place, (name, lines) in enumerate(histories.items()):
                colour = COLOURS.get(name, PALETTE[place % len(PALETTE)])
                epochs, values = series(lines, train)
                values = smooth(values, window)
                ax.plot(epochs, values, color=colour)
                scored = series(lines, val)
                ax.plot(*scored, "o" if train else "o-", ms=4, color=colour, mfc="white")
                if not train:
                    epochs, values = scored
                if len(values):
                    ends[ax].append((epochs[-1], values[-1], name, colour))
            ax.set(xlabel="epoch", ylabel=ylabel, title=title)
        for ax in axes:
            label_lines(ax, ends[ax])
        fig.supxlabel("lines: training batches, running mean; circles: validation split", fontsize=9)
        return fig


def plot_sweep(sweeps: Mapping[str, Mapping[str, Sequence[dict]]], *, metric: str = "CIDEr", ylabel: str = "CIDEr-D"):
    """Quality over prune ratio, one panel a model below the other, one line a scorer; returns the figure.

    Args: sweeps: model -> scorer -> points ``{"prune_ratio", metric, f"{metric}_interval": (low, high)}``.
    """
    with style() as plt:
        fig, axes = plt.subplots(len(sweeps), 1, figsize=(5.0, 3.7 * len(sweeps)), sharex=True, sharey=True,
                                 squeeze=False)
        ends = {ax: [] for ax in axes[:, 0]}
        for ax, (model, scorers) in zip(ends, sweeps.items(), strict=True):
            for place, (scorer, points) in enumerate(scorers.items()):
                colour = COLOURS.get(scorer, PALETTE[place % len(PALETTE)])
                x = [100 * point["prune_ratio"] for point in points]
                y = [point[metric] for point in points]
                ax.plot(x, y, color=colour, marker="o", ms=4, ls="--" if scorer in ("random", "grid") else "-")
                intervals = [point.get(f"{metric}_interval") for point in points]
                if all(intervals):
                    low, high = zip(*intervals, strict=True)
                    ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
                ends[ax].append((x[-1], y[-1], scorer, colour))
            ax.set(ylabel=ylabel, title=model)
        axes[-1, 0].set_xlabel("tokens removed (%)")
        for ax in ends:  # the panels share one y axis: names are placed when all lines are drawn
            label_lines(ax, ends[ax])
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


def plot_ledger(ledger: Ledger, title: str = ""):
    """One bar a stage, all tokens behind and pruned in front; returns the figure.

    Where the encoder dwarfs the other stages, a second panel shows them without it.
    """
    stages = [stage for stage, flops in ledger.unpruned.items() if flops or ledger.flops[stage]]
    rest = [stage for stage in stages if stage != "encoder"]
    dwarfed = sum(ledger.unpruned[stage] for stage in rest) < RARELY * ledger.unpruned["encoder"]
    panels = [("every stage", stages), ("without the encoder", rest)] if dwarfed else [("every stage", stages)]
    with style() as plt:
        fig, axes = plt.subplots(len(panels), 1, squeeze=False,
                                 figsize=(6.4, 0.6 + sum(0.9 + 0.5 * len(names) for _, names in panels)),
                                 height_ratios=[1.8 + len(names) for _, names in panels])
        for ax, (name, names) in zip(axes[:, 0], panels, strict=True):
            bars(ax, ledger, names)
            ax.set_title(name, loc="left")
        axes[-1, 0].set_xlabel("billions of operations")
        captions = "a caption" if ledger.batch == 1 else f"{ledger.batch} captions"
        fig.suptitle(f"{title + ': ' if title else ''}{ledger.total / 1e9:.3g} G for {captions}, "
                     f"at most {ledger.speedup:.2f}× faster", fontsize=12)
        fig.supxlabel(f"grey: all {ledger.tokens} tokens; blue: {ledger.kept} kept", fontsize=9)
        return fig


def bars(ax, ledger: Ledger, stages: list[str]) -> None:
    """The bars of some stages, the first on top, each with what it comes to."""
    whole = [ledger.unpruned[stage] / 1e9 for stage in stages]
    less = [ledger.flops[stage] / 1e9 for stage in stages]
    ax.barh(stages, whole, height=0.75, color=KEPT)
    ax.barh(stages, less, height=0.4, color=PRUNED)
    for place, (before, after) in enumerate(zip(whole, less, strict=True)):
        change = f" ({after / before - 1:+.0%})" if before and f"{after / before - 1:.0%}" not in ("0%", "-0%") else ""
        ax.annotate(f"{after:.3g}{change}", (max(before, after), place), xytext=(4, 0), textcoords="offset points",
                    va="center", fontsize=9)
    ax.set_xlim(0, 1.25 * max(*whole, *less))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)


def describe_ledger(ledger: Ledger) -> str:
    """Alt text of ``plot_ledger``."""
    stages = "; ".join(f"{stage} {ledger.unpruned[stage] / 1e9:.3g} and {flops / 1e9:.3g}"
                       for stage, flops in ledger.flops.items())
    return (f"Bars of billions of operations for each stage, with all {ledger.tokens} tokens and with "
            f"{ledger.kept} kept: {stages}. In all {ledger.speedup:.2f} times fewer.")
