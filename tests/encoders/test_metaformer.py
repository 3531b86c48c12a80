"""Does each mixer of a MetaFormer reach as far as it should, and is the random one fixed? timm lacks two of them."""

import pytest
import torch
from close import assert_close

from prunecap_lib.encoders import MetaFormer, MetaFormerConfig, layers, metaformer
from prunecap_lib.errors import InputError
from prunecap_lib.preprocessing import Preprocessing


def tiny(mixer, **changes):
    """Two stages of two blocks, maps of 9x9 and 5x5 cells, all parameters random."""
    torch.manual_seed(0)
    config = MetaFormerConfig(**dict(image_size=36, depths=(2, 2), channels=(8, 16), mixers=(mixer,) * 2,
                                     head_channels=4, norm="cell", residual_scale=(False, True)) | changes)
    encoder = MetaFormer(config, name="tiny", preprocessing=Preprocessing(36)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


@pytest.mark.parametrize("mixer", metaformer.MIXERS)
def test_shapes(mixer):
    encoder = tiny(mixer)
    tokens = encoder(torch.randn(3, 3, 36, 36))
    assert tokens.x.shape == (3, 25, 16) and tokens.grid == encoder.grid == (5, 5)
    assert encoder.stride == 8 and encoder.channels == 16 and tokens.attention_received is None


@pytest.mark.parametrize("image_size", [3, 33, 34, 35, 37])
def test_grids_of_odd_sizes(image_size):
    encoder = tiny("random", image_size=image_size)  # its matrices fit no other grid
    assert encoder(torch.randn(1, 3, image_size, image_size)).grid == encoder.grid


@pytest.mark.parametrize("mixer, norm, side", [
    ("identity", "cell", 1), ("pooling", "cell", 3), ("convolution", "cell", 7), ("attention", "cell", 9),
    ("random", "cell", 9), ("identity", "map", 9),  # normalizing over the map mixes cells without a mixer
])
def test_how_far_a_block_reaches(mixer, norm, side):
    block, x = tiny(mixer, norm=norm).stages[0].blocks[0].double(), torch.randn(1, 9, 9, 8, dtype=torch.float64)
    changed = x.clone()
    changed[0, 4, 4] += torch.randn(8)
    with torch.no_grad():
        moved = (block(x) != block(changed)).any(dim=-1)[0]
    edge = (9 - side) // 2
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[edge:9 - edge, edge:9 - edge] = True
    assert torch.equal(moved, expected)


def test_identity_keeps_cells_apart_in_a_whole_stage():
    stage, x = tiny("identity").stages[0], torch.randn(2, 9, 9, 8)
    with torch.no_grad():
        one_by_one = stage(x.reshape(-1, 1, 1, 8)).reshape(x.shape)
        assert_close(stage(x), one_by_one)


def test_random_mixing_is_a_fixed_mean():
    encoder = tiny("random")
    mixers = [block.token_mixer for stage in encoder.stages for block in stage.blocks]
    assert [tuple(mixer.weights.shape) for mixer in mixers] == [(81, 81)] * 2 + [(25, 25)] * 2
    for mixer in mixers:
        assert (mixer.weights > 0).all()
        assert_close(mixer.weights.sum(dim=1), torch.ones(len(mixer.weights)))
    x = torch.randn(2, 9, 9, 8)
    expected = torch.einsum("mn, bnc -> bmc", mixers[0].weights, x.flatten(1, 2)).unflatten(1, (9, 9))
    assert_close(mixers[0](x), expected)


def test_random_mixing_is_drawn_from_the_seed_saved_and_not_trained():
    def matrices(encoder):
        return [value.clone() for key, value in encoder.state_dict().items() if "token_mixer" in key]

    encoder, again = tiny("random"), tiny("random")
    first = matrices(encoder)
    assert len(first) == 4 and all(map(torch.equal, first, matrices(again)))
    assert not torch.equal(first[0], first[1])  # each block has its own
    torch.manual_seed(1)
    other = MetaFormer(encoder.config, name="other", preprocessing=encoder.preprocessing)
    assert not any(map(torch.equal, first, matrices(other)))

    assert not any("token_mixer" in name for name, _ in encoder.named_parameters())
    optimizer = torch.optim.SGD(encoder.parameters(), lr=1.0, weight_decay=0.1)
    encoder(torch.randn(2, 3, 36, 36)).x.square().mean().backward()
    optimizer.step()
    assert all(map(torch.equal, first, matrices(encoder)))
    assert not torch.equal(encoder.stem.conv.weight, again.stem.conv.weight)


def test_attention_of_the_last_block():
    encoder, images = tiny("attention", mixers=("convolution", "attention")), torch.randn(2, 3, 36, 36)
    inputs = []
    encoder.stages[-1].blocks[-1].token_mixer.qkv.register_forward_hook(lambda _, x, y: inputs.append(y))
    with torch.no_grad():
        plain, asked = encoder(images), encoder(images, need_attention=True)
    q, k, _ = inputs[0].unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)  # [B, N, 3C] -> [B, h, N, Dh]
    weights = (q @ k.transpose(-2, -1) / 4**0.5).softmax(-1)  # [B, h, N, N]
    assert_close(asked.attention_received, weights.mean(dim=(1, 2)))
    assert_close(asked.x, plain.x)
    assert plain.attention_received is None and asked.cls_attention is None


def test_only_the_last_block_leaves_the_fused_kernel(monkeypatch):
    asked, attend = [], layers.attend
    monkeypatch.setattr(layers, "attend", lambda *args, need_weights:
                        asked.append(need_weights) or attend(*args, need_weights=need_weights))
    tiny("attention")(torch.randn(1, 3, 36, 36), need_attention=True)
    assert asked == [False, False, False, True]


@pytest.mark.parametrize("mixers", [("pooling", "pooling"), ("attention", "convolution")])
def test_attention_is_refused_where_the_last_stage_has_none(mixers):
    with pytest.raises(InputError, match="encoder tiny has no attention weights"):
        tiny("", mixers=mixers)(torch.zeros(1, 3, 36, 36), need_attention=True)


@pytest.mark.parametrize("changes, message", [
    (dict(mixers=("pooling",)), "mixers has 1 entries and depths 2"),
    (dict(residual_scale=(True,) * 3), "residual_scale has 3 entries"),
    (dict(mixers=("pooling", "poling")), "no 'poling'; choose from identity, random, pooling"),
    (dict(norm="batch"), "no 'batch'; choose from cell, map"),
    (dict(activation="relu"), "no 'relu'; choose from gelu, star_relu"),
])
def test_impossible_configurations(changes, message):
    with pytest.raises(InputError, match=message):
        tiny("pooling", **changes)
