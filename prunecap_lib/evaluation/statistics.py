"""What else is worth counting? Words hit under teacher forcing, how varied captions are, how well a score ranks
tokens, how much of the objects is kept, how sure a mean is.

Shapes: B captions or pictures, T words, V vocabulary, N visual tokens, K kept, (H, W) grid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, UndefinedError
from ..text import PAD, tokenize


def token_accuracy(logits: Tensor, ids: Tensor) -> float:
    """Share of words hit under teacher forcing: the presentation's "ACC".

    Args: logits [B, T, V], and the words that they should foretell, ids [B, T]; padding does not count.
    Raises UndefinedError where all is padding.
    """
    hits, words = words_hit(logits, ids)
    if not words:
        raise UndefinedError("token accuracy is a share of words, and here is none; give captions with words")
    return hits / words


def words_hit(logits: Tensor, ids: Tensor) -> tuple[int, int]:
    """(words hit, words) of what ``token_accuracy`` takes."""
    real = ids != PAD
    return tuple(torch.stack([((logits.argmax(-1) == ids) & real).sum(), real.sum()]).tolist())


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean. Raises UndefinedError where there are no values."""
    values = list(values)
    if not values:
        raise UndefinedError("a mean of no values is asked for; give at least one")
    return sum(values) / len(values)


def diversity(candidates: Mapping[int | str, str] | Iterable[str]) -> dict[str, float]:
    """How varied are captions? The same sentence for every picture can score well, and says nothing.

    Returns: ``distinct``: different captions. ``vocabulary``: different words. ``mean_length``: words a caption.
    ``distinct_1``, ``distinct_2``: different words, and pairs of neighbours, as a share of all (Li et al. 2016); left
    out where there is none to share. Compare the shares only at equal numbers of captions.
    """
    texts = list(candidates.values() if isinstance(candidates, Mapping) else candidates)
    if not texts:
        raise InputError("there is no caption to count; give at least one")
    captions = [tokenize(text) for text in texts]
    words = Counter(word for caption in captions for word in caption)
    pairs = Counter(pair for caption in captions for pair in zip(caption, caption[1:], strict=False))
    return {"distinct": len({tuple(caption) for caption in captions}), "vocabulary": len(words),
            "mean_length": words.total() / len(captions),
            **{f"distinct_{n}": len(runs) / runs.total() for n, runs in enumerate((words, pairs), 1) if runs}}


def ranking_auc(scores: Tensor, holds: Tensor) -> float:
    """How often does a score rank a token that holds something above one that does not? 0.5 is chance, 1 is always.

    The area under the ROC curve, counted over all pairs; a tie counts half (Hanley and McNeil 1982).

    Args: scores [N], and holds [N], True where the token holds what is sought. Raises: UndefinedError where no token
    holds it, or all do: then there is no pair.
    """
    scores, holds = scores.flatten().double(), holds.flatten().bool()
    if not 0 < holds.sum() < len(holds):
        raise UndefinedError(f"{int(holds.sum())} of {len(holds)} tokens hold something, so none can be ranked above "
                             "another; leave this picture out")
    difference = scores[holds][:, None] - scores[~holds]
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean().item()


def object_recall(kept: Tensor, cover: Tensor) -> Tensor:
    """How much of the objects is kept? Share (0..1) of their area that lies in kept cells, [B].

    A choice that knows nothing of the picture reaches K / N on average.

    Args: kept [B, K], row-major cells; cover [B, H*W], the share of each cell that objects cover (for a scene:
    ``Scene.token_mask``, flattened). Raises: UndefinedError for a picture without objects, whose share is not defined.
    """
    area = cover.sum(dim=1)
    if missing := int((~(area > 0)).sum()):
        raise UndefinedError(f"{missing} of {len(area)} pictures show no object, so no share of it can be kept; leave "
                             "them out")
    return cover.gather(1, kept).sum(dim=1) / area


def bootstrap_interval(values: Mapping[int | str, float] | Iterable[float], seed: int = 0,
                       n: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Where the mean of per-image values lies, had other pictures of the same kind been drawn: (low, high).

    Percentiles of the means of ``n`` samples drawn with replacement. To compare two models, give the differences of
    their values image by image. Source: Koehn 2004. Raises UndefinedError for fewer than two values: one says nothing
    of how far others lie from it.
    """
    values = np.array(list(values.values() if isinstance(values, Mapping) else values), dtype=float)
    if len(values) < 2:
        raise UndefinedError(f"an interval shows how values differ, and here are {len(values)}; give two or more")
    if not np.isfinite(values).all():
        raise InputError("values to resample must be finite numbers; leave out those that are not defined")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(n)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
