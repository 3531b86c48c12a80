"""Does each part of the loss count what it says, and nothing else?"""

from dataclasses import replace

import pytest
import torch
from close import assert_close
from torch.distributions import Categorical, kl_divergence

from prunecap_lib import TrainConfig, VisualTokens
from prunecap_lib.pruning import Schedule
from prunecap_lib.training.batches import Batch
from prunecap_lib.training.build import new_captioner
from prunecap_lib.training.objective import feature_loss, masked_logits_and_targets, objective, ratio_loss, word_loss


def test_ratio_loss_is_the_squared_distance_of_each_picture():
    shares = torch.tensor([[0.5, 0.25], [1.0, 0.0]])
    assert ratio_loss(shares[:1], (0.5, 0.25)).item() == 0
    assert ratio_loss(shares[1:], (0.5, 0.25)).item() == pytest.approx((0.5**2 + 0.25**2) / 2)
    # one picture with too many and one with too few do not make up for each other
    assert ratio_loss(shares, (0.75, 0.125)).item() == pytest.approx((0.25**2 + 0.125**2 + 0.25**2 + 0.125**2) / 4)


def test_word_loss_is_the_divergence_from_the_teacher():
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    expected = kl_divergence(Categorical(logits=teacher), Categorical(logits=student)).mean()
    assert_close(word_loss(student, teacher), expected)
    assert word_loss(student, student + 3).abs() < 1e-6


def test_feature_loss_counts_kept_tokens_alone():
    teacher = VisualTokens.full(torch.randn(2, 4, 3), (2, 2))
    x = teacher.x + torch.tensor([1.0, 2, 3, 4])[None, :, None]
    decision = torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 0]]).requires_grad_()
    masked = feature_loss(replace(teacher, x=x.requires_grad_(), keep_mask=decision), teacher)
    assert masked.item() == pytest.approx((1 + 9 + 1) / 3, rel=1e-5)
    masked.backward()
    assert decision.grad is None and (x.grad[0, 1] == 0).all() and (x.grad[0, 2] != 0).all()
    student = replace(teacher, x=x.detach())
    assert feature_loss(student.keep(torch.tensor([[0, 2], [0, 2]])), teacher).item() == pytest.approx(5, rel=1e-5)
    assert feature_loss(replace(student, keep_mask=torch.zeros(2, 4)), teacher).item() == 0


@pytest.fixture
def step():
    """A captioner in training, another one as its teacher, a batch, and the settings."""
    torch.manual_seed(0)
    config = TrainConfig(d_model=16, layers=1, heads=2, ffn=16, prune_ratio=0.0, dropout=0.0,
                         schedule=Schedule((2,), (0.5,), "predictor"))
    student = new_captioner(config, [["a cat on a mat"]]).train()
    teacher = new_captioner(replace(config, schedule=None), [["a cat on a mat"]]).eval()
    ids = torch.tensor([[1, 4, 5, 2], [1, 6, 2, 0]])
    return student, teacher, Batch(torch.randn(2, 3, 64, 64), ids), config


def test_objective_is_the_weighted_sum(step):
    student, teacher, batch, config = step

    def loss(teacher=teacher, **weights):
        torch.manual_seed(1)
        off = dict(ratio_weight=0.0, word_weight=0.0, feature_weight=0.0)
        return objective(student, batch, replace(config, **off | weights), teacher)[0]

    words = loss()
    extra = sum(weight * (loss(**{name: 1.0}) - words) for name, weight in
                dict(ratio_weight=2.0, word_weight=0.5, feature_weight=0.5).items())
    assert_close(objective_of(step), words + extra)
    assert min(loss(**{name: 1.0}) - words for name in ("ratio_weight", "word_weight", "feature_weight")) > 1e-5
    assert_close(loss(teacher=None, word_weight=1.0, feature_weight=1.0), words)


def objective_of(step):
    student, teacher, batch, config = step
    torch.manual_seed(1)
    return objective(student, batch, config, teacher)[0]


def test_without_teacher_and_predictor_it_is_the_next_words_cross_entropy(step):
    _, captioner, batch, config = step
    loss, logits, targets = objective(captioner, batch, replace(config, schedule=None, label_smoothing=0.1))
    expected, words = masked_logits_and_targets(captioner, *batch)
    assert torch.equal(targets, words) and torch.equal(logits, expected)
    assert_close(loss, torch.nn.functional.cross_entropy(expected, words, label_smoothing=0.1))


def test_the_teacher_gets_no_gradient(step):
    objective_of(step).backward()
    assert all(parameter.grad is None for parameter in step[1].parameters())
    assert all(parameter.grad is not None for name, parameter in step[0].named_parameters())
