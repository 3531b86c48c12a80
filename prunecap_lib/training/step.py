"""How did a step go? What its micro-batches report, in all processes; a batch whose loss is no number is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..distributed import gather_numbers
from ..errors import PrunecapError, TrainingError
from ..files import write_text
from .batches import Batch, Batches, MicroBatchKey


class StepOutcome(NamedTuple):
    """A step, as all processes see it."""

    loss: float
    accuracy: float  # of next words; 0 where it was not asked for
    stop: int  # the signal that some process was sent; 0 for none


class StepMetrics:
    """Collects what the micro-batches of a step report: ``add`` after each, ``all_reduce`` after the last, before the
    weights move. ``folder``: where a batch goes whose loss is no number."""

    def __init__(self, accelerator, batches: Batches, folder: Path):
        self.accelerator, self.batches, self.folder = accelerator, batches, folder
        self._parts: list[tuple[MicroBatchKey, Tensor, float]] = []  # no pictures: they would stay on the GPU

    def add(self, batch: Batch, loss: Tensor, accuracy: float = 0.0) -> None:
        """Its loss is weighted already (``objective``); its accuracy is a mean over its own words."""
        self._parts.append((batch.key, loss.detach(), batch.loss_scales[0] * accuracy))

    def all_reduce(self, step: int, norm: Tensor, asked: int = 0) -> StepOutcome:
        """``norm``: the gradient's length; ``asked``: the signal this process was sent. Raises TrainingError, in all
        processes, where a loss or the gradient is no number. The batch is saved then."""
        keys, losses, accuracies = zip(*self._parts, strict=True)
        losses, self._parts = [float(loss) for loss in losses], []
        own = [sum(losses) / len(losses), sum(accuracies) / len(losses), asked]
        loss, accuracy, asked = gather_numbers(self.accelerator, own).T
        outcome = StepOutcome(float(loss.mean()), float(accuracy.mean()), int(asked.max()))
        # With fp16 a gradient may overflow: the scaler then leaves the step out and lowers the scale.
        length = 0.0 if self.accelerator.scaler else float(getattr(norm, "full_tensor", lambda: norm)())
        if not math.isfinite(outcome.loss) or not math.isfinite(length):
            self._fail(step, keys, losses, outcome.loss, length)
        return outcome

    def _fail(self, step: int, keys: Sequence[MicroBatchKey], losses: list[float], loss: float, length: float) -> None:
        said = "another process has saved the batch"
        if not math.isfinite(sum(losses)) or math.isfinite(loss) and self.accelerator.is_main_process:
            try:
                said = f"the batch is saved in {save_bad_batch(self.folder, self.batches, keys, losses, step)}"
            except (PrunecapError, OSError, SafetensorError) as error:  # a full disk must not hide what went wrong
                said = f"the batch could not be saved ({error})"
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's length is {length}"
        saved = self.folder / "checkpoint"
        kept = f"the checkpoint in {saved} is from before" if saved.exists() else "there is no checkpoint yet"
        raise TrainingError(f"{what} at step {step}; {said}; {kept}. Lower --lr or train with --precision fp32")


def save_bad_batch(folder: Path, batches: Batches, keys: Sequence[MicroBatchKey], losses: Sequence[float],
                   step: int) -> Path:
    """Write the first micro-batch whose loss is no number, or the last one, as bad_batch_STEP.json and .safetensors.

    The JSON has the step, the loss, the pictures' ids and their captions; the safetensors ``images`` [B, 3, S, S] (or
    features, by name) and ``ids`` [B*R, T], as the captioner got them. In several processes names end in the number of
    the process. Returns the path of the JSON.
    """
    bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
    batch, dataset, pictures = batches[keys[bad]], batches.dataset, batches.pictures_of(keys[bad])
    path = folder / (f"bad_batch_{step}" + (f"_process_{batches.process}" if batches.processes > 1 else "") + ".json")
    write_text(path, json.dumps({
        "step": step, "loss": str(losses[bad]), "dataset": dataset.name, "split": dataset.split,
        "pictures": [dataset.image_ids[i] for i in pictures],
        "captions": [dataset.captions[i] for i in pictures]}, indent=1, ensure_ascii=False) + "\n")
    shown = {"images": batch.images} if isinstance(batch.images, Tensor) else vars(batch.images)
    save_file({key: value.contiguous() for key, value in {**shown, "ids": batch.ids}.items()
               if isinstance(value, Tensor)}, path.with_suffix(".safetensors"))
    return path
