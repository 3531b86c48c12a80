"""What is wrong with bad input? Wrong JSON values, damaged files, blocked outputs and wild numbers, by kind."""

from __future__ import annotations

import copy
import json
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

# What may stand in the place of any JSON value, as it is written in the file.
JSON_VALUES = {
    "null": "null", "a text": '"seven"', "an empty text": '""', "-1": "-1", "0": "0", "half": "0.5", "1e308": "1e308",
    "NaN": "NaN", "Infinity": "-Infinity", "true": "true", "a list": "[]", "an object": "{}", "2**70": str(2**70),
    "5,000 digits": "9" * 5000, "depth 100,000": "[" * 100_000 + "]" * 100_000, "a lone surrogate": '"\\ud800"',
    "a NUL": '"a\\u0000b"', "a path": '"../../user/notes.txt"',
}
# Right nowhere: whoever takes one of them in silence and says something else than before is wrong.
NEVER_RIGHT = {"NaN", "Infinity", "1e308", "2**70", "5,000 digits", "depth 100,000", "an object"}
NUMBERS = ("-1", "0", "nan", "inf", "-inf", "1e308", "seven", "", "9" * 40, "0x10", "１")
NO_NUMBERS = {"-1", "nan", "inf", "-inf", "seven", "", "0x10"}  # in no option's range
NO_WHOLE_NUMBERS = {"1e308", "9" * 40}
TEXTS = ("", "no such thing", "../..", "a\0b", "x" * 5000, "\udcff", "🦊")


def json_paths(content, depth: int = 0) -> Iterator[tuple]:
    """A path to every field, and to the first element of every list."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = list(enumerate(content))[:1]
    else:
        return
    for key, value in items:
        yield (key,)
        if depth < 6:
            yield from ((key, *rest) for rest in json_paths(value, depth + 1))


def with_value(content, path: tuple, written: str | None) -> str:
    """The JSON text with another value at ``path``; None: without that field."""
    content = copy.deepcopy(content)
    at = content
    for key in path[:-1]:
        at = at[key]
    if written is None:
        del at[path[-1]]
        return json.dumps(content)
    at[path[-1]] = "@@here@@"
    return json.dumps(content).replace('"@@here@@"', written)


def _rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    dice = random.Random(0)
    for _ in range(20):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def _replaced(how: Callable[[Path], None]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        how(path)
    return act


# What may happen to any file.
FILES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "noise": lambda path: path.write_bytes(random.Random(1).randbytes(5000)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "rotten": _rot,
    "a page of HTML": lambda path: path.write_text("<!DOCTYPE html><title>404</title>"),
    "UTF-16": lambda path: path.write_text("a picture", encoding="utf-16"),
    "gone": Path.unlink,
    "a folder": _replaced(Path.mkdir),
    "a FIFO": _replaced(os.mkfifo),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a link to nowhere": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link to /dev/zero": _replaced(lambda path: path.symlink_to("/dev/zero")),
}


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 0, rows: bool = False) -> bytes:
    """A PNG that says it is so large; ``rows``: and is, all black."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    data = b""
    if rows:
        packer = zlib.compressobj(9)
        row = bytes(1 + width * depth // 8)
        data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
            + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def jpeg_of(width: int, height: int, like: Path) -> bytes:
    """A good JPEG whose header claims another size."""
    data = bytearray(like.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _saved(mode: str, ending: str, **options) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        from PIL import Image
        name = f"odd{ending}"
        Image.new(mode, (40, 30)).save(folder / name, **options)
        return name
    return write


def _bytes(name: str, data: bytes | Callable[[Path], bytes]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(data if isinstance(data, bytes) else data(folder))
        return name
    return write


# Pictures that are none, or too large: written into a folder that holds photo.jpg; the name comes back.
NO_PICTURES: dict[str, Callable[[Path], str]] = {
    "HTML": _bytes("page.jpg", b"<html>not found</html>"),
    "PostScript": _bytes("drawing.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n"),
    "PDF": _bytes("paper.png", b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF"),
    "SVG": _bytes("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"),
    "a script": _bytes("script.png", b"#!/bin/sh\necho hello\n"),
    "claims 65,500 squared": _bytes("huge.jpg", lambda folder: jpeg_of(65_500, 65_500, folder / "photo.jpg")),
    "0 pixels wide": _bytes("thin.jpg", lambda folder: jpeg_of(0, 100, folder / "photo.jpg")),
    "PNG bomb, 16 bit": _bytes("bomb.png", lambda _: png_header(13_000, 13_000, depth=16, rows=True)),
    "PNG without rows": _bytes("rows.png", png_header(100, 100)),
    "PNG of 2**31": _bytes("wide.png", png_header(2**31 - 1, 2**31 - 1)),
    "PNG signature alone": _bytes("head.png", b"\x89PNG\r\n\x1a\n"),
    "GIF without frames": _bytes("still.gif", b"GIF89a\x10\x00\x10\x00\x00\x00\x00;"),
    "TIFF that points beyond": _bytes("far.tif", b"II*\x00" + struct.pack("<I", 10**8)),
    "TIFF that points to itself": _bytes("loop.tif", b"II*\x00" + struct.pack("<I", 8) + b"\x00\x00" + b"\x08\0\0\0"),
    "BMP of 10**9": _bytes("b.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 10**9, 10**9, 1, 24, 0, 0,
                                                       1, 1, 0, 0)),
    "WebP cut": _bytes("w.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8 "),
    "ICO": _bytes("icon.png", b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x18\0\xff\xff\xff\x7f\x16\0\0\0"),
}
# Odd, but pictures: all of them must get a caption.
ODD_PICTURES: dict[str, Callable[[Path], str]] = {
    "CMYK": _saved("CMYK", ".jpg"), "grey": _saved("L", ".jpg"), "one bit": _saved("1", ".png"),
    "grey and alpha": _saved("LA", ".png"), "RGBA": _saved("RGBA", ".webp"), "palette": _saved("P", ".gif"),
    "16 bit": _saved("I;16", ".png"), "TIFF of floats": _saved("F", ".tif"), "TIFF": _saved("RGB", ".tiff"),
    "BMP": _saved("RGB", ".bmp"), "capitals": _saved("RGB", ".JPEG"),
    "progressive": _saved("RGB", ".jpg", progressive=True),
}


def _file_where_a_folder_is_wanted(place: Path) -> str:
    return str(place / "user" / "notes.txt" / "inner")


# Places where no output can go, or none should: a name to write to, inside a workspace that holds user/notes.txt.
OUTPUTS: dict[str, Callable[[Path], str]] = {
    "a file of the user's": lambda place: str(place / "user" / "notes.txt"),
    "a picture of the user's": lambda place: str(place / "user" / "holiday.png"),
    "a table of the user's": lambda place: str(place / "user" / "table.json"),
    "a page of the user's": lambda place: str(place / "user" / "page.html"),
    "a folder of the user's": lambda place: str(place / "user"),
    "the working folder": lambda place: ".",
    "the folder above": lambda place: "..",
    "the root": lambda place: "/",
    "nothing": lambda place: "",
    "below a file": _file_where_a_folder_is_wanted,
    "a name of 300 letters": lambda place: str(place / ("x" * 300)),
    "a deep path of 5,000 letters": lambda place: str(place / "/".join(["y" * 100] * 50)),
    "read-only": lambda place: "/proc/prunecap",
    "a device": lambda place: "/dev/full",
    "a NUL": lambda place: str(place / "a\0b"),
    "a link to a user's folder": lambda place: _link(place / "link", "user"),
    "a link to nowhere": lambda place: _link(place / "loose", "nowhere/at/all"),
}


def _link(path: Path, target: str) -> str:
    path.symlink_to(target)
    return str(path)
