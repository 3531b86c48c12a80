"""Do the parts fit together? Pruning, the pilot score, attention maps, checkpoints."""

import json

import numpy as np
import pytest
import torch
from close import assert_close
from PIL import Image
from safetensors.torch import load_file, save_file

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary, build_encoder
from prunecap_lib.attention_maps import mean_map
from prunecap_lib.checkpoint import CHECKPOINT
from prunecap_lib.errors import CheckpointError, InputError
from prunecap_lib.files import replace_folder
from prunecap_lib.pruning import ATTENTION_SCORES, SCORES, Schedule, fuse_rest, keep_count, keep_top_k, merge_similar

WORDS = ["a", "red", "cat", "left", "of", "the", "blue", "house", "two", "dogs"]


def build(encoder="vit", fresh=False, **changes):
    torch.manual_seed(0)
    config = CaptionerConfig(encoder=encoder, d_model=32, heads=4, ffn=48, max_length=12, **changes)
    captioner = Captioner(config, Vocabulary.build([" ".join(WORDS)])).eval()
    for parameter in [] if fresh else captioner.decoder.parameters():  # a fresh decoder is too indifferent to test
        torch.nn.init.normal_(parameter, std=0.4)
    return captioner


@pytest.fixture(scope="module", params=["vit", "convnext"])
def captioner(request):
    return build(request.param)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def ids():
    return torch.randint(4, 14, (3, 6), generator=torch.Generator().manual_seed(2))


def scorers(captioner):
    attention = captioner.config.encoder == "vit"
    return [name for name in SCORES if attention or name not in ATTENTION_SCORES]


@pytest.mark.parametrize("wrong, words", [
    (torch.zeros(1, 3, 32, 64), r"floats \[B, 3, 64, 64\]"), (torch.zeros(4, 64, 64), "floats"),
    (torch.zeros(1, 1, 3, 64, 64), "floats"), (torch.zeros(2), "floats"),
    (torch.zeros(3, 64, 64, dtype=torch.uint8), "not torch.uint8"), (torch.full((1, 3, 64, 64), torch.nan), "finite"),
    (torch.full((3, 64, 64), torch.inf), "finite"), ([torch.zeros(3, 64, 64)], "not Tensor"), (7, "not int"),
    ({"a": 1}, "not dict"), ([None], "not NoneType"), (np.zeros((1, 64, 64, 3), np.uint8), "one array a picture")])
def test_what_is_no_picture_is_refused_in_words(captioner, wrong, words):
    with pytest.raises(InputError, match=words):
        captioner.generate(wrong)


def test_no_pictures_give_no_captions(captioner):
    for nothing in ([], (), torch.zeros(0, 3, 64, 64)):
        assert captioner.generate(nothing, method="beam", return_attention=True) == []


def test_pictures_of_every_kind_are_captioned_alike(captioner, tmp_path):
    picture = Image.radial_gradient("L").resize((80, 60)).convert("RGB")
    picture.save(tmp_path / "a.png")
    tensor = captioner.preprocessing(picture)
    kinds = [picture, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(),
             np.asarray(picture), tensor, tensor.double()]
    assert len({captioner.generate(kind, max_length=8)[0].text for kind in kinds}) == 1
    assert len(captioner.generate(kinds[:5], max_length=8)) == 5


def test_keeping_all_is_not_pruning(captioner, images, ids):
    tokens = captioner.encode(images)
    assert_close(captioner(images, ids, prune_ratio=0.0),
                 captioner.decoder(ids, captioner.projection(tokens.sequence)))


def test_keeping_all_changes_nothing(captioner, images, ids):
    """Whoever is asked, and whichever reduction: all of N is the unpruned picture."""
    tokens = captioner.encode(images)
    unpruned, scores = captioner(tokens, ids, prune_ratio=0.0), captioner.pilot(tokens)
    for scorer in scorers(captioner):
        asked = captioner(images, ids, prune_ratio=0.0, scorer=scorer)
        assert_close(asked, unpruned, within=1e-3)  # another attention kernel, if weights are
    for same in (keep_top_k(tokens, scores, 64), fuse_rest(tokens, scores, 64), merge_similar(tokens, 0)):
        assert torch.equal(captioner(same, ids, prune_ratio=0.0), unpruned)


@pytest.mark.parametrize("ratio", [0.3, 0.9])
def test_gathered_equals_masked(captioner, images, ids, ratio):
    """Cross-attention over K gathered tokens is cross-attention over all N with the others masked out."""
    for scorer in scorers(captioner):
        tokens = captioner.encode(images, scorer=scorer)
        torch.manual_seed(5)
        memory, kept = captioner.encode_memory(tokens, ratio, scorer)
        assert kept.x.shape[1] == keep_count(64, ratio)
        visible = torch.zeros(3, 64, dtype=torch.bool).scatter(1, kept.index, True)
        visible = torch.cat([torch.ones(3, tokens.prefix_count, dtype=torch.bool), visible], 1)
        everything = captioner.projection(tokens.sequence)
        masked = masked_decoder(captioner.decoder, ids, everything, visible)
        assert_close(captioner.decoder(ids, memory), masked)


def masked_decoder(decoder, ids, memory, visible):
    """The decoder with a mask where ours gathers."""
    from unittest.mock import patch

    from prunecap_lib import attention
    plain = attention.attend

    def attend(q, k, v, mask=None, **settings):
        cross = k.shape[2] == visible.shape[1]
        return plain(q, k, v, visible[:, None, None] if cross else mask, **settings)

    with patch.object(attention, "attend", attend):
        return decoder(ids, memory)


def test_pilot_is_the_first_look_of_the_first_layer(captioner, images):
    tokens = captioner.encode(images)
    weights = captioner.decoder.attention_weights(torch.ones(3, 1, dtype=torch.long),
                                                  captioner.projection(tokens.sequence))
    first_look = weights[0].mean(1)[:, 0, tokens.prefix_count :]          # layer 0, mean over heads, word 0
    assert_close(captioner.pilot(tokens), first_look)


def test_relevance_is_the_mean_map_of_the_unpruned_caption(captioner, images):
    tokens = captioner.encode(images)
    relevance = captioner.relevance(tokens)
    for b, caption in enumerate(captioner.generate(images, prune_ratio=0.0, max_length=12, return_attention=True)):
        assert_close(relevance[b], mean_map(caption.attention).flatten())
        alone = captioner.relevance(tokens.select(torch.tensor([b])))
        assert_close(alone[0], relevance[b])


def test_attention_to_merged_tokens_is_shared_out(captioner, images):
    tokens = captioner.encode(images)
    for reduced in (merge_similar(tokens, 20), fuse_rest(tokens, captioner.pilot(tokens), 10)):
        for caption in captioner.generate(reduced, prune_ratio=0.0, return_attention=True, max_length=6):
            assert (caption.attention > 0).all()
            total = caption.attention.sum((1, 2))
            assert (total <= 1 + 1e-5).all()
            if captioner.config.encoder == "convnext":
                assert_close(total, torch.ones_like(total))


def test_attention_lies_on_kept_cells(captioner, images):
    captions = captioner.generate(images, prune_ratio=0.5, return_attention=True, max_length=6)
    for caption in captions:
        assert caption.attention.shape == (len(caption.ids), 8, 8) == (len(caption.words), *caption.grid)
        dropped = torch.ones(64, dtype=torch.bool)
        dropped[caption.kept] = False
        assert caption.attention.flatten(1)[:, dropped].abs().max() == 0
        total = caption.attention.sum((1, 2))
        assert (total <= 1 + 1e-5).all() and (total > 0).all()
        if captioner.config.encoder == "convnext":
            assert_close(total, torch.ones_like(total))


def test_sampling_follows_its_generator(captioner, images):
    def drawn(seed, **settings):
        generator = torch.Generator().manual_seed(seed)
        found = captioner.generate(images, method="sample", max_length=8, generator=generator, **settings)
        return [caption.ids for caption in found]

    assert drawn(0) == drawn(0) != drawn(1)
    cold = drawn(0, temperature=1e-4)
    assert cold == [caption.ids for caption in captioner.generate(images, max_length=8)]


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_asking_for_attention_changes_no_word(captioner, images, method):
    plain = captioner.generate(images, method=method, max_length=8)
    asked = captioner.generate(images, method=method, max_length=8, return_attention=True)
    assert [c.ids for c in plain] == [c.ids for c in asked]
    assert plain[0].attention is None


def test_log_prob_is_the_teacher_forced_one(captioner, images):
    for b, caption in enumerate(captioner.generate(images, max_length=5)):
        ids = torch.tensor([[1, *caption.ids]])
        logits = captioner(images[b : b + 1], ids[:, :-1])
        logits[..., [0, 1, 3]] = float("-inf")
        steps = logits.log_softmax(-1).gather(2, ids[:, 1:, None])
        assert caption.log_prob == pytest.approx(steps.sum().item(), abs=1e-3)


def test_pictures_paths_and_tensors_give_the_same_caption(captioner, tmp_path):
    picture = Image.effect_noise((80, 70), 90).convert("RGB")
    picture.save(tmp_path / "a.png")
    tensor = captioner.preprocessing(picture)[None]
    texts = {captioner.generate(x, max_length=6)[0].text for x in
             (picture, tmp_path / "a.png", str(tmp_path / "a.png"), [picture], tensor, tensor[0])}
    assert len(texts) == 1


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_impossible_ratios_are_refused(captioner, images, ratio):
    with pytest.raises(InputError, match="prune ratio"):
        captioner.generate(images, prune_ratio=ratio)


def test_convnext_has_no_attention_to_score_by(images):
    with pytest.raises(InputError, match="pilot"):
        build("convnext").generate(images, scorer="cls_attention")


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart(images, ids):
    """All of it trains: a pruned captioner fits three pictures."""
    captioner = build(fresh=True, dropout=0.0).train()
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=1e-2)
    for _ in range(30):
        logits = captioner(images, ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


# -- pruning inside the encoder -----------------------------------------------------------------------------

@pytest.mark.parametrize("schedule, left", [("0.5@2,4", 16), ("0.5@2/fuse", 33), ("0.5@3/merge", 32)])
def test_both_inside_and_before_the_decoder(images, schedule, left):
    """The ratio is of the tokens that come out of the encoder, and every one of them knows its cell."""
    captioner = build(schedule=Schedule.parse(schedule))
    tokens = captioner.encode(images)
    assert tokens.x.shape[1] == left
    for caption, kept in zip(captioner.generate(images, prune_ratio=0.5, return_attention=True, max_length=6),
                             captioner.prune(tokens, 0.5).index, strict=True):
        assert len(caption.kept) == keep_count(left, 0.5) and torch.equal(caption.kept, kept)
        assert caption.attention.shape[1:] == (8, 8)
        looked = caption.attention.sum(0).flatten() > 0
        if "merge" not in schedule and "fuse" not in schedule:
            assert torch.equal(looked.nonzero().flatten(), caption.kept)
        assert looked[caption.kept].all()


def test_tokens_that_stay_inside_are_those_of_the_picture(images):
    """A picture that differs in one corner only differs in tokens of that corner, whatever went on the way."""
    captioner = build(schedule=Schedule((2,), (0.25,), "norm_largest"))
    patches = captioner.encoder.patch_embed
    with torch.no_grad():
        patches.proj.bias.zero_(), captioner.encoder.pos_embed.mul_(0.01)
        bright = torch.zeros(1, 3, 64, 64)
        bright[..., 16:48, 32:] = 9.0 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        kept = captioner.encode(bright).index[0]
    rows, columns = kept // 8, kept % 8
    assert len(kept) == 16 and rows.tolist() == [r for r in (2, 3, 4, 5) for _ in range(4)]
    assert columns.tolist() == [4, 5, 6, 7] * 4


def test_an_unpruned_model_is_pruned_when_it_is_loaded(tmp_path, images):
    build().save(tmp_path / "model")
    captioner, schedule = Captioner.load(tmp_path / "model"), Schedule((2,), (0.5,), "key_norm")
    captioner.encoder.set_schedule(schedule)
    assert captioner.encode(images).x.shape[1] == 32
    captioner.save(tmp_path / "pruned")
    assert Captioner.load(tmp_path / "pruned").encoder.schedule == schedule


# -- checkpoints --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tie", [True, False])
def test_saved_and_loaded_is_the_same(tmp_path, images, ids, tie):
    captioner = build(tie_weights=tie)
    captioner.save(tmp_path / "model")
    loaded = Captioner.load(tmp_path / "model")
    assert loaded.config == captioner.config and loaded.vocabulary == captioner.vocabulary
    assert loaded.preprocessing == captioner.preprocessing
    assert torch.equal(loaded(images, ids), captioner(images, ids))


@pytest.mark.parametrize("schedule", ["0.7,0.5@2,4", "0.5@3/key_norm/fuse"])
def test_a_schedule_is_saved_and_loaded(tmp_path, images, ids, schedule):
    captioner = build(schedule=Schedule.parse(schedule))
    captioner.save(tmp_path / "model")
    loaded = Captioner.load(tmp_path / "model")
    assert loaded.config == captioner.config and loaded.encoder.schedule == Schedule.parse(schedule)
    assert torch.equal(loaded(images, ids), captioner(images, ids))


def test_a_checkpoint_that_left_its_schedule_to_the_clock_keeps_all_tokens(tmp_path):
    build().save(tmp_path / "model")
    head = json.loads((tmp_path / "model" / "config.json").read_text())
    head["config"]["schedule"] = "auto"  # as checkpoints could be written once
    (tmp_path / "model" / "config.json").write_text(json.dumps(head))
    loaded = Captioner.load(tmp_path / "model")
    assert loaded.config.schedule is loaded.encoder.schedule is None


def test_an_encoder_brings_its_schedule(tmp_path):
    captioner = Captioner(build().config, build().vocabulary, encoder=build_encoder("vit", schedule="0.5@3/grid"))
    captioner.save(tmp_path / "model")
    assert Captioner.load(tmp_path / "model").encoder.schedule == Schedule((3,), (0.5,), "grid")


def test_a_checkpoint_from_before_schedules(tmp_path, images, ids):
    captioner = build()
    captioner.save(tmp_path / "model")
    head = json.loads((tmp_path / "model" / "config.json").read_text())
    del head["config"]["schedule"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(head))
    loaded = Captioner.load(tmp_path / "model")
    assert loaded.config.schedule is None and torch.equal(loaded(images, ids), captioner(images, ids))


def test_half_precision_is_half_the_size(tmp_path, images, ids):
    captioner = build()
    captioner.save(tmp_path / "full"), captioner.save(tmp_path / "half", half=True)
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.53 * full
    assert (Captioner.load(tmp_path / "half")(images, ids) - captioner(images, ids)).abs().max() < 0.1


def damage(folder, what):
    head = json.loads((folder / "config.json").read_text())
    match what:
        case "truncated weights":
            data = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
        case "a weight that is no number":
            weights = load_file(folder / "model.safetensors")
            weights["projection.norm.weight"][3] = torch.inf
            save_file(weights, folder / "model.safetensors", {"vocabulary": build().vocabulary.fingerprint()})
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "broken json":
            (folder / "config.json").write_text("{")
        case "another version":
            head["format"] = 99
        case "unknown setting":
            head["config"]["moons"] = 2
        case "unknown setting of the schedule":
            head["config"]["schedule"] = {"after": [2], "keep": [0.5], "moons": 2}
        case "impossible schedule":
            head["config"]["schedule"] = {"after": [2], "keep": [1.5]}
        case "another vocabulary":
            head["vocabulary"][5] = "moon"
        case "another width":
            head["config"]["d_model"] = 64
    if what != "broken json":
        (folder / "config.json").write_text(json.dumps(head))


@pytest.mark.parametrize("what, says", [
    ("truncated weights", "model.safetensors"), ("no weights", "model.safetensors"), ("broken json", "config.json"),
    ("another version", "format 99"), ("unknown setting", "moons"), ("another vocabulary", "vocabulary"),
    ("unknown setting of the schedule", "moons"), ("impossible schedule", "keep rate 1.5"),
    ("another width", "do not fit"), ("a weight that is no number", "projection.norm.weight holds values"),
])
def test_damage_is_named(tmp_path, what, says):
    build().save(tmp_path / "model")
    damage(tmp_path / "model", what)
    with pytest.raises(CheckpointError, match=says):
        Captioner.load(tmp_path / "model")


def test_unknown_name_lists_the_shipped():
    with pytest.raises(CheckpointError, match="shipped are"):
        Captioner.load("no-such-model")


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path, monkeypatch, images, ids):
    captioner = build()
    captioner.save(tmp_path / "model")
    before = captioner(images, ids)

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(CheckpointError, match="No space left.*kept"):
        captioner.save(tmp_path / "model")
    assert torch.equal(Captioner.load(tmp_path / "model")(images, ids), before)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_crash_between_the_renames_loses_nothing(tmp_path):
    build().save(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".model.previous")
    assert Captioner.load(tmp_path / "model").config.encoder == "vit"


def test_replace_folder_leaves_no_half(tmp_path):
    with pytest.raises(KeyboardInterrupt), replace_folder(tmp_path / "x", CHECKPOINT) as new:
        (new / "model.safetensors").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
