"""Are the visual tokens of timm's other backbones one for each place, in the picture's order, or else refused?"""

import pytest
import torch
from torch import nn

from prunecap_lib.encoders import TimmAdapter, build_encoder
from prunecap_lib.errors import InputError
from prunecap_lib.preprocessing import Preprocessing


class Backbone(nn.Module):
    """As timm's: 64 pixels, of 8 channels, and whatever output is wished."""

    num_features = 8

    def __init__(self, output, **told):
        super().__init__()
        self.output = output
        for name, value in told.items():
            setattr(self, name, value)

    def reset_classifier(self, num_classes):
        pass

    def forward_features(self, images):
        return self.output


def adapted(output, **told) -> TimmAdapter:
    return TimmAdapter(Backbone(output, **told), name="backbone", preprocessing=Preprocessing(64))


@pytest.mark.parametrize("shape, told, grid", [
    ((1, 16, 8), {}, (4, 4)), ((1, 18, 8), {"num_prefix_tokens": 2}, (4, 4)), ((1, 8, 4, 4), {}, (4, 4)),
    ((1, 4, 4, 8), {"output_fmt": "NHWC"}, (4, 4)), ((1, 8, 1, 1), {"feature_info": [{"reduction": 64}]}, (1, 1))])
def test_maps_and_rows_of_tokens_are_taken(shape, told, grid):
    encoder = adapted(torch.zeros(shape), **told)
    assert tuple(encoder.grid) == grid and encoder.channels == 8
    assert encoder.prefix_tokens == told.get("num_prefix_tokens", 0)


@pytest.mark.parametrize("output, told, said", [
    (torch.zeros(1, 1, 8), {}, "one vector"), (torch.zeros(1, 2, 8), {"num_prefix_tokens": 1}, "one vector"),
    (torch.zeros(1, 8, 1, 1), {}, "one vector"), (torch.zeros(1, 2, 8), {}, "no square"),
    (torch.zeros(1, 1, 8), {"num_prefix_tokens": 2}, "no square"), (torch.zeros(1, 17, 8), {}, "no square"),
    (torch.zeros(1, 8), {}, "neither"), ((torch.zeros(1, 16, 8), torch.zeros(1, 8)), {}, "neither"),
    ([torch.zeros(1, 8, 4, 4)], {}, "neither"), ({"x": torch.zeros(1, 16, 8)}, {}, "neither"),
    (torch.zeros(1, 8, 16), {}, "8 channels"), (torch.zeros(1, 4, 4, 8), {}, "8 channels"),
    (torch.zeros(1, 8, 4, 4), {"output_fmt": "NHWC"}, "8 channels"), (torch.zeros(1, 8, 2, 4, 4), {}, "neither")])
def test_other_outputs_are_refused(output, told, said):
    with pytest.raises(InputError, match=f"encoder backbone: .*{said}.*choose another backbone"):
        adapted(output, **told)


@pytest.mark.parametrize("name", ["pit_ti_224", "pit_ti_distilled_224"])
def test_backbones_without_a_map_are_refused(name):
    with pytest.raises(InputError, match=f"encoder {name}.*choose another backbone"):
        build_encoder(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit_relpos", "test_maxvit", "test_mambaout", "test_resnet"])
def test_a_token_answers_for_its_place(name):
    """What changes in a quarter of the picture changes that quarter's tokens most, whatever the weights are."""
    torch.manual_seed(0)
    encoder = build_encoder(name).eval()
    S, (H, W) = encoder.image_size, encoder.grid
    first, last = slice(0, S // 4), slice(S * 3 // 4, S)
    picture = torch.rand(1, 3, S, S)
    with torch.no_grad():
        before = encoder(picture).x
        for corner in ((first, first), (first, last), (last, first), (last, last)):
            changed = picture.clone()
            changed[0, :, corner[0], corner[1]] = 2 * torch.randn(3, S // 4, S // 4)
            change = (encoder(changed).x - before).norm(dim=-1).view(H, W)
            i, j = divmod(int(change.argmax()), W)
            assert (i < H / 2, j < W / 2) == (corner[0] == first, corner[1] == first)
