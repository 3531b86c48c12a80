"""Where does the work go, and what does pruning take away? A captioner's ledger as bars."""

from __future__ import annotations

from ..costs import Ledger
from .style import style

KEPT, PRUNED = "#b8b8b2", "#0072B2"
RARELY = 0.2
"""A stage larger than all others by 1 / RARELY hides them: then they get a panel without it."""


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
