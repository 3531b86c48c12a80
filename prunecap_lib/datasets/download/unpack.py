"""How is a zip unpacked so that nothing leaves its folder, and nothing half is taken for whole?

A zip is looked through before a byte of it is written. Then its files grow in a hidden folder; only when all are
there, with the checksums that the zip gives, are they moved to their places. A list of them stays in ``.prunecap``:
later runs compare names with it.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

import msgspec

from ...errors import InputError
from ...files import write_text
from ...reading import read_json, read_text
from ..base import list_folder
from .fetch import Archive, disk_error

STATE = ".prunecap"
_BLOCK = 1 << 20


def is_there(archive: Archive, root: Path) -> bool:
    """Does all that is wanted of an archive lie in ``root``? One look at each folder, none at each file.

    Raises: InputError where a part of it does, naming what is missing: that may be somebody's own work.
    """
    listed = _read_list(archive, root)
    if not archive.folder:
        for name, (_, size) in listed.items():
            file = root / name
            if file.is_file() and file.stat().st_size != size:
                raise InputError(f"file {file}: {file.stat().st_size:,} bytes, but {size:,} were unpacked; if the "
                                 "change is yours, keep it elsewhere. Delete it and run the same command again to "
                                 "fetch it anew")
        return all((root / file).is_file() for file in archive.files)
    folder = root / archive.folder
    names = list_folder(folder) if folder.is_dir() else set()
    have = {name for name in names if name.endswith(".jpg")}
    if not names:
        return False
    if not have:
        raise InputError(f"folder {folder}: no picture in it, but {sorted(names)[0]}; move it away and run the same "
                         f"command again: it unpacks {archive.name} there")
    named = {file.rsplit("/", 1)[-1] for file in listed} or _named_by_captions(archive, root)
    if missing := sorted(named - have):
        strange = sorted(have - named)
        renamed = f", but {strange[0]} (renamed?) does not belong there" if strange else ""
        one = f"fetch it from {archive.one_by_one}{missing[0]}, or " if archive.one_by_one else ""
        raise InputError(f"folder {folder}: {missing[0]} is missing, {len(missing):,} in all of "
                         f"{archive.pictures:,}{renamed}; {one}move the folder away and run the same command again: it "
                         f"fetches {archive.name}")
    if not named and len(have) != archive.pictures:
        raise InputError(f"folder {folder}: {len(have):,} pictures, but {archive.name} holds "
                         f"{archive.pictures:,}; complete it, or move it away and run the same command again")
    return True


def unpack_archive(path: Path, archive: Archive, root: Path, work: Path) -> None:
    """Put what is wanted of a zip into ``root``. ``work`` is a folder on the same disk; what an earlier call left
    there is checked and used.

    Raises: InputError for a zip that is unsafe, damaged, or not what ``archive`` says; for a full disk.
    """
    from tqdm import tqdm

    try:
        with zipfile.ZipFile(path) as zip:
            members = _wanted(zip.infolist(), archive, path)
            there = {str(file.relative_to(work)) for file in work.rglob("*")} if work.exists() else set()
            for folder in {(work / info.filename).parent for info in members}:
                folder.mkdir(parents=True, exist_ok=True)
            for info in tqdm(members, desc=f"unpacking {archive.name}", unit="file"):
                target = work / info.filename
                if info.filename in there and target.stat().st_size == info.file_size and _crc(target) == info.CRC:
                    continue
                with zip.open(info) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"zip {path}: damaged ({error}); delete it and run the same command again, or fetch it by "
                         f"hand from {archive.page}") from error
    except OSError as error:
        raise disk_error(f"unpacking {path.name} in {root}", error) from error
    _settle(archive, root, work, {info.filename: (info.CRC, info.file_size) for info in members})


def copy_in(files: dict[str, Path], archive: Archive, root: Path, work: Path) -> None:
    """Put files into ``root`` that somebody has unpacked elsewhere. Raises InputError for a full disk."""
    try:
        for name, source in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, work / name)
    except OSError as error:
        raise disk_error(f"copying {archive.name}'s files to {root}", error) from error
    _settle(archive, root, work, {name: (_crc(work / name), (work / name).stat().st_size) for name in files})


def _wanted(members: list[zipfile.ZipInfo], archive: Archive, path: Path) -> list[zipfile.ZipInfo]:
    """The members of a zip that are to be unpacked.

    Raises: InputError where any member would leave the folder, or the wanted ones are not all there, or declare far
    more bytes than they should have.
    """
    picture = re.compile(rf"{archive.folder}/[^/]+\.jpg")
    found = {info.filename: info for info in members
             if (picture.fullmatch(info.filename) if archive.folder else info.filename in archive.files)}
    declared = sum(info.file_size for info in found.values())
    if unsafe := next((info for info in members if _dangers(info)), None):
        problem = f"member {unsafe.orig_filename!r} {_dangers(unsafe)[0]}"
    elif missing := [file for file in archive.files if file not in found]:
        problem = f"no {missing[0]} in it"
    elif archive.folder and len(found) != archive.pictures:
        problem = f"{len(found):,} pictures in {archive.folder}/, but {archive.name} holds {archive.pictures:,}"
    elif declared > 2 * archive.unpacked:
        problem = f"would unpack to {declared:,} bytes, but about {archive.unpacked:,} are to be expected"
    else:
        return list(found.values())
    raise InputError(f"zip {path}: {problem}; nothing was unpacked. Delete the file and fetch it from {archive.page}")


def _dangers(info: zipfile.ZipInfo) -> list[str]:
    """What is wrong with a member's name or kind."""
    name = info.orig_filename
    return [reason for reason, so in {
        "would leave the folder": name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"),
        "has a control character in its name": re.search(r"[\x00-\x1f]", name),
        "is a symbolic link": stat.S_ISLNK(info.external_attr >> 16),
        "is encrypted": info.flag_bits & 1}.items() if so]


def _read_list(archive: Archive, root: Path) -> dict[str, tuple[int, int]]:
    """CRC-32 and bytes by file, of what was unpacked; empty where that was not done here."""
    if not _list(archive, root).exists():
        return {}
    rows = [line.split(" ", 2) for line in read_text(_list(archive, root), "list").splitlines()]
    try:
        return {name: (int(crc, 16), int(size)) for crc, size, name in rows}
    except ValueError as error:
        raise InputError(f"list {_list(archive, root)} cannot be read ({error}); delete it, it is no more than a "
                         "shortcut") from error


def check_bytes(archive: Archive, root: Path) -> int:
    """Read every file that was unpacked here and compare its CRC-32; how many there were.

    Raises: InputError that names the first that differs.
    """
    from tqdm import tqdm

    rows = _read_list(archive, root)
    for name, (crc, _) in tqdm(rows.items(), desc=f"checking {archive.name}", unit="file"):
        try:
            problem = "" if _crc(root / name) == crc else f"its bytes are no longer those that {archive.name} holds"
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            raise InputError(f"file {root / name}: {problem}; delete it and run the same command again to see how to "
                             "get it back")
    return len(rows)


def _settle(archive: Archive, root: Path, work: Path, rows: dict[str, tuple[int, int]]) -> None:
    """Move finished files to their places. The list goes first: without the files it claims nothing."""
    try:
        if hasattr(os, "sync"):
            os.sync()  # a power cut must not leave empty files under good names
        # What somebody has put there stays, and is not in the list.
        new = {name: row for name, row in rows.items() if not (root / name).exists()} | _read_list(archive, root)
        write_text(_list(archive, root), "".join(f"{crc:08x} {size} {name}\n" for name, (crc, size) in new.items()))
        if archive.folder:
            (work / archive.folder).rename(root / archive.folder)
        for name in archive.files:
            if not (root / name).exists():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (work / name).rename(root / name)
    except OSError as error:
        raise disk_error(f"moving {archive.name}'s files into {root}", error) from error


def _list(archive: Archive, root: Path) -> Path:
    return root / STATE / f"{archive.name}.list"


class _File(msgspec.Struct):
    file_name: str


class _Named(msgspec.Struct):
    """What is asked of a caption file here."""

    images: list[_File]


def _named_by_captions(archive: Archive, root: Path) -> set[str]:
    """The pictures of a folder as its captions name them, if these are here."""
    captions = root / "annotations" / f"captions_{archive.folder}.json"
    if not captions.is_file():
        return set()
    content = read_json(captions, _Named, "caption file", "move it away and run the same command again")
    return {image.file_name for image in content.images}


def _crc(file: Path) -> int:
    crc = 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
