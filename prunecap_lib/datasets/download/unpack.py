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
    listed = read_list(archive, root)
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


def unpack_archive(path: Path, archive: Archive, root: Path, work: Path, *, progress: bool = True) -> None:
    """Put what is wanted of a zip into ``root``. ``work`` is a folder on the same disk; what an earlier call left
    there is checked and used.

    Raises: InputError for a zip that is unsafe, damaged, or not what ``archive`` says; for a full disk.
    """
    from tqdm import tqdm

    try:
        with zipfile.ZipFile(path) as zip:
            members = wanted(zip.infolist(), archive, path)
            there = {str(file.relative_to(work)) for file in work.rglob("*")} if work.exists() else set()
            for folder in {(work / info.filename).parent for info in members}:
                folder.mkdir(parents=True, exist_ok=True)
            for info in tqdm(members, desc=f"unpacking {archive.name}", unit="file", disable=not progress):
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


def wanted(members: list[zipfile.ZipInfo], archive: Archive, path: Path) -> list[zipfile.ZipInfo]:
    """The members of a zip that are to be unpacked.

    Raises: InputError where any member would leave the folder, or the wanted ones are not all there, or declare far
    more bytes than they should have.
    """
    for info in members:
        if reason := _unsafe(info):
            raise InputError(f"zip {path}: member {info.orig_filename!r} {reason}; nothing was unpacked. Delete the "
                             f"file and fetch it from {archive.page}")
    picture = re.compile(rf"{archive.folder}/[^/]+\.jpg")
    found = {info.filename: info for info in members
             if (picture.fullmatch(info.filename) if archive.folder else info.filename in archive.files)}
    if missing := [file for file in archive.files if file not in found]:
        raise InputError(f"zip {path}: no {missing[0]} in it; nothing was unpacked. Fetch {archive.name} from "
                         f"{archive.page}")
    if archive.folder and len(found) != archive.pictures:
        raise InputError(f"zip {path}: {len(found):,} pictures in {archive.folder}/, but {archive.name} holds "
                         f"{archive.pictures:,}; nothing was unpacked. Fetch it from {archive.page}")
    declared = sum(info.file_size for info in found.values())
    if declared > 2 * archive.unpacked:
        raise InputError(f"zip {path}: would unpack to {declared:,} bytes, but about {archive.unpacked:,} are to be "
                         f"expected; nothing was unpacked. Fetch {archive.name} from {archive.page}")
    return list(found.values())


def read_list(archive: Archive, root: Path) -> dict[str, tuple[int, int]]:
    """CRC-32 and bytes by file, of what was unpacked; empty where that was not done here."""
    if not _list(archive, root).exists():
        return {}
    rows = [line.split(" ", 2) for line in read_text(_list(archive, root), "list").splitlines()]
    try:
        return {name: (int(crc, 16), int(size)) for crc, size, name in rows}
    except ValueError as error:
        raise InputError(f"list {_list(archive, root)} cannot be read ({error}); delete it, it is no more than a "
                         "shortcut") from error


def check_bytes(archive: Archive, root: Path, *, progress: bool = True) -> int:
    """Read every file that was unpacked here and compare its CRC-32; how many there were.

    Raises: InputError that names the first that differs.
    """
    from tqdm import tqdm

    rows = read_list(archive, root)
    for name, (crc, _) in tqdm(rows.items(), desc=f"checking {archive.name}", unit="file", disable=not progress):
        try:
            same = _crc(root / name) == crc
        except OSError as error:
            raise InputError(f"file {root / name}: {error.strerror or error}; delete it and run the same command "
                             "again to see how to get it back") from error
        if not same:
            raise InputError(f"file {root / name}: its bytes are no longer those that {archive.name} holds; delete it "
                             "and run the same command again to see how to get it back")
    return len(rows)


def _unsafe(info: zipfile.ZipInfo) -> str | None:
    """What is wrong with a member's name or kind."""
    name, mode = info.orig_filename, info.external_attr >> 16
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        return "would leave the folder"
    if re.search(r"[\x00-\x1f]", name):
        return "has a control character in its name"
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    if info.flag_bits & 1:
        return "is encrypted"
    return None


def _settle(archive: Archive, root: Path, work: Path, rows: dict[str, tuple[int, int]]) -> None:
    """Move finished files to their places. The list goes first: without the files it claims nothing."""
    try:
        if hasattr(os, "sync"):
            os.sync()  # a power cut must not leave empty files under good names
        # What somebody has put there stays, and is not in the list.
        new = {name: row for name, row in rows.items() if not (root / name).exists()} | read_list(archive, root)
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
