"""Our configuration of timm's architectures, where we carry them, read from timm's own model of the name.

That model is built on the meta device (shapes without numbers, in milliseconds). Parsing the name would not do: that
"dinov2" means LayerScale, and "clip" a LayerNorm before the first block, is written in timm alone.
"""

from __future__ import annotations

import difflib
from functools import partial

import torch
from torch import nn

from ..errors import InputError
from ..preprocessing import Preprocessing
from .base import Encoder
from .convnext import ConvNeXt, ConvNeXtConfig
from .metaformer import MetaFormer, MetaFormerConfig
from .swin import Swin, SwinConfig
from .vit import ViT, ViTConfig


def create_timm_model(name: str, image_size: int | None, **settings) -> nn.Module:
    """timm's model ``name`` for pictures of ``image_size`` (None: its own). Raises InputError."""
    import timm
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists timm's."
        raise InputError(f"encoder {name!r} is neither 'vit', 'convnext' nor an architecture of timm; {hint}")
    try:
        fixed = timm.get_pretrained_cfg(name).fixed_input_size  # only such models take (and need) img_size
        size = {"img_size": image_size} if image_size and fixed else {}
        return timm.create_model(name, **size, **settings)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"encoder {name!r} at image_size {image_size}: timm cannot build it ({error}); "
                         "try its own size, or another name") from error


def preprocessing_of(model: nn.Module, image_size: int | None) -> Preprocessing:
    """How timm evaluates ``model``, at another ``image_size`` if one is given."""
    import timm.data
    config = timm.data.resolve_model_data_config(model)
    if image_size:
        config["input_size"] = (3, image_size, image_size)
    return Preprocessing.from_timm(config)


def readable_encoder(name: str, model: nn.Module, image_size: int | None, initialize: bool) -> Encoder | None:
    """Our own implementation of the timm ``model``, or None where it has a part that ours lacks.

    ``initialize=False`` leaves its parameters unset, for weights to be loaded: drawing random ones takes a second.
    """
    from timm.models import convnext, metaformer, swin_transformer, vision_transformer
    ours = {vision_transformer.VisionTransformer: (vit_config, ViT), convnext.ConvNeXt: (convnext_config, ConvNeXt),
            swin_transformer.SwinTransformer: (swin_config, Swin),
            metaformer.MetaFormer: (metaformer_config, MetaFormer)}
    if type(model) not in ours:
        return None
    read_config, build = ours[type(model)]
    preprocessing = preprocessing_of(model, image_size)
    if (config := read_config(model, preprocessing.image_size)) is None:
        return None
    build = partial(build, config, name=name, preprocessing=preprocessing)
    with torch.device("meta"):
        outline = build()
    if not same_parameters(outline, model):
        return None
    return build() if initialize else outline.to_empty(device="cpu")


def same_parameters(ours: Encoder, theirs: nn.Module) -> bool:
    """Whether names and shapes agree, but for timm's classifier: the shortest test for parts we lack."""
    def shapes(model):
        # A 1x1 convolution is the same matrix as a linear layer.
        return {key: tuple(value.shape[:2] if value.shape[2:] == (1, 1) else value.shape)
                for key, value in model.state_dict().items()}

    rest = {key: shape for key, shape in shapes(theirs).items() if not key.startswith(ours.head_keys)}
    return shapes(ours) == rest


def activation_of(module: nn.Module) -> str | None:
    """Our name for timm's activation, or None for one we do not have."""
    if type(module) is nn.GELU and module.approximate == "tanh":
        return "gelu_tanh"
    return {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}.get(type(module).__name__)


def vit_config(model: nn.Module, image_size: int) -> ViTConfig | None:
    """What timm's VisionTransformer ``model`` is made of."""
    from timm import layers
    from timm.models import vision_transformer
    block = model.blocks[0]
    plain = (type(block) is vision_transformer.Block and type(block.attn) is layers.Attention
             and type(block.mlp) is layers.Mlp and type(model.patch_embed) is layers.PatchEmbed
             and isinstance(block.norm1, nn.LayerNorm))
    if not plain or (activation := activation_of(block.mlp.act)) is None:
        return None
    return ViTConfig(
        image_size=image_size, patch=model.patch_embed.patch_size[0], channels=model.embed_dim,
        depth=len(model.blocks), heads=block.attn.num_heads, hidden=block.mlp.fc1.out_features,
        class_token=model.has_class_token, registers=model.num_reg_tokens,
        prefix_positions=not model.no_embed_class, qkv_bias=block.attn.qkv.bias is not None,
        projection_bias=block.attn.proj.bias is not None, layer_scale=getattr(block.ls1, "init_values", None),
        pre_norm=isinstance(model.norm_pre, nn.LayerNorm), final_norm=isinstance(model.norm, nn.LayerNorm),
        norm_eps=block.norm1.eps, activation=activation)


def convnext_config(model: nn.Module, image_size: int) -> ConvNeXtConfig | None:
    """What timm's ConvNeXt ``model``, V1 or V2, is made of."""
    from timm import layers
    block = model.stages[0].blocks[0]
    activation = activation_of(block.mlp.act)
    if activation is None or not isinstance(block.norm, nn.LayerNorm):
        return None
    first, stages = model.stem[0], [stage.blocks for stage in model.stages]
    overlapping = first.kernel_size != first.stride
    if overlapping and len(model.stem) != 3:  # one with an activation inside
        return None
    return ConvNeXtConfig(
        image_size=image_size, depths=tuple(len(blocks) for blocks in stages),
        channels=tuple(blocks[0].conv_dw.out_channels for blocks in stages),
        patch=4 if overlapping else first.stride[0], stem_channels=first.out_channels if overlapping else None,
        kernel=block.conv_dw.kernel_size[0],
        layer_scale=None if block.gamma is None else 1e-6,  # timm keeps no record of its start value
        grn=isinstance(block.mlp, layers.GlobalResponseNormMlp),
        final_norm=isinstance(model.norm_pre, nn.LayerNorm), norm_eps=block.norm.eps, activation=activation)


def swin_config(model: nn.Module, image_size: int) -> SwinConfig | None:
    """What timm's SwinTransformer ``model`` is made of. Its windows are cut to its maps already."""
    blocks = [stage.blocks[0] for stage in model.layers]
    activation = activation_of(blocks[0].mlp.act)
    square = all(block.window_size[0] == block.window_size[1] for block in blocks)
    if activation is None or not square or blocks[0].always_partition or not isinstance(model.norm, nn.LayerNorm):
        return None
    return SwinConfig(
        image_size=image_size, depths=tuple(len(stage.blocks) for stage in model.layers),
        channels=tuple(block.dim for block in blocks), heads=tuple(block.attn.num_heads for block in blocks),
        windows=tuple(block.window_size[0] for block in blocks), patch=model.patch_embed.patch_size[0],
        norm_eps=model.norm.eps, activation=activation)


def metaformer_config(model: nn.Module, image_size: int) -> MetaFormerConfig | None:
    """What timm's MetaFormer ``model`` is made of."""
    mixer_names = {"Pooling": "pooling", "SepConv": "convolution", "Attention": "attention"}
    norm_names = {"GroupNorm1": "map", "GroupNorm1NoBias": "map",
                  "LayerNorm2dNoBias": "cell", "LayerNormNoBias": "cell"}
    blocks, depths = [stage.blocks[0] for stage in model.stages], tuple(len(stage.blocks) for stage in model.stages)
    first, stem_norm = blocks[0], None if isinstance(model.stem.norm, nn.Identity) else model.stem.norm
    mixers = [mixer_names.get(type(block.token_mixer).__name__) for block in blocks]
    norms = {(norm_names.get(type(block.norm1).__name__), block.norm1.eps) for block in blocks}
    norm, norm_eps = norms.pop()
    activation = {"GELU": "gelu", "StarReLU": "star_relu"}.get(type(first.mlp.act).__name__)
    if None in (*mixers, norm, activation) or norms or (stem_norm and stem_norm.eps != norm_eps):
        return None
    heads = {block.token_mixer.head_dim for block in blocks if hasattr(block.token_mixer, "head_dim")}
    scale = 1e-5 if sum(depths) <= 24 else 1e-6  # the papers'; timm keeps no record of its start value
    return MetaFormerConfig(
        image_size=image_size, depths=depths, channels=tuple(len(block.norm1.weight) for block in blocks),
        mixers=tuple(mixers), head_channels=heads.pop() if heads else MetaFormerConfig.head_channels,
        norm=norm, norm_bias=first.norm1.bias is not None, norm_eps=norm_eps, downsample_norm=stem_norm is not None,
        activation=activation, mlp_bias=first.mlp.fc1.bias is not None,
        layer_scale=None if isinstance(first.layer_scale1, nn.Identity) else scale,
        residual_scale=tuple(not isinstance(block.res_scale1, nn.Identity) for block in blocks))
