"""Do the scores of a ranking and of what it keeps agree with their definitions and with known cases?"""

import pytest
import torch

from prunecap_lib.errors import InputError
from prunecap_lib.evaluation import object_recall, ranking_auc


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


def test_object_recall_is_the_share_of_the_area():
    cover = torch.tensor([[0.0, 1.0, 0.5, 0.5], [0.25, 0.0, 0.0, 0.0]])
    recall = object_recall(torch.tensor([[0, 1, 3], [1, 2, 3]]), cover)
    assert recall.tolist() == [0.75, 0.0]
    assert object_recall(torch.arange(4).expand(2, -1), cover).tolist() == [1.0, 1.0]


def test_object_recall_of_a_choice_that_does_not_look_is_the_share_kept():
    generator = torch.Generator().manual_seed(0)
    cover = torch.rand(2000, 16, generator=generator)
    kept = torch.rand(2000, 16, generator=generator).argsort(dim=1)[:, :4]
    assert object_recall(kept, cover).mean().item() == pytest.approx(0.25, abs=0.01)


def test_object_recall_needs_objects():
    with pytest.raises(InputError, match="1 of 2 pictures show no object"):
        object_recall(torch.zeros(2, 1, dtype=torch.long), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
