"""``prunecap data``: get a data set ready, or look at what is in it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import InputError, printable
from ..ranges import Count, Fraction, JpegQuality, Natural, PerShard, Seed, Side, VocabularySize
from .options import Computing, set_schedule

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


@dataclass(frozen=True)
class ScenesCommand:
    """Draw Scenes: images/, captions_SPLIT.json and instances_SPLIT.json as COCO has them."""

    out: Path = Path("data/scenes")
    n: Count = 1000
    """Number of pictures."""
    size: Side = 224
    """Side in pixels."""
    split: Literal["train", "val", "test", "heldout"] = "train"
    seed: Seed = 0

    def run(self) -> None:
        # late: options are read without torch, which takes seconds
        from ..datasets.scenes import SCENES, make_scenes, write_coco
        from ..files import check_output_folder
        check_output_folder(self.out, SCENES)
        write_coco(make_scenes(self.n, seed=self.seed, size=self.size, split=self.split), self.out)
        print(f"{self.n} scenes of {self.size} px in {printable(self.out)}")


@dataclass(frozen=True)
class CocoCommand:
    """Download COCO (20 GB; 40 GB free while it is unpacked), or take zips that you have, check and unpack them.

    What breaks off goes on with the same command; what is there is not fetched again.

    examples:
      prunecap data coco --root photos/coco --split karpathy
      prunecap data coco --root photos/coco --split karpathy --only annotations
      prunecap data coco --root photos/coco --year 2014 --from ~/Downloads
      prunecap data coco --root photos/coco --mirror https://mirror.example.org/coco
    """

    root: Path
    """Folder to put it in."""
    year: Literal[2014, 2017] | None = None
    """The same 123,287 pictures, shared out differently; default: the year that lies there, else 2017."""
    split: Literal["official", "karpathy"] = "official"
    """karpathy: also the split that papers report on (113,287/5,000/5,000 pictures, of either year)."""
    only: Literal["annotations", "pictures"] | None = None
    """annotations: the text alone (Karpathy's split too), 0.3 GB."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR")] = None
    """Folder with the zips, as they are called at COCO's; they are checked and left there."""
    mirror: Annotated[tuple[str, ...], tyro.conf.arg(metavar="URL"), tyro.conf.UseAppendAction] = ()
    """Address to ask before COCO's own, again for more of them; default: those in PRUNECAP_MIRRORS, by commas."""
    check: bool = False
    """Compare the bytes of every file that was unpacked here with its checksum, at once or any time later."""

    def run(self) -> None:
        from ..datasets.download import COCO, FOLDER, get_coco
        from ..files import check_output_folder
        if not os.path.isdir(self.root):
            check_output_folder(self.root, FOLDER)
        coco = COCO[self.year or next((year for year in (2017, 2014) if (self.root / f"train{year}").is_dir()), 2017)]
        mirrors = self.mirror or tuple(filter(None, os.environ.get("PRUNECAP_MIRRORS", "").split(",")))
        new = get_coco(self.root, coco, karpathy=self.split == "karpathy", pictures=self.only != "annotations",
                       text=self.only != "pictures", source=self.source, mirrors=mirrors, thorough=self.check)
        print(f"{printable(self.root)}: "
              + (f"unpacked {', '.join(new)}" if new else "all of it is there, nothing to do"))
        print(self.closing(coco))

    def closing(self, coco) -> str:
        """What ``open_dataset`` now finds in the folder, and the command that comes next."""
        annotations = self.root / "annotations"
        if any((place / "dataset_coco.json").is_file() for place in (self.root, annotations)):
            what, counts = "Karpathy's split", dict(zip(("train", "val", "test"), coco.karpathy_counts, strict=True))
        elif (annotations / f"captions_val{coco.year}.json").is_file():
            what, counts = f"official split of {coco.year}", {"train": coco.train.pictures, "val": coco.val.pictures}
        else:
            return "next: the same command without --only, for the captions"
        found = f"COCO, {what}: " + ", ".join(f"{split} {count:,}" for split, count in counts.items()) + " pictures\n"
        if not (self.root / coco.train.folder).is_dir():
            return found + "next: the same command without --only, for the pictures"
        if "test" not in counts and coco.year == 2014 and (annotations / "captions_val2017.json").is_file():
            return found + "2017 lies there too, and is what will be read; give each year a folder of its own"
        return found + f"next: prunecap data info --dataset coco --root {self.root} --split val"


@dataclass(frozen=True)
class ShardsCommand:
    """Resize a split's pictures and pack them, with their captions, into WebDataset shards under OUT/SPLIT.

    What was stopped goes on with the same command; finished shards are compared with their checksums, and written
    again if they are damaged. Training reads them with --dataset shards --root OUT.

    OUT may lie on a web server: give its address as --root (http://host/shards/coco). Each machine then keeps the
    shards that it reads in the folder PRUNECAP_CACHE (default ~/.cache/prunecap), at most PRUNECAP_CACHE_GB of them
    (default 20; COCO's have about 5). Both are environment variables.

    examples:
      prunecap data shards --dataset coco --root photos/coco --split train --out shards/coco --workers 8
      prunecap data shards --dataset coco --root photos/coco --split val --out shards/coco --workers 8
      prunecap train --dataset shards --root shards/coco --workers 4 --out runs/coco
    """

    out: Path
    """Folder for the splits."""
    dataset: Literal["scenes", "flickr8k", "coco"] = "coco"
    split: str = "train"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS."""
    limit: Count | None = None
    """Only the first so many pictures."""
    side: Side = 256
    """Pixels of the shorter side; smaller pictures are not enlarged. For encoders of 224 pixels, 256."""
    quality: JpegQuality = 90
    """Of the JPEGs, 1 to 95."""
    per_shard: PerShard = 1000
    """Pictures in a shard."""
    workers: Natural = 0
    """Processes that decode and resize, beside the one that writes."""
    max_unreadable: Fraction = 0.001
    """Share of the pictures that may be left out because they cannot be read."""
    progress: bool = True

    def run(self) -> None:
        from tqdm import tqdm

        from ..datasets import open_dataset
        from ..datasets.shards import ShardSettings, split_folder
        from ..datasets.shards.build import SHARDS, build_shards
        from ..files import check_output_folder
        settings = ShardSettings(self.side, self.quality, self.per_shard)
        check_output_folder(self.out, SHARDS)
        dataset = open_dataset(self.dataset, split=self.split, root=self.root, limit=self.limit,
                               size=self.side if self.dataset == "scenes" else None)
        index = build_shards(dataset, self.out, settings, workers=self.workers, max_unreadable=self.max_unreadable,
                             progress=self.progress, say=tqdm.write)
        size, left_out = sum(shard.bytes for shard in index.shards), index.unreadable
        print(f"{printable(self.out / split_folder(dataset.split))}: {len(dataset) - len(left_out):,} pictures in "
              f"{len(index.shards)} shards, {size / 1e6:,.0f} MB"
              + (f"; {len(left_out)} unreadable ones left out, listed in index.json" if left_out else ""))


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
        from ..datasets import open_dataset
        from ..devices import find_device
        from ..features import FeatureCache, check_cache_folder, forecast_features
        options = dict(pruned=self.pruned(), batch_size=self.batch_size, workers=self.workers,
                       bf16=None if self.dtype == "auto" else self.dtype == "bf16")
        device = find_device(self.device)
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
        from ..pruning import STORABLE, check_storable
        if self.prune_ratio == 0:
            return None
        if self.scorer is None:
            raise InputError(f"prune ratio {self.prune_ratio}: which tokens go? Give --scorer, one of "
                             f"{', '.join(STORABLE)}")
        return check_storable(self.scorer), self.prune_ratio

    def frozen_encoder(self):
        from ..captioner import Captioner
        from ..training import TrainConfig
        from ..training.build import new_encoder
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


@dataclass(frozen=True)
class InfoCommand:
    """Count pictures, captions and words of a split, and show a few. With a vocabulary's size or least count: how many
    words a vocabulary of the training captions lacks here, and what people would score without them."""

    dataset: Literal["scenes", "flickr8k", "coco", "shards"] = "scenes"
    split: str = "val"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS."""
    limit: Count | None = None
    vocabulary_size: VocabularySize | None = None
    """Entries of the vocabulary, specials included (the seed preset has 2033)."""
    min_count: Count | None = None
    """Leave words out that the training captions have fewer times."""

    def run(self) -> None:
        from ..datasets import open_dataset
        from ..text import tokenize
        measured = self.vocabulary_size is not None or self.min_count is not None
        if measured and self.split == "train":
            raise InputError("a vocabulary is built from the training captions and lacks few of their words; choose "
                             "another --split to see what it misses")
        dataset = open_dataset(self.dataset, split=self.split, root=self.root, limit=self.limit)
        captions = [caption for row in dataset.captions for caption in row]
        words = Counter(word for caption in captions for word in tokenize(caption))
        print(f"{dataset.name} {dataset.split}: {len(dataset)} pictures, {len(captions)} captions, "
              f"{len(words)} different words, {sum(words.values()) / len(captions):.1f} words a caption")
        for i in range(min(3, len(dataset))):
            print(printable(f"  {dataset.image_ids[i]}: {dataset.captions[i][0]}"))
        if measured:
            self.show_ceiling(open_dataset(self.dataset, split="train", root=self.root), dataset)

    def show_ceiling(self, train, dataset) -> None:
        from ..evaluation import vocabulary_ceilings
        from ..text import Vocabulary, tokenize
        captions = [caption for row in train.captions for caption in row]
        vocabulary = Vocabulary.build(captions, min_count=self.min_count or 1, max_size=self.vocabulary_size)
        counts = Counter(word for caption in captions for word in tokenize(caption))
        ceiling, = vocabulary_ceilings(dataset.references(), [vocabulary], metrics=("BLEU", "ROUGE_L", "CIDEr"))
        print(f"vocabulary of the train split ({len(train)} pictures, {len(captions)} captions, {len(counts)} different"
              f" words): {len(vocabulary)} entries, the rarest word seen {counts[vocabulary.words[-1]]} times")
        print(f"unknown in {dataset.split}: {ceiling.unknown_words:.2%} of the words, in "
              f"{ceiling.captions_touched:.1%} of the captions")
        print("human captions against the others of their picture: intact, unknown words left out, <unk> for them:")
        for name, before in ceiling.intact.items():
            print(f"  {name:8} {before:.3f}  {ceiling.struck[name]:.3f}  {ceiling.replaced[name]:.3f}")
        print("  of CIDEr-D lost: {:.3f} to {:.3f} where they are left out, {:.3f} to {:.3f} with <unk> (95% intervals "
              "over pictures)".format(*ceiling.CIDEr_intervals["struck_lost"],
                                      *ceiling.CIDEr_intervals["replaced_lost"]))


DataCommand = (Annotated[ScenesCommand, tyro.conf.subcommand("scenes")]
               | Annotated[CocoCommand, tyro.conf.subcommand("coco")]
               | Annotated[ShardsCommand, tyro.conf.subcommand("shards")]
               | Annotated[FeaturesCommand, tyro.conf.subcommand("features")]
               | Annotated[InfoCommand, tyro.conf.subcommand("info")])


def run(command: DataCommand) -> None:
    command.run()
