"""Is the machine well used? Pictures a second, and the share of the time that was spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

CLOCKS = ("seconds", "pictures_per_second", "data_wait")
"""Keys of metrics.jsonl that tell of the machine and not of the model: two runs of one config differ in them alone."""


class Monitor:
    """Watches a training loop: ``for batch in monitor.watch(batches)``, then ``monitor.figures()`` after a step.

    The wait for data is the time inside ``next`` of the loader. The clock is one that nobody sets back.

    Args: pictures: in one step, of all processes together.
    """

    def __init__(self, pictures: int, clock: Callable[[], float] = time.perf_counter):
        self.pictures, self.clock = pictures, clock
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

    def figures(self) -> dict[str, float]:
        """Since they were last asked for, or the epoch began."""
        passed = max(self.clock() - self.began, 1e-9)
        found = {"pictures_per_second": self.steps * self.pictures / passed, "data_wait": self.waited / passed}
        self.restart()
        return {key: round(value, 3) for key, value in found.items()}
