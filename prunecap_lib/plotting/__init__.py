"""Every figure the book and the command line draw."""

from .curves import describe_ledger, plot_intervals, plot_ledger, plot_sweep, plot_training
from .pictures import (
           axes_of,
           contact_sheet,
           describe_caption,
           draw_caption,
           draw_kept,
           draw_pruning,
           draw_scores,
           show_map,
           show_picture,
)
from .style import COLOURS, PALETTE, label_line, label_lines, label_points, style

__all__ = ["COLOURS", "PALETTE", "axes_of", "contact_sheet", "describe_caption", "describe_ledger", "draw_caption",
           "draw_kept", "draw_pruning", "draw_scores", "label_line", "label_lines", "label_points", "plot_intervals",
           "plot_ledger", "plot_sweep", "plot_training", "show_map", "show_picture", "style"]
