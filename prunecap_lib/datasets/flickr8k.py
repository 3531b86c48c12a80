"""How are Flickr8k's photographs and captions read?

Kaggle's layout: ``Images/*.jpg`` and ``captions.txt`` (a CSV file, "image,caption"), beside it the three
lists of the official split. Source: Hodosh, Young and Hockenmaier 2013, 8,000 photographs with five captions
each.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import warnings
from pathlib import Path

from ..errors import InputError, MissingFileError
from ..reading import read_text
from .base import PhotoDataset, pictures_by_id

_LISTS = {split: f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test")}
_LISTS_AT = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip"


def read_flickr8k(root: str | Path, split: str, *, limit: int | None = None, check_images: bool = True) -> PhotoDataset:
    """One official split: "train" (6,000 pictures), "dev" (also called "val") or "test" (1,000 each).

    Where none of the three official lists is there, as in Kaggle's copy, a split of our own in these proportions; a
    warning says so. An image's id is its file name. Raises: MissingFileError, InputError (see ``PhotoDataset``).
    """
    root, split = Path(root), "dev" if split == "val" else split
    if split not in _LISTS:
        raise InputError(f"data set flickr8k: no split {split!r}; choose train, dev (or val) or test")
    source = next((root / name for name in ("captions.txt", "captions.csv") if (root / name).exists()),
                  root / "captions.txt")
    captions = _read_captions(source)
    names = _pictures_of(split, root, list(captions))
    if lacking := [name for name in names if name not in captions]:
        raise InputError(f"caption file {source}: no caption for {lacking[0]} of {_LISTS[split]}; "
                         "check that both are of the same release and complete")
    paths = pictures_by_id([(name, name) for name in names], root / "Images", source)
    return PhotoDataset("flickr8k", split, {name: captions[name] for name in names}, paths, source=source, limit=limit,
                        check_images=check_images)


def _pictures_of(split: str, root: Path, names: list[str]) -> list[str]:
    """Those of one split, in the order of its list; ``names`` are all that have captions."""
    lists = {name: root / file for name, file in _LISTS.items() if (root / file).exists()}
    if not lists:
        own = own_split(names)
        warnings.warn(f"data set flickr8k: no {_LISTS[split]} in {root}, so this is a split of our own: "
                      + ", ".join(f"{len(pictures):,} {name}" for name, pictures in own.items())
                      + f"; figures of the official split need its lists, which are in {_LISTS_AT}", stacklevel=3)
        return own[split]
    if split not in lists:
        raise MissingFileError(f"split list {_LISTS[split]} not found in {root}, but {_LISTS[next(iter(lists))]} lies "
                               f"there; it is part of Flickr8k_text.zip of the original release, which {_LISTS_AT} has")
    listed = {file: [line.strip() for line in read_text(file, "split list").splitlines() if line.strip()]
              for file in lists.values()}
    where: dict[str, Path] = {}
    for file, pictures in listed.items():
        for picture in pictures:
            if picture in where:
                raise InputError(f"split list {file}: {picture} stands in it and in {where[picture]}; "
                                 "a picture belongs to one split, once")
            where[picture] = file
    return listed[lists[split]]


def own_split(names: list[str]) -> dict[str, list[str]]:
    """Six eighths of the pictures for "train" and one each for "dev" and "test", ranked by a hash of their names."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"0 {name}".encode()).digest())
    eighth = max(len(names) // 8, 1)
    parts = {"train": ranked[2 * eighth :], "dev": ranked[:eighth], "test": ranked[eighth : 2 * eighth]}
    return {split: sorted(names) for split, names in parts.items()}


def _read_captions(path: Path) -> dict[str, list[str]]:
    """Captions by file name, in the file's order. Programs write commas, semicolons or tabs between the columns."""
    if not path.exists():
        raise MissingFileError(f"caption file {path.name} not found in {path.parent}; "
                               "Kaggle's Flickr8k holds captions.txt and a folder Images")
    text = read_text(path, "caption file")
    header = re.match(r"image([,;\t])caption\r?\n", text.replace('"', ""))
    if not header:
        raise InputError(f"caption file {path}, line 1: expected the header image,caption")
    comma = header[1]
    captions: dict[str, list[str]] = {}
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=comma)
    try:
        next(rows)
        for row in filter(None, rows):
            # A comma that nobody quoted belongs to the caption; a line break means an open quote.
            name, caption = row[0], comma.join(row[1:])
            if len(row) < 2 or "\n" in caption:
                raise InputError(f"caption file {path}, line {rows.line_num}: expected image{comma}caption; "
                                 "look for a missing comma or an unclosed quote")
            captions.setdefault(name, []).append(caption)
    except csv.Error as error:
        raise InputError(f"caption file {path}, line {rows.line_num}: not readable as CSV ({error}); "
                         "download it again") from error
    return captions
