"""How does a picture become visual tokens? By name: two small encoders of our own, or any of timm's.

    encoder = build_encoder("vit_tiny_patch16_224", image_size=224, state_dict=timm_model.state_dict())
    tokens = encoder(images)  # images [B, 3, S, S] -> VisualTokens(x [B, N, C], index, grid, prefix, ...)
"""

from __future__ import annotations

import torch

from ..errors import InputError
from ..preprocessing import Preprocessing
from ..pruning import Schedule
from .base import Encoder
from .convnext import ConvNeXt, ConvNeXtConfig
from .metaformer import MetaFormer, MetaFormerConfig
from .swin import Swin, SwinConfig
from .timm_adapter import LAST_STAGE, TimmAdapter
from .timm_names import create_timm_model, preprocessing_of, readable_encoder
from .vit import ViT, ViTConfig
from .weights import StateDict, load_weights, pretrained_state_dict

__all__ = ["ConvNeXt", "ConvNeXtConfig", "Encoder", "MetaFormer", "MetaFormerConfig", "Swin", "SwinConfig",
           "TimmAdapter", "ViT", "ViTConfig", "build_encoder"]


def scenes_vit(image_size: int = 64) -> ViT:
    """A small ViT: 8x8 tokens of 128 channels at 64 px."""
    config = ViTConfig(image_size=image_size, patch=8, channels=128, depth=6, heads=4, hidden=512)
    return ViT(config, name="vit", preprocessing=_scenes_preprocessing(image_size))


def scenes_convnext(image_size: int = 64) -> ConvNeXt:
    """A small ConvNeXt with as many tokens, channels, parameters and FLOPs as ``scenes_vit``."""
    config = ConvNeXtConfig(image_size=image_size, depths=(2, 8), channels=(48, 128), layer_scale=None, final_norm=True)
    return ConvNeXt(config, name="convnext", preprocessing=_scenes_preprocessing(image_size))


def _scenes_preprocessing(image_size: int) -> Preprocessing:
    return Preprocessing(image_size, mean=(0.5,) * 3, std=(0.5,) * 3)


def build_encoder(name: str, *, image_size: int | None = None, state_dict: StateDict | None = None,
                  pretrained: bool = False, schedule: Schedule | str | None = None) -> Encoder:
    """The encoder called ``name``, ready for square pictures.

    Args:
        name: "vit" or "convnext", our own small ones (64 px), or an architecture of timm's. ViTs, ConvNeXts (V1 and
            V2), Swins (V1) and MetaFormers (PoolFormer, ConvFormer, CAFormer) are built from our readable code, with
            timm's keys. What has a part that our code lacks, and every other architecture, comes through
            ``TimmAdapter``, and so does "...@last_stage".
        image_size: side of the pictures in pixels; None takes the name's own.
        state_dict: weights under timm's keys, of this image_size.
        pretrained: fetch timm's weights (network or cache).
        schedule: tokens that go inside the encoder, after which blocks; see ``Encoder.set_schedule``.

    Raises: InputError for an unknown name, an impossible size or schedule; CheckpointError where ``state_dict`` does
    not fit; MissingFileError where pretrained weights cannot be had.
    """
    if pretrained and state_dict is not None:
        raise InputError(f"encoder {name}: give either state_dict or pretrained=True, not both")
    ours = {"vit": scenes_vit, "convnext": scenes_convnext}
    if image_size is not None and image_size < 1:
        raise InputError(f"encoder {name}: image_size is {image_size}, it must be a number of pixels")
    if name in ours:
        if pretrained:
            raise InputError(f"encoder {name} is our own and timm has no weights for it; train it, "
                             "or load a checkpoint")
        encoder = ours[name](image_size or 64)
    else:
        if pretrained:
            state_dict = pretrained_state_dict(name.removesuffix(LAST_STAGE), image_size)
        encoder = _timm_encoder(name, image_size, initialize=state_dict is None)
    if min(encoder.grid) < 1:
        raise InputError(f"encoder {name}: a picture of image_size {image_size} is too small for one token; "
                         f"give at least {encoder.stride}")
    if state_dict is not None:
        load_weights(encoder, state_dict)
    if schedule is not None:
        encoder.set_schedule(schedule)
    return encoder


def _timm_encoder(name: str, image_size: int | None, initialize: bool) -> Encoder:
    architecture = name.removesuffix(LAST_STAGE)
    if architecture == name:
        with torch.device("meta"):
            outline = create_timm_model(architecture, image_size)
        encoder = readable_encoder(name, outline, image_size, initialize)
        if encoder is not None:
            return encoder
    model = create_timm_model(architecture, image_size)
    return TimmAdapter(model, name=name, preprocessing=preprocessing_of(model, image_size))
