"""What travels from the encoder to the decoder? Visual tokens that remember their place in the picture.

Shapes: B pictures, N visual tokens, K kept tokens, P prefix tokens (CLS, registers), C channels,
(H, W) the encoder's grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

# what an encoder can tell about its tokens when asked, one number each, [B, N]
SIGNALS = ("cls_attention", "attention_received", "key_norm")


def _widen(values: Tensor, like: Tensor) -> Tensor:
    """[B, K] -> [B, K, ...], repeated over all axes that ``like`` [B, N, ...] has beyond its second."""
    return values.reshape(*values.shape, *[1] * (like.dim() - 2)).expand(*values.shape, *like.shape[2:])


def gather_tokens(values: Tensor, positions: Tensor) -> Tensor:
    """Take rows of ``values`` [B, N, ...] at ``positions`` [B, K] -> [B, K, ...]."""
    if values.dim() == 2:
        return values.gather(1, positions)
    # whole rows are copied at once; ``gather`` would look up every single number, and take five to ten times as long
    B, N = values.shape[:2]
    if B == 1:  # one picture's rows are numbered already
        return values[0].index_select(0, positions[0])[None]
    rows = positions + N * torch.arange(B, device=positions.device)[:, None]
    return values.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, positions.shape)


def _follow(group: Tensor, new: Tensor) -> Tensor:
    """``group`` [B, H*W] once the token at each position has moved to ``new`` [B, N] (-1: was dropped)."""
    return new.gather(1, group.clamp(min=0)).masked_fill(group < 0, -1)


class Grid(tuple):
    """(H, W) of an encoder's grid, which also knows where its cells lie: cell (i, j) begins at pixel (i, j) * stride.

    Attributes: cell: side of a cell as a share of the picture's, stride / S; None where nobody knows. Only where the
    stride divides S do H * W cells fill the picture: a ViT does not see what is left at the right and below, and a
    Swin's last cells reach over the edge.
    """

    cell: float | None = None

    @classmethod
    def of(cls, grid: tuple[int, int], stride: int, image_size: int) -> Grid:
        """The grid of an encoder that sees ``image_size`` x ``image_size`` pixels."""
        grid = cls(grid)
        grid.cell = stride / image_size
        return grid


def cell_size(grid: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """Height and width of a cell in pixels, on a picture of size (h, w) that shows all that the encoder sees.

    Cell (i, j) covers pixels from (i * height, j * width) on. All cells together need not fill the picture: see
    ``Grid``. Of a bare (H, W) the stride is not known. Then they fill an oblong picture, and a square one that they
    divide; another square is taken for the encoder's own picture, and the stride for the power of two that gives this
    grid there, or else the whole number.
    """
    (H, W), (h, w) = grid, size
    if cell := getattr(grid, "cell", None):
        return cell * h, cell * w
    if h != w or H != W or h % H == 0 or h < H:
        return h / H, w / W
    stride = next((p for p in (64, 32, 16, 8, 4, 2) if H in (h // p, -(-h // p))), h // H)
    return float(stride), float(stride)


@dataclass(frozen=True)
class VisualTokens:
    """Visual tokens of B pictures, each with the grid cell it came from.

    Attributes:
        x: token features, [B, N, C].
        index: row-major cell of ``grid`` each token came from, [B, N], ascending. It survives pruning,
            so an attention map drawn afterwards is exact. A merged token has the cell of its leader.
        grid: (H, W) of the encoder's full grid; a ``Grid``, where the encoder itself gave the tokens.
        prefix: CLS and register tokens, [B, P, C]; never pruned. ``None`` where there are none.
        cls_attention: [B, N], attention of the CLS token to each token, where the encoder was asked.
        attention_received: [B, N], mean attention each token gets from all tokens, itself and the prefix included,
            where asked.
        key_norm: [B, N], length of each token's key in the last block, mean over heads, where asked.
        group: [B, H*W], for each cell the position in ``x`` of the token that carries it, -1 where it was
            dropped. ``None`` until tokens merge: each then carries its own cell alone. ``cell_to_token`` and
            ``size`` answer in both cases.
        keep_mask: [B, N], only from an encoder that trains predictors by masks: 1 where a token is still there, 0 where
            it was dropped and left in ``x`` all the same. Elsewhere ``None``.
        keep_ratios: [B, L], from every encoder that trains predictors: the share of tokens left after each reduction.
        pruned: scorer and prune ratio of tokens that were stored pruned, so that nobody prunes them once more.
    """

    x: Tensor
    index: Tensor
    grid: tuple[int, int]
    prefix: Tensor | None = None
    cls_attention: Tensor | None = None
    attention_received: Tensor | None = None
    key_norm: Tensor | None = None
    group: Tensor | None = None
    keep_mask: Tensor | None = None
    keep_ratios: Tensor | None = None
    pruned: tuple[str, float] | None = None

    @classmethod
    def full(cls, x: Tensor, grid: tuple[int, int], prefix: Tensor | None = None, **signals) -> VisualTokens:
        """Tokens of a whole grid: ``x`` is [B, H*W, C], row by row."""
        B, N, _ = x.shape
        assert N == grid[0] * grid[1], f"{N} tokens do not fill a grid of {grid[0]}x{grid[1]}"
        index = torch.arange(N, device=x.device).expand(B, N)
        return cls(x, index, grid, prefix, **signals)

    @property
    def sequence(self) -> Tensor:
        """Prefix and visual tokens in one sequence, [B, P+N, C], prefix first."""
        return self.x if self.prefix is None else torch.cat([self.prefix, self.x], dim=1)

    @property
    def prefix_count(self) -> int:
        return 0 if self.prefix is None else self.prefix.shape[1]

    @property
    def sequence_mask(self) -> Tensor | None:
        """Which tokens of ``sequence`` are still there, [B, P+N]: 1 or 0; ``None`` where all of them are."""
        if self.keep_mask is None:
            return None
        return F.pad(self.keep_mask, (self.prefix_count, 0), value=1.0)

    @property
    def cell_to_token(self) -> Tensor:
        """For each cell the position in ``x`` of the token that carries it, [B, H*W]; -1 where it was dropped."""
        if self.group is not None:
            return self.group
        B, N = self.index.shape
        nobody = self.index.new_full((B, self.grid[0] * self.grid[1]), -1)
        return nobody.scatter(1, self.index, torch.arange(N, device=self.index.device).expand(B, N))

    @property
    def size(self) -> Tensor:
        """How many cells each token carries, float [B, N]; 1 everywhere until tokens merge."""
        count = torch.zeros(self.index.shape, device=self.index.device)
        if self.group is None:
            return count + 1
        return count.scatter_add(1, self.group.clamp(min=0), (self.group >= 0).float())

    def keep(self, positions: Tensor) -> VisualTokens:
        """Gather the tokens at ``positions`` [B, K] (positions in ``x``, not cells): N becomes K."""
        gathered = {name: gather_tokens(value, positions) for name, value in self._tensors("x", *SIGNALS).items()}
        group = self.group
        if group is not None:
            new = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
            group = _follow(group, torch.full_like(self.index, -1).scatter(1, positions, new))
        return replace(self, index=self.index.gather(1, positions), group=group, **gathered)

    def merge(self, leader: Tensor, weights: Tensor, k: int) -> VisualTokens:
        """Average tokens into k leaders: N becomes k.

        Args:
            leader: [B, N], the position in ``x`` of the token that each one joins; a leader names itself.
            weights: [B, N], 0 or more, what each token counts in its group's average of features and signals.
                Where a whole group weighs 0, all of it counts the same.
            k: number of leaders, the same in every picture.

        A leader keeps its cell and its order; its token now carries all cells that its group carried. A
        token that nobody joins stays as it is, to the bit.
        """
        leads = leader == torch.arange(leader.shape[1], device=leader.device)
        order = leads.sort(dim=1, descending=True, stable=True).indices
        stay, go = order[:, :k], order[:, k:]
        new = (leads.cumsum(1) - 1).gather(1, leader)                                  # [B, N]: position in 0..k-1

        def of_group(values: Tensor) -> Tensor:
            return values.new_zeros(len(new), k).scatter_add(1, new, values).gather(1, new)

        weights = torch.where(of_group(weights) > 0, weights, 1.0)
        share, to, joined = (values.gather(1, go) for values in (weights / of_group(weights), new, leader))
        averaged = {}
        for name, values in self._tensors("x", *SIGNALS).items():
            exact = torch.promote_types(values.dtype, torch.float32)
            kept, gone, beside = (gather_tokens(values, at).to(exact) for at in (stay, go, joined))
            # shares add up to 1: the average is the leader, and how far each of the others pulls it
            pull = _widen(share, values) * (gone - beside)
            averaged[name] = kept.scatter_add(1, _widen(to, values), pull).to(values.dtype)
        return replace(self, index=self.index.gather(1, stay), group=_follow(self.cell_to_token, new), **averaged)

    def _tensors(self, *names: str) -> dict[str, Tensor]:
        """The tensors of these names, or all, that are there."""
        return {name: value for name in names or ("x", "index", "prefix", "group", "keep_mask", "keep_ratios", *SIGNALS)
                if (value := getattr(self, name)) is not None}

    def to(self, device) -> VisualTokens:
        """The same tokens on another device."""
        return replace(self, **{name: value.to(device) for name, value in self._tensors().items()})

    def select(self, chosen: Tensor) -> VisualTokens:
        """Some pictures of the batch, by position."""
        return replace(self, **{name: value[chosen] for name, value in self._tensors().items()})

    @staticmethod
    def cat(batches: list[VisualTokens]) -> VisualTokens:
        """Several batches of one encoder's tokens as one batch."""
        if len(batches) == 1:
            return batches[0]
        if any(batch.group is not None for batch in batches):
            batches = [replace(batch, group=batch.cell_to_token) for batch in batches]
        return replace(batches[0], **{name: torch.cat([getattr(batch, name) for batch in batches])
                                      for name in batches[0]._tensors()})

    def to_grid(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Colour each cell with its token's value: [B, ..., N] -> [B, ..., H, W]; ``fill`` where it was dropped.

        For what holds for a token as a whole: a score, a feature, whether it was kept.
        """
        cell_to_token = self.cell_to_token.reshape(len(self.index), *[1] * (values.dim() - 2), -1)
        cell_to_token = cell_to_token.expand(*values.shape[:-1], -1)
        out = values.gather(-1, cell_to_token.clamp(min=0)).masked_fill(cell_to_token < 0, fill)
        return out.unflatten(-1, self.grid)

    def scatter(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Share each token's value out over its cells: [B, ..., N] -> [B, ..., H, W]; ``fill`` where it was dropped.

        For what is divided among the tokens, as attention is: with the default ``fill`` the sum stays the
        same. Where no token is merged, ``to_grid`` gives the same.
        """
        if self.group is not None:
            values = values / self.size.reshape(len(self.index), *[1] * (values.dim() - 2), -1)
        return self.to_grid(values, fill)
