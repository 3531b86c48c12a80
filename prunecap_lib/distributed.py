"""What several processes (P) must agree on: their group, turns, errors, and random numbers of their own."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from .errors import CheckpointError, PrunecapError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # how long processes wait for each other: one may be encoding a whole data set for all


def processes():
    """Accelerate's ``PartialState``: who of ``accelerate launch`` or ``torchrun`` this is, or one process alone."""
    from accelerate import PartialState  # late: accelerate doubles the time to import torch
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    if state.num_processes > 1:
        destroy_process_group_at_exit()
    return state


@lru_cache(maxsize=1)
def destroy_process_group_at_exit() -> None:
    """Leave the process group before Python ends: a process that is still in it then may abort."""
    atexit.register(lambda: torch.distributed.is_initialized() and torch.distributed.destroy_process_group())


def gather_sorted(found: list[tuple]) -> list[tuple]:
    """What all processes found, in every process, in the order of the first entries: the data set's."""
    from accelerate.utils import gather_object  # late, as above
    processes()  # or else Accelerate would look for a GPU where the library does not
    return sorted(gather_object(found), key=lambda one: one[0])


def main_process_first(accelerator, make: Callable[[], T]) -> T:
    """``make()`` in every process: first in the main one, then in each machine's first, then in the others: for what
    one writes and the others find (a feature cache, a download), whether or not machines share a disk."""
    turn = 0 if accelerator.is_main_process else 1 if accelerator.is_local_main_process else 2
    for now in range(3):
        with raise_on_all_ranks(accelerator):
            if turn == now:
                made = make()
    return made


@contextmanager
def raise_on_all_ranks(accelerator) -> Iterator[None]:
    """Where one process fails inside, all raise: none waits for it for ever. To be entered in all processes."""
    failed = None
    try:
        yield
    except PrunecapError as error:
        failed = error
    ranks = gather_numbers(accelerator, [failed is not None])[:, 0].nonzero()[:, 0].tolist()
    if failed is not None:
        raise failed
    if ranks:
        raise CheckpointError(f"process {accelerator.process_index} of {accelerator.num_processes} stops because "
                              f"process {ranks[0]} failed; see its message")


def is_sharded(accelerator) -> bool:
    """Does each process hold a part of the weights only?"""
    return accelerator.distributed_type == "FSDP"


def gather_numbers(accelerator, numbers: list[float]) -> Tensor:
    """A few numbers of every process: [P, n], float64, on the CPU of all of them."""
    own = torch.tensor([numbers], dtype=torch.double)
    if accelerator.num_processes == 1:
        return own
    return accelerator.gather(own.to(accelerator.device)).cpu()


def derive_seed(*parts: int) -> int:
    """A seed for ``torch.manual_seed`` that depends on all parts: the run's seed, the epoch, the picture, ..."""
    return hash(parts) & 0x7FFFFFFF


@contextmanager
def seeded_rng(seed: int, position: int) -> Iterator[None]:
    """Inside, what the CPU draws depends on these two alone: the scorer 'random', before or inside the encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, position))
        yield


def seed_this_rank(rank: int, seed: int) -> None:
    """Let every process but the first draw its own noise for dropout; the weights have been drawn alike by then."""
    if rank:
        torch.manual_seed(derive_seed(seed, -1, rank))
