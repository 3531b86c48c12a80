"""Does COCO reach the disk whole, whatever server, line, disk and other processes do?"""

import errno
import io
import os
import random
import shutil
import signal
import stat
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import requests

import bad_server
from prunecap_lib.cli import main
from prunecap_lib.datasets import download, open_dataset
from prunecap_lib.datasets.coco_download import COCO, get_coco
from prunecap_lib.datasets.download import Resuming
from prunecap_lib.errors import InputError, MissingFileError
from prunecap_lib.files import locked

FILES = {year: bad_server.tiny_coco(year) for year in (2014, 2017)}
QUICK = {"waits": (0, 0, 0), "progress": False}
TRAIN = "/zips/train2017.zip"


@pytest.fixture
def web():
    """A server and what COCO consists of there; ``coco(year)`` for another year."""
    server, coco = bad_server.serve(FILES[2017], 2017)
    yield server, coco
    server.close()


def found(root: Path) -> dict[str, bytes]:
    """All that lies in a folder for a reader: what is hidden excepted."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
            if path.is_file() and ".prunecap" not in path.parts}


def hidden(root: Path) -> set[str]:
    return {path.name for path in (root / ".prunecap").iterdir()} - {"lock", "counted"}


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


@pytest.mark.parametrize("reset", [False, True])
def test_a_line_that_is_cut_at_random_bytes(web, tmp_path, reset):
    server, coco = web
    rng = random.Random(reset)
    server.faults = [(-1 if reset else 1) * rng.choice((0, rng.randrange(1, 9000))) for _ in range(12)]
    get_coco(tmp_path, coco, **QUICK | {"waits": (0,) * 12})
    assert found(tmp_path) == {name: data for name, data in FILES[2017].items() if name != "dataset_coco.json"}
    assert server.faults == [] and any(range for _, range in server.asked)


def test_what_is_here_is_not_fetched_again(web, tmp_path):
    server, coco = web
    server.faults = [None, None, 7000]
    with pytest.raises(MissingFileError, match=r"7,000 of its [\d,]+ bytes are kept"):
        get_coco(tmp_path, coco, **QUICK | {"waits": ()})
    get_coco(tmp_path, coco, **QUICK)
    assert server.asked[-1] == (TRAIN, "bytes=7000-") and len(server.asked) == 4


def test_slow_and_stalled_servers(web, tmp_path, monkeypatch):
    server, coco = web
    asked = requests.get
    monkeypatch.setattr(requests, "get", lambda *args, timeout, **options: asked(*args, timeout=(1, 0.2), **options))
    server.faults, server.rate = ["stalls"], 300_000
    get_coco(tmp_path, coco, **QUICK)
    assert len(server.asked) == 4


@pytest.mark.parametrize("fault", ["no-range", "other-range", 416, "chunked"])
def test_servers_that_do_ranges_their_own_way(web, tmp_path, fault, capsys):
    server, coco = web
    server.faults = [None, None, 5000, fault]
    get_coco(tmp_path, coco, **QUICK)
    assert "wrong checksum" not in capsys.readouterr().err  # noticed before all of it was fetched
    assert found(tmp_path / "train2017") == {
        Path(name).name: data for name, data in FILES[2017].items() if name.startswith("train2017")}


def test_a_range_past_the_end_starts_anew(web, tmp_path):
    """The part on disk is longer than the file on the server: 416, for real."""
    server, coco = web
    whole = server.files[TRAIN]
    server.files[TRAIN] = whole[:4000]
    state = tmp_path / ".prunecap" / "train2017"
    state.mkdir(parents=True)
    (state / "train2017.zip.part").write_bytes(whole[:5000])
    with pytest.raises(MissingFileError, match=r"its file has 4,000 bytes, not"):
        get_coco(tmp_path, coco, **QUICK)
    assert [range for path, range in server.asked if path == TRAIN] == ["bytes=5000-", None]


def test_a_file_that_changed_on_the_server_comes_whole(web, tmp_path):
    server, coco = web
    right = server.files[TRAIN]
    server.files[TRAIN] = b"an older edition".ljust(len(right), b".")
    server.faults = [None, None, 5000]
    with pytest.raises(MissingFileError):
        get_coco(tmp_path, coco, **QUICK | {"waits": ()})
    server.files[TRAIN] = right
    get_coco(tmp_path, coco, **QUICK)
    assert len(server.asked) == 4 and server.asked[-1][1] == "bytes=5000-"  # and If-Range: no second fetch


@pytest.mark.parametrize("known", [True, False])
def test_another_place_goes_on_only_where_a_checksum_has_the_last_word(web, tmp_path, known):
    server, coco = web
    server.files["/copy/train2017.zip"] = server.files[TRAIN]
    train = replace(coco.train, urls=(*coco.train.urls, f"{server.url}/copy/train2017.zip"))
    coco = replace(coco, train=train if known else replace(train, sha256=None))
    server.faults = [None, None, 5000, 403]
    get_coco(tmp_path, coco, **QUICK)
    assert server.asked[-1] == ("/copy/train2017.zip", "bytes=5000-" if known else None)
    assert server.asked[-2] == (TRAIN, "bytes=5000-")  # the same place, by its ETag, in either case


def test_wrong_bytes_are_fetched_once_more(web, tmp_path, capsys):
    server, coco = web
    server.faults = [None, None, "wrong"]
    get_coco(tmp_path, coco, **QUICK)
    assert "wrong checksum" in capsys.readouterr().err and len(server.asked) == 4


def test_a_mirror_with_wrong_bytes_gives_way_to_the_next_place(web, tmp_path):
    server, coco = web
    server.files |= {f"/bad{path}": data[:-1] + b"?" for path, data in server.files.items()}
    get_coco(tmp_path, coco, mirrors=(f"{server.url}/bad",), pictures=False, **QUICK)
    name = "/annotations/annotations_trainval2017.zip"
    assert [path for path, _ in server.asked if path in server.files] == [f"/bad{name}", name]


def test_wrong_bytes_twice_are_not_kept(web, tmp_path):
    server, coco = web
    server.files[TRAIN] = server.files[TRAIN][:-1] + b"?"
    with pytest.raises(InputError, match="train2017.zip: fetched twice.*--mirror URL.*cocodataset.org.*--from DIR"):
        get_coco(tmp_path, coco, **QUICK)
    assert len(server.asked) == 4 and not (tmp_path / "train2017").exists()
    assert not list((tmp_path / ".prunecap" / "train2017").iterdir())


@pytest.mark.parametrize("fault, says", [(404, "404 Not Found"), (403, "403"), ("page", "its file has 26 bytes, not")])
def test_a_dead_link_gives_the_alternatives(web, tmp_path, fault, says):
    server, coco = web
    server.always = fault
    with pytest.raises(MissingFileError, match=f"annotations_trainval2017.zip: not to be had from http.*{says}.*"
                                               "--mirror URL, or PRUNECAP_MIRRORS.*cocodataset.org.*--from DIR"):
        get_coco(tmp_path, coco, **QUICK)
    assert len(server.asked) == 1 and found(tmp_path) == {}


def test_mirrors_are_asked_first_in_either_layout(web, tmp_path):
    server, coco = web
    server.files = {f"/flat/{Path(path).name}": data for path, data in server.files.items()}
    mirrors = ("http://127.0.0.1:9/gone", f"{server.url}/flat/")
    get_coco(tmp_path, coco, mirrors=mirrors, **QUICK | {"waits": (0,)})
    assert found(tmp_path).keys() >= {"val2017/000000000007.jpg"}
    assert server.asked[:2] == [("/flat/annotations/annotations_trainval2017.zip", None),
                                ("/flat/annotations_trainval2017.zip", None)]


def test_a_busy_server_is_given_the_time_it_asks_for(web, tmp_path, monkeypatch):
    server, coco = web
    slept = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    server.faults = [503, 429, 500]
    get_coco(tmp_path, coco, pictures=False, waits=(1, 2, 5), progress=False)
    assert slept == [1, 2, 5]
    server.always = 503
    with pytest.raises(MissingFileError, match="503"):
        get_coco(tmp_path, coco, text=False, waits=(1, 2, 5), progress=False)
    assert slept == [1, 2, 5, 1, 2, 5]


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
    with pytest.raises(InputError, match="take 0.0 GB while they are unpacked, but 0.0 GB are free"):
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


def damaged(name: str) -> bytes:
    """A train2017.zip with something wrong with it."""
    files = {f"train2017/{Path(path).name}": data for path, data in FILES[2017].items() if path.startswith("train2017")}
    first, *_ = files
    member = zipfile.ZipInfo({"up": "train2017/../../evil.jpg", "absolute": "/tmp/evil.jpg", "drive": "C:/evil.jpg",
                              "backslash": "train2017\\..\\..\\evil.jpg", "control": "train2017/\x1b[2Jevil.jpg"}
                             .get(name, "train2017/000000000099.jpg"))
    content = b"x"
    if name == "link":
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        content = b"/etc/passwd"
    if name == "bomb":
        files.pop(first)
        content = bytes(200_000)
    if name == "few":
        files.pop(first)
    buffer = io.BytesIO(bad_server.pack(files))
    if name not in ("few", "crc", "cut"):
        with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as zip:
            zip.writestr(member, content)
    packed = bytearray(buffer.getvalue())
    if name == "crc":
        packed[100] ^= 1
    return bytes(packed[:-30] if name == "cut" else packed)


@pytest.mark.parametrize("name, says", [
    ("up", "would leave the folder"), ("absolute", "would leave the folder"), ("drive", "would leave the folder"),
    ("backslash", "would leave the folder"), ("control", "control character"), ("link", "is a symbolic link"),
    ("bomb", "would unpack to 2[0-9]{2},[0-9]{3} bytes"), ("few", "5 pictures in train2017/"), ("many", "7 pictures"),
    ("crc", "damaged"), ("cut", "damaged")])
def test_zips_that_are_not_unpacked(web, tmp_path, name, says):
    server, coco = web
    content = bad_server.add(server, "train2017.zip", damaged(name))
    coco = replace(coco, train=replace(coco.train, size=len(content), sha256=None))
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(InputError, match=f"train2017.zip: .*{says}"):
        get_coco(tmp_path, coco, **QUICK)
    assert not (tmp_path / "train2017").exists() and set(tmp_path.parent.iterdir()) == before
    assert not os.path.exists("/tmp/evil.jpg")


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
     r"no train2017.zip, but .*train2017 \(1\).zip.*\. Was it renamed\? Or fetch it from"),
    (lambda path: path.write_bytes(path.read_bytes()[:-5]), "bytes, but train2017.zip has .* cut short"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "its SHA-256 is .* damaged or another file"),
    (lambda path: (path.unlink(), path.with_suffix("").mkdir()), "but train2017, unpacked. Name this folder as --root"),
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


@pytest.mark.parametrize("unpacked_here", [True, False])
def test_a_missing_or_renamed_picture_is_named(web, tmp_path, unpacked_here):
    server, coco = web
    if unpacked_here:
        get_coco(tmp_path, coco, **QUICK)
    else:
        for name, data in FILES[2017].items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
        assert get_coco(tmp_path, coco, **QUICK) == []
    asked = len(server.asked)
    (tmp_path / "train2017" / "000000000004.jpg").rename(tmp_path / "train2017" / "4.jpg")
    with pytest.raises(InputError, match=r"train2017: 000000000004.jpg is missing, 1 in all of 6, but 4.jpg "
                                         r"\(renamed\?\) does not belong there; fetch it from http.*/000000000004.jpg"):
        get_coco(tmp_path, coco, **QUICK)
    (tmp_path / "train2017" / "4.jpg").unlink()
    with pytest.raises(InputError, match="000000000004.jpg is missing, 1 in all of 6; fetch it"):
        get_coco(tmp_path, coco, **QUICK)
    assert len(server.asked) == asked


def test_what_is_somebodys_own_work_stays(web, tmp_path):
    server, coco = web
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="train2017: no picture in it, but note.txt; move it away"):
        get_coco(tmp_path, coco, **QUICK)
    (tmp_path / "train2017" / "000000000001.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="train2017: 1 pictures, but train2017.zip holds 6"):
        get_coco(tmp_path, coco, **QUICK)
    assert found(tmp_path).keys() == {"train2017/note.txt", "train2017/000000000001.jpg"} and server.asked == []


def test_a_text_file_of_ones_own_stays(web, tmp_path):
    server, coco = web
    own = tmp_path / "annotations" / "captions_val2017.json"
    own.parent.mkdir()
    own.write_bytes(FILES[2017]["annotations/captions_val2017.json"].replace(b"picture 8", b"my picture 8"))
    before = own.read_bytes()
    for _ in range(2):
        get_coco(tmp_path, coco, pictures=False, **QUICK)
        assert own.read_bytes() == before and len(server.asked) == 1


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


def test_a_lost_text_file_comes_back_and_a_changed_one_is_named(web, tmp_path):
    server, coco = web
    get_coco(tmp_path, coco, **QUICK)
    lost, other = (tmp_path / "annotations" / f"captions_{split}2017.json" for split in ("val", "train"))
    lost.unlink()
    assert get_coco(tmp_path, coco, **QUICK) == ["annotations_trainval2017.zip"] and lost.is_file()
    other.write_text("{}")
    with pytest.raises(InputError, match="captions_train2017.json: 2 bytes, but"):
        get_coco(tmp_path, coco, **QUICK)
    assert other.read_text() == "{}"


def test_check_reads_every_byte(web, tmp_path, capsys):
    server, coco = web
    get_coco(tmp_path, coco, thorough=True, **QUICK)
    assert "train2017.zip: 6 files compared" in capsys.readouterr().err
    picture = tmp_path / "val2017" / "000000000008.jpg"
    picture.write_bytes(picture.read_bytes()[:-1] + b"?")
    assert get_coco(tmp_path, coco, **QUICK) == []
    with pytest.raises(InputError, match="000000000008.jpg: its bytes are no longer those"):
        get_coco(tmp_path, coco, thorough=True, **QUICK)


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


def test_killed_while_pooch_compares_the_checksum(web, tmp_path):
    """The bytes are whole then, but under pooch's temporary name."""
    server, coco = web
    state = tmp_path / ".prunecap" / "train2017"
    state.mkdir(parents=True)
    (state / "tmpabc").write_bytes(server.files[TRAIN])
    get_coco(tmp_path, coco, **QUICK)
    assert TRAIN not in [path for path, _ in server.asked] and len(found(tmp_path / "train2017")) == 6


def test_half_unpacked_files_are_not_trusted(web, tmp_path):
    server, coco = web
    work = tmp_path / ".prunecap" / "train2017" / "unpacked" / "train2017"
    work.mkdir(parents=True)
    for number, change in ((1, lambda data: data), (2, lambda data: data[:-1]), (3, lambda data: bytes(len(data)))):
        name = f"{number:012d}.jpg"
        (work / name).write_bytes(change(FILES[2017][f"train2017/{name}"]))
    get_coco(tmp_path, coco, karpathy=True, **QUICK)
    assert found(tmp_path) == FILES[2017]


def test_errors_of_the_disk_and_of_the_line_are_told_apart(web, tmp_path, monkeypatch):
    server, coco = web

    def refuse(*_):
        raise OSError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(Resuming, "_attempt", refuse)
    with pytest.raises(InputError, match="Permission denied; see that you may write there"):
        get_coco(tmp_path, coco, **QUICK)


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
