"""Training in other processes, forked from one that has imported torch."""

import runpy
import sys
import time
from pathlib import Path

import torch

from fork_server import fork
from prunecap_lib import TrainConfig, train


def train_until_there(config: TrainConfig, path: Path) -> None:
    """Kill -9 as soon as the path is there."""
    process = fork(_train, config)
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.is_alive() or process.exitcode == 0
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.join()


def _train(config):
    torch.set_num_threads(1)
    train(config)


def run_script(path: Path, arguments: list[str]) -> int | None:
    """The exit status of a Python program; None where it does not end."""
    process = fork(_run_script, str(path), arguments)
    process.join(300)
    return process.exitcode


def _run_script(path, arguments):
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")
