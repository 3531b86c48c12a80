"""Are the captions of experiments/flickr8k_baselines.py of pictures that are near, and do neighbours agree on them?"""

import numpy as np
import pytest
import torch

from flickr8k_baselines import consensus_captions, nearest_pictures, similarities
from prunecap_lib.errors import InputError
from prunecap_lib.evaluation import per_image_cider
from prunecap_lib.evaluation.cider import tf_idf


def test_similarity_is_cider():
    captions = [["a dog runs on the beach"], ["a dog runs on wet sand today"], ["two cats sleep"],
                ["a cat sleeps on the beach"]]
    similar = similarities(*tf_idf(captions))
    ids = range(len(captions))
    for other in ids:  # CIDEr-D of caption i against caption `other` alone, with the idf of all four
        references = {i: captions[i] for i in ids}
        told = {i: captions[other][0] for i in ids}
        expected = np.array(list(per_image_cider(references, told).values())) / 10
        np.testing.assert_allclose(similar[other], expected, atol=1e-6)


def test_consensus_takes_the_caption_its_neighbours_agree_on():
    dog = ["a dog runs on the beach", "a dog runs on sand", "holidays"]
    cat = ["a cat sleeps on a chair", "the cat sleeps on a sofa", "a cat sleeps on a sofa"]
    captions = [dog, ["a brown dog runs on the beach"], cat, ["the cat sleeps on a chair"]]
    features = torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0]])
    queries = torch.tensor([[-2.0, 0.0], [3.0, 0.0]])
    assert nearest_pictures(features, queries, 2).sort().values.tolist() == [[2, 3], [0, 1]]
    told = consensus_captions(features, captions, queries, neighbours=2)
    assert "cat sleeps on a" in told[0] and told[1] == "a dog runs on the beach"
    with pytest.raises(InputError, match="do not fit 3 captioned"):
        consensus_captions(features, captions[:3], queries)
