"""How does an encoder of maps prune, where convolutions and windows need every cell? By working less on some.

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

from ..pruning import Schedule
from ..pruning.predictor import TokenPredictor
from ..pruning.reduce import best_first, keep_count
from ..tokens import VisualTokens
from .base import Encoder

Path = Callable[[Tensor], Tensor]


class KeptCells:
    """K cells of every picture's map, the same number in each: they are gathered, and what is made of them put back.

    Attributes:
        grid: (H, W). order: all cells, best first, [B, N]; the first K of them are kept.
        seen: None; see ``MaskedCells``.
    """

    seen = None

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

    def fewer(self, x: Tensor, schedule: Schedule, rate: float, received: Tensor | None = None,
              predictor: TokenPredictor | None = None) -> KeptCells:
        """ceil(rate * K) of these cells, chosen by the schedule's scorer on the map x [B, H, W, C].

        Args: received [B, N], the attention that each cell gets, for a scorer that asks for it; predictor: who
        scores, where the scorer has learned to.
        """
        tokens = VisualTokens.full(x.flatten(1, 2), self.grid, attention_received=received).keep(self.index)
        count = keep_count(self.count, 1 - rate)
        best = best_first(tokens, schedule.scores(tokens, count, predictor), count)  # [B, K]
        return KeptCells(torch.cat([self.index.gather(1, best), self.order[:, self.count:]], dim=1), count, self.grid)

    def on(self, grid: Sequence[int]) -> KeptCells:
        """The choice on the next stage's map: the same share of it, where these cells' places were best.

        A cell of the new map has the mean place of the (at most four) that it covers; ties go to the lowest index.
        """
        if tuple(grid) == self.grid:
            return self
        order = pool(places(self.order), self.grid, grid).sort(dim=1, descending=True, stable=True).indices
        return KeptCells(order, -(-self.count * order.shape[1] // self.order.shape[1]), tuple(grid))

    def mix(self, x: Tensor, slow: Path, cheap: Path) -> Tensor:
        """x [B, H, W, C] -> ``slow`` of the kept cells [B, K, C], ``cheap`` of the others, each in its place."""
        flat = x.reshape(-1, x.shape[-1])
        kept = slow(flat.index_select(0, self._kept).unflatten(0, (len(x), -1))).flatten(0, 1)
        y = kept.new_empty(flat.shape)
        y.index_copy_(0, self._kept, kept)
        y.index_copy_(0, self._rest, cheap(flat.index_select(0, self._rest)).to(y.dtype))
        return y.view(x.shape)


class MaskedCells:
    """Decisions with a gradient, for training: both paths run on every cell, and a mask chooses between them.

    Numbers may differ from picture to picture. For the same decisions the outcome is that of ``KeptCells``.

    Attributes:
        grid: (H, W). order: all cells, best first, [B, N].
        seen: [B, H, W], 1 where a cell is kept and 0 elsewhere.
    """

    def __init__(self, decision: Tensor, scores: Tensor, before: MaskedCells | None = None):
        """Args:
            decision: [B, H, W], 1 or 0, with a straight-through gradient.
            scores: [B, H, W], higher is better.
            before: what was decided earlier on this map; what it dropped stays behind all others, in its order.
        """
        self.seen, self.grid = decision, tuple(decision.shape[1:])
        order = scores.flatten(1).sort(dim=1, descending=True, stable=True).indices
        if before is not None:
            present = before.seen.detach().flatten(1).bool()
            order = torch.where(present, places(order) + order.shape[1], places(before.order)).argsort(
                dim=1, descending=True)
        kept_first = decision.detach().flatten(1).gather(1, order).sort(dim=1, descending=True, stable=True).indices
        self.order = order.gather(1, kept_first)

    @classmethod
    def drawn(cls, x: Tensor, predictor: TokenPredictor, before: MaskedCells | None) -> MaskedCells:
        """What a predictor in training keeps, of all cells or of those kept ``before``, on the map x [B, H, W, C]."""
        grid, kept = x.shape[1:3], x.new_ones(x.shape[:3], dtype=torch.float) if before is None else before.seen
        decision, scores = predictor.decide(x.flatten(1, 2), kept.flatten(1))
        return cls(decision.unflatten(1, grid), scores.detach().unflatten(1, grid), before)

    def on(self, grid: Sequence[int]) -> MaskedCells:
        """The decision on the next stage's map, as ``KeptCells.on`` takes it.

        Its gradient goes to all cells that a new one covers, in equal parts.
        """
        if tuple(grid) == self.grid:
            return self
        standing = pool(places(self.order), self.grid, grid)
        order = standing.sort(dim=1, descending=True, stable=True).indices
        N, left = self.order.shape[1], self.seen.detach().flatten(1).sum(dim=1, keepdim=True)
        hard = (places(order) > order.shape[1] - (left * order.shape[1] / N).ceil()).to(self.seen.dtype)
        soft = pool(self.seen.flatten(1), self.grid, grid)
        return MaskedCells((hard + soft - soft.detach()).unflatten(1, tuple(grid)), standing.unflatten(1, tuple(grid)))

    def mix(self, x: Tensor, slow: Path, cheap: Path) -> Tensor:
        """x [B, H, W, C] -> d * slow(x) + (1 - d) * cheap(x)."""
        d = self.seen[..., None]
        return d * slow(x) + (1 - d) * cheap(x)


def places(order: Tensor) -> Tensor:
    """What place each cell has: cells, best first [B, N] -> N for the best to 1 for the last, float [B, N]."""
    N = order.shape[1]
    falling = torch.arange(N, 0, -1, device=order.device, dtype=torch.float).expand_as(order)
    return torch.empty_like(falling).scatter(1, order, falling)


def pool(values: Tensor, grid: Sequence[int], to: Sequence[int]) -> Tensor:
    """Mean over squares of 2 x 2 cells: [B, N] on ``grid`` -> [B, N'] on ``to``; half squares count where they are."""
    pooled = F.avg_pool2d(values.unflatten(1, tuple(grid))[:, None], 2, ceil_mode=2 * to[0] > grid[0])
    return pooled.flatten(1)


class CheapPath(nn.Linear):
    """One matrix in an MLP's place, an eighth of its work: [..., C] -> [..., C].

    It starts at zero: a cell that is not kept then passes the MLP by, on the block's residual path. (The matrix that
    fits the MLP best if features are normal and independent is easily computed, and was worse: they are neither.)
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)
        nn.init.zeros_(self.weight), nn.init.zeros_(self.bias)


class Pyramid(Encoder):
    """Stages of blocks, each on a map half as high and wide: ConvNeXt, Swin and MetaFormer.

    A schedule drops no token here: all N = H * W come out, and ``index`` is the whole grid. After the blocks it
    names, cells are scored on the map as it is there; those that stay, ceil(rate * K) of the K before, go through the
    channel MLPs of the blocks that follow, the others through a ``CheapPath`` instead.
    """

    reductions = ("keep",)

    def count_blocks(self, depths: Sequence[int], channels: Sequence[int], grids: Sequence[tuple[int, int]]) -> None:
        """Note how wide each block is, and how large its map; all three are given stage by stage."""
        self.block_channels = tuple(C for C, depth in zip(channels, depths, strict=True) for _ in range(depth))
        self.block_tokens = tuple(H * W for (H, W), depth in zip(grids, depths, strict=True) for _ in range(depth))

    def stage_list(self) -> Sequence[nn.Module]:
        """The stages: each has ``downsample`` and ``blocks``."""
        return self.stages

    def run_block(self, block: nn.Module, x: Tensor, asked: bool, *sparse) -> tuple[Tensor, Tensor | None]:
        """One block: x [B, H, W, C] -> (the same shape, where ``asked`` the attention that cells get [B, N]).

        ``sparse``: which cells are kept, and the cheap path of the others; or nothing.
        """
        return block(x, *sparse), None

    def run_stages(self, x: Tensor, need_attention: bool = False) -> tuple[Tensor, dict[str, Tensor | None]]:
        """From the stem's map to the last one: [B, H, W, C] -> ([B, H', W', C'], what ``VisualTokens`` tells of it).

        While predictors train, they draw decisions that mask; see ``MaskedCells``.
        """
        cells, number, received, shares = None, 0, None, []
        for stage in self.stage_list():
            x = stage.downsample(x)
            if cells is not None:
                cells = cells.on(x.shape[1:3])
            for block in stage.blocks:
                number += 1
                rate = self.schedule.rate_after(number) if self.schedule else None
                asked = need_attention if number == self.depth else bool(rate) and self.schedule.needs_attention
                sparse = () if cells is None else (cells, self.added[f"cheap_{number}"])
                x, received = self.run(self.run_block, block, x, asked, *sparse)
                if rate is None or rate == 1:
                    continue
                if self.learning:
                    cells = MaskedCells.drawn(x, self.predictor(number), cells)
                    shares.append(cells.seen.mean(dim=(1, 2)))
                else:
                    cells = (cells or KeptCells.all(x)).fewer(x, self.schedule, rate, received, self.predictor(number))
        return x, {"attention_received": received, "shares": torch.stack(shares, dim=1) if shares else None}

    def schedule_modules(self, schedule: Schedule) -> dict[str, nn.Module]:
        first = next((block for block, rate in zip(schedule.after, schedule.keep, strict=True) if rate < 1), self.depth)
        return super().schedule_modules(schedule) | {
            f"cheap_{number}": CheapPath(C) for number, C in enumerate(self.block_channels, 1) if number > first}
