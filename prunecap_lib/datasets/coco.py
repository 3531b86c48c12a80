"""How are COCO's photographs, captions and instance masks read?

Layout, of either year: ``annotations/captions_val2017.json``, ``annotations/instances_val2017.json`` and
``val2017/*.jpg``. If Karpathy's ``dataset_coco.json`` lies there too, its train, val and test are used
instead: they cut across the official files, so the two must never be mixed. Sources: Lin et al. 2014 and Chen
et al. 2015 for COCO; Karpathy and Fei-Fei 2015 for the usual split (113,287 / 5,000 / 5,000).
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from ..errors import InputError, MissingFileError
from ..ranges import Natural
from ..reading import read_json
from .base import FileName, ImageId, PhotoDataset, StoredId, check_ids, list_folder, pictures_by_id, unknown_id

_LARGEST_SIDE = 30_000  # pixels


class _Image(msgspec.Struct):
    id: StoredId
    file_name: FileName


class _Caption(msgspec.Struct):
    image_id: StoredId
    caption: str | None = None
    id: Any = None


class _Captions(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Caption]


class _Sized(msgspec.Struct):
    id: StoredId
    height: Annotated[int, Meta(ge=1, le=_LARGEST_SIDE)]
    width: Annotated[int, Meta(ge=1, le=_LARGEST_SIDE)]


class _Runs(msgspec.Struct):
    """A mask as lengths of runs, column by column: 0 first, then 1, then 0; or as pycocotools' short text of them."""

    size: tuple[int, int]
    counts: list[Natural] | str


class _Object(msgspec.Struct):
    image_id: StoredId
    category_id: int
    segmentation: list[list[float]] | _Runs | None = None
    bbox: list[float] | None = None
    iscrowd: int | bool | None = 0
    id: Any = None


class _Category(msgspec.Struct):
    id: int
    name: str


class _Instances(msgspec.Struct):
    images: list[_Sized]
    annotations: list[_Object]
    categories: list[_Category]


class _Sentence(msgspec.Struct):
    raw: str


class _KarpathyImage(msgspec.Struct):
    cocoid: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    split: Literal["train", "restval", "val", "test"]  # a picture of any other would be in none, without a word
    filepath: FileName
    filename: FileName
    sentences: list[_Sentence]


class _Karpathy(msgspec.Struct):
    images: list[_KarpathyImage]


class CocoDataset(PhotoDataset):
    """Captioned pictures with, where an instances file is at hand, the mask of every object."""

    def __init__(self, *args, instances: Path | None = None, **options):
        super().__init__(*args, **options)
        self.instances = instances

    def masks(self, i: int) -> list[tuple[str, np.ndarray]]:
        """Category and boolean mask [H, W], in the picture's own pixels, of each object in picture i.

        Crowds are left out: their region is no single object. Of an object without an outline, its box is the mask.
        Raises: MissingFileError without an instances file, InputError where it cannot be used, does not know the
        picture, or has an object with no region that can be drawn.
        """
        (sizes, objects, names), id = self._objects, self.image_ids[i]
        if id not in sizes:
            raise InputError(f"instances file {self.instances}: {unknown_id(id, sizes)}")
        found = []
        for one in objects.get(id, []):
            try:
                found.append((names[one.category_id], _mask(one, *sizes[id])))
            except ValueError as error:
                raise InputError(f"instances file {self.instances}: annotation {one.id} of image {id} has no region "
                                 f"that can be drawn ({error}); take it out, or get the file again") from error
        return found

    @cached_property
    def _objects(self) -> tuple[dict, dict, dict]:
        """(height, width) and objects by image id, and names of categories by theirs."""
        if self.instances is None:
            raise MissingFileError(f"data set {self.name}: no instances file beside {self.source}; "
                                   "masks need annotations/instances_*.json of the same split")
        place = f"instances file {self.instances}"
        content = read_json(self.instances, _Instances, "instances file", "give instances in COCO's format")
        check_ids([(image.id, f"images[{k}]") for k, image in enumerate(content.images)], place)
        sizes = {image.id: (image.height, image.width) for image in content.images}
        names = {category.id: category.name for category in content.categories}
        objects: dict[ImageId, list[_Object]] = {}
        for one in content.annotations:
            if one.image_id not in sizes:
                raise InputError(f"{place}: annotation {one.id}: {unknown_id(one.image_id, sizes)}")
            if one.category_id not in names:
                raise InputError(f"{place}: annotation {one.id} is of category {one.category_id}, which has no entry "
                                 "under \"categories\"; add its name there, or take the annotation out")
            if not one.iscrowd:
                objects.setdefault(one.image_id, []).append(one)
        return sizes, objects, names


def _mask(one: _Object, height: int, width: int) -> np.ndarray:
    """An object's region as bool [H, W]. Raises ValueError where there is none."""
    from pycocotools import mask as coder

    runs = one.segmentation
    if isinstance(runs, _Runs):
        if runs.size != (height, width):
            raise ValueError(f"its mask is of {runs.size} pixels, the picture of {(height, width)}")
        if isinstance(runs.counts, str):
            found = coder.decode({"size": [height, width], "counts": runs.counts.encode()})
            if coder.encode(found)["counts"] != runs.counts.encode():  # runs that end early are not noticed there
                raise ValueError("its runs are not as long as the picture")
            return found.astype(bool)
        if sum(runs.counts) != height * width:
            raise ValueError("its runs are not as long as the picture")
        return coder.decode(coder.frPyObjects(msgspec.to_builtins(runs), height, width)).astype(bool)
    polygons = [points for points in runs or [] if len(points) >= 6 and len(points) % 2 == 0]
    if not polygons and one.bbox is not None and len(one.bbox) == 4:
        left, top, w, h = one.bbox
        polygons = [[left, top, left + w, top, left + w, top + h, left, top + h]]
    if not polygons:
        raise ValueError("neither an outline of three points or more nor a box of four numbers")
    # pycocotools walks along every outline in steps of a fifth of a pixel, however far that leads
    if any(abs(value) > 2 * max(height, width) for points in polygons for value in points):
        raise ValueError("it lies far outside the picture")
    return coder.decode(coder.merge(coder.frPyObjects(polygons, height, width))).astype(bool)


def read_coco(root: str | Path, split: str, *, limit: int | None = None, check_images: bool = True) -> CocoDataset:
    """A split of a COCO folder: "train" or "val" of 2017, else of 2014; "train", "val", "test" of Karpathy's.

    Raises: MissingFileError, InputError (see ``PhotoDataset``).
    """
    root, options = Path(root), {"limit": limit, "check_images": check_images}
    if split not in ("train", "val", "test"):
        raise InputError(f"data set coco: no split {split!r}; choose train, val or test")
    for karpathy in (root / "dataset_coco.json", root / "annotations" / "dataset_coco.json"):
        if os.path.lexists(karpathy):  # what is there and no file is refused, not passed over
            return read_karpathy(karpathy, root, split, **options)
    if split == "test":
        raise MissingFileError("data set coco: COCO's own test captions are not public; put Karpathy's "
                               f"dataset_coco.json into {root} for its test split: prunecap data coco --root {root} "
                               "--split karpathy")
    for year in (2017, 2014):
        captions = root / "annotations" / f"captions_{split}{year}.json"
        if os.path.lexists(captions):
            instances = captions.with_name(f"instances_{split}{year}.json")
            return read_coco_files(captions, root / f"{split}{year}", split=split,
                                   instances=instances if os.path.lexists(instances) else None, **options)
    raise MissingFileError(f"data set coco: neither captions_{split}2017.json nor captions_{split}2014.json "
                           f"in {root / 'annotations'}; fetch them with prunecap data coco --root {root}")


def read_coco_files(captions: str | Path, images: str | Path, *, split: str = "val", limit: int | None = None,
                    instances: str | Path | None = None, check_images: bool = True) -> CocoDataset:
    """Any caption file in COCO's format with its folder of pictures; pictures without a caption are left out.

    Raises: MissingFileError, InputError (see ``PhotoDataset``).
    """
    captions, instances = Path(captions), None if instances is None else Path(instances)
    content = read_json(captions, _Captions, "caption file", "give a captions_*.json file in COCO's format")
    paths = pictures_by_id([(image.id, image.file_name) for image in content.images], Path(images), captions)
    texts: dict[ImageId, list[str]] = {id: [] for id in paths}
    for annotation in content.annotations:
        if annotation.image_id not in texts:
            raise InputError(f"caption file {captions}: {unknown_id(annotation.image_id, texts)}")
        if annotation.caption is None:
            raise InputError(f"caption file {captions}: annotation {annotation.id} has no caption; "
                             "give a captions_*.json file, not instances")
        texts[annotation.image_id].append(annotation.caption)
    return CocoDataset("coco", split, {id: lines for id, lines in texts.items() if lines}, paths, source=captions,
                       limit=limit, check_images=check_images, instances=instances)


def read_karpathy(file: str | Path, root: str | Path, split: str, *, limit: int | None = None,
                  check_images: bool = True) -> CocoDataset:
    """Karpathy's split; "train" holds his "restval" too, as is usual. Pictures of either year will do."""
    file, root = Path(file), Path(root)
    splits = ("train", "restval") if split == "train" else (split,)
    have = {folder: list_folder(root / folder) for folder in ("train2017", "val2017") if (root / folder).is_dir()}
    content = read_json(file, _Karpathy, "split file",
                        "it is not Karpathy's split of COCO: take dataset_coco.json from caption_datasets.zip")
    paths = pictures_by_id([(entry.cocoid, f"{entry.filepath}/{entry.filename}") for entry in content.images], root,
                           file)
    texts = {entry.cocoid: [sentence.raw for sentence in entry.sentences]
             for entry in content.images if entry.split in splits}
    for id in texts:
        name = f"{id:012d}.jpg"  # 2017 has the pictures of 2014, shared out anew and named by their number alone
        if newer := next((folder for folder, names in have.items() if name in names), None):
            paths[id] = root / newer / name
    return CocoDataset("coco-karpathy", split, texts, paths, source=file, limit=limit, check_images=check_images)
