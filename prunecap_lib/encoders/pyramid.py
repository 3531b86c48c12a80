"""What do encoders of maps share? Stages that halve the map, and a schedule under which blocks work on fewer cells.

Shapes: B pictures, S side of the picture, H, W height and width of a map, N = H * W, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..preprocessing import Preprocessing
from ..pruning import Schedule
from ..pruning.spatial import FastPath, KeptCells, MaskedCells
from ..tokens import Grid, VisualTokens
from .base import Encoder


class Stage(nn.Module):
    """Halve the map (all but the first stage), then blocks at one resolution."""

    def __init__(self, downsample: nn.Module, blocks: Iterable[nn.Module]):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:  # [B, H, W, C] -> [B, H/2, W/2, C']
        return self.blocks(self.downsample(x))


class HierarchicalEncoder(Encoder):
    """Stages of blocks, each on a map half as high and wide: ConvNeXt, Swin and MetaFormer, without their classifiers.

    ``forward(images [B, 3, S, S])`` gives the last map, row by row. A schedule drops no token here: all N = H * W come
    out, and ``index`` is the whole grid. After the blocks it names, cells are scored on the map as it is there; those
    that stay, ceil(rate * K) of the K before, go through the channel MLPs of the blocks that follow, the others through
    a ``FastPath`` instead.

    Args: config: has ``image_size``, ``stride``, and stage by stage ``depths``, ``channels``, and ``grids``, (H, W).
    """

    reductions = ("keep",)

    def __init__(self, config, *, name: str, preprocessing: Preprocessing):
        super().__init__()
        self.config, self.name, self.preprocessing = config, name, preprocessing
        self.image_size, self.channels, self.stride = config.image_size, config.channels[-1], config.stride
        self.grid = Grid.of(config.grids[-1], config.stride, config.image_size)
        stages = list(zip(config.depths, config.channels, config.grids, strict=True))
        self.block_channels = tuple(C for depth, C, _ in stages for _ in range(depth))
        self.block_tokens = tuple(H * W for depth, _, (H, W) in stages for _ in range(depth))

    def parts(self) -> tuple[nn.Module, Sequence[Stage], nn.Module]:
        """The stem, the stages, and what follows the last one, whatever timm calls them."""
        return self.stem, self.stages, nn.Identity()

    def run_block(self, block: nn.Module, x: Tensor, asked: bool, *sparse) -> tuple[Tensor, Tensor | None]:
        """One block: x [B, H, W, C] -> (the same shape, where ``asked`` the attention that cells get [B, N]).

        ``sparse``: which cells are kept, and the fast path of the others; or nothing.
        """
        return block(x, *sparse), None

    def forward(self, images: Tensor, *, need_attention: bool = False) -> VisualTokens:
        """Pictures [B, 3, S, S] -> N = H * W tokens. Raises InputError for another size.

        ``need_attention`` also fills ``attention_received`` from the last block: what each cell gets, mean over heads
        and all N cells (in a Swin each looks at its own window only). Only that block, and those after which a schedule
        asks, then leave the fused attention kernel. Raises InputError where the last block mixes in another way. While
        predictors train, they draw decisions that mask; see ``MaskedCells``.
        """
        self.check_images(images, need_attention)
        stem, stages, norm = self.parts()
        x = stem(images.permute(0, 2, 3, 1).contiguous())  # [B, S, S, 3] -> [B, H, W, C]
        cells, number, received, shares = None, 0, None, []
        for stage in stages:
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
        return VisualTokens.full(norm(x).flatten(1, 2), self.grid, attention_received=received,
                                 keep_ratios=torch.stack(shares, dim=1) if shares else None)

    def schedule_modules(self, schedule: Schedule) -> dict[str, nn.Module]:
        first = next((block for block, rate in zip(schedule.after, schedule.keep, strict=True) if rate < 1), self.depth)
        return super().schedule_modules(schedule) | {
            f"cheap_{number}": FastPath(C) for number, C in enumerate(self.block_channels, 1) if number > first}
