"""Does training outlive one bad picture and stop at many? Is the fast way to decode the exact one to a step?"""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image
from shard_photos import photos

from prunecap_lib.datasets import CaptionDataset
from prunecap_lib.datasets.loading import ImageLoader, exact_pixels, fast_pixels
from prunecap_lib.errors import InputError, MissingFileError, PictureError
from prunecap_lib.preprocessing import Preprocessing, decode_image, load_image
from prunecap_lib.text import PAD

PREP = Preprocessing(32)


def cut(source, i):
    source.paths[i].write_bytes(source.paths[i].read_bytes()[:300])


@pytest.fixture
def source(tmp_path):
    return photos(tmp_path / "photos")


@pytest.mark.parametrize("look", [exact_pixels, fast_pixels])
def test_a_neighbour_stands_in_and_is_counted_once(source, look):
    cut(source, 3), cut(source, 1)
    readable = ImageLoader(source, PREP, look, most=0.1)
    with pytest.warns(UserWarning, match=r"3.jpg cannot be read.*goes on without it \(unreadable picture 1, 2 allowed"):
        images, shown = readable([2, 3, 5, 6])
    assert shown == [0, 2, 2, 3] and torch.equal(images[1], look(source, 5, PREP))
    with pytest.warns(UserWarning, match="1.jpg.*picture 2,"):
        images, shown = readable([7, 1])  # the last one takes the first
    assert shown == [0, 0] and torch.equal(images[0], images[1])
    assert readable([3, 8])[1] == [1, 1]  # no second warning, no second count
    assert readable.unreadable.nonzero()[:, 0].tolist() == [1, 3]
    images, shown = readable([0, 4])
    assert shown == [0, 1] and torch.equal(images, torch.stack([look(source, i, PREP) for i in (0, 4)]))


@pytest.mark.filterwarnings("ignore:.*goes on without it")
def test_too_many_stop(source):
    with pytest.raises(InputError, match="none of 1 pictures of a batch"):
        cut(source, 0), ImageLoader(source, PREP, exact_pixels, most=0.5)([0])
    for i in (1, 2):
        cut(source, i)
    readable = ImageLoader(source, PREP, exact_pixels, most=0.1)
    with pytest.raises(InputError, match="2.jpg .*unreadable picture 3 of 23, and max_unreadable 0.1 allows 2"):
        readable([0, 1, 2, 3])
    source.paths[9].unlink()
    with pytest.raises(MissingFileError):  # that is no bad picture: the folder has changed
        readable([9, 10])


class Batch(torch.utils.data.Dataset):
    def __init__(self, readable):
        self.readable = readable

    def __getitem__(self, positions):
        return self.readable(positions)[1]


@pytest.mark.filterwarnings("ignore:.*goes on without it")
def test_workers_count_together(source):
    cut(source, 1), cut(source, 3)
    readable = ImageLoader(source, PREP, exact_pixels, most=0.1)
    lists = [[0, 1], [2, 3], [1, 0], [3, 2]]
    shown = list(torch.utils.data.DataLoader(Batch(readable), sampler=lists, batch_size=None, num_workers=2))
    assert shown == [[0, 0], [0, 0], [1, 1], [1, 1]] and readable.unreadable.sum() == 2


def test_batches_show_the_stand_in_with_its_own_captions(source):
    from prunecap_lib import TrainConfig
    from prunecap_lib.training.batches import Batches
    from prunecap_lib.training.build import new_captioner

    config = TrainConfig(encoder="convnext", image_size=32, captions_per_image=1, batch_size=2, max_unreadable=0.1,
                         d_model=16, layers=1, heads=2, ffn=16)
    torch.manual_seed(0)
    captioner = new_captioner(config, source.captions)
    cut(source, 1)
    batches = Batches(source, captioner, config)
    with pytest.warns(UserWarning, match="1.jpg"):
        found = [(image, ids) for images, rows in batches.epoch(0, shuffle=False, drop_last=False)
                 for image, ids in zip(images, rows, strict=True)]
    for i in range(len(source)):
        shown = 0 if i == 1 else i
        assert torch.equal(found[i][0], captioner.preprocessing(source.image(shown)))
        assert [id for id in found[i][1].tolist() if id != PAD] in batches.ids[shown]


def photograph(width, height, **save):
    """A smooth picture with edges, as a JPEG's bytes."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([127 + 120 * np.sin(x / 17), 255 * (x // 40 % 2), y * 255 / height], -1).astype(np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels).convert(save.pop("mode", "RGB"))
    image.save(file, save.pop("format", "JPEG"), **save)
    return file.getvalue()


class Files(CaptionDataset):
    in_files = True

    def __init__(self, *contents):
        self.contents = contents

    def encoded(self, i):
        return self.contents[i]

    def image(self, i):
        return decode_image(self.contents[i], f"number {i}")


def rotated(orientation=6, *, where="exif", mode="RGB", size=(300, 200)):
    """A JPEG that says how it lies: in EXIF, in XMP, or in both, where XMP says something else."""
    told = {}
    if where in ("exif", "both"):
        told["exif"] = Image.Exif()
        told["exif"][0x0112] = orientation
    if where in ("xmp", "both"):
        number = orientation if where == "xmp" else orientation % 8 + 1
        told["xmp"] = b'<rdf:Description tiff:Orientation="%d"/>' % number
    return photograph(*size, mode=mode, **told)


@pytest.mark.parametrize("prep", [Preprocessing(224, crop_pct=0.875), Preprocessing(64, interpolation="bilinear"),
                                  Preprocessing(96, crop_pct=0.9).whole(), Preprocessing(300)], ids=str)
@pytest.mark.parametrize("data", [photograph(640, 480), photograph(333, 500), photograph(256, 256), photograph(50, 40),
                                  photograph(300, 200, mode="L"), rotated()], ids=range(6))
def test_fast_is_exact_to_a_step(prep, data):
    fast, exact = (look(Files(data), 0, prep) for look in (fast_pixels, exact_pixels))
    assert fast.shape == exact.shape and fast.dtype == torch.uint8
    difference = (fast.int() - exact.int()).abs().float()
    assert difference.mean() < 0.1 and (difference > 2).float().mean() < 0.01


@pytest.mark.parametrize("data", [photograph(90, 60, format="PNG"), photograph(90, 60, mode="CMYK"),
                                  photograph(900, 60)], ids=["png", "cmyk", "panorama"])
def test_what_is_odd_goes_the_exact_way(data):
    assert torch.equal(fast_pixels(Files(data), 0, PREP), exact_pixels(Files(data), 0, PREP))


@pytest.mark.parametrize("where", ["exif", "xmp", "both"])
def test_fast_turns_what_exact_turns(where):
    """Over all orientations, modes and sizes: a picture that is not turned alike differs everywhere."""
    for orientation in range(1, 9):
        for mode, size in (("RGB", (80, 60)), ("L", (60, 80)), ("CMYK", (50, 50)), ("RGB", (1, 9)), ("L", (301, 200))):
            data = Files(rotated(orientation, where=where, mode=mode, size=size))
            difference = (fast_pixels(data, 0, PREP).int() - exact_pixels(data, 0, PREP).int()).abs().float()
            assert difference.mean() < 0.5, (orientation, mode, size)


def test_fast_gives_way_where_only_exact_reads_at_reduced_size(monkeypatch):
    from prunecap_lib import preprocessing

    monkeypatch.setattr(preprocessing, "MAX_PIXELS", 60_000)
    data = Files(photograph(400, 300))
    assert data.image(0).size == (50, 38)
    assert torch.equal(fast_pixels(data, 0, PREP), exact_pixels(data, 0, PREP))


@pytest.mark.parametrize("data", [photograph(90, 60)[:400], b"\xff\xd8\xff", b"no picture", b""])
def test_damage_is_told_of(data):
    with pytest.raises(PictureError, match="number 0"):
        fast_pixels(Files(data), 0, PREP)


def test_pictures_of_the_encoders_scale_are_not_changed_at_all():
    prep = Preprocessing(224, crop_pct=0.875)  # scales the shorter side to 256, which it has
    data = Files(photograph(341, 256))
    assert torch.equal(fast_pixels(data, 0, prep), exact_pixels(data, 0, prep))


def test_only_regular_files_are_read(source):
    os.mkfifo(source.paths[0].with_name("pipe.jpg"))
    source.paths[0] = source.paths[0].with_name("pipe.jpg")
    for look in (exact_pixels, fast_pixels):
        with pytest.raises(PictureError, match="is no regular file"):
            look(source, 0, PREP)


def test_bytes_are_read_like_files(tmp_path):
    for name, data in (("a.jpg", rotated()), ("b.png", photograph(30, 20, format="PNG", mode="RGBA"))):
        (tmp_path / name).write_bytes(data)
        ours, theirs = decode_image(data, "x"), load_image(tmp_path / name)
        assert ours.size == theirs.size and ours.tobytes() == theirs.tobytes() and not ours.info
