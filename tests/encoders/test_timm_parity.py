"""Do our encoders compute what timm's do? Every parameter is random, so that nothing hides behind a zero."""

import copy
from functools import lru_cache

import pytest
import timm
import torch
from close import assert_close
from zero_draws import zero_draws

from prunecap_lib.encoders import ConvNeXt, MetaFormer, Swin, TimmAdapter, ViT, build_encoder

VITS = [  # name, image size
    ("vit_tiny_patch16_224", 64),
    ("vit_tiny_patch16_384", 96),
    ("vit_small_patch8_224", 32),
    ("vit_small_patch32_224", 96),
    ("vit_small_patch14_dinov2", 70),  # LayerScale
    ("vit_small_patch14_reg4_dinov2", 56),  # registers, no positions on prefix tokens
    ("vit_base_patch16_224", 48),
    ("vit_xsmall_patch16_clip_224", 32),  # pre-norm
    ("vit_base_patch16_clip_quickgelu_224", 32),
    ("vit_medium_patch16_gap_240", 32),  # no class token, no last norm
    ("vit_base_patch16_siglip_224", 32),  # no class token, attention pooling in the head
    ("vit_wee_patch16_reg1_gap_256", 64),
    ("vit_betwixt_patch16_reg4_gap_256", 64),
    ("deit_tiny_patch16_224", 112),
    ("deit3_small_patch16_224", 64),
    ("vit_tiny_patch16_224", 100),  # four pixels at the edges are in no patch
]
CONVNEXTS = [
    ("convnext_atto", 64), ("convnext_atto", 100), ("convnext_atto_ols", 64), ("convnext_atto_ols", 100),
    ("convnext_femto", 96), ("convnext_pico", 64), ("convnext_nano", 64), ("convnext_nano_ols", 64),
    ("convnext_tiny", 64), ("convnext_tiny_hnf", 64), ("convnext_small", 32), ("convnext_base", 32),
    ("convnextv2_atto", 64), ("convnextv2_atto", 100), ("convnextv2_femto", 64), ("convnextv2_femto", 100),
    ("convnextv2_pico", 64), ("convnextv2_pico", 100), ("convnextv2_nano", 64), ("convnextv2_nano", 100),
    ("convnextv2_tiny", 64), ("convnextv2_tiny", 100),
]
SWINS = [  # 56 and 112 are filled by windows of 7; the others need padding, 100 also to halve its odd maps
    ("swin_tiny_patch4_window7_224", 56), ("swin_tiny_patch4_window7_224", 100),
    ("swin_small_patch4_window7_224", 112), ("swin_base_patch4_window7_224", 64),
    ("swin_base_patch4_window12_384", 112),
    ("swin_s3_tiny_224", 64), ("swin_s3_tiny_224", 100),  # windows of several sizes
    ("swin_tiny_patch4_window7_224", 20),  # every map is one window, the last a single cell
    ("swin_tiny_patch4_window7_224", 231),  # shift and padding in every stage, and pixels in no patch
]
METAFORMERS = [  # 100: maps of 25, 13, 7 and 4 cells a side; deeper ones have the same parts
    *((name, size) for name in ("poolformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18")
      for size in (64, 100)),
    ("poolformer_s24", 100), ("poolformerv2_s24", 100), ("caformer_s36", 100),
]
ADAPTED = [  # other architectures, and relatives with a part that our code does not carry
    ("resnet10t", 64), ("tf_efficientnet_lite0", 64), ("swinv2_tiny_window8_256", 64),
    ("coatnet_pico_rw_224", 64), ("vit_tiny_r_s16_p8_224", 64), ("convnext_atto_rms", 64),
    ("deit_tiny_distilled_patch16_224", 64), ("vit_base_patch16_rpn_224", 32),
]


@lru_cache(maxsize=1)  # most architectures are the same for every size of picture
def random_timm(name, **size):
    """timm's model with no parameter left at a special value."""
    with zero_draws():
        model = timm.create_model(name, **size).eval()
    torch.manual_seed(0)
    noise = torch.randn(100_003)  # repeated, as drawing millions takes long; a prime, so that no two rows are alike
    noise = noise.repeat(max(parameter.numel() for parameter in model.parameters()) // len(noise) + 2)
    with torch.no_grad():
        for parameter in model.parameters():
            # Weights small enough for activations to stay near 1, or rounding would grow from block to block.
            deviation = 0.5 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
            start = int(torch.randint(100_003, ()))
            parameter.add_(noise[start : start + parameter.numel()].view_as(parameter), alpha=deviation)
        for key, buffer in model.named_buffers():
            if key.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return model


def compare(name, image_size, kind, dtype=torch.float32):
    sized = timm.get_pretrained_cfg(name).fixed_input_size
    model = random_timm(name, **({"img_size": image_size} if sized else {}))
    with zero_draws():
        encoder = build_encoder(name, image_size=image_size, state_dict=model.state_dict()).eval()
    assert type(encoder) is kind
    if dtype != torch.float32:
        model, encoder = copy.deepcopy(model).to(dtype), encoder.to(dtype)
    images = torch.randn(2, 3, image_size, image_size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens, expected = encoder(images), model.forward_features(images)
    if expected.dim() == 4:
        if getattr(model, "output_fmt", "NCHW") == "NCHW":
            expected = expected.permute(0, 2, 3, 1)
        assert expected.shape[1:3] == encoder.grid
        expected = expected.flatten(1, 2)
    assert tokens.grid == encoder.grid and tokens.x.shape[2] == encoder.channels
    assert tokens.prefix_count == encoder.prefix_tokens
    assert_close(tokens.sequence, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name, image_size", VITS)
def test_vit(name, image_size):
    compare(name, image_size, ViT)


@pytest.mark.slow
@pytest.mark.parametrize("name, image_size", CONVNEXTS)
def test_convnext(name, image_size):
    compare(name, image_size, ConvNeXt)


@pytest.mark.slow
@pytest.mark.parametrize("name, image_size", SWINS)
def test_swin(name, image_size):
    compare(name, image_size, Swin)


@pytest.mark.slow
@pytest.mark.parametrize("name, image_size", METAFORMERS)
def test_metaformer(name, image_size):
    compare(name, image_size, MetaFormer)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poolformer_s12", "poolformerv2_s12", "caformer_s18"])
def test_metaformer_to_the_last_digits(name):
    """PoolFormers V1 and V2 differ by an epsilon that single precision hardly shows."""
    compare(name, 64, MetaFormer, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name, image_size", ADAPTED)
def test_adapter(name, image_size):
    compare(name, image_size, TimmAdapter)


@pytest.mark.parametrize("name, kind", [("vit_tiny_patch16_224", ViT), ("convnext_atto", ConvNeXt),
                                        pytest.param("swin_tiny_patch4_window7_224", Swin, marks=pytest.mark.slow)])
def test_full_size(name, kind):
    compare(name, 224, kind)
