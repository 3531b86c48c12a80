"""Are cached features what the encoder says, and is a cache of anything else refused or continued?"""

import dataclasses
import json
import os
import pickle
import threading

import pytest
import torch
from close import assert_close
from PIL import Image

from prunecap_lib import files
from prunecap_lib.datasets import CaptionDataset, PhotoDataset
from prunecap_lib.errors import InputError, MissingFileError
from prunecap_lib.features import FeatureCache, build, default_folder, forecast_features
from prunecap_lib.features.checks import fingerprint
from prunecap_lib.files import locked
from prunecap_lib.preprocessing import Preprocessing
from prunecap_lib.pruning import merge_similar, prune_tokens
from prunecap_lib.tokens import VisualTokens


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


class Pictures(CaptionDataset):
    """Twelve plain pictures in memory."""

    name, split = "toy", "train"

    def __init__(self, n=12, shift=0):
        self.image_ids = [f"p{i}.jpg" for i in range(n)]
        self.captions = [["a picture"]] * n
        self.shift, self.decoded = shift, []

    def image(self, i):
        self.decoded.append(i)
        return Image.new("RGB", (20, 20), (20 * i + self.shift, 100, 255 - 20 * i))


class Toy(torch.nn.Module):
    """An encoder of 2x2 tokens with one prefix token; it can tell about attention if it is a 'vit'."""

    schedule, depth = None, 1

    def block_signals(self, number):
        return () if self.name == "toy cnn" else ("cls_attention",)

    def __init__(self, kind="vit", scale=1.0):
        super().__init__()
        self.name, self.preprocessing = f"toy {kind}", Preprocessing(16)
        self.patches = torch.nn.Conv2d(3, 8, 8, 8)
        torch.nn.init.normal_(self.patches.weight, std=scale)

    def forward(self, images, *, need_attention=False):
        x = self.patches(images).flatten(2).mT
        if self.name == "toy cnn":
            if need_attention:
                raise InputError("no attention here")
            return VisualTokens.full(x, (2, 2))
        tokens = VisualTokens.full(x, (2, 2), prefix=x.mean(1, keepdim=True))
        if need_attention:
            tokens = VisualTokens.full(x, (2, 2), tokens.prefix, cls_attention=x.softmax(1)[..., 0])
        return tokens.keep(torch.tensor([[0, 2, 3]]).expand(len(x), 3)) if "pruning" in self.name else tokens


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return Toy()


def make(dataset, encoder, folder, **options):
    return FeatureCache.open_or_build(dataset, encoder, folder, **{"batch_size": 5, "bf16": False,
                                                                   "progress": False, **options})


def expected(dataset, encoder, indices, need_attention=True):
    with torch.no_grad():
        return encoder(torch.stack([encoder.preprocessing(dataset.image(i)) for i in indices]),
                       need_attention=need_attention)


def test_tokens_are_the_encoders(tmp_path, toy):
    cache = make(Pictures(), toy, tmp_path / "cache")
    tokens, direct = cache.tokens([7, 0, 7]), expected(Pictures(), toy, [7, 0, 7])
    assert len(cache) == 12 and tokens.grid == (2, 2) and tokens.x.dtype == torch.float32
    for name in ("x", "prefix", "cls_attention"):
        assert_close(getattr(tokens, name), getattr(direct, name), within=1e-3)
    assert tokens.attention_received is None and torch.equal(tokens.index, direct.index)
    assert cache.tokens(torch.tensor([1]), dtype=torch.bfloat16).x.dtype == torch.bfloat16
    assert_close(cache.pooled(batch_size=5)[7], tokens.x[0].mean(0))


def test_an_encoder_without_attention(tmp_path):
    tokens = make(Pictures(), Toy("cnn"), tmp_path / "cache").tokens([3])
    assert tokens.prefix is None and tokens.cls_attention is None


def test_an_encoder_that_prunes_keeps_its_cells(tmp_path):
    tokens = make(Pictures(), Toy("pruning"), tmp_path / "cache").tokens([3, 4])
    assert tokens.x.shape == (2, 3, 8) and tokens.index.tolist() == [[0, 2, 3]] * 2


def test_an_encoder_that_merges_keeps_its_groups(tmp_path):
    class Merging(Toy):
        def forward(self, images, *, need_attention=False):
            return merge_similar(super().forward(images, need_attention=need_attention), 1)

    encoder = Merging("vit")
    cached = make(Pictures(), encoder, tmp_path / "cache").tokens([3, 4])
    direct = expected(Pictures(), encoder, [3, 4])
    assert torch.equal(cached.group, direct.group) and torch.equal(cached.index, direct.index)
    assert cached.size.sum() == 8


def test_stored_pruned_is_what_pruning_later_leaves(tmp_path, toy):
    """By 'grid' to the bit: which cells stay does not depend on the rounding to 16 bits."""
    whole = make(Pictures(), toy, tmp_path / "whole").tokens([7, 0])
    for scorer in ("grid", "norm_largest", "cls_attention"):
        stored = make(Pictures(), toy, tmp_path / scorer, pruned=(scorer, 0.5)).tokens([7, 0])
        later = prune_tokens(whole, 0.5, scorer)
        assert torch.equal(stored.x, later.x) and torch.equal(stored.index, later.index)
        assert torch.equal(stored.prefix, later.prefix) and stored.cls_attention is None
        assert (tmp_path / scorer / "x.bin").stat().st_size == 12 * 2 * 8 * 2
        assert prune_tokens(stored, 0.5, scorer) is stored  # and never twice
        with pytest.raises(InputError, match=f"stored pruned by '{scorer}' at 0.5, and cannot be .* by 'grid' at 0.2"):
            prune_tokens(stored, 0.2, "grid")
    with pytest.raises(InputError, match="holds tokens pruned by 'grid' at 0.5, and asked for are all tokens"):
        make(Pictures(), toy, tmp_path / "grid")
    with pytest.raises(InputError, match="holds all tokens, and asked for are tokens pruned by 'grid' at 0.25"):
        make(Pictures(), toy, tmp_path / "whole", pruned=("grid", 0.25))
    with pytest.raises(InputError, match="'pilot'.*cannot be stored"):
        make(Pictures(), toy, tmp_path / "pilot", pruned=("pilot", 0.5))


@pytest.mark.parametrize("kind, pruned", [("vit", None), ("cnn", None), ("pruning", None), ("vit", ("grid", 0.5))])
def test_forecast_is_the_size_on_disk(tmp_path, kind, pruned):
    folder = tmp_path / "new" / "cache"
    expected = forecast_features(Pictures(), Toy(kind), folder, pruned=pruned, batch_size=5, bf16=False)
    assert not (tmp_path / "new").exists() and expected.pictures == 12
    make(Pictures(), Toy(kind), folder, pruned=pruned)
    assert expected.bytes == sum(file.stat().st_size for file in folder.glob("*.bin"))


def test_forecast_of_the_time():
    pictures = Pictures()
    expected = forecast_features(pictures, Toy(), "nowhere", batch_size=5, bf16=False, workers=2)
    assert sorted(pictures.decoded) == [0, 1, 2, 3, 4] and expected.free_bytes > 0
    expected = dataclasses.replace(expected, load_seconds=4.0, encode_seconds=3.0)
    assert expected.seconds == 12 * 3 and dataclasses.replace(expected, workers=0).seconds == 12 * 7
    assert dataclasses.replace(expected, workers=1).seconds == 12 * 4


def test_second_opening_computes_nothing(tmp_path, toy, monkeypatch):
    make(Pictures(), toy, tmp_path / "cache")
    monkeypatch.setattr(build, "encode", None)
    pictures = Pictures()
    make(pictures, toy, tmp_path / "cache")
    assert len(set(pictures.decoded)) <= 3  # only the samples that tell whether these are the same pictures


def test_fewer_and_more_pictures_share_one_cache(tmp_path, toy):
    small = make(Pictures(4), toy, tmp_path / "cache")
    pictures = Pictures(12)
    large = make(pictures, toy, tmp_path / "cache")
    assert torch.equal(small.tokens([2]).x, large.tokens([2]).x)
    assert 1 not in pictures.decoded and 11 in pictures.decoded  # the others of the first four are looked at
    again = make(Pictures(3), toy, tmp_path / "cache")
    assert len(again) == 3 and torch.equal(again.tokens([2]).x, large.tokens([2]).x)
    chosen = FeatureCache(tmp_path / "cache", ["p9.jpg", "p2.jpg"])
    assert torch.equal(chosen.tokens([1]).x, again.tokens([2]).x)


def test_interrupted_build_goes_on(tmp_path, toy, monkeypatch):
    pictures = Pictures()
    monkeypatch.setattr(pictures, "image", lambda i: (_ for _ in ()).throw(KeyboardInterrupt()) if i == 10
                        else Pictures.image(pictures, i))
    with pytest.raises(KeyboardInterrupt):
        make(pictures, toy, tmp_path / "cache")
    partial = tmp_path / "cache.partial"
    assert not (tmp_path / "cache").exists() and partial.is_dir()
    with (partial / "x.bin").open("ab") as file:
        file.write(b"half a row")
    pictures = Pictures()
    cache = make(pictures, toy, tmp_path / "cache")
    assert not partial.exists() and pictures.decoded.count(7) == 0
    direct = expected(pictures, toy, range(12))
    assert_close(cache.tokens(range(12)).x, direct.x, within=1e-3)


def test_a_stale_remainder_is_not_continued(tmp_path, toy):
    make(Pictures(7), toy, tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "cache.partial")
    other = Toy(scale=2.0)
    cache = make(Pictures(), other, tmp_path / "cache")
    assert_close(cache.tokens([0]).x, expected(Pictures(), other, [0]).x, within=1e-3)


def test_other_weights_and_other_pictures_are_refused(tmp_path, toy):
    make(Pictures(), toy, tmp_path / "cache")
    with pytest.raises(InputError, match="other weights or preprocessing.*delete the folder"):
        make(Pictures(), Toy(scale=2.0), tmp_path / "cache")
    with pytest.raises(InputError, match="image p0.jpg has changed"):
        make(Pictures(shift=30), toy, tmp_path / "cache")
    renamed = Pictures()
    renamed.image_ids = [f"q{i}.jpg" for i in range(12)]
    with pytest.raises(InputError, match="made for other pictures"):
        make(renamed, toy, tmp_path / "cache")


def test_fingerprint_sees_every_weight_and_setting(toy):
    before = fingerprint(toy)
    assert before == fingerprint(toy)
    toy.preprocessing = Preprocessing(16, crop_pct=0.9)
    assert fingerprint(toy) != before
    toy.preprocessing = Preprocessing(16)
    with torch.no_grad():
        toy.patches.bias[7] += 1e-6
    assert fingerprint(toy) != before


def test_damaged_cache(tmp_path, toy):
    with pytest.raises(MissingFileError, match="not found"):
        FeatureCache(tmp_path / "cache")
    make(Pictures(), toy, tmp_path / "cache")
    with (tmp_path / "cache" / "x.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(InputError, match="x.bin is missing, cut short or too long; delete"):
        make(Pictures(), toy, tmp_path / "cache")
    meta = tmp_path / "cache" / "features.json"
    meta.write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="format 99"):
        FeatureCache(tmp_path / "cache")
    with pytest.raises(InputError, match="no features of image nobody"):
        make(Pictures(), toy, tmp_path / "other")
        FeatureCache(tmp_path / "other", ["nobody"])


def test_values_beyond_16_bits_name_the_picture(tmp_path, toy):
    with torch.no_grad():
        toy.patches.weight[:, 0] = 2000.0  # red overflows, from some picture on
    with pytest.raises(InputError, match=r"features \(x\) of image p\d+.jpg exceed 65504"):
        make(Pictures(), toy, tmp_path / "cache")


def test_disk_space_is_checked_first(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(InputError, match="12 pictures take about 0 MB, but 0 MB are free"):
        make(Pictures(), toy, tmp_path / "cache")


def test_a_full_disk_keeps_what_is_done(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(files, "_LEAST", 0)  # it becomes full while they are built
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    torch.manual_seed(0)
    pictures = Pictures(200)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, before[1]))  # features of 125 pictures fit
    try:
        with pytest.raises(InputError, match="cache.partial: File too large; make room"):
            make(pictures, toy, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    cache = make(pictures, toy, tmp_path / "cache")
    some = [0, 124, 125, 126, 199]
    assert_close(cache.tokens(some).x, expected(pictures, toy, some).x, within=1e-3)


def test_a_bad_picture_keeps_what_is_done(tmp_path, toy, monkeypatch):
    pictures = Pictures()

    def fail(i):
        if i == 10:
            raise InputError("picture p10.jpg cannot be read")
        return Pictures.image(pictures, i)

    monkeypatch.setattr(pictures, "image", fail)
    with pytest.raises(InputError, match="p10.jpg cannot be read"):
        make(pictures, toy, tmp_path / "cache")
    assert (tmp_path / "cache.partial" / "x.bin").stat().st_size == 10 * 4 * 8 * 2


def test_a_remainder_of_other_pictures_is_not_continued(tmp_path, toy):
    """The ids are the same, as those of Scenes of two seeds are."""
    make(Pictures(7), toy, tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "cache.partial")
    others = Pictures(shift=30)
    cache = make(others, toy, tmp_path / "cache")
    assert_close(cache.tokens([0, 6]).x, expected(others, toy, [0, 6]).x, within=1e-3)


def test_the_second_builder_waits_and_touches_nothing(tmp_path, toy, capsys):
    """Not even where it wants other pictures: it would throw away what the first is writing."""
    make(Pictures(9), toy, tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "cache.partial")
    built = []
    with locked(tmp_path / ".cache.lock", print):
        second = threading.Thread(target=lambda: built.append(make(Pictures(4), toy, tmp_path / "cache")))
        second.start()
        second.join(0.3)
        assert second.is_alive() and "another process is at work here" in capsys.readouterr().err
        assert (tmp_path / "cache.partial" / "x.bin").stat().st_size == 9 * 4 * 8 * 2
        (tmp_path / "cache.partial").rename(tmp_path / "cache")  # the first has finished
    second.join(10)
    assert len(built[0]) == 4 and len(FeatureCache(tmp_path / "cache")) == 9


def test_pickles_without_the_data(tmp_path, toy):
    cache = make(Pictures(), toy, tmp_path / "cache")
    cache.tokens([0])
    copy = pickle.loads(pickle.dumps(cache))
    assert len(pickle.dumps(cache)) < 5000 and torch.equal(copy.tokens([5]).x, cache.tokens([5]).x)


def test_workers_and_training_mode(tmp_path, toy):
    toy.train()
    cache = make(Pictures(), toy, tmp_path / "cache", workers=1)
    assert toy.training and len(cache) == 12


def test_default_folder(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNECAP_DATA", str(tmp_path))
    toy.name = "tf_efficientnet_lite0@last_stage"
    folder = default_folder(Pictures(), toy)
    assert folder == tmp_path / "features" / "toy-train-tf_efficientnet_lite0_last_stage-16"
    toy.preprocessing = Preprocessing(16, crop_pct=0.875).whole()
    assert default_folder(Pictures(), toy).name.endswith("-16-whole")
    assert default_folder(Pictures(), toy, ("grid", 0.3)).name.endswith("-16-whole-grid-0.3")


class Files(Pictures):
    """The same in files, as ``PhotoDataset`` has them."""

    in_files = True

    def __init__(self, root, n=5):
        super().__init__(n)
        self.paths = [root / id.replace("jpg", "png") for id in self.image_ids]
        for i, path in enumerate(self.paths):
            if not path.exists():
                super().image(i).save(path)

    image, encoded, stamp = PhotoDataset.image, PhotoDataset.encoded, PhotoDataset.stamp


def test_a_replaced_picture_is_noticed_and_a_touched_one_is_not(tmp_path, toy, monkeypatch):
    make(Files(tmp_path), toy, tmp_path / "cache")
    data = Files(tmp_path)
    stored = (tmp_path / "cache" / "stamp.bin").read_bytes()
    os.utime(data.paths[1], ns=(1, 1))
    make(data, toy, tmp_path / "cache")
    assert (tmp_path / "cache" / "stamp.bin").read_bytes() != stored  # so that its bytes are compared once
    monkeypatch.setattr(data, "encoded", None)
    make(data, toy, tmp_path / "cache")
    for path in (data.paths[1], data.paths[3]):  # neither is looked at by the checks of a few pictures
        good = path.read_bytes()
        Image.new("RGB", (20, 20), "white").save(path)
        with pytest.raises(InputError, match=f"image {path.stem}.jpg has changed; delete the folder"):
            make(Files(tmp_path), toy, tmp_path / "cache")
        path.write_bytes(good)
    make(Files(tmp_path, 3), toy, tmp_path / "cache")  # a part of it is served, too
    data.paths[4].unlink()
    with pytest.raises(MissingFileError, match="p4.png: No such file"):
        data.stamp(4)


def test_a_build_that_stopped_does_not_go_on_over_a_replaced_picture(tmp_path, toy):
    make(Files(tmp_path), toy, tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "cache.partial")
    with (tmp_path / "cache.partial" / "x.bin").open("r+b") as file:
        file.truncate(3 * 4 * 8 * 2)
    Image.new("RGB", (20, 20), "white").save(tmp_path / "p1.png")
    data = Files(tmp_path)
    cache = make(data, toy, tmp_path / "cache")
    torch.testing.assert_close(cache.tokens([1]).x, expected(data, toy, [1]).x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["x", "prefix", "checksum", "digest"])
def test_rot_is_noticed_when_it_is_read(tmp_path, toy, name):
    make(Files(tmp_path), toy, tmp_path / "cache")
    file = tmp_path / "cache" / f"{name}.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 5 * 2] ^= 1  # of picture 2
    file.write_bytes(content)
    cache = make(Files(tmp_path), toy, tmp_path / "cache")
    cache.tokens([0, 4])
    with pytest.raises(InputError, match="features of image p2.jpg are damaged; delete the folder"):
        cache.tokens([1, 2])


def test_a_cache_of_an_earlier_version_is_read_and_said_to_know_less(tmp_path, toy, capsys):
    make(Files(tmp_path), toy, tmp_path / "cache")
    meta = json.loads((tmp_path / "cache" / "features.json").read_text())
    for name in ("checksum", "stamp", "digest"):
        del meta["shapes"][name]
        (tmp_path / "cache" / f"{name}.bin").unlink()
    del meta["pruned"]
    (tmp_path / "cache" / "features.json").write_text(json.dumps(meta))
    cache = make(Files(tmp_path), toy, tmp_path / "cache")
    assert cache.tokens([3]).x.shape == (1, 4, 8) and "made by an earlier version" in capsys.readouterr().err
