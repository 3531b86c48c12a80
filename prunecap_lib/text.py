"""How do captions become numbers, and numbers captions again?

A word-level vocabulary: split, count, number. Ids 0..3 are ``<pad> <bos> <eos> <unk>``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .errors import InputError, MissingFileError

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def tokenize(caption: str) -> list[str]:
    """Lower-case words and digits; punctuation is dropped: "A dog's bone." -> ["a", "dog's", "bone"]."""
    return _WORD.findall(caption.lower())


class Tokenizer(Protocol):
    """What a captioner needs to turn captions into rows of ids and back. Ids 0..3 are ``SPECIALS``.

    ``Vocabulary`` has an id for each known word, ``bytepairs.BytePairs`` for pieces of words.
    """

    words: Sequence[str]
    """How each id is shown, one string an id."""

    def __len__(self) -> int: ...

    def encode(self, caption: str, max_length: int | None = None, *, bos: bool = True,
               eos: bool = True) -> list[int]:
        """Ids of a caption, cut after ``max_length``, between ``<bos>`` and ``<eos>``."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids`` up to ``<eos>``."""

    def fingerprint(self) -> str:
        """Changes when any id means something else."""

    def to_json(self) -> list[str] | str:
        """What a checkpoint's config.json holds of it; see ``bytepairs.read_tokenizer``."""


class Vocabulary:
    """A fixed list of words; a word's id is its place in the list."""

    def __init__(self, words: Sequence[str]):
        """Args: words: all words in order, the four specials first. Raises InputError on repeats."""
        words = list(words)
        if tuple(words[:4]) != SPECIALS:
            raise InputError(f"vocabulary: the first four words must be {' '.join(SPECIALS)}, not {words[:4]}")
        self.words = words
        self.ids = {word: i for i, word in enumerate(words)}
        if len(self.ids) != len(words):
            repeated = [word for word, n in Counter(words).items() if n > 1][:3]
            raise InputError(f"vocabulary: {', '.join(map(repr, repeated))} stands in it twice; build it again")

    @classmethod
    def build(cls, captions: Iterable[str], *, min_count: int = 1, max_size: int | None = None) -> Vocabulary:
        """Number the words of ``captions``, most frequent first, ties alphabetically.

        Args:
            captions: training captions only; a vocabulary that has seen the test set is a leak.
            min_count: drop words seen fewer times.
            max_size: keep at most this many entries, the four specials included.
        """
        counts = Counter(word for caption in captions for word in tokenize(caption))
        if not counts:
            raise InputError("vocabulary: there is no word in these captions; check the caption file")
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        words = [word for word, n in ranked if n >= min_count]
        if max_size is not None:
            words = words[: max(max_size - len(SPECIALS), 0)]
        return cls([*SPECIALS, *words])

    def __len__(self) -> int:
        return len(self.words)

    def __eq__(self, other) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    __hash__ = None

    def encode(self, caption: str, max_length: int | None = None, *, bos: bool = True, eos: bool = True) -> list[int]:
        """Ids of a caption; unknown words become ``<unk>``. At most ``max_length`` words are kept.

        Raises InputError where the caption has no word at all.
        """
        words = tokenize(caption)[:max_length]
        if not words:
            raise InputError(f"caption {caption!r} has no words; remove it or write one")
        return [BOS] * bos + [self.ids.get(word, UNK) for word in words] + [EOS] * eos

    def decode(self, ids: Iterable[int]) -> str:
        """The words of ``ids`` up to ``<eos>``; padding and ``<bos>`` are skipped."""
        words = []
        for i in map(int, ids):
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append(self.words[i])
        return " ".join(words)

    def fingerprint(self) -> str:
        """Twelve hex digits that change when any word or its place does."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:12]

    def to_json(self) -> list[str]:
        """The words, as a checkpoint's config.json holds them."""
        return self.words

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps({"words": self.words}, ensure_ascii=False, indent=0), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Raises MissingFileError or InputError, naming the file."""
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f"vocabulary {path} is missing; a checkpoint folder holds it, or build one")
        try:
            return cls(json.loads(path.read_text(encoding="utf-8"))["words"])
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise InputError(f"vocabulary {path} is not a JSON file with a list \"words\" ({error})") from error
        except InputError as error:
            raise InputError(f"file {path}: {error}") from error


def pad_batch(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids of different lengths -> LongTensor [B, T], filled with ``<pad>`` on the right."""
    T = max(map(len, rows))
    return torch.tensor([list(row) + [PAD] * (T - len(row)) for row in rows], dtype=torch.long)
