"""How are the tokens of a frozen encoder written to disk, all or none, and found again?

The folder's format is described in ``features``, which reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.base import CaptionDataset, ImageId
from ..datasets.loading import map_in_workers
from ..devices import native_bf16
from ..errors import InputError, MissingFileError, PrunecapError
from ..files import Kind, check_space, delete_folder, write_text
from ..pruning import prune_to_store
from ..reading import read_bytes, read_json
from ..tokens import SIGNALS
from .checks import (
    CHECKSUM,
    PLACES,
    Description,
    changed_file,
    changed_picture,
    checksums,
    dtype_of,
    file_marks,
    small_pictures,
)

_META = "features.json"
_FORMAT = 1
FEATURES = Kind("feature cache", names=r"features\.json|\w+\.bin", ours=lambda folder: {
    "fingerprint", "image_ids"} <= json.loads(read_bytes(folder / _META)).keys())
# scorer and ratio by which tokens are pruned before they are stored
Pruned = tuple[str, float]


def build(folder: Path, dataset: CaptionDataset, encoder: torch.nn.Module, encoder_print: str, *,
          pruned: Pruned | None, batch_size: int, workers: int, bf16: bool | None, progress: bool) -> None:
    """Compute the tokens of all pictures into ``folder``; see ``FeatureCache.open_or_build``. One process at a time."""
    from tqdm import tqdm

    device = next(encoder.parameters()).device
    bf16 = native_bf16(device) if bf16 is None else bf16
    pixels = Pixels(dataset, encoder.preprocessing)
    arrays, grid = encode(encoder, pixels[0][None].to(device), bf16, pruned)
    meta = Description(_FORMAT, encoder.name, encoder_print, bf16, dataset.name, dataset.split, tuple(grid),
                       stored_shapes(arrays, file_marks(dataset, [0])), small_pictures(dataset, encoder),
                       list(dataset.image_ids), pruned)
    partial, sizes = partial_folder(folder), meta.row_bytes
    _start(partial, meta, dataset, encoder)
    files = {name: (partial / f"{name}.bin").open("ab") for name in sizes}
    try:
        # The arrays are written one after another, so a stop may leave them uneven: cut to whole rows.
        done = min(files[name].tell() // size for name, size in sizes.items())
        for name, file in files.items():
            file.truncate(done * sizes[name])
        left = len(dataset) - done
        check_space(folder.parent, sum(sizes.values()) * left,
                    f"feature cache {folder}: the features of {left} pictures",
                    "make room, name a folder on another disk, or take fewer pictures")
        batches = [list(range(at, min(at + batch_size, len(dataset)))) for at in range(done, len(dataset), batch_size)]
        with tqdm(total=len(dataset), initial=done, desc=f"features {folder.name}", unit="picture",
                  disable=not progress) as bar:
            for images, marks in map_in_workers(Batched(pixels), batches, workers):
                arrays, _ = encode(encoder, images.to(device), bf16, pruned)
                _check_range(arrays, encoder, dataset.image_ids[done : done + len(images)])
                stored = {name: np.asarray(array, dtype_of(name)) for name, array in (arrays | marks).items()}
                for name, array in (stored | {CHECKSUM: checksums(stored)}).items():
                    # Plain writes: on a full disk they raise, where writing through a memory map crashes.
                    files[name].write(array.tobytes())
                done += len(images)
                bar.update(len(images))
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave zeros under a good name
        _close(files)
        if folder.exists():
            folder.rmdir()  # it was empty
        partial.rename(folder)
    except PrunecapError:  # a picture that cannot be read names itself
        raise
    except OSError as error:
        raise InputError(f"feature cache {partial}: {error.strerror or error}; make room and run the same "
                         "command again, it goes on where it stopped") from error
    finally:
        _close(files)


def _close(files: dict) -> None:
    for file in files.values():
        try:
            file.close()
        except OSError:
            pass  # the disk is full; that has been said already


def fingerprint(encoder: torch.nn.Module) -> str:
    """What features depend on, in 16 hex digits: name, preprocessing, pruning on the way, and every weight."""
    inside = [] if encoder.schedule is None else [str(encoder.schedule)]
    digest = hashlib.sha256(json.dumps([encoder.name, asdict(encoder.preprocessing), *inside]).encode())
    for key, value in sorted(encoder.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def read_meta(folder: Path) -> Description:
    """``features.json``. Raises MissingFileError; InputError where it cannot be used."""
    if not os.path.isdir(folder):
        raise MissingFileError(f"feature cache {folder} not found; build it with FeatureCache.open_or_build")
    return read_json(folder / _META, Description, "feature cache", "delete the folder, it is built again",
                     format=_FORMAT)


def partial_folder(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def stored_shapes(arrays: dict[str, np.ndarray], marks: dict[str, np.ndarray]) -> dict[str, list[int]]:
    """Shapes of all that is stored of a picture: what the encoder tells, marks of its file, and a checksum."""
    return {name: list(array.shape[1:]) for name, array in (arrays | marks).items()} | {CHECKSUM: []}


class Pixels(torch.utils.data.Dataset):
    """A data set's pictures as the encoder takes them: float32 [3, S, S]."""

    def __init__(self, dataset, preprocessing):
        self.dataset, self.preprocessing = dataset, preprocessing

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        return self.preprocessing(self.dataset.image(i))


class Batched:
    """The same, by lists of positions: [B, 3, S, S], and what marks their files."""

    def __init__(self, pixels: Pixels):
        self.pixels = pixels

    def __getitem__(self, positions: list[int]) -> tuple[Tensor, dict[str, np.ndarray]]:
        marks = file_marks(self.pixels.dataset, positions)
        return torch.stack([self.pixels[i] for i in positions]), marks


@torch.inference_mode()
def encode(encoder, images: Tensor, bf16: bool,
           pruned: Pruned | None = None) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """All that the encoder tells about images [B, 3, S, S]: float32 arrays by name; and its grid.

    Of pruned tokens only features and places are told: nobody will choose among them again.
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


def _start(partial: Path, meta: Description, dataset, encoder) -> None:
    """Make the folder, or take up the one that an earlier build of the same features left."""
    try:
        old = read_meta(partial)
        same = (old.fingerprint, old.pruned, old.shapes) == (meta.fingerprint, meta.pruned, meta.shapes) \
            and meta.image_ids[: len(old.image_ids)] == old.image_ids \
            and changed_picture(dataset, encoder, old.checks) is None \
            and changed_file(partial, old, dataset) is None
    except (OSError, InputError):
        same = False
    if not same:
        delete_folder(partial, FEATURES)
    write_text(partial / _META, json.dumps(asdict(meta)))


def _check_range(arrays: dict[str, np.ndarray], encoder, ids: list[ImageId]) -> None:
    limit = float(np.finfo(np.float16).max)
    for name, array in arrays.items():
        largest = np.abs(array.reshape(len(array), -1)).max(1)
        wrong = ~(largest <= limit)  # a NaN is wrong too
        if name not in PLACES and wrong.any():
            raise InputError(f"encoder {encoder.name}: its features ({name}) of image {ids[wrong.argmax()]} "
                             f"exceed {limit:.0f} or are no numbers, so 16 bits cannot hold them; "
                             "check its weights and preprocessing")
