"""Whose weights are kept? Not those of the last step but a mean: over steps as they pass, or over finished checkpoints.

Polyak & Juditsky 1992 average the weights along the way; Vaswani et al. 2017, section 6.1, the last few checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ..captioner import Captioner
from ..checkpoint import origin
from ..errors import InputError


def moving_average(captioner: Captioner, decay: float):
    """timm's ``ModelEmaV3`` of a captioner: ``.update(captioner, step)`` after each step, counted from 1; ``.module``.

    In step t the decay is min(decay, 1 - t^(-3/4)): the average reaches back over t^(3/4) steps, never over the
    random weights of the start. Buffers (statistics of a batch norm) are copied as they are.
    """
    from timm.utils import ModelEmaV3
    average = ModelEmaV3(captioner, decay=decay, use_warmup=True, warmup_power=3 / 4, exclude_buffers=True)
    average.module.requires_grad_(False)
    return average


def average_checkpoints(folders: Sequence[str | Path]) -> Captioner:
    """The captioner whose every weight is the mean of the same weight in all these checkpoints.

    Raises InputError where there is none, or where two differ in more than their weights; CheckpointError for a
    folder that cannot be read.
    """
    if not folders:
        raise InputError("no checkpoint to average; name at least one")
    mean = Captioner.load(folders[0])
    sums = {key: value.double() for key, value in mean.state_dict().items() if value.is_floating_point()}
    for folder in folders[1:]:
        other = Captioner.load(folder)
        check_alike(mean, other, folders[0], folder)
        state = other.state_dict()
        for key, value in sums.items():
            value += state[key]
    with torch.no_grad():
        for key, value in mean.state_dict().items():
            if key in sums:
                value.copy_(sums[key] / len(folders))
    return mean.eval()


def check_alike(first: Captioner, other: Captioner, name: str | Path, other_name: str | Path) -> None:
    """Raises InputError that says in what two captioners differ beside their weights."""
    parts = [(asdict(one.config) | {"preprocessing": one.preprocessing, "vocabulary": one.vocabulary.fingerprint(),
                                    "schedule": one.encoder.schedule}) for one in (first, other)]
    differ = [f"{key} ({value!r} and {parts[1][key]!r})" for key, value in parts[0].items() if value != parts[1][key]]
    if differ:
        raise InputError(f"checkpoints {name} and {other_name} cannot be averaged: they differ in "
                         f"{', '.join(differ[:4])}. Average checkpoints of one run")


def signature(folders: Sequence[str | Path]) -> str:
    """What an averaged checkpoint says of its origin."""
    return json.dumps({**origin(folders[0]), "average_of": [str(folder) for folder in folders]})
