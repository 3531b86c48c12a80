"""How large will a feature cache be, and how long will it take? Asked before hours and gigabytes are spent."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ..datasets.base import CaptionDataset
from ..devices import native_bf16
from .build import Pruned, encode, stored_shapes
from .cache import default_folder
from .checks import dtype_of, file_marks


@dataclass(frozen=True)
class Forecast:
    """What building the features of a data set will take."""

    folder: Path
    pictures: int
    shapes: dict[str, tuple[int, ...]]
    """Of each array of one picture: x is (tokens, channels)."""
    picture_bytes: int
    free_bytes: int
    """On the disk of ``folder``."""
    load_seconds: float
    """To decode and scale one picture, in one process."""
    encode_seconds: float
    """To encode one picture, in a batch."""
    workers: int

    @property
    def bytes(self) -> int:
        return self.pictures * self.picture_bytes

    @property
    def seconds(self) -> float:
        """With workers, loading and encoding run beside each other and the slower one counts."""
        if not self.workers:
            return self.pictures * (self.load_seconds + self.encode_seconds)
        return self.pictures * max(self.load_seconds / self.workers, self.encode_seconds)


def forecast_features(dataset: CaptionDataset, encoder: torch.nn.Module, folder: str | Path | None = None, *,
                      pruned: Pruned | None = None, batch_size: int = 32, workers: int = 0,
                      bf16: bool | None = None) -> Forecast:
    """Encode the first batch, time it, and reckon from it; nothing is written.

    Sizes are exact. Times hold for this machine as busy as it is now, and assume that all pictures are like the
    first. The arguments are those of ``FeatureCache.open_or_build``, which finds what is done already; here all counts.
    """
    folder = Path(folder) if folder is not None else default_folder(dataset, encoder, pruned)
    device = next(encoder.parameters()).device
    bf16 = native_bf16(device) if bf16 is None else bf16
    n, started = min(batch_size, len(dataset)), time.perf_counter()
    images = torch.stack([encoder.preprocessing(dataset.image(i)) for i in range(n)])
    loaded = time.perf_counter()
    arrays, _ = encode(encoder, images[:1].to(device), bf16, pruned)  # the first call is slower than all others
    warm = time.perf_counter()
    encode(encoder, images.to(device), bf16, pruned)
    encoded = time.perf_counter()
    sizes = [math.prod(shape) * dtype_of(name).itemsize
             for name, shape in stored_shapes(arrays, file_marks(dataset, [0])).items()]
    disk = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return Forecast(folder=folder, pictures=len(dataset),
                    shapes={name: array.shape[1:] for name, array in arrays.items()}, picture_bytes=sum(sizes),
                    free_bytes=shutil.disk_usage(disk).free,
                    load_seconds=(loaded - started) / n, encode_seconds=(encoded - warm) / n, workers=workers)
