"""Every figure the book and the command line draw."""

from .curves import plot_intervals, plot_sweep, plot_training
from .pictures import axes_of, describe_caption, draw_caption, draw_pruning, show_map, show_picture
from .style import COLOURS, PALETTE, label_line, style

__all__ = ["COLOURS", "PALETTE", "axes_of", "describe_caption", "draw_caption", "draw_pruning", "label_line",
           "plot_intervals", "plot_sweep", "plot_training", "show_map", "show_picture", "style"]
