"""What a run begins with: a captioner, untrained or from a checkpoint (who is the teacher, too), and learning rates."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import torch

from ..bytepairs import BytePairs
from ..captioner import Captioner, CaptionerConfig
from ..encoders import Encoder, build_encoder
from ..encoders.weights import load_state_dict_file, packaged_state_dict
from ..errors import InputError
from ..text import Vocabulary
from .config import TrainConfig

# a captioner's settings that a run may change without changing the shape of any weight
_FREE = {"prune_ratio", "scorer", "dropout", "frozen_encoder", "schedule", "max_length", "encoder_package"}


def initial_captioner(config: TrainConfig, captions: list[list[str]]) -> Captioner:
    """What the first step finds: the checkpoint named by ``config.start``, or an untrained captioner."""
    return new_captioner(config, captions) if config.start is None else _started_captioner(config)


def new_captioner(config: TrainConfig, captions: list[list[str]]) -> Captioner:
    """An untrained captioner; its vocabulary comes from the training captions alone."""
    kind = BytePairs if config.tokenizer == "bpe" else Vocabulary
    vocabulary = kind.build((c for row in captions for c in row), min_count=config.min_count,
                            max_size=config.vocabulary_size)
    encoder = new_encoder(config)
    return Captioner(config.captioner_config(encoder.image_size), vocabulary, encoder=encoder)


def new_encoder(config: TrainConfig) -> Encoder:
    """The encoder that ``config`` names, with its weights, seeing what ``config.view`` says of a picture."""
    weights, state_dict = config.encoder_weights, None
    if weights not in (None, "timm"):
        state_dict = packaged_state_dict(config.encoder) if weights == "package" else load_state_dict_file(weights)
    encoder = build_encoder(config.encoder, image_size=config.image_size, state_dict=state_dict,
                            pretrained=weights == "timm")
    if config.view == "whole":
        encoder.preprocessing = encoder.preprocessing.whole()
    return encoder


def _started_captioner(config: TrainConfig) -> Captioner:
    """The captioner of ``config.start``, with its vocabulary, preprocessing and weights, and this run's schedule. What
    the schedule adds (predictors) starts untrained. Raises InputError where the run's sizes are others."""
    before = Captioner.load(config.start)
    settings = _started_config(config, before.config)
    before.encoder.set_schedule(None)  # what a schedule of before had added goes
    captioner = Captioner(settings, before.vocabulary, encoder=before.encoder, preprocessing=before.preprocessing)
    captioner.projection.load_state_dict(before.projection.state_dict())
    captioner.decoder.load_state_dict(before.decoder.state_dict())
    return captioner


def _started_config(config: TrainConfig, before: CaptionerConfig) -> CaptionerConfig:
    """The checkpoint's settings with this run's pruning, dropout and freezing. Raises InputError that names every
    setting in which the two have other shapes."""
    asked = config.captioner_config(config.image_size or before.image_size)
    differ = [f"{name} {value!r} there, {getattr(asked, name)!r} here" for name, value in asdict(before).items()
              if name not in _FREE and value != getattr(asked, name)]
    if asked.max_length > before.max_length:
        differ.append(f"max_length {before.max_length} there, max_words {config.max_words} here")
    if differ:
        raise InputError(f"start {config.start}: a run keeps the sizes of the checkpoint that it starts from, and "
                         f"these differ: {'; '.join(differ)}. Give the checkpoint's, or leave start out")
    # only an encoder that came out of a package unchanged can be left to it again
    package = asked.encoder_package and before.encoder_package
    return replace(asked, max_length=before.max_length, encoder_package=package)


def load_teacher(config: TrainConfig) -> Captioner:
    """The captioner of ``config.start`` as it was, frozen, and shown every token."""
    teacher = Captioner.load(config.start)
    teacher.config = replace(teacher.config, prune_ratio=0.0, schedule=None)
    teacher.encoder.set_schedule(None)
    return teacher.requires_grad_(False).eval()


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine down to 1% of the peak (Loshchilov & Hutter 2017)."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise))))


def parameter_groups(captioner: Captioner, weight_decay: float, encoder_share: float = 1.0) -> list[dict]:
    """Matrices decay; biases, norms and position tables do not.

    Args: encoder_share: of the learning rate, what the encoder's parameters get; each group knows its "share".
    """
    trained = {name: p for name, p in captioner.named_parameters() if p.requires_grad}
    share = {name: encoder_share if name.startswith("encoder.") else 1.0 for name in trained}
    return [{"params": [p for name, p in trained.items() if share[name] == one and (p.dim() > 1) == matrix],
             "weight_decay": weight_decay if matrix else 0.0, "share": one}
            for one in sorted(set(share.values()), reverse=True) for matrix in (True, False)]


def new_optimizer(captioner: Captioner, config: TrainConfig, **options) -> torch.optim.AdamW:
    """What moves the weights that are trained. ``options`` are AdamW's own."""
    groups = parameter_groups(captioner, config.weight_decay, (config.encoder_lr or config.lr) / config.lr)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), **options)
