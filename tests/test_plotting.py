"""Do figures show what they are given, and are names legible?"""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")

from prunecap_lib.plotting import draw_scores, label_points, style  # noqa: E402


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
