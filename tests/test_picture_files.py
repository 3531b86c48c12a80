"""Is every picture that people have read upright, and everything else refused at once, in one sentence?"""

import io
import itertools
import os
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, features

from prunecap_lib import preprocessing
from prunecap_lib.errors import InputError, PictureError
from prunecap_lib.preprocessing import FORMATS, IMAGE_SUFFIXES, decode_image, load_image, open_picture, orientation


def coloured(width=24, height=16, mode="RGB") -> Image.Image:
    """No turn or mirroring of it looks like another."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.ogrid[0:250:width * 1j].real, np.ogrid[0:250:height * 1j].real[:, None]
    pixels[: height // 2, : width // 2, 2] = 255
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, format="JPEG", **save) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **save)
    return file.getvalue()


def xmp(number: int) -> bytes:
    return (b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
            b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff='
            b'"http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
            ) % number


def exif(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def turned(image: Image.Image, number: int) -> Image.Image:
    """How Pillow itself shows a picture with this number in EXIF."""
    tagged = image.copy()
    tagged.info["exif"] = exif(number).tobytes()
    return ImageOps.exif_transpose(tagged)


def says(format: str, by_exif: int | None, by_xmp: int | None) -> dict:
    """Arguments of ``save`` that write down how the picture lies."""
    told = {} if by_exif is None else {"exif": exif(by_exif)}
    if by_xmp is not None and format == "PNG":
        told["pnginfo"] = PngImagePlugin.PngInfo()
        told["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp(by_xmp).decode())
    elif by_xmp is not None and format == "TIFF":
        told = {"tiffinfo": {700: xmp(by_xmp)} | ({} if by_exif is None else {274: by_exif})}
    elif by_xmp is not None:
        told["xmp"] = xmp(by_xmp)
    return told


@pytest.mark.parametrize("where", ["exif", "xmp", "both"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_as_exif_says_or_else_xmp(format, where):
    lossless = {"WEBP": {"lossless": True}}.get(format, {})
    for number, mode in itertools.product(range(1, 9), ("RGB", "L")):
        by_exif, by_xmp = {"exif": (number, None), "xmp": (None, number), "both": (number, number % 8 + 1)}[where]
        plain = load_image(encoded(coloured(mode=mode), format, **lossless))
        read = load_image(encoded(coloured(mode=mode), format, **lossless, **says(format, by_exif, by_xmp)))
        expected = turned(plain, number)
        assert read.size == expected.size and read.tobytes() == expected.tobytes(), (number, mode)
        assert orientation(read) == 1  # nothing is left that could turn it once more


@pytest.mark.parametrize("number", [0, 9, 65535, "left", (6, 6)])
def test_an_orientation_that_is_none_is_no_orientation(number):
    image = coloured()
    image.info["exif"] = None
    image.getexif()[0x0112] = number
    assert load_image(image).tobytes() == coloured().tobytes()


def test_damaged_metadata_costs_nothing_but_itself():
    data = encoded(coloured())
    expected = load_image(data).tobytes()
    for broken in (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 22, b"Exif\0\0II", b"http://ns.adobe.com/xap/1.0/\0<x"):
        segment = b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken
        assert load_image(data[:2] + segment + data[2:]).tobytes() == expected
    wrong_profile = encoded(coloured(), icc_profile=b"no profile")
    assert load_image(wrong_profile).tobytes() == expected


@pytest.fixture
def heif():
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    before = dict(Image.OPEN)
    Image.OPEN.pop("HEIF"), Image.ID.remove("HEIF")  # as before anybody registered it
    yield pillow_heif
    Image.OPEN.update(before)
    if "HEIF" not in Image.ID:
        Image.ID.append("HEIF")


@pytest.mark.parametrize("number", [1, 6])
def test_heic_is_read_under_any_name(heif, tmp_path, number):
    """HEIF has its own note of how a picture lies, which its decoder obeys; what EXIF repeats is not obeyed again."""
    path = tmp_path / "IMG_0001.jpg"  # as some programs copy it from phones
    path.write_bytes(encoded(coloured(64, 48), "HEIF", quality=95, exif=exif(number)))
    read, expected = np.asarray(load_image(path), int), np.asarray(coloured(64, 48), int)
    assert read.shape == expected.shape and np.abs(read - expected).mean() < 6


def test_heic_without_the_package_says_which(heif, monkeypatch):
    data = encoded(coloured(64, 48), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match="HEIC format.*pip install"):
        decode_image(data, "phone.heic")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("number", [1, 6])
def test_avif_is_read(number):
    read = np.asarray(load_image(encoded(coloured(64, 48), "AVIF", quality=95, exif=exif(number))), int)
    assert np.abs(read - np.asarray(turned(coloured(64, 48), number), int)).mean() < 6


def test_suffixes_are_those_of_the_formats():
    Image.init()
    known = {suffix: format for suffix, format in Image.registered_extensions().items() if format in FORMATS}
    known[".mpo"] = "JPEG"  # several JPEGs in one file, of which the first is read
    assert set(known) <= IMAGE_SUFFIXES
    assert {suffix for format in set(known.values()) for suffix in FORMATS[format]} == set(known)


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO", "TGA", "PCX"])
def test_other_formats_are_not_even_tried(format, monkeypatch):
    data = encoded(coloured(32, 32), format)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(PictureError, match="not a picture in a format that is read"):
        decode_image(data, "a.jpg")
    if format not in ("PDF", "ICO"):  # Pillow cannot open the one, and decodes the other at once
        with Image.open(io.BytesIO(data)) as opened, pytest.raises(PictureError, match=f"in {format} format"):
            load_image(opened)


# -- files that are none, and files that cannot be read --------------------------------------------------------------

def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "empty.jpg").touch()
    for name, words in (("pipe", "is no regular file"), ("zero", "is no regular file"), ("folder", "is a folder"),
                        ("loop", "cannot be opened"), ("empty", "is empty"), ("a" * 300, "cannot be opened"),
                        ("a\0b", "cannot be opened")):
        with pytest.raises(PictureError, match=words):
            load_image(tmp_path / f"{name}.jpg")


def test_a_name_that_is_no_unicode_is_read(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    try:
        coloured().save(tmp_path / "a.png")
        os.rename(tmp_path / "a.png", path)
    except OSError:
        pytest.skip("this file system takes Unicode only")
    assert load_image(os.fsdecode(path)).tobytes() == coloured().tobytes()


@pytest.mark.parametrize("fault", [TypeError, AssertionError, ZeroDivisionError, RecursionError, zlib.error])
def test_whatever_a_decoder_raises_is_damage(fault, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (_ for _ in ()).throw(fault("inside")))
    with pytest.raises(PictureError, match="seems damaged"):
        decode_image(encoded(coloured(), "PNG"), "a.png")


# -- sizes, before memory is taken -----------------------------------------------------------------------------------

def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claims(width: int, height: int, format: str) -> bytes:
    """A small file whose header says that the picture is large."""
    data = encoded(coloured(), format) if format != "progressive" else encoded(coloured(), progressive=True)
    if format in ("JPEG", "progressive"):
        at = data.index(b"\xff\xc0" if format == "JPEG" else b"\xff\xc2") + 5
        return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
    if format == "PNG":
        header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
        return data[:8] + png_chunk(b"IHDR", header) + data[33:]
    at, code = {"GIF": (6, "<HH"), "BMP": (18, "<ii"), "PPM": (None, None)}[format]
    if at is None:
        return b"P6 %d %d 255\n" % (width, height) + bytes(99)
    return data[:at] + struct.pack(code, width, height) + data[at + struct.calcsize(code) :]


@pytest.mark.parametrize("format, side", [
    ("PNG", 13_000), ("PNG", 2**31 - 1), ("PNG", 10_001), ("JPEG", 65_500), ("progressive", 20_000), ("GIF", 65_535),
    ("BMP", 2**30), ("PPM", 10**9)])
def test_too_large_a_picture_is_not_decoded(format, side, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(PictureError, match=r"too large to decode \(.*at most 100,000,000.*save a smaller copy"):
        decode_image(claims(side, side, format), "bomb")


def test_a_large_jpeg_is_decoded_at_an_eighth(monkeypatch):
    data = encoded(coloured(480, 320), quality=95)
    monkeypatch.setattr(preprocessing, "MAX_PIXELS", 480 * 320)
    assert load_image(data).size == (480, 320)
    monkeypatch.setattr(preprocessing, "MAX_PIXELS", 480 * 320 - 1)
    small = load_image(data)
    assert small.size == (60, 40)
    original = np.asarray(coloured(480, 320).resize((60, 40), Image.Resampling.BOX), int)
    assert np.abs(np.asarray(small, int) - original).mean() < 8
    with Image.open(io.BytesIO(data)) as opened:
        assert load_image(opened).size == (60, 40)
    for other in (encoded(coloured(480, 320), progressive=True), encoded(coloured(480, 320), "PNG")):
        with pytest.raises(PictureError, match="too large"):
            load_image(other)


def test_files_of_too_many_bytes_are_not_read(tmp_path, monkeypatch):
    coloured().save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("r+b") as file:
        file.truncate(20_000_000_000)  # takes no room on the disk
    with pytest.raises(PictureError, match="20.0 GB, more than any such file"):
        load_image(tmp_path / "a.png")


def test_a_jpeg_of_many_scans_is_not_decoded():
    data = encoded(coloured(), progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert load_image(data[:-2] + 20 * scan + data[-2:]).size == (24, 16)
    with pytest.raises(PictureError, match="scans"):
        load_image(data[:-2] + 1000 * scan + data[-2:])


def test_a_picture_in_letters_is_read_while_it_is_small(monkeypatch):
    data = b"P3 2 1 255\n0 0 255 9 9 9\n"
    assert load_image(data).getpixel((0, 0)) == (0, 0, 255)
    monkeypatch.setattr(preprocessing, "_MAX_TEXT", len(data) - 1)
    with pytest.raises(PictureError, match="written as text"):
        load_image(data)


def test_a_text_that_unpacks_to_half_a_gigabyte_is_not_unpacked():
    data = encoded(coloured(), "PNG")
    packed = zlib.compress(bytes(20_000_000))
    for chunk in (png_chunk(b"zTXt", b"k\0\0" + packed), png_chunk(b"iCCP", b"p\0\0" + packed)):
        with pytest.raises(PictureError, match="too large"):
            load_image(data[:33] + chunk + data[33:])


def test_only_the_first_frame_is_decoded():
    frames = [Image.new("RGB", (8, 8), (255, 0, 0)), *(Image.new("RGB", (8, 8), (0, i, 0)) for i in range(30))]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        red, green, blue = load_image(data).getpixel((4, 4))
        assert red > 240 and green < 15 and blue < 15, format


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV",
                                  "I", "F", "I;16", "I;16L", "I;16B"])
def test_strips_are_like_the_whole(mode, monkeypatch):
    image = Image.new(mode, (7, 50)) if mode in ("RGBa", "PA") or mode.startswith("I;") else coloured(7, 50, mode)
    whole = load_image(image)
    monkeypatch.setattr(preprocessing, "_STRIP", 20)
    assert load_image(image).tobytes() == whole.tobytes() and whole.mode == "RGB"


# -- what 16 and more bits mean --------------------------------------------------------------------------------------

@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_dark_16_bit_pictures_stay_dark(order):
    dark = Image.fromarray(np.full((4, 4), 200, order))
    for format in ("PNG", "TIFF"):
        assert load_image(encoded(dark, format)).getpixel((0, 0)) == (1, 1, 1), format


def test_values_that_are_no_numbers_are_black():
    values = np.array([[0.0, 1.0, np.nan, np.inf, -np.inf, 0.5]], np.float32)
    assert [pixel[0] for pixel in load_image(Image.fromarray(values)).get_flattened_data()] == [0, 255, 0, 0, 0, 128]
    assert load_image(Image.fromarray(np.full((2, 2), np.nan, np.float32))).getpixel((0, 0)) == (0, 0, 0)


# -- what is no file -------------------------------------------------------------------------------------------------

def test_bytes_arrays_and_pil_images_are_read_alike():
    image = coloured()
    assert load_image(np.asarray(image)).tobytes() == image.tobytes()
    assert load_image(bytearray(encoded(image, "PNG"))).tobytes() == image.tobytes()
    assert load_image(np.asarray(image.convert("L"))).mode == "RGB"
    for shape in ((3, 0), (0, 3)):
        with pytest.raises(PictureError, match="no pixels"):
            load_image(Image.new("RGB", shape))
    for wrong in (np.zeros((4, 4, 3)), np.zeros((3, 4, 5), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)):
        with pytest.raises(InputError, match=r"is no picture; give uint8 values, \[H, W\]"):
            load_image(wrong)
    with pytest.raises(PictureError, match="empty"):
        load_image(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(InputError, match="not Tensor"):
        load_image(torch.zeros(3, 4, 4))


def test_a_header_is_not_decoded():
    header = open_picture(encoded(coloured(), exif=exif(6)), "a.jpg")
    assert header.tile and header.size == (24, 16) and orientation(header) == 6
