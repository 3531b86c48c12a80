"""Is the reward of self-critical training the field's CIDEr-D, and does it refuse what it cannot weigh?"""

import json
from pathlib import Path

import numpy as np
import pytest

from prunecap_lib.errors import InputError
from prunecap_lib.evaluation.cider import CiderD
from prunecap_lib.text import tokenize

REFERENCES = json.loads((Path(__file__).parent / "fixtures" / "captions.json").read_text())["references"]
WORDS = [[tokenize(text) for text in texts] for texts in REFERENCES.values()]
SAID = ["a a a dog runs runs on the beach", "", "zebra", "a cat sleeps on the beach with an umbrella near a dog"]


@pytest.mark.parametrize("end", [[], ["<eos>"]])
@pytest.mark.parametrize("said", [*SAID, None])
def test_the_reward_is_pycocoevalcaps_cider(said, end):
    """A word said too often, nothing, a word nobody knows, too many words; and each picture's own first reference."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    references = [[words + end for words in picture] for picture in WORDS]
    captions = [(picture[0] if said is None else tokenize(said)) + end for picture in WORDS]
    scorer = CiderScorer()
    for caption, picture in zip(captions, references, strict=True):
        scorer += (" ".join(caption), [" ".join(words) for words in picture])
    expected = scorer.compute_score()[1]
    reward = CiderD(references)
    got = reward(range(len(WORDS)), [[caption, picture[0]] for caption, picture in zip(captions, references,
                                                                                       strict=True)])
    assert got.shape == (len(WORDS), 2)
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-6)
    assert (got[:, 1] > 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_reward_is_pycocoevalcaps_cider_for_random_captions(seed):
    """Few words, so that n-grams repeat; one to four references, some captions empty, some words in no reference."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    rng = np.random.default_rng(seed)
    references = [[list(rng.choice(list("abcdef"), rng.integers(1, 12))) for _ in range(rng.integers(1, 5))]
                  for _ in range(40)]
    captions = [list(rng.choice(list("abcdefz"), rng.integers(0, 20))) for _ in references]
    scorer = CiderScorer()
    for caption, picture in zip(captions, references, strict=True):
        scorer += (" ".join(caption), [" ".join(words) for words in picture])
    got = CiderD(references)(range(40), [[caption] for caption in captions])[:, 0]
    np.testing.assert_allclose(got, scorer.compute_score()[1], atol=1e-9)
    assert got.max() > 0.5


def test_the_reward_counts_ids_as_it_counts_words():
    number = {word: i for i, word in enumerate(sorted({word for picture in WORDS for words in picture
                                                       for word in words}))}
    ids = [[[number[word] for word in words] for words in picture] for picture in WORDS]
    said = [picture[:2] for picture in WORDS[::-1]]
    told = [[[number[word] for word in words] for words in picture] for picture in said]
    np.testing.assert_allclose(CiderD(WORDS)(range(len(WORDS)), said), CiderD(ids)(range(len(WORDS)), told))


@pytest.mark.parametrize("references, says", [
    ([[["a", "cat"]]], "here is 1 picture"), ([[["a"]], []], "picture 1: .*at least one"),
    ([[["a"]], [["b"], []]], r"picture 1: \[\['b'\], \[\]\].*a word"),
])
def test_references_without_words_are_refused(references, says):
    with pytest.raises(InputError, match=says):
        CiderD(references)
