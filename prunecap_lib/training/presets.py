"""What should a run on photographs begin from? A pretrained encoder of each family, and settings others found good."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One kind of encoder in the recommended recipe."""

    encoder: str
    """timm's name, its weights included. All five were trained on all of ImageNet and refined on its usual 1,000
    classes, see 224 pixels and have 53 to 88 million parameters: what differs most is the architecture."""
    schedule: str
    """Pruning inside it, as ``--schedule`` reads it; the recipe leaves it off. 0.7 after each quarter of the blocks
    are the rate and the places of Rao et al. 2021 (DynamicViT). What becomes of the rest is by measurement: after
    fine-tuning under a schedule (data/results/scenes_finetuned.json), merging lost least in the ViT, and in the
    ConvNeXt cells spread evenly came next to a predictor, which cannot train while tokens also go before the decoder.
    """


FAMILIES = {
    "vit": Family("vit_base_patch16_224.augreg2_in21k_ft_in1k", "0.7@3,6,9/merge"),         # Steiner et al. 2022
    "convnext": Family("convnext_base.fb_in22k_ft_in1k", "0.7@9,18,27/grid"),               # Liu et al. 2022
    "convnextv2": Family("convnextv2_base.fcmae_ft_in22k_in1k", "0.7@9,18,27/grid"),        # Woo et al. 2023
    "swin": Family("swin_base_patch4_window7_224.ms_in22k_ft_in1k", "0.7@6,12,18/grid"),    # Liu et al. 2021
    "metaformer": Family("caformer_m36.sail_in22k_ft_in1k", "0.7@9,18,27/grid"),            # Yu et al. 2024
}

SEED = dict(dataset="coco", encoder="vit_base_patch16_224", image_size=224, batch_size=128, epochs=100,
            vocabulary_size=2033, d_model=512, layers=2, heads=4, ffn=2048, dropout=0.1, lr=1e-3,
            prune_ratio=0.3, captions_per_image=1, weight_decay=0.0, warmup=0.0, tie_weights=False)
"""The presentation's table, to the letter; its other settings were not given."""


def recommended(encoder: str) -> dict:
    """Settings of ``TrainConfig.recommended``: each with the paper or the measurement it is from."""
    ours = encoder in ("vit", "convnext")  # the small Scenes encoders, for which timm has no weights
    return dict(
        encoder=encoder, encoder_weights=None if ours else "timm", dataset="scenes" if ours else "coco",
        view="whole",            # a caption tells of the edges too; the published code of Li et al. 2022 (BLIP)
                                 # squeezes pictures alike where it evaluates
        # the decoder of Cornia et al. 2020 (M2): width 512, 8 heads, 3 layers, dropout 0.1; and the vocabulary of its
        # published code, words seen 5 times or more, as in Karpathy & Fei-Fei 2015
        d_model=512, heads=8, layers=3, ffn=2048, dropout=0.1, min_count=5,
        captions_per_image=5,    # all that COCO has: one encoded picture teaches five captions
        batch_size=64,           # photos-lite0 trained so: 64 photographs with 5 captions each
        epochs=30, patience=5,   # M2's published code ends the stage after 5 epochs below the best CIDEr; 30 is ours
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
        fast_decode=True,        # measured (data/results/loader.json): 1.6 times the photographs a second, and values
                                 # that differ by 0.01 of 255 in the mean
        workers=min(8, os.cpu_count() or 1),
    )
