"""How far does one come without a decoder? Captions that a model must beat before its score means anything.

One caption for every picture; and the caption that the nearest training pictures agree on most (Devlin et al.
2015, "Exploring Nearest Neighbor Approaches for Image Captioning").

Shapes: n training pictures, m others, C channels of their features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..text import tokenize
from .cider import ORDERS, check_document_frequencies, length_penalty, ngrams


class CaptionVectors:
    """Captions as CIDEr sees them: tf-idf vectors of n-grams, so that a dot product is a similarity.

    Document frequencies count pictures, as in CIDEr. Unlike CIDEr-D, a repeated n-gram is not clipped.

    Args: captions: captions[i] are those of picture i. Raises UndefinedError for a single picture.
    """

    def __init__(self, captions: Sequence[Sequence[str]]):
        check_document_frequencies(captions)
        grams = [[ngrams(tokenize(caption)) for caption in picture] for picture in captions]
        frequency = Counter(gram for picture in grams for gram in set().union(*picture))
        self.number = {gram: i for i, gram in enumerate(frequency)}
        counts = np.array(list(frequency.values()), dtype=np.float64)
        self.idf = np.log(len(captions)) - np.log(counts)
        self.captions = [caption for picture in captions for caption in picture]
        self.owner = np.array([i for i, picture in enumerate(captions) for _ in picture])
        self.lengths = np.array([len(tokenize(caption)) for caption in self.captions])
        self._rows = [self._vector(gram) for picture in grams for gram in picture]

    def __len__(self) -> int:
        return len(self.captions)

    def _vector(self, grams: Counter) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the n-grams, and their weights: of unit length for each n, so four cosines add up."""
        columns = np.array([self.number[gram] for gram in grams], dtype=np.int64)
        orders = np.array([len(gram) for gram in grams], dtype=np.int64)
        weights = np.array(list(grams.values()), dtype=np.float64) * self.idf[columns]
        norms = np.sqrt(np.bincount(orders, weights**2, minlength=ORDERS + 1))
        return columns, weights / np.maximum(norms[orders], 1e-12)

    def similarities(self, chosen: np.ndarray) -> np.ndarray:
        """How like are the chosen captions, pair by pair? [k, k] in [0, 1]: mean cosine, length-penalized."""
        rows = [self._rows[i] for i in chosen]
        columns, place = np.unique(np.concatenate([row[0] for row in rows]), return_inverse=True)
        dense = np.zeros((len(rows), len(columns)))
        dense[np.repeat(np.arange(len(rows)), [len(row[0]) for row in rows]), place] = np.concatenate(
            [row[1] for row in rows])
        return dense @ dense.T / ORDERS * _penalty(self.lengths[chosen])

    def central(self, chosen: np.ndarray) -> int:
        """Which of the chosen captions is most like all the others."""
        similar = self.similarities(chosen)
        np.fill_diagonal(similar, 0.0)
        return int(chosen[similar.sum(1).argmax()])

    def most_central(self) -> int:
        """Which caption of all is most like all: as ``central``, in time linear in the captions."""
        # Dot products with a sum are sums of dot products. One sum for each length keeps the length penalty.
        sums = np.zeros((self.lengths.max() + 1, len(self.number)), dtype=np.float32)
        for length, (columns, weights) in zip(self.lengths, self._rows, strict=True):
            sums[length, columns] += weights
        sums = _penalty(np.arange(len(sums))).astype(np.float32) @ sums
        scores = [sums[length, columns] @ weights
                  for length, (columns, weights) in zip(self.lengths, self._rows, strict=True)]
        return int(np.argmax(scores))


def constant_caption(captions: Sequence[Sequence[str]], *, most: int = 6_000, seed: int = 0) -> str:
    """The one caption to say of every picture: the training caption that is most like all others.

    Args: captions[i] are those of picture i; of more than ``most`` pictures, so many are drawn.
    """
    if not any(captions):
        raise InputError("there is no training caption to choose from; give at least one")
    drawn = np.random.default_rng(seed).permutation(len(captions))[:most]
    vectors = CaptionVectors([captions[i] for i in sorted(drawn)])
    return vectors.captions[vectors.most_central()]


def consensus_captions(features: Tensor, captions: Sequence[Sequence[str]], queries: Tensor, *,
                       neighbours: int = 20) -> list[str]:
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
    vectors = CaptionVectors(captions)
    starts = np.searchsorted(vectors.owner, np.arange(len(captions) + 1))
    nearest = nearest_pictures(features, queries, min(neighbours, len(features)))
    pools = [np.concatenate([np.arange(starts[i], starts[i + 1]) for i in row]) for row in nearest.tolist()]
    return [vectors.captions[vectors.central(pool)] for pool in pools]


def nearest_pictures(features: Tensor, queries: Tensor, k: int) -> Tensor:
    """Positions of the k training pictures most like each query, nearest first: [m, k].

    By cosine after taking off the training mean, which most directions of a network's features share.
    """
    centre = features.mean(0)
    unit, asked = (torch.nn.functional.normalize(vectors - centre, dim=1) for vectors in (features, queries))
    return (asked @ unit.T).topk(k).indices


def _penalty(lengths: np.ndarray) -> np.ndarray:
    """CIDEr-D's factor for captions of unequal length, pair by pair: [k] -> [k, k]."""
    return length_penalty(lengths[:, None] - lengths[None])
