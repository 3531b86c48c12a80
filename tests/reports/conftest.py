"""What do the tests of reports share? A small captioner that has learned nothing, and a few scenes."""

import pytest
import torch

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary
from prunecap_lib.datasets import open_dataset


@pytest.fixture(scope="session")
def dataset():
    return open_dataset("scenes", split="test", limit=13)


@pytest.fixture(scope="session")
def captioner(dataset):
    torch.manual_seed(0)
    config = CaptionerConfig(encoder="vit", d_model=16, layers=1, heads=2, ffn=16, max_length=24, scorer="random",
                             schedule="0.5@2/random")
    return Captioner(config, Vocabulary.build(caption for row in dataset.captions for caption in row)).eval()
