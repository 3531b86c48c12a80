"""How do pictures get from their files to the encoder's size: fast, past one that cannot be read, by several processes?

``fast_pixels`` takes torchvision's decoder (the one that Pillow uses) and its 8-bit resize, which uses the processor's
wide instructions and rounds in between: single values differ from ``Preprocessing.to_uint8`` by a step or so
(``benchmarks/loader.py`` measures it). That is for training, where pictures are looked at many times.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError, PictureError, PrunecapError
from ..preprocessing import Preprocessing, open_picture, orientation
from .base import CaptionDataset

GRACE = 120.0  # seconds for a parent that was told to end to finish its step and save
_LONGEST = 4  # times the shorter side: all of the picture is scaled, also what the crop throws away


def exact_pixels(dataset: CaptionDataset, i: int, preprocessing: Preprocessing) -> Tensor:
    """Picture i as timm's evaluation transform shows it, uint8 [3, S, S]. Raises what ``dataset.image`` raises."""
    return preprocessing.to_uint8(dataset.image(i))


def fast_pixels(dataset: CaptionDataset, i: int, preprocessing: Preprocessing) -> Tensor:
    """The same to a rounding step, about twice as fast, for JPEG files; what is odd about a file goes the exact way."""
    if dataset.in_files and preprocessing.interpolation in ("bilinear", "bicubic"):
        pixels = _decode(dataset.encoded(i))
        if pixels is not None and max(pixels.shape[1:]) <= _LONGEST * min(pixels.shape[1:]):
            return _resize_and_crop(pixels, preprocessing)
    return exact_pixels(dataset, i, preprocessing)


class ImageLoader:
    """Pictures of a data set by position; in place of one that cannot be read, its neighbour in the batch.

    Each such picture is named in a warning and counted, in all of a data loader's workers together; above a share, it
    is no accident any more, and training stops. Several training processes count each for itself: in an epoch each sees
    its part of the pictures, and over epochs all of them.

    Args:
        look: (dataset, position, preprocessing) -> uint8 [3, S, S]: ``exact_pixels`` or ``fast_pixels``.
        most: share of the data set's pictures that may be unreadable.
    """

    def __init__(self, dataset: CaptionDataset, preprocessing: Preprocessing,
                 look: Callable[[CaptionDataset, int, Preprocessing], Tensor], *, most: float = 0.001):
        self.dataset, self.preprocessing, self.look, self.most = dataset, preprocessing, look, most
        self.unreadable = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()  # shared with workers

    def __call__(self, positions: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Pictures [B, 3, S, S], and whose each is: the place in ``positions`` of the one that is shown, [B].

        The places are 0, 1, …, B-1 unless a picture could not be read: then the next one that could, from the
        beginning again after the last, is shown twice. Raises InputError above the share, or where none is readable.
        """
        pictures = [self._read(i) for i in positions]
        good = [k for k, picture in enumerate(pictures) if picture is not None]
        if not good:
            raise InputError(f"data set {self.dataset.name}: none of {len(pictures)} pictures of a batch can be read, "
                             f"{self.dataset.image_ids[positions[0]]} for one; check the disk and the files")
        shown = [next((g for g in good if g >= k), good[0]) for k in range(len(pictures))]
        return torch.stack([pictures[k] for k in shown]), shown

    def _read(self, i: int) -> Tensor | None:
        try:
            return self.look(self.dataset, i, self.preprocessing)
        except PictureError as error:
            new = not self.unreadable[i]
            self.unreadable[i] = True
            count, allowed = int(self.unreadable.sum()), int(self.most * len(self.dataset))
            if count > allowed:
                raise InputError(f"{error}. It is unreadable picture {count} of {len(self.dataset)}, and max_unreadable"
                                 f" {self.most:g} allows {allowed}; get them again, or allow more") from error
            if new:
                warnings.warn(f"{error}. Training goes on without it (unreadable picture {count}, {allowed} allowed)",
                              stacklevel=2)
            return None


def map_in_workers(data: Any, keys: Sequence, workers: int) -> Iterator:
    """``data[key]`` for each key, in order, by so many processes beside this one. Raises what ``data[key]`` raises."""
    # a generator of its own: opening a loader must not disturb a run's random state
    loader = torch.utils.data.DataLoader(_ErrorsHandedOver(data), sampler=keys, batch_size=None, num_workers=workers,
                                         worker_init_fn=_exit_with_parent, generator=torch.Generator())
    for one in loader:
        if isinstance(one, PrunecapError):
            raise one
        yield one


class _ErrorsHandedOver(torch.utils.data.Dataset):
    """Data by key, or the error: PyTorch would put a worker's traceback into a message that is meant for people."""

    def __init__(self, data: Any):
        self.data = data

    def __getitem__(self, key):
        try:
            return self.data[key]
        except PrunecapError as error:
            return error


def _exit_with_parent(_worker: int) -> None:
    """End this worker when its parent has ended, and for no signal: not before, not after.

    PyTorch's own watch does not see to that: a worker that still has data to hand over waits for a reader for ever,
    with its memory and whatever lock it has inherited. And Slurm, torchrun and terminals send their signals to workers
    and parent alike: the parent would lose its workers while it finishes its step and saves. A parent that leaves with
    an unfinished loader sends SIGTERM, too, and waits: so whom that has found goes after ``GRACE``.
    """
    def leave_later(*_) -> None:
        timer = threading.Timer(GRACE, os._exit, [0])  # any other status would raise in a parent that waits
        timer.daemon = True
        timer.start()

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave_later)
    threading.Thread(target=watch, daemon=True).start()


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
    S, (H, W) = preprocessing.image_size, pixels.shape[1:]
    scaled = math.floor(S / preprocessing.crop_pct)
    size = (scaled, scaled) if preprocessing.crop_mode == "squash" else tuple(scaled * side // min(H, W)
                                                                              for side in (H, W))
    if size != (H, W):
        pixels = F.interpolate(pixels[None], size=size, mode=preprocessing.interpolation, antialias=True)[0]
    top, left = (round((side - S) / 2.0) for side in size)
    return pixels[:, top : top + S, left : left + S].contiguous()
