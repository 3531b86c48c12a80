"""Do workers go when the process that they work for is killed, even with their hands full?"""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch

from prunecap_lib.datasets.workers import end_with_parent


class Heavy(torch.utils.data.Dataset):
    def __getitem__(self, i):
        return os.getpid(), bytes(1_000_000)  # more than a pipe holds: handing it over waits for a reader


def loads(told):
    loader = iter(torch.utils.data.DataLoader(Heavy(), sampler=range(100), batch_size=None, num_workers=2,
                                              worker_init_fn=end_with_parent))
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
