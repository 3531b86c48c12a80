"""Do other programs read our captions, and do we read theirs?"""

import contextlib
import io
import json

import pytest
from pycocoevalcap import eval as cocoeval
from pycocotools.coco import COCO

from prunecap_lib.cli import main
from prunecap_lib.datasets import open_dataset
from prunecap_lib.datasets.coco import read_coco_files
from prunecap_lib.datasets.scenes import make_scenes, write_coco
from prunecap_lib.errors import InputError, MissingFileError
from prunecap_lib.evaluation import java, score_split
from prunecap_lib.reports import check_ids, ids_of_files, read_captions, write_html, write_results


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Ten scenes as COCO's files, and a caption for each: its second reference with a word changed."""
    folder = tmp_path_factory.mktemp("coco")
    paths = write_coco(make_scenes(10, split="val"), folder)
    data = read_coco_files(paths["captions"], paths["images"])
    texts = {id: row[1].replace("a ", "one ") for id, row in data.references().items()}
    return paths, data, texts


class Nothing:
    """In the place of the metrics that take long, or need a download."""

    def method(self):
        return "nothing"

    def compute_score(self, references, candidates):
        return 0.0, [0.0] * len(references)


@pytest.mark.slow
def test_coco_scores_our_results_as_we_do(coco, tmp_path, monkeypatch):
    paths, data, texts = coco
    write_results(tmp_path / "captions_val2014_prunecap_results.json", texts)
    for name in ("Meteor", "Spice"):
        monkeypatch.setattr(cocoeval, name, Nothing)
    with contextlib.redirect_stdout(io.StringIO()), java.java_on_path():
        truth = COCO(str(paths["captions"]))
        theirs = cocoeval.COCOEvalCap(truth, truth.loadRes(str(tmp_path / "captions_val2014_prunecap_results.json")))
        theirs.evaluate()
    ours = score_split(data, texts, metrics=("BLEU", "ROUGE_L", "CIDEr"))["scores"]
    assert ours == {name: round(theirs.eval[name], 4) for name in ours} and ours["CIDEr"] > 1


def test_results_come_back(coco, tmp_path):
    _, data, texts = coco
    write_results(tmp_path / "results.json", texts | {5: "of another split"})
    assert read_captions(tmp_path / "results.json", data) == texts
    (tmp_path / "report.json").write_text(json.dumps({"captions": {str(id): text for id, text in texts.items()}}))
    assert read_captions(tmp_path / "report.json", data) == texts


def test_results_of_any_letters_are_scored_and_written(coco, tmp_path):
    """Control characters and halves of characters, which JSON admits, go no further."""
    _, data, texts = coco
    odd = dict(zip(texts, ["two\nlines", "\ud800 half", "nul\x00 \x1b[2J", "две собаки", "两只狗", "🐶", "",
                           "?", "$x$", "|||"], strict=True))
    (tmp_path / "odd.json").write_text(json.dumps([{"image_id": id, "caption": text} for id, text in odd.items()]))
    captions = read_captions(tmp_path / "odd.json", data)
    assert list(captions.values())[:4] == ["two lines", "half", "nul [2J", "две собаки"]
    report = score_split(data, captions, metrics=("BLEU", "CIDEr")) | {"signature": "", "provenance": {}}
    write_html(tmp_path / "page", report, data, captions)
    write_results(tmp_path / "again.json", captions)
    assert read_captions(tmp_path / "again.json", data) == captions


@pytest.mark.parametrize("content, says", [
    ("[]", "no caption for image 2000000 .10 of 10"),
    ("{}", "not a list"), ("[1]", "not a list"), ("not JSON", "not a list"), ('{"captions": []}', "not a list"),
    ('[{"image_id": 1, "caption": null}]', "not a list"),
    ('[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]',
     "1 captions are of pictures that have one already"),
])
def test_other_files_are_refused(coco, tmp_path, content, says):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=says):
        read_captions(tmp_path / "results.json", coco[1])


def test_absent_files_and_ids_that_coco_does_not_know(coco, tmp_path):
    with pytest.raises(MissingFileError, match="no.json not found"):
        read_captions(tmp_path / "no.json", coco[1])
    with pytest.raises(InputError, match="'123_a.jpg' is no whole number"):
        check_ids([1, "123_a.jpg"])


def test_ids_of_file_names(tmp_path):
    names = ["COCO_test2014_000000000042.jpg", "000000000007.jpg"]
    assert list(ids_of_files([tmp_path / name for name in names]).values()) == [42, 7]
    with pytest.raises(InputError, match="holiday.jpg.*ends in no number"):
        ids_of_files([tmp_path / "holiday.jpg"])
    with pytest.raises(InputError, match="both names end in the number 7"):
        ids_of_files([tmp_path / "000000000007.jpg", tmp_path / "b7.jpg"])


@pytest.mark.slow
def test_commands(coco, captioner, tmp_path, capsys):
    """evaluate writes results, a page and a report; the results score the same again; caption needs no references."""
    few = open_dataset("scenes", split="test", limit=4)
    captioner.save(tmp_path / "model")
    settings = ["--dataset", "scenes", "--limit", "4", "--metrics", "CIDEr", "--no-progress"]
    main(["evaluate", "--checkpoint", str(tmp_path / "model"), *settings, "--out", str(tmp_path / "report.json"),
          "--results", str(tmp_path / "results.json"), "--html", str(tmp_path / "page")])
    first = json.loads(capsys.readouterr().out)
    assert (tmp_path / "page" / "index.html").is_file()
    main(["evaluate", "--captions", str(tmp_path / "results.json"), *settings, "--html", str(tmp_path / "theirs.html")])
    again = json.loads(capsys.readouterr().out)
    assert all(again[key] == first[key] for key in ("scores", "CIDEr_interval", "CIDEr_shuffled", "scene_accuracy"))
    read = {str(id): text for id, text in read_captions(tmp_path / "report.json", few).items()}
    assert read == json.loads((tmp_path / "report.json").read_text())["captions"]
    assert len(list((tmp_path / "theirs_pictures").iterdir())) == 4

    main(["caption", str(coco[0]["images"]), "--checkpoint", str(tmp_path / "model"), "--results",
          str(tmp_path / "bare.json")])
    assert [row["image_id"] for row in json.loads((tmp_path / "bare.json").read_text())] == coco[1].image_ids
