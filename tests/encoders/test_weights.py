"""Do weights find their way into an encoder, and does a wrong file say what is wrong?"""

import re
import time

import pytest
import torch
from safetensors.torch import save_file
from zero_draws import zero_draws

from prunecap_lib.encoders import build_encoder
from prunecap_lib.encoders.timm_names import create_timm_model
from prunecap_lib.encoders.weights import load_state_dict_file, packaged_state_dict
from prunecap_lib.errors import CheckpointError, InputError, MissingFileError, PrunecapError


def test_misfits_are_named():
    weights = build_encoder("vit").state_dict()
    weights["blocks.0.attn.bias"] = torch.zeros(1)
    weights["head.weight"] = torch.zeros(10, 128)  # a classifier may be there
    del weights["norm.bias"]
    with pytest.raises(CheckpointError, match=r"missing: norm.bias; unexpected: blocks.0.attn.bias\. Check"):
        build_encoder("vit", state_dict=weights)


def test_weights_of_another_size_are_named():
    with pytest.raises(CheckpointError, match=r"pos_embed \[1, 65, 128\], not \[1, 145, 128\]"):
        build_encoder("vit", image_size=96, state_dict=build_encoder("vit").state_dict())


def test_file(tmp_path, monkeypatch):
    encoder = build_encoder("convnext")
    save_file({key: value.half() for key, value in encoder.state_dict().items()},
              tmp_path / "half.safetensors")
    monkeypatch.setenv("PRUNECAP_WEIGHTS", str(tmp_path))
    loaded = load_state_dict_file("half.safetensors")
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    build_encoder("convnext", state_dict=loaded)

    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "half.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut.safetensors is neither a whole safetensors file nor"):
        load_state_dict_file(tmp_path / "cut.safetensors")
    with pytest.raises(MissingFileError, match="none.safetensors not found"):
        load_state_dict_file("none.safetensors")


def facebooks(state):
    """ConvNeXt's keys and shapes as its authors' files have them."""
    def key(k):
        k = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", k)
        k = re.sub(r"^stem\.", "downsample_layers.0.", k)
        k = re.sub(r"^(stages\.\d)\.blocks", r"\1", k).replace("conv_dw", "dwconv").replace("mlp.grn", "grn")
        k = k.replace("mlp.fc", "pwconv").replace("grn.weight", "grn.gamma").replace("grn.bias", "grn.beta")
        return k.replace("head.norm", "norm").replace("head.fc", "head")
    return {key(k): v[None, None, None] if "mlp.grn" in k else v for k, v in state.items()}


def poolformers(state):
    """PoolFormer's keys as its authors' files have them."""
    def key(k):
        k = re.sub(r"layer_scale(\d)\.scale", r"layer_scale_\1", k).replace("stem.conv", "patch_embed.proj")
        k = re.sub(r"stages\.(\d)\.downsample\.conv", lambda m: f"network.{2 * int(m[1]) - 1}.proj", k)
        k = re.sub(r"stages\.(\d)\.blocks", lambda m: f"network.{2 * int(m[1])}", k)
        return k.replace("head.norm", "norm").replace("head.fc", "head")
    return {key(k): v[..., None, None] if re.search(r"mlp\.fc\d\.weight", k) else v for k, v in state.items()}


def of_2022(state):
    """Swin's keys as timm had them, beside tables that it no longer stores."""
    def key(k):
        k = re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", k)
        return k.replace("head.fc.", "head.")
    buffers = {"attn_mask": torch.zeros(64, 49, 49), "attn.relative_position_index": torch.ones(49, 49)}
    return {key(k): v for k, v in state.items()} | {f"layers.0.blocks.1.{k}": v for k, v in buffers.items()}


def without_counters(state):
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


WRAPPINGS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: torch.ones(2)}}},
    "model": lambda state: {"model": state},
    "module": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    "averaged": lambda state: {"state_dict": {key: value * 2 for key, value in state.items()}, "state_dict_ema": state},
}


@pytest.mark.slow
@pytest.mark.parametrize("name, image_size, older, wrapping", [
    ("test_vit", None, dict, "plain"), ("test_vit", 96, dict, "module"), ("test_vit4", 192, dict, "state_dict"),
    ("test_convnext", None, facebooks, "model"),
    pytest.param("convnextv2_atto", 64, facebooks, "averaged", marks=pytest.mark.slow),
    pytest.param("poolformer_s12", 64, poolformers, "plain", marks=pytest.mark.slow),
    pytest.param("swin_tiny_patch4_window7_224", None, of_2022, "model", marks=pytest.mark.slow),
    ("test_resnet", 64, without_counters, "state_dict"), ("test_vit_relpos", None, dict, "averaged")])
def test_files_that_timm_reads_are_read(name, image_size, older, wrapping, tmp_path):
    """Of every family, and of other backbones: the tokens are those of timm's own loader."""
    torch.manual_seed(0)
    with zero_draws():
        state = create_timm_model(name, None).state_dict()
    state = {k: torch.randn_like(v) * 0.1 + v if v.is_floating_point() and "running" not in k else v
             for k, v in state.items()}
    file = tmp_path / "weights.pth"
    torch.save(WRAPPINGS[wrapping](older(state)), file)
    with zero_draws():
        theirs = create_timm_model(name, image_size, pretrained=True, pretrained_cfg_overlay={"file": str(file)}).eval()
    encoder = build_encoder(name, image_size=image_size, state_dict=load_state_dict_file(file)).eval()
    pictures = torch.rand(1, 3, encoder.image_size, encoder.image_size)
    with torch.no_grad():
        expected, tokens = theirs.forward_features(pictures), encoder(pictures).sequence
    if expected.dim() == 4:
        expected = expected if theirs.__class__.__name__ == "SwinTransformer" else expected.permute(0, 2, 3, 1)
        expected = expected.flatten(1, 2)
    assert (tokens - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("change, said", [
    (lambda value: value.int(), r"float"), (lambda value: value + 1j, "float"),
    (lambda value: value * torch.nan, "finite"),
    (lambda value: value.double() + 1e300, "finite"), (lambda value: -value / 0, "finite"),
    (lambda value: value[:0], "another shape"), (lambda value: value[None], "another shape")])
def test_what_cannot_be_a_weight_is_named_with_its_file(change, said, tmp_path):
    weights = build_encoder("vit").state_dict()
    weights["norm.weight"] = change(weights["norm.weight"])
    torch.save(weights, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=rf"weights file .*bad\.pth.*norm\.weight.*{said}|{said}.*norm\.weight"):
        build_encoder("vit", state_dict=load_state_dict_file(tmp_path / "bad.pth"))
    with pytest.raises(CheckpointError, match="norm.weight"):
        build_encoder("vit", state_dict=weights)


class Harmful:
    def __reduce__(self):
        return print, ("a file must not be able to run this",)


@pytest.mark.parametrize("content, said", [
    (Harmful(), "neither"), ({"state_dict": {}}, "no tensors"), ([torch.ones(2)], "a list"),
    (torch.ones(2), "a Tensor"), ({"a": torch.ones(1), "module.a": torch.ones(1)}, "twice"),
    ({0: torch.ones(2)}, "no tensors"), ({}, "no tensors")])
def test_files_of_something_else_are_refused(content, said, tmp_path, capsys):
    torch.save(content, tmp_path / "odd.bin")
    with pytest.raises(CheckpointError, match=rf"odd\.bin.*{said}"):
        load_state_dict_file(tmp_path / "odd.bin")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"{", b"PK\x03\x04", b"\x80\x02.", b"\0" * 8 + b"{}", b"a text\n" * 9])
def test_files_of_other_bytes_are_refused(content, tmp_path):
    (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"odd\.pt.*; (copy|give)"):
        load_state_dict_file(tmp_path / "odd.pt")


@pytest.mark.parametrize("state", [{}, {"model": {"norm.weight": torch.ones(2)}}, {"norm.weight": [1.0]}])
def test_a_state_dict_that_is_none_is_refused(state):
    with pytest.raises(CheckpointError, match="state_dict holds"):
        build_encoder("vit", state_dict=state)


@pytest.mark.slow
def test_packaged_weights_know_a_picture():
    """ImageNet weights in place tell a photograph's class; one tensor astray and they would not."""
    import timm
    from PIL import Image
    from skimage import data

    weights = packaged_state_dict("tf_efficientnet_lite0")
    with zero_draws():
        encoder = build_encoder("tf_efficientnet_lite0", state_dict=weights).eval()
        classifier = timm.create_model("tf_efficientnet_lite0").eval()
    classifier.load_state_dict(weights)
    with torch.no_grad():
        for picture, name in ((data.chelsea(), "cat"), (data.coffee(), "espresso")):
            pixels = encoder.preprocessing(Image.fromarray(picture))[None]
            features = encoder(pixels).x
            logits = classifier.classifier(features.mean(dim=1))
            assert int(logits.argmax()) in {"cat": (281, 282, 283, 284, 285), "espresso": (967, 504)}[name]


def test_no_package_for_other_encoders():
    with pytest.raises(InputError, match="no installed package brings weights for encoder 'resnet18'"):
        packaged_state_dict("resnet18")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t", "tf_efficientnet_lite0@last_stage"])
def test_pretrained_offline_fails_soon_and_clearly(name, tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.process_time()
    with pytest.raises(PrunecapError, match="hub cannot be reached.*state_dict=load_state_dict_file"):
        build_encoder(name, pretrained=True)
    assert time.process_time() - start < 10


def test_nothing_pretrained_to_fetch():
    with pytest.raises(InputError, match="no pretrained weights for encoder 'vit_small_patch16_36x1"):
        build_encoder("vit_small_patch16_36x1_224", pretrained=True)
