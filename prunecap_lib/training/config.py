"""What fixes a training run? One frozen dataclass; the same config and seed give the same model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ..captioner import CaptionerConfig
from ..errors import InputError
from ..pruning import Schedule, check_scorer, check_storable
from ..ranges import Count, Fraction, Natural, NotNegative, Positive, Seed, Share, VocabularySize, check_ranges


class Family(NamedTuple):
    """One kind of encoder for ``TrainConfig.recommended``."""

    # timm's name, weights included. All five were trained on all of ImageNet and refined on its usual 1,000 classes,
    # see 224 pixels and have 53 to 88 million parameters: what differs most is the architecture.
    encoder: str
    # Pruning inside it, as --schedule reads it; the recipe leaves it off. 0.7 after each quarter of the blocks are the
    # rate and the blocks of Rao et al. 2021 (DynamicViT). The reduction is by measurement, after fine-tuning under a
    # schedule (data/results/scenes_finetuned.json): in the ViT merging lost least; in the ConvNeXt cells spread evenly
    # came next to a predictor, which cannot train while tokens also go before the decoder.
    schedule: str


FAMILIES = {
    "vit": Family("vit_base_patch16_224.augreg2_in21k_ft_in1k", "0.7@3,6,9/merge"),         # Steiner et al. 2022
    "convnext": Family("convnext_base.fb_in22k_ft_in1k", "0.7@9,18,27/grid"),               # Liu et al. 2022
    "convnextv2": Family("convnextv2_base.fcmae_ft_in22k_in1k", "0.7@9,18,27/grid"),        # Woo et al. 2023
    "swin": Family("swin_base_patch4_window7_224.ms_in22k_ft_in1k", "0.7@6,12,18/grid"),    # Liu et al. 2021
    "metaformer": Family("caformer_m36.sail_in22k_ft_in1k", "0.7@9,18,27/grid"),            # Yu et al. 2024
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; the defaults train on Scenes on a laptop."""

    # -- data and the run's folder

    dataset: Literal["scenes", "flickr8k", "coco", "shards"] = "scenes"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS. Scenes are drawn and need none; shards (prunecap data
    shards) may lie at an address (http, https)."""
    limit: Count | None = None
    """Number of training pictures (Scenes: how many to draw; default 20,000). None means all."""
    out: str = "runs/first"  #: Folder for the checkpoint and the log. A run found there is resumed.

    # -- what is learned
    start: str | None = None
    """A checkpoint to start from: a name under data/checkpoints ('scenes-vit') or a folder. Its weights, vocabulary and
    preprocessing are kept, and its sizes must be this run's. It is the teacher, too."""
    objective: Literal["cross_entropy", "self_critical"] = "cross_entropy"
    """What is learned: the next word of given captions; or, as a second stage, to draw captions of a high CIDEr-D
    (Rennie et al. 2017). The second needs ``start``, no teacher, and a lower learning rate: 1e-5 for a
    large encoder; photos-lite0 gained most with 3e-4 (data/results/self_critical.json)."""
    samples: Count = 5  #: Captions that a self-critical run draws of each picture.
    baseline: Literal["others", "greedy"] = "others"
    """What a drawn caption's CIDEr-D must exceed: the mean of the picture's other samples, or its greedy caption's."""
    reward_eos: bool = True
    """The end of a caption counts as a word in its CIDEr-D. Without, a caption loses nothing by stopping in "with a",
    and models have learned to (Hu et al. 2023)."""
    label_smoothing: Share = 0.0
    ratio_weight: NotNegative = 2.0
    """How much it counts that a predictor keeps as many tokens as the schedule says (Rao et al. 2021, section 3.4; so
    do the next two). Only the schedule's scorer 'predictor' needs it."""
    word_weight: NotNegative = 0.5
    """How much it counts that next words are as likely as the teacher, unpruned, finds them. Only with ``start``."""
    feature_weight: NotNegative = 0.5
    """How much it counts that the tokens which stay hold what the teacher's hold. Only with ``start``."""

    # -- encoder
    encoder: str = "vit"  #: 'vit' and 'convnext' are the small Scenes encoders; any other name is timm's.
    encoder_weights: str | None = None
    """Pretrained weights: a file that timm would read (safetensors, .pth), 'timm' to download, or 'package' for those
    of a Python package."""
    image_size: Count | None = None  #: Side of the square picture in pixels; default: the encoder's own.
    view: Literal["middle", "whole"] = "middle"
    """What the encoder sees of a picture: its middle, cut out as in the encoder's own training, or the whole
    picture, squeezed into the square."""
    augment: bool = False  #: Small random crops (never a mirror image: captions say left and right).
    freeze_encoder: bool = False  #: Do not train the encoder.
    cache_features: bool = False  #: Encode every picture once and train from the stored features (frozen encoder only).
    cache_pruned: bool = False
    """Store only the tokens that prune_ratio leaves. The scorer must be one that needs no decoder, like 'grid'."""

    # -- pruning
    prune_ratio: Fraction = 0.3  #: Share of the visual tokens removed before cross-attention, also while training.
    scorer: str = "pilot"
    """Which tokens stay: see prunecap_lib.pruning.SCORES ('relevance' is for captioning, not for training)."""
    schedule: Schedule | None = None
    """Tokens that go inside the encoder: keep rates @ blocks, like 0.7@3,6,9, and after a slash a scorer or a
    reduction, like 0.7@3,6,9/key_norm/fuse. What prune_ratio removes is a share of those that come out."""

    # -- decoder

    d_model: Count = 192
    layers: Count = 2
    heads: Count = 4
    ffn: Count = 768
    dropout: Share = 0.1
    positions: Literal["learned", "sinusoidal"] = "learned"
    tie_weights: bool = True

    # -- words
    tokenizer: Literal["words", "bpe"] = "words"
    """'words': an id for each word of the training captions. 'bpe': ids for pieces of words, learned from them by
    byte-pair encoding, so that no word is unknown; it needs a vocabulary_size."""
    min_count: Count = 1
    """Words seen fewer times in the training captions become <unk> (bpe: such pairs are not joined)."""
    vocabulary_size: VocabularySize | None = None
    """Keep at most this many entries, specials included (bpe: and the 256 bytes)."""
    max_words: Count = 20  #: Longer captions are cut; with bpe after so many pieces of words.
    captions_per_image: Count = 5  #: Captions of one picture in a batch; they share its keys and values.

    # -- optimization

    epochs: Count = 24
    batch_size: Count = 64  #: Pictures that a process looks at together (captions: times captions_per_image).
    accumulate: Count = 1
    """Batches of each process before the weights move. A step then sees batch_size x processes x accumulate pictures,
    and learns from them as from one batch; only batch norm in a trained encoder still goes by batch_size."""
    lr: Positive = 1e-3  #: Highest learning rate.
    encoder_lr: Positive | None = None
    """The same of the encoder, which one that is pretrained wants lower; default: that of all."""
    warmup: Share = 0.05  #: Share of all steps in which the learning rate rises; then it falls along a cosine.
    weight_decay: NotNegative = 0.05
    clip: Positive = 1.0  #: Largest norm of the gradient.
    ema: Fraction = 0.0
    """Keep, validate and return a moving average of the weights with this decay, like 0.9999; 0: the weights as they
    are. In step t the decay is at most 1 - t^-0.75, so that a short run is averaged over a short time."""
    seed: Seed = 0

    # -- the machine
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 autocast where processor or GPU has instructions for it and is two to three times faster so, else
    fp32; a run goes on with what it began with. fp16, whose loss is scaled, is for GPUs without bf16."""
    checkpoint_activations: bool = False
    """Compute what is inside the encoder's blocks and the decoder's layers again for the backward pass instead of
    keeping it: less memory, the same gradients, up to a third more time."""
    compile: bool = False
    """Compile encoder and decoder with torch.compile: faster on a GPU, after minutes of compiling."""
    workers: Natural = 0  #: Processes that load pictures.
    fast_decode: bool = False
    """Decode and resize training pictures with torchvision instead of Pillow: about twice as fast from photographs'
    files, and single pixels differ by a step or so. Captioning, evaluation and stored features stay exact."""
    max_unreadable: Fraction = 0.001
    """Share of the pictures that may turn out unreadable; another of their batch stands in for them."""

    # -- validation
    val_limit: Count = 500  #: Validation pictures looked at after every epoch.
    caption_every: Natural = 0
    """Epochs between two validations by captions: CIDEr-D, which also says which checkpoint is best. 0: never, and the
    best is the one of the lowest validation loss."""
    caption_limit: Count | None = 500
    """Validation pictures captioned for it (CIDEr-D depends on their number). None means all."""
    caption_beams: Count = 1  #: Beams of these captions; 1 is greedy.
    patience: Natural = 0  #: Stop after so many validations without a better one; 0: train all epochs.

    # -- what is written on the way
    log_every: Count = 20  #: Steps between two lines of metrics.jsonl.
    save_every: Count = 1  #: Epochs between two checkpoints.
    save_steps: Count | None = None  #: Steps between two more of them, for epochs that are too long to lose.
    keep_last: Natural = 0
    """Also keep the weights after each of the last so many epochs, in last/epoch_NNN, to average them."""
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"
    """Experiment tracker that also receives every line of metrics.jsonl; on the command line TensorBoard."""
    progress: bool = True

    def __post_init__(self):
        check_ranges(self)
        check_scorer(self.scorer)
        # -- what is learned
        if self.has_teacher and self.cache_features and (self.schedule is not None or self.cache_pruned):
            raise InputError(f"start {self.start!r} is the teacher, who sees every token, and the stored features "
                             "would be of pruned pictures; leave cache_features out")
        if self.self_critical and self.start is None:
            raise InputError("objective 'self_critical' has no start: a captioner that knows no word draws nothing "
                             "that scores; train with 'cross_entropy' first and name its checkpoint as start")
        if self.self_critical and self.baseline == "others" and self.samples < 2:
            raise InputError(f"samples is {self.samples}; baseline 'others' needs at least 2, 'greedy' 1")
        # -- encoder
        if self.start is not None and self.encoder_weights not in (None, "package"):
            raise InputError(f"start {self.start!r} brings the encoder's weights; leave encoder_weights "
                             f"{self.encoder_weights!r} out")
        if self.cache_features and not self.freeze_encoder:
            raise InputError("cache_features needs freeze_encoder: stored features cannot follow a changing encoder")
        if self.cache_pruned:
            check_storable(self.scorer)
            if not self.cache_features:
                raise InputError("cache_pruned says what is stored, and cache_features that something is; give both")
        if self.schedule is not None and self.schedule.learned and self.freeze_encoder:
            raise InputError("a predictor learns by gradients that pass through the encoder; leave freeze_encoder out, "
                             "or choose another scorer in the schedule")
        # -- pruning
        if self.scorer == "relevance":
            raise InputError("scorer 'relevance' cannot train: it would write a whole caption before every step; train "
                             "with 'pilot', and choose 'relevance' when the trained model captions")
        # -- words
        if self.tokenizer == "bpe" and self.vocabulary_size is None:
            raise InputError("tokenizer 'bpe' needs a vocabulary_size: pieces are joined until there are so many; "
                             "2000 is a beginning for a few thousand photographs")

    @classmethod
    def seed_preset(cls, **changes) -> TrainConfig:
        """The presentation's table, to the letter; its other settings were not given."""
        return cls(**dict(
            dataset="coco", encoder="vit_base_patch16_224", image_size=224, batch_size=128, epochs=100, d_model=512,
            layers=2, heads=4, ffn=2048, dropout=0.1, lr=1e-3, prune_ratio=0.3, vocabulary_size=2033,
            captions_per_image=1, weight_decay=0.0, warmup=0.0, tie_weights=False) | changes)

    @classmethod
    def recommended(cls, encoder: str = FAMILIES["vit"].encoder, **changes) -> TrainConfig:
        """What a practitioner should begin with on COCO: a pretrained encoder, all of it trained, 30% pruned.

        Every number has the paper or the measurement that it is from beside it, in the source.

        Args:
            encoder: any name of timm's that has weights; ``FAMILIES`` has one of each family. For 'vit' and
                'convnext', the small Scenes encoders, the recipe is the same, from random weights.
            changes: other fields. With ``start``, weights come from there.
        """
        ours = encoder in ("vit", "convnext")  # the small Scenes encoders, for which timm has no weights
        return cls(**dict(
            encoder=encoder, encoder_weights=None if ours or changes.get("start") else "timm",
            dataset="scenes" if ours else "coco",
            view="whole",            # a caption tells of the edges too; the published code of Li et al. 2022 (BLIP)
                                     # squeezes pictures alike where it evaluates
            # the decoder of Cornia et al. 2020 (M2): width 512, 8 heads, 3 layers, dropout 0.1; and the vocabulary of
            # its published code, words seen 5 times or more, as in Karpathy & Fei-Fei 2015
            d_model=512, heads=8, layers=3, ffn=2048, dropout=0.1, min_count=5,
            captions_per_image=5,    # all that COCO has: one encoded picture teaches five captions
            batch_size=64,           # photos-lite0 trained so: 64 photographs with 5 captions each
            epochs=30, patience=5,   # M2's published code ends after 5 epochs below the best CIDEr; 30 is ours
            lr=1e-3,                 # measured on Flickr8k: between the 2e-3 and 5e-4 that were best and worst of three
            encoder_lr=None if ours else 1e-5,  # Wang et al. 2022 (GIT): 1e-5 for a pretrained encoder, else more
            warmup=0.05,             # Vaswani et al. 2017, section 5: 4,000 of 100,000 steps
            weight_decay=0.05,       # Liu et al. 2021 (Swin) and Liu et al. 2022 (ConvNeXt), on ImageNet
            label_smoothing=0.1,     # Vaswani et al. 2017, section 5.4
            ema=0.9999,              # Liu et al. 2022 (ConvNeXt), on ImageNet
            keep_last=5,             # Vaswani et al. 2017, section 6.1, average the last 5 checkpoints
            prune_ratio=0.3,         # the presentation's. Flickr8k, equal steps: CIDEr-D .396 pruned, .400 not
            caption_every=1, caption_limit=None, caption_beams=5,  # the whole split by beams of 5, as papers score it
            precision="auto",        # bf16, measured: 2.5 to 6 times as fast on CPUs with AMX; GPUs since A100 have it
            tracker="tensorboard",
            fast_decode=True,        # measured (data/results/loader.json): 1.6 times the photographs a second, and
                                     # values that differ by 0.01 of 255 in the mean
            workers=min(8, os.cpu_count() or 1)) | changes)

    @property
    def self_critical(self) -> bool:
        """Is it the second stage, in which captions are drawn?"""
        return self.objective == "self_critical"

    @property
    def scored_every(self) -> int:
        """Epochs between two validations by captions. A self-critical run has one after each: its loss says little."""
        return self.caption_every or int(self.self_critical)

    @property
    def has_teacher(self) -> bool:
        """Does the captioner of ``start`` teach this run?"""
        return self.start is not None and not self.self_critical

    @property
    def folder(self) -> Path:
        return Path(self.out)

    def captioner_config(self, image_size: int) -> CaptionerConfig:
        """The captioner's part of these settings."""
        same = {name: value for name, value in vars(self).items() if name in CaptionerConfig.__dataclass_fields__}
        # an encoder that is trained is no longer the package's, and belongs in the checkpoint
        package = self.encoder if self.encoder_weights == "package" and self.freeze_encoder else None
        return CaptionerConfig(**same | dict(image_size=image_size, max_length=self.max_words + 2,
                                             frozen_encoder=self.freeze_encoder, encoder_package=package))
