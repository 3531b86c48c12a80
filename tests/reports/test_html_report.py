"""Is the page whole, safe from what captions hold, and does its script show what the figures say?"""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

import prunecap_lib
from prunecap_lib.captioner import Caption
from prunecap_lib.datasets import CaptionDataset
from prunecap_lib.errors import InputError
from prunecap_lib.evaluation import score_split
from prunecap_lib.preprocessing import Preprocessing
from prunecap_lib.reports import write_html
from prunecap_lib.reports.html import pruned_cells
from prunecap_lib.tokens import Grid

HOSTILE = '</script><script>document.title = "taken"</script> & <b>{{title}}</b> $& <!--'
VOID = {"meta", "link", "input", "br", "img"}


class Few(CaptionDataset):
    """Three pictures: a large photograph, a small one, a tall one; and ids and references that try to escape."""

    name, split = "few", "<test>"
    image_ids = [1, "<i>two</i>", 3]
    captions = [["a red picture", HOSTILE], ["a dog on a sofa", "a brown dog"], ["two cats", "cats on a bed"]]

    def image(self, i):
        return Image.new("RGB", [(800, 600), (64, 64), (300, 900)][i], "red")


TEXTS = {1: HOSTILE, "<i>two</i>": "a brown dog on a car", 3: ""}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    data = Few()
    report = {"checkpoint": "runs/<model>", **score_split(data, TEXTS, metrics=("CIDEr",)), "prune_ratio": 0.3,
              "scorer": "pilot", "signature": "method:greedy|tok:ptb", "provenance": {
                  "command": "prunecap evaluate", "date": "2026-01-01", "machine": "a", "versions": {"torch": "2"}}}
    kept = torch.tensor([0, 5, 15])
    captions = {id: Caption(text, [], [], 0.0, kept, (4, 4)) for id, text in TEXTS.items()}
    return write_html(tmp_path_factory.mktemp("page") / "out", report, data, captions, preprocessing=Preprocessing())


class Balance(HTMLParser):
    """Every tag that opens must close; counts the tags."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_holds_the_figures_as_they_are(page):
    text = page.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(text)
    parser.close()
    assert parser.open == [] and parser.seen.count("script") == 2 and parser.seen.count("title") == 1
    assert "<title>runs/&lt;model&gt; on few &lt;test&gt;</title>" in text
    # without scripts: what it is, and why nothing more is to be seen
    assert '<h1 id="title">runs/&lt;model&gt; on few &lt;test&gt;</h1>' in text and text.count("<noscript>") == 2
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert {row["id"]: row["caption"] for row in data["rows"]} == TEXTS
    assert [row["references"] for row in data["rows"]] == Few.captions
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched


def test_pictures_lie_beside_the_page_in_small(page):
    sizes = [Image.open(page.parent / "pictures" / f"{i:06d}.jpg").size for i in range(3)]
    assert page.name == "index.html" and sizes == [(320, 240), (64, 64), (107, 320)]


def test_kept_cells_and_where_they_lie():
    caption = Caption("", [], [], 0.0, torch.tensor([0, 5, 8]), (3, 3))
    found = pruned_cells(caption, Preprocessing(96, crop_pct=0.5), (200, 100))
    bits = f"{int(found['kept'], 16):0{4 * len(found['kept'])}b}"
    assert [i for i, bit in enumerate(bits) if bit == "1"] == [0, 5, 8] and found["grid"] == [3, 3]
    assert found["box"] == pytest.approx([0.375, 0.25, 0.625, 0.75], abs=0.01)
    assert found["across"] == [3, 3]
    cut_off = pruned_cells(replace(caption, grid=Grid.of((3, 3), 32, 112)), Preprocessing(112), (200, 100))
    assert cut_off["across"] == [3.5, 3.5]  # half a cell's pixels at the right and below are in no cell
    everything = Caption("", [], [], 0.0, torch.arange(9), (3, 3))
    assert pruned_cells(everything, Preprocessing(), (9, 9)) == pruned_cells("text", None, (9, 9)) == {}


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="name another place"):
        write_html(tmp_path / "file" / "page.html", {}, Few(), TEXTS)


def test_the_template_is_installed_with_the_library():
    others = {path.name for path in Path(prunecap_lib.__file__).parent.rglob("*")
              if path.is_file() and path.suffix not in (".py", ".pyc")}
    pyproject = Path(prunecap_lib.__file__).parent.parent / "pyproject.toml"
    assert all(f'"{name}"' in pyproject.read_text(encoding="utf-8") for name in others)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_shows_every_caption_as_text(page, tmp_path):
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=60).stdout
    assert "<title>runs/&lt;model&gt; on few &lt;test&gt;</title>" in shown  # not "taken"
    headings = re.findall(r"<h3>(.*?)</h3>", shown, re.S)
    captions = [html.unescape(re.sub(r"<[^>]+>", "", heading)) for heading in headings]
    assert captions == [HOSTILE, "a brown dog on a car", "(says nothing)"]
    assert '<span class="new">car</span>' in shown and '<span class="new">dog</span>' not in shown
    assert shown.count('<path d="M0 0h4v4h-4zM0 0h1v1h-1zM1 1h1v1h-1zM3 3h1v1h-1z"') == 3  # all but 0, 5 and 15
    assert "Pictures 1 to 3 of 3" in shown and "30% pruned by pilot" in shown
