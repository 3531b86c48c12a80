"""How are COCO's photographs, captions and instance masks read?

Layout, of either year: ``annotations/captions_val2017.json``, ``annotations/instances_val2017.json`` and
``val2017/*.jpg``. If Karpathy's ``dataset_coco.json`` lies there too, its train, val and test are used
instead: they cut across the official files, so the two must never be mixed. Sources: Lin et al. 2014 and Chen
et al. 2015 for COCO; Karpathy and Fei-Fei 2015 for the usual split (113,287 / 5,000 / 5,000).
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingFileError
from .base import ImageId, PhotoDataset, list_folder, read_json


class CocoDataset(PhotoDataset):
    """Captioned pictures with, where an instances file is at hand, the mask of every object."""

    def __init__(self, *args, instances: Path | None = None, **options):
        super().__init__(*args, **options)
        self.instances = instances

    def masks(self, i: int) -> list[tuple[str, np.ndarray]]:
        """Category and boolean mask [H, W], in the picture's own pixels, of each object in picture i.

        Crowds are left out: their region is no single object.
        Raises: MissingFileError without an instances file, InputError where it does not know the picture.
        """
        coco, id = self._instances, self.image_ids[i]
        if id not in coco.imgs:
            raise InputError(f"instances file {self.instances}: image_id {id} has no entry under \"images\"; "
                             "check that captions and instances are of the same split")
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[id], iscrowd=False))
        return [(coco.cats[one["category_id"]]["name"], coco.annToMask(one).astype(bool))
                for one in annotations]

    @cached_property
    def _instances(self):
        if self.instances is None:
            raise MissingFileError(f"data set {self.name}: no instances file beside {self.source}; "
                                   "masks need annotations/instances_*.json of the same split")
        return _index(self.instances)


def read_coco(root: str | Path, split: str, *, limit: int | None = None,
              check_images: bool = True) -> CocoDataset:
    """A split of a COCO folder: "train" or "val" of 2017, else of 2014; "train", "val", "test" of Karpathy's.

    Raises: MissingFileError, InputError (see ``PhotoDataset``).
    """
    root = Path(root)
    options = {"limit": limit, "check_images": check_images}
    if split not in ("train", "val", "test"):
        raise InputError(f"data set coco: no split {split!r}; choose train, val or test")
    for karpathy in (root / "dataset_coco.json", root / "annotations" / "dataset_coco.json"):
        if karpathy.is_file():
            return read_karpathy(karpathy, root, split, **options)
    if split == "test":
        raise MissingFileError(f"data set coco: COCO's own test captions are not public; put Karpathy's "
                               f"dataset_coco.json into {root} for its test split: prunecap data coco --root {root} "
                               "--split karpathy")
    for year in (2017, 2014):
        captions = root / "annotations" / f"captions_{split}{year}.json"
        if captions.is_file():
            instances = captions.with_name(f"instances_{split}{year}.json")
            return read_coco_files(captions, root / f"{split}{year}", split=split,
                                   instances=instances if instances.is_file() else None, **options)
    raise MissingFileError(f"data set coco: neither captions_{split}2017.json nor captions_{split}2014.json "
                           f"in {root / 'annotations'}; fetch them with prunecap data coco --root {root}")


def read_coco_files(captions: str | Path, images: str | Path, *, split: str = "val", name: str = "coco",
                    instances: str | Path | None = None, limit: int | None = None,
                    check_images: bool = True) -> CocoDataset:
    """Any caption file in COCO's format with its folder of pictures; pictures without a caption are left out.

    Raises: MissingFileError, InputError (see ``PhotoDataset``).
    """
    captions, images = Path(captions), Path(images)
    coco = _index(captions)
    texts: dict[ImageId, list[str]] = {id: [] for id in coco.imgs}
    for annotation in coco.dataset["annotations"]:
        id = annotation.get("image_id")
        if id not in texts:
            raise InputError(f"caption file {captions}: image_id {id} has no entry under \"images\"; "
                             "check that images and annotations are of the same split")
        if not isinstance(annotation.get("caption"), str):
            raise InputError(f"caption file {captions}: annotation {annotation.get('id')} has no caption; "
                             "give a captions_*.json file, not instances")
        texts[id].append(annotation["caption"])
    texts = {id: lines for id, lines in texts.items() if lines}
    paths = {id: images / coco.imgs[id]["file_name"] for id in texts}
    return CocoDataset(name, split, texts, paths, source=captions, limit=limit, check_images=check_images,
                       instances=None if instances is None else Path(instances))


def read_karpathy(file: str | Path, root: str | Path, split: str, *, limit: int | None = None,
                  check_images: bool = True) -> CocoDataset:
    """Karpathy's split; "train" holds his "restval" too, as is usual. Pictures of either year will do."""
    file, root = Path(file), Path(root)
    splits = ("train", "restval") if split == "train" else (split,)
    have = {folder: list_folder(root / folder) for folder in ("train2017", "val2017")
            if (root / folder).is_dir()}
    content, texts, paths = read_json(file), {}, {}
    try:
        for entry in content["images"]:
            if entry["split"] not in splits:
                continue
            id = int(entry["cocoid"])
            texts[id] = [sentence["raw"] for sentence in entry["sentences"]]
            # 2017 has the pictures of 2014, shared out anew and named by their number alone.
            name = f"{id:012d}.jpg"
            newer = next((folder for folder, names in have.items() if name in names), None)
            paths[id] = root / newer / name if newer else root / entry["filepath"] / entry["filename"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"file {file}: not Karpathy's split of COCO (images with cocoid, split, filepath, "
                         f"filename and sentences; {error!r}); fetch caption_datasets.zip again") from error
    return CocoDataset("coco-karpathy", split, texts, paths, source=file, limit=limit,
                       check_images=check_images)


def _index(path: Path):
    """A ``pycocotools.coco.COCO`` over a file, without its prints."""
    from pycocotools.coco import COCO

    content = read_json(path)
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            raise InputError(f"file {path}: no list \"{key}\"; give an annotation file in COCO's format")
    coco = COCO()
    coco.dataset = content
    try:
        with redirect_stdout(io.StringIO()):
            coco.createIndex()
    except (KeyError, TypeError) as error:
        raise InputError(f"file {path}: an entry lacks {error}; "
                         "give an annotation file in COCO's format") from error
    return coco
