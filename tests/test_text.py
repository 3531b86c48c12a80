"""Do captions survive the way to numbers and back?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecap_lib.errors import InputError, MissingFileError
from prunecap_lib.text import BOS, EOS, PAD, SPECIALS, UNK, Vocabulary, pad_batch, tokenize

CAPTIONS = ["A red cat.", "a blue cat", "a dog's red ball"]


@pytest.mark.parametrize("caption, words", [
    ("A dog's bone, 2 balls!", ["a", "dog's", "bone", "2", "balls"]), ("t-shirt", ["t", "shirt"]), ("...", []),
    ("'quoted'", ["quoted"]),
])
def test_tokenize(caption, words):
    assert tokenize(caption) == words


def test_ids_run_by_frequency_then_alphabet():
    vocabulary = Vocabulary.build(CAPTIONS)
    assert tuple(vocabulary.words[:4]) == SPECIALS and (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    assert vocabulary.words[4:] == ["a", "cat", "red", "ball", "blue", "dog's"]


def test_encode_and_decode():
    vocabulary = Vocabulary.build(CAPTIONS)
    ids = vocabulary.encode("a red zebra")
    assert ids == [BOS, 4, 6, UNK, EOS]
    assert vocabulary.decode(ids) == "a red <unk>"
    assert vocabulary.decode([4, 5, EOS, 6]) == "a cat"
    assert vocabulary.encode("a red cat", 2) == [BOS, 4, 6, EOS]


@given(st.lists(st.sampled_from(["cat", "red", "a", "ball"]), min_size=1))
def test_known_words_round_trip(words):
    vocabulary = Vocabulary.build(CAPTIONS)
    assert vocabulary.decode(vocabulary.encode(" ".join(words))) == " ".join(words)


def test_limits():
    assert len(Vocabulary.build(CAPTIONS, min_count=2)) == 4 + 3
    assert Vocabulary.build(CAPTIONS, max_size=6).words[4:] == ["a", "cat"]


def test_saved_and_loaded(tmp_path):
    vocabulary = Vocabulary.build(CAPTIONS)
    vocabulary.save(tmp_path / "v.json")
    assert Vocabulary.load(tmp_path / "v.json") == vocabulary
    assert Vocabulary.build(CAPTIONS[:2]).fingerprint() != vocabulary.fingerprint()


def test_bad_input_is_named(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(MissingFileError, match="no.json"):
        Vocabulary.load(tmp_path / "no.json")
    with pytest.raises(InputError, match="broken.json"):
        Vocabulary.load(tmp_path / "broken.json")
    (tmp_path / "other.json").write_text('{"words": ["a", "cat"]}')
    with pytest.raises(InputError, match="other.json: .*first four"):
        Vocabulary.load(tmp_path / "other.json")
    with pytest.raises(InputError, match="twice"):
        Vocabulary([*SPECIALS, "cat", "cat"])
    with pytest.raises(InputError, match="no words"):
        Vocabulary.build(CAPTIONS).encode(" ?! ")
    with pytest.raises(InputError, match="no word"):
        Vocabulary.build(["", "..."])


def test_padding_is_on_the_right():
    assert pad_batch([[1, 5, 2], [1, 2]]).tolist() == [[1, 5, 2], [1, 2, 0]]
