"""What happens after an epoch? The captioner is judged, the log told, the best weights kept, pictures drawn."""

from __future__ import annotations

from collections.abc import Callable

from ..distributed import raise_on_all_ranks
from ..errors import PrunecapError
from ..evaluation.cider import check_document_frequencies
from .batches import Batches, open_split
from .config import TrainConfig
from .log import Log
from .processes import is_sharded
from .progress import keep, out_of_patience, places
from .state import whole_weights
from .tracking import Tracker
from .validation import caption_score, validate


class EpochEnd:
    """``last = finish(kept, step, epoch)``, in all processes, after each epoch, counted from 1."""

    def __init__(self, accelerator, config: TrainConfig, val: Batches, log: Log, tracker: Tracker,
                 after_epoch: Callable | None):
        self.accelerator, self.config, self.val = accelerator, config, val
        self.log, self.tracker, self.after_epoch = log, tracker, after_epoch
        self.captioned = open_split(config, "val", config.caption_limit) if config.scored_every else None
        if self.captioned is not None:
            check_document_frequencies(self.captioned.captions)  # now, not after an epoch

    def __call__(self, kept, step: int, epoch: int) -> bool:
        """Judge, tell, keep and draw; returns whether it was the last. ``kept`` is the captioner, perhaps wrapped.

        Raises CheckpointError, in all processes, where the file system refuses, or a user's file would be lost.
        """
        captioner, every = self.accelerator.unwrap_model(kept), self.config.scored_every
        found = validate(kept, self.val, self.accelerator)
        if every and (epoch % every == 0 or epoch == self.config.epochs):
            found["cider"] = caption_score(captioner, self.captioned, self.config)
        failed = None
        try:
            self.log.write(step=step, epoch=epoch, **found)
        except PrunecapError as error:
            failed = error
        raise_on_all_ranks(self.accelerator, failed)
        if folders := places(self.log.lines, epoch, self.config):
            weights = whole_weights(self.accelerator, kept)
            if self.accelerator.is_main_process:
                try:
                    keep(captioner, folders, epoch, self.config, weights)
                except PrunecapError as error:
                    failed = error
        raise_on_all_ranks(self.accelerator, failed)
        if self.after_epoch and self.accelerator.is_main_process and not is_sharded(self.accelerator):
            for name, path in (self.after_epoch(captioner, self.log.lines) or {}).items():
                self.tracker.image(name, path, step)
        return epoch == self.config.epochs or out_of_patience(self.log.lines, self.config)
