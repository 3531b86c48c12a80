"""``prunecap evaluate``: captions for a whole split, their scores, and what they must be compared with."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

DESCRIPTION = """Caption every picture of a split and score the captions.

examples:
  prunecap evaluate --checkpoint scenes-vit --dataset scenes --split test
  prunecap evaluate --checkpoint photos-lite0 --dataset flickr8k --split dev --method beam --beam-size 5
  prunecap evaluate --checkpoint scenes-vit --dataset scenes --prune-ratio 0.5 --scorer random --metrics CIDEr
  prunecap evaluate --checkpoint scenes-vit --schedule 0.7,0.5@2,4/attention_received/fuse
"""


@dataclass(frozen=True)
class EvaluateCommand:
    checkpoint: str
    """A name under data/checkpoints, or a checkpoint's folder."""
    dataset: Literal["scenes", "flickr8k", "coco", "shards"] = "scenes"
    split: str = "test"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS."""
    limit: int | None = None
    """Only so many pictures (CIDEr-D depends on their number: compare at equal numbers only)."""
    method: Literal["greedy", "beam"] = "greedy"
    beam_size: int = 5
    max_length: int = 20
    prune_ratio: float | None = None
    scorer: str | None = None
    schedule: str | None = None
    """Tokens that go inside the encoder: keep rates @ blocks, like 0.7@3,6,9, or a share of its operations, like
    50%@3,6,9; after a slash a scorer or a reduction, like 0.7@3,6,9/key_norm/fuse. 'auto' prunes where that is
    faster, 'none' keeps all; default: what the model was trained with."""
    metrics: tuple[str, ...] = ("BLEU", "METEOR", "ROUGE_L", "CIDEr")
    """SPICE too where CoreNLP is at hand. METEOR takes ten seconds for 1,000 pictures."""
    batch_size: int = 64
    cache_features: bool = False
    """Encode every picture once and keep the features on disk, as in training."""
    seed: int = 0
    out: Path | None = None
    """Write the report, with all captions, as JSON."""
    progress: bool = True


def main(argv: list[str]) -> None:
    command = tyro.cli(EvaluateCommand, args=argv, prog="prunecap evaluate", description=DESCRIPTION)
    from ..captioner import Captioner
    from ..datasets import open_dataset
    from ..reports import evaluate, write_json
    from .options import set_schedule
    captioner = Captioner.load(command.checkpoint)
    set_schedule(captioner.encoder, command.schedule)
    dataset = open_dataset(command.dataset, split=command.split, root=command.root, limit=command.limit,
                           size=captioner.config.image_size)
    report, captions = evaluate(
        captioner, dataset, method=command.method, beam_size=command.beam_size, max_length=command.max_length,
        prune_ratio=command.prune_ratio, scorer=command.scorer, metrics=command.metrics,
        batch_size=command.batch_size, cache_features=command.cache_features, seed=command.seed,
        progress=command.progress)
    report = {"checkpoint": command.checkpoint, **report}
    print(json.dumps(report, indent=1))
    if command.out:
        texts = {str(image_id): caption.text for image_id, caption in captions.items()}
        write_json(command.out, report | {"captions": texts})
        print(f"report: {command.out}", file=sys.stderr)
