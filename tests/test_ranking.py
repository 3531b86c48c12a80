"""Does the ranking score agree with its definition and with known cases?"""

import pytest
import torch

from prunecap_lib.errors import InputError
from prunecap_lib.evaluation import ranking_auc


def test_known_cases():
    holds = torch.tensor([True, True, False, False])
    assert ranking_auc(torch.tensor([4.0, 3.0, 2.0, 1.0]), holds) == 1.0
    assert ranking_auc(torch.tensor([1.0, 2.0, 3.0, 4.0]), holds) == 0.0
    assert ranking_auc(torch.tensor([4.0, 1.0, 3.0, 2.0]), holds) == 0.5
    assert ranking_auc(torch.ones(4), holds) == 0.5


def test_turning_the_score_round_turns_the_answer_round():
    generator = torch.Generator().manual_seed(0)
    scores, holds = torch.rand(50, generator=generator), torch.rand(50, generator=generator) < 0.3
    assert ranking_auc(scores, holds) == pytest.approx(1 - ranking_auc(-scores, holds))
    assert ranking_auc(scores, holds) == pytest.approx(ranking_auc(scores.exp(), holds))


@pytest.mark.parametrize("holds", [torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)])
def test_without_pairs_it_says_so(holds):
    with pytest.raises(InputError, match="leave this picture out"):
        ranking_auc(torch.rand(4), holds)
