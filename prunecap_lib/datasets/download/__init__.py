"""COCO from its servers: what does it consist of, and how does it get into a folder that ``open_dataset`` reads?

Resumed (``fetch``), checked by size and checksum, unpacked safely (``unpack``). Lin et al. 2014 and Chen et al. 2015
(COCO and its captions); Karpathy and Fei-Fei 2015 (the usual split).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError, MissingFileError, PrunecapError
from ...files import Kind, check_space, locked, say, write_text
from ...reading import read_text
from ..coco import read_coco_files, read_karpathy
from .fetch import WAITS, Archive, check_archive, disk_error, fetch_archive
from .unpack import STATE, check_bytes, copy_in, is_there, unpack_archive

FOLDER = Kind("copy of COCO", lambda _: True)  # what lies there is never replaced


@dataclass(frozen=True)
class CocoFiles:
    """COCO's captioned pictures of one year, and Karpathy's split, which shares them out anew."""

    year: int
    annotations: Archive
    train: Archive
    val: Archive
    karpathy: Archive
    karpathy_counts: tuple[int, int, int] = (113_287, 5_000, 5_000)  # train (restval among them), val, test


_PAGE = "https://cocodataset.org/#download"
# COCO's own server speaks no valid https; the bucket behind it does, under Amazon's name.
_SERVERS = ("http://images.cocodataset.org", "https://s3.amazonaws.com/images.cocodataset.org")


def _pictures(folder: str, count: int, size: int, sha256: str, *copies: str) -> Archive:
    return Archive(f"{folder}.zip", (*(f"{server}/zips/{folder}.zip" for server in _SERVERS), *copies), _PAGE, size,
                   sha256, int(1.02 * size), folder=folder, pictures=count, one_by_one=f"{_SERVERS[0]}/{folder}/")


def _annotations(year: int, size: int, sha256: str) -> Archive:
    name = f"annotations_trainval{year}.zip"
    return Archive(name, tuple(f"{server}/annotations/{name}" for server in _SERVERS), _PAGE, size, sha256, 600_000_000,
                   files=tuple(f"annotations/{kind}_{split}{year}.json" for kind in ("captions", "instances")
                               for split in ("train", "val")))


# COCO publishes no checksums. Sizes and SHA-256 are those on which two projects agree that fetch these files
# themselves: TensorFlow Datasets (url_checksums/coco.txt, coco_captions.txt) and torchvision's prototype datasets
# (_builtin/coco.py); for Karpathy's zip, which torchvision does not fetch, TensorFlow Datasets and the records of
# several public repositories. Third parties' copies come last: the checksum, not their name, vouches for them.
_KARPATHY = Archive(
    "caption_datasets.zip",
    ("https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
     "https://huggingface.co/datasets/gpantaz/karpathy_split/resolve/main/caption_datasets.zip"),
    "https://www.kaggle.com/datasets/shtvkumar/karpathy-splits (its dataset_coco.json alone will do)", 36_745_453,
    "4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817", 144_186_139, files=("dataset_coco.json",))
_COPIES = "https://huggingface.co/datasets/GAIA-URJC/COCO_2014/resolve/main"
COCO = {
    2014: CocoFiles(
        2014,
        _annotations(2014, 252_872_794, "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"),
        _pictures("train2014", 82_783, 13_510_573_713,
                  "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775", f"{_COPIES}/train2014.zip"),
        _pictures("val2014", 40_504, 6_645_013_297,
                  "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0", f"{_COPIES}/val2014.zip"),
        _KARPATHY),
    2017: CocoFiles(
        2017,
        _annotations(2017, 252_907_541, "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"),
        _pictures("train2017", 118_287, 19_336_861_798,
                  "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
        _pictures("val2017", 5_000, 815_585_330,
                  "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
        _KARPATHY),
}


def get_coco(root: str | Path, coco: CocoFiles, *, karpathy: bool = False, pictures: bool = True, text: bool = True,
             source: str | Path | None = None, mirrors: tuple[str, ...] = (), thorough: bool = False,
             waits: tuple[float, ...] = WAITS) -> list[str]:
    """Put COCO into ``root`` as ``read_coco`` reads it; what is there already is left alone.

    Args:
        karpathy: his ``dataset_coco.json`` too, which ``read_coco`` then reads instead of the official split.
        pictures, text: which of both is wanted.
        source: a folder with the zips, which are then checked and used instead of a download.
        mirrors: addresses to ask before COCO's own.
        thorough: compare every file that was unpacked here with its checksum, and say how many there were.

    Returns the names of the zips that were unpacked: none where everything was there. Raises: MissingFileError,
    InputError; what is whole by then stays.
    """
    root, source = Path(root), None if source is None else Path(source)
    archives = [coco.karpathy] * (karpathy and text) + [coco.annotations] * text + [coco.val, coco.train] * pictures
    todo = [archive for archive in archives if not is_there(archive, root)]
    if not todo and not any(_state(archive, root).exists() for archive in archives):
        _check_counts(coco, root, karpathy, pictures, text)  # all this works where one may only read
    else:
        lock = root / STATE / "lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError as error:
            raise disk_error(f"folder {root}", error) from error
        with locked(lock, say):
            todo = [archive for archive in archives if not is_there(archive, root)]
            for archive in archives:
                if archive not in todo:  # stopped while it was tidying up
                    shutil.rmtree(_state(archive, root), ignore_errors=True)
            if source is not None:
                _check_source(todo, source)
            _check_space(todo, root, downloads=source is None)
            for archive in todo:
                state = _state(archive, root)
                if source is None:
                    zip = fetch_archive(archive, state, mirrors, waits)
                elif (zip := source / archive.name).is_file():
                    say(f"checking {zip}")
                    check_archive(zip, archive)
                if zip.is_file():
                    unpack_archive(zip, archive, root, state / "unpacked")
                else:
                    copy_in(_loose(archive, source), archive, root, state / "unpacked")
                shutil.rmtree(state, ignore_errors=True)
            _check_counts(coco, root, karpathy, pictures, text)
    if thorough:
        for archive in archives:
            say(f"{archive.name}: {check_bytes(archive, root):,} files compared with their checksums (those that were "
                "unpacked here)")
    return [archive.name for archive in todo]


def _state(archive: Archive, root: Path) -> Path:
    """Where an archive and what comes out of it grow."""
    return root / STATE / archive.name.removesuffix(".zip")


def _loose(archive: Archive, source: Path) -> dict[str, Path]:
    """The files of an archive where somebody has unpacked it: in their folders, or side by side. Or none."""
    found = {name: path for name in archive.files for path in (source / Path(name).name, source / name)
             if path.is_file()}
    return found if len(found) == len(archive.files) else {}


def _check_source(todo: list[Archive], source: Path) -> None:
    """Is all there that is to be taken from ``source``?"""
    if not source.is_dir():
        raise MissingFileError(f"folder {source} not found; it should hold {', '.join(one.name for one in todo)}")
    for archive in todo:
        if not (source / archive.name).is_file() and not _loose(archive, source):
            zips = ", ".join(sorted(path.name for path in source.glob("*.zip"))[:5]) or "no zip at all"
            near = f"{archive.folder}, unpacked: name this folder as --root" if (
                archive.folder and (source / archive.folder).is_dir()) else f"{zips} (renamed?)"
            raise MissingFileError(f"folder {source}: no {archive.name}, but {near}. Or fetch it from {archive.page}; "
                                   "without --from it is downloaded")


def _check_space(todo: list[Archive], root: Path, downloads: bool) -> None:
    """Zips go as soon as they are unpacked, so the most is needed while one zip and its files lie side by side."""
    done, most = 0, 0
    for archive in todo:
        here = sum(file.stat().st_size for file in _state(archive, root).rglob("*") if file.is_file())
        done += archive.unpacked - here  # what an earlier call has left is freed
        most = max(most, done + archive.size * downloads)
    check_space(root, most, f"folder {root}: {', '.join(one.name for one in todo)}, while they are unpacked,",
                "make room, or name a folder on another disk. --only annotations takes the text alone")
    inodes = os.statvfs(root) if hasattr(os, "statvfs") else None
    files = sum(archive.pictures for archive in todo)
    if inodes and inodes.f_files and inodes.f_favail < files:
        raise InputError(f"folder {root}: {files:,} pictures, but its file system has room for {inodes.f_favail:,} "
                         "more files, however small; name a folder on another disk")


def _check_counts(coco: CocoFiles, root: Path, karpathy: bool, pictures: bool, text: bool) -> None:
    """Raises InputError where a file has another number of captioned pictures than COCO's.

    That it has not is noted in ``.prunecap``: reading all captions takes seconds. Without ``text`` the captions may
    come later, or be others: these are counted where they lie, each time.
    """
    parts = [coco.karpathy.name] * karpathy + ["pictures"] * pictures + ["text"] * text
    receipt, note = f"{coco.year} {' '.join(parts)}", root / STATE / "counted"
    lines = read_text(note).splitlines() if note.is_file() else []
    if text and receipt in lines:
        return
    for file, found, count in _counts(coco, root, karpathy, pictures, text):
        if found != count:
            raise InputError(f"file {file}: {found:,} captioned pictures where COCO has {count:,}; it is another file "
                             "of that name, or a part of COCO. A part can be read as it is (--dataset coco); for all "
                             "of COCO, move the file away and run the same command again")
    if text:
        with suppress(PrunecapError):  # where one may only read
            write_text(note, "\n".join([*lines, receipt, ""]))


def _counts(coco: CocoFiles, root: Path, karpathy: bool, pictures: bool, text: bool) -> Iterator[tuple[Path, int, int]]:
    """Caption files, the pictures that training's reader finds in each, and how many they should be."""
    for split, archive in {"train": coco.train, "val": coco.val}.items():
        file = root / "annotations" / f"captions_{split}{coco.year}.json"
        if text or file.is_file():
            dataset = read_coco_files(file, root / archive.folder, split=split, check_images=pictures)
            yield file, len(dataset), archive.pictures
    if karpathy and text:
        file = root / coco.karpathy.files[0]
        for split, count in zip(("train", "val", "test"), coco.karpathy_counts, strict=True):
            yield file, len(read_karpathy(file, root, split, check_images=pictures)), count
