"""What does one of several processes do in a test? Train run after run, as a list of settings says.

``interrupt`` sends the last process SIGTERM before that part of a run's work, and starts the run again; ``double``
computes in float64. Prints nothing.
"""

import os
import signal
from contextlib import nullcontext
from unittest import mock

import torch
from doubles import trained_in_double

from prunecap_lib import TrainConfig, train
from prunecap_lib.errors import PrunecapError, TrainingStopped
from prunecap_lib.training import run as runs
from prunecap_lib.training.objective import objective


def train_all(told: dict[str, str], settings: list[dict]) -> None:
    os.environ.update(told)
    torch.set_num_threads(1)
    rank = int(told["RANK"])
    for run in settings:
        interrupt, poison, double = (run.pop(name, None) for name in ("interrupt", "poison", "double"))
        seen = []

        def watched(*arguments, interrupt=interrupt, poison=poison, seen=seen):
            seen.append(None)
            if len(seen) == interrupt and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            loss, logits, targets = objective(*arguments)
            return (loss * float("nan") if len(seen) == poison and rank == 1 else loss), logits, targets

        with mock.patch.object(runs, "objective", watched), trained_in_double() if double else nullcontext():
            try:
                train(TrainConfig(**run))
            except TrainingStopped as stopped:
                assert stopped.signal == signal.SIGTERM and "stopped at step" in str(stopped)
                train(TrainConfig(**run))
            except PrunecapError as error:
                with open(f"{run['out']}/error-{rank}", "w") as file:
                    file.write(str(error))
    torch.distributed.destroy_process_group()
