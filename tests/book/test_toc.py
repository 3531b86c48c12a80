"""Does the table of contents list every chapter, in its part, and every page at the back?"""

import yaml

import chapters


def test_toc_is_what_the_notebooks_say():
    names = [path.stem for path in chapters.notebooks()]
    written = (chapters.ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert written == chapters.table_of_contents(names), "run: make chapters (or python tools/run_chapters.py NAME)"


def test_every_page_listed_exists():
    toc = yaml.safe_load((chapters.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"]] + [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    assert len(pages) == len(set(pages))
    for page in pages:
        assert any((chapters.ROOT / f"{page}{suffix}").exists() for suffix in (".md", ".ipynb")), page


def test_a_chapter_joins_the_part_of_its_number():
    toc = yaml.safe_load(chapters.table_of_contents(["12_pruned", "00_one_page", "04_attention", "05_vit", "20_x"]))
    parts = {part["caption"]: [entry["file"] for entry in part["chapters"]] for part in toc["parts"]}
    assert list(parts) == ["Say what you see", "Look", "Prune", "Find out", "To look things up"]
    assert parts["Say what you see"] == ["book/00_one_page", "book/04_attention"]
    assert parts["Look"] == ["book/05_vit"]
