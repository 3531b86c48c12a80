"""How does one large file reach the disk whole, over a line that breaks?

It grows as ``NAME.part``, and what is there is not fetched twice. Only a file whose size and checksum are right gets
its name. pooch keeps that order; ``Resuming`` is the downloader it is given, which asks for the rest of a file by
HTTP's range requests (RFC 9110, section 14; ``If-Range``: section 13.1.5).
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from ...errors import InputError, MissingFileError, PrunecapError
from ...files import say
from ...reading import read_json

# Seconds to wait after an attempt that brought nothing; then the next place is asked. One that brought something
# starts the row anew.
WAITS = (1, 2, 5, 10, 20)
_BLOCK = 1 << 16
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Archive:
    """A zip that a data set comes in: where it is to be had, how one knows it for whole, what is wanted of it."""

    name: str
    urls: tuple[str, ...]
    """Asked in this order."""
    page: str
    """Where a person can fetch it."""
    size: int
    """Bytes of the zip."""
    sha256: str | None
    """None where no two sources agree on one; then size and contents have to do."""
    unpacked: int
    """Bytes of what is wanted of it, roughly; a zip that declares more than twice as much is refused."""
    folder: str | None = None
    """Folder of pictures in it, if it holds pictures."""
    pictures: int = 0
    """How many."""
    files: tuple[str, ...] = ()
    """Other files wanted of it."""
    one_by_one: str | None = None
    """Where single pictures can be had, if one is missing."""


def fetch(archive: Archive, folder: Path, *, mirrors: tuple[str, ...] = (), waits: tuple[float, ...] = WAITS,
          progress: bool = True) -> Path:
    """The archive's zip in ``folder``: found whole, completed, or fetched; mirrors are asked before its own places.

    After a wrong checksum it is fetched once more, whole, from the next place or, without one, the same. Only one
    process at a time may do this in a folder.
    Raises: MissingFileError where no place has the file; InputError for a wrong checksum or a full disk.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    part = folder / f"{archive.name}.part"
    said, silent, wrong = [], set(), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take_up(folder, part, archive.size)
        left = places(archive, mirrors)
        while left:
            url = left.pop(0)
            if urlsplit(url).netloc in silent:
                continue
            try:
                return Path(pooch.retrieve(
                    url, known_hash=archive.sha256 and f"sha256:{archive.sha256}", fname=archive.name,
                    path=folder, downloader=Resuming(archive, part, waits, progress)))
            except _NotHere as problem:
                said.append(f"{url} ({problem})")
                if problem.silent:
                    silent.add(urlsplit(url).netloc)
            except PrunecapError:
                raise
            except ValueError as error:  # pooch has thrown the file away
                wrong.append(url)
                if len(wrong) == 2:
                    raise InputError(
                        f"file {archive.name}: fetched twice, and both times its SHA-256 was not {archive.sha256}; "
                        f"nothing was kept. There is another file at {' and '.join(dict.fromkeys(wrong))}: name a "
                        f"mirror (--mirror URL), or fetch it by hand from {archive.page} and give its folder "
                        "(--from DIR)") from error
                left.append(url)  # the bytes of two places, or a bad line, may have been at fault
                say(f"{archive.name}: wrong checksum; fetching it once more, whole")
    except PrunecapError:
        raise
    except OSError as error:
        raise disk_error(f"file {part}", error) from error
    kept = f" {_size(part):,} of its {archive.size:,} bytes are kept." if _size(part) else ""
    raise MissingFileError(
        f"file {archive.name}: not to be had from {', '.join(said)}.{kept} Name a mirror (--mirror URL, or "
        f"PRUNECAP_MIRRORS), or fetch it by hand from {archive.page} and give its folder (--from DIR); the same "
        "command goes on from there")


def places(archive: Archive, mirrors: tuple[str, ...]) -> list[str]:
    """Addresses to ask in turn: each mirror with COCO's own folders, then flat; then the archive's own."""
    paths = (urlsplit(archive.urls[0]).path.lstrip("/"), archive.name)
    return list(dict.fromkeys([f"{mirror.rstrip('/')}/{path}" for mirror in mirrors for path in paths]
                              + list(archive.urls)))


def check(path: Path, archive: Archive) -> None:
    """Is a file that somebody else has put there the right one? Raises InputError."""
    import pooch

    if (size := _size(path)) != archive.size:
        raise InputError(f"file {path}: {size:,} bytes, but {archive.name} has {archive.size:,}; it was cut short or "
                         f"is another file. Fetch it again from {archive.page}")
    if archive.sha256 and (found := pooch.file_hash(str(path))) != archive.sha256:
        raise InputError(f"file {path}: its SHA-256 is {found}, but that of {archive.name} is {archive.sha256}; it is "
                         f"damaged or another file. Fetch it again from {archive.page}")


class Resuming:
    """A downloader for pooch that goes on where the last attempt stopped, and waits longer each time nothing came.

    Raises: _NotHere where this address will not do.
    """

    def __init__(self, archive: Archive, part: Path, waits: tuple[float, ...], progress: bool):
        self.archive, self.part, self.waits, self.progress = archive, part, waits, progress
        self.note = part.with_name(f"{part.name}.json")  # whose bytes these are

    def __call__(self, url: str, output_file: str, pooch, check_only: bool = False) -> None:
        from tqdm import tqdm

        best, failures = _size(self.part), 0
        with tqdm(total=self.archive.size, desc=self.archive.name, unit="B", unit_scale=True,
                  disable=not self.progress) as bar:
            while True:
                try:
                    self._attempt(url, bar)
                    break
                except _Cut as cut:
                    # Measured by the most there ever was: a server without ranges starts anew each time.
                    reached = _size(self.part)
                    failures = 1 if reached > best else failures + 1
                    best = max(best, reached)
                    if failures > len(self.waits):
                        raise _NotHere(str(cut), silent=True) from cut
                    wait = max(self.waits[failures - 1], cut.wait)
                    say(f"{self.archive.name}: {cut}; {reached:,} of {self.archive.size:,} bytes are here, "
                        f"going on in {wait:g} s")
                    time.sleep(wait)
        self.note.unlink(missing_ok=True)
        os.replace(self.part, output_file)

    def _attempt(self, url: str, bar) -> None:
        """Ask once, and append what comes. Raises _Cut to be called again."""
        import requests
        import urllib3

        have = self._usable(url)
        if have == self.archive.size:
            return
        try:
            with requests.get(url, headers=self._headers(url, have), stream=True, timeout=(20, 60)) as response:
                start = self._accept(response, have)
                with self.part.open("ab" if start else "wb") as file:
                    if not start:  # only once the old bytes are gone: a note must never vouch for others' bytes
                        self.note.write_text(json.dumps({"url": url, "tag": _tag(response)}), encoding="utf-8")
                    bar.n = bar.initial = start
                    # What has come, not a full block: a line that is reset often loses next to nothing.
                    read = getattr(response.raw, "read1", response.raw.read)
                    while True:
                        try:
                            block = read(_BLOCK, decode_content=False)
                        except (urllib3.exceptions.HTTPError, OSError) as error:
                            raise _Cut(f"connection lost ({type(error).__name__})") from error
                        if not block:
                            break
                        start += len(block)
                        if start > self.archive.size:
                            file.truncate(0)
                            raise _NotHere(f"sends more than the file's {self.archive.size:,} bytes")
                        file.write(block)
                        bar.update(len(block))
        except requests.exceptions.SSLError as error:
            raise _NotHere("its certificate is not valid") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Cut(f"no connection ({type(error).__name__})") from error
        except requests.RequestException as error:
            raise _NotHere(str(error)) from error
        if start < self.archive.size:
            raise _Cut("the connection ended early")

    def _usable(self, url: str) -> int:
        """How many of the bytes here can be gone on from, at this address."""
        have = _size(self.part)
        # Another server's bytes are as good where a checksum has the last word.
        if have > self.archive.size or not (self.archive.sha256 or (have and self._known_tag(url))):
            return 0
        return have

    def _headers(self, url: str, have: int) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if tag := self._known_tag(url):
                headers["If-Range"] = tag  # a file that has changed since comes whole
        return headers

    def _known_tag(self, url: str) -> str | None:
        try:
            note = read_json(self.note, _Note, "note", "it is not needed")
        except PrunecapError:
            return None
        return note.tag if note.url == url else None

    def _accept(self, response, have: int) -> int:
        """Where the bytes of an answer belong."""
        status, length = response.status_code, response.headers.get("Content-Length", "")
        if status in _AGAIN:
            later = response.headers.get("Retry-After", "")
            raise _Cut(f"{status} {response.reason}", wait=min(int(later), 300) if later.isdigit() else 0)
        if status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if found and int(found[1]) == have:
                if found[2] not in ("*", str(self.archive.size)):
                    raise _NotHere(f"its file has {int(found[2]):,} bytes, not {self.archive.size:,}")
                return have
        if status in (206, 416):  # another part than was asked for, or none: from the start, without a range
            self.part.unlink(missing_ok=True)
            raise _Cut(f"{status} {response.reason}: the server cannot go on, so from the start")
        if status != 200:
            raise _NotHere(f"{status} {response.reason}")
        if length.isdigit() and int(length) != self.archive.size:
            raise _NotHere(f"its file has {int(length):,} bytes, not {self.archive.size:,}")
        return 0


class _Note(msgspec.Struct):
    """Where the bytes of a file that is on its way are from, and what identifies that version of it."""

    url: str
    tag: str | None


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


def disk_error(what: str, error: OSError) -> InputError:
    """A full or broken disk, in words. Nothing half-written has a name that is taken for whole."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "make room there, or name a folder on another disk" if full else "see that you may write there"
    return InputError(f"{what}: {error.strerror or error}; {remedy}. What is whole is kept, and the same command goes "
                      "on from there")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag(response) -> str | None:
    """What identifies this version of the file; a weak ETag promises too little for ranges."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _take_up(folder: Path, part: Path, size: int) -> None:
    """Find what pooch was checking when the process was killed: whole, but under a temporary name."""
    for left in folder.glob("tmp*"):
        if left.stat().st_size == size and not part.exists():
            left.rename(part)
        else:
            left.unlink()
