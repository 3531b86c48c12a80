"""How are Flickr8k's photographs and captions read?

Kaggle's layout: ``Images/*.jpg`` and ``captions.txt`` (a CSV file, "image,caption"), beside it the three
lists of the official split. Source: Hodosh, Young and Hockenmaier 2013, 8,000 photographs with five captions
each.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import InputError, MissingFileError
from .base import PhotoDataset

_LISTS = {"train": "Flickr_8k.trainImages.txt", "dev": "Flickr_8k.devImages.txt",
          "test": "Flickr_8k.testImages.txt"}


def read_flickr8k(root: str | Path, split: str, *, limit: int | None = None,
                  check_images: bool = True) -> PhotoDataset:
    """One official split: "train" (6,000 pictures), "dev" (also called "val") or "test" (1,000 each).

    An image's id is its file name. Raises: MissingFileError, InputError (see ``PhotoDataset``).
    """
    root, split = Path(root), "dev" if split == "val" else split
    if split not in _LISTS:
        raise InputError(f"data set flickr8k: no split {split!r}; choose train, dev (or val) or test")
    captions_file = root / "captions.txt"
    captions = _read_captions(captions_file)
    chosen = {}
    for name in _read_list(root / _LISTS[split]):
        if name not in captions:
            raise InputError(f"caption file {captions_file}: no caption for {name} of {_LISTS[split]}; "
                             "check that both are of the same release and complete")
        chosen[name] = captions[name]
    paths = {name: root / "Images" / name for name in chosen}
    return PhotoDataset("flickr8k", split, chosen, paths, source=captions_file, limit=limit,
                        check_images=check_images)


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise MissingFileError(f"split list {path.name} not found in {path.parent}; it is part of "
                               "Flickr8k_text.zip of the original release, Kaggle leaves it out")
    return path.read_text(encoding="utf-8").split()


def _read_captions(path: Path) -> dict[str, list[str]]:
    """Captions by file name, in the file's order."""
    if not path.is_file():
        raise MissingFileError(f"caption file {path.name} not found in {path.parent}; "
                               "Kaggle's Flickr8k holds captions.txt and a folder Images")
    captions: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        try:
            if next(rows, None) != ["image", "caption"]:
                raise InputError(f"caption file {path}, line 1: expected the header image,caption")
            for row in rows:
                if not row:
                    continue
                # A comma that nobody quoted belongs to the caption; a line break means an open quote.
                name, caption = row[0], ",".join(row[1:])
                if len(row) < 2 or "\n" in caption:
                    raise InputError(f"caption file {path}, line {rows.line_num}: expected image,caption; "
                                     "look for a missing comma or an unclosed quote")
                captions.setdefault(name, []).append(caption)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"caption file {path}, line {rows.line_num}: not readable as CSV ({error}); "
                             "download it again") from error
    return captions
