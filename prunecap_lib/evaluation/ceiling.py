"""How high can a captioner score that knows only these words? As high as people who may use no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..text import SPECIALS, UNK, Vocabulary, tokenize
from . import java
from .cider import CiderD
from .metrics import tokenized_scores
from .statistics import bootstrap_interval


@dataclass(frozen=True)
class Ceiling:
    """What a vocabulary of so many entries, specials included, misses in human captions, and leaves of their score.

    ``unknown_words`` is the share of all words that it lacks (the out-of-vocabulary rate), ``captions_touched`` that of
    the captions that hold such a word. Scores of human captions against the others of their picture: ``intact``;
    ``struck``, with unknown words left out, the ceiling of a captioner that never says ``<unk>``, as those here;
    ``replaced``, with ``<unk>`` in the place of each. ``CIDEr_intervals`` are 95% bootstrap intervals over pictures of
    their CIDEr-D, and of what the last two lost, picture by picture: ``struck_lost`` and ``replaced_lost``.
    """

    entries: int
    pictures: int
    captions: int
    unknown_words: float
    captions_touched: float
    intact: dict[str, float]
    struck: dict[str, float]
    replaced: dict[str, float]
    CIDEr_intervals: dict[str, tuple[float, float]]


def vocabulary_ceilings(references: Mapping[int | str, Sequence[str]], vocabularies: Sequence[Vocabulary], *,
                        metrics: Sequence[str] = ("CIDEr",), seed: int = 0) -> list[Ceiling]:
    """Score every human caption against the others of its picture: as it is, without the words that a vocabulary
    lacks, and with ``<unk>`` in their places.

    The first caption of every picture is scored against the rest, then the second, as far as every picture has one;
    the mean of these scores is given. A captioner that knew what a person would say, but lacked words, could still
    choose others. So this is where imitating people ends, and no bound in the strict sense.

    Args:
        references: human captions by image id, of pictures that the vocabularies were not built from. Pictures with a
            single caption are left out.
        metrics: see ``score_captions``; CIDEr (CIDEr-D) is always among them, and the quickest here.
        seed: of the bootstrap.

    Returns one ``Ceiling`` a vocabulary. Raises: InputError where no picture has two captions; what
    ``score_captions`` raises.
    """
    rows = {id: list(row) for id, row in references.items() if len(row) > 1}
    if not rows:
        raise InputError("no picture has two captions, so that none can be scored against the others")
    words = {caption: tokenize(caption) for row in rows.values() for caption in row}
    ways = {"intact": {caption: caption for caption in words}}
    for v, vocabulary in enumerate(vocabularies):
        for name, instead in (("struck", ""), ("replaced", SPECIALS[UNK])):
            ways[name, v] = {caption: " ".join(word if word in vocabulary.ids else instead for word in row)
                             for caption, row in words.items()}
    texts = list({text for way in ways.values() for text in way.values()})
    tokenized = dict(zip(texts, java.ptb_tokenize(texts), strict=True))
    said = {way: {id: [tokenized[new[caption]] for caption in row] for id, row in rows.items()}
            for way, new in ways.items()}
    cider, others = _cider(said), [name for name in metrics if name != "CIDEr"]
    scores = {way: _scores(said["intact"], captions, others) | {"CIDEr": float(cider[way].mean())}
              for way, captions in said.items()}
    found = []
    for v, vocabulary in enumerate(vocabularies):
        each = {"intact": cider["intact"], "struck": cider["struck", v], "replaced": cider["replaced", v]}
        each |= {f"{name}_lost": each["intact"] - each[name] for name in ("struck", "replaced")}
        unknown = [sum(word not in vocabulary.ids for word in words[caption])
                   for row in rows.values() for caption in row]
        found.append(Ceiling(
            entries=len(vocabulary), pictures=len(rows), captions=len(unknown),
            unknown_words=sum(unknown) / sum(len(words[caption]) for row in rows.values() for caption in row),
            captions_touched=sum(map(bool, unknown)) / len(unknown),
            intact=scores["intact"], struck=scores["struck", v], replaced=scores["replaced", v],
            CIDEr_intervals={name: bootstrap_interval(values, seed=seed) for name, values in each.items()}))
    return found


def _rounds(said: Mapping) -> range:
    """Number of the caption that is scored against the rest, as far as every picture has one."""
    return range(min(map(len, said.values())))


def _cider(said: dict) -> dict:
    """Each picture's CIDEr-D, mean over the rounds, for every way of saying it; references are read once a round."""
    split = {way: [[caption.split() for caption in row] for row in rows.values()] for way, rows in said.items()}
    truth, total = split["intact"], 0
    for k in _rounds(said["intact"]):
        score = CiderD([row[:k] + row[k + 1 :] for row in truth])
        total = total + score(range(len(truth)), [[rows[i][k] for rows in split.values()] for i in range(len(truth))])
    return dict(zip(split, total.T / len(_rounds(said["intact"])), strict=True))


def _scores(truth: dict, said: dict, metrics: Sequence[str]) -> dict[str, float]:
    """The other metrics, mean over the rounds."""
    rounds = [tokenized_scores({id: row[:k] + row[k + 1 :] for id, row in truth.items()},
                               {id: [row[k]] for id, row in said.items()}, metrics) for k in _rounds(said)]
    return {name: sum(scores[name] for scores in rounds) / len(rounds) for name in rounds[0]}
