"""Where did each word look? Cross-attention weights laid back over the picture.

Shapes: T words, (H, W) the encoder's grid, (h, w) pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .errors import InputError, UndefinedError
from .preprocessing import Preprocessing
from .tokens import cell_size


def mean_map(attention: Tensor) -> Tensor:
    """Mean over a caption's words: [T, H, W] -> [H, W]. Raises UndefinedError for a caption of no words."""
    if not len(attention):
        raise UndefinedError("a mean map is over a caption's words, and here is none; leave this caption out")
    return attention.mean(dim=0)


def kept_mask(kept: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cells that were kept, [K] -> bool [H, W]."""
    mask = torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    mask[kept] = True
    return mask.view(grid)


def scale_map(values: Tensor, size: tuple[int, int], mode: str = "nearest", *,
              grid: tuple[int, int] | None = None) -> Tensor:
    """Scale maps [..., H, W] to pixels: size (h, w) -> [..., h, w]; 0 where there are pixels and no cell.

    'nearest' shows the cells as they are; 'bilinear' is smoother, and shows detail that was not measured.

    Args: grid: the encoder's, which knows where the cells lie; see ``cell_size``.
    """
    H, W = values.shape[-2:]
    height, width = cell_size(grid or (H, W), size)
    covered = max(1, round(H * height)), max(1, round(W * width))  # may be less than the picture, or more
    flat = values.float().reshape(1, -1, H, W)
    smooth = {"align_corners": False} if mode == "bilinear" else {}
    scaled = F.interpolate(flat, size=covered, mode=mode, **smooth)
    scaled = F.pad(scaled, (0, size[1] - covered[1], 0, size[0] - covered[0]))  # where it is more, that is cut off
    return scaled.reshape(*values.shape[:-2], *size)


def seen_part(picture: Image.Image, preprocessing: Preprocessing, side: int | None = None) -> Image.Image:
    """The part of the original picture that the encoder saw; attention maps lie exactly over it.

    In the picture's own proportions, also where the encoder was given it squeezed into a square.

    Args: side: scale its longer side to this many pixels; default: the part's own size.
    """
    box = preprocessing.picture_box(picture.size)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = side / max(width, height) if side else 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC, box=box)


def dim_dropped(picture: Image.Image, kept: Tensor, grid: tuple[int, int], strength: float = 0.82) -> Image.Image:
    """The picture with all but the kept cells faded to white: what is left after pruning."""
    if not 0 <= strength <= 1:
        raise InputError(f"strength {strength} is outside [0, 1]")
    pixels = torch.from_numpy(np.array(picture)).float()
    shown = scale_map(kept_mask(kept, grid), pixels.shape[:2], grid=grid)[..., None]
    faded = 255 - (255 - pixels) * (1 - strength)
    return Image.fromarray((pixels * shown + faded * (1 - shown)).round().byte().numpy())
