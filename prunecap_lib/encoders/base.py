"""What do all encoders share? What they tell about themselves, and the few layers they have in common.

Shapes: B pictures, N = H * W visual tokens, P prefix tokens, C channels, S side of the picture in pixels.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..preprocessing import Preprocessing
from ..tokens import VisualTokens

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),  # OpenAI's CLIP
}


class Encoder(nn.Module):
    """From pictures to visual tokens; ``forward(images [B, 3, S, S]) -> VisualTokens``.

    Attributes:
        name: what ``build_encoder`` was asked for.
        image_size: S, the only side it takes.
        channels: C, the width of a token.
        grid: (H, W); the token of cell (i, j) starts at pixel (i * stride, j * stride).
        stride: pixels between neighbouring tokens (a ViT's patch size).
        prefix_tokens: P, class and register tokens.
        preprocessing: how a picture becomes its input.
    """

    name: str
    image_size: int
    channels: int
    grid: tuple[int, int]
    stride: int
    prefix_tokens: int = 0
    preprocessing: Preprocessing

    head_keys: tuple[str, ...] = ("head.",)
    """How keys of timm's classifier begin: they may be in a state dict and are left out."""

    def forward(self, images: Tensor, *, need_attention: bool = False) -> VisualTokens:
        raise NotImplementedError

    def timm_module(self) -> nn.Module:
        """The module whose parameters have timm's names."""
        return self

    def check_images(self, images: Tensor) -> None:
        """Raises InputError where ``images`` is not [B, 3, S, S]."""
        S = self.image_size
        if images.dim() != 4 or images.shape[1:] != (3, S, S):
            raise InputError(f"encoder {self.name} takes pictures of shape [B, 3, {S}, {S}], not "
                             f"{list(images.shape)}; resize them with encoder.preprocessing, or build the "
                             "encoder with another image_size")

    def no_attention(self) -> InputError:
        """What to raise where attention was asked of an encoder that cannot tell."""
        return InputError(f"encoder {self.name} has no attention weights to give; score its tokens with "
                          "'pilot', 'grid', 'random', 'norm_largest' or 'norm_smallest'")


class Mlp(nn.Module):
    """Two matrices with an activation between them, on the last axis: [..., C] -> [..., C]."""

    def __init__(self, channels: int, hidden: int, activation: str = "gelu"):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


def init_weights(module: nn.Module) -> None:
    """Normal weights cut at two, of deviation 0.02, and zero biases: what ViT and ConvNeXt start from."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
