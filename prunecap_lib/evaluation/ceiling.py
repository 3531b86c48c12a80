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
        ways[v, "struck"] = {caption: " ".join(word for word in row if word in vocabulary.ids)
                             for caption, row in words.items()}
        ways[v, "replaced"] = {caption: " ".join(word if word in vocabulary.ids else SPECIALS[UNK] for word in row)
                               for caption, row in words.items()}
    texts = list({text for way in ways.values() for text in way.values()})
    tokenized = dict(zip(texts, java.ptb_tokenize(texts), strict=True))
    said = {way: {id: [tokenized[new[caption]] for caption in row] for id, row in rows.items()}
            for way, new in ways.items()}
    cider = _cider(said)
    scores = {way: _other_scores(said["intact"], captions, [name for name in metrics if name != "CIDEr"])
              | {"CIDEr": float(cider[way].mean())} for way, captions in said.items()}

    def ceiling(v: int, vocabulary: Vocabulary) -> Ceiling:
        each = {"intact": cider["intact"], **{name: cider[v, name] for name in ("struck", "replaced")}}
        each |= {f"{name}_lost": each["intact"] - each[name] for name in ("struck", "replaced")}
        unknown = [sum(word not in vocabulary.ids for word in words[caption])
                   for row in rows.values() for caption in row]
        return Ceiling(
            entries=len(vocabulary), pictures=len(rows), captions=len(unknown), captions_touched=_share(unknown),
            unknown_words=sum(unknown) / sum(len(words[caption]) for row in rows.values() for caption in row),
            intact=scores["intact"], struck=scores[v, "struck"], replaced=scores[v, "replaced"],
            CIDEr_intervals={name: bootstrap_interval(values, seed=seed) for name, values in each.items()})

    return [ceiling(v, vocabulary) for v, vocabulary in enumerate(vocabularies)]


def _share(values: Sequence[int]) -> float:
    return sum(map(bool, values)) / len(values)


def _rounds(said: Mapping) -> range:
    return range(min(map(len, said.values())))


def _cider(said: dict) -> dict:
    """Each picture's CIDEr-D, mean over the rounds, for every way of saying it; references are read once a round."""
    split = {way: [[caption.split() for caption in row] for row in rows.values()] for way, rows in said.items()}
    truth, total = split["intact"], 0
    for k in _rounds(said["intact"]):
        score = CiderD([row[:k] + row[k + 1 :] for row in truth])
        total = total + score(range(len(truth)), list(zip(*([row[k] for row in rows] for rows in split.values()),
                                                          strict=True)))
    return dict(zip(split, total.T / len(_rounds(said["intact"])), strict=True))


def _other_scores(truth: dict, said: dict, metrics: Sequence[str]) -> dict[str, float]:
    rounds = [tokenized_scores({id: row[:k] + row[k + 1 :] for id, row in truth.items()},
                               {id: [row[k]] for id, row in said.items()}, metrics) for k in _rounds(said)]
    return {name: sum(scores[name] for scores in rounds) / len(rounds) for name in rounds[0]}
