"""Do workers hand over what is due, tell of errors in people's words, and go when their process is killed?"""

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from prunecap_lib.datasets import loading
from prunecap_lib.datasets.loading import map_in_workers
from prunecap_lib.errors import InputError, MissingFileError


class Heavy:
    def __getitem__(self, i):
        return os.getpid(), bytes(1_000_000)  # more than a pipe holds: handing it over waits for a reader


def loads(told):
    loader = map_in_workers(Heavy(), range(100), 2)
    told.send([next(loader)[0], next(loader)[0]])
    time.sleep(60)


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_with_a_killed_parent():
    fork = multiprocessing.get_context("fork")
    hear, told = fork.Pipe(duplex=False)
    process = fork.Process(target=loads, args=(told,))
    process.start()
    workers = hear.recv()
    assert len(set(workers)) == 2 and all(runs(pid) for pid in workers)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    until = time.monotonic() + 4  # PyTorch's own watch looks every 5 s
    while any(runs(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(runs(pid) for pid in workers)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_signal_from_elsewhere_is_the_parents_to_obey(name):
    before = set(multiprocessing.active_children())
    loader = map_in_workers(Heavy(), range(40), 2)
    pids = {next(loader)[0], next(loader)[0]}
    subprocess.run(["kill", f"-{name}", *map(str, pids)], check=True)  # as Slurm does to all processes of a job
    assert {pid for pid, _ in loader} == pids
    loader = map_in_workers(Heavy(), range(40), 2)
    next(loader)
    workers = set(multiprocessing.active_children()) - before
    loader.close()  # the parent wants no more
    for worker in workers:
        worker.join(5)
    assert len(workers) == 2 and not any(worker.is_alive() for worker in workers)


LEFT_OPEN = []


def leaves(told):
    LEFT_OPEN.append(map_in_workers(Heavy(), range(100), 2))
    told.send(next(LEFT_OPEN[0])[0])


def test_a_process_that_leaves_with_an_unfinished_loader_ends(monkeypatch):
    monkeypatch.setattr(loading, "GRACE", 0.1)
    fork = multiprocessing.get_context("fork")
    hear, told = fork.Pipe(duplex=False)
    process = fork.Process(target=leaves, args=(told,))
    process.start()
    worker = hear.recv()
    process.join(10)
    ended = process.exitcode
    process.kill()
    assert ended == 0 and not runs(worker)


class Failing:
    def __init__(self, error):
        self.error = error

    def __getitem__(self, key):
        if key == 3:
            raise self.error
        return key


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", [InputError("picture 3 is bad"), MissingFileError("shard 3 not found")])
def test_an_error_says_the_same_in_a_worker(workers, error):
    read, state = [], torch.get_rng_state()
    with pytest.raises(type(error)) as caught:
        for one in map_in_workers(Failing(error), [5, 1, 4, 3, 2], workers):
            read.append(one)
    assert str(caught.value) == str(error) and read == [5, 1, 4]
    assert torch.equal(torch.get_rng_state(), state)
