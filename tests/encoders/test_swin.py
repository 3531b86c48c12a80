"""What does Swin's attention see? Windows held against the same attention over the whole picture, written out."""

import pytest
import torch
from close import assert_close

from prunecap_lib.encoders import Swin, SwinConfig, layers
from prunecap_lib.preprocessing import Preprocessing


def tiny_swin(side, window, depth=2):
    torch.manual_seed(0)
    config = SwinConfig(image_size=8 * side, depths=(1, depth), channels=(8, 16), heads=(1, 2), windows=(window,) * 2)
    encoder = Swin(config, name="tiny", preprocessing=Preprocessing(8 * side)).eval()
    with torch.no_grad():  # so that attention is not nearly uniform
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


@pytest.mark.parametrize("side, window, depth, shift", [(6, 3, 1, 0), (6, 3, 2, 1), (8, 4, 2, 2), (4, 5, 2, 0)])
def test_attention_of_the_last_block(side, window, depth, shift):
    """Dense attention over all N cells, where a mask keeps each to its window, is the same."""
    encoder, images = tiny_swin(side, window, depth), torch.randn(2, 3, 8 * side, 8 * side)
    window = min(window, side)
    last = encoder.layers[-1].blocks[-1].attn
    assert last.shift == shift
    seen = []
    last.register_forward_hook(lambda module, given, result: seen.append((given[0], result[0])))
    with torch.no_grad():
        plain, asked = encoder(images), encoder(images, need_attention=True)
        q, k, v = last.qkv(seen[0][0].flatten(1, 2)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        row, column = torch.arange(side * side) // side, torch.arange(side * side) % side
        down, right = row[:, None] - row + window - 1, column[:, None] - column + window - 1
        piece = side * ((row + window - shift) // window) + (column + window - shift) // window  # the shifted tiling
        near = piece[:, None] == piece
        entry = torch.where(near, down * (2 * window - 1) + right, 0)
        bias = last.relative_position_bias_table[entry].permute(2, 0, 1).masked_fill(~near, float("-inf"))
        weights = (q @ k.transpose(-2, -1) / 8**0.5 + bias).softmax(-1)  # [B, h, N, N]
        expected = last.proj((weights @ v).transpose(1, 2).flatten(2))
    for _, result in seen:
        assert_close(result.flatten(1, 2), expected)
    assert_close(asked.x, plain.x)
    assert_close(asked.attention_received, weights.mean(dim=(1, 2)))
    assert_close(asked.attention_received.sum(dim=1), torch.ones(2))
    assert plain.attention_received is None and asked.cls_attention is None


@pytest.mark.parametrize("depth, along", [
    (1, [1, 1, 1, 1 / 3]),  # windows 0 1 2 and 3 - -: the last looks at itself and at two cells of padding
    (2, [1 / 2, 1, 1, 1]),  # shifted by one, 1 2 3 and 0 - | -: the mask parts the first from one of the two
])
def test_padding_is_no_token(depth, along):
    """Where every cell looks at all it may see alike, what each gets can be counted: rows times columns."""
    encoder, along = tiny_swin(4, 3, depth), torch.tensor(along)
    last = encoder.layers[-1].blocks[-1].attn
    with torch.no_grad():
        for parameter in (last.qkv.weight, last.qkv.bias, last.relative_position_bias_table):
            parameter.zero_()
        tokens = encoder(torch.randn(2, 3, 32, 32), need_attention=True)
    expected = along[:, None] * along / 16
    assert_close(tokens.scatter(tokens.attention_received), expected.expand(2, 4, 4))


@pytest.mark.parametrize("side, window", [(6, 3), (5, 3), (4, 5)])
def test_fused_equals_explicit(side, window, monkeypatch):
    encoder, images = tiny_swin(side, window), torch.randn(2, 3, 8 * side, 8 * side)
    with torch.no_grad():
        fused = encoder(images)
        attend = layers.attend
        monkeypatch.setattr(layers, "attend", lambda *args, need_weights: attend(*args, need_weights=True))
        assert_close(encoder(images).x, fused.x)


def test_only_the_last_block_leaves_the_fused_kernel(monkeypatch):
    asked, attend = [], layers.attend
    monkeypatch.setattr(layers, "attend", lambda *args, need_weights:
                        asked.append(need_weights) or attend(*args, need_weights=need_weights))
    tiny_swin(6, 3)(torch.randn(1, 3, 48, 48), need_attention=True)
    assert asked == [False, False, True]
