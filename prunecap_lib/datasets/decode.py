"""How does a picture get from its file to the encoder's size fast? torchvision's decoder and 8-bit resize.

The decoder is the one that Pillow uses; the resize works in 8 bits with the processor's wide instructions, and
rounds in between. So single values differ from ``Preprocessing.to_uint8`` by a step or so (``benchmarks/loader.py``
measures it): enough to keep this to training, where pictures are looked at many times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import PictureError
from ..preprocessing import Preprocessing, open_picture, orientation
from .base import CaptionDataset

_LONGEST = 4  # times the shorter side: all of the picture is scaled, also what the crop throws away


def exact_pixels(dataset: CaptionDataset, i: int, preprocessing: Preprocessing) -> Tensor:
    """Picture i as timm's evaluation transform shows it, uint8 [3, S, S]. Raises what ``dataset.image`` raises."""
    return preprocessing.to_uint8(dataset.image(i))


def fast_pixels(dataset: CaptionDataset, i: int, preprocessing: Preprocessing) -> Tensor:
    """The same to a rounding step, about twice as fast, for JPEG files; what is odd about a file goes the exact way."""
    if hasattr(dataset, "encoded") and preprocessing.interpolation in ("bilinear", "bicubic"):
        pixels = _decode(dataset.encoded(i))
        if pixels is not None and max(pixels.shape[1:]) <= _LONGEST * min(pixels.shape[1:]):
            return _resize_and_crop(pixels, preprocessing)
    return exact_pixels(dataset, i, preprocessing)


def _decode(data: bytes) -> Tensor | None:
    """A JPEG file as uint8 [3, H, W]; None where that alone would not be the picture that the exact way gives."""
    from torchvision.io import ImageReadMode, decode_jpeg

    if data[:2] != b"\xff\xd8":
        return None
    try:
        header = open_picture(data, "")  # says how the picture lies, by EXIF or XMP, and refuses what is too large
        reduced = bool(header.decoderconfig)  # what ``draft`` sets
        if reduced or header.mode not in ("L", "RGB") or orientation(header) != 1:
            return None
        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except (PictureError, RuntimeError):  # the exact way finds the words for it
        return None


def _resize_and_crop(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """As timm does it (see ``Preprocessing.picture_box``): scale all, then cut out the middle."""
    S, scaled, (H, W) = preprocessing.image_size, math.floor(preprocessing.image_size / preprocessing.crop_pct), \
        pixels.shape[1:]
    size = (scaled, scaled) if preprocessing.crop_mode == "squash" else tuple(int(scaled * side / min(H, W))
                                                                              for side in (H, W))
    if size != (H, W):
        pixels = F.interpolate(pixels[None], size=size, mode=preprocessing.interpolation, antialias=True)[0]
    top, left = (round((side - S) / 2.0) for side in size)
    return pixels[:, top : top + S, left : left + S].contiguous()
