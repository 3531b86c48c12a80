"""Does a file come whole over lines that break and from servers that do as they please?"""

import errno
import random
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from coco_on_a_server import FILES, QUICK, TRAIN, found

from prunecap_lib.datasets.download import fetch, get_coco
from prunecap_lib.errors import InputError, MissingFileError


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


def test_a_file_that_changed_on_the_server_comes_once_more_whole(web, tmp_path, capsys):
    server, coco = web
    right = server.files[TRAIN]
    server.files[TRAIN] = b"an older edition".ljust(len(right), b".")
    server.faults = [None, None, 5000]
    with pytest.raises(MissingFileError):
        get_coco(tmp_path, coco, **QUICK | {"waits": ()})
    server.files[TRAIN] = right
    get_coco(tmp_path, coco, **QUICK)
    assert [range for path, range in server.asked if path == TRAIN] == [None, "bytes=5000-", None]
    assert "wrong checksum" in capsys.readouterr().err and len(found(tmp_path / "train2017")) == 6


def test_another_place_goes_on_from_what_the_first_has_sent(web, tmp_path):
    server, coco = web
    server.files["/copy/train2017.zip"] = server.files[TRAIN]
    coco = replace(coco, train=replace(coco.train, urls=(*coco.train.urls, f"{server.url}/copy/train2017.zip")))
    server.faults = [None, None, 5000, 403]
    get_coco(tmp_path, coco, **QUICK)
    assert server.asked[-2:] == [(TRAIN, "bytes=5000-"), ("/copy/train2017.zip", "bytes=5000-")]


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
    monkeypatch.setattr(fetch.time, "sleep", slept.append)
    server.faults = [503, 429, 500]
    get_coco(tmp_path, coco, pictures=False, waits=(1, 2, 5))
    assert slept == [1, 2, 5]
    server.always = 503
    with pytest.raises(MissingFileError, match="503"):
        get_coco(tmp_path, coco, text=False, waits=(1, 2, 5))
    assert slept == [1, 2, 5, 1, 2, 5]


def test_errors_of_the_disk_and_of_the_line_are_told_apart(web, tmp_path, monkeypatch):
    server, coco = web

    def refuse(*_):
        raise OSError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(fetch, "_attempt", refuse)
    with pytest.raises(InputError, match="Permission denied; see that you may write there"):
        get_coco(tmp_path, coco, **QUICK)


@pytest.mark.parametrize("name", ["train2017.zip.part", "train2017.zip"])
def test_killed_when_all_bytes_were_here(web, tmp_path, name):
    """While the checksum was compared, or before all of it was unpacked."""
    server, coco = web
    state = tmp_path / ".prunecap" / "train2017"
    state.mkdir(parents=True)
    (state / name).write_bytes(server.files[TRAIN])
    get_coco(tmp_path, coco, **QUICK)
    assert TRAIN not in [path for path, _ in server.asked] and len(found(tmp_path / "train2017")) == 6
