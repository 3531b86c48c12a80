"""Do stored features still belong to their pictures, and are their bytes those that were written?

Beside the features of each picture lie a checksum of them and, where pictures are files, the file's size and time and a
digest of its bytes. A file that looks as before is taken for the same; of one that does not, the bytes are compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..datasets.base import CaptionDataset, ImageId, StoredId
from ..errors import InputError, MissingFileError
from ..files import Kind, say
from ..ranges import Count, Share
from ..reading import read_bytes, read_json
from ..tokens import SIGNALS

META, FORMAT = "features.json", 1
FEATURES = Kind("feature cache", names=r"features\.json|\w+\.bin", ours=lambda folder: {
    "fingerprint", "image_ids"} <= json.loads(read_bytes(folder / META)).keys())
Pruned = tuple[str, Share]  # scorer and ratio by which tokens are pruned before they are stored
# arrays that say where tokens belong, whole numbers, stored where the encoder drops or merges tokens
PLACES = ("index", "group")
CHECKSUM, STAMP, DIGEST = "checksum", "stamp", "digest"
_TYPES = {**dict.fromkeys(("x", "prefix", *SIGNALS), "<f2"), **dict.fromkeys(PLACES, "<i4"),
          CHECKSUM: "<u4", STAMP: "<i8", DIGEST: "u1"}


@dataclass(frozen=True)
class Description:
    """What ``features.json`` holds."""

    format: int
    encoder: str
    fingerprint: str
    bf16: bool
    dataset: str
    split: str
    grid: tuple[Count, Count]
    shapes: dict[str, list[Count]]  # of each array, without the pictures' dimension
    checks: list[tuple[StoredId, list[int]]]  # a few pictures in small: ids alone do not tell Scenes of two seeds apart
    image_ids: list[StoredId]
    pruned: Pruned | None = None

    def __post_init__(self):
        if unknown := set(self.shapes) - set(_TYPES):
            raise ValueError(f"arrays of unknown names ({', '.join(sorted(unknown))})")
        H, W = self.grid
        if len(self.shapes.get("x", ())) != 2 or "index" not in self.shapes and self.shapes["x"][0] != H * W:
            raise ValueError(f"x must be (tokens, channels), of {H * W} tokens for a grid of {H} x {W}")
        if len(set(self.image_ids)) < len(self.image_ids) or any(len(small) != 48 for _, small in self.checks):
            raise ValueError("an id stands twice, or a small picture is not 48 numbers")

    @property
    def row_bytes(self) -> dict[str, int]:
        """Bytes of one picture in each file."""
        return {name: math.prod(shape) * dtype_of(name).itemsize for name, shape in self.shapes.items()}


def dtype_of(name: str) -> np.dtype:
    return np.dtype(_TYPES[name])


def read_meta(folder: Path) -> Description:
    """``features.json``. Raises MissingFileError; InputError where it cannot be used."""
    if not os.path.isdir(folder):
        raise MissingFileError(f"feature cache {folder} not found; build it with FeatureCache.open_or_build")
    return read_json(folder / META, Description, "feature cache", "delete the folder, it is built again", format=FORMAT)


def fingerprint(encoder: torch.nn.Module) -> str:
    """What features depend on, in 16 hex digits: name, preprocessing, pruning on the way, and every weight."""
    inside = [] if encoder.schedule is None else [str(encoder.schedule)]
    digest = hashlib.sha256(json.dumps([encoder.name, asdict(encoder.preprocessing), *inside]).encode())
    for key, value in sorted(encoder.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def file_marks(dataset: CaptionDataset, positions: list[int]) -> dict[str, np.ndarray]:
    """Size and time of these pictures' files, and digests of their bytes: [B, 2] and [B, 16]; nothing without files."""
    if not dataset.in_files:
        return {}
    stamps = [dataset.stamp(i) for i in positions]  # first: what is replaced meanwhile must look changed
    return {STAMP: np.array(stamps, dtype_of(STAMP)),
            DIGEST: np.stack([np.frombuffer(_digest(dataset, i), dtype_of(DIGEST)) for i in positions])}


def checksums(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Of all that is stored of each picture, [B]; a checksum that is there already is left out."""
    found = np.zeros(len(next(iter(arrays.values()))), dtype_of(CHECKSUM))
    for name in sorted(set(arrays) - {CHECKSUM, STAMP}):  # a stamp may be brought up to date
        rows = np.ascontiguousarray(arrays[name], dtype_of(name))
        for k, row in enumerate(rows):
            found[k] = zlib.crc32(row.tobytes(), int(found[k]))
    return found


def to_store(arrays: dict[str, np.ndarray], marks: dict[str, np.ndarray], encoder: torch.nn.Module,
             ids: list[ImageId]) -> dict[str, np.ndarray]:
    """What is written of some pictures: what the encoder gives, in 16 bits, marks of their files, a checksum.

    Raises InputError that names the first picture whose features 16 bits cannot hold.
    """
    limit = float(np.finfo(np.float16).max)
    for name, array in arrays.items():
        wrong = ~(np.abs(array.reshape(len(array), -1)).max(1) <= limit)  # a NaN is wrong too
        if name not in PLACES and wrong.any():
            raise InputError(f"encoder {encoder.name}: its features ({name}) of image {ids[wrong.argmax()]} exceed "
                             f"{limit:.0f} or are no numbers, so 16 bits cannot hold them; check its weights and "
                             "preprocessing")
    stored = {name: np.asarray(array, dtype_of(name)) for name, array in (arrays | marks).items()}
    return stored | {CHECKSUM: checksums(stored)}


def small_pictures(dataset: CaptionDataset, encoder: torch.nn.Module) -> list[tuple[ImageId, list[int]]]:
    """For ``Description.checks``: the first picture, the middle one and the last."""
    some = sorted({0, len(dataset) // 2, len(dataset) - 1})
    return [(dataset.image_ids[i], _thumbnail(dataset, encoder, i)) for i in some]


def changed_picture(folder: Path, meta: Description, dataset: CaptionDataset,
                    encoder: torch.nn.Module) -> ImageId | None:
    """The first picture that is not the one that the features in ``folder`` were made from.

    Of ``meta.checks`` each must look as it did. Decoders of two machines differ by a step or so: that much is allowed.
    Of those in files, all must have the same bytes. Where only sizes and times differ, they are brought up to date, so
    that the bytes are compared once.
    """
    at = {id: i for i, id in enumerate(dataset.image_ids)}
    for id, small in meta.checks:
        if id in at and max(abs(a - b) for a, b in zip(_thumbnail(dataset, encoder, at[id]), small, strict=True)) > 4:
            return id
    if not dataset.in_files:
        return None
    if STAMP not in meta.shapes or DIGEST not in meta.shapes:
        say(f"feature cache {folder}: made by an earlier version, which did not note its pictures' files, so that one "
            "replaced since may go unnoticed; delete the folder to have the features computed anew")
        return None
    stamps, digests = (np.fromfile(folder / f"{name}.bin", dtype_of(name)) for name in (STAMP, DIGEST))
    done = min(len(stamps) // 2, len(digests) // 16)  # a build that was stopped may have less than it means to
    stamps, digests = stamps[: 2 * done].reshape(done, 2), digests[: 16 * done].reshape(done, 16)
    now = {row: dataset.stamp(at[id]) for row, id in enumerate(meta.image_ids[:done]) if id in at}
    touched = [row for row, stamp in now.items() if tuple(stamps[row]) != stamp]
    if len(touched) > 1000:
        say(f"feature cache {folder}: {len(touched):,} pictures' files have another time; comparing their bytes")
    for row in touched:
        id = meta.image_ids[row]
        if digests[row].tobytes() != _digest(dataset, at[id]):
            return id
        stamps[row] = now[row]
    if touched:
        new = folder / f".{STAMP}.bin.{os.getpid()}"
        with suppress(OSError):  # where one may not write, the same is found out again next time
            new.write_bytes(stamps.tobytes())
            new.replace(folder / f"{STAMP}.bin")
    return None


def _thumbnail(dataset: CaptionDataset, encoder: torch.nn.Module, i: int) -> list[int]:
    """Picture i in 4x4 pixels of three colours."""
    pixels = encoder.preprocessing.to_uint8(dataset.image(i)).float()
    return torch.nn.functional.adaptive_avg_pool2d(pixels, 4).round().int().flatten().tolist()


def _digest(dataset: CaptionDataset, i: int) -> bytes:
    return hashlib.blake2b(dataset.encoded(i), digest_size=16).digest()
