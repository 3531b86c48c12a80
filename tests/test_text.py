"""Do captions survive the way to numbers and back?"""

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecap_lib.errors import InputError, MissingFileError
from prunecap_lib.text import (
    BOS,
    EOS,
    PAD,
    SPECIALS,
    UNK,
    Vocabulary,
    has_words,
    join_words,
    one_line,
    pad_batch,
    tokenize,
)

CAPTIONS = ["A red cat.", "a blue cat", "a dog's red ball"]


@pytest.mark.parametrize("caption, words", [
    ("A dog's bone, 2 balls!", ["a", "dog's", "bone", "2", "balls"]), ("t-shirt", ["t", "shirt"]), ("...", []),
    ("'quoted'", ["quoted"]),
    ("Две собаки, бегут!", ["две", "собаки", "бегут"]), ("كلب يركض في الثلج", ["كلب", "يركض", "في", "الثلج"]),
    ("Café Ünïted", ["café", "ünïted"]), (unicodedata.normalize("NFD", "Café Ünïted"), ["café", "ünïted"]),
    ("the dog’s l’été", ["the", "dog's", "l'été"]), ("हिन्दी में", ["हिन्दी", "में"]), ("개가 달린다", ["개가", "달린다"]),
    ("两只dogs在奔跑。", ["两", "只", "dogs", "在", "奔", "跑"]), ("犬がケーキ", ["犬", "が", "ケ", "ー", "キ"]),
    ("วิ่ง", ["วิ่", "ง"]), ("２ ＤＯＧＳ", ["２", "ｄｏｇｓ"]), ("İZMİR", ["i̇zmi̇r"]), ("soft\u00adly", ["softly"]),
    ("\u200fكلب\u200e", ["كلب"]), ("a\u200bb", ["a", "b"]), ("می\u200cخواهم\u200c", ["می\u200cخواهم"]),
    ("a 🐶❤️, 👩\u200d🚀 1️⃣", ["a", "🐶", "❤️", "👩\u200d🚀", "1️⃣"]), ("\u0301 \ufe0f ™ ¿؟。", []),
    ("one\x00two\ud800three\x1b[0m\u2028four", ["one", "two", "three", "0m", "four"]),
])
def test_tokenize(caption, words):
    assert tokenize(caption) == words and has_words(caption) == bool(words)


@given(st.text(st.characters(codec="ascii")))
def test_english_is_read_as_it_always_was(caption):
    assert tokenize(caption) == re.findall(r"[a-z0-9]+(?:'[a-z]+)?", caption.lower())


@pytest.mark.slow
@given(st.text())
def test_words_in_any_script_are_found_again(caption):
    words = tokenize(caption)
    assert all(word == one_line(word) and " " not in word for word in words)
    assert tokenize(join_words(words)) == words
    if words:
        vocabulary = Vocabulary.build([caption])
        assert tokenize(vocabulary.decode(vocabulary.encode(caption))) == words


def test_spaces_are_left_out_where_a_script_has_none():
    vocabulary = Vocabulary.build(["两只狗在奔跑", "a red dog 🐶"])
    assert vocabulary.decode(vocabulary.encode("A red 狗在奔跑 dog 🐶")) == "a red 狗在奔跑 dog 🐶"


def test_a_word_of_a_hundred_thousand_letters_takes_no_time():
    start = time.process_time()
    for letter in ("x", "я", "狗", "\u0301", "🐶", "\u200d", "'", "\x00"):
        tokenize("a " + letter * 100_000)
    assert time.process_time() - start < 5


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


@pytest.mark.parametrize("options", [{"min_count": 99_999}, {"max_size": 1}, {"max_size": 4}, {"max_size": -3}])
def test_a_vocabulary_without_words_is_refused(options):
    with pytest.raises(InputError, match="no word in it beside the specials.*min_count.*vocabulary_size"):
        Vocabulary.build(CAPTIONS, **options)


@pytest.mark.parametrize("word", ["", "two words", "a\nline", "tab\t", "\x1b[2J", "\ud800", "a\u00a0b", 7, None, ["a"]])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(InputError, match="is no word"):
        Vocabulary([*SPECIALS, "cat", word])


def test_padding_is_on_the_right():
    assert pad_batch([[1, 5, 2], [1, 2]]).tolist() == [[1, 5, 2], [1, 2, 0]]
