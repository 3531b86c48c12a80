"""Does COCO reach the disk whole, whatever disk, killers and other processes do, and from files that are there?"""

import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from coco_on_a_server import FILES, QUICK, found, hidden

import bad_server
from prunecap_lib.cli import main
from prunecap_lib.datasets import open_dataset
from prunecap_lib.datasets.download import COCO, get_coco
from prunecap_lib.errors import InputError, MissingFileError
from prunecap_lib.files import locked


@pytest.mark.parametrize("year", [2014, 2017])
def test_fetches_all_of_it_and_does_nothing_the_second_time(tmp_path, year):
    server, coco = bad_server.serve(FILES[year], year)
    assert len(get_coco(tmp_path, coco, karpathy=True, **QUICK)) == 4 and len(server.asked) == 4
    assert found(tmp_path) == FILES[year]
    assert [len(open_dataset("coco", root=tmp_path, split=split)) for split in ("train", "val", "test")] == [7, 1, 1]
    assert get_coco(tmp_path, coco, karpathy=True, **QUICK) == [] and len(server.asked) == 4
    assert all(name.endswith(".list") for name in hidden(tmp_path))  # no zip is left
    server.close()


def test_text_alone_then_the_pictures(web, tmp_path):
    server, coco = web
    assert get_coco(tmp_path, coco, pictures=False, **QUICK) == ["annotations_trainval2017.zip"]
    with pytest.raises(MissingFileError, match="val2017"):
        open_dataset("coco", root=tmp_path, split="val")
    assert get_coco(tmp_path, coco, text=False, **QUICK) == ["val2017.zip", "train2017.zip"]
    assert len(open_dataset("coco", root=tmp_path, split="val")) == 3


def test_a_second_process_waits_and_then_finds_it_done(web, tmp_path, capsys):
    server, coco = web
    lock = tmp_path / ".prunecap" / "lock"
    lock.parent.mkdir()
    results = []
    with locked(lock, print):
        second = threading.Thread(target=lambda: results.append(get_coco(tmp_path, coco, **QUICK)))
        second.start()
        time.sleep(0.3)
        assert server.asked == [] and "another process is at work" in capsys.readouterr().err
        for name, data in FILES[2017].items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
    second.join(10)
    assert results == [[]] and server.asked == []


def test_a_disk_too_small_is_said_before_anything_is_fetched(web, tmp_path, monkeypatch):
    server, coco = web
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(30_000, 0, 30_000))
    with pytest.raises(InputError, match="while they are unpacked, take about 0 MB, but 0 MB are free"):
        get_coco(tmp_path, coco, **QUICK)
    assert server.asked == []
    get_coco(tmp_path, coco, pictures=False, **QUICK)


@pytest.mark.parametrize("where", ["train2017.zip.part", "unpacked/train2017/000000000003.jpg"])
def test_a_disk_that_fills_up_leaves_nothing_half_under_a_good_name(web, tmp_path, where):
    server, coco = web
    full = tmp_path / ".prunecap" / "train2017" / where
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    with pytest.raises(InputError, match="train2017.zip.*No space left on device; make room"):
        get_coco(tmp_path, coco, **QUICK)
    assert not (tmp_path / "train2017").exists() and (tmp_path / "val2017").is_dir()
    full.unlink()
    get_coco(tmp_path, coco, karpathy=True, **QUICK)
    assert found(tmp_path) == FILES[2017]


def put(folder: Path, server) -> Path:
    folder.mkdir(exist_ok=True)
    for path, content in server.files.items():
        (folder / Path(path).name).write_bytes(content)
    return folder


def test_takes_zips_that_are_there(web, tmp_path):
    server, coco = web
    source = put(tmp_path / "zips", server)
    before = found(source)
    assert len(get_coco(tmp_path / "coco", coco, karpathy=True, source=source, **QUICK)) == 4
    assert found(tmp_path / "coco") == FILES[2017] and found(source) == before and server.asked == []


@pytest.mark.parametrize("change, says", [
    (lambda path: path.rename(path.with_name("train2017 (1).zip")),
     r"no train2017.zip, but .*train2017 \(1\).zip.*\(renamed\?\)\. Or fetch it from"),
    (lambda path: path.write_bytes(path.read_bytes()[:-5]), "bytes, but train2017.zip has .* cut short"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "its SHA-256 is .* damaged or another file"),
    (lambda path: (path.unlink(), path.with_suffix("").mkdir()), "but train2017, unpacked: name this folder as --root"),
])
def test_zips_that_are_there_are_checked(web, tmp_path, change, says):
    server, coco = web
    source = put(tmp_path / "zips", server)
    change(source / "train2017.zip")
    with pytest.raises((InputError, MissingFileError), match=says):
        get_coco(tmp_path / "coco", coco, source=source, **QUICK)
    assert not (tmp_path / "coco" / "train2017").exists()


def test_takes_karpathys_file_by_itself_but_no_other_of_that_name(web, tmp_path):
    server, coco = web
    source = put(tmp_path / "zips", server)
    (source / "caption_datasets.zip").unlink()
    file = source / "dataset_coco.json"
    file.write_bytes(FILES[2017]["dataset_coco.json"].replace(b'"restval"', b'"test"'))
    for _ in range(2):  # the second run finds it in place, and does not trust it for that
        with pytest.raises(InputError, match="dataset_coco.json: 6 captioned pictures where COCO has 7"):
            get_coco(tmp_path / "coco", coco, karpathy=True, source=source, **QUICK)
    (tmp_path / "coco" / "dataset_coco.json").unlink()
    file.write_bytes(FILES[2017]["dataset_coco.json"])
    get_coco(tmp_path / "coco", coco, karpathy=True, source=source, **QUICK)
    assert found(tmp_path / "coco") == FILES[2017]


def test_a_part_of_coco_is_not_taken_for_coco(web, tmp_path):
    """Pictures and captions that agree with each other, but are fewer; also where only the pictures are asked for."""
    server, coco = web
    for name, data in bad_server.tiny_coco(2017, train=4, val=2).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for text in (True, False):
        with pytest.raises(InputError, match=r"4 captioned pictures where COCO has 6.*can be read as it is"):
            get_coco(tmp_path, coco, text=text, **QUICK)
    assert server.asked == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment(tmp_path, seed):
    """``kill -9`` while it fetches and unpacks: the next run goes on, and the bytes are the same."""
    files = bad_server.tiny_coco(train=60, val=30)
    server, coco = bad_server.serve(files, 2017)
    server.rate = 2_000_000
    rng = random.Random(seed)
    for _ in range(3):
        child = os.fork()
        if not child:
            with open(os.devnull, "w") as null:
                os.dup2(null.fileno(), 2)
                get_coco(tmp_path, coco, karpathy=True, **QUICK)
                os._exit(0)
        time.sleep(rng.uniform(0.01, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        whole = found(tmp_path)
        assert all(files[name] == data for name, data in whole.items())
        assert len([name for name in whole if name.startswith("train2017")]) in (0, 60)
    get_coco(tmp_path, coco, karpathy=True, **QUICK)
    assert found(tmp_path) == files and all(name.endswith(".list") for name in hidden(tmp_path))
    server.close()


def test_the_tables_are_of_one_kind():
    for year, coco in COCO.items():
        archives = (coco.annotations, coco.train, coco.val, coco.karpathy)
        assert all(len(one.sha256) == 64 and one.size > 10**7 and len(one.urls) >= 2 for one in archives)
        assert coco.train.pictures + coco.val.pictures == sum(coco.karpathy_counts) == 123_287
        assert coco.train.folder == f"train{year}" and coco.train.urls[0].endswith(f"/zips/train{year}.zip")


def test_the_command(tmp_path, monkeypatch, capsys):
    server, coco = bad_server.serve(FILES[2017], 2017)
    monkeypatch.setitem(COCO, 2017, coco)
    root = tmp_path / "coco"
    main(["data", "coco", "--root", str(root), "--only", "annotations"])
    out = capsys.readouterr().out
    assert "unpacked annotations_trainval2017.zip" in out and "without --only, for the pictures" in out
    monkeypatch.setenv("PRUNECAP_MIRRORS", f"{server.url}/mirror,")
    main(["data", "coco", "--root", str(root), "--split", "karpathy"])
    out = capsys.readouterr().out
    assert "Karpathy's split: train 7, val 1, test 1 pictures" in out and server.asked[1][0].startswith("/mirror/")
    next_one = out.splitlines()[-1].removeprefix("next: prunecap ").split()
    main(next_one)
    assert "coco-karpathy val: 1 pictures" in capsys.readouterr().out
    main(["data", "coco", "--root", str(root), "--split", "karpathy", "--check"])
    out, err = capsys.readouterr()
    assert "nothing to do" in out and "caption_datasets.zip: 1 files compared" in err
    with pytest.raises(SystemExit):
        main(["data", "coco", "--root", str(tmp_path / "new"), "--from", str(tmp_path / "nowhere")])
    err = capsys.readouterr().err
    assert err.startswith("prunecap: error: folder") and "nowhere not found" in err and err.count("\n") == 1
    server.close()
