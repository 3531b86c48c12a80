"""Do captions survive the way to pieces of words and back, and does everything that a captioner does work with them?"""

import json
import pickle
import re
import time
import unicodedata
import warnings
from dataclasses import replace

import pytest
import regex
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunecap_lib import BytePairs, Captioner, TrainConfig, Vocabulary, train
from prunecap_lib.bytepairs import SMALLEST, read_tokenizer
from prunecap_lib.datasets import open_dataset
from prunecap_lib.errors import CheckpointError, InputError, MissingFileError
from prunecap_lib.evaluation import evaluate
from prunecap_lib.text import BOS, EOS, PAD, SPECIALS, UNK, WORD, normalize, tokenize

CAPTIONS = ["A red cat.", "a blue cat", "a dog's red ball", "red skates", "a skating dog on a board"] * 3
SMALL = BytePairs.build(CAPTIONS, max_size=280)


@pytest.fixture(scope="module")
def pieces():
    return BytePairs.build(CAPTIONS, max_size=300)


def test_specials_come_first_then_every_byte(pieces):
    assert tuple(pieces.words[:4]) == SPECIALS and len(pieces.words) == len(pieces) <= 300 and len(SMALL) == 280
    smallest = BytePairs.build(CAPTIONS, max_size=SMALLEST)
    assert len(smallest) == SMALLEST
    # the space before a word is a byte of it
    assert len(smallest.encode("ab, né", bos=False, eos=False)) == len(" ab né".encode())


def test_common_words_are_one_piece_and_rare_ones_many(pieces):
    words = [pieces.words[i] for i in pieces.encode("red skateboard")]
    assert words[:2] == ["<bos>", "red"] and words[-1] == "<eos>"
    assert words[2].startswith("ska") and all(word.startswith("##") for word in words[3:-1]) and len(words) > 4
    assert pieces.decode(pieces.encode("red skateboard")) == "red skateboard"


@given(st.text(st.characters(codec="ascii"), min_size=1))
def test_ascii_captions_have_the_words_of_a_vocabulary(caption):
    words = tokenize(caption)
    if not words:
        with pytest.raises(InputError, match="no words"):
            SMALL.encode(caption)
    else:
        assert SMALL.decode(SMALL.encode(caption)) == " ".join(words)


# of these every version of Unicode knows whether they are letters
KNOWN = [c for c in map(chr, range(0x110000)) if unicodedata.ucd_3_2_0.category(c) not in ("Cn", "Co", "Cs")]


@given(st.text(st.sampled_from(KNOWN)))
def test_words_of_every_script_round_trip(caption):
    """The words of a vocabulary; only that what stands together, without spaces, stays together."""
    words = regex.findall(WORD, normalize(caption))
    if words:
        ids = SMALL.encode(caption)
        assert SMALL.decode(ids) == " ".join(words) and UNK not in ids
    assert bool(words) == bool(tokenize(caption))


def test_learning_is_not_held_up_by_letters_without_end():
    start = time.process_time()
    assert BytePairs.build([*CAPTIONS, "x" * 100_000, "狗" * 50_000], max_size=280).words == SMALL.words
    assert time.process_time() - start < 5


def test_specials_in_a_caption_are_plain_words(pieces):
    ids = pieces.encode("a <eos> sign, <unk>")
    assert ids.index(EOS) == len(ids) - 1 and UNK not in ids
    assert pieces.decode(ids) == "a eos sign unk"


def test_cut_after_so_many_pieces(pieces):
    whole = pieces.encode("a skating dog on a board", bos=False, eos=False)
    assert pieces.encode("a skating dog on a board", 3) == [BOS, *whole[:3], EOS]
    assert len(pieces.encode("a red cat", 20)) == 5


def test_decoding_stops_and_leaves_halves_of_letters_out(pieces):
    cat = pieces.encode("red cat", bos=False, eos=False)
    assert pieces.decode([BOS, *cat, PAD, EOS, *cat]) == "red cat"
    half = pieces.encode("é", bos=False, eos=False)[:-1]
    assert pieces.decode([*cat, *half]) == "red cat"
    assert pieces.decode([]) == ""


def test_the_same_captions_give_the_same_pieces(pieces, tmp_path):
    assert BytePairs.build(CAPTIONS, max_size=300) == pieces
    other = BytePairs.build(CAPTIONS, max_size=290)
    assert other != pieces and other.fingerprint() != pieces.fingerprint()
    pieces.save(tmp_path / "tokenizer.json")
    for copy in (BytePairs.load(tmp_path / "tokenizer.json"), pickle.loads(pickle.dumps(pieces)),
                 read_tokenizer(pieces.to_json())):
        assert copy == pieces and copy.encode("a <eos> zebra") == pieces.encode("a <eos> zebra")
    vocabulary = Vocabulary.build(CAPTIONS)
    assert read_tokenizer(vocabulary.to_json()) == vocabulary


def test_min_count_joins_no_rare_pair():
    assert len(BytePairs.build(["abc"], max_size=400, min_count=2)) == SMALLEST
    assert len(BytePairs.build(["abc"], max_size=400, min_count=1)) == SMALLEST + 3


def test_workers_can_be_forked_without_complaint(pieces, capfd):
    dataset = [(pieces, caption) for caption in CAPTIONS]
    BytePairs.build(CAPTIONS, max_size=300)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork",
                                         collate_fn=lambda pair: pair[0].encode(pair[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forking with threads
        assert list(loader) == [pieces.encode(caption) for caption in CAPTIONS]
    assert "parallelism" not in capfd.readouterr().err


@pytest.mark.parametrize("make, says", [
    (lambda: BytePairs.build(CAPTIONS, max_size=100), "100 entries are too few; .* take 260"),
    (lambda: BytePairs.build(["", "?!"], max_size=300), "no word in these captions"),
    (lambda: BytePairs("{"), "not the text of a tokenizer.json"),
    (lambda: BytePairs(SMALL.to_json().replace('"<pad>":0,"<bos>":1', '"<pad>":1,"<bos>":0')), "first four"),
    (lambda: SMALL.encode("..."), "no words"),
    (lambda: TrainConfig(tokenizer="bpe"), "needs a vocabulary_size"),
])
def test_bad_input_is_named(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_bad_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="no.json"):
        BytePairs.load(tmp_path / "no.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match="broken.json"):
        BytePairs.load(tmp_path / "broken.json")


# -- end to end ----------------------------------------------------------------------------------------------


def tiny(out, **changes):
    settings = dict(encoder="convnext", tokenizer="bpe", vocabulary_size=400, limit=64, batch_size=16, epochs=2,
                    d_model=32, layers=1, heads=2, ffn=32, captions_per_image=2, val_limit=8, log_every=1, lr=3e-3,
                    precision="fp32", progress=False, scorer="norm_smallest", max_words=30, out=str(out))
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    return train(tiny(tmp_path_factory.mktemp("bpe") / "run"))


@pytest.mark.slow
def test_a_run_learns_pieces_of_the_training_captions_alone(run):
    assert run.captioner.vocabulary == BytePairs.build(
        [caption for row in open_dataset("scenes", split="train", limit=64).captions for caption in row], max_size=400)
    losses = [line["loss"] for line in run.history if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_loaded_checkpoint_captions_the_same(run, method):
    loaded = Captioner.load(run.out / "checkpoint")
    assert loaded.vocabulary == run.captioner.vocabulary
    images = loaded.preprocess([open_dataset("scenes", split="test", limit=2).image(i) for i in range(2)])
    here, there = (one.generate(images, method=method, beam_size=3, max_length=12, return_attention=True)
                   for one in (run.captioner, loaded))
    for one, other in zip(here, there, strict=True):
        assert one.text == other.text and one.ids == other.ids
        assert len(one.words) == len(one.ids) == len(one.attention)
        shown = "".join(word[2:] if word.startswith("##") else f" {word}" for word in one.words)
        assert " ".join(re.sub("<eos>|�", "", shown).split()) == one.text


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(run, tmp_path, monkeypatch):
    from prunecap_lib.training import run as runs
    plain, seen = runs.objective, []

    def stop_in_the_second_epoch(*arguments):
        seen.append(None)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return plain(*arguments)

    config = tiny(tmp_path / "broken")
    monkeypatch.setattr(runs, "objective", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    resumed = train(config).captioner.state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in run.captioner.state_dict().items())
    with pytest.raises(CheckpointError, match="tokenizer 'bpe' -> 'words'"):
        train(replace(config, tokenizer="words"))


@pytest.mark.slow
def test_evaluation(run):
    report, captions = evaluate(run.captioner, open_dataset("scenes", split="test", limit=8), metrics=("CIDEr",),
                                max_length=30)
    assert set(report["scores"]) == {"CIDEr"} and 0 <= report["token_accuracy"] <= 1
    assert all("##" not in caption.text for caption in captions.values())


def test_a_checkpoint_of_mixed_parts_is_noticed(run, tmp_path):
    run.captioner.save(tmp_path / "model")
    head = json.loads((tmp_path / "model" / "config.json").read_text())
    other = BytePairs.build(["quite another caption"] * 9, max_size=400)
    (tmp_path / "model" / "config.json").write_text(json.dumps(head | {"vocabulary": other.to_json()}))
    with pytest.raises(CheckpointError, match="vocabulary .* is not the one these weights were trained with"):
        Captioner.load(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(head | {"vocabulary": "{}"}))
    with pytest.raises(CheckpointError, match="config.json cannot be used"):
        Captioner.load(tmp_path / "model")
