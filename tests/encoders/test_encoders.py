"""What does an encoder promise beside timm's numbers? Attention on request, fair sizes, clear refusals."""


import pytest
import torch
from close import assert_close
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunecap_lib.encoders import TimmAdapter, ViT, ViTConfig, build_encoder, layers
from prunecap_lib.errors import InputError
from prunecap_lib.preprocessing import Preprocessing


def tiny_vit(**changes):
    torch.manual_seed(0)
    settings = dict(image_size=32, patch=8, channels=16, depth=2, heads=2, hidden=32) | changes
    encoder = ViT(ViTConfig(**settings), name="tiny", preprocessing=Preprocessing(32)).eval()
    with torch.no_grad():  # so that attention is not nearly uniform
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def forward_cost(encoder):
    images = torch.zeros(1, 3, encoder.image_size, encoder.image_size)
    # FlopCounterMode does not know the CPU's fused attention; the plain one is the same arithmetic.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        encoder.eval()(images)
    return sum(parameter.numel() for parameter in encoder.parameters()), counter.get_total_flops()


def test_scenes_encoders_are_matched(capsys):
    vit, convnext = build_encoder("vit"), build_encoder("convnext")
    assert vit.grid == convnext.grid == (8, 8) and vit.channels == convnext.channels == 128
    costs = forward_cost(vit), forward_cost(convnext)
    with capsys.disabled():
        for encoder, (parameters, flops) in zip((vit, convnext), costs, strict=True):
            print(f"\n{encoder.name}: {parameters / 1e6:.3f} M parameters, {flops / 1e6:.1f} MFLOPs", end="")
    for ours, theirs in zip(*costs, strict=True):
        assert 0.95 < ours / theirs < 1.05


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_scenes_encoders_at_96_px(name):
    encoder = build_encoder(name, image_size=96)
    tokens = encoder(torch.randn(2, 3, 96, 96))
    assert encoder.grid == tokens.grid == (12, 12) and tokens.x.shape == (2, 144, 128)
    assert encoder.stride == 8 and encoder.preprocessing.image_size == 96
    assert tokens.prefix_count == encoder.prefix_tokens == (1 if name == "vit" else 0)


@pytest.mark.parametrize("changes", [{}, {"registers": 2, "prefix_positions": False}, {"class_token": False}])
def test_attention_of_the_last_block(changes):
    encoder, images = tiny_vit(**changes), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        plain, asked = encoder(images), encoder(images, need_attention=True)
        before_last = encoder.norm_pre(encoder.embed(images))
        for block in encoder.blocks[:-1]:
            before_last, _ = block(before_last)
        last = encoder.blocks[-1]
        q, k, _ = last.attn.qkv(last.norm1(before_last)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1)  # [B, h, T, T]
    assert plain.attention_received is None and plain.cls_attention is None and plain.key_norm is None
    assert_close(asked.sequence, plain.sequence)
    P = encoder.prefix_tokens
    assert_close(asked.attention_received, weights.mean(dim=(1, 2))[:, P:])
    assert_close(asked.key_norm, k.norm(dim=-1).mean(dim=1)[:, P:])
    if encoder.config.class_token:
        assert_close(asked.cls_attention, weights[:, :, 0].mean(dim=1)[:, P:])
    else:
        assert asked.cls_attention is None


def test_only_the_last_block_leaves_the_fused_kernel(monkeypatch):
    asked, attend = [], layers.attend
    monkeypatch.setattr(layers, "attend", lambda *args, need_weights:
                        asked.append(need_weights) or attend(*args, need_weights=need_weights))
    tiny_vit(depth=3)(torch.randn(1, 3, 32, 32), need_attention=True)
    assert asked == [False, False, True]


@pytest.mark.parametrize("name", ["convnext", "resnet10t"])
def test_attention_is_refused_where_there_is_none(name):
    with pytest.raises(InputError, match="no attention weights.*'pilot'"):
        build_encoder(name, image_size=64)(torch.zeros(1, 3, 64, 64), need_attention=True)


@pytest.mark.parametrize("name", ["vit", "convnext", "resnet10t"])
@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 1, 64, 64), (3, 64, 64), (1, 3, 64, 96)])
def test_wrong_pictures(name, shape):
    with pytest.raises(InputError, match=rf"encoder {name} takes pictures of shape \[B, 3, 64, 64\], not"):
        build_encoder(name, image_size=64)(torch.zeros(shape))


@pytest.mark.slow
@pytest.mark.parametrize("settings, message", [
    (dict(name="vit_tiny_patch16_225"), "did you mean vit_tiny_patch16_224"),
    (dict(name="no such thing at all"), "neither 'vit', 'convnext' nor"),
    (dict(name="vit_tiny_patch16_224.no_such_tag"), "no_such_tag"),
    (dict(name="vit", image_size=4), "too small for one token; give at least 8"),
    (dict(name="vit_tiny_patch16_224", image_size=15), "too small for one token; give at least 16"),
    (dict(name="convnext_atto", image_size=31), "too small for one token; give at least 32"),
    (dict(name="swin_tiny_patch4_window7_224", image_size=3), "too small for one token; give at least 32"),
    (dict(name="coatnet_pico_rw_224", image_size=1), "image_size 1"),
    (dict(name="vit", image_size=0), "image_size is 0"),
    (dict(name="vit", pretrained=True), "our own"),
    (dict(name="vit", pretrained=True, state_dict={}), "not both"),
])
def test_impossible_requests(settings, message):
    with pytest.raises(InputError, match=message):
        build_encoder(**settings)


def test_preprocessing_is_timms():
    encoder = build_encoder("vit_tiny_patch16_224", image_size=64, state_dict=None)
    assert encoder.preprocessing == Preprocessing(64, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.9)
    assert encoder.stride == 16 and encoder.grid == (4, 4)


def test_the_map_before_the_head():
    torch.manual_seed(0)
    whole = build_encoder("tf_efficientnet_lite0", image_size=64).eval()
    before = build_encoder("tf_efficientnet_lite0@last_stage", image_size=64,
                           state_dict=whole.model.state_dict()).eval()
    assert isinstance(before, TimmAdapter) and (before.channels, whole.channels) == (320, 1280)
    assert not any(key.startswith(("conv_head", "bn2")) for key in before.model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        stage = before(images).x.transpose(1, 2).unflatten(2, before.grid)  # [B, C, H, W]
        widened = whole.model.bn2(whole.model.conv_head(stage))
        assert_close(widened.flatten(2).transpose(1, 2), whole(images).x)


@pytest.mark.parametrize("training, sizes", [(False, [4, 4, 1]), (True, [9])])
def test_a_cpu_encodes_a_few_pictures_at_a_time_unless_it_trains(training, sizes):
    encoder, images, seen = build_encoder("vit").train(training), torch.randn(9, 3, 64, 64), []
    encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    with torch.set_grad_enabled(training):
        tokens = encoder.encode(images, need_attention=True)
    assert seen == sizes
    with torch.no_grad():
        whole = encoder(images, need_attention=True)
    for name in ("x", "index", "prefix", "cls_attention"):
        assert_close(getattr(tokens, name), getattr(whole, name))
