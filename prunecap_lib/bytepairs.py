"""How does a captioner do without unknown words? It writes pieces of words, learned by joining what stands together.

Byte-pair encoding (Sennrich et al. 2016, algorithm 1) over the bytes of a word (Radford et al. 2019, section 2.2), by
Hugging Face's ``tokenizers``. The smallest pieces are the 256 bytes, so every word can be written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .reading import read_text
from .text import SPECIALS, WORD, Tokenizer, Vocabulary, normalize, tokenize

if TYPE_CHECKING:
    import tokenizers

SMALLEST = len(SPECIALS) + 256


class BytePairs(Tokenizer):
    """Pieces of words; the same four specials come first, as in ``Vocabulary``, and ``<unk>`` is never used.

    Captions are treated as ``text.tokenize`` treats them: lower case, no punctuation, the letters of every script. Only
    where a script has no spaces between words, what stands together is one word, and not one a character. A piece lies
    within one word; the space before a word belongs to the word's first piece, so that joined pieces give the words
    back.
    """

    what = "file of byte pairs"

    def __init__(self, text: str):
        """Args: text: a ``tokenizer.json`` of Hugging Face's. Raises InputError where it is of another kind."""
        import tokenizers
        try:
            self._pieces = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the package raises nothing narrower
            raise InputError(f"byte pairs: not the text of a tokenizer.json ({error}); build them again") from error
        first = tuple(self._pieces.id_to_token(i) for i in range(len(SPECIALS)))
        if first != SPECIALS or self._pieces.decode(self._pieces.encode("é").ids).strip() != "é":
            raise InputError(f"byte pairs: the first four pieces must be {' '.join(SPECIALS)} and every byte must be a "
                             f"piece, as BytePairs.build makes them; these begin with {first}")

    @classmethod
    def build(cls, captions: Iterable[str], *, max_size: int, min_count: int = 1) -> BytePairs:
        """Learn pieces: begin with bytes, join the two neighbours that stand together most often, and again.

        Args:
            captions: training captions only.
            max_size: pieces, the four specials and 256 bytes included. Fewer where nothing is left to join.
            min_count: join no pair that is seen fewer times.

        Raises InputError where there is no room for the bytes, or no word in the captions.
        """
        from tokenizers.pre_tokenizers import ByteLevel
        from tokenizers.trainers import BpeTrainer
        if max_size < SMALLEST:
            raise InputError(f"byte pairs: {max_size} entries are too few; {len(SPECIALS)} specials and 256 bytes take "
                             f"{SMALLEST}, and every joined pair one more")
        captions = list(captions)
        if not any(map(tokenize, captions)):
            raise InputError("byte pairs: there is no word in these captions; check the caption file")
        # what nobody wrote: letters without end, on which the trainer's time grows with their square
        written = (" ".join(word for word in normalize(caption).split() if len(word) <= 1000) for caption in captions)
        pieces = _untrained()
        # one thread: learning takes seconds, and after threads of its own the package complains at every forked worker
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        pieces.train_from_iterator(written, BpeTrainer(
            vocab_size=max_size, min_frequency=min_count, special_tokens=list(SPECIALS), show_progress=False,
            initial_alphabet=ByteLevel.alphabet()))
        # As added tokens the specials would be found in captions: "<eos>" in a caption must stay the word "eos".
        return cls(json.dumps(json.loads(pieces.to_str()) | {"added_tokens": []}, ensure_ascii=False))

    def __len__(self) -> int:
        return self._pieces.get_vocab_size()

    def __reduce__(self):
        return BytePairs, (self.to_json(),)

    @cached_property
    def words(self) -> list[str]:
        """How each piece is shown: "ball" begins a word, "##s" goes on with one. Part of a letter is shown as "�"."""
        shown = [self._pieces.decode([i]) for i in range(len(SPECIALS), len(self))]
        return [*SPECIALS, *(piece[1:] if piece[0] == " " else f"##{piece}" for piece in shown)]

    def to_json(self) -> str:
        """The text of a ``tokenizer.json``, which ``tokenizers.Tokenizer.from_str`` reads too."""
        return self._pieces.to_str()

    def _ids_of(self, caption: str) -> list[int]:
        return self._pieces.encode(normalize(caption)).ids

    def _text_of(self, ids: list[int]) -> str:
        """What pieces join to, without halves of letters."""
        return " ".join(self._pieces.decode(ids, skip_special_tokens=False).replace("\ufffd", "").split())

    _file_text = to_json

    @staticmethod
    def _read(path: str | Path) -> str:
        return read_text(path, "byte pairs")


def read_tokenizer(written: list[str] | str) -> Tokenizer:
    """What ``to_json`` of either kind has written. Raises InputError where it is of neither."""
    return BytePairs(written) if isinstance(written, str) else Vocabulary(written)


def _untrained() -> tokenizers.Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    pieces = Tokenizer(models.BPE())
    pieces.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pieces.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)])
    pieces.decoder = decoders.ByteLevel()
    return pieces
