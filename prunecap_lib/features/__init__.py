"""How does training skip a frozen encoder? Its tokens are computed once and kept on disk as 16-bit floats.

A cache is a folder: one raw file an array (``x.bin`` [n, N, C] and so on), read through memory maps, and
``features.json`` with shapes, the encoder's fingerprint and the picture ids (see ``checks``). While it is built, the
folder is called ``NAME.partial``; an interrupted build goes on where it stopped.

Shapes: n pictures, B of them in a batch, N visual tokens, P prefix tokens, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.base import CaptionDataset, ImageId
from ..errors import InputError
from ..files import check_output_folder, delete_folder, locked, say
from ..tokens import VisualTokens
from .build import build_features, default_folder, forecast_features, partial_folder
from .checks import (
    CHECKSUM,
    DIGEST,
    FEATURES,
    PLACES,
    STAMP,
    Pruned,
    changed_picture,
    checksums,
    dtype_of,
    fingerprint,
    read_meta,
)

__all__ = ["FeatureCache", "default_folder", "forecast_features"]


class FeatureCache:
    """Visual tokens of a data set's pictures, by position in that data set.

    ``FeatureCache.open_or_build(dataset, encoder)`` makes one; ``cache.tokens([3, 17])`` reads from it.
    """

    def __init__(self, folder: str | Path, image_ids: Sequence[ImageId] | None = None):
        """Open a finished cache; ``image_ids`` chooses and orders its pictures (all of them without).

        Raises: MissingFileError where there is none, InputError where it is damaged or lacks pictures.
        """
        self.folder = Path(folder)
        self.meta = read_meta(self.folder)
        rows = {id: row for row, id in enumerate(self.meta.image_ids)}
        self.image_ids = list(self.meta.image_ids if image_ids is None else image_ids)
        if lacking := [id for id in self.image_ids if id not in rows]:
            raise InputError(f"feature cache {folder}: no features of image {lacking[0]} "
                             f"({len(lacking)} pictures lack); build it for this data set")
        self._rows = np.array([rows[id] for id in self.image_ids], dtype=np.int64)
        self._whole = np.zeros(len(rows), bool)  # rows whose checksum was compared
        for name, size in self.meta.row_bytes.items():
            file = self.folder / f"{name}.bin"
            if not file.is_file() or file.stat().st_size != size * len(rows):
                raise InputError(f"feature cache {folder}: {file.name} is missing, cut short or too long; "
                                 "delete the folder, it is built again")

    @classmethod
    def open_or_build(cls, dataset: CaptionDataset, encoder: torch.nn.Module, folder: str | Path | None = None, *,
                      pruned: Pruned | None = None, batch_size: int = 32, workers: int = 0, bf16: bool | None = None,
                      progress: bool = True) -> FeatureCache:
        """The features of ``dataset`` as ``encoder`` sees it; computed where they are not there yet.

        Args:
            folder: without it ``default_folder``.
            pruned: scorer and ratio, to store only the tokens that stay. A captioner then looks at these, and its
                own scorer and ratio must be the same.
            batch_size, workers: pictures at a time, and processes that decode them.
            bf16: compute in bfloat16; by default where the processor has instructions for it.
            progress: show a bar with the time left.

        A cache of more pictures than ``dataset`` has serves it too; one of its first pictures is continued. While
        another process builds it, this one waits.

        Raises InputError where the cache is of other weights, settings or pictures, where the disk is too small, where
        features do not fit 16 bits, and where the folder holds something else.
        """
        folder = Path(os.path.realpath(folder or default_folder(dataset, encoder, pruned)))
        encoder_print = fingerprint(encoder)
        if not _serves(folder, encoder_print, pruned, dataset, encoder):  # finished ones may lie where one only reads
            check_cache_folder(folder)
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                lock = folder.with_name(f".{folder.name}.lock")
                lock.touch()
            except OSError as error:
                raise InputError(f"feature cache {folder}: {error.strerror or error}; see to the permissions, or name "
                                 "another folder") from error
            with locked(lock, say):
                if not _serves(folder, encoder_print, pruned, dataset, encoder):
                    if FEATURES.owns(folder):
                        cls(folder)  # complete, or else it must not be built upon
                        delete_folder(check_output_folder(partial_folder(folder), FEATURES), FEATURES)
                        folder.rename(partial_folder(folder))
                    build_features(folder, dataset, encoder, pruned=pruned, batch_size=batch_size, workers=workers,
                                   bf16=bf16, progress=progress)
        return cls(folder, dataset.image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)

    def tokens(self, indices: Sequence[int] | Tensor, dtype: torch.dtype = torch.float32) -> VisualTokens:
        """Tokens of the pictures at these positions of the data set, in this order: x is [B, N, C]."""
        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        stored = {name: array[rows] for name, array in self._arrays.items()}
        self._check(rows, stored)
        values = {name: torch.from_numpy(array).to(torch.long if name in PLACES else dtype)
                  for name, array in stored.items() if name not in (CHECKSUM, STAMP, DIGEST)}
        if self.meta.pruned is not None:
            values["pruned"] = self.meta.pruned
        return (VisualTokens if "index" in values else VisualTokens.full)(grid=self.meta.grid, **values)

    def pooled(self, batch_size: int = 256) -> Tensor:
        """The mean over each picture's tokens, float32 [n, C]: one vector a picture, to find neighbours."""
        return torch.cat([self.tokens(part).x.mean(1) for part in torch.arange(len(self)).split(batch_size)])

    def _check(self, rows: np.ndarray, stored: dict[str, np.ndarray]) -> None:
        """Compare checksums of rows that this process reads for the first time. Raises InputError."""
        new = ~self._whole[rows]
        if CHECKSUM not in stored or not new.any():
            return
        some = {name: array[new] for name, array in stored.items()}
        wrong = checksums(some) != some[CHECKSUM]
        if wrong.any():
            raise InputError(f"feature cache {self.folder}: the features of image "
                             f"{self.meta.image_ids[rows[new][wrong.argmax()]]} are damaged; delete the folder, it is "
                             "built again")
        self._whole[rows] = True

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        n = len(self.meta.image_ids)
        return {name: np.memmap(self.folder / f"{name}.bin", dtype_of(name), "r", shape=(n, *shape))
                for name, shape in self.meta.shapes.items()}

    def __getstate__(self):
        # A pickled memory map carries all its data; a data loader's worker opens the files itself.
        return {name: value for name, value in self.__dict__.items() if name != "_arrays"}


def check_cache_folder(folder: str | Path) -> None:
    """Raises InputError where features can be neither found nor built: see ``check_output_folder``."""
    if not FEATURES.owns(Path(folder)):  # those that are there may lie where one only reads
        check_output_folder(partial_folder(check_output_folder(folder, FEATURES, swapped=True)), FEATURES)


def _serves(folder: Path, encoder_print: str, pruned: Pruned | None, dataset, encoder) -> bool:
    """Are all features there? False where none are, or those of the first pictures. Raises InputError for others."""
    if not os.path.isdir(folder) or not os.listdir(folder):
        return False
    meta = FeatureCache(folder).meta
    if meta.fingerprint != encoder_print:
        problem = f"made by an encoder with other weights or preprocessing than this {encoder.name}"
    elif meta.pruned != pruned:
        holds, asked = ("all tokens" if one is None else f"tokens pruned by {one[0]!r} at {one[1]}"
                        for one in (meta.pruned, pruned))
        problem = f"holds {holds}, and asked for are {asked}"
    elif (changed := changed_picture(folder, meta, dataset, encoder)) is not None:
        problem = f"made from other pictures, image {changed} has changed"
    elif set(dataset.image_ids) <= set(meta.image_ids):
        return True
    elif dataset.image_ids[: len(meta.image_ids)] == meta.image_ids:
        return False
    else:
        problem = f"made for other pictures than this {dataset.split} split has"
    raise InputError(f"feature cache {folder}: {problem}; delete the folder or name another")
