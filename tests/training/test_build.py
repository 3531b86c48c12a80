"""Does a run that starts from a checkpoint take what it should, and go on as exactly as any other?"""

from dataclasses import replace

import pytest
import torch

from prunecap_lib import Captioner, TrainConfig, train
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule
from prunecap_lib.training import run
from prunecap_lib.training.build import initial_captioner, load_teacher, new_captioner

SCHEDULE = Schedule((2,), (0.5,), "predictor")


def tiny(out, **changes):
    settings = dict(limit=8, batch_size=4, epochs=2, d_model=16, layers=1, heads=2, ffn=32, captions_per_image=2,
                    val_limit=4, log_every=1, lr=3e-3, precision="fp32", progress=False, prune_ratio=0.0, out=str(out))
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An unpruned captioner with a vocabulary of its own, and one with a trained predictor."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("start")
    for name, schedule in (("plain", None), ("predictor", SCHEDULE)):
        captioner = new_captioner(tiny(folder, schedule=schedule, max_words=25), [["a cat sleeps on a red mat"]])
        for module in captioner.encoder.added.values():
            torch.nn.init.ones_(module.decision[-1].weight)
        captioner.save(folder / name)
    return folder


@pytest.mark.parametrize("name", ["plain", "predictor"])
def test_weights_and_words_are_kept_and_predictors_are_fresh(checkpoint, name):
    config = tiny("unused", start=str(checkpoint / name), schedule=SCHEDULE, dropout=0.3)
    before, captioner = Captioner.load(checkpoint / name), initial_captioner(config, [["other words"]])
    assert captioner.vocabulary.words == before.vocabulary.words
    new = captioner.state_dict()
    assert all(torch.equal(new[key], value) for key, value in before.state_dict().items() if "predictor" not in key)
    assert (new["encoder.added.predictor_2.decision.4.weight"] != 1).all()
    settings = captioner.config
    assert (settings.schedule, settings.dropout, settings.max_length) == (SCHEDULE, 0.3, 27)
    assert captioner.decoder.layers[0].dropout.p == 0.3


@pytest.mark.parametrize("name", ["plain", "predictor"])
def test_the_teacher_sees_every_token_and_learns_nothing(checkpoint, name):
    teacher = load_teacher(tiny("unused", start=str(checkpoint / name), schedule=SCHEDULE))
    _, tokens = teacher(torch.randn(1, 3, 64, 64), torch.tensor([[1, 4]]), need_tokens=True)
    assert tokens.x.shape[1] == 64
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())


def test_other_sizes_are_named(checkpoint):
    config = tiny("unused", start=str(checkpoint / "plain"), d_model=32, heads=4, max_words=40)
    with pytest.raises(InputError, match="d_model 16 there, 32 here; heads 2 there, 4 here; max_length 27.*40 here"):
        initial_captioner(config, [["a cat"]])


@pytest.mark.slow
@pytest.mark.parametrize("trained", [False, True])
def test_an_encoder_is_left_to_its_package_only_if_it_is_still_the_packages(tmp_path, trained):
    config = tiny(tmp_path / "before", encoder="tf_efficientnet_lite0@last_stage", encoder_weights="package",
                  image_size=32, freeze_encoder=not trained)
    before = new_captioner(config, [["a cat"]])
    if trained:
        torch.nn.init.ones_(next(before.encoder.parameters()))
    before.save(tmp_path / "before")
    again = initial_captioner(replace(config, start=str(tmp_path / "before"), freeze_encoder=True), [["a cat"]])
    again.save(tmp_path / "again")
    loaded, expected = Captioner.load(tmp_path / "again").encoder.state_dict(), before.encoder.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())
    assert (again.config.encoder_package is None) == trained


@pytest.mark.parametrize("changes, says", [
    (dict(start="scenes-vit", encoder_weights="x.safetensors"), "start 'scenes-vit' brings the encoder's weights"),
    (dict(schedule=SCHEDULE, freeze_encoder=True), "leave freeze_encoder out"),
    (dict(start="x", freeze_encoder=True, cache_features=True, schedule=Schedule((2,), (0.5,), "key_norm")),
     "teacher, who sees every token.*leave cache_features out"),
    (dict(start="x", freeze_encoder=True, cache_features=True, cache_pruned=True, scorer="grid"), "teacher, who sees"),
    (dict(ratio_weight=-1.0), "ratio_weight is -1.0"), (dict(feature_weight=float("nan")), "feature_weight is nan"),
])
def test_impossible_settings_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        tiny("unused", **changes)


@pytest.mark.slow
@pytest.mark.parametrize("start", [None, "plain"])
def test_a_predictors_run_interrupted_and_resumed_equals_unbroken(checkpoint, tmp_path, monkeypatch, start):
    config = tiny(tmp_path / "broken", schedule=SCHEDULE, start=start and str(checkpoint / start))
    whole = train(replace(config, out=str(tmp_path / "whole")))
    plain, seen = run.objective, []

    def stop_at_the_last_step(*arguments):
        seen.append(None)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(run, "objective", stop_at_the_last_step)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    torch.rand(100)  # the resumed process has another random state
    resumed = train(config)
    expected = whole.captioner.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.captioner.state_dict().items())
    if start:
        before = Captioner.load(config.start).state_dict()
        assert not torch.equal(expected["decoder.norm.weight"], before["decoder.norm.weight"])
    assert Captioner.load(config.folder / "checkpoint").encoder.schedule == SCHEDULE
