"""How does a picture file become the tensor that an encoder expects?

Two steps. ``load_image`` turns whatever lies on disk into an upright 8-bit RGB picture. ``Preprocessing``
cuts out and scales the part that the encoder sees, exactly as timm's evaluation transform does, and
normalizes it.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from .errors import InputError, MissingFileError, PictureError

_ORIENTATION = 0x0112  # EXIF's number for it
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESAMPLING = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
               "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def load_image(source: str | Path | Image.Image) -> Image.Image:
    """Any picture as upright 8-bit RGB.

    EXIF rotation is applied; transparency is laid over white; grey, palette, CMYK, 16-bit and float pictures
    are converted; of an animation the first frame is taken. A JPEG too large to decode safely is decoded at
    an eighth of its size.

    Raises: MissingFileError where there is no such file; PictureError where it is no picture, is damaged, or is
    too large; InputError for what is neither path nor picture.
    """
    if isinstance(source, Image.Image):
        with _damage_named(getattr(source, "filename", None) or "in memory"):
            return _to_rgb(source)
    if not isinstance(source, str | Path):
        raise InputError(f"a picture must be a path or a PIL image, not {type(source).__name__}")
    if Path(source).is_dir():
        raise InputError(f"{source} is a folder; give a picture file in it")
    if not Path(source).exists():
        remedy = "download it first" if str(source).startswith(("http://", "https://")) else "check the path"
        raise MissingFileError(f"picture {source} not found; {remedy}")
    with _damage_named(source), _open(Path(source), source) as image:
        return _to_rgb(image)


def decode_image(data: bytes, name: str) -> Image.Image:
    """A picture file's bytes as upright 8-bit RGB, as ``load_image`` gives it. ``name`` is for messages.

    Raises PictureError where the bytes are no picture, are damaged, or the picture is too large.
    """
    with _damage_named(name), _open(io.BytesIO(data), name) as image:
        return _to_rgb(image)


@contextmanager
def _damage_named(name: str | Path):
    """Turn what Pillow raises on damaged files into one sentence; each of its plugins has its own habit."""
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture in a format that Pillow reads; "
                           "save it as JPEG or PNG") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise PictureError(f"picture {name} cannot be read, it seems damaged or cut short ({error}); "
                           "copy or download it again") from error


def _open(file: Path | io.BytesIO, name: str | Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(file)
        except Image.DecompressionBombError as error:
            bomb = error
    # The plugin itself has no size check, and JPEG can be decoded at 1/8 of each side: a 64th of the memory.
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        image = JpegImagePlugin.JpegImageFile(file)
    except SyntaxError:
        raise PictureError(f"picture {name} is too large to decode ({bomb}); "
                           "save a smaller copy, or a JPEG, which can be read at reduced size") from bomb
    image.draft("RGB", (image.width // 8, image.height // 8))
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    try:
        if image.getexif().get(_ORIENTATION, 1) != 1:  # otherwise it would only be copied
            image = ImageOps.exif_transpose(image)
    except (SyntaxError, TypeError, KeyError, struct.error):
        pass  # damaged EXIF: the pixels are still good
    if image.mode[0] in "IF":  # 16- and 32-bit; Pillow's own conversion clips them at 255
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    try:
        rgb = image.convert("RGB")
    except ValueError as error:  # LAB, for one
        raise PictureError(f"a picture in {image.mode} colours cannot be converted; save it as RGB") from error
    rgb.info = {}  # convert has made a copy; now nothing (EXIF) is left that could rotate it once more
    return rgb


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Grey values of any range as uint8: [0, 65535] for 16-bit; else 1, 255 or 65535 is taken for white."""
    wide = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    if values.dtype == np.uint16:
        white = 65535.0
    elif wide.min() < 0 or wide.max() > 65535:  # no known convention: from darkest to lightest
        wide = wide - wide.min()
        white = max(wide.max(), 1e-12)
    else:
        limits = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
        white = next(limit for limit in limits if wide.max() <= limit)
    return np.rint(wide * (255.0 / white)).astype(np.uint8)


@dataclass(frozen=True)
class Preprocessing:
    """From a picture to an encoder's input, as timm's evaluation transform does it.

    Attributes:
        image_size: side S of the square that the encoder sees, in pixels.
        mean, std: per channel, for pixel values in [0, 1].
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos" (Pillow's, antialiased).
        crop_pct: share of the shorter side that is seen, in (0, 1]; the rest is cut off around the centre.
        crop_mode: "center" keeps the proportions and cuts; "squash" scales both sides to the square.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def __post_init__(self):
        for name in ("mean", "std"):  # JSON brings lists; equal settings must compare equal
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if (self.image_size < 1 or len(self.mean) != 3 or len(self.std) != 3
                or not all(map(math.isfinite, self.mean + self.std)) or min(self.std) <= 0):
            raise InputError("preprocessing: image_size must be positive, mean and std three finite numbers each, and "
                             f"std above 0, not {self}")
        if not 0 < self.crop_pct <= 1:
            raise InputError(f"preprocessing: crop_pct is {self.crop_pct}, it must be above 0 and at most 1")
        if self.interpolation not in _RESAMPLING:
            raise InputError(f"preprocessing: interpolation {self.interpolation!r} is not one of "
                             f"{', '.join(_RESAMPLING)}")
        if self.crop_mode not in ("center", "squash"):
            raise InputError(f"preprocessing: crop_mode {self.crop_mode!r} is not supported; "
                             "use 'center' or 'squash'")

    @classmethod
    def from_timm(cls, data_config: Mapping) -> Preprocessing:
        """From ``timm.data.resolve_model_data_config(model)``. Raises InputError for an oblong input."""
        _, height, width = data_config["input_size"]
        if height != width:
            raise InputError(f"preprocessing: an input of {height}x{width} pixels is not square; "
                             "build the encoder with one image_size")
        return cls(height, data_config["mean"], data_config["std"], data_config["interpolation"],
                   data_config.get("crop_pct", 0.875), data_config.get("crop_mode", "center"))

    def whole(self) -> Preprocessing:
        """The same, but all of the picture is seen: nothing is cut off, both sides are scaled to the square."""
        return replace(self, crop_pct=1.0, crop_mode="squash")

    def picture_box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of a picture of ``size`` (width, height) that the encoder sees: left, top, right, bottom.

        In pixels of the original, as floats. The rounding is torchvision's: the shorter side becomes
        floor(S / crop_pct), the longer side is rounded down, the offset of the crop to the nearest pixel.
        """
        S, scaled = self.image_size, math.floor(self.image_size / self.crop_pct)
        if self.crop_mode == "squash":
            resized = (scaled, scaled)
        else:
            resized = tuple(int(scaled * side / min(size)) for side in size)
        starts = [round((new - S) / 2.0) for new in resized]
        left, top = (start * old / new for start, old, new in zip(starts, size, resized, strict=True))
        right, bottom = (min((start + S) * old / new, old)
                         for start, old, new in zip(starts, size, resized, strict=True))
        return left, top, right, bottom

    def to_uint8(self, image: Image.Image) -> Tensor:
        """Crop and scale an RGB picture -> uint8 [3, S, S]: what a data loader or a cache keeps."""
        # Scaling only the visible box gives the pixels that scaling everything and cropping gives, and a
        # panorama of 20,000x10 pixels needs no gigabytes in between.
        resized = image.resize((self.image_size, self.image_size), _RESAMPLING[self.interpolation],
                               box=self.picture_box(image.size))
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 in 0..255, or float in [0, 1], [..., 3, S, S] -> float32 with the encoder's mean and std."""
        # In place from here on: a batch is megabytes, and new memory for each step takes longer than the step.
        images = images.float().div_(255) if images.dtype == torch.uint8 else images.clone()
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return images.sub_(mean).div_(std)

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB picture -> float32 [3, S, S]."""
        return self.normalize(self.to_uint8(image))


def augment(images: Tensor, generator: torch.Generator | None = None, *, min_scale: float = 0.8,
            flip: bool = False) -> Tensor:
    """Show each picture of a uint8 batch [B, 3, S, S] a little differently; same shape and type.

    A square of at least ``min_scale`` of each side is cut at random and scaled back to S. ``flip`` mirrors
    half of the pictures; it is off because captions say "left" and "right". On the CPU.
    """
    return crop(images, draw_crops(len(images), generator, min_scale=min_scale, flip=flip))


def draw_crops(B: int, generator: torch.Generator | None = None, *, min_scale: float = 0.8,
               flip: bool = False) -> Tensor:
    """What ``augment`` draws for B pictures: affine maps [B, 2, 3] from the new square into the old one, [-1, 1]."""
    if not 0 < min_scale <= 1:
        raise InputError(f"augmentation: min_scale is {min_scale}, it must be above 0 and at most 1")
    scale = 1 - (1 - min_scale) * torch.rand(B, generator=generator)
    # A box of half-width `scale` inside [-1, 1] can have its centre anywhere in +-(1 - scale).
    centre = (1 - scale)[:, None] * (2 * torch.rand(B, 2, generator=generator) - 1)
    mirror = 1 - 2 * (torch.rand(B, generator=generator) < 0.5).float() if flip else torch.ones(B)
    theta = torch.zeros(B, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * mirror, scale, centre
    return theta


def crop(images: Tensor, theta: Tensor) -> Tensor:
    """Cut what ``draw_crops`` drew out of each picture of a uint8 batch [B, 3, S, S], and scale it back to S."""
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return moved.round().to(torch.uint8)
