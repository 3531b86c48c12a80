"""Do figures show what they are given, and are names legible?"""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")

from prunecap_lib.captioner import Caption  # noqa: E402
from prunecap_lib.plotting import (  # noqa: E402
    contact_sheet,
    draw_caption,
    draw_pruning,
    draw_scores,
    label_points,
    style,
)
from prunecap_lib.preprocessing import Preprocessing  # noqa: E402
from prunecap_lib.tokens import Grid  # noqa: E402


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 200, (64, 64, 3), dtype=np.uint8))


def shown(figure):
    """The topmost picture of each of a figure's axes, as arrays."""
    return [np.asarray(ax.images[-1].get_array()) for ax in figure.axes]


def test_scores_are_shown_by_their_order_alone(picture):
    scores = torch.rand(16, generator=torch.Generator().manual_seed(0))
    first, second = (draw_scores(picture, {"score": values}, (4, 4)) for values in (scores, (9 * scores).exp()))
    for one, other in zip(shown(first), shown(second), strict=True):
        assert np.array_equal(one, other)


def test_each_score_has_a_row_and_each_ratio_its_cells(picture):
    scores = torch.arange(16.0)
    fig = draw_scores(picture, {"up": scores, "down": -scores}, (4, 4), ratios=(0.5, 0.75))
    assert len(fig.axes) == 6
    heat, half, quarter = shown(fig)[:3]
    assert heat[-1, -1] > heat[0, 0]
    original = shown(draw_scores(picture, {"all": scores}, (4, 4), ratios=(0.0,)))[1]
    for image, rows in ((half, 2), (quarter, 1)):  # of four rows of cells the last ones stay as they were
        cut = original.shape[0] * (4 - rows) // 4
        assert np.array_equal(image[cut:], original[cut:])
        assert not (image[:cut] == original[:cut]).all(axis=(1, 2)).any()


@pytest.mark.parametrize("preprocessing", [Preprocessing(70, crop_pct=0.9), Preprocessing(70).whole()],
                         ids=["middle", "whole"])
def test_all_parts_of_a_figure_know_where_the_cells_lie(preprocessing):
    """8 x 8 cells of 8 pixels on a picture of 70: the last six pixels have no cell, no line and no heat behind them."""
    grid, photo = Grid.of((8, 8), 8, 70), Image.new("RGB", (300, 200))
    caption = Caption("a", [4], ["a"], -1.0, torch.arange(64), grid, torch.ones(1, 8, 8))
    with style():
        for figure in (draw_caption(photo, caption, preprocessing), draw_pruning([photo.resize((70, 70))], [caption])):
            gridded, dimmed, *heats = figure.axes
            height, width = gridded.images[0].get_array().shape[:2]
            for axis, side in enumerate((width, height)):
                places = [line.get_data()[axis] for line in gridded.lines]
                lines = [place[0] + 0.5 for place in places if place[0] == place[1]]
                assert np.allclose(lines, [side * 8 * i / 70 for i in range(1, 9)])
                seen = (np.asarray(dimmed.images[0].get_array())[..., 0] == 0).any(axis).sum()
                assert abs(seen - side * 64 / 70) <= 1
                for heat in (ax.images[1].get_array() for ax in heats if len(ax.images) > 1):
                    assert abs((heat > 0).any(axis).sum() - side * 64 / 70) <= 1


@pytest.mark.parametrize("points", [[(0.5, 0.5), (0.5, 0.5)], [(0.1, 0.5), (0.12, 0.51), (0.14, 0.5)],
                                    [(0.98, 0.9), (0.97, 0.91)]])
def test_names_of_points_do_not_cover_each_other(points):
    with style() as plt:
        fig, ax = plt.subplots(figsize=(5, 3))
        ax.set(xlim=(0, 1), ylim=(0, 1))
        fig.draw_without_rendering()
        label_points(ax, [(x, y, f"a name {i}", None) for i, (x, y) in enumerate(points)])
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
        past = 40 * fig.dpi / 72  # a name may run past the axes so far, as the names of lines do
        assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 + past for box in boxes)
        plt.close(fig)


@pytest.mark.filterwarnings("ignore:Glyph")  # a machine may have no font for a script: boxes, but no failure
def test_captions_of_any_letters_are_drawn(picture):
    figure = contact_sheet([picture] * 4, ["two for $5 or $x_{", "две собаки", "两只狗", "كلب 🐶"])
    figure.canvas.draw()
    assert figure.axes[0].get_title() == "two for $5 or $x_{"
