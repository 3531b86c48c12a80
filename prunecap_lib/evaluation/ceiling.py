"""How high can a captioner score that knows only these words? As high as people who may use no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..text import SPECIALS, UNK, Vocabulary, tokenize
from . import java
from .metrics import cider_d, tokenized_scores
from .statistics import bootstrap_interval


@dataclass(frozen=True)
class Ceiling:
    """What a vocabulary misses in human captions, and what it leaves of their score."""

    entries: int
    """Of the vocabulary, specials included."""
    pictures: int
    captions: int
    unknown_words: float
    """Share of all words that the vocabulary lacks (the out-of-vocabulary rate)."""
    captions_touched: float
    """Share of the captions that hold such a word."""
    intact: dict[str, float]
    """Scores of human captions against the others of their picture."""
    struck: dict[str, float]
    """The same with unknown words left out: the ceiling of a captioner that never says ``<unk>``, as those here."""
    replaced: dict[str, float]
    """The same with ``<unk>`` in the place of each unknown word."""
    CIDEr_intervals: dict[str, tuple[float, float]]
    """95% bootstrap intervals over pictures of CIDEr-D: of ``intact``, ``struck`` and ``replaced``, and of what the
    last two lost, picture by picture: ``struck_lost`` and ``replaced_lost``."""


def vocabulary_ceiling(references: Mapping[int | str, Sequence[str]], vocabulary: Vocabulary, *,
                       metrics: Sequence[str] = ("BLEU", "ROUGE_L", "CIDEr"), seed: int = 0) -> Ceiling:
    """Score every human caption against the others of its picture: as it is, without its unknown words, and with
    ``<unk>`` in their places.

    The first caption of every picture is scored against the rest, then the second, as far as every picture has one;
    the mean of these scores is given. A captioner that knew what a person would say, but lacked words, could still
    choose others. So this is where imitating people ends, and no bound in the strict sense.

    Args:
        references: human captions by image id, of pictures that the vocabulary was not built from. Pictures with a
            single caption are left out.
        metrics: see ``score_captions``; CIDEr is always among them.
        seed: of the bootstrap.

    Raises: InputError where no picture has two captions; what ``score_captions`` raises.
    """
    rows = {id: list(row) for id, row in references.items() if len(row) > 1}
    if not rows:
        raise InputError("no picture has two captions, so that none can be scored against the others")
    metrics = [*(name for name in metrics if name != "CIDEr"), "CIDEr"]
    told = [caption for row in rows.values() for caption in row]
    words = [tokenize(caption) for caption in told]
    struck = [" ".join(word for word in row if word in vocabulary.ids) for row in words]
    replaced = [" ".join(word if word in vocabulary.ids else SPECIALS[UNK] for word in row) for row in words]
    flat = iter(java.ptb_tokenize([*told, *struck, *replaced]))  # one call: starting Java costs more than the work
    said = {name: {id: [next(flat) for _ in row] for id, row in rows.items()}
            for name in ("intact", "struck", "replaced")}
    found = {name: _scores(said["intact"], captions, metrics) for name, captions in said.items()}
    each = {name: np.array(values) for name, (_, values) in found.items()}
    each |= {f"{name}_lost": each["intact"] - each[name] for name in ("struck", "replaced")}
    unknown = [sum(word not in vocabulary.ids for word in row) for row in words]
    return Ceiling(
        entries=len(vocabulary), pictures=len(rows), captions=len(told),
        unknown_words=sum(unknown) / sum(map(len, words)), captions_touched=sum(map(bool, unknown)) / len(words),
        **{name: scores for name, (scores, _) in found.items()},
        CIDEr_intervals={name: bootstrap_interval(values, seed=seed) for name, values in each.items()})


def _scores(truth: dict, said: dict, metrics: Sequence[str]) -> tuple[dict[str, float], list[float]]:
    """Mean over the rounds of the scores, and of each picture's CIDEr-D."""
    rounds, per_picture = [], []
    for k in range(min(map(len, said.values()))):
        others = {id: row[:k] + row[k + 1 :] for id, row in truth.items()}
        candidates = {id: [row[k]] for id, row in said.items()}
        score, each = cider_d(others, candidates)
        rounds.append(tokenized_scores(others, candidates, metrics[:-1]) | {"CIDEr": float(score)})
        per_picture.append(each)
    mean = {name: sum(scores[name] for scores in rounds) / len(rounds) for name in rounds[0]}
    return mean, [float(sum(values)) / len(rounds) for values in zip(*per_picture, strict=True)]
