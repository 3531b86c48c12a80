"""What do captions without a decoder score on Flickr8k's dev split, and what do people score?

    PRUNECAP_PHOTOS=... PRUNECAP_WEIGHTS=... python experiments/flickr8k_baselines.py
    writes data/results/flickr8k_baselines.json; features are computed once and kept under data/features.

One caption for every picture; and the caption that the nearest training pictures agree on most (Devlin et al. 2015,
"Exploring Nearest Neighbor Approaches for Image Captioning").
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prunecap_lib.datasets import open_dataset
from prunecap_lib.encoders import build_encoder
from prunecap_lib.encoders.weights import load_state_dict_file, packaged_state_dict
from prunecap_lib.errors import InputError
from prunecap_lib.evaluation import bootstrap_interval, constant_caption, diversity, per_image_cider, score_captions
from prunecap_lib.evaluation.cider import ORDERS, length_penalty, tf_idf
from prunecap_lib.features import FeatureCache
from prunecap_lib.files import data_folder
from prunecap_lib.provenance import provenance, report_path, run_signature, write_json

# encoder: its weights (None: those of a Python package), and whether it sees the whole picture, as its captioner does
ENCODERS = {"tf_efficientnet_lite0@last_stage": (None, True),
            "vit_small_patch14_dinov2": ("vit_small_patch14_224_fp16.safetensors", False)}
NEIGHBOURS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="*", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--out", type=report_path, default=data_folder() / "results" / "flickr8k_baselines.json")
    args = parser.parse_args()
    train, dev = (open_dataset("flickr8k", split=split) for split in ("train", "dev"))

    others = {id: captions[1:] for id, captions in zip(dev.image_ids, dev.captions, strict=True)}
    human = {id: captions[0] for id, captions in zip(dev.image_ids, dev.captions, strict=True)}
    rows = [row("human caption 0 against the other four", others, human)]
    for caption in (constant_caption(train.captions), "a man in a black shirt"):
        rows.append(row(f"constant caption: {caption}", dev.references(), dict.fromkeys(dev.image_ids, caption)))
    for name in args.encoders:
        encoder = encoder_called(name)
        known, asked = (FeatureCache.open_or_build(data, encoder).pooled() for data in (train, dev))
        told = consensus_captions(known, train.captions, asked)
        rows.append(row(f"consensus of {NEIGHBOURS} nearest neighbours, {name}", dev.references(),
                        dict(zip(dev.image_ids, told, strict=True))))
    write_json(args.out, {"dataset": "flickr8k", "split": "dev", "pictures": len(dev), "baselines": rows,
                          "signature": run_signature(images=len(dev)), "provenance": provenance()})


def row(name: str, references: dict, candidates: dict) -> dict:
    """One baseline's scores, the interval of its CIDEr-D, and how varied it is."""
    interval = bootstrap_interval(per_image_cider(references, candidates))
    scores = {"name": name,
              "scores": {key: round(value, 4) for key, value in score_captions(references, candidates).items()},
              "CIDEr_interval": [round(value, 4) for value in interval],
              "diversity": {key: round(value, 4) for key, value in diversity(candidates).items()}}
    print(f"{name}: CIDEr-D {scores['scores']['CIDEr']} {scores['CIDEr_interval']}")
    return scores


def encoder_called(name: str) -> torch.nn.Module:
    """A frozen encoder with the weights that this project has for it."""
    weights, whole = ENCODERS[name]
    state_dict = load_state_dict_file(weights) if weights else packaged_state_dict(name)
    encoder = build_encoder(name, image_size=224, state_dict=state_dict)
    if whole:
        encoder.preprocessing = encoder.preprocessing.whole()
    return encoder


def consensus_captions(features: Tensor, captions: Sequence[Sequence[str]], queries: Tensor, *,
                       neighbours: int = NEIGHBOURS) -> list[str]:
    """For each query picture, the caption that its nearest training pictures agree on most.

    Args:
        features: one vector a training picture, [n, C], say ``FeatureCache.pooled()``.
        captions: captions[i] are those of training picture i.
        queries: the pictures to caption, [m, C].
        neighbours: nearest pictures, by cosine, whose captions are pooled.

    Raises: InputError where there are not as many feature vectors as captioned pictures.
    """
    if len(features) != len(captions) or features.shape[1] != queries.shape[1]:
        raise InputError(f"features {list(features.shape)} and queries {list(queries.shape)} do not fit "
                         f"{len(captions)} captioned pictures; take all from one encoder and data set")
    lengths, rows = tf_idf(captions)
    texts = [caption for picture in captions for caption in picture]
    starts = np.cumsum([0, *map(len, captions)])
    found = []
    for nearest in nearest_pictures(features, queries, min(neighbours, len(features))).tolist():
        pool = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in nearest])
        similar = similarities(lengths[pool], [rows[i] for i in pool])
        np.fill_diagonal(similar, 0.0)
        found.append(texts[pool[similar.sum(1).argmax()]])
    return found


def similarities(lengths: np.ndarray, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """How like are captions of ``tf_idf``, pair by pair? [k, k] in [0, 1]: mean cosine, length-penalized."""
    columns, place = np.unique(np.concatenate([row[0] for row in rows]), return_inverse=True)
    dense = np.zeros((len(rows), len(columns)))
    dense[np.repeat(np.arange(len(rows)), [len(row[0]) for row in rows]), place] = np.concatenate(
        [row[1] for row in rows])
    return dense @ dense.T / ORDERS * length_penalty(lengths[:, None] - lengths)


def nearest_pictures(features: Tensor, queries: Tensor, k: int) -> Tensor:
    """Positions of the k training pictures most like each query, nearest first: [m, k].

    By cosine after taking off the training mean, which most directions of a network's features share.
    """
    centre = features.mean(0)
    unit, asked = (torch.nn.functional.normalize(vectors - centre, dim=1) for vectors in (features, queries))
    return (asked @ unit.T).topk(k).indices


if __name__ == "__main__":
    main()
