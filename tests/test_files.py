"""Is a file written whole or not at all, and does a lock end with the process that took it?"""

import multiprocessing
import time

import pytest

from prunecap_lib.errors import CheckpointError
from prunecap_lib.files import locked, write_text


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
