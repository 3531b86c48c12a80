"""Are COCO's captions, masks and splits read right, and does a mix-up of files say so?"""

import json
import os

import numpy as np
import pytest
from PIL import Image

from prunecap_lib.datasets import open_dataset
from prunecap_lib.datasets.coco import read_coco, read_coco_files
from prunecap_lib.errors import InputError, MissingFileError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def make(root, split="val", year=2017, ids=(7, 42)):
    """A tiny COCO: pictures, two captions each, one box of a mask each."""
    name = "{:012d}.jpg" if year == 2017 else f"COCO_{split}{year}_{{:012d}}.jpg"
    images = [{"id": id, "file_name": name.format(id), "height": 20, "width": 30} for id in ids]
    (root / f"{split}{year}").mkdir(parents=True, exist_ok=True)
    for image in images:
        Image.new("RGB", (30, 20), "red").save(root / f"{split}{year}" / image["file_name"])
    captions = [{"id": 10 * id + k, "image_id": id, "caption": f"picture {id} has caption {k}\n"}
                for id in ids for k in range(2)]
    boxes = [{"id": id, "image_id": id, "category_id": 3, "iscrowd": 0, "bbox": [10, 5, 8, 4], "area": 32,
              "segmentation": [[10, 5, 18, 5, 18, 9, 10, 9]]} for id in ids]
    crowd = dict(boxes[0], id=999, iscrowd=1, segmentation={"size": [20, 30], "counts": [0, 600]})
    write(root / "annotations" / f"captions_{split}{year}.json", {"images": images, "annotations": captions})
    write(root / "annotations" / f"instances_{split}{year}.json",
          {"images": images, "annotations": [*boxes, crowd], "categories": [{"id": 3, "name": "car"}]})
    return root


@pytest.mark.parametrize("year", [2014, 2017])
def test_reads_captions_and_pictures_of_both_years(tmp_path, year, capsys):
    data = open_dataset("coco", split="val", root=make(tmp_path, year=year))
    assert data.image_ids == [7, 42] and (data.name, data.split) == ("coco", "val")
    assert data.captions[1] == ["picture 42 has caption 0", "picture 42 has caption 1"]
    assert data.image(1).size == (30, 20)
    data.masks(0)
    assert capsys.readouterr().out == ""


def test_masks_are_in_picture_pixels_and_leave_crowds_out(tmp_path):
    (category, mask), = read_coco(make(tmp_path), "val").masks(0)
    assert category == "car" and mask.dtype == bool and mask.shape == (20, 30)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 8, 10, 17)


def test_masks_need_the_instances_of_the_same_split(tmp_path):
    make(tmp_path)
    instances = tmp_path / "annotations" / "instances_val2017.json"
    write(instances, {"images": [], "annotations": [], "categories": []})
    with pytest.raises(InputError, match="image_id 7 has no entry.*same split"):
        read_coco(tmp_path, "val").masks(0)
    instances.unlink()
    with pytest.raises(MissingFileError, match="no instances file"):
        read_coco(tmp_path, "val").masks(0)


def test_captions_of_another_split_are_noticed(tmp_path):
    captions = make(tmp_path) / "annotations" / "captions_val2017.json"
    content = json.loads(captions.read_text())
    content["annotations"][0]["image_id"] = 43
    write(captions, content)
    with pytest.raises(InputError, match="captions_val2017.json: image_id 43 has no entry.*same split"):
        read_coco(tmp_path, "val")
    make(tmp_path, "train", ids=(1, 2))
    with pytest.raises(MissingFileError, match=r"000000000001.jpg and 1 more not found in folder .*val2017"):
        read_coco_files(tmp_path / "annotations" / "captions_train2017.json", tmp_path / "val2017")


def test_missing_picture_names_file_and_folder(tmp_path):
    make(tmp_path)
    (tmp_path / "val2017" / "000000000042.jpg").unlink()
    with pytest.raises(MissingFileError, match="000000000042.jpg not found in folder .*val2017"):
        read_coco(tmp_path, "val")
    assert len(read_coco(tmp_path, "val", limit=1)) == 1  # a picture that is not used may be absent
    assert len(read_coco(tmp_path, "val", check_images=False)) == 2
    with pytest.raises(MissingFileError, match="folder .*elsewhere not found"):
        read_coco_files(tmp_path / "annotations" / "captions_val2017.json", tmp_path / "elsewhere")


def test_wrong_files_name_what_is_wrong(tmp_path):
    folder = make(tmp_path) / "annotations"
    with pytest.raises(InputError, match="annotation 7 has no caption; give a captions"):
        read_coco_files(folder / "instances_val2017.json", tmp_path / "val2017")
    with pytest.raises(MissingFileError, match="captions_train2017.json nor captions_train2014.json"):
        read_coco(tmp_path, "train")
    captions = folder / "captions_val2017.json"
    whole = captions.read_text()
    for content, message in [(whole.replace(", ", ",\n")[:-9], r"line \d\d: not valid JSON"),
                             ("[]", "expected an object, got a list"), ("{}", "missing required field images"),
                             ('{"images": [{}], "annotations": []}', r"images\[0\]: .*missing required field id"),
                             ('{"images": [], "annotations": []}', "no captioned picture")]:
        captions.write_text(content)
        with pytest.raises(InputError, match=message):
            read_coco(tmp_path, "val")


@pytest.mark.parametrize("year", [2014, 2017])
def test_karpathy_split_takes_over(tmp_path, year):
    make(tmp_path, "val" if year == 2014 else "train", year, ids=(1, 2, 3))
    entries = [{"cocoid": id, "split": split, "sentences": [{"raw": f"caption of {id}.", "tokens": []}],
                "filepath": "val2014", "filename": f"COCO_val2014_{id:012d}.jpg"}
               for id, split in ((1, "train"), (2, "restval"), (3, "test"))]
    write(tmp_path / "dataset_coco.json", {"images": entries})
    train, test = (open_dataset("coco", split=split, root=tmp_path) for split in ("train", "test"))
    assert (train.name, train.image_ids, test.image_ids) == ("coco-karpathy", [1, 2], [3])
    assert test.captions == [["caption of 3."]] and test.image(0).size == (30, 20)
    with pytest.raises(InputError, match="the val split holds no captioned picture"):
        open_dataset("coco", split="val", root=tmp_path)
    write(tmp_path / "dataset_coco.json", {"images": [*entries, entries[0] | {"cocoid": 4, "split": "training"}]})
    with pytest.raises(InputError, match=r"images\[3\].split is \"training\".*not Karpathy's split"):
        open_dataset("coco", split="train", root=tmp_path)
    write(tmp_path / "dataset_coco.json", {"images": [{"cocoid": 1}]})
    with pytest.raises(InputError, match="not Karpathy's split"):
        open_dataset("coco", split="test", root=tmp_path)


def test_test_split_needs_karpathy(tmp_path):
    with pytest.raises(MissingFileError, match="dataset_coco.json"):
        open_dataset("coco", split="test", root=make(tmp_path))
    with pytest.raises(InputError, match="no split 'dev'"):
        open_dataset("coco", split="dev", root=tmp_path)


@pytest.mark.skipif(not os.environ.get("PRUNECAP_PHOTOS"), reason="PRUNECAP_PHOTOS is not set")
def test_the_real_slice():
    data = open_dataset("coco", split="val")
    assert len(data) == 40
    for i in range(len(data)):
        width, height = data.image(i).size
        assert all(mask.shape == (height, width) and mask.any() for _, mask in data.masks(i))


def test_scenes_in_cocos_format_come_back_whole(tmp_path):
    from prunecap_lib.datasets.scenes import write_coco

    scenes = open_dataset("scenes", split="val", limit=3)
    assert len(scenes) == 3 and len(open_dataset("scenes", split="val", limit=5)) == 5
    write_coco(scenes.scenes, tmp_path)
    annotations = next(tmp_path.rglob("captions_*.json"))
    data = read_coco_files(annotations, tmp_path / "images",
                           instances=annotations.with_name(annotations.name.replace("captions", "instances")))
    assert data.captions == scenes.captions
    for i in range(3):
        assert np.array_equal(np.asarray(data.image(i)), np.asarray(scenes.image(i)))
        ours, theirs = scenes.masks(i), data.masks(i)
        assert [label for label, _ in ours] == [label for label, _ in theirs]
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True))


def test_scenes_have_their_own_splits():
    with pytest.raises(InputError, match="choose one of train, val, test, heldout"):
        open_dataset("scenes", split="dev")
    with pytest.raises(InputError, match="limit of 0"):
        open_dataset("scenes", split="val", limit=0)


def test_a_split_file_that_is_no_file_is_not_passed_over(tmp_path):
    make(tmp_path)
    assert read_coco(tmp_path, "val").name == "coco"
    (tmp_path / "dataset_coco.json").mkdir()
    with pytest.raises(InputError, match="dataset_coco.json is a folder"):
        read_coco(tmp_path, "val")
