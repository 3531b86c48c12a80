"""Does a bad file, of whatever kind and however bad, end in one sentence that names it? And is a good one read?"""

import copy
import json
import os
from dataclasses import asdict

import pytest

from prunecap_lib import CaptionerConfig, Vocabulary, checkpoint
from prunecap_lib.datasets.coco import read_coco_files, read_karpathy
from prunecap_lib.datasets.shards import Index, Shard, ShardSettings, parse_index
from prunecap_lib.errors import InputError, MissingFileError, PrunecapError
from prunecap_lib.features.checks import Description, read_meta
from prunecap_lib.preprocessing import Preprocessing
from prunecap_lib.reading import parse_json, read_bytes, read_text
from prunecap_lib.reports import read_captions
from prunecap_lib.text import SPECIALS
from prunecap_lib.training.resume import read_state

IMAGES = [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 30}, {"id": 2, "file_name": "b.jpg", "height": 20,
                                                                        "width": 30}]
CAPTIONS = [{"id": 7, "image_id": 1, "caption": "a red kite"}, {"id": 8, "image_id": 2, "caption": "a tram"}]
SHARD = Shard("00000.tar", 9000, "0" * 64, [1, 2], [["a red kite"], ["a tram"]], [512, 4096], [1000, 2000])


class Two:
    """A data set's ids."""

    name, split, image_ids = "two", "test", [1, 2]

    def __len__(self):
        return 2


def masks(path):
    captions = path.with_name("captions.json")
    captions.write_text(json.dumps({"images": IMAGES, "annotations": CAPTIONS}))
    return read_coco_files(captions, path.parent, instances=path, check_images=False).masks(0)


# Each format: a good content, the name its file has, how it is read, and which fields may be null or absent.
FORMATS = {
    "COCO captions": ({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
                       "annotations": CAPTIONS}, "c.json",
                      lambda path: read_coco_files(path, path.parent, check_images=False).references(),
                      ("annotations.0.id", "annotations.1.id")),
    "COCO instances": ({"images": [{"id": 1, "height": 20, "width": 30}], "categories": [{"id": 3, "name": "kite"}],
                        "annotations": [{"id": 5, "image_id": 1, "category_id": 3, "iscrowd": 0,
                                         "bbox": [2, 2, 10, 10], "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]}]},
                       "i.json", lambda path: [(name, int(mask.sum())) for name, mask in masks(path)],
                       tuple(f"annotations.0.{name}" for name in ("id", "iscrowd", "bbox", "segmentation"))),
    "Karpathy": ({"images": [{"cocoid": 1, "split": "test", "filepath": "val2014", "filename": "a.jpg",
                              "sentences": [{"raw": "a red kite"}]}]}, "dataset_coco.json",
                 lambda path: read_karpathy(path, path.parent, "test", check_images=False).references(), ()),
    "results": ([{"image_id": 1, "caption": "a"}, {"image_id": 2, "caption": "b"}], "results.json",
                lambda path: read_captions(path, Two()), ()),
    "report": ({"captions": {"1": "a", "2": "b"}}, "report.json", lambda path: read_captions(path, Two()), ()),
    "features": (asdict(Description(1, "vit", "f" * 16, False, "toy", "train", (2, 2), {"x": [4, 8]},
                                    [(1, [0] * 48)], [1, 2], ("grid", 0.5))), "features.json",
                 lambda path: read_meta(path.parent), ("pruned",)),
    "shards": (json.loads(Index("toy", "train", "s", 2, ShardSettings(), [SHARD]).to_json()), "index.json",
               lambda path: parse_index(read_bytes(path, "shard index"), path), ()),
    "checkpoint": ({"format": 1, "signature": "", "versions": {"torch": "2"}, "config": asdict(CaptionerConfig()),
                    "preprocessing": asdict(Preprocessing(64)), "vocabulary": [*SPECIALS, "1st"]}, "config.json",
                   lambda path: checkpoint.read_head(path.parent, CaptionerConfig)[0],
                   ("config.encoder_package", "config.schedule")),
    "state": ({"step": 3, "epochs": 1, "processes": 1, "batch_size": 2, "accumulate": 1, "config": {"lr": 0.1},
               "start": None, "scaler": None}, "state.json", lambda path: read_state(path.parent),
              ("start", "scaler", "config.lr")),
    "vocabulary": ({"words": [*SPECIALS, "1st"]}, "words.json", Vocabulary.load, ()),
}
WRONG = [None, True, "", "7", -1, 0, 1.5, 1e308, -1e308, 10**30, [], [None], {}, {"a": 1}, "x" * 100_000]


def fields(content, at=()):
    """Paths of everything in it."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield (*at, key)
        yield from fields(value, (*at, key))


def changed(content, path, value):
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


def refusal(act, path):
    """What ``act`` says of the file, or None where it takes it."""
    try:
        act(path)
    except PrunecapError as error:
        assert path.name in str(error) or "config.json" in str(error), error
        assert "\n" not in str(error) and len(str(error)) < 5000
        return str(error)


@pytest.fixture(params=FORMATS)
def file(request, tmp_path):
    """Good content, where it belongs, its reader, and what may be null."""
    content, name, act, optional = FORMATS[request.param]
    content, path = json.loads(json.dumps(content)), tmp_path / name
    path.write_text(json.dumps(content))
    assert refusal(act, path) is None
    return content, path, act, optional


@pytest.mark.slow
def test_every_field_with_every_wrong_value(file):
    """Nothing but a sentence or a content comes out; what is null or missing is refused wherever it is needed."""
    content, path, act, optional = file
    for place in fields(content):
        for value in WRONG:
            path.write_text(json.dumps(changed(content, place, value)))
            said = refusal(act, path)
            if value is None:
                assert (said is None) == (".".join(map(str, place)) in optional), (place, said)


@pytest.mark.parametrize("harm", [
    lambda text: "", lambda text: text[:-1], lambda text: text[: len(text) // 2], lambda text: text + "x",
    lambda text: "\x89PNG\r\n\x1a\n" + text, lambda text: "[" * 100_000, lambda text: '{"a":' * 100_000,
    lambda text: text.replace(":", ": NaN, \"n\":", 1), lambda text: text.replace("1", "9" * 5000, 1),
    lambda text: text.replace('"', '"\\ud800', 1), lambda text: text.replace('"', '"\xe9', 1).encode("latin-1"),
    lambda text: text.encode("utf-16-le"), lambda text: text.encode("utf-32"), lambda text: b"\xff" * 1000,
    lambda text: "null", lambda text: "7", lambda text: "{}",
], ids=["empty", "cut", "half", "tail", "binary", "deep", "deep objects", "NaN", "digits", "surrogate", "Latin-1",
        "UTF-16 without a mark", "UTF-32", "bytes", "null", "number", "nothing"])
def test_damage_of_every_kind(file, harm):
    content, path, act, _ = file
    damaged = harm(path.read_text())
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode("latin-1"))
    assert refusal(act, path)


@pytest.mark.parametrize("written", [
    lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), lambda text: text.encode("utf-16"),
    lambda text: ("\n\n " + text + "\r\n").encode()], ids=["UTF-8 of Windows", "UTF-16", "blank lines"])
def test_files_as_people_have_them(file, written):
    content, path, act, _ = file
    plain = act(path)
    path.write_bytes(written(json.dumps(content, indent=1)))
    assert act(path) == plain


def test_a_key_that_stands_twice(file):
    content, path, act, _ = file
    if isinstance(content, dict):
        key = next(iter(content))
        path.write_text(f"{{{json.dumps(key)}: {json.dumps(content[key])}, " + json.dumps(content)[1:])
        assert f"'{key}' stands twice" in refusal(act, path)


def test_what_is_no_file(file, tmp_path):
    _, path, act, _ = file
    path.unlink()
    assert "not found" in refusal(act, path)
    path.mkdir()
    assert "is a folder" in refusal(act, path)
    path.rmdir()
    os.mkfifo(path)
    assert "a pipe or a device" in refusal(act, path)  # a reader that opens it plainly waits here for ever


@pytest.mark.parametrize("format, place, value, says", [
    ("COCO captions", ("images", 1, "id"), 1, "image id 1 stands twice, for a.jpg and for b.jpg"),
    ("COCO captions", ("images", 1, "id"), "1", "image id 1 stands twice, for a.jpg and for b.jpg .there as '1'"),
    ("COCO captions", ("annotations", 0, "image_id"), "1", "'1' has no entry.* but the number 1 has"),
    ("COCO captions", ("annotations", 0, "image_id"), 2.0, "annotations.0..image_id is 2.0: expected a whole number"),
    ("COCO captions", ("images", 0, "file_name"), "../a.jpg", "file_name of image 1 is '../a.jpg'"),
    ("COCO captions", ("images", 0, "file_name"), "/etc/a.jpg", "file_name of image 1 is '/etc/a.jpg'"),
    ("COCO captions", ("images", 0, "file_name"), "a\0.jpg", "file_name of image 1"),
    ("COCO instances", ("annotations", 0, "category_id"), 4, "annotation 5 is of category 4, which has no entry"),
    ("COCO instances", ("annotations", 0, "image_id"), "1", "annotation 5: image_id '1' has no entry.*number 1 has"),
    ("COCO instances", ("annotations", 0, "segmentation"), [[1e9, 2, 3, 1e9, -1e9, 1]], "far outside the picture"),
    ("COCO instances", ("annotations", 0, "segmentation"), {"size": [20, 30], "counts": [5, 5]}, "not as long as"),
    ("COCO instances", ("annotations", 0, "segmentation"), {"size": [20, 30], "counts": "zzz"}, "not as long as"),
    ("COCO instances", ("annotations", 0, "segmentation"), {"size": [30, 20], "counts": [600]}, "its mask is of"),
    ("COCO instances", ("images", 0, "width"), 10**6, "images.0..width is 1000000: expected a whole number <= 30000"),
    ("Karpathy", ("images", 0, "filepath"), "..", "file_name of image 1 is '../a.jpg'"),
    ("shards", ("shards", 0, "image_ids"), [2, 2], "image id 2 stands twice"),
    ("shards", ("shards", 0, "offsets"), [4096, 512], "do not lie one behind the other"),
    ("shards", ("shards", 0, "lengths"), [1000, 2**40], "lengths.1. is 1099511627776: expected a whole number <="),
    ("shards", ("shards", 0, "name"), "../x.tar", "name is \"../x.tar\""),
    ("shards", ("shards", 0, "name"), "00001.tar", "its shards are not 00000.tar"),
    ("shards", ("pictures",), 3, "tells of 2 pictures and says they are 3"),
    ("shards", ("format",), 9, "format 9 is not 1, which this version reads"),
    ("shards", ("moons",), 2, "fields this version does not know .moons"),
    ("features", ("shapes", "x"), [8, 4], "x must be .tokens, channels., of 4 tokens for a grid of 2 x 2"),
    ("features", ("image_ids",), [1, 1], "an id stands twice"),
    ("checkpoint", ("config", "prune_ratio"), 1.5, "config.prune_ratio is 1.5: expected a number <= 1"),
    ("checkpoint", ("config", "image_size"), 10**6, "config.image_size is 1000000"),
    ("checkpoint", ("config", "schedule"), {"after": [2], "keep": [1.5]}, "keep rate 1.5 is outside"),
    ("checkpoint", ("config", "schedule"), {"after": [2], "keep": [0.5], "moons": 1}, "config.schedule has fields"),
    ("checkpoint", ("preprocessing", "std"), [0.5, 0.5, 0.0], "preprocessing.std.2. is 0.0"),
    ("checkpoint", ("preprocessing", "crop_pct"), 1e-300, "preprocessing.crop_pct is 1e-300"),
    ("checkpoint", ("vocabulary", 0), "pad", "the first four words must be"),
    ("state", ("accumulate",), 0, "accumulate is 0: expected a whole number >= 1"),
])
def test_what_is_wrong_is_named(tmp_path, format, place, value, says):
    content, name, act, _ = FORMATS[format]
    (tmp_path / name).write_text(json.dumps(changed(json.loads(json.dumps(content)), place, value)))
    with pytest.raises(PrunecapError, match=f"(?s)^[^\n]*{says}"):
        act(tmp_path / name)


@pytest.mark.parametrize("change, pixels", [
    ({"segmentation": ...}, 100), ({"segmentation": []}, 100), ({"segmentation": [[]]}, 100), ({"iscrowd": ...}, 100),
    ({"segmentation": [[2, 2, 12], [2, 2, 12, 2, 12, 12, 2, 12]]}, 100), ({"bbox": ...}, 100),
    ({"segmentation": {"size": [20, 30], "counts": [0, 600]}}, 600), ({"iscrowd": 1}, None), ({"iscrowd": True}, None),
])
def test_objects_as_people_have_them(tmp_path, change, pixels):
    content, name, act, _ = FORMATS["COCO instances"]
    for key, value in change.items():
        content = changed(content, ("annotations", 0, key), value)
    (tmp_path / name).write_text(json.dumps(content))
    assert act(tmp_path / name) == ([("kite", pixels)] if pixels else [])


def test_a_picture_of_two_ids_is_told(tmp_path):
    content, name, act, _ = FORMATS["COCO captions"]
    (tmp_path / name).write_text(json.dumps(changed(content, ("images", 1, "file_name"), "a.jpg")))
    with pytest.warns(UserWarning, match=r"1 pictures have several ids, a.jpg for one \(1 and 2\)"):
        assert len(act(tmp_path / name)) == 2


def test_text_and_bytes(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfa.jpg\r\nb.jpg\r\n")
    assert read_text(path).splitlines() == ["a.jpg", "b.jpg"]
    path.write_bytes(b"a.jpg\ncaf\xe9.jpg\n")
    with pytest.raises(InputError, match="names.txt, line 2: not a text file in UTF-8; save it as UTF-8"):
        read_text(path)
    for name in ("x" * 300, "a\0b", str(path / "inside")):
        with pytest.raises((InputError, MissingFileError)):
            read_bytes(tmp_path / name)
    with path.open("wb") as file:
        file.truncate(5 << 30)  # a hole: it takes no room
    with pytest.raises(InputError, match="has 5.4 GB, more than any such file"):
        read_text(path)


def test_half_a_character_is_a_space():
    written = rb'["\ud83d\udc36", "\ud83d dog", "\udc36", "\\ud83d", "\\\ud83d"]'
    assert parse_json(written, list[str], "it", "mend it") == ["\U0001f436", "  dog", " ", "\\ud83d", "\\ "]


def test_numbers_and_lines_are_named():
    with pytest.raises(InputError, match=r"line 2: not valid JSON at 'NaN\]'"):
        parse_json(b"[1,\nNaN]", list[int], "it", "mend it")
    assert parse_json(b"[1.5, 2]", list[float], "it", "mend it") == [1.5, 2.0]
    with pytest.raises(InputError, match="out of range"):
        parse_json(b"[1e999]", list[float], "it", "mend it")
