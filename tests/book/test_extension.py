"""Does the book's Sphinx extension pass on alt texts, lead the edit button to the text, and drop outside scripts?"""

import json
from types import SimpleNamespace

import book_extension


def test_a_computed_alt_text_reaches_the_cell():
    figure = {"output_type": "display_data", "data": {"image/png": "AAAA"},
              "metadata": {"image/png": {"alt": "Two lines."}}}
    source = [json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "outputs": [figure]}]})]
    book_extension.describe_figures(None, "book/01_x", source)
    assert json.loads(source[0])["cells"][0]["metadata"]["mystnb"]["image"]["alt"] == "Two lines."


def test_a_page_that_is_no_notebook_stays_as_it_is():
    source = ["# Glossary"]
    book_extension.describe_figures(None, "book/glossary", source)
    assert source == ["# Glossary"]


def test_the_edit_button_leads_to_the_text():
    button = {"url": "https://github.com/a/b/edit/main/book/01_x.ipynb"}
    launch = {"url": "https://colab.research.google.com/github/a/b/blob/main/book/01_x.ipynb"}
    context = {"header_buttons": [{"buttons": [button]}, launch]}
    book_extension.point_edit_button_at_text(None, "book/01_x", "", context, None)
    assert button["url"] == "https://github.com/a/b/edit/main/chapters/01_x.md"
    assert launch["url"].endswith("book/01_x.ipynb")  # Colab opens the notebook


def test_repository_buttons_need_an_address(monkeypatch):
    config = SimpleNamespace(html_theme_options={})
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    book_extension.link_to_repository(None, config)
    assert config.html_theme_options == {}
    monkeypatch.setenv("GITHUB_REPOSITORY", "a/b")
    book_extension.link_to_repository(None, config)
    assert config.html_theme_options["repository_url"] == "https://github.com/a/b"


def test_outside_scripts_and_thebe_are_dropped():
    def script(filename=None, body=""):
        return SimpleNamespace(filename=filename, attributes={"body": body})
    kept = script("_static/book.js")
    context = {"script_files": [kept, script("https://cdn.example.org/a.js"), script("_static/sphinx-thebe.js"),
                                script(body='const THEBE_JS_URL = "x"')], "css_files": []}
    book_extension.drop_outside_scripts(None, "book/01_x", "", context, None)
    assert context["script_files"] == [kept]
