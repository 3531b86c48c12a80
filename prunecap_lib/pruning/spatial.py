"""How are maps pruned, where convolutions and windows need every cell? By working less on some.

Rao et al. 2023, "Dynamic Spatial Sparsification for Efficient Vision Transformers and Convolutional Neural
Networks". Mixing stays dense; the channel MLP, where most of the work is, sees kept cells only, and one matrix takes
its place at the others. In training a mask stands for the choice, so that a decision can have a gradient.

Shapes: B pictures, H, W height and width of a map, N = H * W, K kept cells, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..tokens import VisualTokens
from .predictor import TokenPredictor
from .reduce import best_first, keep_count
from .schedule import Schedule

Branch = Callable[[Tensor], Tensor]


class KeptCells:
    """K cells of every picture's map, the same number in each: they are gathered, and what is made of them put back.

    Attributes:
        grid: (H, W). order: all cells, best first, [B, N]; the first K of them are kept.
        mask: None; see ``MaskedCells``.
    """

    mask = None

    def __init__(self, order: Tensor, count: int, grid: tuple[int, int]):
        self.order, self.count, self.grid = order, count, grid
        first = torch.arange(len(order), device=order.device)[:, None] * order.shape[1]
        self.index = order[:, :count].sort(dim=1).values                # [B, K], the kept cells in reading order
        self._kept = (first + self.index).flatten()                     # the same as rows of [B * N, C]
        self._rest = (first + order[:, count:].sort(dim=1).values).flatten()

    @classmethod
    def all(cls, x: Tensor) -> KeptCells:
        """Every cell of a map x [B, H, W, C]."""
        N = x.shape[1] * x.shape[2]
        return cls(torch.arange(N, device=x.device).expand(len(x), N), N, tuple(x.shape[1:3]))

    def prune(self, x: Tensor, schedule: Schedule, rate: float, received: Tensor | None = None,
              predictor: TokenPredictor | None = None) -> KeptCells:
        """ceil(rate * K) of these cells, chosen by the schedule's scorer on the map x [B, H, W, C].

        Args: received [B, N], the attention that each cell gets, for a scorer that asks for it; predictor: who
        scores, where the scorer has learned to.
        """
        tokens = VisualTokens.full(x.flatten(1, 2), self.grid, attention_received=received).keep(self.index)
        count = keep_count(self.count, 1 - rate)
        best = best_first(tokens, schedule.scores(tokens, count, predictor), count)  # [B, K]
        return KeptCells(torch.cat([self.index.gather(1, best), self.order[:, self.count:]], dim=1), count, self.grid)

    def resample_to(self, grid: Sequence[int]) -> KeptCells:
        """The choice on the next stage's map: the same share of it, where these cells ranked best.

        A cell of the new map has the mean rank of the (at most four) that it covers; ties go to the lowest index.
        """
        if tuple(grid) == self.grid:
            return self
        order = pool(ranks(self.order), self.grid, grid).sort(dim=1, descending=True, stable=True).indices
        return KeptCells(order, -(-self.count * order.shape[1] // self.order.shape[1]), tuple(grid))

    def route(self, x: Tensor, slow: Branch, fast: Branch) -> Tensor:
        """x [B, H, W, C] -> ``slow`` of the kept cells [B, K, C], ``fast`` of the others, each in its place."""
        flat = x.reshape(-1, x.shape[-1])
        kept = slow(flat.index_select(0, self._kept).unflatten(0, (len(x), -1))).flatten(0, 1)
        y = kept.new_empty(flat.shape)
        y.index_copy_(0, self._kept, kept)
        y.index_copy_(0, self._rest, fast(flat.index_select(0, self._rest)).to(y.dtype))
        return y.view(x.shape)


class MaskedCells:
    """Decisions with a gradient, for training: both paths run on every cell, and a mask chooses between them.

    Numbers may differ from picture to picture. For the same decisions the outcome is that of ``KeptCells``.

    Attributes:
        grid: (H, W). order: all cells, best first, [B, N].
        mask: [B, H, W], 1 where a cell is kept and 0 elsewhere.
    """

    def __init__(self, decision: Tensor, scores: Tensor, before: MaskedCells | None = None):
        """Args:
            decision: [B, H, W], 1 or 0, with a straight-through gradient.
            scores: [B, H, W], higher is better.
            before: what was decided earlier on this map; what it dropped stays behind all others, in its order.
        """
        self.mask, self.grid = decision, tuple(decision.shape[1:])
        order = scores.flatten(1).sort(dim=1, descending=True, stable=True).indices
        if before is not None:
            present = before.mask.detach().flatten(1).bool()
            order = torch.where(present, ranks(order) + order.shape[1], ranks(before.order)).argsort(
                dim=1, descending=True)
        kept_first = decision.detach().flatten(1).gather(1, order).sort(dim=1, descending=True, stable=True).indices
        self.order = order.gather(1, kept_first)

    @classmethod
    def sample(cls, x: Tensor, predictor: TokenPredictor, before: MaskedCells | None) -> MaskedCells:
        """What a predictor in training keeps, of all cells or of those kept ``before``, on the map x [B, H, W, C]."""
        grid, kept = x.shape[1:3], x.new_ones(x.shape[:3], dtype=torch.float) if before is None else before.mask
        decision, scores = predictor.sample_mask(x.flatten(1, 2), kept.flatten(1))
        return cls(decision.unflatten(1, grid), scores.detach().unflatten(1, grid), before)

    def resample_to(self, grid: Sequence[int]) -> MaskedCells:
        """The decision on the next stage's map, as ``KeptCells.resample_to`` takes it.

        Its gradient goes to all cells that a new one covers, in equal parts.
        """
        if tuple(grid) == self.grid:
            return self
        standing = pool(ranks(self.order), self.grid, grid)
        order = standing.sort(dim=1, descending=True, stable=True).indices
        N, left = self.order.shape[1], self.mask.detach().flatten(1).sum(dim=1, keepdim=True)
        hard = (ranks(order) > order.shape[1] - (left * order.shape[1] / N).ceil()).to(self.mask.dtype)
        soft = pool(self.mask.flatten(1), self.grid, grid)
        return MaskedCells((hard + soft - soft.detach()).unflatten(1, tuple(grid)), standing.unflatten(1, tuple(grid)))

    def route(self, x: Tensor, slow: Branch, fast: Branch) -> Tensor:
        """x [B, H, W, C] -> d * slow(x) + (1 - d) * fast(x)."""
        d = self.mask[..., None]
        return d * slow(x) + (1 - d) * fast(x)


def ranks(order: Tensor) -> Tensor:
    """The rank of each cell: cells, best first [B, N] -> N for the best to 1 for the last, float [B, N]."""
    N = order.shape[1]
    falling = torch.arange(N, 0, -1, device=order.device, dtype=torch.float).expand_as(order)
    return torch.empty_like(falling).scatter(1, order, falling)


def pool(values: Tensor, grid: Sequence[int], to: Sequence[int]) -> Tensor:
    """Mean over squares of 2 x 2 cells: [B, N] on ``grid`` -> [B, N'] on ``to``; half squares count where they are."""
    pooled = F.avg_pool2d(values.unflatten(1, tuple(grid))[:, None], 2, ceil_mode=2 * to[0] > grid[0])
    return pooled.flatten(1)


class FastPath(nn.Linear):
    """One matrix in an MLP's place, an eighth of its work: [..., C] -> [..., C].

    It starts at zero: a cell that is not kept then passes the MLP by, on the block's residual path. (The matrix that
    fits the MLP best if features are normal and independent is easily computed, and was worse: they are neither.)
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)
        nn.init.zeros_(self.weight), nn.init.zeros_(self.bias)
