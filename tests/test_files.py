"""Is a file written whole or not at all, and does a lock end with the process that took it?"""

import json
import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from prunecap_lib.checkpoint import CHECKPOINT
from prunecap_lib.errors import CheckpointError, InputError
from prunecap_lib.files import Kind, alone, locked, recover_folder, replace_folder, write_text


def test_write_text_replaces_the_whole_and_makes_the_folder(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("long words", "é"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text and [one.name for one in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("place", ["taken/file.txt", "taken/deeper/file.txt", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=f"could not write .*{place}: .*choose another place"):
        write_text(tmp_path / place, "text")
    assert (tmp_path / "taken").read_text() == "mine" and not list(tmp_path.glob(".*"))


def test_the_second_waits_for_the_first(tmp_path):
    fork, said = multiprocessing.get_context("fork"), []
    hear, told = fork.Pipe(duplex=False)

    def hold():
        with locked(tmp_path / "lock", print):
            told.send("mine")
            time.sleep(0.3)
            (tmp_path / "done").touch()

    first = fork.Process(target=hold)
    first.start()
    hear.recv()
    with locked(tmp_path / "lock", said.append):
        assert (tmp_path / "done").exists() and "waiting until it has finished" in said[0]
    first.join()


def test_a_lock_ends_where_it_was_taken_though_a_process_was_forked_meanwhile(tmp_path):
    fork, said = multiprocessing.get_context("fork"), []
    with locked(tmp_path / "lock", print):
        child = fork.Process(target=time.sleep, args=(30,), daemon=True)
        child.start()
    with locked(tmp_path / "lock", said.append):
        assert child.is_alive() and said == []
    child.kill()


def test_who_comes_second_is_told_who_is_at_work_and_a_killed_one_holds_nothing(tmp_path):
    fork, lock = multiprocessing.get_context("fork"), tmp_path / "run" / ".lock"
    hear, told = fork.Pipe(duplex=False)

    def hold():
        with alone(lock, "run x"):
            told.send("mine")
            time.sleep(60)

    first = fork.Process(target=hold, daemon=True)
    first.start()
    hear.recv()
    for _ in range(2):  # asking changes nothing
        with pytest.raises(InputError, match=rf"run x: another process is at work there \(process {first.pid} on "):
            with alone(lock, "run x"):
                pass
    first.kill()
    first.join()
    with alone(lock, "run x"):
        (tmp_path / "run" / "log").touch()
    assert lock.exists()  # it marks the folder


def test_a_folder_that_was_made_for_a_lock_alone_goes(tmp_path):
    with alone(tmp_path / "new" / ".lock", "run"):
        pass
    with locked(tmp_path / "lock", print):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reader_waits_while_a_folder_is_swapped(tmp_path, monkeypatch):
    """Between the two renames there is none; what a reader then does must not be in the writer's way."""
    kind = Kind("thing", lambda folder: (folder / "mark").exists(), names="mark")
    rename = Path.rename

    def write():
        with replace_folder(tmp_path / "x", kind) as new:
            (new / "mark").touch()

    write()

    def slowly(path, target):
        rename(path, target)
        if path.name == "x":
            reader.start()
            time.sleep(0.2)

    reader = threading.Thread(target=recover_folder, args=(tmp_path / "x", kind))
    monkeypatch.setattr(Path, "rename", slowly)
    write()
    reader.join(10)
    assert not reader.is_alive() and [path.name for path in tmp_path.rglob("*")] == ["x", "mark"]


def test_a_name_that_is_no_utf8_can_be_written_about(tmp_path):
    write_text(tmp_path / "\udcff.json", json.dumps({"picture": "caf\udce9.jpg"}, ensure_ascii=False))
    assert json.loads((tmp_path / "\udcff.json").read_text(encoding="utf-8")) == {"picture": "caf\udce9.jpg"}


def test_what_a_kill_leaves_of_a_checkpoint_is_ours(tmp_path):
    """safetensors writes under another name first."""
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / ".tmpJ1E1M7").write_bytes(b"half")
    with replace_folder(tmp_path / "out", CHECKPOINT) as new:
        assert not list(new.iterdir())
        (new / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
