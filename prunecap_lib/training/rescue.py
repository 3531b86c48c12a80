"""What is left of a step whose loss is no number? The batch itself, so that it can be looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from ..files import write_text
from ..tokens import VisualTokens
from .batches import Batches, Part


def save_bad_batch(folder: Path, batches: Batches, parts: Sequence[Part], losses: Sequence[float], step: int) -> Path:
    """Write the first part whose loss is no number, or the last one, as bad_batch_STEP.json and .safetensors.

    The JSON has the step, the loss, the pictures' ids and their captions; the safetensors ``images`` [B, 3, S, S] (or
    features, by name) and ``ids`` [B*R, T], as the captioner got them. In several processes names end in the number of
    the process. Returns the path of the JSON.
    """
    from safetensors.torch import save_file
    bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
    batch, dataset = batches[parts[bad]], batches.dataset
    name = f"bad_batch_{step}" + (f"_process_{batches.process}" if batches.processes > 1 else "")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = batches.pictures_of(parts[bad])
    write_text(folder / f"{name}.json", json.dumps({
        "step": step, "loss": str(losses[bad]), "dataset": dataset.name, "split": dataset.split,
        "pictures": [dataset.image_ids[i] for i in pictures],
        "captions": [dataset.captions[i] for i in pictures]}, indent=1, ensure_ascii=False) + "\n")
    save_file({key: value.contiguous() for key, value in (tensors(batch.images) | {"ids": batch.ids}).items()},
              folder / f"{name}.safetensors")
    return folder / f"{name}.json"


def tensors(images: Tensor | VisualTokens) -> dict[str, Tensor]:
    """What a captioner is shown, by name."""
    if isinstance(images, Tensor):
        return {"images": images}
    values = {field.name: getattr(images, field.name) for field in fields(images)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
