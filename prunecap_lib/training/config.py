"""What fixes a training run? One frozen dataclass; the same config and seed give the same model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..captioner import CaptionerConfig
from ..errors import InputError
from ..pruning import Schedule, check_scorer, check_storable
from ..ranges import Count, Fraction, Natural, NotNegative, Positive, Seed, Share, VocabularySize, check_ranges
from . import presets


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; the defaults train on Scenes on a laptop."""

    dataset: Literal["scenes", "flickr8k", "coco", "shards"] = "scenes"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS. Scenes are drawn and need none; shards (prunecap data
    shards) may lie at an address (http, https)."""
    limit: Count | None = None
    """Number of training pictures (Scenes: how many to draw; default 20,000). None means all."""
    out: str = "runs/first"
    """Folder for the checkpoint and the log. A run found there is resumed."""

    start: str | None = None
    """A checkpoint to start from: a name under data/checkpoints ('scenes-vit') or a folder. Its weights, vocabulary and
    preprocessing are kept, and its sizes must be this run's. It is the teacher, too."""
    objective: Literal["cross_entropy", "self_critical"] = "cross_entropy"
    """What is learned: the next word of given captions; or, as a second stage, to draw captions of a high CIDEr-D
    (Rennie et al. 2017). The second needs ``start``, no teacher, and a lower learning rate: 1e-5 for a
    large encoder; photos-lite0 gained most with 3e-4 (data/results/self_critical.json)."""
    samples: Count = 5
    """Captions that a self-critical run draws of each picture."""
    baseline: Literal["others", "greedy"] = "others"
    """What a drawn caption's CIDEr-D must exceed: the mean of the picture's other samples, or its greedy caption's."""
    reward_eos: bool = True
    """The end of a caption counts as a word in its CIDEr-D. Without, a caption loses nothing by stopping in "with a",
    and models have learned to (Hu et al. 2023)."""

    encoder: str = "vit"
    """'vit' and 'convnext' are the small Scenes encoders; any other name is timm's."""
    encoder_weights: str | None = None
    """Pretrained weights: a file that timm would read (safetensors, .pth), 'timm' to download, or 'package' for those
    of a Python package."""
    image_size: Count | None = None
    """Side of the square picture in pixels; default: the encoder's own."""
    view: Literal["middle", "whole"] = "middle"
    """What the encoder sees of a picture: its middle, cut out as in the encoder's own training, or the whole
    picture, squeezed into the square."""
    freeze_encoder: bool = False
    """Do not train the encoder."""
    cache_features: bool = False
    """Encode every picture once and train from the stored features (frozen encoder only)."""
    cache_pruned: bool = False
    """Store only the tokens that prune_ratio leaves. The scorer must be one that needs no decoder, like 'grid'."""

    prune_ratio: Fraction = 0.3
    """Share of the visual tokens removed before cross-attention, also while training."""
    scorer: str = "pilot"
    """Which tokens stay: see prunecap_lib.pruning.SCORES ('relevance' is for captioning, not for training)."""
    schedule: Schedule | None = None
    """Tokens that go inside the encoder: keep rates @ blocks, like 0.7@3,6,9, and after a slash a scorer or a
    reduction, like 0.7@3,6,9/key_norm/fuse. What prune_ratio removes is a share of those that come out."""
    d_model: Count = 192
    layers: Count = 2
    heads: Count = 4
    ffn: Count = 768
    dropout: Share = 0.1
    positions: Literal["learned", "sinusoidal"] = "learned"
    tie_weights: bool = True

    tokenizer: Literal["words", "bpe"] = "words"
    """'words': an id for each word of the training captions. 'bpe': ids for pieces of words, learned from them by
    byte-pair encoding, so that no word is unknown; it needs a vocabulary_size."""
    min_count: Count = 1
    """Words seen fewer times in the training captions become <unk> (bpe: such pairs are not joined)."""
    vocabulary_size: VocabularySize | None = None
    """Keep at most this many entries, specials included (bpe: and the 256 bytes)."""
    max_words: Count = 20
    """Longer captions are cut; with bpe after so many pieces of words."""
    captions_per_image: Count = 5
    """Captions of one picture in a batch; they share its keys and values."""

    epochs: Count = 24
    batch_size: Count = 64
    """Pictures that a process looks at together (captions: times captions_per_image)."""
    accumulate: Count = 1
    """Batches of each process before the weights move. A step then sees batch_size x processes x accumulate pictures,
    and learns from them as from one batch; only batch norm in a trained encoder still goes by batch_size."""
    lr: Positive = 1e-3
    """Highest learning rate."""
    encoder_lr: Positive | None = None
    """The same of the encoder, which one that is pretrained wants lower; default: that of all."""
    warmup: Share = 0.05
    """Share of all steps in which the learning rate rises; then it falls along a cosine."""
    weight_decay: NotNegative = 0.05
    label_smoothing: Share = 0.0
    ratio_weight: NotNegative = 2.0
    """How much it counts that a predictor keeps as many tokens as the schedule says (Rao et al. 2021, section 3.4; so
    do the next two). Only the schedule's scorer 'predictor' needs it."""
    word_weight: NotNegative = 0.5
    """How much it counts that next words are as likely as the teacher, unpruned, finds them. Only with ``start``."""
    feature_weight: NotNegative = 0.5
    """How much it counts that the tokens which stay hold what the teacher's hold. Only with ``start``."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    fast_decode: bool = False
    """Decode and resize training pictures with torchvision instead of Pillow: about twice as fast from photographs'
    files, and single pixels differ by a step or so. Captioning, evaluation and stored features stay exact."""
    max_unreadable: Fraction = 0.001
    """Share of the pictures that may turn out unreadable; another of their batch stands in for them."""
    ema: Fraction = 0.0
    """Keep, validate and return a moving average of the weights with this decay, like 0.9999; 0: the weights as they
    are. In step t the decay is at most 1 - t^-0.75, so that a short run is averaged over a short time."""
    augment: bool = False
    """Small random crops (never a mirror image: captions say left and right)."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 autocast where processor or GPU has instructions for it and is two to three times faster so, else
    fp32; a run goes on with what it began with. fp16, whose loss is scaled, is for GPUs without bf16."""
    checkpoint_activations: bool = False
    """Compute what is inside the encoder's blocks and the decoder's layers again for the backward pass instead of
    keeping it: less memory, the same gradients, up to a third more time."""
    compile: bool = False
    """Compile encoder and decoder with torch.compile: faster on a GPU, after minutes of compiling."""
    seed: Seed = 0
    workers: Natural = 0
    """Processes that load pictures."""
    val_limit: Count = 500
    """Validation pictures looked at after every epoch."""
    caption_every: Natural = 0
    """Epochs between two validations by captions: CIDEr-D, which also says which checkpoint is best. 0: never, and the
    best is the one of the lowest validation loss."""
    caption_limit: Count | None = 500
    """Validation pictures captioned for it (CIDEr-D depends on their number). None means all."""
    caption_beams: Count = 1
    """Beams of these captions; 1 is greedy."""
    patience: Natural = 0
    """Stop after so many validations without a better one; 0: train all epochs."""
    log_every: Count = 20
    """Steps between two lines of metrics.jsonl."""
    save_every: Count = 1
    """Epochs between two checkpoints."""
    keep_last: Natural = 0
    """Also keep the weights after each of the last so many epochs, in last/epoch_NNN, to average them."""
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"
    """Who else is told what metrics.jsonl is told. The command line tells TensorBoard."""
    save_steps: Count | None = None
    """Steps between two more of them, for epochs that are too long to lose."""
    progress: bool = True

    def __post_init__(self):
        check_ranges(self)
        check_scorer(self.scorer)
        if self.scorer == "relevance":
            raise InputError("scorer 'relevance' cannot train: it would write a whole caption before every step; train "
                             "with 'pilot', and choose 'relevance' when the trained model captions")
        if self.tokenizer == "bpe" and self.vocabulary_size is None:
            raise InputError("tokenizer 'bpe' needs a vocabulary_size: pieces are joined until there are so many; "
                             "2000 is a beginning for a few thousand photographs")
        if self.cache_features and not self.freeze_encoder:
            raise InputError("cache_features needs freeze_encoder: stored features cannot follow a changing encoder")
        if self.cache_pruned:
            check_storable(self.scorer)
            if not self.cache_features:
                raise InputError("cache_pruned says what is stored, and cache_features that something is; give both")
        if self.start is not None and self.encoder_weights not in (None, "package"):
            raise InputError(f"start {self.start!r} brings the encoder's weights; leave encoder_weights "
                             f"{self.encoder_weights!r} out")
        if self.schedule is not None and self.schedule.learned and self.freeze_encoder:
            raise InputError("a predictor learns by gradients that pass through the encoder; leave freeze_encoder out, "
                             "or choose another scorer in the schedule")
        if self.has_teacher and self.cache_features and (self.schedule is not None or self.cache_pruned):
            raise InputError(f"start {self.start!r} is the teacher, who sees every token, and the stored features "
                             "would be of pruned pictures; leave cache_features out")
        if self.self_critical:
            if self.start is None:
                raise InputError("objective 'self_critical' has no start: a captioner that knows no word draws nothing "
                                 "that scores; train with 'cross_entropy' first and name its checkpoint as start")
            if self.samples < (2 if self.baseline == "others" else 1):
                raise InputError(f"samples is {self.samples}; baseline 'others' needs at least 2, 'greedy' 1")

    @classmethod
    def seed_preset(cls, **changes) -> TrainConfig:
        """The presentation's table, to the letter; its other settings were not given."""
        return cls(**{**presets.SEED, **changes})

    @classmethod
    def recommended(cls, encoder: str = presets.FAMILIES["vit"].encoder, **changes) -> TrainConfig:
        """What a practitioner should begin with on COCO: a pretrained encoder, all of it trained, 30% pruned.

        Args:
            encoder: any name of timm's that has weights; ``presets.FAMILIES`` has one of each family. For 'vit' and
                'convnext', the small Scenes encoders, the recipe is the same, from random weights.
            changes: other fields. With ``start``, weights come from there.

        Every number has its source beside it, in ``presets.recommended``.
        """
        settings = presets.recommended(encoder)
        if changes.get("start"):
            settings["encoder_weights"] = None
        return cls(**{**settings, **changes})

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
        """Is there a teacher?"""
        return self.start is not None and not self.self_critical

    @property
    def folder(self) -> Path:
        return Path(self.out)

    def captioner_config(self, image_size: int) -> CaptionerConfig:
        """The captioner's part of these settings."""
        # an encoder that is trained is no longer the package's, and belongs in the checkpoint
        package = self.encoder if self.encoder_weights == "package" and self.freeze_encoder else None
        return CaptionerConfig(encoder=self.encoder, image_size=image_size, prune_ratio=self.prune_ratio,
                               scorer=self.scorer, d_model=self.d_model, layers=self.layers, heads=self.heads,
                               ffn=self.ffn, dropout=self.dropout, max_length=self.max_words + 2,
                               positions=self.positions, tie_weights=self.tie_weights,
                               frozen_encoder=self.freeze_encoder, encoder_package=package, schedule=self.schedule)
