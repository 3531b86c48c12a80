"""Where do the pictures lie that are to be captioned? In files and folders, on the web, or on standard input."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from string import punctuation
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from PIL import Image

from ..errors import InputError, PictureError
from ..preprocessing import IMAGE_SUFFIXES, decode_image, load_image

MOST_BYTES = 50_000_000  # of a picture that is fetched or piped in: more than any camera's JPEG has
MOST_SECONDS, PATIENCE = 60, 15  # in all, and without a byte


@dataclass(frozen=True)
class Source:
    """One picture, by the name that it was given: a path, an http(s) address, or "-"."""

    name: str

    @property
    def on_web(self) -> bool:
        return self.name.lower().startswith(("http://", "https://"))

    @property
    def path(self) -> Path:
        """The file, or what its name would be."""
        if self.on_web:
            return Path(Path(unquote(urlsplit(self.name).path)).name or "picture")
        return Path("stdin" if self.name == "-" else self.name)

    def load(self) -> Image.Image:
        """Upright 8-bit RGB. Raises what ``load_image`` raises."""
        if self.name == "-":
            return decode_image(_piped(), "of standard input")
        return decode_image(_fetched(self.name), self.name) if self.on_web else load_image(self.path)


def find_sources(given: Sequence[str], *, recursive: bool = False) -> list[Source]:
    """What was given; of a folder, its pictures by name. Raises InputError where nothing is left."""
    found = [Source(name) for one in given
             for name in (_pictures(one, recursive) if os.path.isdir(one) else [one])]
    if not found:
        raise InputError("no picture given: name files, addresses or - for standard input; or folders, in which "
                         f"{', '.join(sorted(IMAGE_SUFFIXES))} count as pictures"
                         + ("" if recursive else " (--recursive looks into their folders, too)"))
    return found


def _pictures(folder: str, recursive: bool) -> list[str]:
    def refuse(error: OSError) -> None:
        raise InputError(f"folder {error.filename} cannot be read ({error.strerror}); check its permissions")

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        found += [os.path.join(place, name) for name in sorted(files)
                  if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
    return found


def _piped() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise PictureError("there is no picture on standard input; send one, like: prunecap caption - < photo.jpg")
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    _check_size(len(data), "picture of standard input")
    return data


def _fetched(address: str) -> bytes:
    name, end, data = f"picture {address}", time.monotonic() + MOST_SECONDS, bytearray()
    try:
        request = Request(quote(address, safe=punctuation), headers={"User-Agent": "prunecap"})
        with urlopen(request, timeout=PATIENCE) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            _check_size(length, name)
            while piece := answer.read1(1 << 16):
                data += piece
                _check_size(len(data), name)
                if time.monotonic() > end:
                    raise PictureError(f"{name} has not come within {MOST_SECONDS} seconds; download it first")
    except PictureError:
        raise
    except HTTPError as error:
        raise PictureError(f"{name}: the server answers {error.code} {error.reason}; check the address") from error
    except (OSError, ValueError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise PictureError(f"{name} cannot be fetched ({reason}); check the address and the connection") from error
    if len(data) < length:
        raise PictureError(f"{name}: {len(data):,} of {length:,} bytes came; try again")
    return bytes(data)


def _check_size(size: int, name: str) -> None:
    if size > MOST_BYTES:
        raise PictureError(f"{name} has more than {MOST_BYTES:,} bytes; save it as a file and name that")
