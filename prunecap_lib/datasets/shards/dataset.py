"""How are pictures read out of shards? By position: the index knows at which byte of which tar each JPEG lies.

The tars are plain WebDataset, and ``webdataset.WebDataset`` reads them, too. Random access costs one read of the file,
no memory map and no scan; ``order`` gives an epoch that is shuffled and still asks for a few shards at a time.

Shards that lie on a web server are fetched whole, a little ahead, checked, and kept a while in a cache folder, by their
checksum, so that a file there is right or is not there. It is $PRUNECAP_CACHE (default ``~/.cache/prunecap``) and stays
under $PRUNECAP_CACHE_GB (default 20): what was not used for longest goes first (a file that is open keeps its place on
the disk until it is closed). Several processes share it; each shard is fetched by one of them.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import time
import warnings
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import InputError, MissingFileError, PrunecapError
from ...files import locked
from ...preprocessing import decode_image
from ...reading import open_file, parse_json, read_bytes
from ..base import CaptionDataset, ImageId
from . import BLOCK, INDEX, WINDOW, Index, Shard, parse_index, split_folder

IN_USE = 2 * WINDOW  # shards that are read at a time: two windows meet in a batch
# a shard; tmp…: a download, or what a killed one has left. The folder may hold files of the user's
_OURS = re.compile(r"[0-9a-f]{64}\.tar|tmp[a-z0-9_]{8}")
_TRIES = 4
_TIMEOUT = 60  # seconds without a byte
_ABOUT = 2048  # bytes that are nearly always enough for what stands behind a picture
_REMEDY = "run `prunecap data shards` again with the settings of before (it rewrites what is damaged), or copy it again"


def is_url(root: str | Path) -> bool:
    return str(root).startswith(("http://", "https://"))


def read_shards(root: str | Path, split: str, *, limit: int | None = None) -> ShardDataset:
    """A split written by ``prunecap data shards``, from a folder or an address (http, https).

    Raises: MissingFileError where there is no such split; InputError where the index cannot be used.
    """
    folder = split_folder(split)
    if is_url(root):
        address = f"{str(root).rstrip('/')}/{folder}"
        place, data = f"{address}/{INDEX}", _fetch_index(address)
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


def _sha256(file: io.FileIO) -> str:
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


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


class ShardCache:
    """Shards at an address, kept in a bounded folder. Processes may share the folder, and objects be pickled."""

    def __init__(self, address: str, shards: list[Shard]):
        self.address, written = address, os.environ.get("PRUNECAP_CACHE_GB", "20")
        self.folder = Path(os.environ.get("PRUNECAP_CACHE") or Path.home() / ".cache" / "prunecap") / "shards"
        try:
            self.most = int(float(written) * 1e9)
        except (ValueError, OverflowError):
            self.most = 0
        if self.most <= 0:
            raise InputError(f"PRUNECAP_CACHE_GB is {written!r}; give the gigabytes that shards may take, like 20")
        largest = max((shard.bytes for shard in shards), default=0)
        if largest > self.most:
            raise InputError(f"PRUNECAP_CACHE_GB allows {self.most / 1e9:g} GB, but one shard has {largest / 1e9:g}; "
                             "allow more, better a few dozen shards")
        if self.most < min(IN_USE, len(shards)) * largest:
            warnings.warn(f"PRUNECAP_CACHE_GB allows {self.most / 1e9:g} GB: fewer than the {IN_USE} shards that "
                          f"training has in use ({IN_USE * largest / 1e9:.1f} GB), so that some will be fetched "
                          "several times an epoch", stacklevel=3)
        self._has_room_ahead = self.most >= min(IN_USE + WINDOW, len(shards)) * largest
        self._fetching = None

    def open(self, shard: Shard) -> io.FileIO:
        """The shard's file, fetched if it is not here. Raises MissingFileError, InputError."""
        path = self.folder / f"{shard.sha256}.tar"
        try:
            while True:
                try:
                    file = path.open("rb", buffering=0)
                    break
                except FileNotFoundError:
                    self._fetch(shard, path)  # and once more: another process may drop it before it is opened
        except PrunecapError:
            raise
        except OSError as error:
            raise InputError(f"shard cache {self.folder}: {error.strerror or error}; make room, set a smaller "
                             "PRUNECAP_CACHE_GB, or name another folder in PRUNECAP_CACHE") from error
        with suppress(OSError):
            os.utime(file.fileno())  # used now; its name may be gone already
        return file

    def ahead(self, shards: list[Shard]) -> None:
        """Fetch these in the background, if there is room for them beside those in use, and the last ones are here.

        What goes wrong then is left to ``open``, which tries again. The thread ends with its process.
        """
        if self._has_room_ahead and shards and not (self._fetching and self._fetching.is_alive()):
            self._fetching = threading.Thread(target=self._fetch_all, args=(shards,), daemon=True)
            self._fetching.start()

    def _fetch_all(self, shards: list[Shard]) -> None:
        with suppress(PrunecapError):
            for shard in shards:
                self.open(shard).close()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_fetching": None}  # a thread stays in its process

    def _fetch(self, shard: Shard, path: Path) -> None:
        """Fetch a shard, unless another process has done so meanwhile. Raises OSError where the folder is no use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f".{shard.sha256}.lock", lambda _: None):
            if path.exists():
                return
            for left in reversed(range(_TRIES)):
                try:
                    self._make_room(shard.bytes)
                    _download(f"{self.address}/{shard.name}", shard.sha256, path)
                    return self._make_room(0)  # another process may have fetched something at the same time
                except InputError:
                    if not left:
                        raise
                    time.sleep(0.5 * (_TRIES - left))

    def _make_room(self, needed: int) -> None:
        """Drop what was not used for longest until ``needed`` more bytes fit."""
        with locked(self.folder / ".lock", lambda _: None):
            files = []
            for path in self.folder.iterdir():
                if _OURS.fullmatch(path.name):
                    with suppress(FileNotFoundError):  # another process's download has just got its name
                        files.append((path.stat().st_mtime, path.stat().st_size, path))
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total + needed <= self.most:
                    break
                path.unlink(missing_ok=True)  # whoever has it open reads on
                total -= size


def _fetch_index(address: str) -> bytes:
    """``index.json`` of a split at ``address``. Raises MissingFileError, InputError."""
    import requests

    url = f"{address}/{INDEX}"
    try:
        answer = requests.get(url, timeout=_TIMEOUT)
    except requests.RequestException as error:
        raise InputError(f"shard index {url}: no answer ({type(error).__name__}); check the address and the "
                         "network") from error
    if answer.status_code != 200:
        raise MissingFileError(f"shard index {url}: the server answers {answer.status_code}; check the address and the "
                               "split, or write the shards with `prunecap data shards` and put the folder there")
    return answer.content


def _download(url: str, sha256: str, path: Path) -> None:
    """Fetch a file beside its place, compare the checksum, and rename. Raises MissingFileError, InputError, OSError."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    try:
        # fetched under another name in the same folder, and renamed when the checksum agrees
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent,
                       downloader=pooch.HTTPDownloader(chunk_size=1 << 18, timeout=_TIMEOUT))
    except requests.HTTPError as error:
        if error.response.status_code in (404, 410):
            raise MissingFileError(f"shard {url}: the server answers {error.response.status_code}, but its {INDEX} "
                                   "names it; put the whole folder there") from error
        raise InputError(f"shard {url}: the server answers {error.response.status_code}; try again later") from error
    except requests.RequestException as error:
        raise InputError(f"shard {url}: fetching broke off ({type(error).__name__}); check the network, the same "
                         "command goes on") from error
    except ValueError as error:
        raise InputError(f"shard {url}: its checksum is not the one of {INDEX}; one of them is of another build. Put "
                         "the whole folder there again, as `prunecap data shards` wrote it") from error
