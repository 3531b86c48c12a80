"""Does every picture, however odd its file, reach the encoder as timm would have shown it?"""

import math

import numpy as np
import pytest
import torch
from close import assert_close
from PIL import Image

from prunecap_lib.errors import InputError, MissingFileError
from prunecap_lib.preprocessing import Preprocessing, crop, draw_crops, load_image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with smooth parts and noise, so that a filter or an offset that is wrong shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], -1)
    return Image.fromarray((0.5 * smooth + rng.integers(0, 128, (height, width, 3))).astype(np.uint8))


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_equals_timm_evaluation_transform(interpolation, crop_pct, crop_mode):
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config({"input_size": (3, 64, 64), "interpolation": interpolation,
                                  "crop_pct": crop_pct, "crop_mode": crop_mode, "std": (0.5, 0.4, 0.3)})
    ours, timms = Preprocessing.from_timm(config), create_transform(**config, is_training=False)
    for size in [(64, 64), (157, 101), (99, 223), (333, 64), (20, 31), (1, 1)]:
        picture = noise(*size)
        expected = timms(picture)
        # A resize that rounds a half the other way is one 8-bit step.
        assert (ours(picture) - expected).abs().max() <= 1.01 / 255 / 0.3
        assert (ours(picture) - expected).abs().mean() < 1e-3


def test_picture_box_is_the_part_seen():
    plain = Preprocessing(64)
    assert plain.picture_box((64, 64)) == (0, 0, 64, 64)
    assert plain.picture_box((128, 64)) == (32, 0, 96, 64)
    assert Preprocessing(64, crop_pct=0.5).picture_box((256, 256)) == (64, 64, 192, 192)
    assert Preprocessing(64, crop_mode="squash").picture_box((300, 100)) == (0, 0, 300, 100)
    assert Preprocessing(64, crop_pct=0.5).whole().picture_box((300, 100)) == (0, 0, 300, 100)
    picture = Image.new("RGB", (200, 100), "black")
    picture.paste("red", (50, 0, 150, 100))  # exactly the centre square
    assert plain.to_uint8(picture)[0].float().mean() > 253


def test_normalize_takes_bytes_and_floats():
    prep = Preprocessing(32)
    pixels = prep.to_uint8(noise(40, 50))
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 32, 32)
    batch = torch.stack([pixels, pixels])
    assert torch.equal(prep.normalize(batch)[1], prep(noise(40, 50)))
    assert_close(prep.normalize(pixels.float() / 255), prep.normalize(pixels))


@pytest.mark.parametrize("wrong", [{"crop_pct": 0}, {"crop_pct": 1.2}, {"interpolation": "cubic"},
                                   {"crop_mode": "border"}, {"image_size": 0}, {"std": (1, 1, 0)},
                                   {"std": (1, 1, math.inf)}, {"mean": (0, math.nan, 0)}, {"mean": (0, 0)}])
def test_settings_are_checked(wrong):
    with pytest.raises(InputError, match="preprocessing"):
        Preprocessing(**wrong)


def test_settings_from_json_compare_equal():
    assert Preprocessing(mean=[0.5, 0.5, 0.5]) == Preprocessing(mean=(0.5, 0.5, 0.5))


def test_missing_folder_and_wrong_type(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere.jpg not found"):
        load_image(tmp_path / "nowhere.jpg")
    with pytest.raises(MissingFileError, match="download it first"):
        load_image("https://example.org/cat.jpg")
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(InputError, match="not int"):
        load_image(3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_truncated_file(tmp_path, suffix, share):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    noise(120, 90).save(whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=f"cut.{suffix}"):
        load_image(cut)


def test_truncated_file_opened_by_the_caller(tmp_path):
    noise(120, 90).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    with Image.open(tmp_path / "cut.jpg") as lazy, pytest.raises(InputError, match="cut.jpg"):
        load_image(lazy)  # Pillow reads the pixels only now


def test_not_a_picture(tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("a dog runs on the beach\n" * 50)
    with pytest.raises(InputError, match="save it as JPEG or PNG"):
        load_image(text)


@pytest.mark.parametrize("value", [0, 90, 255])
def test_cmyk(tmp_path, value):
    Image.new("CMYK", (20, 10), (0, 255, value, 0)).save(tmp_path / "print.jpg", quality=95)
    picture = load_image(tmp_path / "print.jpg")
    red, green, blue = picture.getpixel((5, 5))
    assert picture.mode == "RGB" and red > 240 and green < 15 and abs(blue - (255 - value)) < 15


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_is_scaled_and_not_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / f"deep.{suffix}")
    grey = np.asarray(load_image(tmp_path / f"deep.{suffix}"))
    assert np.abs(grey[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("low, high, expected", [(0, 1, 255), (0, 255, 255), (0, 65535, 255), (-5, 5, 255)])
def test_float_ranges(low, high, expected):
    picture = load_image(Image.fromarray(np.linspace(low, high, 50, dtype=np.float32)[None]))
    assert picture.getpixel((0, 0)) == (0, 0, 0) and picture.getpixel((49, 0)) == (expected,) * 3


def test_palette_and_alpha_lie_over_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.putpixel((2, 2), (0, 0, 255, 255))
    clear.save(tmp_path / "clear.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.putpixel((2, 2), 0)
    palette.save(tmp_path / "palette.gif", transparency=1)
    for name in ("clear.png", "palette.gif"):
        picture = load_image(tmp_path / name)
        assert picture.mode == "RGB", name
        assert picture.getpixel((0, 0)) == (255, 255, 255) and picture.getpixel((2, 2)) == (0, 0, 255), name
    opaque = palette.convert("RGB").quantize(4)
    assert load_image(opaque).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "YCbCr", "HSV"])
def test_other_modes(mode):
    assert load_image(Image.new("RGB", (5, 5), "white").convert("L" if mode in "1LA" else "RGB").convert(mode)
                      ).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("orientation, corner", [(1, (0, 0)), (3, (19, 9)), (6, (9, 0)), (8, (0, 19))])
def test_exif_rotation_is_applied_once(tmp_path, orientation, corner):
    picture = Image.new("RGB", (20, 10), "black")
    picture.paste("white", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    upright = load_image(tmp_path / "phone.jpg")
    assert upright.getpixel(corner)[0] > 200
    assert load_image(upright).tobytes() == upright.tobytes()


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "dot.png")
    pixels = Preprocessing(32).to_uint8(load_image(tmp_path / "dot.png"))
    assert pixels.flatten(1).unique(dim=1).tolist() == [[10], [20], [30]]


@pytest.mark.parametrize("size", [(20_000, 3), (1, 20_000)])
def test_a_20000_pixel_strip_needs_no_gigabytes(size):
    assert Preprocessing(224).to_uint8(load_image(Image.new("RGB", size, "red")))[0].float().mean() == 255


def test_augmentation_is_light_and_repeatable():
    batch = torch.stack([Preprocessing(64).to_uint8(noise(80, 70, seed)) for seed in range(4)])
    one, two, other = (crop(batch, draw_crops(4, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2))
    assert one.shape == batch.shape and one.dtype == torch.uint8
    assert torch.equal(one, two) and not torch.equal(one, other)
    squares = draw_crops(1000, torch.Generator().manual_seed(0))
    sides, centres = squares[:, 0, 0], squares[:, :, 2]
    assert 0.8 <= sides.min() < 0.81 and 0.99 < sides.max() <= 1 and (centres.abs().T <= 1 - sides).all()
    whole = torch.eye(2, 3).expand(4, 2, 3)
    assert torch.equal(crop(batch, whole), batch)
