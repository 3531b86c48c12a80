"""How are pictures read out of shards? By position: the index knows at which byte of which tar each JPEG lies.

The tars are plain WebDataset, and ``webdataset.WebDataset`` reads them, too. Random access costs one read of the file,
no memory map and no scan; ``order`` gives an epoch that is shuffled and still asks for a few shards at a time.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import InputError, MissingFileError
from ...preprocessing import decode_image
from ...reading import open_file, parse_json, read_bytes
from ..base import CaptionDataset, ImageId
from . import BLOCK, INDEX, WINDOW, Index, Shard, parse_index, split_folder
from .cache import IN_USE, ShardCache, fetch_index


class LocalShards:
    """Shards that lie in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self, shard: Shard) -> io.FileIO:
        try:
            return open_file(self.folder / shard.name, "shard")
        except MissingFileError:
            raise MissingFileError(f"shard {self.folder / shard.name} not found, but {INDEX} beside it names it; "
                                   "copy it there, or run `prunecap data shards` again: it writes what lacks") from None

    def ahead(self, shards: list[Shard]) -> None:
        """They are here."""


class ShardDataset(CaptionDataset):
    """A split in shards. ``read_shards`` opens one."""

    in_files = True

    def __init__(self, index: Index, files: LocalShards | ShardCache, *, limit: int | None = None):
        self.name, self.split = f"{index.dataset}-shards{index.settings.side}", index.split
        self.settings, self.shards, self._files = index.settings, index.shards, files
        self.image_ids = [id for shard in index.shards for id in shard.image_ids][:limit]
        self.captions = [row for shard in index.shards for row in shard.captions][:limit]
        # Arrays, not lists: workers that only read them go on sharing their memory with the parent.
        counts = [len(shard.image_ids) for shard in index.shards]
        self._shard = np.repeat(np.arange(len(counts)), counts)[:limit]
        self._offset = np.array([at for shard in index.shards for at in shard.offsets][:limit], np.int64)
        self._length = np.array([size for shard in index.shards for size in shard.lengths][:limit], np.int64)
        self._sequence = list(range(len(counts)))  # shards as they will be read
        self._handles: OrderedDict[int, io.FileIO] = OrderedDict()
        # whose checksum was compared, by any of a data loader's workers: once a run
        self._whole = torch.zeros(len(counts), dtype=torch.bool).share_memory_()

    def encoded(self, i: int) -> bytes:
        """Picture i's JPEG.

        Raises: MissingFileError where the shard is not there; InputError where it is not the one of the index.
        """
        k, offset, length = int(self._shard[i]), int(self._offset[i]), int(self._length[i])
        shard, file, whole = self.shards[k], self._file(k), length + -length % BLOCK
        read = os.pread(file, 2 * BLOCK + whole + _ABOUT, offset - BLOCK)
        header, data, rest = read[:BLOCK], read[BLOCK : BLOCK + length], read[BLOCK + whole :]
        # The tar speaks for itself: its header says what stands there, and behind the picture whose it is.
        name, size = header[:100].rstrip(b"\0"), rest[124:135]
        if len(data) != length or header[124:135] != b"%011o" % length or not name.endswith(b".jpg") \
                or rest[:100].rstrip(b"\0") != name[:-3] + b"json" or not size.isdigit():
            raise InputError(f"shard {shard.name}: no picture of {length} bytes at {offset}, where the index has image "
                             f"{self.image_ids[i]}; {_REMEDY}")
        about = rest[BLOCK : BLOCK + int(size, 8)]
        if len(about) < int(size, 8):  # long captions
            about = os.pread(file, int(size, 8), offset + whole + BLOCK)
        said = parse_json(about, _About, f"shard {shard.name}, {name.decode()}", _REMEDY)
        if (said.image_id, said.captions) != (self.image_ids[i], self.captions[i]):
            raise InputError(f"shard {shard.name}: at {offset} lies image {said.image_id} with its captions, where the "
                             f"index has image {self.image_ids[i]} with others; {_REMEDY}")
        return data

    def stamp(self, i: int) -> tuple[int, int]:
        """Changes when picture i's shard is another."""
        return int(self._length[i]), int(self.shards[self._shard[i]].sha256[:15], 16)

    def image(self, i: int) -> Image.Image:
        return decode_image(self.encoded(i), f"{self.image_ids[i]} in shard {self.shards[self._shard[i]].name}")

    def order(self, generator: torch.Generator) -> Tensor:
        """All positions once, shuffled, [n]: the shards, and then the pictures of ``WINDOW`` of them at a time.

        Shards at an address are from now on fetched ahead in this order.
        """
        first = np.searchsorted(self._shard, np.arange(len(self.shards) + 1))
        self._sequence = torch.randperm(len(self.shards), generator=generator).tolist()
        shards = [torch.arange(first[k], first[k + 1]) for k in self._sequence]
        windows = [torch.cat(shards[k : k + WINDOW]) for k in range(0, len(shards), WINDOW)]
        return torch.cat([window[torch.randperm(len(window), generator=generator)] for window in windows])

    def _file(self, k: int) -> int:
        """File descriptor of shard k, opened when it is first needed in this process; few stay open."""
        if k in self._handles:
            self._handles.move_to_end(k)
            return self._handles[k].fileno()
        shard = self.shards[k]
        file = self._files.open(shard)
        size, problem = os.fstat(file.fileno()).st_size, ""
        if size != shard.bytes:
            problem = f" has {size:,} bytes, the index says {shard.bytes:,}: it is cut short or of another build"
        elif not self._whole[k] and _sha256(file) != shard.sha256:
            problem = ": its checksum is not the one of the index: it is damaged or of another build"
        if problem:
            file.close()
            raise InputError(f"shard {file.name}{problem}; {_REMEDY}")
        self._whole[k] = True
        self._handles[k] = file
        while len(self._handles) > IN_USE:
            self._handles.popitem(last=False)[1].close()
        next_window = (self._sequence.index(k) // WINDOW + 1) * WINDOW
        self._files.ahead([self.shards[j] for j in self._sequence[next_window : next_window + WINDOW]
                           if j <= self._shard[-1]])  # a limit may leave the last ones out
        return file.fileno()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_handles": OrderedDict()}  # open files stay in their process


class _About(msgspec.Struct):
    """What stands behind a picture in its tar."""

    image_id: ImageId
    captions: list[str]


_ABOUT = 2048  # bytes that are nearly always enough for it
_REMEDY = "run `prunecap data shards` again with the settings of before (it rewrites what is damaged), or copy it again"


def _sha256(file: io.FileIO) -> str:
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def is_url(root: str | Path) -> bool:
    return str(root).startswith(("http://", "https://"))


def read_shards(root: str | Path, split: str, *, limit: int | None = None) -> ShardDataset:
    """A split written by ``prunecap data shards``, from a folder or an address (http, https).

    Raises: MissingFileError where there is no such split; InputError where the index cannot be used.
    """
    folder = split_folder(split)
    if is_url(root):
        address = f"{str(root).rstrip('/')}/{folder}"
        place, data = f"{address}/{INDEX}", fetch_index(address)
    else:
        place = Path(root) / folder / INDEX
        if not place.is_file():
            splits = sorted(found.parent.name for found in Path(root).glob(f"*/{INDEX}"))
            raise MissingFileError(
                f"data set shards: {place} not found; "
                + ("writing it was stopped: run `prunecap data shards` again, it goes on there"
                   if (place.parent / ".unfinished").is_dir() else
                   f"the splits there are {', '.join(splits)}" if splits else "write it with `prunecap data shards`"))
        data = read_bytes(place, "shard index")
    index = parse_index(data, place)
    if split_folder(index.split) != folder:  # who asks for val must not be given train
        raise InputError(f"shard index {place}: split is {index.split!r}, and the folder's name is {folder!r}; "
                         "name each folder after its split, or copy it again")
    files = ShardCache(address, index.shards) if is_url(root) else LocalShards(place.parent)
    return ShardDataset(index, files, limit=limit)
