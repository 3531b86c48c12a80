"""How are shards read that lie on a web server? Each is fetched whole when needed, checked, and kept a while.

The cache folder holds shards by their checksum, so that a file there is right or is not there. It is
$PRUNECAP_CACHE (default ``~/.cache/prunecap``) and stays under $PRUNECAP_CACHE_GB (default 20): what was not used for
longest goes first (a file that is open keeps its place on the disk until it is closed). Several processes share it;
each shard is fetched by one of them.
"""

from __future__ import annotations

import io
import os
import time
import warnings
from pathlib import Path

from ..errors import InputError, MissingFileError
from ..files import locked
from .shard_index import INDEX, Shard

_TRIES = 4
_TIMEOUT = 60  # seconds without a byte


def is_url(root: str | Path) -> bool:
    return str(root).startswith(("http://", "https://"))


def cache_folder() -> Path:
    return Path(os.environ.get("PRUNECAP_CACHE") or Path.home() / ".cache" / "prunecap") / "shards"


def cache_bytes() -> int:
    """Raises InputError where $PRUNECAP_CACHE_GB is no number above 0."""
    written = os.environ.get("PRUNECAP_CACHE_GB", "20")
    try:
        gigabytes = float(written)
    except ValueError:
        gigabytes = 0.0
    if not gigabytes > 0:
        raise InputError(f"PRUNECAP_CACHE_GB is {written!r}; give the gigabytes that shards may take, like 20")
    return int(gigabytes * 1e9)


def fetch_index(address: str) -> bytes:
    """``index.json`` of a split at ``address``. Raises MissingFileError, InputError."""
    import requests

    url = f"{address}/{INDEX}"
    try:
        answer = requests.get(url, timeout=_TIMEOUT)
    except requests.RequestException as error:
        raise InputError(f"shard index {url}: no answer ({error}); check the address and the network") from error
    if answer.status_code != 200:
        raise MissingFileError(f"shard index {url}: the server answers {answer.status_code}; check the address and the "
                               "split, or write the shards with `prunecap data shards` and put the folder there")
    return answer.content


class ShardCache:
    """Shards at an address, kept in a bounded folder. Processes may share the folder, and objects be pickled."""

    def __init__(self, address: str, shards: list[Shard]):
        self.address, self.folder, self.most = address, cache_folder(), cache_bytes()
        largest = max((shard.bytes for shard in shards), default=0)
        if largest > self.most:
            raise InputError(f"PRUNECAP_CACHE_GB allows {self.most / 1e9:g} GB, but one shard has {largest / 1e9:g}; "
                             "allow more, better a few dozen shards")
        if self.most < min(16, len(shards)) * largest:
            warnings.warn(f"PRUNECAP_CACHE_GB allows {self.most / 1e9:g} GB: fewer than the 16 shards that training "
                          f"has in use ({16 * largest / 1e9:.1f} GB), so that some will be fetched several times an "
                          "epoch", stacklevel=3)

    def open(self, shard: Shard) -> io.FileIO:
        """The shard's file, fetched if it is not here. Raises MissingFileError, InputError."""
        path = self.folder / f"{shard.sha256}.tar"
        while True:
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                self._fetch(shard, path)  # and once more: another process may drop it before it is opened
                continue
            os.utime(path)  # used now
            return file

    def _fetch(self, shard: Shard, path: Path) -> None:
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
            files = sorted((path.stat().st_mtime, path.stat().st_size, path) for pattern in ("*.tar", "tmp*")
                           for path in self.folder.glob(pattern))  # tmp…: what a killed download has left
            total = sum(size for _, size, _ in files)
            for _, size, path in files:
                if total + needed <= self.most:
                    break
                path.unlink()  # whoever has it open reads on
                total -= size


def _download(url: str, sha256: str, path: Path) -> None:
    """Fetch a file beside its place, compare the checksum, and rename. Raises MissingFileError, InputError."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    try:
        # fetched under another name in the same folder, and renamed when the checksum agrees
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent,
                       downloader=pooch.HTTPDownloader(timeout=_TIMEOUT))
    except requests.HTTPError as error:
        if error.response.status_code in (404, 410):
            raise MissingFileError(f"shard {url}: the server answers {error.response.status_code}, but its {INDEX} "
                                   "names it; put the whole folder there") from error
        raise InputError(f"shard {url}: the server answers {error.response.status_code}; try again later") from error
    except requests.RequestException as error:
        raise InputError(f"shard {url}: fetching broke off ({error}); check the network, the same command goes on") \
            from error
    except ValueError as error:
        raise InputError(f"shard {url}: its checksum is not the one of {INDEX}; one of them is of another build. Put "
                         "the whole folder there again, as `prunecap data shards` wrote it") from error
    except OSError as error:
        raise InputError(f"shard cache {path.parent}: {error.strerror or error}; make room, set a smaller "
                         "PRUNECAP_CACHE_GB, or name another folder in PRUNECAP_CACHE") from error
