"""How are shards read that lie on a web server? Each is fetched whole, a little ahead, checked, and kept a while.

The cache folder holds shards by their checksum, so that a file there is right or is not there. It is
$PRUNECAP_CACHE (default ``~/.cache/prunecap``) and stays under $PRUNECAP_CACHE_GB (default 20): what was not used for
longest goes first (a file that is open keeps its place on the disk until it is closed). Several processes share it;
each shard is fetched by one of them.
"""

from __future__ import annotations

import io
import os
import re
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

from ...errors import InputError, MissingFileError, PrunecapError
from ...files import locked
from . import INDEX, WINDOW, Shard

IN_USE = 2 * WINDOW  # shards that are read at a time: two windows meet in a batch
# a shard; tmp…: a download, or what a killed one has left. The folder may hold files of the user's
_OURS = re.compile(r"[0-9a-f]{64}\.tar|tmp[a-z0-9_]{8}")
_TRIES = 4
_TIMEOUT = 60  # seconds without a byte


def fetch_index(address: str) -> bytes:
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
