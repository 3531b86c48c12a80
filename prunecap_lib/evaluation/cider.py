"""What is a caption worth, at once? CIDEr-D of word sequences, quick enough to be asked at every training step.

``metrics`` gives the published figure: Penn Treebank words through Java, word weights from the very pictures that are
scored. Here words are whatever the caller counts (training: those of ``text.tokenize``), and the weights come from
references given once. On the same words and the same pictures both give the same number. By the same measure one
caption is the most like all others: what a captioner must beat before its score means anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from ..errors import InputError, UndefinedError
from ..text import tokenize

ORDERS = 4  # n-grams of one to four words, as in CIDEr
LENGTH_SIGMA = 6.0  # words by which two captions' lengths may differ before CIDEr-D's penalty for it bites

Words = Sequence[Hashable]


def ngrams(words: Words) -> Counter:
    """How often does each run of one to four words occur?"""
    words = tuple(words)
    return Counter(words[i : i + n] for n in range(1, ORDERS + 1) for i in range(len(words) - n + 1))


def length_penalty(difference):
    """CIDEr-D's factor for captions whose lengths differ by so many words: a number or an array."""
    return np.exp(-(difference**2) / (2 * LENGTH_SIGMA**2))


def check_document_frequencies(references: Sequence[Sequence[Words]]) -> None:
    """Raise UndefinedError where all pictures have the same references: one picture, for one."""
    first = sorted(map(tuple, references[0])) if references else None
    if all(sorted(map(tuple, picture)) == first for picture in references[1:]):
        here = f"{len(references)} picture" if len(references) < 2 else "one set of references for all pictures"
        raise UndefinedError(f"CIDEr-D weighs words by how few pictures have them, and here is {here}; give the "
                             "references of more pictures, or leave CIDEr out")


class CiderD:
    """CIDEr-D (Vedantam et al. 2015, equation 4) against the references of known pictures.

    Args:
        references: references[i] are those of picture i, each a sequence of words, or of ids.

    Raises InputError for a picture without a reference, or with one that has no word; UndefinedError for a single
    picture, by which no word can be known to be rarer than another.
    """

    def __init__(self, references: Sequence[Sequence[Words]]):
        check_document_frequencies(references)
        for i, picture in enumerate(references):
            if not picture or not all(len(words) for words in picture):
                raise InputError(f"references of picture {i}: {list(picture)}; every picture needs at least one "
                                 "caption, and every caption a word: write one or take it out")
        self.references = references
        frequency = Counter(gram for picture in references for gram in set().union(*map(ngrams, picture)))
        self.rarest = float(np.log(len(references)))
        # What a single picture says weighs as much as what none does, so of the many only the repeated are kept.
        self.weight = {gram: self.rarest - float(np.log(count)) for gram, count in frequency.items() if count > 1}

    def __call__(self, pictures: Sequence[int], captions: Sequence[Sequence[Words]]) -> np.ndarray:
        """CIDEr-D of R captions each of B pictures, named by position: [B, R], 0 to 10."""
        return np.array([self._against(self.references[i], said) for i, said in zip(pictures, captions, strict=True)])

    def _against(self, references: Sequence[Words], captions: Sequence[Words]) -> list[float]:
        truth = [self._vector(words) for words in references]
        return [10 * sum(_similarity(said, one) for one in truth) / len(truth) for said in map(self._vector, captions)]

    def _vector(self, words: Words) -> tuple[dict, list[float], int]:
        """The weights of a caption's n-grams, their norm for each n, and the caption's length."""
        weights = {gram: count * self.weight.get(gram, self.rarest) for gram, count in ngrams(words).items()}
        squares = [0.0] * ORDERS
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight * weight
        return weights, [square**0.5 for square in squares], len(words)


def _similarity(said: tuple[dict, list[float], int], truth: tuple[dict, list[float], int]) -> float:
    """Mean cosine over n; what a caption repeats more often than the reference counts no more, and length counts."""
    products = [0.0] * ORDERS
    weights = truth[0]
    for gram, weight in said[0].items():
        if gram in weights:
            products[len(gram) - 1] += min(weight, weights[gram]) * weights[gram]
    cosines = (product / (a * b) for product, a, b in zip(products, said[1], truth[1], strict=True) if product)
    return sum(cosines) / ORDERS * float(length_penalty(said[2] - truth[2]))


def tf_idf(captions: Sequence[Sequence[str]]) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Captions as CIDEr sees them: their lengths in words, and each one's n-grams, by number, with their weights.

    The weights are of unit length for each n, so that a dot product is ORDERS times the mean cosine. Document
    frequencies count pictures, as in CIDEr; unlike CIDEr-D, a repeated n-gram is not clipped.

    Args: captions: captions[i] are those of picture i. Raises UndefinedError for a single picture.
    """
    check_document_frequencies(captions)
    grams = [[ngrams(tokenize(caption)) for caption in picture] for picture in captions]
    frequency = Counter(gram for picture in grams for gram in set().union(*picture))
    number = {gram: i for i, gram in enumerate(frequency)}
    idf = np.log(len(captions)) - np.log(np.array(list(frequency.values()), dtype=np.float64))

    def vector(counts: Counter) -> tuple[np.ndarray, np.ndarray]:
        columns, orders = np.array([(number[gram], len(gram)) for gram in counts], dtype=np.int64).reshape(-1, 2).T
        weights = np.array(list(counts.values()), dtype=np.float64) * idf[columns]
        norms = np.sqrt(np.bincount(orders, weights**2, minlength=ORDERS + 1))
        return columns, weights / np.maximum(norms[orders], 1e-12)

    lengths = np.array([len(tokenize(caption)) for picture in captions for caption in picture])
    return lengths, [vector(counts) for picture in grams for counts in picture]


def constant_caption(captions: Sequence[Sequence[str]], *, most: int = 6_000, seed: int = 0) -> str:
    """The one caption to say of every picture: the training caption that is most like all others.

    Args: captions[i] are those of picture i; of more than ``most`` pictures, so many are drawn.
    """
    if not any(captions):
        raise InputError("there is no training caption to choose from; give at least one")
    drawn = sorted(np.random.default_rng(seed).permutation(len(captions))[:most])
    lengths, rows = tf_idf([captions[i] for i in drawn])
    # Dot products with a sum are sums of dot products. One sum for each length keeps the length penalty.
    sums = np.zeros((lengths.max() + 1, 1 + max(int(columns.max(initial=0)) for columns, _ in rows)), dtype=np.float32)
    for length, (columns, weights) in zip(lengths, rows, strict=True):
        sums[length, columns] += weights
    every = np.arange(len(sums))
    sums = length_penalty(every[:, None] - every).astype(np.float32) @ sums
    scores = [sums[length, columns] @ weights for length, (columns, weights) in zip(lengths, rows, strict=True)]
    return [caption for i in drawn for caption in captions[i]][int(np.argmax(scores))]
