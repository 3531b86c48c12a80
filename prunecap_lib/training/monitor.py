"""Is the machine well used? Pictures a second, the share of time spent waiting for data, memory, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator

import torch

CLOCKS = ("seconds", "pictures_per_second", "data_wait", "memory_gib", "seconds_left")
"""Keys of metrics.jsonl that tell of the machine and not of the model: two runs of one config differ in them alone."""


class Monitor:
    """Watches a training loop: ``for batch in monitor.watch(batches)``, and ``monitor.figures(left)`` after a step.

    The wait for data is the time inside ``next`` of the loader. The clock is one that nobody sets back.

    Args:
        pictures: in one step, of all processes together.
        device: whose memory is looked at.
    """

    def __init__(self, pictures: int, device: torch.device, clock: Callable[[], float] = time.perf_counter):
        self.pictures, self.device, self.clock = pictures, device, clock
        self.restart()

    def restart(self) -> None:
        """Count from here: what was done in between (validation, saving) is no training."""
        self.began, self.waited, self.steps = self.clock(), 0.0, 0

    def watch(self, batches: Iterable) -> Iterator:
        """The same batches, and how long each was waited for."""
        self.restart()
        batches = iter(batches)
        while True:
            asked = self.clock()
            batch = next(batches, None)
            self.waited += self.clock() - asked
            if batch is None:
                return
            yield batch

    def step(self) -> None:
        """A step is finished."""
        self.steps += 1

    def figures(self, steps_left: int) -> dict[str, float]:
        """Since they were last asked for, or the epoch began; memory since the process did. Time left: of training."""
        passed = max(self.clock() - self.began, 1e-9)
        found = {"pictures_per_second": self.steps * self.pictures / passed, "data_wait": self.waited / passed,
                 "memory_gib": peak_memory(self.device) / 2**30, "seconds_left": steps_left * passed / self.steps}
        self.restart()
        return {key: round(value, 3) for key, value in found.items()}


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use: of the GPU's memory by tensors, or of the machine's by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
