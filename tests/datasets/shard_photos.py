"""What do tests of shards pack? A few pictures of every shape, with captions, as files."""

from pathlib import Path

import numpy as np
from PIL import Image

from prunecap_lib.datasets import PhotoDataset

SIZES = [(90, 60), (60, 90), (40, 40), (33, 64), (200, 50), (20, 30), (64, 48)]


def photos(folder: Path, n: int = 23, name: str = "tiny") -> PhotoDataset:
    """n pictures of smooth colours and noise; some are grey, some PNG, two captions each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths, captions = np.random.default_rng(0), {}, {}
    for i in range(n):
        width, height = SIZES[i % len(SIZES)]
        y, x = np.mgrid[0:height, 0:width]
        pixels = np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 10 * i % 255)], -1)
        image = Image.fromarray((pixels * 0.8 + rng.integers(0, 50, pixels.shape)).astype(np.uint8))
        id = 1000 - 7 * i if i % 2 else f"photo.{i}"  # a point in a name would end a WebDataset key
        paths[id] = folder / f"{i}.{'png' if i % 5 == 4 else 'jpg'}"
        (image.convert("L") if i % 6 == 5 else image).save(paths[id])
        captions[id] = [f"caption {i} shows a café", f"picture number {i}"]
    return PhotoDataset(name, "train", captions, paths, source=folder)
