"""What is a training step pushed by? The next words; a teacher who sees every token; the share of tokens kept.

Rao et al. 2021 (DynamicViT), section 3.4. Shapes: B pictures, R captions per picture, T words, M targets (words),
V vocabulary, N visual tokens, K kept, C channels, L reductions inside the encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..text import PAD
from ..tokens import VisualTokens, gather_tokens
from .batches import Batch
from .config import TrainConfig


def masked_logits_and_targets(captioner, images, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Teacher forcing without the padding: ids [B*R, T] -> logits [M, V] and the M targets."""
    real = ids[:, 1:] != PAD
    return captioner(images, ids[:, :-1], at=real), ids[:, 1:][real]


def objective(model, batch: Batch, config: TrainConfig, teacher=None) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of one batch, and what it was computed from: logits [M, V] and the M targets.

    ``batch.loss_scales`` weigh it where the batch is part of a larger one: the first a mean over words, the second one
    over pictures. ``teacher`` is the captioner that a fine-tuning run started from, frozen and unpruned.
    """
    images, ids = batch
    words, pictures = batch.loss_scales
    real = ids[:, 1:] != PAD
    targets = ids[:, 1:][real]
    logits, tokens = model(images, ids[:, :-1], at=real, need_tokens=True)
    loss = words * F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
    if tokens.keep_ratios is not None:
        loss = loss + pictures * config.ratio_weight * ratio_loss(tokens.keep_ratios, config.schedule.shares)
    if teacher is not None:
        with torch.no_grad():
            expected, whole = teacher(images, ids[:, :-1], at=real, need_tokens=True)
        loss = loss + words * config.word_weight * word_loss(logits, expected)
        loss = loss + pictures * config.feature_weight * feature_loss(tokens, whole)
    return loss, logits, targets


def ratio_loss(shares: Tensor, targets: tuple[float, ...]) -> Tensor:
    """How far each picture is, after each reduction, from keeping the share of its tokens that it should: the squared
    difference of ``shares`` [B, L] and the L ``targets``, mean over pictures and reductions."""
    return (shares - shares.new_tensor(targets)).square().mean()


def word_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the next word's distribution, mean over M words; both [M, V]. The paper writes it with
    the two exchanged; its code has this order, and so has Hinton et al. 2015."""
    return F.kl_div(logits.float().log_softmax(dim=-1), teacher.float().log_softmax(dim=-1), reduction="batchmean",
                    log_target=True)


def feature_loss(tokens: VisualTokens, teacher: VisualTokens) -> Tensor:
    """Squared difference of x [B, K, C] (with a ``keep_mask``: [B, N, C]) to the teacher's [B, N, C] in the same cells,
    mean over kept tokens and channels.

    The mask only says which tokens count. A gradient through it would drop whichever token has changed most,
    and that is not the one needed least.
    """
    squared = (tokens.x.float() - gather_tokens(teacher.x, tokens.index).float()).square().mean(dim=-1)
    if tokens.keep_mask is None:
        return squared.mean()
    kept = tokens.keep_mask.detach()
    return (kept * squared).sum() / kept.sum().clamp_min(1)
