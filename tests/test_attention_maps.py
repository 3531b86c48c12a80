"""Do maps and pictures lie over each other?"""

import pytest
import torch
from PIL import Image

from prunecap_lib.attention_maps import dim_dropped, scale_map, seen_part
from prunecap_lib.preprocessing import Preprocessing


@pytest.mark.parametrize("preprocessing, size", [
    (Preprocessing(32, crop_pct=0.5), (50, 50)), (Preprocessing(32), (100, 100)),
    (Preprocessing(32).whole(), (300, 100)),
])
def test_seen_part_keeps_its_proportions(preprocessing, size):
    picture = Image.new("RGB", (300, 100))
    assert seen_part(picture, preprocessing).size == size
    assert max(seen_part(picture, preprocessing, 60).size) == 60


def test_a_dropped_cell_fades_where_it_stands():
    """Two of 2 x 3 cells are kept, on an oblong picture: first and last."""
    picture = Image.new("RGB", (60, 20), (200, 0, 0))
    faded = dim_dropped(picture, torch.tensor([0, 5]), (2, 3))
    unchanged = [[faded.getpixel((20 * column + 9, 10 * row + 4)) == (200, 0, 0) for column in range(3)]
                 for row in range(2)]
    assert unchanged == [[True, False, False], [False, False, True]]


def test_a_scaled_map_keeps_its_cells():
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    scaled = scale_map(values, (4, 9))
    assert torch.equal(scaled[::2, ::3], values) and torch.equal(scaled[1::2, 2::3], values)
