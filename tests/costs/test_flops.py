"""Does the counter agree with formulas written by hand? Every encoder family, and the decoder."""

import pytest
import torch
from torch import nn

from prunecap_lib import build_encoder
from prunecap_lib.costs import count_flops
from prunecap_lib.decoder import Decoder


def product(rows, before, after):
    """[rows, before] times [before, after]: a multiplication and an addition each."""
    return 2 * rows * before * after


def mlp(rows, C, hidden):
    return product(rows, C, hidden) + product(rows, hidden, C)


def attention(queries, keys, C):
    """Scores and means of all heads together, without any projection."""
    return product(queries, C, keys) + product(queries, keys, C)


def vit(config):
    N, C = config.grid[0] * config.grid[1], config.channels
    T = N + config.prefix_tokens
    block = product(T, C, 3 * C) + attention(T, T, C) + product(T, C, C) + mlp(T, C, config.hidden)
    return product(N, 3 * config.patch**2, C) + config.depth * block


def stages(config, side, stem, downsample, block):
    """A pyramid: ``downsample(before, C)`` and ``block(i, C, side)`` are FLOPs of one output cell."""
    flops = stem * side**2
    for i, (depth, C) in enumerate(zip(config.depths, config.channels, strict=True)):
        if i:
            side //= 2
            flops += side**2 * downsample(config.channels[i - 1], C)
        flops += depth * side**2 * block(i, C, side)
    return flops


def convnext(config):
    return stages(config, config.image_size // config.patch, stem=product(1, 3 * config.patch**2, config.channels[0]),
                  downsample=lambda before, C: product(1, 4 * before, C),
                  block=lambda i, C, side: 2 * 49 * C + mlp(1, C, 4 * C))


def swin(config):
    return stages(config, config.image_size // config.patch, stem=product(1, 3 * config.patch**2, config.channels[0]),
                  downsample=lambda before, C: product(1, 4 * before, C),
                  block=lambda i, C, side: product(1, C, 4 * C) + attention(1, config.windows[i] ** 2, C)
                  + mlp(1, C, 4 * C))


def metaformer(config):
    mixers = {"pooling": lambda C, side: 0,
              "convolution": lambda C, side: mlp(1, C, 2 * C) + 2 * 49 * 2 * C,
              "attention": lambda C, side: product(1, C, 4 * C) + attention(1, side**2, C)}
    return stages(config, config.image_size // 4, stem=product(1, 3 * 49, config.channels[0]),
                  downsample=lambda before, C: product(1, 9 * before, C),
                  block=lambda i, C, side: mixers[config.mixers[i]](C, side) + mlp(1, C, 4 * C))


@pytest.mark.slow
@pytest.mark.parametrize("name, formula", [
    ("vit", vit), ("vit_base_patch16_224", vit), ("convnext", convnext), ("convnext_tiny", convnext),
    ("convnextv2_atto", convnext), ("swin_tiny_patch4_window7_224", swin), ("poolformer_s12", metaformer),
    pytest.param("convformer_s18", metaformer, marks=pytest.mark.slow), ("caformer_s18", metaformer)])
def test_encoders_take_what_the_formula_says(name, formula):
    with torch.device("meta"):
        encoder = build_encoder(name)
        images = torch.empty(2, 3, encoder.image_size, encoder.image_size)
    assert count_flops(encoder, images) == pytest.approx(2 * formula(encoder.config), rel=0.01)


def test_the_decoder_takes_what_the_formula_says():
    T, S, D, F, V, layers = 20, 197, 512, 2048, 2033, 2
    decoder = Decoder(V, d_model=D, layers=layers, heads=4, ffn=F).eval()
    layer = (product(T, D, 3 * D) + attention(T, T, D) + product(T, D, D)                # words look at words
             + 2 * product(T, D, D) + 2 * product(S, D, D) + attention(T, S, D)          # words look at tokens
             + mlp(T, D, F))
    expected = layers * layer + product(T, D, V)
    ids, memory = torch.ones(1, T, dtype=torch.long), torch.randn(1, S, D)
    assert count_flops(decoder, ids, memory) == pytest.approx(expected, rel=0.01)  # with numbers, on this CPU
    assert count_flops(decoder.to("meta"), ids.to("meta"), memory.to("meta")) == pytest.approx(expected, rel=0.01)


def test_counting_asks_for_no_gradient_and_works_in_inference_mode():
    layer = nn.Linear(3, 5)
    with torch.inference_mode():
        assert count_flops(layer, torch.ones(7, 3)) == product(7, 3, 5)
    assert count_flops(lambda x: layer(x).requires_grad, torch.ones(7, 3)) == product(7, 3, 5)
