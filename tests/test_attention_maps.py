"""Do maps and pictures lie over each other?"""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from prunecap_lib.attention_maps import dim_dropped, scale_map, seen_part
from prunecap_lib.encoders import build_encoder
from prunecap_lib.preprocessing import Preprocessing
from prunecap_lib.tokens import Grid, cell_size


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


# name, image size, stride: patches that divide the picture and such that do not, maps that are cut off or padded
ODD = [("vit", 64, 8), ("vit", 70, 8), ("vit", 71, 8), ("convnext", 70, 8), ("convnext", 47, 8),
       ("swin_tiny_patch4_window7_224", 100, 32), ("swin_tiny_patch4_window7_224", 70, 32), ("poolformer_s12", 70, 32),
       ("resnet18", 65, 32), ("resnet18", 80, 32), ("tf_efficientnet_lite0@last_stage", 80, 32)]


@pytest.mark.slow
@pytest.mark.parametrize("name, size, stride", ODD)
def test_cells_lie_at_multiples_of_the_stride(name, size, stride):
    """Drawn on the encoder's own picture and on one scaled by two and three."""
    with torch.device("meta" if name != "resnet18" and "tf_" not in name else "cpu"):
        encoder = build_encoder(name, image_size=size)
    (H, W), grid = encoder.grid, encoder.grid
    assert encoder.stride == stride and size / stride - 1 < H < size / stride + 1
    for i in {0, H // 2, H - 1}:
        cell = torch.tensor([i * W + W - 1 - i])
        dimmed = np.asarray(dim_dropped(Image.new("RGB", (2 * size, 3 * size)), cell, grid))[..., 0] == 0
        rows, columns = np.flatnonzero(dimmed.any(1)), np.flatnonzero(dimmed.any(0))
        for drawn, first, scale in ((rows, i, 3), (columns, W - 1 - i, 2)):
            assert abs(drawn[0] - first * stride * scale) <= 1, (drawn, first)
            assert abs(drawn[-1] + 1 - min((first + 1) * stride, size) * scale) <= 1, (drawn, first)


def test_pixels_without_a_cell_are_faded_and_have_no_heat():
    grid = Grid.of((8, 8), 8, 70)
    shown = np.asarray(dim_dropped(Image.new("RGB", (70, 70)), torch.arange(64), grid))[..., 0]
    assert (shown[:64, :64] == 0).all() and (shown[64:] > 200).all() and (shown[:, 64:] > 200).all()
    for mode in ("nearest", "bilinear"):
        heat = scale_map(torch.ones(3, 8, 8), (70, 140), mode, grid=grid)
        assert heat.shape == (3, 70, 140)
        assert (heat[:, :64, :128] == 1).all() and (heat[:, 64:] == 0).all() and (heat[:, :, 128:] == 0).all()


def test_a_grid_travels_with_the_tokens():
    encoder = build_encoder("vit", image_size=70).eval()
    with torch.no_grad():
        tokens = encoder(torch.zeros(1, 3, 70, 70))
    kept = tokens.keep(torch.tensor([[3, 9]]))
    assert kept.grid == (8, 8) and kept.grid.cell == 8 / 70
    for copied in (copy.deepcopy(kept.grid), pickle.loads(pickle.dumps(kept.grid))):
        assert copied == (8, 8) and copied.cell == 8 / 70


@pytest.mark.parametrize("grid, size, cell", [
    ((8, 8), (64, 64), 8), ((8, 8), (70, 70), 8), ((29, 29), (416, 416), 14), ((8, 8), (230, 230), 32),
    ((4, 4), (100, 100), 25), ((9, 9), (5, 5), 5 / 9)])
def test_a_bare_grid_is_taken_for_the_likeliest_encoders(grid, size, cell):
    assert cell_size(grid, size) == (cell, cell)


def test_a_bare_grid_fills_an_oblong_picture():
    assert cell_size((2, 3), (21, 61)) == (10.5, 61 / 3)


def test_a_scaled_map_keeps_its_cells():
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    scaled = scale_map(values, (4, 9))
    assert torch.equal(scaled[::2, ::3], values) and torch.equal(scaled[1::2, 2::3], values)
