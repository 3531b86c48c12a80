"""What must Sphinx be told so that the book asks nobody outside, describes its figures, and links back to its text?"""

from __future__ import annotations

import json
import os

import chapters


def setup(app) -> dict:
    app.connect("config-inited", link_to_repository)
    app.connect("source-read", describe_figures)
    app.connect("autodoc-process-docstring", put_aside, priority=100)  # before Napoleon
    app.connect("autodoc-process-docstring", take_back, priority=900)  # after it
    # After the themes and extensions that add scripts and buttons
    app.connect("html-page-context", point_edit_button_at_text, priority=1000)
    app.connect("html-page-context", drop_outside_scripts, priority=1000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def link_to_repository(app, config) -> None:
    """Buttons that lead to the repository appear where its address is known: in the published book."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    if not repository:
        return
    config.html_theme_options.update(
        repository_url=f"https://github.com/{repository}", repository_branch=os.environ.get("GITHUB_REF_NAME", "main"),
        use_repository_button=True, use_edit_page_button=True, use_issues_button=True,
        launch_buttons={"colab_url": "https://colab.research.google.com"})


def describe_figures(app, docname: str, source: list[str]) -> None:
    """Let MyST-NB see an alt text that a cell computed and put into its output's metadata."""
    if not docname.startswith("book/") or not source[0].lstrip().startswith("{"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            alt = next((kept["alt"] for kind, kept in output.get("metadata", {}).items()
                        if kind.startswith("image/") and kept.get("alt")), None)
            if alt:
                cell["metadata"].setdefault("mystnb", {}).setdefault("image", {})["alt"] = alt
    source[0] = json.dumps(notebook)


def point_edit_button_at_text(app, pagename, templatename, context, doctree) -> None:
    """A chapter is edited as chapters/NN_name.md, not as the notebook that the page is built from."""
    name = pagename.removeprefix("book/")
    if not chapters.NAME.fullmatch(name):
        return
    buttons = [button for entry in context.get("header_buttons", []) for button in (entry, *entry.get("buttons", ()))]
    for button in buttons:
        if "/edit/" in button.get("url", ""):
            button["url"] = button["url"].replace(f"book/{name}.ipynb", f"chapters/{name}.md")


def drop_outside_scripts(app, pagename, templatename, context, doctree) -> None:
    """No page makes an outside request; and Thebe, which Jupyter Book always adds, is not used here."""
    def stays(script) -> bool:
        name = str(getattr(script, "filename", None) or "")
        body = getattr(script, "attributes", {}).get("body", "") or ""
        return "://" not in name and "thebe" not in (name + body).lower()

    for kind in ("script_files", "css_files"):
        context[kind] = [script for script in context.get(kind, []) if stays(script)]


ASIDE: dict[str, list[str]] = {}


def put_aside(app, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon in an attribute's docstring for its type; here it is prose."""
    if what in ("attribute", "property", "data"):
        ASIDE[name] = list(lines)


def take_back(app, what: str, name: str, obj, options, lines: list[str]) -> None:
    lines[:] = ASIDE.pop(name, lines)
