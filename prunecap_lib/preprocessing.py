"""How does a picture file become the tensor that an encoder expects?

Two steps. ``load_image`` turns whatever lies on disk into an upright 8-bit RGB picture. ``Preprocessing``
cuts out and scales the part that the encoder sees, exactly as timm's evaluation transform does, and
normalizes it.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta
from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from .errors import InputError, MissingFileError, PictureError, install_hint
from .reading import read_bytes

FORMATS = {  # by Pillow's name; HEIF comes with pillow-heif. Others are left out, above all those that run programs
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "PNG": (".png", ".apng"), "WEBP": (".webp",), "GIF": (".gif",),
    "BMP": (".bmp",), "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"), "HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif")}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""How names of files end that ``load_image`` reads, in small letters. (It goes by the content all the same.)"""
MAX_PIXELS = 100_000_000
"""Most pixels of a picture: they take half a gigabyte to one and a half while it is read."""
MAX_JPEG_PIXELS = 4 * MAX_PIXELS
"""Most pixels of a JPEG that is not progressive: above MAX_PIXELS it is decoded at an eighth of its sides."""
MAX_BYTES = 500_000_000
"""Most bytes of a picture's file."""
_MAX_SCANS = 100  # times that a JPEG may go over its picture; files in use have about ten
_MAX_TEXT = 5_000_000  # bytes of a PPM in letters, which Pillow reads at a megabyte a second
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_STRIP = 1 << 20  # pixels that are converted at a time, where that takes more memory than their result
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}  # by EXIF's number for how a picture lies
LARGEST_SIDE = 4096  # pixels of an encoder's square
_Mean, _Std = Annotated[float, Meta(ge=-1000, le=1000)], Annotated[float, Meta(ge=1e-4, le=1000)]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESAMPLING = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
               "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def load_image(source: str | os.PathLike | bytes | Image.Image | np.ndarray) -> Image.Image:
    """Any picture as upright 8-bit RGB: a path, a file's bytes, a PIL image, or an array [H, W] or [H, W, 3 or 4].

    Rotation noted in EXIF, or else XMP, is applied; transparency is laid over white; grey, palette, CMYK, 16-bit and
    float pictures are converted; of an animation the first frame is taken. A JPEG of more than MAX_PIXELS is decoded at
    an eighth of its size.

    Raises: MissingFileError where there is no such file; PictureError where it is no regular file, no picture of
    ``FORMATS``, damaged, or too large; InputError for what is no picture by its type.
    """
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", None) or "in memory"
        with _damage_named(name):
            if getattr(source, "tile", None) and source.format not in (*FORMATS, "MPO"):  # MPO: JPEGs in one file
                raise PictureError(f"picture {name} is in {source.format} format, which is not decoded here; save it "
                                   "as JPEG or PNG")
            _check_size(source, name)
            return _to_rgb(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,), (4,)):
            raise InputError(f"an array of {source.dtype} {list(source.shape)} is no picture; give uint8 values, "
                             "[H, W] or [H, W, 3], one array a picture")
        return load_image(Image.fromarray(source)) if source.size else decode_image(b"", "in memory")
    if isinstance(source, bytes | bytearray):
        return decode_image(bytes(source), "in memory")
    if isinstance(source, str | os.PathLike):
        return decode_image(read_picture(source), source)
    raise InputError(f"a picture must be a path, a file's bytes, a PIL image or an array, not {type(source).__name__}")


def read_picture(path: str | os.PathLike) -> bytes:
    """A picture file as it lies on disk. Only regular files are opened: a pipe would never end.

    Raises: MissingFileError where there is none; PictureError for another kind of file, one that cannot be read, and
    one of more than MAX_BYTES.
    """
    if str(path).startswith(("http://", "https://")):
        raise MissingFileError(f"picture {path} not found; download it first")
    return read_bytes(path, "picture", error=PictureError, largest=MAX_BYTES)


def decode_image(data: bytes, name: str | os.PathLike) -> Image.Image:
    """A picture file's bytes as upright 8-bit RGB, as ``load_image`` gives it. ``name`` is for messages.

    Raises PictureError where the bytes are no picture of ``FORMATS``, are damaged, or the picture is too large.
    """
    with _damage_named(name), open_picture(data, name) as image:
        return _to_rgb(image)


def open_picture(data: bytes, name: str | os.PathLike) -> Image.Image:
    """The header of a picture file: a PIL image not decoded yet, of a size that will be. Raises PictureError."""
    with _damage_named(name):
        if not data:
            raise PictureError(f"picture {name} is empty; copy or download it again")
        if data.startswith(b"\xff\xd8"):  # by itself, for Pillow's own check of the size knows nothing of draft()
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
            if data.count(b"\xff\xda") > _MAX_SCANS:
                raise PictureError(f"picture {name} is stored in more than {_MAX_SCANS} scans, and would take too long "
                                   "to decode; save it again")
        else:
            image = _open_other(data, name)
        _check_size(image, name)
        return image


def _open_other(data: bytes, name: str | os.PathLike) -> Image.Image:
    heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    if heif:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise PictureError(f"picture {name} is in Apple's HEIC format, which needs a package: "
                               f"{install_hint('pillow_heif')}, or save the picture as JPEG") from None
        register_heif_opener()
    if data[:2] in (b"P1", b"P2", b"P3") and len(data) > _MAX_TEXT:
        raise PictureError(f"picture {name} is written as text, {len(data):,} bytes of it, which takes too long to "
                           "decode; save it as PNG")
    Image.init()
    try:
        return Image.open(io.BytesIO(data), formats=[known for known in FORMATS if known in Image.OPEN])
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture in a format that is read ({', '.join(FORMATS)}); save it as JPEG "
                           "or PNG") from error
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error


def _check_size(image: Image.Image, name: str | os.PathLike) -> None:
    """Before memory is taken. A JPEG that is too large is set to be decoded at reduced size, where that helps."""
    pixels = image.width * image.height
    if not pixels:
        raise PictureError(f"picture {name} has no pixels ({image.width} x {image.height}); give another")
    if MAX_PIXELS < pixels <= MAX_JPEG_PIXELS and not image.info.get("progressive"):  # which would save no memory
        image.draft("RGB", (image.width // 8, image.height // 8))  # does nothing for other formats
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, f"{image.width:,} x {image.height:,}")


def _too_large(name: str | os.PathLike, size: str) -> PictureError:
    return PictureError(f"picture {name} is too large to decode ({size} pixels; at most {MAX_PIXELS:,}, of a JPEG that "
                        f"is not progressive {MAX_JPEG_PIXELS:,}); save a smaller copy")


@contextmanager
def _damage_named(name: str | os.PathLike) -> Iterator[None]:
    """Turn what Pillow raises on damaged files into one sentence: each of its plugins has its own habit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bad metadata, mostly, which nobody asked for
            yield
    except InputError:
        raise
    except MemoryError as error:
        raise PictureError(f"picture {name} needs more memory than there is; save a smaller copy") from error
    except Exception as error:
        raise PictureError(f"picture {name} cannot be read, it seems damaged or cut short ({error}); "
                           "copy or download it again") from error


def orientation(image: Image.Image) -> int:
    """How a picture lies, as EXIF numbers it, from EXIF or else XMP; 1, upright, where neither says so."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in _TURNS else 1
    except Exception:
        return 1  # damaged EXIF: the pixels are still good


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    turn = None if image.format == "TIFF" else _TURNS.get(orientation(image))  # load() has turned TIFFs already
    grey = image.mode[0] in "IF"  # 16- and 32-bit; Pillow's own conversion clips them at 255
    try:
        if grey or image.has_transparency_data:
            convert = _grey_to_rgb(image) if grey else _over_white
            rgb = Image.new("RGB", image.size)
            for box in _strips(image):
                rgb.paste(convert(image.crop(box)), box[:2])
        else:
            rgb = image.convert("RGB")
    except ValueError as error:  # LAB, for one
        raise PictureError(f"a picture in {image.mode} colours cannot be converted; save it as RGB") from error
    rgb.info = {}  # a copy in any case; now nothing (EXIF) is left that could rotate it once more
    return rgb if turn is None else rgb.transpose(turn)


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of some rows each, from top to bottom."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _over_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _grey_to_rgb(whole: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What turns strips of a 16- or 32-bit picture into RGB: 16 bits from 0 to 65535, else 1, 255 or 65535 is white."""
    def values(strip: Image.Image) -> np.ndarray:
        return np.nan_to_num(np.asarray(strip).astype(np.float64), posinf=0.0, neginf=0.0)

    low, high = 0.0, 65535.0
    if not (whole.mode.startswith("I;16") or whole.format in ("PNG", "PPM")):
        ends = [(found.min(), found.max()) for found in (values(whole.crop(box)) for box in _strips(whole))]
        darkest, lightest = min(end[0] for end in ends), max(end[1] for end in ends)
        if darkest < 0 or lightest > 65535:  # no known convention: from darkest to lightest
            low, high = darkest, max(lightest, darkest + 1e-12)
        else:
            limits = (1.0, 255.0, 65535.0) if whole.mode == "F" else (255.0, 65535.0)
            high = next(limit for limit in limits if lightest <= limit)
    return lambda strip: Image.fromarray(np.rint((values(strip) - low) * (255.0 / (high - low))).astype(np.uint8)
                                         ).convert("RGB")


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

    image_size: Annotated[int, Meta(ge=1, le=LARGEST_SIDE)] = 224
    mean: tuple[_Mean, _Mean, _Mean] = IMAGENET_MEAN
    std: tuple[_Std, _Std, _Std] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: Annotated[float, Meta(ge=0.01, le=1)] = 1.0
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


def draw_crops(B: int, generator: torch.Generator | None = None) -> Tensor:
    """For B pictures a square each, at random, of 0.8 to 1 of their sides: affine maps [B, 2, 3] into [-1, 1].

    Nothing is mirrored, because captions say "left" and "right".
    """
    scale = 1 - 0.2 * torch.rand(B, generator=generator)
    # A box of half-width `scale` inside [-1, 1] can have its centre anywhere in +-(1 - scale).
    centre = (1 - scale)[:, None] * (2 * torch.rand(B, 2, generator=generator) - 1)
    theta = torch.zeros(B, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale, scale, centre
    return theta


def crop(images: Tensor, theta: Tensor) -> Tensor:
    """Cut what ``draw_crops`` drew out of each picture of a uint8 batch [B, 3, S, S], and scale it back to S."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return moved.round().to(torch.uint8)
