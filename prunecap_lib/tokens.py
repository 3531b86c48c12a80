"""What travels from the encoder to the decoder? Visual tokens that remember their place in the picture.

Shapes: B pictures, N visual tokens, K kept tokens, P prefix tokens (CLS, registers), C channels,
(H, W) the encoder's grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_PER_TOKEN = ("cls_attention", "attention_received")


def gather_tokens(values: Tensor, positions: Tensor) -> Tensor:
    """Take rows of ``values`` [B, N, ...] at ``positions`` [B, K] -> [B, K, ...]."""
    extra = values.dim() - 2
    wide = positions.reshape(*positions.shape, *[1] * extra).expand(*positions.shape, *values.shape[2:])
    return values.gather(1, wide)


@dataclass(frozen=True)
class VisualTokens:
    """Visual tokens of B pictures, each with the grid cell it came from.

    Attributes:
        x: token features, [B, N, C].
        index: row-major cell of ``grid`` each token came from, [B, N], ascending. It survives pruning,
            so an attention map drawn afterwards is exact.
        grid: (H, W) of the encoder's full grid.
        prefix: CLS and register tokens, [B, P, C]; never pruned. ``None`` where there are none.
        cls_attention: [B, N], attention of the CLS token to each token, where the encoder was asked.
        attention_received: [B, N], mean attention each token gets from all others, where asked.
    """

    x: Tensor
    index: Tensor
    grid: tuple[int, int]
    prefix: Tensor | None = None
    cls_attention: Tensor | None = None
    attention_received: Tensor | None = None

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

    def keep(self, positions: Tensor) -> VisualTokens:
        """Gather the tokens at ``positions`` [B, K] (positions in ``x``, not cells): N becomes K."""
        signals = {name: gather_tokens(value, positions) for name in _PER_TOKEN
                   if (value := getattr(self, name)) is not None}
        return replace(self, x=gather_tokens(self.x, positions),
                       index=self.index.gather(1, positions), **signals)

    def with_x(self, x: Tensor, prefix: Tensor | None) -> VisualTokens:
        """The same cells with other features (after a projection, say)."""
        return replace(self, x=x, prefix=prefix)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name in ("x", "index", "prefix", *_PER_TOKEN)
                if (value := getattr(self, name)) is not None}

    def to(self, device) -> VisualTokens:
        """The same tokens on another device."""
        return replace(self, **{name: value.to(device) for name, value in self._tensors().items()})

    def pictures(self, chosen: Tensor) -> VisualTokens:
        """Some pictures of the batch, by position."""
        return replace(self, **{name: value[chosen] for name, value in self._tensors().items()})

    @staticmethod
    def join(batches: list[VisualTokens]) -> VisualTokens:
        """Several batches of one encoder's tokens as one batch."""
        return replace(batches[0], **{name: torch.cat([getattr(batch, name) for batch in batches])
                                      for name in batches[0]._tensors()})

    def scatter(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Put one value a token back on the grid: [B, ..., N] -> [B, ..., H, W]; ``fill`` where none was kept."""
        H, W = self.grid
        index = self.index.reshape(len(self.index), *[1] * (values.dim() - 2), -1).expand(values.shape)
        out = values.new_full((*values.shape[:-1], H * W), fill)
        return out.scatter(-1, index, values).unflatten(-1, (H, W))
