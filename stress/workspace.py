"""What do the bad inputs happen to? A small workspace with one of everything that is read, and the commands."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

TRAIN = ["train", "--dataset", "coco", "--root", "coco", "--epochs", "1", "--d-model", "16", "--layers", "1", "--heads",
         "2", "--ffn", "16", "--batch-size", "2", "--captions-per-image", "1", "--no-progress", "--draw", "0",
         "--tracker", "none", "--precision", "fp32"]
CAPTION = ["caption", "photo.jpg", "--checkpoint", "model", "--method", "greedy", "--max-length", "4"]
EVALUATE = ["evaluate", "--checkpoint", "model", "--dataset", "coco", "--root", "coco", "--split", "val",
            "--max-length",
            "4", "--metrics", "CIDEr", "--no-progress"]
SCORE = ["evaluate", "--captions", "captions.json", "--dataset", "coco", "--root", "coco", "--split", "val",
         "--metrics",
         "CIDEr", "--no-progress"]
INFO = ["data", "info", "--dataset", "coco", "--root", "coco"]
KARPATHY = ["data", "info", "--dataset", "coco", "--root", "karpathy"]
FLICKR = ["data", "info", "--dataset", "flickr8k", "--root", "flickr8k", "--split", "train"]
FROM_SHARDS = ["shards" if word == "coco" else word for word in EVALUATE]
FEATURES = ["data", "features", "--dataset", "coco", "--root", "coco", "--split", "val", "--checkpoint", "model",
            "--out", "features", "--no-progress"]
RESUME = TRAIN + ["--out", "run", "--keep-last", "1"]


def build(place: Path) -> None:
    """A small captioner, a run, COCO, Flickr8k, shards and features of four pictures, and files of the user's."""
    from PIL import Image

    from prunecap_lib import Captioner, CaptionerConfig, Vocabulary
    from prunecap_lib.cli import main
    captions = ["a red cat", "two dogs run on the grass", "a man in a blue coat", "a small green boat"]
    coco = place / "coco"
    for split, first in (("train", 0), ("val", 10)):
        (coco / f"{split}2017").mkdir(parents=True)
        rows = [{"id": first + i, "file_name": f"{first + i:012d}.jpg", "width": 60, "height": 40} for i in range(4)]
        for i, row in enumerate(rows):
            Image.effect_noise((60, 40), 60 + i).convert("RGB").save(coco / f"{split}2017" / row["file_name"])
        lines = [{"id": 10 * first + i, "image_id": first + i % 4, "caption": captions[i % 4]} for i in range(8)]
        shapes = [{"id": i, "image_id": first + i, "category_id": 3, "iscrowd": 0, "area": 100, "bbox": [2, 2, 10, 10],
                   "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]} for i in range(4)]
        write_json(coco / "annotations" / f"captions_{split}2017.json", {"images": rows, "annotations": lines})
        write_json(coco / "annotations" / f"instances_{split}2017.json",
               {"images": rows, "annotations": shapes, "categories": [{"id": 3, "name": "cat"}]})
    karpathy = place / "karpathy"
    shutil.copytree(coco, karpathy)
    write_json(karpathy / "dataset_coco.json", {"images": [
        {"cocoid": 10 * (split == "val") + i, "split": split, "filepath": f"{split}2017",
         "filename": f"{10 * (split == 'val') + i:012d}.jpg", "sentids": [i], "imgid": i,
         "sentences": [{"raw": captions[i], "tokens": captions[i].split(), "sentid": i, "imgid": i}]}
        for split in ("train", "val") for i in range(4)], "dataset": "coco"})
    flickr = place / "flickr8k"
    (flickr / "Images").mkdir(parents=True)
    names = [f"{i}_a.jpg" for i in range(6)]
    for i, name in enumerate(names):
        Image.effect_noise((50, 50), 50 + i).convert("RGB").save(flickr / "Images" / name)
    (flickr / "captions.txt").write_text("image,caption\n" + "".join(
        f"{name},{caption} .\n" for name in names for caption in captions[:2]))
    (flickr / "Flickr_8k.trainImages.txt").write_text("\n".join(names[:3]) + "\n")
    (flickr / "Flickr_8k.devImages.txt").write_text("\n".join(names[3:]) + "\n")
    shutil.copy(coco / "train2017" / "000000000000.jpg", place / "photo.jpg")
    (place / "photos").mkdir()
    for i in range(3):
        shutil.copy(coco / "train2017" / f"{i:012d}.jpg", place / "photos" / f"{i}.jpg")
    write_json(place / "captions.json", [{"image_id": 10 + i, "caption": captions[i]} for i in range(4)])
    Captioner(CaptionerConfig(d_model=16, layers=1, heads=2, ffn=16, max_length=24),
              Vocabulary.build(captions)).save(place / "model")
    os.chdir(place)
    for split in ("train", "val"):
        main(["data", "shards", "--dataset", "coco", "--root", "coco", "--split", split, "--out", "shards",
              "--no-progress"])
    main(FEATURES)
    main(TRAIN + ["--out", "run", "--keep-last", "1"])
    user = place / "user"
    user.mkdir()
    (user / "notes.txt").write_text("years of work\n")
    (user / "table.json").write_text('{"mine": 1}')
    (user / "page.html").write_text("<p>mine</p>")
    Image.new("RGB", (9, 9)).save(user / "holiday.png")


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
