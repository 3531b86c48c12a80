"""How does one large file reach the disk whole, over a line that breaks?

It grows as ``NAME.part``, and what is there is not fetched twice: HTTP's range requests (RFC 9110, section 14) ask for
the rest, at whatever address. Only a file whose size and checksum are right gets its name.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...errors import InputError, MissingFileError
from ...files import file_sha256, say

# Seconds to wait after an attempt that brought nothing; then the next place is asked. One that brought something
# starts the row anew.
WAITS = (1, 2, 5, 10, 20)
_BLOCK = 1 << 16
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Archive:
    """A zip that a data set comes in: where it is to be had, how one knows it for whole, what is wanted of it."""

    name: str
    urls: tuple[str, ...]  # asked in this order
    page: str  # where a person can fetch it
    size: int  # bytes of the zip
    sha256: str
    unpacked: int  # bytes of what is wanted of it, roughly; a zip that declares more than twice as much is refused
    folder: str | None = None  # of pictures in it, if it holds pictures
    pictures: int = 0
    files: tuple[str, ...] = ()  # others that are wanted of it
    one_by_one: str | None = None  # where single pictures can be had, if one is missing


def fetch_archive(archive: Archive, folder: Path, mirrors: tuple[str, ...], waits: tuple[float, ...]) -> Path:
    """The archive's zip in ``folder``: found whole, completed, or fetched; mirrors are asked before its own places.

    After a wrong checksum it is fetched once more, whole, from the next place or, without one, the same. Only one
    process at a time may do this in a folder.
    Raises: MissingFileError where no place has the file; InputError for a wrong checksum or a full disk.
    """
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    names = (urlsplit(archive.urls[0]).path.lstrip("/"), archive.name)  # with COCO's own folders, then flat
    copies = [f"{mirror.rstrip('/')}/{name}" for mirror in mirrors for name in names]
    left, said, silent, wrong = list(dict.fromkeys([*copies, *archive.urls])), [], set(), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():  # an earlier call was stopped before it was unpacked
            path.replace(part)
        while left:
            url = left.pop(0)
            if urlsplit(url).netloc in silent:
                continue
            try:
                _complete(part, archive, url, waits)
            except _NotHere as problem:
                said.append(f"{url} ({problem})")
                if problem.silent:
                    silent.add(urlsplit(url).netloc)
                continue
            if file_sha256(part) == archive.sha256:
                return part.replace(path)
            part.unlink()
            wrong.append(url)
            if len(wrong) == 2:
                raise InputError(
                    f"file {archive.name}: fetched twice, and both times its SHA-256 was not {archive.sha256}; nothing "
                    f"was kept. There is another file at {' and '.join(dict.fromkeys(wrong))}: name a mirror (--mirror "
                    f"URL), or fetch it by hand from {archive.page} and give its folder (--from DIR)")
            left.append(url)  # the bytes of two places, or a bad line, may have been at fault
            say(f"{archive.name}: wrong checksum; fetching it once more, whole")
    except OSError as error:
        raise disk_error(f"file {part}", error) from error
    kept = f" {_size(part):,} of its {archive.size:,} bytes are kept." if _size(part) else ""
    raise MissingFileError(
        f"file {archive.name}: not to be had from {', '.join(said)}.{kept} Name a mirror (--mirror URL, or "
        f"PRUNECAP_MIRRORS), or fetch it by hand from {archive.page} and give its folder (--from DIR); the same "
        "command goes on from there")


def check_archive(path: Path, archive: Archive) -> None:
    """Is a file that somebody else has put there the right one? Raises InputError."""
    if (size := _size(path)) != archive.size:
        raise InputError(f"file {path}: {size:,} bytes, but {archive.name} has {archive.size:,}; it was cut short or "
                         f"is another file. Fetch it again from {archive.page}")
    if (found := file_sha256(path)) != archive.sha256:
        raise InputError(f"file {path}: its SHA-256 is {found}, but that of {archive.name} is {archive.sha256}; it is "
                         f"damaged or another file. Fetch it again from {archive.page}")


def disk_error(what: str, error: OSError) -> InputError:
    """A full or broken disk, in words. Nothing half-written has a name that is taken for whole."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "make room there, or name a folder on another disk" if full else "see that you may write there"
    return InputError(f"{what}: {error.strerror or error}; {remedy}. What is whole is kept, and the same command goes "
                      "on from there")


class _Cut(Exception):
    """Worth another attempt, after ``wait`` seconds at least."""

    def __init__(self, problem: str, wait: float = 0):
        super().__init__(problem)
        self.wait = wait


class _NotHere(Exception):
    """This address will not do; ``silent``: its server did not answer at all."""

    def __init__(self, problem: str, silent: bool = False):
        super().__init__(problem)
        self.silent = silent


def _complete(part: Path, archive: Archive, url: str, waits: tuple[float, ...]) -> None:
    """Ask until all bytes are here, and wait longer each time nothing came. Raises _NotHere."""
    from tqdm import tqdm

    best, failures = _size(part), 0
    with tqdm(total=archive.size, desc=archive.name, unit="B", unit_scale=True) as bar:
        while _size(part) != archive.size:
            try:
                _attempt(part, archive, url, bar)
            except _Cut as cut:
                # Measured by the most there ever was: a server without ranges starts anew each time.
                reached = _size(part)
                failures = 1 if reached > best else failures + 1
                best = max(best, reached)
                if failures > len(waits):
                    raise _NotHere(str(cut), silent=True) from cut
                wait = max(waits[failures - 1], cut.wait)
                say(f"{archive.name}: {cut}; {reached:,} of {archive.size:,} bytes are here, going on in {wait:g} s")
                time.sleep(wait)


def _attempt(part: Path, archive: Archive, url: str, bar) -> None:
    """Ask once, and append what comes. Raises _Cut to be called again, _NotHere."""
    import requests

    have = _size(part) if _size(part) < archive.size else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(20, 60)) as response:
            bar.n = bar.initial = here = _start(response, have, archive, part)
            with part.open("ab" if here else "wb") as file:
                for block in _blocks(response.raw):
                    here += len(block)
                    if here > archive.size:
                        file.truncate(0)
                        raise _NotHere(f"sends more than the file's {archive.size:,} bytes")
                    file.write(block)
                    bar.update(len(block))
    except requests.exceptions.SSLError as error:
        raise _NotHere("its certificate is not valid") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _Cut(f"no connection ({type(error).__name__})") from error
    except requests.RequestException as error:
        raise _NotHere(str(error)) from error
    if here < archive.size:
        raise _Cut("the connection ended early")


def _start(response, have: int, archive: Archive, part: Path) -> int:
    """Where the bytes of an answer belong: 0, or behind the ``have`` bytes that are here. Raises _Cut, _NotHere."""
    status, length = response.status_code, response.headers.get("Content-Length", "")
    if status in _AGAIN:
        later = response.headers.get("Retry-After", "")
        raise _Cut(f"{status} {response.reason}", wait=min(int(later), 300) if later.isdigit() else 0)
    found = re.fullmatch(rf"bytes {have}-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if status == 206 and found:
        if found[1] not in ("*", str(archive.size)):
            raise _NotHere(f"its file has {int(found[1]):,} bytes, not {archive.size:,}")
        return have
    if status in (206, 416):  # another part than was asked for, or none: from the start, without a range
        part.unlink(missing_ok=True)
        raise _Cut(f"{status} {response.reason}: the server cannot go on, so from the start")
    if status != 200:
        raise _NotHere(f"{status} {response.reason}")
    if length.isdigit() and int(length) != archive.size:
        raise _NotHere(f"its file has {int(length):,} bytes, not {archive.size:,}")
    return 0


def _blocks(raw) -> Iterator[bytes]:
    """What has come, not full blocks: a line that is reset often loses next to nothing then. Raises _Cut."""
    import urllib3

    read = getattr(raw, "read1", raw.read)
    try:
        while block := read(_BLOCK, decode_content=False):
            yield block
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Cut(f"connection lost ({type(error).__name__})") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
