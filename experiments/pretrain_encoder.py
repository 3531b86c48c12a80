"""How do the Scenes encoders learn to see before they learn to speak? By naming what lies in each cell.

    python experiments/pretrain_encoder.py vit --out runs/vit-encoder.safetensors

Captioners of photographs start from an encoder that was trained to classify ImageNet; this is the same step for
Scenes. Each token of the grid is asked for the kind and the colour of the thing whose box holds the cell's centre.
Words, counts, sizes, relations and backgrounds are left for the captioner to learn.

Shapes: B pictures, N = H * W cells, C channels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from prunecap_lib import build_encoder
from prunecap_lib.datasets.scenes import COLOURS, KINDS, Scene, ScenesDataset
from prunecap_lib.devices import native_bf16
from prunecap_lib.errors import InputError
from prunecap_lib.files import Kind, check_output_file, replace_file
from prunecap_lib.training.build import learning_rate

NOTHING = 0
MADE_BY = {"made_by": "prunecap"}
ENCODER = Kind("encoder of this script", lambda path: safe_open(path, "pt").metadata() == MADE_BY)


def cell_labels(scene: Scene, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Kind and colour in each cell, [N] each; 0 is nothing. Later things lie in front."""
    H, W = grid
    labels = torch.zeros(2, H, W, dtype=torch.long)
    for thing in scene.things:
        left, top, right, bottom = thing.box
        rows = slice(*_centres(top, bottom, H))
        columns = slice(*_centres(left, right, W))
        labels[0, rows, columns] = 1 + KINDS.index(thing.kind)
        labels[1, rows, columns] = 1 + COLOURS.index(thing.colour)
    return labels.flatten(1).unbind(0)


def _centres(start: float, end: float, cells: int) -> tuple[int, int]:
    """The cells whose centres lie in start..end (shares of the side); at least one."""
    first = max(0, round(start * cells))
    return (first, max(first + 1, min(cells, round(end * cells))))


class CellNames(nn.Module):
    """An encoder and one linear layer that names each cell's kind and colour."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.channels, 2 + len(KINDS) + len(COLOURS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> logits of kinds [B, N, 1 + 14] and of colours [B, N, 1 + 8]."""
        return self.head(self.encoder(images).x).split([1 + len(KINDS), 1 + len(COLOURS)], dim=-1)


def pretrain(name: str, out: str | Path, *, pictures: int = 24_000, epochs: int = 4, batch_size: int = 64,
             lr: float = 2e-3, seed: int = 0) -> None:
    """Train the encoder called ``name`` on Scenes and write its weights to ``out`` (safetensors)."""
    from safetensors.torch import save_file
    torch.manual_seed(seed)
    model = CellNames(build_encoder(name)).train()
    grid, normalize = model.encoder.grid, model.encoder.preprocessing.normalize
    dataset = ScenesDataset("train", pictures, size=model.encoder.image_size)
    pixels = torch.from_numpy(dataset.pixels())
    kinds, colours = map(torch.stack, zip(*(cell_labels(scene, grid) for scene in dataset.scenes), strict=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, betas=(0.9, 0.98))
    weights = torch.ones(1 + len(KINDS)), torch.ones(1 + len(COLOURS))
    for weight in weights:
        weight[NOTHING] = 0.1  # most cells are empty
    half = native_bf16(torch.device("cpu"))
    per_epoch = len(pixels) // batch_size
    bar = tqdm(range(epochs * per_epoch), desc=f"{name} encoder, {'bf16' if half else 'fp32'}", unit="step")
    for step in bar:
        if step % per_epoch == 0:
            order = torch.randperm(len(pixels))
        batch, order = order[:batch_size], order[batch_size:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, bar.total, lr, 0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(normalize(pixels[batch]))
        loss = sum(F.cross_entropy(guess.float().flatten(0, 1), truth[batch].flatten(), weight=weight)
                   for guess, truth, weight in zip(logits, (kinds, colours), weights, strict=True))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            things = kinds[batch] != NOTHING
            right = (logits[0].argmax(-1) == kinds[batch])[things].float().mean()
            bar.set_postfix(loss=f"{loss.item():.3f}", kind=f"{right.item():.3f}")
    with replace_file(out, ENCODER) as new:
        save_file({key: value.contiguous() for key, value in model.encoder.state_dict().items()}, new, metadata=MADE_BY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", choices=("vit", "convnext"))
    parser.add_argument("--out", required=True, help="safetensors file")
    options = parser.parse_args()
    try:
        check_output_file(options.out, ENCODER)
    except InputError as error:
        parser.error(str(error))
    pretrain(options.encoder, options.out)


if __name__ == "__main__":
    main()
