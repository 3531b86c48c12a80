"""How did a step go? What its parts tell, in all processes together: the loss, whether it is a number, and who wants to
stop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from ..distributed import gather_numbers
from ..errors import PrunecapError, TrainingError
from .batches import Batch, Batches
from .rescue import save_bad_batch


@dataclass(frozen=True)
class Outcome:
    """A step, as all processes see it."""

    loss: float
    accuracy: float
    """Of next words; 0 where it was not asked for."""
    stop: int
    """The signal that some process was sent; 0 for none."""


class Outcomes:
    """Collects what the parts of a step tell: ``add`` after each, ``together`` after the last, before weights move.

    Args: folder: where a batch goes whose loss is no number.
    """

    def __init__(self, accelerator, batches: Batches, folder: Path):
        self.accelerator, self.batches, self.folder = accelerator, batches, folder
        self._parts: list[tuple[Batch, Tensor, float]] = []

    def add(self, batch: Batch, loss: Tensor, accuracy: float = 0.0) -> None:
        """Its loss is weighted already (``objective``); its accuracy is a mean over its own words."""
        self._parts.append((batch, loss.detach(), batch.weights[0] * accuracy))

    def together(self, step: int, norm: Tensor, asked: int = 0) -> Outcome:
        """Args: norm: the gradient's length; asked: the signal this process was sent.

        Raises TrainingError, in all processes, where a loss or the gradient is no number. The batch is saved then.
        """
        parts, self._parts = self._parts, []
        losses = [float(loss) for _, loss, _ in parts]
        accuracy = sum(accuracy for _, _, accuracy in parts) / len(parts)
        told = gather_numbers(self.accelerator, [sum(losses) / len(losses), accuracy, asked])
        outcome = Outcome(float(told[:, 0].mean()), float(told[:, 1].mean()), int(told[:, 2].max()))
        # With fp16 a gradient may overflow: the scaler then leaves the step out and lowers the scale.
        length = 0.0 if self.accelerator.scaler else float(getattr(norm, "full_tensor", lambda: norm)())
        if not math.isfinite(outcome.loss) or not math.isfinite(length):
            self._fail(step, [batch for batch, _, _ in parts], losses, outcome.loss, length)
        return outcome

    def _fail(self, step: int, batches: list[Batch], losses: list[float], loss: float, length: float) -> None:
        mine = not math.isfinite(sum(losses)) or math.isfinite(loss) and self.accelerator.is_main_process
        told = "; another process has saved the batch"
        if mine:
            try:
                path = save_bad_batch(self.folder, self.batches, [batch.part for batch in batches], losses, step)
                told = f"; the batch is saved in {path}"
            except (PrunecapError, OSError, SafetensorError) as error:  # a full disk must not hide what went wrong
                told = f"; the batch could not be saved ({error})"
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's length is {length}"
        saved = self.folder / "checkpoint"
        kept = f"the checkpoint in {saved} is from before" if saved.exists() else "there is no checkpoint yet"
        raise TrainingError(f"{what} at step {step}{told}; {kept}. Lower --lr or train with --precision fp32")
