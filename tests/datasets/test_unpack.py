"""Does nothing leave its folder, is nothing half taken for whole, and does everybody's own work stay?"""

import io
import os
import stat
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from coco_on_a_server import FILES, QUICK, found

import bad_server
from prunecap_lib.datasets.download import get_coco
from prunecap_lib.errors import InputError


def damaged(name: str) -> bytes:
    """A train2017.zip with something wrong with it."""
    files = {f"train2017/{Path(path).name}": data for path, data in FILES[2017].items() if path.startswith("train2017")}
    first, *_ = files
    member = zipfile.ZipInfo({"up": "train2017/../../evil.jpg", "absolute": "/tmp/evil.jpg", "drive": "C:/evil.jpg",
                              "backslash": "train2017\\..\\..\\evil.jpg", "control": "train2017/\x1b[2Jevil.jpg"}
                             .get(name, "train2017/000000000099.jpg"))
    content = b"x"
    if name == "link":
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        content = b"/etc/passwd"
    if name == "bomb":
        files.pop(first)
        content = bytes(200_000)
    if name == "few":
        files.pop(first)
    buffer = io.BytesIO(bad_server.pack(files))
    if name not in ("few", "crc", "cut"):
        with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as zip:
            zip.writestr(member, content)
    packed = bytearray(buffer.getvalue())
    if name == "crc":
        packed[100] ^= 1
    return bytes(packed[:-30] if name == "cut" else packed)


@pytest.mark.parametrize("name, says", [
    ("up", "would leave the folder"), ("absolute", "would leave the folder"), ("drive", "would leave the folder"),
    ("backslash", "would leave the folder"), ("control", "control character"), ("link", "is a symbolic link"),
    ("bomb", "would unpack to 2[0-9]{2},[0-9]{3} bytes"), ("few", "5 pictures in train2017/"), ("many", "7 pictures"),
    ("crc", "damaged"), ("cut", "damaged")])
def test_zips_that_are_not_unpacked(web, tmp_path, name, says):
    server, coco = web
    content = bad_server.add(server, "train2017.zip", damaged(name))
    coco = replace(coco, train=replace(coco.train, size=len(content), sha256=sha256(content).hexdigest()))
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(InputError, match=f"train2017.zip: .*{says}"):
        get_coco(tmp_path, coco, **QUICK)
    assert not (tmp_path / "train2017").exists() and set(tmp_path.parent.iterdir()) == before
    assert not os.path.exists("/tmp/evil.jpg")


def test_half_unpacked_files_are_not_trusted(web, tmp_path):
    server, coco = web
    work = tmp_path / ".prunecap" / "train2017" / "unpacked" / "train2017"
    work.mkdir(parents=True)
    for number, change in ((1, lambda data: data), (2, lambda data: data[:-1]), (3, lambda data: bytes(len(data)))):
        name = f"{number:012d}.jpg"
        (work / name).write_bytes(change(FILES[2017][f"train2017/{name}"]))
    get_coco(tmp_path, coco, karpathy=True, **QUICK)
    assert found(tmp_path) == FILES[2017]


@pytest.mark.parametrize("unpacked_here", [True, False])
def test_a_missing_or_renamed_picture_is_named(web, tmp_path, unpacked_here):
    server, coco = web
    if unpacked_here:
        get_coco(tmp_path, coco, **QUICK)
    else:
        for name, data in FILES[2017].items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
        assert get_coco(tmp_path, coco, **QUICK) == []
    asked = len(server.asked)
    (tmp_path / "train2017" / "000000000004.jpg").rename(tmp_path / "train2017" / "4.jpg")
    with pytest.raises(InputError, match=r"train2017: 000000000004.jpg is missing, 1 in all of 6, but 4.jpg "
                                         r"\(renamed\?\) does not belong there; fetch it from http.*/000000000004.jpg"):
        get_coco(tmp_path, coco, **QUICK)
    (tmp_path / "train2017" / "4.jpg").unlink()
    with pytest.raises(InputError, match="000000000004.jpg is missing, 1 in all of 6; fetch it"):
        get_coco(tmp_path, coco, **QUICK)
    assert len(server.asked) == asked


def test_what_is_somebodys_own_work_stays(web, tmp_path):
    server, coco = web
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="train2017: no picture in it, but note.txt; move it away"):
        get_coco(tmp_path, coco, **QUICK)
    (tmp_path / "train2017" / "000000000001.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="train2017: 1 pictures, but train2017.zip holds 6"):
        get_coco(tmp_path, coco, **QUICK)
    assert found(tmp_path).keys() == {"train2017/note.txt", "train2017/000000000001.jpg"} and server.asked == []


def test_a_text_file_of_ones_own_stays(web, tmp_path):
    server, coco = web
    own = tmp_path / "annotations" / "captions_val2017.json"
    own.parent.mkdir()
    own.write_bytes(FILES[2017]["annotations/captions_val2017.json"].replace(b"picture 8", b"my picture 8"))
    before = own.read_bytes()
    for _ in range(2):
        get_coco(tmp_path, coco, pictures=False, **QUICK)
        assert own.read_bytes() == before and len(server.asked) == 1


def test_a_lost_text_file_comes_back_and_a_changed_one_is_named(web, tmp_path):
    server, coco = web
    get_coco(tmp_path, coco, **QUICK)
    lost, other = (tmp_path / "annotations" / f"captions_{split}2017.json" for split in ("val", "train"))
    lost.unlink()
    assert get_coco(tmp_path, coco, **QUICK) == ["annotations_trainval2017.zip"] and lost.is_file()
    other.write_text("{}")
    with pytest.raises(InputError, match="captions_train2017.json: 2 bytes, but"):
        get_coco(tmp_path, coco, **QUICK)
    assert other.read_text() == "{}"


def test_check_reads_every_byte(web, tmp_path, capsys):
    server, coco = web
    get_coco(tmp_path, coco, thorough=True, **QUICK)
    assert "train2017.zip: 6 files compared" in capsys.readouterr().err
    picture = tmp_path / "val2017" / "000000000008.jpg"
    picture.write_bytes(picture.read_bytes()[:-1] + b"?")
    assert get_coco(tmp_path, coco, **QUICK) == []
    with pytest.raises(InputError, match="000000000008.jpg: its bytes are no longer those"):
        get_coco(tmp_path, coco, thorough=True, **QUICK)
