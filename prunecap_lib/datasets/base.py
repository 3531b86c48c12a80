"""What is a captioned data set, whatever its files look like?

``CaptionDataset`` is what training and evaluation rely on; ``PhotoDataset`` is the form of it that reads pictures from
folders. Pictures are counted by position i; ``image_ids[i]`` is the name that the source gave.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Container, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from PIL import Image
from torch import Tensor

from ..errors import InputError, MissingFileError
from ..preprocessing import load_image, read_picture
from ..text import has_words, one_line

ImageId = int | str
# as files may hold them: what a 64-bit integer holds, or some text
StoredId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(min_length=1, max_length=1000)]
FileName = Annotated[str, Meta(min_length=1, max_length=4096)]


class CaptionDataset:
    """Pictures with several captions each, and what a source may offer beyond that.

    Attributes:
        name, split: say which data this is, and name its caches.
        image_ids: one id a picture, as its source numbers it.
        captions: ``captions[i]`` are the captions of ``image_ids[i]``; at least one.
        in_files: are pictures read from files? Only then there are ``encoded`` and ``stamp``.
        scenes: all that is true of each picture, where they were drawn (see ``scenes.Scene``); else None.
    """

    name: str
    split: str
    image_ids: list[ImageId]
    captions: list[list[str]]
    in_files: bool = False
    scenes: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def image(self, i: int) -> Image.Image:
        """Picture i, upright 8-bit RGB in its own size. Raises PictureError where it cannot be read."""
        raise NotImplementedError

    def references(self) -> dict[ImageId, list[str]]:
        """Captions by image id, as the metrics take them."""
        return dict(zip(self.image_ids, self.captions, strict=True))

    def pixels(self) -> np.ndarray | None:
        """All pictures at once, uint8 [n, 3, S, S], where they are small and of one size; else None."""
        return None

    def order(self, generator: torch.Generator) -> Tensor:
        """All positions once, shuffled, [n]: an epoch."""
        return torch.randperm(len(self), generator=generator)

    def encoded(self, i: int) -> bytes:
        """Picture i as it is stored, mostly a JPEG. Raises what ``image`` raises where it cannot be got at."""
        raise NotImplementedError

    def stamp(self, i: int) -> tuple[int, int]:
        """What changes when picture i's file is replaced. Raises MissingFileError."""
        raise NotImplementedError


class PhotoDataset(CaptionDataset):
    """Captioned picture files.

    Captions without a single word are left out: one bad line must not cost a data set of 600,000. A warning counts them
    and names the first.

    Args:
        name, split: say which data this is.
        captions: by image id, in the data set's order.
        paths: picture file by image id.
        source: the caption file, for messages.
        limit: keep only the first so many pictures.
        check_images: look now whether every picture is there, not hours later. ``False`` for text alone.

    Raises: InputError for a picture without any caption; MissingFileError for missing pictures.
    """

    in_files = True

    def __init__(self, name: str, split: str, captions: dict[ImageId, list[str]], paths: dict[ImageId, Path], *,
                 source: Path, limit: int | None = None, check_images: bool = True):
        self.name, self.split, self.source = name, split, source
        self.image_ids = list(captions)[:limit]
        if not self.image_ids:
            raise InputError(f"caption file {source}: the {split} split holds no captioned picture; "
                             "check that it is a caption file of this split")
        # Line breaks inside a caption (COCO has some) would split it in two for METEOR's tokenizer.
        self.captions = [[one_line(caption) for caption in captions[id] if has_words(caption)] for id in self.image_ids]
        skipped = {id: len(captions[id]) - len(worded) for id, worded in zip(self.image_ids, self.captions, strict=True)
                   if len(worded) < len(captions[id])}
        if [] in self.captions:
            raise InputError(f"caption file {source}: image {self.image_ids[self.captions.index([])]} has only empty "
                             "captions; write one or take the picture out")
        if skipped:
            warnings.warn(f"caption file {source}: {sum(skipped.values())} empty captions left out, the first of image "
                          f"{next(iter(skipped))}", stacklevel=3)
        self.paths = [paths[id] for id in self.image_ids]
        if check_images:
            folders = {folder: list_folder(folder) for folder in {path.parent for path in self.paths}}
            if missing := [path for path in self.paths if path.name not in folders[path.parent]]:
                rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise MissingFileError(f"picture {missing[0].name}{rest} not found in folder {missing[0].parent}, but "
                                       f"named in {source}; check that folder and caption file are of the same split "
                                       "and complete")

    def image(self, i: int) -> Image.Image:
        return load_image(self.paths[i])

    def encoded(self, i: int) -> bytes:
        return read_picture(self.paths[i])

    def stamp(self, i: int) -> tuple[int, int]:
        """Bytes and time of picture i's file."""
        try:
            found = self.paths[i].stat()
        except OSError as error:
            raise MissingFileError(f"picture {self.paths[i]}: {error.strerror or error}; it was there before, put it "
                                   "back") from error
        return found.st_size, found.st_mtime_ns


def pictures_by_id(entries: Collection[tuple[ImageId, str]], folder: Path, source: Path) -> dict[ImageId, Path]:
    """Picture files by id, from what a caption file says: (id, name inside ``folder``).

    Raises InputError where an id stands twice, so that nobody can tell whose captions are whose, and where a name leads
    out of the folder. A picture under two ids is two pictures, which a warning says.
    """
    check_ids(entries, f"caption file {source}")
    names: dict[str, ImageId] = {}
    for id, name in entries:
        parts = name.replace("\\", "/").split("/")
        if "\0" in name or parts[-1] in ("", ".") or ".." in parts or os.path.isabs(name):
            raise InputError(f"caption file {source}: the file_name of image {id} is {name!r}, which names no file in "
                             f"{folder}; give its name from that folder on")
        names.setdefault(name, id)
    if len(names) < len(entries):
        name, id, other = next((name, names[name], id) for id, name in entries if names[name] != id)
        warnings.warn(f"caption file {source}: {len(entries) - len(names)} pictures have several ids, {name} for one "
                      f"({id} and {other}); each id counts as a picture of its own", stacklevel=4)
    return {id: folder / name for id, name in entries}


def check_ids(entries: Collection[tuple[ImageId, str]], place: str) -> None:
    """Raise InputError where two of these (id, what is said of it) have one id; 7 and "7" are one."""
    seen: dict[str, tuple[ImageId, str]] = {}
    for id, told in entries:
        if str(id) in seen:
            before, what = seen[str(id)]
            raise InputError(f"{place}: image id {before!r} stands twice, for {what} and for {told}"
                             + (f" (there as {id!r})" if id != before else "")
                             + "; give each picture an id of its own, and its captions the same")
        seen[str(id)] = id, told


def unknown_id(id: ImageId, known: Container[ImageId]) -> str:
    """What to say of an id that is not among the known: whether it is there as another kind."""
    other = str(id) if isinstance(id, int) else int(id) if id.isdecimal() else None
    if other not in known:
        return f'image_id {id} has no entry under "images"; check that both are of the same split'
    text, number = (id, other) if isinstance(id, str) else (other, id)
    there = "the number" if isinstance(other, int) else "the text"
    return (f'image_id {id!r} has no entry under "images", but {there} {other!r} has: the text {text!r} is not the '
            f"number {number}; write ids alike in both")


def list_folder(folder: Path) -> set[str]:
    """Names in a folder: one look, where asking for each of 100,000 files takes long on a network disk."""
    try:
        return set(os.listdir(folder))
    except (OSError, ValueError) as error:
        raise MissingFileError(f"folder {folder} not found or not readable; it should hold the pictures") from error


def photos_root(name: str, root: str | Path | None) -> Path:
    """The data set's folder: ``root``, or else $PRUNECAP_PHOTOS/name. Raises MissingFileError."""
    photos = os.environ.get("PRUNECAP_PHOTOS")
    if root is None and not photos:
        raise MissingFileError(f"data set {name}: no folder given; set PRUNECAP_PHOTOS to the folder that holds "
                               f"{name}/, or name the data set's own folder as root")
    root = Path(photos) / name if root is None else Path(root)
    if not os.path.isdir(root):
        raise MissingFileError(f"data set {name}: folder {root} not found; check PRUNECAP_PHOTOS or the root")
    return root
