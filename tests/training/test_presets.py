"""Is the recommended recipe one that trains, for every family, and can the command line change any part of it?"""

import re
from dataclasses import fields

import pytest
import torch
from test_training import tiny

from prunecap_lib import TrainConfig, train
from prunecap_lib.cli.options import call
from prunecap_lib.cli.train import DESCRIPTION, TrainCommand, with_preset
from prunecap_lib.encoders import build_encoder
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule
from prunecap_lib.training.build import new_captioner, parameter_groups
from prunecap_lib.training.config import FAMILIES

# of each family, the smallest that timm has; what is changed of the recipe is size and length
SMALL = {"vit": "test_vit", "convnext": "test_convnext", "convnextv2": "convnextv2_atto",
         "swin": "swin_tiny_patch4_window7_224", "metaformer": "poolformerv2_s12"}


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALL)
def test_each_family_takes_a_step(tmp_path, family):
    config = TrainConfig.recommended(
        SMALL[family], encoder_weights=None, image_size=32, dataset="scenes", limit=2, val_limit=2, caption_limit=2,
        batch_size=2, epochs=1, d_model=16, layers=1, heads=2, ffn=16, min_count=1, caption_every=0, workers=0,
        tracker="none", progress=False, log_every=1, out=str(tmp_path))
    result = train(config)
    assert result.history[0]["step"] == 1 and 0 < result.history[0]["loss"] < 20
    assert (tmp_path / "best" / "config.json").exists() and (tmp_path / "last" / "epoch_001").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_each_familys_encoder_is_our_own_with_weights_and_takes_its_schedule(family):
    import timm
    kind = FAMILIES[family]
    assert kind.encoder in timm.list_models(pretrained=True)
    with torch.device("meta"):
        encoder = build_encoder(kind.encoder)
    assert encoder.image_size == 224 and type(encoder).__name__ != "TimmAdapter"
    assert 50e6 < sum(p.numel() for p in encoder.parameters()) < 90e6
    encoder.set_schedule(kind.schedule)
    assert encoder.schedule == Schedule.parse(kind.schedule)
    assert kind.encoder in DESCRIPTION and kind.schedule in DESCRIPTION


def test_recommended_is_a_recipe_and_takes_changes():
    config = TrainConfig.recommended("convnext_tiny", epochs=3)
    assert (config.encoder, config.encoder_weights, config.epochs) == ("convnext_tiny", "timm", 3)
    assert config.encoder_lr < config.lr and config.ema and config.patience and config.caption_every
    assert TrainConfig.recommended("vit").encoder_weights is None  # ours: timm has none
    assert TrainConfig.recommended(start="scenes-vit").encoder_weights is None  # weights come from there


def command(*argv):
    told = []
    call(told.append, TrainCommand, list(argv), prog="train", description="", default=with_preset(list(argv)))
    return told[0]


@pytest.mark.parametrize("argv, preset", [
    (["--preset", "seed", "--epochs", "2"], lambda: TrainConfig.seed_preset(epochs=2)),
    (["--epochs", "2", "--preset=recommended", "--encoder", "convnext_tiny", "--schedule", "0.7@3,6/grid"],
     lambda: TrainConfig.recommended("convnext_tiny", epochs=2, schedule=Schedule.parse("0.7@3,6/grid"))),
    (["--preset", "recommended", "--encoder=vit", "--no-progress", "--patience", "0"],
     lambda: TrainConfig.recommended("vit", progress=False, patience=0)),
    (["--lr", "0.1"], lambda: TrainConfig(lr=0.1)),
])
def test_other_options_override_the_preset(argv, preset):
    found, expected = command(*argv), preset()
    for field in fields(TrainConfig):
        if field.name != "tracker":  # the command line's own default
            assert getattr(found, field.name) == getattr(expected, field.name), field.name
    assert found.tracker == "tensorboard" and command(*argv, "--tracker", "none").tracker == "none"


def test_a_preset_that_is_none_is_refused():
    with pytest.raises(InputError, match="choose seed, recommended"):
        command("--preset", "reccomended")


@pytest.mark.parametrize("option", ["--preset", "--encoder", "--start"])
def test_an_option_without_its_value_is_refused(option):
    with pytest.raises(InputError, match=f"{option} needs a value"):
        command("--epochs", "2", option)


@pytest.mark.parametrize("changes, says", [
    (dict(ema=1.0), "ema"), (dict(encoder_lr=0.0), "encoder_lr"), (dict(patience=-1), "patience"),
    (dict(caption_beams=0), "caption_beams"), (dict(caption_limit=0), "caption_limit"),
    (dict(keep_last=-1), "keep_last"),
])
def test_impossible_recipes_are_refused(tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        tiny(tmp_path, **changes)


def test_encoder_and_decoder_have_learning_rates_of_their_own(tmp_path):
    captioner = new_captioner(tiny(tmp_path), [["a cat"]])
    groups = parameter_groups(captioner, 0.1, encoder_share=0.25)
    inside = {id(p) for p in captioner.encoder.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(captioner.parameters()))
    for group in groups:
        assert {id(p) in inside for p in group["params"]} == {group["share"] == 0.25}
        assert {p.dim() > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}
    assert [group["share"] for group in parameter_groups(captioner, 0.1)] == [1.0, 1.0]  # as ever: two groups


@pytest.mark.parametrize("name", ["clip", "lr", "warmup", "weight_decay", "ema"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e40])
def test_settings_are_numbers_that_float32_can_hold(name, value):
    with pytest.raises(InputError, match=re.escape(f"{name} is {value}; it must be ")):
        TrainConfig(**{name: value})
