"""How do captions become numbers, and numbers captions again?

A word-level vocabulary: split, count, number. Ids 0..3 are ``<pad> <bos> <eos> <unk>``.

Words are those of any language. Chinese, Japanese, Thai and their neighbours put no space between words, and finding
words there takes a dictionary: each of their characters counts as a word.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import regex
import torch
from msgspec import Meta
from torch import Tensor

from .errors import InputError
from .files import Kind, write_text
from .reading import read_json

if TYPE_CHECKING:
    from typing import Self  # Python 3.11's

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)
StoredWord = Annotated[str, Meta(min_length=1, max_length=1000)]
"""A vocabulary's word, as files may hold it."""
WORD = r"[\p{L}\p{N}][\p{L}\p{M}\p{N}\u200c\u200d]*(?:'[\p{L}\p{M}]+)?|(?=\p{Emoji_Presentation}|\p{Emoji}\ufe0f)\X"
"""A letter or digit and what follows: letters, marks on them, digits, joiners; or one emoji. Oniguruma reads it too."""
_WORD = regex.compile(WORD)
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Line_Break=Complex_Context}]"
_CHARACTER = regex.compile(rf"{_UNSPACED}\p{{M}}*")
_GAP = regex.compile(rf"(?<={_UNSPACED}\p{{M}}*) (?={_UNSPACED})")
_CONTROL = regex.compile(r"[\p{Cc}\p{Cs}]+")
# soft hyphens, marks of direction and the like; joiners stay inside words and emoji, U+200B parts words
_UNSEEN = regex.compile(r"[\p{Cf}--[\u200b-\u200d\U000e0020-\U000e007f]]"
                        r"|(?<=[[\p{L}\p{M}\p{N}]--[\ufe0e\ufe0f]])[\u200c\u200d]+(?![\p{L}\p{M}\p{N}])", regex.V1)
_APOSTROPHES = str.maketrans(dict.fromkeys("’ʼ＇", "'"))


def one_line(text: str) -> str:
    """Text as any other program takes it: control characters and lone surrogates become spaces, and spaces one."""
    return " ".join(_CONTROL.sub(" ", text).split())


def normalize(caption: str) -> str:
    """One spelling for what reads alike: lower case, composed characters (NFC), plain apostrophes, nothing unseen."""
    caption = one_line(caption).lower()
    if caption.isascii():
        return caption
    return _UNSEEN.sub("", unicodedata.normalize("NFC", caption.translate(_APOSTROPHES)))


def space_characters(text: str) -> str:
    """Put spaces around characters of scripts that have none between words: "两只 dogs" -> " 两  只  dogs"."""
    return text if text.isascii() else _CHARACTER.sub(r" \g<0> ", text)


def tokenize(caption: str) -> list[str]:
    """Lower-case words and digits; punctuation is dropped: "A dog's bone." -> ["a", "dog's", "bone"].

    >>> tokenize("Две собаки, “L’été” 两只狗 🐶!")
    ['две', 'собаки', "l'été", '两', '只', '狗', '🐶']
    """
    return _WORD.findall(space_characters(normalize(caption)))


def has_words(caption: str) -> bool:
    """Does ``tokenize`` find anything? Quicker, for files of a million captions."""
    return _WORD.search(space_characters(normalize(caption))) is not None


def join_words(words: Iterable[str]) -> str:
    """Words with spaces between them, but for scripts that put none: ["两", "只", "red", "dogs"] -> "两只 red dogs"."""
    text = " ".join(words)
    return text if text.isascii() else _GAP.sub("", text)


class Tokenizer(ABC):
    """Turns captions into rows of ids and back. Ids 0..3 are ``SPECIALS``.

    ``Vocabulary`` has an id for each known word, ``bytepairs.BytePairs`` for pieces of words.
    """

    what: str
    """Its name in messages."""
    words: Sequence[str]
    """How each id is shown, one string an id."""

    @abstractmethod
    def to_json(self) -> list[str] | str:
        """What a checkpoint's config.json holds of it; see ``bytepairs.read_tokenizer``."""

    @abstractmethod
    def _ids_of(self, caption: str) -> list[int]: ...

    @abstractmethod
    def _text_of(self, ids: list[int]) -> str: ...

    def encode(self, caption: str, max_length: int | None = None, *, bos: bool = True, eos: bool = True) -> list[int]:
        """Ids of a caption, cut after ``max_length``, between ``<bos>`` and ``<eos>``.

        Raises InputError where the caption has no word at all.
        """
        ids = self._ids_of(caption)[:max_length]
        if not ids:
            raise InputError(f"caption {caption!r} has no words; remove it or write one")
        return [BOS] * bos + ids + [EOS] * eos

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids`` up to ``<eos>``; padding and ``<bos>`` are skipped."""
        written = takewhile(lambda i: i != EOS, map(int, ids))
        return self._text_of([i for i in written if i not in (PAD, BOS)])

    def fingerprint(self) -> str:
        """Twelve hex digits that change when any id means something else."""
        content = self.to_json()
        content = content if isinstance(content, str) else "\n".join(content)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and self.to_json() == other.to_json()

    __hash__ = None

    def save(self, path: str | Path) -> None:
        """Write a file, over nothing but one of its kind. Raises InputError, CheckpointError."""
        write_text(path, self._file_text(), Kind(self.what, type(self).load))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Raises MissingFileError or InputError, naming the file."""
        content = cls._read(path)
        try:
            return cls(content)
        except InputError as error:
            raise InputError(f"file {path}: {error}") from error


class Vocabulary(Tokenizer):
    """A fixed list of words; a word's id is its place in the list. Unknown words become ``<unk>``."""

    what = "vocabulary"

    def __init__(self, words: Sequence[str]):
        """Args: words: all words in order, the four specials first.

        Raises InputError on repeats, on what is no word (with a space or a control character in it, or nothing), and
        where there are no words beside the specials.
        """
        words = list(words)
        odd = [word for word in words if not isinstance(word, str) or one_line(word).split() != [word]]
        if odd:
            raise InputError(f"vocabulary: {odd[0]!r} is no word: words are text without spaces or control characters; "
                             "take it out, or build the vocabulary again")
        if tuple(words[:4]) != SPECIALS:
            raise InputError(f"vocabulary: the first four words must be {' '.join(SPECIALS)}, not {words[:4]}")
        if len(words) == len(SPECIALS):
            raise InputError("vocabulary: there is no word in it beside the specials, so that every caption would read "
                             "<unk>; allow rarer words (min_count) or more of them (vocabulary_size)")
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

    def to_json(self) -> list[str]:
        """The words, as a checkpoint's config.json holds them."""
        return self.words

    def _ids_of(self, caption: str) -> list[int]:
        return [self.ids.get(word, UNK) for word in tokenize(caption)]

    def _text_of(self, ids: list[int]) -> str:
        return join_words(self.words[i] for i in ids)

    def _file_text(self) -> str:
        return json.dumps({"words": self.words}, ensure_ascii=False, indent=0)

    @staticmethod
    def _read(path: str | Path) -> list[str]:
        return read_json(path, _Stored, "vocabulary", "build it again").words


class _Stored(msgspec.Struct):
    """A vocabulary's own file."""

    words: list[StoredWord]


def pad_batch(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids of different lengths -> LongTensor [B, T], filled with ``<pad>`` on the right."""
    T = max(map(len, rows))
    return torch.tensor([list(row) + [PAD] * (T - len(row)) for row in rows], dtype=torch.long)
