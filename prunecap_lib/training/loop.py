"""How does a captioner learn? Batches in, the loss of the next word, a step downhill; logged, saved, resumable."""

from __future__ import annotations

from collections.abc import Callable

from .config import TrainConfig
from .run import Run, TrainResult


def train(config: TrainConfig, *, after_epoch: Callable | None = None) -> TrainResult:
    """Train a captioner, or go on with the run found in ``config.out``.

    Args:
        after_epoch: called with the captioner as it is kept and the lines of metrics.jsonl so far, in the main process;
            may return pictures that it drew, for the tracker: {name: PNG file}. See ``plotting.RunFigures``.

    Several processes, started by ``accelerate launch`` or ``torchrun``, train one captioner: each calls this.

    Raises TrainingError where the loss is no longer a number, CheckpointError where ``out`` holds another run; in both
    cases the last good checkpoint stays. InputError where ``out`` holds something else, and while another process
    trains into it. TrainingStopped after SIGTERM or SIGINT: the run is saved.
    """
    with Run(config, after_epoch) as run:       # found where it stopped
        for epoch in run.epochs():              # until patience is out
            for batch in run.batches(epoch):
                with run.accumulate():
                    loss, logits, targets = run.objective(batch)
                    run.backward(loss)
                    if run.last_of_step:
                        run.clip()
                        run.optimizer_step()    # average, log, save
            run.end_epoch(epoch)                # validate, keep, draw
    return run.result()
