"""``prunecap data features``: the tokens of a frozen encoder, computed once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import InputError, printable
from ...ranges import Count, Fraction, Natural
from ..options import Computing, set_schedule


@dataclass(frozen=True)
class FeaturesCommand(Computing):
    """Encode every picture of a split once, for training with --freeze-encoder --cache-features. Says first how much
    disk and time that takes. A run that was stopped goes on with the same command."""

    dataset: Literal["scenes", "flickr8k", "coco", "shards"] = "scenes"
    split: str = "train"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS."""
    limit: Count | None = None
    """Only the first so many pictures."""
    checkpoint: str | None = None
    """The encoder of this captioner: a name under data/checkpoints, or a folder."""
    encoder: str | None = None
    """Or an encoder by name, as in training; it needs encoder_weights."""
    encoder_weights: str | None = None
    """Pretrained weights: a safetensors file, 'timm' to download, or 'package' for a Python package's."""
    image_size: Count | None = None
    """Side of the square picture in pixels; default: the encoder's own."""
    view: Literal["middle", "whole"] = "middle"
    """What the encoder sees of a picture: its middle, or the whole picture squeezed into the square."""
    schedule: str | None = None
    """Tokens that go inside the encoder: keep rates @ blocks, like 0.7@3,6,9; 'none' keeps all."""
    prune_ratio: Fraction = 0.0
    """Share of the tokens that is not stored. Train with the same ratio and scorer, and --cache-pruned."""
    scorer: str | None = None
    """Which tokens are stored then: one that needs no decoder, like 'grid' or 'norm_largest'."""
    out: Path | None = None
    """Folder of the features; default: where training looks for them, under data/features."""
    batch_size: Count = 32
    workers: Natural = 0
    """Processes that decode pictures."""
    forecast: bool = False
    """Say how much disk and time it takes, and stop."""
    progress: bool = True

    def run(self) -> None:
        from ...datasets import open_dataset
        from ...features.cache import FeatureCache, check_cache_folder
        from ...features.forecast import forecast_features
        options = dict(pruned=self.pruned(), batch_size=self.batch_size, workers=self.workers,
                       bf16=None if self.dtype == "auto" else self.dtype == "bf16")
        device = self.find_device()
        if self.out is not None:
            check_cache_folder(self.out)
        encoder = self.frozen_encoder().requires_grad_(False).eval().to(device)
        dataset = open_dataset(self.dataset, split=self.split, root=self.root, limit=self.limit,
                               size=encoder.image_size)
        expected = forecast_features(dataset, encoder, self.out, **options)
        tokens, channels = expected.shapes["x"]
        print(f"{dataset.name} {dataset.split}, {expected.pictures} pictures as {encoder.name} sees them: {tokens} "
              f"tokens of {encoder.grid[0] * encoder.grid[1]}, {channels} channels\n"
              f"size: {expected.picture_bytes / 1e3:.1f} kB a picture, {expected.bytes / 1e9:.2f} GB in all; "
              f"{expected.free_bytes / 1e9:.1f} GB are free\n"
              f"time: about {expected.seconds / 60:.1f} min ({expected.pictures / expected.seconds:.0f} pictures a "
              "second, by the first batch)")
        if self.forecast:
            return
        cache = FeatureCache.open_or_build(dataset, encoder, self.out, progress=self.progress, **options)
        print(f"features: {printable(cache.folder)}")

    def pruned(self) -> tuple[str, float] | None:
        from ...pruning import STORABLE, check_storable
        if self.prune_ratio == 0:
            return None
        if self.scorer is None:
            raise InputError(f"prune ratio {self.prune_ratio}: which tokens go? Give --scorer, one of "
                             f"{', '.join(STORABLE)}")
        return check_storable(self.scorer), self.prune_ratio

    def frozen_encoder(self):
        from ...captioner import Captioner
        from ...training import TrainConfig
        from ...training.build import new_encoder
        if (self.checkpoint is None) == (self.encoder is None):
            raise InputError("whose features? Give either --checkpoint or --encoder with --encoder-weights")
        if self.checkpoint is not None:
            encoder = Captioner.load(self.checkpoint).encoder
        elif self.encoder_weights is None:
            raise InputError(f"encoder {self.encoder} has no weights yet, and features of random weights are of no "
                             "use; give --encoder-weights")
        else:
            encoder = new_encoder(TrainConfig(encoder=self.encoder, encoder_weights=self.encoder_weights,
                                              image_size=self.image_size, view=self.view))
        if self.schedule == "auto":
            raise InputError("schedule 'auto' goes by the clock, and stored features must not; name keep rates and "
                             "blocks, like 0.7@3,6,9, or none")
        set_schedule(encoder, self.schedule)
        return encoder
