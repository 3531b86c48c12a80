"""How do Scenes look to a program that knows only COCO's files?"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import CheckpointError, InputError
from ...files import Kind, check_output_file, check_output_folder, locked, say, write_text
from ...reading import read_bytes
from .world import KINDS

if TYPE_CHECKING:
    from .dataset import Scene

_FAMILIES = {"cat": "animal", "dog": "animal", "bird": "animal", "fish": "animal", "butterfly": "animal",
             "tree": "plant", "flower": "plant", "car": "vehicle", "boat": "vehicle", "house": "building"}
_FILE = Kind("file of Scenes", lambda path: read_bytes(path).startswith(b'{"info":{"description":"Scenes, '))
SCENES = Kind("folder of Scenes", lambda folder: any(map(_FILE.owns, folder.glob("*.json"))) or (
    all(re.fullmatch(r"scenes_\w+\.png", path.name) for path in (folder / "images").iterdir())))  # it was stopped
CATEGORIES = [{"id": number, "name": kind, "supercategory": _FAMILIES.get(kind, "household")}
              for number, kind in enumerate(KINDS, start=1)]


def write_coco(scenes: Sequence[Scene], folder: str | Path) -> dict[str, Path]:
    """Write `scenes`, all of one split, as COCO does: ``images/*.png``, ``{captions,instances}_<split>.json``.

    Masks are of the visible pixels, run-length encoded by pycocotools; boxes are (x, y, width, height) in pixels. Each
    annotation also says the thing's colour, size and group. Returns the paths {"images", "captions", "instances"}.
    Raises: InputError for no scenes or scenes of several splits, and where something else would be lost;
    CheckpointError where the file system refuses.
    """
    splits = {scene.split for scene in scenes}
    if len(splits) != 1:
        raise InputError(f"write_coco: got scenes of {len(splits)} splits, but a COCO file holds exactly one; call it "
                         "once for each split")
    split, folder = splits.pop(), check_output_folder(folder, SCENES)
    pictures, files = folder / "images", {name: folder / f"{name}_{split}.json" for name in ("captions", "instances")}
    for path in files.values():
        check_output_file(path, _FILE)
    images = [{"id": scene.id, "file_name": scene.file_name, "width": scene.size, "height": scene.size}
              for scene in scenes]
    content = {
        "captions": {"annotations": [{"id": 10 * scene.id + number, "image_id": scene.id, "caption": caption}
                                     for scene in scenes for number, caption in enumerate(scene.captions)]},
        "instances": {"annotations": [row for scene in scenes for row in _annotations(scene)],
                      "categories": CATEGORIES},
    }
    head = {"info": {"description": f"Scenes, {split} split", "version": "1"}, "licenses": [], "images": images}
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", say):
            for scene in scenes:
                scene.image.save(pictures / scene.file_name)
            for name, more in content.items():
                write_text(files[name], json.dumps(head | more, separators=(",", ":")) + "\n")
    except OSError as error:
        raise CheckpointError(f"could not write scenes into {folder}: {error.strerror or error}; make room or name "
                              "another folder, then run the same command") from error
    return {"images": pictures, **files}


def _annotations(scene: Scene) -> list[dict]:
    from pycocotools import mask as run_length
    out = []
    for number, (thing, (kind, mask)) in enumerate(zip(scene.things, scene.masks(), strict=True)):
        code = run_length.encode(np.asfortranarray(mask, dtype=np.uint8))
        out.append({
            "id": 10 * scene.id + number, "image_id": scene.id, "category_id": 1 + KINDS.index(kind), "iscrowd": 0,
            "segmentation": {"size": list(map(int, code["size"])), "counts": code["counts"].decode("ascii")},
            "area": int(run_length.area(code)), "bbox": [float(edge) for edge in run_length.toBbox(code)],
            "attributes": {"colour": thing.colour, "size": thing.size, "group": thing.group}})
    return out
