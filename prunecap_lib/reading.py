"""How is a file read that may be damaged, mixed up, or written by somebody else? One way for all of them.

JSON is held against a type (a dataclass of ours; one of msgspec's structs for what others write): kinds, ranges, finite
numbers, keys that stand twice. What does not fit ends in one sentence that names file, field, value and remedy.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from .errors import InputError, MissingFileError, PrunecapError

T = TypeVar("T")
_LARGEST = 4 << 30  # bytes of a text; COCO's largest has 0.5 GB
_KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "object": "an object",
          "array": "a list"}


def open_file(path: str | Path, what: str = "file", *, error: type[PrunecapError] = InputError) -> BinaryIO:
    """Open a regular file to read its bytes; a pipe or a device is refused at once, where ``open`` would wait for it.

    Raises MissingFileError (``error`` where that is no kind of InputError) where it is not there; ``error`` where
    it cannot be opened.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    except (FileNotFoundError, NotADirectoryError):
        kind = MissingFileError if issubclass(error, InputError) else error
        raise kind(f"{what} {path} not found; check the path") from None
    except IsADirectoryError:
        raise error(f"{what} {path} is a folder; give a file in it") from None
    except (OSError, ValueError) as problem:  # ValueError: a name with a null byte
        raise error(f"{what} {path} cannot be opened ({getattr(problem, 'strerror', None) or problem}); check its name "
                    "and permissions") from problem
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise error(f"{what} {path} is no regular file but a pipe or a device; save what comes out of it as a file")
    return file


def read_bytes(path: str | Path, what: str = "file", *, error: type[PrunecapError] = InputError,
               largest: int = _LARGEST) -> bytes:
    """All bytes of a regular file. Raises what ``open_file`` raises; ``error`` where it is too large or unreadable."""
    with open_file(path, what, error=error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise error(f"{what} {path} has {size / 1e9:,.1f} GB, more than any such file; is it the right one?")
        try:
            return file.read()
        except OSError as problem:
            raise error(f"{what} {path} cannot be read ({problem.strerror or problem}); copy it again") from problem


def read_text(path: str | Path, what: str = "file", *, error: type[PrunecapError] = InputError) -> str:
    """A text file as people have it: UTF-8, or what Windows calls Unicode; the mark in front is taken off."""
    return _decoded(read_bytes(path, what, error=error), f"{what} {path}", error)


def read_json(path: str | Path, kind: type[T], what: str, remedy: str, *, format: int | None = None,
              error: type[PrunecapError] = InputError) -> T:
    """A JSON file's content as ``kind``.

    Args:
        kind: what it must hold. Of a dataclass, fields that it does not know are refused, too.
        what: the kind of file, for messages: "shard index".
        remedy: what to do about a file that cannot be used.
        format: the number that must stand under "format".
        error: what is raised where it cannot be used; MissingFileError where it is not there.
    """
    return parse_json(read_bytes(path, what, error=error), kind, f"{what} {path}", remedy, format=format, error=error)


def parse_json(data: bytes, kind: type[T], place: str, remedy: str, *, format: int | None = None,
               error: type[PrunecapError] = InputError) -> T:
    """As ``read_json``, from bytes that are here already. ``place`` says in messages where they are from."""
    if data[:2] in _UTF16 or data[:3] == _UTF8:
        data = _decoded(data, place, error).encode()
    if b"\\ud" in data or b"\\uD" in data:
        data = _ESCAPES.sub(lambda found: b" " if found[1] else found[0], data)
    content = problem = None
    try:
        if format is not None and (found := msgspec.json.decode(data, type=_Formatted).format) != format:
            problem = f"format {found} is not {format}, which this version reads"
        else:
            content = msgspec.json.decode(data, type=kind)
            json.loads(data, object_pairs_hook=_no_key_twice, parse_int=len, parse_float=len)
            problem = _unknown_field(content, msgspec.json.decode(data)) if is_dataclass(content) else None
    except msgspec.ValidationError as found:
        problem = _in_words(str(found), data)
    except UnicodeDecodeError:
        problem = _NO_TEXT
    except RecursionError:
        problem = "lists or objects are nested too deep"
    except ValueError as found:  # msgspec's and json's; a key that stands twice
        problem = _malformed(str(found), data)
    if problem:
        raise error(f"{place}: {problem if len(problem) <= 1000 else problem[:997] + '...'}; {remedy}")
    return content


class _Formatted(msgspec.Struct):
    format: int


_UTF8, _UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
# An escaped backslash, a character of two halves, or a half alone: what a program leaves that cuts text short, and
# what bytes of a file's name become that are not UTF-8. It means nothing, and no other program could write it.
_ESCAPES = re.compile(rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
                      rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})")
_NO_TEXT = "not a text file in UTF-8: is it packed, or saved in another encoding?"


def _decoded(data: bytes, place: str, error: type[PrunecapError]) -> str:
    try:
        return data.decode("utf-16" if data[:2] in _UTF16 else "utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(f"{place}, line {line}: not a text file in UTF-8; save it as UTF-8, or unpack it") from problem


def _no_key_twice(pairs: list[tuple[str, Any]]) -> None:
    """Keeps nothing: only the keys are looked at."""
    if len({key for key, _ in pairs}) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")


def _unknown_field(content: Any, raw: Any, at: str = "") -> str | None:
    """The first field of ``raw`` that the dataclass it became does not know, in words."""
    if isinstance(raw, list) and isinstance(content, list | tuple):
        inner = ((f"{at}[{i}]", *pair) for i, pair in enumerate(zip(content, raw, strict=True)))
    elif is_dataclass(content):
        if unknown := sorted(set(raw) - {field.name for field in fields(content)}):
            return f"{at + ' has ' if at else ''}fields this version does not know ({', '.join(unknown)})"
        inner = ((f"{at}.{key}".lstrip("."), getattr(content, key), value) for key, value in raw.items())
    else:
        return None
    return next((found for place, value, raw in inner if (found := _unknown_field(value, raw, place))), None)


def _in_words(message: str, data: bytes) -> str:
    """msgspec's "Expected `int`, got `null` - at `$.a[3].id`" as "a[3].id is null: expected a whole number"."""
    message, _, place = message.partition(" - at `$")
    message = re.sub("`([^`]+)`", lambda found: " or ".join(_KINDS.get(kind, kind) for kind in found[1].split(" | ")),
                     message[0].lower() + message[1:])
    if not (place := place.rstrip("`").lstrip(".")):
        return message
    value, shown = None, ""
    with suppress(Exception):  # only to say more: what cannot be looked up is left out
        value = msgspec.json.decode(data)
        for key in re.findall(r"[^.\[\]]+", place):
            value = value[int(key) if isinstance(value, list) else key]
        shown = json.dumps(value, ensure_ascii=False)
    is_value = f" is {shown if len(shown) <= 60 else shown[:57] + '...'}" if shown and not isinstance(
        value, dict | list) else ""
    return f"{place}{is_value}: {message}"


def _malformed(message: str, data: bytes) -> str:
    """What msgspec says of text that is no JSON, with line and place."""
    if "twice" in message:
        return message
    message = message.removeprefix("JSON is malformed: ")
    if found := re.search(r" \(byte (\d+)\)", message):
        byte = int(found[1])
        return (f"line {data.count(10, 0, byte) + 1}: not valid JSON at {_shown(data[byte : byte + 20])} "
                f"({message[: found.start()]})")
    return f"line {data.count(10) + 1}: not valid JSON, it ends too early"


def _shown(data: bytes) -> str:
    return repr(data.decode(errors="replace"))
