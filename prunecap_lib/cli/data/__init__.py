"""``prunecap data``: get a data set ready, or look at what is in it. Each subcommand is one module."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..options import call
from .coco import CocoCommand
from .features import FeaturesCommand
from .info import InfoCommand
from .scenes import ScenesCommand
from .shards import ShardsCommand

DESCRIPTION = """Get a data set ready, or look at what is in it.

examples:
  prunecap data scenes --out data/scenes --n 1000 --size 224
  prunecap data coco --root photos/coco --split karpathy
  prunecap data shards --dataset coco --root photos/coco --split train --out shards/coco --workers 8
  prunecap data info --dataset flickr8k --root photos/flickr8k --split train
  prunecap data info --dataset flickr8k --split dev --vocabulary-size 2033
  prunecap data features --dataset flickr8k --checkpoint photos-lite0 --forecast
  prunecap data features --dataset coco --encoder vit_base_patch16_224 --encoder-weights timm --workers 8
"""


DataCommand = (Annotated[ScenesCommand, tyro.conf.subcommand("scenes")]
               | Annotated[CocoCommand, tyro.conf.subcommand("coco")]
               | Annotated[ShardsCommand, tyro.conf.subcommand("shards")]
               | Annotated[FeaturesCommand, tyro.conf.subcommand("features")]
               | Annotated[InfoCommand, tyro.conf.subcommand("info")])


def main(argv: list[str]) -> None:
    call(lambda command: command.run(), DataCommand, argv, prog="prunecap data", description=DESCRIPTION)
