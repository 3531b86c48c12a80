"""How does a Vision Transformer see? It cuts the picture into patches, and each patch looks at all others.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words". Parameters carry timm's names, so that timm's weights fit.

Shapes: B pictures, S side of the picture, N = H * W patches, P prefix tokens (CLS first, then registers), T = P + N,
C channels, h heads, Dh = C / h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import policy_with_self
from ..preprocessing import Preprocessing
from ..tokens import SIGNALS, Grid, VisualTokens
from .base import Encoder
from .layers import Attention, Block, init_weights


@dataclass(frozen=True)
class ViTConfig:
    """The settings of one ViT architecture."""

    image_size: int = 224
    patch: int = 16
    channels: int = 192
    depth: int = 12
    heads: int = 3
    hidden: int = 768  #: width inside the MLP
    class_token: bool = True
    registers: int = 0  #: extra tokens that take up what would otherwise spoil patches (Darcet et al. 2024)
    prefix_positions: bool = True  #: prefix tokens have position embeddings too
    qkv_bias: bool = True
    projection_bias: bool = True
    layer_scale: float | None = None  #: start of a factor per channel on each branch (Touvron et al. 2021); None: none
    pre_norm: bool = False  #: LayerNorm before the first block, and then no bias in the patch embedding (CLIP)
    final_norm: bool = True
    norm_eps: float = 1e-6
    activation: str = "gelu"

    @property
    def grid(self) -> tuple[int, int]:
        return (self.image_size // self.patch,) * 2

    @property
    def prefix_tokens(self) -> int:
        return int(self.class_token) + self.registers


class PatchEmbedding(nn.Module):
    """Cut into patches and project each: a convolution whose stride is its kernel."""

    def __init__(self, patch: int, channels: int, bias: bool):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, stride=patch, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # [B, 3, S, S] -> [B, C, H, W] -> [B, N, C]


class ViT(Encoder):
    """Vision Transformer without its classifier.

    ``forward(images [B, 3, S, S])`` gives the N patch tokens, after the last LayerNorm, in ``x``, and the class and
    register tokens in ``prefix``. With a ``schedule`` tokens go on the way, and fewer come out.
    """

    reductions = ("keep", "fuse", "merge")
    head_keys = ("head.", "fc_norm.", "attn_pool.")

    def __init__(self, config: ViTConfig, *, name: str, preprocessing: Preprocessing):
        super().__init__()
        self.config, self.name, self.preprocessing = config, name, preprocessing
        self.image_size, self.channels, self.stride = config.image_size, config.channels, config.patch
        self.grid = Grid.of(config.grid, config.patch, config.image_size)
        self.prefix_tokens = config.prefix_tokens
        C, N = config.channels, config.grid[0] * config.grid[1]
        self.block_channels, self.block_tokens = (C,) * config.depth, (N,) * config.depth

        self.patch_embed = PatchEmbedding(config.patch, C, bias=not config.pre_norm)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, C)) if config.class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, config.registers, C)) if config.registers else None
        positions = N + (config.prefix_tokens if config.prefix_positions else 0)
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, C))
        self.norm_pre = nn.LayerNorm(C, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(Attention(C, config.heads, config.qkv_bias, config.projection_bias), C, config.hidden,
                  layer_scale=config.layer_scale, norm_eps=config.norm_eps, activation=config.activation)
            for _ in range(config.depth))
        self.norm = nn.LayerNorm(C, eps=config.norm_eps) if config.final_norm else nn.Identity()

        self.apply(init_weights)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)

    def block_signals(self, number: int) -> tuple[str, ...]:
        return SIGNALS if self.config.class_token else tuple(name for name in SIGNALS if name != "cls_attention")

    def embed(self, images: Tensor) -> Tensor:
        """Patches, prefix tokens and positions: [B, 3, S, S] -> [B, P+N, C]."""
        x = self.patch_embed(images)
        prefix = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        if self.config.prefix_positions:
            return torch.cat([*prefix, x], dim=1) + self.pos_embed
        return torch.cat([*prefix, x + self.pos_embed], dim=1)

    def forward(self, images: Tensor, *, need_attention: bool = False) -> VisualTokens:
        """Pictures [B, 3, S, S] -> N tokens. Raises InputError for another size.

        ``need_attention`` also fills ``attention_received`` (what each patch gets, mean over all T queries and heads of
        the last block), ``key_norm`` (the length of its key there, mean over heads) and, with a class token,
        ``cls_attention`` (what it gets from CLS alone). Only the last block then leaves the fused attention kernel, and
        those after which a schedule asks for weights.
        """
        self.check_images(images)
        if self.learning:
            return self.forward_masked(images)
        x, P = self.norm_pre(self.embed(images)), self.prefix_tokens
        tokens, mask = VisualTokens.full(x[:, P:], self.grid, x[:, :P] if P else None), None
        schedule, last = self.schedule, len(self.blocks)
        for number, block in enumerate(self.blocks, 1):
            rate = schedule.rate_after(number) if schedule else None
            asked = need_attention and number == last
            x, weights, keys = self.run(attention_branch, block, x, mask,
                                        need_weights=asked or bool(rate and schedule.needs_weights),
                                        need_keys=asked or bool(rate and schedule.needs_keys))
            if rate and schedule.within_block:
                tokens, x, mask = self._reduce(tokens, number, x, weights, keys)
            x = self.run(block.mlp_branch, x)
            if rate and not schedule.within_block:
                tokens, x, mask = self._reduce(tokens, number, x, weights, keys)
        return self._with_signals(tokens, self.norm(x), weights, keys)

    def forward_masked(self, images: Tensor) -> VisualTokens:
        """While predictors train: all N tokens come out, and ``keep_mask`` says which are still there.

        A dropped token is hidden from the others instead of removed: what it would have given them is the gradient
        that its predictor learns from. Those kept are what ``forward`` gathers if it decides alike.
        """
        x, P = self.norm_pre(self.embed(images)), self.prefix_tokens
        kept, shares, more = x.new_ones(len(x), x.shape[1] - P, dtype=torch.float), [], {}
        for number, block in enumerate(self.blocks, 1):
            x, _ = self.run(block, x, **more)
            if predictor := self.predictor(number):
                kept, _ = predictor.sample_mask(x[:, P:], kept)
                shares.append(kept.mean(dim=1))
                more = {"policy": policy_with_self(F.pad(kept, (P, 0), value=1.0))}
        x = self.norm(x)
        return VisualTokens.full(x[:, P:], self.grid, x[:, :P] if P else None, keep_mask=kept,
                                 keep_ratios=torch.stack(shares, dim=1))

    def _reduce(self, tokens: VisualTokens, number: int, x: Tensor, weights: Tensor | None, keys: Tensor | None):
        """Fewer tokens, their sequence x [B, P+K, C], and what is added to the attention that they meet next."""
        schedule = self.schedule
        tokens = self._with_signals(tokens, x, weights, keys, (schedule.scorer,))
        tokens = schedule.reduce(tokens, schedule.rate_after(number), keys, self.predictor(number))
        return tokens, tokens.sequence, schedule.attention_bias(tokens)

    def _with_signals(self, tokens: VisualTokens, x: Tensor, weights: Tensor | None, keys: Tensor | None,
                      wanted: Sequence[str] = SIGNALS) -> VisualTokens:
        """The same cells with x [B, T, C], and what weights [B, h, T, T] and keys [B, h, T, Dh] say of them."""
        P, signals = self.prefix_tokens, dict.fromkeys(SIGNALS)
        if weights is not None and "attention_received" in wanted:
            signals["attention_received"] = weights.mean(dim=(1, 2))[:, P:]  # row looks at column
        if weights is not None and "cls_attention" in wanted and self.config.class_token:
            signals["cls_attention"] = weights[:, :, 0, P:].mean(dim=1)
        if keys is not None and "key_norm" in wanted:
            signals["key_norm"] = keys.float().norm(dim=-1).mean(dim=1)[:, P:]
        return replace(tokens, x=x[:, P:], prefix=x[:, :P] if P else None, **signals)


def attention_branch(block: Block, x: Tensor, mask: Tensor | None, *, need_weights: bool, need_keys: bool):
    """A block's first half: x [B, T, C] -> (x, weights [B, h, T, T] | None, keys [B, h, T, Dh] | None)."""
    q, k, v = block.attn.project(block.norm1(x))
    y, weights = block.attn.mix(q, k, v, need_weights, mask)
    return x + block.ls1(y), weights, k if need_keys else None
