"""How do captions travel to other programs and back? As COCO's results: [{"image_id": 42, "caption": "a dog"}, ...].

pycocotools' ``COCO.loadRes`` and the COCO server take such a list. Format: Chen et al. 2015, "Microsoft COCO Captions:
Data Collection and Evaluation Server".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from ..datasets.base import CaptionDataset, ImageId, StoredId
from ..errors import InputError
from ..files import Kind, write_text
from ..reading import read_json, read_text
from ..text import one_line


def is_results(path: Path) -> bool:
    """Are these results that we wrote, and nobody has changed since?"""
    text = read_text(path)
    rows = json.loads(text)
    return text == _as_text(rows) and all(row.keys() == {"image_id", "caption"} for row in rows)


def _as_text(rows: list[dict]) -> str:
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


RESULTS = Kind("file of results as prunecap writes it", is_results)


class _Row(msgspec.Struct):
    image_id: StoredId
    caption: str


class _Report(msgspec.Struct):
    captions: dict[str, str]


def check_ids(ids: Iterable[ImageId]) -> None:
    """Raise InputError where an id is no whole number: COCO's results know no others."""
    for id in ids:
        if not isinstance(id, int):
            raise InputError(f"image id {id!r} is no whole number, but COCO's results format needs one for each "
                             "picture; write a report with --out instead, which takes any id")


def write_results(path: str | Path, texts: Mapping[ImageId, str]) -> None:
    """Write captions by image id in COCO's results format. Raises InputError for an id that is no whole number, and for
    a file that is something else; CheckpointError where the file system refuses."""
    check_ids(texts)
    write_text(path, _as_text([{"image_id": id, "caption": text} for id, text in texts.items()]), RESULTS)


def ids_of_files(paths: Sequence[Path]) -> dict[Path, int]:
    """The image ids that COCO's file names end in: COCO_test2014_000000000042.jpg and 000000000042.jpg are 42.

    Raises InputError for a name that ends in no number, and for two names that end in the same.
    """
    ids: dict[int, Path] = {}
    for path in paths:
        number = re.search(r"\d+$", path.stem)
        if number is None:
            raise InputError(f"picture {path}: its name ends in no number, which COCO's results format takes for the "
                             "image id; rename it, like 000000000042.jpg")
        if (before := ids.setdefault(int(number[0]), path)) != path:
            raise InputError(f"pictures {before} and {path}: both names end in the number {int(number[0])}, which "
                             "COCO's results format takes for the image id; give pictures of one folder of COCO")
    return {path: id for id, path in ids.items()}


def read_captions(path: str | Path, dataset: CaptionDataset) -> dict[ImageId, str]:
    """A caption for each of a data set's pictures, from a COCO results file or a report of ``prunecap evaluate --out``.

    Captions of other pictures are left out, so that the results of a whole split serve a part of it.

    Raises: MissingFileError; InputError where the file is of another format, tells of a picture twice, or says nothing
    of some picture.
    """
    content = read_json(path, list[_Row] | _Report, "captions file", 'it is not a list of {"image_id": ..., "caption": '
                        "...} as COCO's results are, nor a report of prunecap evaluate --out")
    rows = (list(content.captions.items()) if isinstance(content, _Report)
            else [(row.image_id, row.caption) for row in content])
    found = {str(id): one_line(text) for id, text in rows}
    if len(found) < len(rows):
        raise InputError(f"captions file {path}: {len(rows) - len(found)} captions are of pictures that have "
                         "one already; leave one for each")
    missing = [id for id in dataset.image_ids if str(id) not in found]
    if missing:
        raise InputError(f"captions file {path}: no caption for image {missing[0]} ({len(missing)} of {len(dataset)} "
                         f"pictures of {dataset.name} {dataset.split} lack one); caption them too, or choose the data "
                         "set and split that it was made for")
    return {id: found[str(id)] for id in dataset.image_ids}
