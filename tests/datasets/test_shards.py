"""Do shards hold what was put in, survive whatever happens to them, and say what is wrong where they cannot?"""

import io
import json
import pickle
import resource
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from shard_photos import photos

from prunecap_lib import files
from prunecap_lib.datasets import CaptionDataset, PhotoDataset, open_dataset
from prunecap_lib.datasets.shards import ShardSettings
from prunecap_lib.datasets.shards import dataset as reading
from prunecap_lib.datasets.shards.build import build_shards, bytes_a_picture
from prunecap_lib.datasets.shards.dataset import WINDOW
from prunecap_lib.errors import InputError, MissingFileError, PictureError
from shards import contents, torture

SETTINGS = ShardSettings(side=32, quality=90, per_shard=5)


def build(dataset, out, settings=SETTINGS, **options):
    return build_shards(dataset, out, settings, progress=False, **{"say": lambda _: None, **options})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def out(source, tmp_path):
    build(source, tmp_path)
    return tmp_path


def by_hand(image):
    """Resized and coded here once more, with nothing of the library."""
    width, height = image.size
    if min(width, height) > 32:
        small = (32, height * 32 // width) if width < height else (width * 32 // height, 32)
        image = image.resize(small, Image.BICUBIC)
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90, subsampling="4:4:4")
    return np.asarray(Image.open(file))


def test_what_goes_in_comes_out(source, out):
    data = open_dataset("shards", split="train", root=out)
    assert isinstance(data, CaptionDataset) and (data.name, data.split, len(data)) == ("tiny-shards32", "train", 23)
    assert (data.image_ids, data.captions) == (source.image_ids, source.captions)
    assert data.references() == source.references()
    names = sorted(path.name for path in (out / "train").glob("[!.]*"))
    assert names == [*(f"{k:05d}.tar" for k in range(5)), "index.json"]
    for i in reversed(range(23)):
        assert np.array_equal(np.asarray(data.image(i)), by_hand(source.image(i)))


@pytest.mark.parametrize("where", ["exif", "xmp"])
def test_pictures_are_stored_upright(tmp_path, where):
    """And with nothing left that would turn them once more."""
    upright = Image.linear_gradient("L").resize((60, 40)).convert("RGB")  # dark above, light below
    paths = {}
    for number, lies in {1: None, 3: Image.ROTATE_180, 6: Image.ROTATE_90, 8: Image.ROTATE_270}.items():
        exif, paths[number] = Image.Exif(), tmp_path / f"{number}.jpg"
        exif[0x0112] = number
        told = {"exif": exif} if where == "exif" else {"xmp": b'<x tiff:Orientation="%d"/>' % number}
        (upright.transpose(lies) if lies else upright).save(paths[number], **told)
    source = PhotoDataset("turned", "train", {number: ["a word"] for number in paths}, paths, source=tmp_path)
    build(source, tmp_path / "out")
    data = open_dataset("shards", split="train", root=tmp_path / "out")
    for i in range(4):
        stored = Image.open(io.BytesIO(data.encoded(i)))
        assert stored.size == (48, 32) and not stored.getexif() and "xmp" not in stored.info
        assert data.image(i).getpixel((24, 1))[0] < 30 and data.image(i).getpixel((24, 30))[0] > 225


def test_limit_and_other_names_of_splits(source, out):
    data = open_dataset("shards", split="train", root=out, limit=7)
    assert len(data) == 7 and sorted(data.order(torch.Generator()).tolist()) == list(range(7))
    with pytest.raises(InputError, match="limit of 0"):
        open_dataset("shards", split="train", root=out, limit=0)
    with pytest.raises(MissingFileError, match="splits there are train"):
        open_dataset("shards", split="val", root=out)
    (out / "train").rename(out / "val")
    with pytest.raises(InputError, match="split is 'train', and the folder's name is 'val'; name each folder after"):
        open_dataset("shards", split="val", root=out)
    index = out / "val" / "index.json"
    index.write_text(index.read_text().replace('"split": "train"', '"split": "dev"'))
    assert len(open_dataset("shards", split="dev", root=out)) == 23


def test_webdataset_reads_the_same(out):
    import webdataset

    tars = [str(path) for path in sorted((out / "train").glob("*.tar"))]
    theirs = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    ours = open_dataset("shards", split="train", root=out)
    assert len(theirs) == len(ours)
    for i, sample in enumerate(theirs):
        assert (sample["json"]["image_id"], sample["json"]["captions"]) == (ours.image_ids[i], ours.captions[i])
        assert np.array_equal(sample["jpg"], np.asarray(ours.image(i)))


def test_workers_write_the_same_bytes_and_the_forecast_is_near(source, out, tmp_path):
    build(source, tmp_path / "parallel", workers=1)
    assert contents(tmp_path / "parallel" / "train") == contents(out / "train")
    size = sum(path.stat().st_size for path in (out / "train").glob("0*.tar"))
    assert 0.6 < len(source) * bytes_a_picture(source, SETTINGS) / size < 1.4


def test_a_second_run_leaves_everything_as_it_is(source, out):
    before, times, said = contents(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}, []
    build(source, out, say=said.append)
    assert contents(out) == before and times == {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert "all 5 shards are there and whole" in said[0]


def test_other_settings_or_captions_are_refused(source, out, tmp_path):
    with pytest.raises(InputError, match="side 32 there, 24 here; quality 90 there, 80 here"):
        build(source, out, ShardSettings(24, 80, 5))
    with pytest.raises(InputError, match="pictures 23 there, 22 here"):
        build(photos(tmp_path / "fewer", 22), out)
    assert build(source, out)  # nothing was harmed


@pytest.mark.parametrize("harm", ["byte", "cut", "gone"])
def test_a_damaged_shard_is_written_again_and_only_that(source, out, harm):
    before, shard = contents(out), out / "train" / "00002.tar"
    others = {path: path.stat().st_mtime_ns for path in out.rglob("0*.tar") if path != shard}
    data = bytearray(shard.read_bytes())
    data[3000] ^= 1
    shard.unlink() if harm == "gone" else shard.write_bytes(data if harm == "byte" else data[:-1000])
    build(source, out)
    assert contents(out) == before and all(path.stat().st_mtime_ns == time for path, time in others.items())


def test_a_build_stopped_while_it_tidies_up_is_tidied_up(source, tmp_path, monkeypatch):
    def stopped(path):
        raise KeyboardInterrupt

    build(source, tmp_path / "whole")
    monkeypatch.setattr(shutil, "rmtree", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "out")
    monkeypatch.undo()
    assert contents(tmp_path / "out") != contents(tmp_path / "whole")
    build(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_killed_builds_end_in_the_same_bytes(source, tmp_path):
    assert torture(source, tmp_path, SETTINGS, kills=4)[0] >= 1


def test_a_stop_between_shards_keeps_the_finished_ones(source, tmp_path, monkeypatch):
    image, calls = type(source).image, []

    def stop(self, i):
        calls.append(i)
        if len(calls) > 40:
            raise KeyboardInterrupt
        return image(self, i)

    monkeypatch.setattr(type(source), "image", stop)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path)
    monkeypatch.undo()
    kept = sorted(path.name for path in (tmp_path / "train").glob("*.tar"))
    assert kept == ["00000.tar", "00001.tar", "00002.tar"] and not list(tmp_path.rglob("*.partial"))
    with pytest.raises(MissingFileError, match="was stopped: run `prunecap data shards` again"):
        open_dataset("shards", split="train", root=tmp_path)
    with pytest.raises(InputError, match="quality 90 there, 50 here"):
        build(source, tmp_path, ShardSettings(32, 50, 5))
    times = [(tmp_path / "train" / name).stat().st_mtime_ns for name in kept]
    (tmp_path / "train" / ".unfinished" / "00001 (1).json").write_text("a copy that some program made")
    build(source, tmp_path)
    assert times == [(tmp_path / "train" / name).stat().st_mtime_ns for name in kept]
    assert len(open_dataset("shards", split="train", root=tmp_path)) == 23


def test_a_full_disk_leaves_nothing_half_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LEAST", 0)  # it becomes full while they are built
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))  # no file may grow beyond this, as on a full disk
    try:
        with pytest.raises(InputError, match="make room .* the same command again"):
            build(source, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("*.tar")) and not list(tmp_path.rglob("*.partial"))
    build(source, tmp_path)
    assert len(open_dataset("shards", split="train", root=tmp_path)) == 23


def test_too_small_a_disk_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 10_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="23 pictures take about .* MB are free there; make room"):
        build(source, tmp_path)
    assert not list(tmp_path.rglob("*.tar"))


def test_unreadable_pictures_are_left_out_listed_and_taken_up_when_repaired(tmp_path):
    source, said = photos(tmp_path / "photos"), []
    good = source.paths[6].read_bytes()
    source.paths[6].write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match="1 of 23 pictures cannot be read.*share of 0.001.*6.jpg.*--max-unreadable"):
        build(source, tmp_path / "out")
    index = build(source, tmp_path / "out", max_unreadable=0.05, say=said.append)
    assert [one.image_id for one in index.unreadable] == [source.image_ids[6]] and "6.jpg" in said[-1]
    data = open_dataset("shards", split="train", root=tmp_path / "out")
    assert len(data) == 22 and source.image_ids[6] not in data.image_ids
    assert np.array_equal(np.asarray(data.image(6)), by_hand(source.image(7)))
    listed = json.loads((tmp_path / "out" / "train" / "index.json").read_text())["shards"][1]["unreadable"]
    assert "damaged or cut short" in listed[0]["why"]
    source.paths[6].write_bytes(good)
    assert not build(source, tmp_path / "out").unreadable
    assert len(open_dataset("shards", split="train", root=tmp_path / "out")) == 23


@pytest.mark.parametrize("harm, error, says", [
    (lambda folder: (folder / "00001.tar").unlink(), MissingFileError, "00001.tar not found, but index.json beside"),
    (lambda folder: (folder / "00001.tar").write_bytes((folder / "00001.tar").read_bytes()[:-512]), InputError,
     "00001.tar has .* bytes, the index says .* cut short"),
    (lambda folder: (folder / "00001.tar").write_bytes((folder / "00002.tar").read_bytes()), InputError,
     "shard .*00001"),
    (lambda folder: (folder / "00001.tar").write_bytes(b"\0" * (folder / "00001.tar").stat().st_size), InputError,
     "00001.tar: its checksum is not the one of the index"),
])
def test_reading_names_the_shard_and_the_remedy(source, out, harm, error, says):
    harm(out / "train")
    data = open_dataset("shards", split="train", root=out)
    with pytest.raises(error, match=says) as caught:
        for i in range(5, 10):
            data.image(i)
    assert "prunecap data shards" in str(caught.value) and not isinstance(caught.value, PictureError)
    assert data.image(0).size  # the others are still good


@pytest.mark.parametrize("mixed_up", [
    lambda shard: shard.update(image_ids=shard["image_ids"][::-1]),
    lambda shard: shard.update(captions=shard["captions"][::-1]),
    lambda shard: shard.update(image_ids=shard["image_ids"][::-1], captions=shard["captions"][::-1]),
    lambda shard: shard["image_ids"].__setitem__(0, "another"),
])
def test_an_index_in_another_order_than_its_tars_is_noticed(out, mixed_up):
    """All checksums are right, and so is the number of everything: only the pairs are not."""
    index = out / "train" / "index.json"
    content = json.loads(index.read_text())
    mixed_up(content["shards"][0])
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match="shard 00000.tar: at .* lies image .* where the index has image"):
        open_dataset("shards", split="train", root=out).image(0)


def test_a_checksum_is_compared_once_a_run(out, monkeypatch):
    counted = []
    monkeypatch.setattr(reading, "_sha256", lambda file, plain=reading._sha256: counted.append(file) or plain(file))
    monkeypatch.setattr(reading, "IN_USE", 1)  # each is opened anew
    data = open_dataset("shards", split="train", root=out)
    for i in (0, 22, 0, 22):
        data.image(i)
    assert len(counted) == 2


def test_a_damaged_picture_is_named(out):
    data = open_dataset("shards", split="train", root=out)
    shard = out / "train" / "00000.tar"
    content, at = bytearray(shard.read_bytes()), data.shards[0].offsets[1]
    content[at + 40] ^= 1  # one bit
    shard.write_bytes(content)
    with pytest.raises(InputError, match="00000.tar: its checksum is not the one of the index"):
        open_dataset("shards", split="train", root=out).image(1)


@pytest.mark.parametrize("change, says", [
    (lambda text: text[:200], "not valid JSON.*damaged or none of"), (lambda text: "[]", "damaged or none of"),
    (lambda text: text.replace('"format": 1', '"format": 9'), "format 9"),
    (lambda text: text.replace("00001.tar", "../../x.tar"), "damaged or none of"),
    (lambda text: text.replace('"split": "train"', '"split": "val"'), "split is 'val', .* is 'train'"),
])
def test_an_index_that_cannot_be_used(out, change, says):
    index = out / "train" / "index.json"
    index.write_text(change(index.read_text()))
    with pytest.raises(InputError, match=f"shard index .*index.json.*{says}"):
        open_dataset("shards", split="train", root=out)


def test_order_is_a_permutation_that_stays_near(tmp_path, source):
    build(source, tmp_path, ShardSettings(32, 90, 1))
    data = open_dataset("shards", split="train", root=tmp_path)
    order = data.order(torch.Generator().manual_seed(1))
    assert sorted(order.tolist()) == list(range(23))
    assert torch.equal(order, data.order(torch.Generator().manual_seed(1)))
    assert not torch.equal(order, data.order(torch.Generator().manual_seed(2)))
    build(source, tmp_path / "five")
    data = open_dataset("shards", split="train", root=tmp_path / "five")
    data._shard = np.repeat(np.arange(100), 50)  # as many as 5,000 pictures in 100 shards have
    data.shards = data.shards * 20
    order = data.order(torch.Generator().manual_seed(1)).numpy()
    assert np.array_equal(np.sort(order), np.arange(5000))
    apart = [len(set(data._shard[order[k : k + 32]])) for k in range(0, 5000, 32)]
    assert max(apart) <= 2 * WINDOW and np.median(apart) >= 5  # near, and yet mixed


class Positions(torch.utils.data.Dataset):
    """Positions as pictures of them: which one was read, and where."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return i, len(self.data.encoded(i)), torch.utils.data.get_worker_info().id


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_two_workers_read_each_picture_once(source, out, context):
    if context == "spawn":  # what a spawned worker gets; starting one takes long
        data = open_dataset("shards", split="train", root=out)
        data.image(3)
        assert pickle.loads(pickle.dumps(data)).encoded(3) == data.encoded(3)
        return
    data = open_dataset("shards", split="train", root=out)
    data.encoded(0)  # a file that the parent has open must not disturb the workers
    loader = torch.utils.data.DataLoader(Positions(data), sampler=data.order(torch.Generator()).tolist(),
                                         num_workers=2, batch_size=4, multiprocessing_context=context)
    read = [one for batch in loader for one in zip(*map(torch.Tensor.tolist, batch), strict=True)]
    assert sorted(i for i, _, _ in read) == list(range(23)) and {worker for *_, worker in read} == {0, 1}
    assert all(size == data._length[i] for i, size, _ in read)


@pytest.mark.slow
def test_the_command_writes_and_training_reads(tmp_path, capsys):
    from prunecap_lib.cli import main

    for split, n in (("train", 12), ("val", 6)):
        main(["data", "shards", "--dataset", "scenes", "--split", split, "--out", str(tmp_path / "shards"),
              "--side", "64", "--limit", str(n), "--per-shard", "4", "--no-progress"])
    assert "12 pictures in 3 shards" in capsys.readouterr().out
    main(["data", "info", "--dataset", "shards", "--root", str(tmp_path / "shards")])
    assert "scenes-shards64 val: 6 pictures, 30 captions" in capsys.readouterr().out
    main(["train", "--dataset", "shards", "--root", str(tmp_path / "shards"), "--encoder", "convnext",
          "--batch-size", "4", "--epochs", "1", "--d-model", "16", "--layers", "1", "--heads", "2", "--ffn", "16",
          "--precision", "fp32", "--no-progress", "--fast-decode", "--out", str(tmp_path / "run")])
    assert "validation loss" in capsys.readouterr().out
    main(["evaluate", "--checkpoint", str(tmp_path / "run" / "checkpoint"), "--dataset", "shards", "--split", "val",
          "--root", str(tmp_path / "shards"), "--metrics", "CIDEr", "--no-progress"])
    assert json.loads(capsys.readouterr().out)["pictures"] == 6


@pytest.mark.parametrize("wrong", [{"side": 0}, {"quality": 100}, {"per_shard": 0}])
def test_settings_are_checked(wrong):
    with pytest.raises(InputError, match=f"shards: {next(iter(wrong))} is"):
        ShardSettings(**wrong)


def test_reading_needs_no_webdataset(out, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    assert len(open_dataset("shards", split="train", root=out).encoded(4)) > 100
