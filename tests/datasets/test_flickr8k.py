"""Is Flickr8k in Kaggle's layout read right, and does each kind of broken copy say what is wrong?"""

import os

import pytest
from PIL import Image

from prunecap_lib.datasets import CaptionDataset, open_dataset
from prunecap_lib.datasets.flickr8k import own_split, read_flickr8k
from prunecap_lib.errors import InputError, MissingFileError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "Images").mkdir()
    lines = ["image,caption"]
    for name, colour in (("a.jpg", "red"), ("b.jpg", "green"), ("c.jpg", "blue")):
        Image.new("RGB", (30, 20), colour).save(tmp_path / "Images" / name)
        lines += [f'{name},"A {colour} wall , with ""nothing"" on it ."', f"{name},a {colour} picture"]
    (tmp_path / "captions.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("c.jpg\na.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("b.jpg\n")
    return tmp_path


def append(root, text):
    with (root / "captions.txt").open("a") as file:
        file.write(text)


def test_reads_commas_quotes_and_the_official_split(root):
    data = open_dataset("flickr8k", split="train", root=root)
    assert isinstance(data, CaptionDataset)
    assert (data.name, data.split, len(data), data.image_ids) == ("flickr8k", "train", 2, ["c.jpg", "a.jpg"])
    assert data.captions[0] == ['A blue wall , with "nothing" on it .', "a blue picture"]
    assert data.references()["a.jpg"] == data.captions[1]
    assert data.image(0).size == (30, 20) and data.image(0).getpixel((5, 5))[2] > 200


def test_val_is_another_name_for_dev(root):
    assert open_dataset("flickr8k", split="val", root=root).split == "dev"
    assert open_dataset("flickr8k", split="dev", root=root).image_ids == ["b.jpg"]


def test_environment_variable_names_the_folder_above(root, monkeypatch):
    monkeypatch.setenv("PRUNECAP_PHOTOS", str(root.parent))
    with pytest.raises(MissingFileError, match="flickr8k not found; check PRUNECAP_PHOTOS"):
        open_dataset("flickr8k", split="train")
    root.rename(root.parent / "flickr8k")
    assert len(open_dataset("flickr8k", split="train")) == 2
    monkeypatch.delenv("PRUNECAP_PHOTOS")
    with pytest.raises(MissingFileError, match="set PRUNECAP_PHOTOS"):
        open_dataset("flickr8k", split="train")


def test_limit(root):
    assert len(open_dataset("flickr8k", split="train", root=root, limit=1)) == 1
    assert len(open_dataset("flickr8k", split="train", root=root, limit=99)) == 2
    with pytest.raises(InputError, match="limit of 0"):
        open_dataset("flickr8k", split="train", root=root, limit=0)


def test_missing_parts_are_named(root):
    with pytest.raises(MissingFileError, match="Flickr_8k.testImages.txt.*Flickr8k_text.zip"):
        read_flickr8k(root, "test")
    (root / "Images" / "a.jpg").unlink()
    with pytest.raises(MissingFileError, match="a.jpg not found in folder .*Images"):
        read_flickr8k(root, "train")
    assert len(read_flickr8k(root, "train", check_images=False)) == 2
    (root / "captions.txt").unlink()
    with pytest.raises(MissingFileError, match="captions.txt not found"):
        read_flickr8k(root, "dev")


def test_empty_captions_are_left_out_and_counted(root):
    append(root, "a.jpg,\na.jpg, . \n")
    with pytest.warns(UserWarning, match="2 empty captions left out, the first of image a.jpg"):
        data = read_flickr8k(root, "train")
    assert len(data.captions[1]) == 2


def test_a_picture_with_only_empty_captions(root):
    (root / "Flickr_8k.testImages.txt").write_text("d.jpg\n")
    append(root, "d.jpg,\n")
    with pytest.raises(InputError, match="image d.jpg has only empty captions"):
        read_flickr8k(root, "test")


def test_list_of_another_release(root):
    (root / "Flickr_8k.testImages.txt").write_text("nobody.jpg\n")
    with pytest.raises(InputError, match="no caption for nobody.jpg of Flickr_8k.testImages.txt"):
        read_flickr8k(root, "test")


@pytest.mark.parametrize("line, where", [('a.jpg,"an open quote\nb.jpg,next\n', "line 9"),
                                         ("a.jpg\n", "line 8")])
def test_broken_lines_are_numbered(root, line, where):
    append(root, line)
    with pytest.raises(InputError, match=where):
        read_flickr8k(root, "train")


def test_other_files_are_refused(root):
    (root / "captions.txt").write_text("a.jpg#0\tA dog .\n")
    with pytest.raises(InputError, match="expected the header image,caption"):
        read_flickr8k(root, "train")
    (root / "captions.txt").write_bytes(b"image,caption\na.jpg,\xff\xfe\n")
    with pytest.raises(InputError, match="line 2: not a text file in UTF-8"):
        read_flickr8k(root, "train")


@pytest.mark.parametrize("written", [
    lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), lambda text: text.encode("utf-16"),
    lambda text: text.replace("image,caption", '"image","caption"').encode()])
def test_tables_as_programs_save_them(root, written):
    plain = read_flickr8k(root, "train").references()
    for name in ("captions.txt", "Flickr_8k.trainImages.txt"):
        (root / name).write_bytes(written((root / name).read_text()))
    assert read_flickr8k(root, "train").references() == plain


@pytest.mark.parametrize("comma", [";", "\t"])
def test_other_separators_and_the_other_name(root, comma):
    (root / "captions.txt").unlink()
    (root / "captions.csv").write_text(f"image{comma}caption\na.jpg{comma}A dog{comma} asleep .\n")
    (root / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
    assert read_flickr8k(root, "train").captions == [[" ".join(f"A dog{comma} asleep .".split())]]


def test_without_the_lists_a_split_of_our_own(tmp_path):
    """Kaggle's copy has none. The split is said to be ours, and does not hang on the order of the lines."""
    names = [f"{i}.jpg" for i in range(80)]
    (tmp_path / "captions.txt").write_text("image,caption\n" + "".join(f"{name},Picture {name} .\n" for name in names))
    with pytest.warns(UserWarning, match=r"a split of our own: 60 train, 10 dev, 10 test; .*Flickr8k_text.zip"):
        parts = [read_flickr8k(tmp_path, split, check_images=False).image_ids for split in ("train", "val", "test")]
    assert sorted(sum(parts, [])) == sorted(names) and [len(part) for part in parts] == [60, 10, 10]
    assert own_split(names[::-1]) == own_split(names) and own_split(names)["test"] == parts[2]
    (tmp_path / "Flickr_8k.devImages.txt").write_text("1.jpg\n")
    with pytest.raises(MissingFileError, match="trainImages.txt not found .*but Flickr_8k.devImages.txt lies there"):
        read_flickr8k(tmp_path, "train", check_images=False)


@pytest.mark.parametrize("other", ["train", "test"])
def test_a_picture_of_two_splits_is_refused(root, other):
    name = (root / "Flickr_8k.trainImages.txt").read_text().split()[0]
    with (root / f"Flickr_8k.{other}Images.txt").open("a") as file:
        file.write(f"{name}\n")
    with pytest.raises(InputError, match=f"{name} stands in it and in .*Images.txt"):
        read_flickr8k(root, "train")


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a\0.jpg"])
def test_names_that_leave_the_folder(root, name):
    with (root / "captions.txt").open("a") as file:
        file.write(f"{name},A dog .\n")
    (root / "Flickr_8k.trainImages.txt").write_text(f"{name}\n")
    with pytest.raises(InputError, match="file_name of image"):
        read_flickr8k(root, "train")


def test_unknown_names(root):
    with pytest.raises(InputError, match="no data set 'flickr30k'; choose"):
        open_dataset("flickr30k", split="train", root=root)
    with pytest.raises(InputError, match="no split 'all'"):
        open_dataset("flickr8k", split="all", root=root)


@pytest.mark.skipif(not os.environ.get("PRUNECAP_PHOTOS"), reason="PRUNECAP_PHOTOS is not set")
def test_the_real_flickr8k():
    train, dev = (open_dataset("flickr8k", split=split) for split in ("train", "dev"))
    assert (len(train), len(dev)) == (6000, 1000)
    assert not set(train.image_ids) & set(dev.image_ids)
    assert {len(captions) for captions in train.captions + dev.captions} == {5}
