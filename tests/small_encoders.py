"""One small encoder of each family."""

import torch

from prunecap_lib.encoders import (
    ConvNeXt,
    ConvNeXtConfig,
    MetaFormer,
    MetaFormerConfig,
    Swin,
    SwinConfig,
    ViT,
    ViTConfig,
)
from prunecap_lib.preprocessing import Preprocessing
from prunecap_lib.pruning import Schedule


def tiny(family, schedule=None, **changes):
    """Two stages of two blocks, maps of 9x9 and 4x4 or 5x5 cells, all parameters random; a ViT of 9x9 tokens."""
    torch.manual_seed(0)
    sizes = dict(image_size=36, depths=(2, 2), channels=(8, 16)) | changes
    match family:
        case "vit":
            config = ViTConfig(**dict(image_size=36, patch=4, channels=16, depth=4, heads=2, hidden=64) | changes)
            encoder = ViT(config, name=family, preprocessing=Preprocessing(36))
        case "convnext":
            encoder = ConvNeXt(ConvNeXtConfig(**sizes), name=family, preprocessing=Preprocessing(36))
        case "convnextv2":
            config = ConvNeXtConfig(**sizes, layer_scale=None, grn=True)
            encoder = ConvNeXt(config, name=family, preprocessing=Preprocessing(36))
        case "swin":
            config = SwinConfig(**sizes, heads=(1, 2), windows=(4, 4))  # windows fill neither map
            encoder = Swin(config, name=family, preprocessing=Preprocessing(36))
        case _:
            mixer, norm = ("pooling", "map") if family == "poolformer" else ("attention", "cell")
            config = MetaFormerConfig(**sizes, mixers=(mixer,) * 2, norm=norm, head_channels=4,
                                      residual_scale=(False, True))
            encoder = MetaFormer(config, name=family, preprocessing=Preprocessing(36))
    randomize(encoder)
    if schedule:
        encoder.set_schedule(Schedule.parse(schedule))
    return encoder.eval()


def randomize(module):
    with torch.no_grad():
        for parameter in module.parameters():
            seed = torch.Generator().manual_seed(parameter.numel())
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seed))
