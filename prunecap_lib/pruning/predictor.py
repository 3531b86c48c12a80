"""Can an encoder learn which of its tokens to keep? A small network asks each token, and gradients teach it.

Rao et al. 2021, "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", sections 3.2 and 3.3.

Shapes: B pictures, N visual tokens, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PREDICTOR = "predictor"  # the name of this scorer


class TokenPredictor(nn.Module):
    """Keep or drop? Two log-probabilities for each token, from what it holds and from what the kept ones hold.

    A LayerNorm and a matrix make C features of a token. Half of them stay its own, the other half is replaced by its
    mean over the tokens still kept, so that each one is judged in its picture. An MLP of three layers makes two
    numbers of both.
    """

    def __init__(self, channels: int, keep: float = 0.5):
        """Args: keep: the probability of keeping from which learning starts, in (0, 1)."""
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.features = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 2 * half), nn.GELU())
        self.decision = nn.Sequential(nn.Linear(2 * half, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(),
                                      nn.Linear(quarter, 2))
        with torch.no_grad():
            self.decision[-1].bias.copy_(torch.tensor([math.log(keep / (1 - keep)), 0.0]))

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Tokens x [B, N, C], kept [B, N] (1 or 0; None: all) -> log-probabilities [B, N, 2], keep before drop."""
        own, shared = self.features(x).float().chunk(2, dim=-1)
        if kept is None:
            shared = shared.mean(dim=1, keepdim=True)
        else:
            count = kept.sum(dim=1).clamp_min(1)[:, None, None]  # a picture may have lost every token
            shared = (kept[..., None] * shared).sum(dim=1, keepdim=True) / count
        return self.decision(torch.cat([own, shared.expand_as(own)], dim=-1)).float().log_softmax(dim=-1)

    def score(self, x: Tensor) -> Tensor:
        """The log-odds of keeping, of tokens that are all there: x [B, N, C] -> [B, N]."""
        return keep_logit(self(x))

    def sample_mask(self, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """In training: x [B, N, C] -> what stays of ``kept`` [B, N], drawn by chance, and the log-odds [B, N].

        What is gone stays gone. The noise is torch's own, so a run's random state fixes it.
        """
        log_probabilities = self(x, kept)
        return kept * gumbel_keep(log_probabilities), keep_logit(log_probabilities)


def keep_logit(log_probabilities: Tensor) -> Tensor:
    """Log-probabilities [B, N, 2] of keeping and dropping -> the log-odds of keeping, [B, N]."""
    keep, drop = log_probabilities.unbind(dim=-1)
    return keep - drop


def gumbel_keep(log_probabilities: Tensor) -> Tensor:
    """One decision for each token, [B, N, 2] -> [B, N]: 1 (keep) or 0, with the gradient of a softmax.

    Straight-through Gumbel-softmax (Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax"): the
    larger of the two log-probabilities after noise is taken, and the gradient is that of their softmax.
    """
    return F.gumbel_softmax(log_probabilities, hard=True)[..., 0]
