"""What do encoders of maps share? Stages that halve the map, and a schedule under which blocks work on fewer cells.

Shapes: B pictures, H, W height and width of a map, N = H * W, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..pruning import Schedule
from ..pruning.spatial import FastPath, KeptCells, MaskedCells
from .base import Encoder


class HierarchicalEncoder(Encoder):
    """Stages of blocks, each on a map half as high and wide: ConvNeXt, Swin and MetaFormer.

    A schedule drops no token here: all N = H * W come out, and ``index`` is the whole grid. After the blocks it
    names, cells are scored on the map as it is there; those that stay, ceil(rate * K) of the K before, go through the
    channel MLPs of the blocks that follow, the others through a ``FastPath`` instead.
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

        ``sparse``: which cells are kept, and the fast path of the others; or nothing.
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
                cells = cells.resample_to(x.shape[1:3])
            for block in stage.blocks:
                number += 1
                rate = self.schedule.rate_after(number) if self.schedule else None
                asked = need_attention if number == self.depth else bool(rate) and self.schedule.needs_attention
                sparse = () if cells is None else (cells, self.added[f"cheap_{number}"])
                x, received = self.run(self.run_block, block, x, asked, *sparse)
                if rate is None or rate == 1:
                    continue
                if self.learning:
                    cells = MaskedCells.sample(x, self.predictor(number), cells)
                    shares.append(cells.mask.mean(dim=(1, 2)))
                else:
                    cells = (cells or KeptCells.all(x)).prune(x, self.schedule, rate, received, self.predictor(number))
        return x, {"attention_received": received, "keep_ratios": torch.stack(shares, dim=1) if shares else None}

    def schedule_modules(self, schedule: Schedule) -> dict[str, nn.Module]:
        first = next((block for block, rate in zip(schedule.after, schedule.keep, strict=True) if rate < 1), self.depth)
        return super().schedule_modules(schedule) | {
            f"cheap_{number}": FastPath(C) for number, C in enumerate(self.block_channels, 1) if number > first}
