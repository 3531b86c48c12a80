"""Do shards on a web server come here whole, once, into a cache that stays small?"""

import functools
import http.server
import multiprocessing
import os
import pickle
import threading
import time

import pytest
import torch
from shard_photos import photos

from prunecap_lib.datasets import open_dataset
from prunecap_lib.datasets.loading import map_in_workers
from prunecap_lib.datasets.shards import ShardSettings, dataset
from prunecap_lib.datasets.shards.build import build_shards
from prunecap_lib.errors import InputError, MissingFileError


class Handler(http.server.SimpleHTTPRequestHandler):
    """A folder over HTTP that keeps a list of what was asked for, and can be told to break off."""

    asked: list[str] = []
    break_off = 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        if self.path.endswith(".tar"):
            time.sleep(0.05)
            if Handler.break_off:
                Handler.break_off -= 1
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b"0" * 50)
                return
        super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(address, folder behind it); the cache lies beside it."""
    build_shards(photos(tmp_path / "photos"), tmp_path / "www", ShardSettings(32, 90, 5), progress=False,
                 say=lambda _: None)
    monkeypatch.setenv("PRUNECAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PRUNECAP_CACHE_GB", raising=False)
    monkeypatch.setattr(dataset.time, "sleep", lambda _: None)
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.setattr(Handler, "break_off", 0)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path / "www"))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/", tmp_path / "www" / "train"
    httpd.shutdown()
    httpd.server_close()


def cached(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.tar"))


def tars_asked():
    return [path for path in Handler.asked if path.endswith(".tar")]


def test_what_is_fetched_is_what_lies_there_and_only_what_is_needed(server, tmp_path):
    address, folder = server
    data, local = (open_dataset("shards", split="train", root=root) for root in (address, folder.parent))
    assert data.captions == local.captions and cached(tmp_path) == []
    assert [data.encoded(i) for i in (0, 4, 12)] == [local.encoded(i) for i in (0, 4, 12)]
    assert tars_asked() == ["/train/00000.tar", "/train/00002.tar"] and len(cached(tmp_path)) == 2
    again = open_dataset("shards", split="train", root=address)
    assert [again.encoded(i) for i in range(23)] == [local.encoded(i) for i in range(23)]
    assert sorted(tars_asked()) == [f"/train/0000{k}.tar" for k in (0, 1, 2, 3, 4)]


def read_all(address):
    data = open_dataset("shards", split="train", root=address)
    assert all(data.image(i).size for i in range(len(data)))


def test_two_processes_fetch_once(server):
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=read_all, args=(server[0],)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(tars_asked()) == [f"/train/0000{k}.tar" for k in range(5)]


def test_the_cache_stays_under_its_bound_and_drops_what_was_not_used(server, tmp_path, monkeypatch):
    address, folder = server
    sizes = [path.stat().st_size for path in sorted(folder.glob("*.tar"))]
    bound = sum(sizes[:3])
    monkeypatch.setenv("PRUNECAP_CACHE_GB", str((bound + 10) / 1e9))
    with pytest.warns(UserWarning, match="fetched several times"):
        data = open_dataset("shards", split="train", root=address)
    local = open_dataset("shards", split="train", root=folder.parent)
    for i in [*range(23), *range(23)]:
        assert data.encoded(i) == local.encoded(i)
        assert sum(path.stat().st_size for path in cached(tmp_path)) <= bound + 10
    assert cached(tmp_path)[0].stem in {shard.sha256 for shard in data.shards}
    fresh = open_dataset("shards", split="train", root=address)
    del Handler.asked[:]
    last = fresh.shards[4].sha256
    fresh.encoded(22)
    fresh.encoded(0)
    assert tars_asked() == ["/train/00000.tar"] and last in {path.stem for path in cached(tmp_path)}


def test_a_broken_connection_is_tried_again_and_leaves_nothing_half(server, tmp_path):
    Handler.break_off = 2
    data = open_dataset("shards", split="train", root=server[0])
    assert data.image(0).size and len(tars_asked()) == 3
    Handler.break_off = 99
    with pytest.raises(InputError, match="00001.tar: (fetching broke off|its checksum)"):
        data.image(5)
    assert [path.name for path in (tmp_path / "cache" / "shards").glob("[!.]*")] == [f"{data.shards[0].sha256}.tar"]


def test_another_build_behind_the_index_is_refused(server):
    address, folder = server
    (folder / "00001.tar").write_bytes((folder / "00000.tar").read_bytes())
    with pytest.raises(InputError, match="00001.tar: its checksum is not the one of index.json"):
        open_dataset("shards", split="train", root=address).image(5)


def test_missing_files_and_wrong_settings(server, monkeypatch):
    address, folder = server
    with pytest.raises(MissingFileError, match="val/index.json: the server answers 404"):
        open_dataset("shards", split="val", root=address)
    (folder / "00001.tar").unlink()
    with pytest.raises(MissingFileError, match="00001.tar: the server answers 404, but its index.json names it"):
        open_dataset("shards", split="train", root=address).image(5)
    for value, says in (("none", "give the gigabytes"), ("0", "give the gigabytes"), ("inf", "give the gigabytes"),
                        ("0.000001", "allow more")):
        monkeypatch.setenv("PRUNECAP_CACHE_GB", value)
        with pytest.raises(InputError, match=says):
            open_dataset("shards", split="train", root=address)
    with pytest.raises(InputError, match="no answer"):
        open_dataset("shards", split="train", root="http://127.0.0.1:1")


@pytest.fixture
def many(server, tmp_path):
    """(address, folder behind it) of 23 shards of one picture: three windows."""
    build_shards(photos(tmp_path / "photos"), tmp_path / "www" / "many", ShardSettings(32, 90, 1), progress=False,
                 say=lambda _: None)
    return f"{server[0]}many", tmp_path / "www" / "many" / "train"


def wait_for_background(data):
    data._files._fetching.join(10)
    assert not data._files._fetching.is_alive()


def numbers_asked():
    return sorted(int(path.rsplit("/", 1)[1][:5]) for path in tars_asked())


def test_the_next_window_is_fetched_ahead_and_no_more(many):
    data = open_dataset("shards", split="train", root=many[0])
    data.encoded(0)
    wait_for_background(data)
    assert numbers_asked() == [0, *range(8, 16)]
    data.encoded(9)
    wait_for_background(data)
    assert numbers_asked() == [0, *range(8, 23)]
    data.encoded(22)  # after the last window comes nothing
    assert len(tars_asked()) == 16 and not data._files._fetching.is_alive()


def test_ahead_is_in_the_order_of_the_epoch_and_within_a_limit(many):
    data = open_dataset("shards", split="train", root=many[0], limit=20)
    order = data.order(torch.Generator().manual_seed(3)).tolist()
    data.encoded(order[0])
    wait_for_background(data)
    windows = [data._sequence[k : k + 8] for k in (0, 8)]
    assert numbers_asked() == sorted([order[0], *(k for k in windows[1] if k < 20)]) and order[0] in windows[0]


def test_what_fails_in_the_background_fails_again_where_it_is_needed(many):
    address, folder = many
    (folder / "00009.tar").unlink()
    data = open_dataset("shards", split="train", root=address)
    data.encoded(0)
    wait_for_background(data)
    assert numbers_asked() == [0, 8, 9] and len(data.encoded(8)) > 100
    with pytest.raises(MissingFileError, match="00009.tar: the server answers 404"):
        data.encoded(9)


def test_nothing_is_fetched_ahead_into_a_small_cache(many, monkeypatch):
    address, folder = many
    monkeypatch.setenv("PRUNECAP_CACHE_GB", str(20 * max(path.stat().st_size for path in folder.glob("*.tar")) / 1e9))
    data = open_dataset("shards", split="train", root=address)
    assert data.encoded(0) and numbers_asked() == [0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_fetch_each_shard_once(many, workers):
    data = open_dataset("shards", split="train", root=many[0])
    order = data.order(torch.Generator().manual_seed(1)).tolist()
    data.encoded(order[0])  # a thread in this process must not disturb the workers
    read = list(map_in_workers(Lengths(data), order, workers))
    assert read == [int(data._length[i]) for i in order] and numbers_asked() == list(range(23))
    assert pickle.loads(pickle.dumps(data)).encoded(3) == data.encoded(3)


class Lengths:
    def __init__(self, data):
        self.data = data

    def __getitem__(self, i):
        return len(self.data.encoded(i))


def test_other_processes_may_drop_and_finish_files_at_any_moment(server, tmp_path, monkeypatch):
    """What was listed is gone a moment later: a download got its name, a shard made room for another."""
    data = open_dataset("shards", split="train", root=server[0])
    folder = tmp_path / "cache" / "shards"
    folder.mkdir(parents=True)
    real = os.utime
    monkeypatch.setattr(os, "utime", lambda *args: [path.unlink() for path in folder.glob("*.tar")] and real(*args))
    assert data.encoded(0) and cached(tmp_path) == []
    monkeypatch.undo()
    (folder / "tmp1").symlink_to(folder / "gone")  # listed, and cannot be looked at
    data._files._make_room(0)


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRUNECAP_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="shard cache .*file/shards: Not a directory.*PRUNECAP_CACHE"):
        open_dataset("shards", split="train", root=server[0]).encoded(0)
