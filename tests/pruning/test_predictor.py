"""Is what a predictor learns under masks what it does when tokens are gathered?"""

import json

import pytest
import torch
from close import assert_close
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary, build_encoder
from prunecap_lib.encoders import ViT, ViTConfig
from prunecap_lib.encoders.weights import load_weights
from prunecap_lib.errors import CheckpointError, InputError
from prunecap_lib.preprocessing import Preprocessing
from prunecap_lib.pruning import Schedule, TokenPredictor

SCHEDULE = Schedule((1, 3), (0.7, 0.5), "predictor")


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def vit(schedule, **changes):
    """16 tokens, 4 blocks; larger weights than a fresh ViT's, so that attention is not flat."""
    torch.manual_seed(0)
    config = ViTConfig(image_size=32, patch=8, channels=16, depth=4, heads=2, hidden=32, **changes)
    encoder = ViT(config, name="tiny", preprocessing=Preprocessing(32, mean=(0.5,) * 3, std=(0.5,) * 3))
    encoder.set_schedule(schedule)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


def captioner(schedule=SCHEDULE, **changes):
    encoder = vit(schedule, **changes)
    config = CaptionerConfig(image_size=32, prune_ratio=0.0, d_model=24, layers=2, heads=2, ffn=32, max_length=8,
                             dropout=0.0, schedule=schedule)
    model = Captioner(config, Vocabulary.build(["a red cat left of the blue house"]), encoder=encoder)
    for parameter in model.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def clear_top(scores, k):
    """The places of the k best [B, k], which lead the others clearly: two ways to compute the scores then agree."""
    best = scores.topk(k + 1, dim=1)
    assert (best.values[:, k - 1] - best.values[:, k]).min() > 1e-5
    return best.indices[:, :k]


@pytest.fixture
def same_decisions(monkeypatch):
    """In training, too, exactly as many tokens stay as the schedule says: those with the best odds."""
    counts = dict(zip(SCHEDULE.keep, SCHEDULE.counts(16), strict=True))

    def sample_mask(self, x, kept):
        odds = self(x, kept).diff(dim=-1)[..., 0].neg()
        best = clear_top(odds.masked_fill(kept == 0, -torch.inf), counts[self.rate])
        return torch.zeros_like(kept).scatter(1, best, 1.0), odds

    def init(self, channels, keep=0.5, plain=TokenPredictor.__init__):
        plain(self, channels, keep)
        self.rate = keep

    monkeypatch.setattr(TokenPredictor, "__init__", init)
    monkeypatch.setattr(TokenPredictor, "sample_mask", sample_mask)


@pytest.mark.parametrize("changes", [dict(), dict(registers=2), dict(class_token=False)], ids=str)
def test_masked_training_equals_gathered_inference(images, same_decisions, changes):
    model = captioner(**changes)
    ids = torch.randint(4, 12, (6, 7), generator=torch.Generator().manual_seed(2))  # two captions a picture
    with torch.no_grad():
        gathered, tokens = model.eval()(images, ids, need_tokens=True)
        masked, all_tokens = model.train()(images, ids, need_tokens=True)
    assert all_tokens.x.shape[1] == 16 and tokens.x.shape[1] == SCHEDULE.counts(16)[-1] == 6
    assert (16 * all_tokens.keep_ratios).tolist() == [[12.0, 6.0]] * 3
    still_there = all_tokens.keep_mask == 1
    assert torch.equal(still_there.nonzero()[:, 1].view(3, 6), tokens.index)
    assert_close(all_tokens.x[still_there].view(3, 6, -1), tokens.x)
    assert_close(masked, gathered)
    if tokens.prefix is not None:
        assert_close(all_tokens.prefix, tokens.prefix)


@pytest.mark.parametrize("training", [False, True])
def test_keep_all_equals_unpruned(images, training):
    ids = torch.randint(4, 12, (3, 7))
    plain, all_kept = captioner(None), captioner(Schedule((1, 3), (1.0, 1.0), "predictor"))
    assert len(all_kept.encoder.added) == 0
    with torch.no_grad():
        assert_close(all_kept.train(training)(images, ids), plain.train(training)(images, ids))


def test_gradients_reach_every_parameter_of_every_predictor(images):
    model, ids = captioner().train(), torch.randint(4, 12, (3, 7))
    torch.manual_seed(3)
    model(images, ids).square().sum().backward()
    predictors = dict(model.encoder.added.named_parameters())
    assert {name.split(".")[0] for name in predictors} == {"predictor_1", "predictor_3"}
    for name, parameter in predictors.items():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_what_is_gone_stays_gone_and_chance_follows_torchs_seed(images):
    encoder = vit(SCHEDULE, registers=1).train()
    torch.manual_seed(0)
    first, second = encoder(images), encoder(images)
    torch.manual_seed(0)
    again = encoder(images)
    assert torch.equal(first.keep_mask, again.keep_mask) and not torch.equal(first.keep_mask, second.keep_mask)
    assert set(first.keep_mask.unique().tolist()) == {0.0, 1.0}
    assert (first.keep_ratios[:, 1] <= first.keep_ratios[:, 0]).all()
    assert (first.keep_ratios[:, 1] == first.keep_mask.mean(dim=1)).all()
    assert first.sequence_mask.shape == (3, 2 + 16) and (first.sequence_mask[:, :2] == 1).all()  # class token, register


def test_inference_keeps_the_best_odds(images):
    encoder = vit(Schedule((2,), (3 / 16,), "predictor")).eval()
    with torch.no_grad():
        x = encoder.embed(images)
        for block in encoder.blocks[:2]:
            x, _ = block(x)
        probability = encoder.added["predictor_2"](x[:, 1:]).exp()[..., 0]
        best = clear_top(probability, 3).sort(dim=1).values
        assert torch.equal(encoder(images).index, best)


@pytest.mark.parametrize("reduction, left", [("keep", 6), ("fuse", 8), ("merge", 6)])
def test_every_reduction(images, reduction, left):
    encoder = vit(Schedule((1, 3), (0.7, 0.5), "predictor", reduction))
    assert len(encoder.added) == (0 if reduction == "merge" else 2)  # merging asks nobody
    with torch.no_grad():
        assert encoder.eval()(images).x.shape[1] == left


def test_only_kept_tokens_are_in_the_shared_half():
    torch.manual_seed(0)
    predictor, x, kept = TokenPredictor(8), torch.randn(1, 5, 8), torch.tensor([[1.0, 1, 1, 0, 1]])
    for changed, reaches_others in ((3, False), (2, True)):
        other = x.clone()
        other[:, changed] = x[:, changed].flip(-1)
        difference = (predictor(other, kept) - predictor(x, kept)).abs()[0, [0, 1, 4]]
        assert (difference.max() > 1e-4) == reaches_others
    assert_close(predictor(x, torch.ones(1, 5)), predictor(x))
    assert predictor(x, torch.zeros(1, 5)).isfinite().all()
    for before in (torch.zeros(1, 5), kept):
        decision, odds = zip(*(predictor.sample_mask(x, before) for _ in range(20)), strict=True)
        assert (torch.stack(decision) <= before).all() and torch.equal(odds[0], odds[1])


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_learning_starts_from_the_share_asked_for(keep):
    torch.manual_seed(0)
    probability = TokenPredictor(64, keep)(torch.randn(8, 16, 64)).exp()
    assert_close(probability.sum(dim=-1), torch.ones(8, 16))
    assert probability[..., 0].mean().item() == pytest.approx(keep, abs=0.05)


def test_timms_weights_fit_beside_predictors():
    plain = build_encoder("vit_tiny_patch16_224", image_size=32)
    encoder = build_encoder("vit_tiny_patch16_224", image_size=32, schedule=Schedule((4,), (0.5,), "predictor"),
                            state_dict=plain.state_dict())
    before = encoder.added["predictor_4"].decision[0].weight.clone()
    load_weights(encoder, plain.state_dict())
    assert torch.equal(encoder.added["predictor_4"].decision[0].weight, before)
    assert torch.equal(encoder.norm.weight, plain.norm.weight)


def shipped(tmp_path):
    torch.manual_seed(0)
    config = CaptionerConfig(encoder="vit", d_model=16, layers=1, heads=2, ffn=16, prune_ratio=0.0,
                             schedule=Schedule((2, 4), (0.5, 0.5), "predictor"))
    Captioner(config, Vocabulary.build(["a cat"])).save(tmp_path / "model")
    return tmp_path / "model"


def test_predictors_are_saved_and_loaded(tmp_path):
    folder = shipped(tmp_path)
    torch.manual_seed(0)
    with torch.no_grad():
        first, second = (Captioner.load(folder).encoder(torch.ones(1, 3, 64, 64)).index for _ in range(2))
    assert torch.equal(first, second) and first.shape == (1, 16)


@pytest.mark.parametrize("after", [[2], [2, 5], [1, 2, 4]], ids=str)
def test_predictors_of_another_schedule_are_refused(tmp_path, after):
    folder = shipped(tmp_path)
    head = json.loads((folder / "config.json").read_text())
    head["config"]["schedule"] |= {"after": after, "keep": [0.5] * len(after)}
    (folder / "config.json").write_text(json.dumps(head))
    with pytest.raises(CheckpointError, match=rf"after blocks \[2, 4\].*schedule 0.5@\d.*after blocks \[{after[0]}"):
        Captioner.load(folder)


def test_weights_of_a_block_that_no_number_names_are_refused(tmp_path):
    folder = shipped(tmp_path)
    weights = folder / "model.safetensors"
    with safe_open(weights, framework="pt") as file:
        told = file.metadata()
    state = load_file(weights) | {f"encoder.added.predictor_{'9' * 5000}.weight": torch.zeros(1)}
    save_file(state, weights, metadata=told)
    with pytest.raises(CheckpointError, match="predictor_999"):
        Captioner.load(folder)


def test_a_captioner_keeps_what_it_learned_or_says_that_it_cannot(tmp_path):
    encoder = Captioner.load(shipped(tmp_path)).encoder
    learned = encoder.added["predictor_2"]
    encoder.set_schedule(Schedule((2, 4), (0.7, 0.3), "predictor"))  # other rates: the same question
    assert encoder.added["predictor_2"] is learned
    with pytest.raises(InputError, match="0.7,0.3@2,4/predictor.*0.5@2,3/predictor"):
        encoder.set_schedule(Schedule((2, 3), (0.5, 0.5), "predictor"))
    assert encoder.added["predictor_2"] is learned
    encoder.set_schedule(None)
    assert not [key for key in encoder.state_dict() if "predictor" in key]


def test_a_predictor_belongs_inside_an_encoder():
    with pytest.raises(InputError, match="scorer 'predictor' is unknown"):
        Captioner(CaptionerConfig(scorer="predictor"), Vocabulary.build(["a cat"]))


def test_masked_tokens_cannot_be_gathered_before_the_decoder(images):
    model = captioner().train()
    with pytest.raises(InputError, match="prune ratio 0.5.*train with prune_ratio 0"):
        model(images, torch.randint(4, 12, (3, 7)), prune_ratio=0.5)
    model.eval()(images, torch.randint(4, 12, (3, 7)), prune_ratio=0.5)
