"""How do several processes prepare data for one? And what becomes of them when it is killed, or when they fail?

A worker goes with its parent, not before and not after. PyTorch's own watch does not see to that: a worker that still
has data to hand over waits for a reader for ever, with its memory and whatever lock it has inherited. And Slurm,
torchrun and terminals send their signals to workers and parent alike: the parent would lose its workers while it
finishes its step and saves. What goes wrong in a worker is raised as it was there: PyTorch would put a worker's
traceback into the message that is meant for people.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..errors import PrunecapError

GRACE = 120.0
"""Seconds for a parent that was told to end to finish its step and save."""


def map_in_workers(data: Any, keys: Sequence, workers: int) -> Iterator:
    """``data[key]`` for each key, in order, by so many processes beside this one. Raises what ``data[key]`` raises."""
    # a generator of its own: opening a loader must not disturb a run's random state
    loader = torch.utils.data.DataLoader(_Told(data), sampler=keys, batch_size=None, num_workers=workers,
                                         worker_init_fn=exit_with_parent, generator=torch.Generator())
    for one in loader:
        if isinstance(one, PrunecapError):
            raise one
        yield one


def exit_with_parent(_worker: int = 0) -> None:
    """``DataLoader(worker_init_fn=exit_with_parent)``: ends this worker when its parent has ended, and for no signal.

    A parent that lives and wants no more ends it in the loader's own way. But one that leaves with an unfinished loader
    sends SIGTERM, too, and waits: so whom that has found goes after ``GRACE``.
    """
    def leave_later(*_) -> None:
        timer = threading.Timer(GRACE, os._exit, [0])  # any other status would raise in a parent that waits
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave_later)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Told(torch.utils.data.Dataset):
    """Data by key, and in place of an error's raising the error."""

    def __init__(self, data: Any):
        self.data = data

    def __getitem__(self, key):
        try:
            return self.data[key]
        except PrunecapError as error:
            return error
