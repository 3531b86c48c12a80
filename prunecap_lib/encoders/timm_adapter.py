"""How does any other timm backbone give visual tokens? Its map is flattened row by row; its prefix set apart.

Shapes: B pictures, S side of the picture, H, W the grid, N = H * W tokens, P prefix tokens, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..preprocessing import Preprocessing
from ..tokens import Grid, VisualTokens
from .base import Encoder

LAST_STAGE = "@last_stage"


class TimmAdapter(Encoder):
    """A timm backbone as an encoder: ``x`` is its ``forward_features``, flattened row by row.

    A name that ends in "@last_stage" takes the map of the last stage instead, before the layers that timm adds for its
    classifier; those layers are removed. "tf_efficientnet_lite0@last_stage" gives 7x7x320, where ``forward_features``
    widens it to 1280 channels.

    Raises InputError where the output is not a map or a row of tokens that fills a square, one for each place: a class
    token alone, or a mean, is none.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocessing: Preprocessing):
        super().__init__()
        self.name, self.preprocessing, self.image_size = name, preprocessing, preprocessing.image_size
        self.last_stage = name.endswith(LAST_STAGE)
        self.prefix_tokens = 0 if self.last_stage else getattr(model, "num_prefix_tokens", 0)
        all_keys = set(model.state_dict())
        if self.last_stage and not hasattr(model, "prune_intermediate_layers"):
            raise InputError(f"encoder {name}: timm cannot give the last stage of this architecture; "
                             f"leave {LAST_STAGE} out")
        try:
            model.reset_classifier(0)
            if self.last_stage:
                model.prune_intermediate_layers(1, prune_norm=True)
            self.head_keys = tuple(all_keys - set(model.state_dict()))
            self.model = model.eval()
            with torch.no_grad():  # what it gives is best learned by asking it
                features = self.features(torch.zeros(1, 3, self.image_size, self.image_size))
        except InputError:
            raise
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"encoder {name} fails on a picture of image_size {self.image_size} ({error}); "
                             "try its own size, or choose another backbone") from error
        self.model.train()
        self.channels, (grid, self.stride) = features.shape[-1], self.find_grid(features)
        self.grid = Grid.of(grid, self.stride, self.image_size)

    def set_grad_checkpointing(self, on: bool) -> None:
        """As timm does it. Raises InputError where it cannot, for this backbone."""
        try:
            self.model.set_grad_checkpointing(on)
        except (AttributeError, AssertionError) as error:
            if on:
                raise InputError(f"encoder {self.name}: timm cannot compute its blocks again; leave "
                                 "checkpoint_activations out") from error
        self.grad_checkpointing = on

    def timm_module(self) -> nn.Module:
        return self.model

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, H, W, C] or [B, P+N, C], as the backbone has it."""
        if self.last_stage:
            (x,) = self.model.forward_intermediates(images, 1, intermediates_only=True)
            return x.permute(0, 2, 3, 1)  # timm gives [B, C, H, W] here, whatever the backbone
        x = self.model.forward_features(images)
        if not isinstance(x, Tensor) or x.dim() not in (3, 4):
            raise InputError(f"encoder {self.name}: forward_features gives neither a map nor tokens; "
                             "choose another backbone")
        if x.dim() == 4 and getattr(self.model, "output_fmt", "NCHW") != "NHWC":
            x = x.permute(0, 2, 3, 1)
        if x.shape[-1] != getattr(self.model, "num_features", x.shape[-1]):
            raise InputError(f"encoder {self.name}: forward_features gives {list(x.shape[1:])}, not ending in the "
                             f"{self.model.num_features} channels that timm names; choose another backbone")
        return x

    def find_grid(self, features: Tensor) -> tuple[tuple[int, int], int]:
        """(H, W) of what ``features`` returned, and the pixels from one cell to the next."""
        try:
            stride = self.model.feature_info[-1]["reduction"]
        except (AttributeError, IndexError, KeyError, TypeError):
            stride = None
        if features.dim() == 4:
            grid = features.shape[1], features.shape[2]
        else:
            N = features.shape[1] - self.prefix_tokens
            grid = (math.isqrt(max(N, 0)),) * 2
            if grid[0] ** 2 != N:
                raise InputError(f"encoder {self.name}: {N} tokens fill no square grid at image_size "
                                 f"{self.image_size}; choose another backbone")
        if max(grid) <= 1 and self.image_size >= 2 * (stride or 32):
            raise InputError(f"encoder {self.name}: forward_features gives one vector for {self.image_size} pixels, a "
                             "class token or a mean, and no visual tokens; choose another backbone")
        borne_out = stride and abs(self.image_size / stride - grid[0]) < 2  # a map may be padded, or be cut off
        return grid, stride if borne_out else round(self.image_size / grid[0])

    def forward(self, images: Tensor, *, need_attention: bool = False) -> VisualTokens:
        """Pictures [B, 3, S, S] -> N tokens. Raises InputError for another size, and for attention."""
        self.check_images(images, need_attention)
        x = self.features(images)
        if x.dim() == 4:
            x = x.flatten(1, 2)  # [B, H, W, C] -> [B, N, C]
        P = self.prefix_tokens
        return VisualTokens.full(x[:, P:], self.grid, x[:, :P] if P else None)
