"""Do weights find their way into an encoder, and does a wrong file say what is wrong?"""

import time

import pytest
import torch
from safetensors.torch import save_file

from prunecap_lib.encoders import build_encoder
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
    with pytest.raises(CheckpointError, match="cut.safetensors is not a whole safetensors file"):
        load_state_dict_file(tmp_path / "cut.safetensors")
    with pytest.raises(MissingFileError, match="none.safetensors not found"):
        load_state_dict_file("none.safetensors")


def test_packaged_weights_know_a_picture():
    """ImageNet weights in place tell a photograph's class; one tensor astray and they would not."""
    import timm
    from PIL import Image
    from skimage import data

    weights = packaged_state_dict("tf_efficientnet_lite0")
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
