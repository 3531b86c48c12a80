"""How are a frozen encoder's tokens written to disk, all or none; and how large will that be, how long will it take?

The folder's format is described in ``features``, which reads it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.base import CaptionDataset
from ..datasets.loading import map_in_workers
from ..devices import native_bf16
from ..errors import InputError, PrunecapError
from ..files import check_space, data_folder, delete_folder, write_text
from ..preprocessing import Preprocessing
from ..pruning import prune_to_store
from ..tokens import SIGNALS
from .checks import (
    FEATURES,
    FORMAT,
    META,
    Description,
    Pruned,
    changed_picture,
    file_marks,
    fingerprint,
    read_meta,
    small_pictures,
    to_store,
)


def default_folder(dataset: CaptionDataset, encoder: torch.nn.Module, pruned: Pruned | None = None) -> Path:
    """data/features/<dataset>-<split>-<encoder>-<size>, then "-whole" where nothing is cut off, and what is pruned."""
    preprocessing = encoder.preprocessing
    parts = [dataset.name, dataset.split, encoder.name, preprocessing.image_size,
             *(["whole"] if preprocessing == preprocessing.whole() else []),
             *([encoder.schedule] if encoder.schedule is not None else []), *(pruned or ())]
    name = "-".join(map(str, parts))
    return data_folder() / "features" / "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def partial_folder(folder: Path) -> Path:
    """What a cache is called while it is built."""
    return folder.with_name(folder.name + ".partial")


def build_features(folder: Path, dataset: CaptionDataset, encoder: torch.nn.Module, *, pruned: Pruned | None,
                   batch_size: int, workers: int, bf16: bool | None, progress: bool) -> None:
    """Compute the tokens of all pictures into ``folder``; see ``FeatureCache.open_or_build``. One process at a time."""
    from tqdm import tqdm

    device = next(encoder.parameters()).device
    bf16 = native_bf16(device) if bf16 is None else bf16
    source = _Source(dataset, encoder.preprocessing)
    images, marks = source[[0]]
    arrays, grid = encode(encoder, images.to(device), bf16, pruned)
    shapes = {name: list(array.shape[1:])
              for name, array in to_store(arrays, marks, encoder, dataset.image_ids).items()}
    meta = Description(FORMAT, encoder.name, fingerprint(encoder), bf16, dataset.name, dataset.split, tuple(grid),
                       shapes, small_pictures(dataset, encoder), list(dataset.image_ids), pruned)
    partial, sizes = partial_folder(folder), meta.row_bytes
    _start(partial, meta, dataset, encoder)
    try:
        with ExitStack() as stack:
            files = {name: stack.enter_context((partial / f"{name}.bin").open("ab")) for name in sizes}
            # The arrays are written one after another, so a stop may leave them uneven: cut to whole rows.
            done = min(files[name].tell() // size for name, size in sizes.items())
            for name, file in files.items():
                file.truncate(done * sizes[name])
            left = len(dataset) - done
            check_space(folder.parent, sum(sizes.values()) * left, f"feature cache {folder}: the features of {left} "
                        "pictures", "make room, name a folder on another disk, or take fewer pictures")
            batches = [range(at, min(at + batch_size, len(dataset))) for at in range(done, len(dataset), batch_size)]
            bar = stack.enter_context(tqdm(total=len(dataset), initial=done, desc=f"features {folder.name}",
                                           unit="picture", disable=not progress))
            for batch, (images, marks) in zip(batches, map_in_workers(source, batches, workers), strict=True):
                arrays, _ = encode(encoder, images.to(device), bf16, pruned)
                ids = [dataset.image_ids[i] for i in batch]
                for name, array in to_store(arrays, marks, encoder, ids).items():
                    # Plain writes: on a full disk they raise, where writing through a memory map crashes.
                    files[name].write(array.tobytes())
                bar.update(len(batch))
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave zeros under a good name
        if folder.exists():
            folder.rmdir()  # it was empty
        partial.rename(folder)
    except PrunecapError:  # a picture that cannot be read names itself
        raise
    except OSError as error:
        raise InputError(f"feature cache {partial}: {error.strerror or error}; make room and run the same "
                         "command again, it goes on where it stopped") from error


@torch.inference_mode()
def encode(encoder, images: Tensor, bf16: bool,
           pruned: Pruned | None = None) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """All that the encoder gives for images [B, 3, S, S]: float32 arrays by name; and its grid.

    Of pruned tokens only features and cells are stored: nobody will choose among them again.
    """
    training = encoder.training
    encoder.eval()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        tokens = encoder(images, need_attention=bool(encoder.block_signals(encoder.depth)))
    encoder.train(training)
    if pruned is not None:
        tokens = prune_to_store(tokens, pruned[1], pruned[0])
    values = {name: getattr(tokens, name) for name in ("x", "prefix", *(() if pruned else SIGNALS))}
    arrays = {name: value.float().cpu().numpy() for name, value in values.items() if value is not None}
    H, W = tokens.grid
    if tokens.x.shape[1] != H * W:  # pruned inside the encoder: the places of what is left belong to it
        arrays["index"] = tokens.index.cpu().numpy()
    if tokens.group is not None:
        arrays["group"] = tokens.group.cpu().numpy()
    return arrays, tokens.grid


@dataclass(frozen=True)
class Forecast:
    """What building the features of a data set will take."""

    folder: Path
    pictures: int
    shapes: dict[str, tuple[int, ...]]  # of one picture's arrays: x is (tokens, channels)
    picture_bytes: int
    free_bytes: int  # on the disk of ``folder``
    load_seconds: float  # to decode and scale one picture, in one process
    encode_seconds: float  # to encode one, in a batch
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
    images, marks = _Source(dataset, encoder.preprocessing)[range(n)]
    loaded = time.perf_counter()
    encode(encoder, images[:1].to(device), bf16, pruned)  # the first call is slower than all others
    warm = time.perf_counter()
    arrays, _ = encode(encoder, images.to(device), bf16, pruned)
    encoded = time.perf_counter()
    stored = to_store(arrays, marks, encoder, dataset.image_ids)
    disk = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return Forecast(folder, len(dataset), {name: array.shape[1:] for name, array in arrays.items()},
                    sum(array.nbytes for array in stored.values()) // n, shutil.disk_usage(disk).free,
                    load_seconds=(loaded - started) / n, encode_seconds=(encoded - warm) / n, workers=workers)


class _Source:
    """Pictures by lists of positions, as the encoder takes them, float32 [B, 3, S, S]; and what marks their files."""

    def __init__(self, dataset: CaptionDataset, preprocessing: Preprocessing):
        self.dataset, self.preprocessing = dataset, preprocessing

    def __getitem__(self, positions: Sequence[int]) -> tuple[Tensor, dict[str, np.ndarray]]:
        marks = file_marks(self.dataset, positions)
        return torch.stack([self.preprocessing(self.dataset.image(i)) for i in positions]), marks


def _start(partial: Path, meta: Description, dataset: CaptionDataset, encoder) -> None:
    """Make the folder, or take up the one that an earlier build of the same features left."""
    try:
        old = read_meta(partial)
        same = (old.fingerprint, old.pruned, old.shapes) == (meta.fingerprint, meta.pruned, meta.shapes) \
            and meta.image_ids[: len(old.image_ids)] == old.image_ids \
            and changed_picture(partial, old, dataset, encoder) is None
    except (OSError, InputError):
        same = False
    if not same:
        delete_folder(partial, FEATURES)
    write_text(partial / META, json.dumps(asdict(meta)))
