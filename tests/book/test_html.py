"""Does the gate behind the HTML build notice an image without alt text, an outside request, and a dead link?"""

import pytest

import check_html

PAGE = '<html><head><title>x</title>{head}</head><body><h1 id="top">x</h1>{body}</body></html>'


def faults(tmp_path, *, head="", body=""):
    check_html.read.cache_clear()
    (tmp_path / "page.html").write_text(PAGE.format(head=head, body=body))
    (tmp_path / "here.png").write_bytes(b"")
    return check_html.faults(tmp_path)


@pytest.mark.parametrize("body, said", [
    ('<img src="here.png">', "no alt text"),
    ('<img src="here.png" alt=" ">', "no alt text"),
    ('<img src="https://example.org/a.png" alt="a">', "from outside"),
    ('<script src="//cdn.example.org/a.js"></script>', "from outside"),
    ('<div style="background: url(https://example.org/a.png)"></div>', "from outside"),
    ('<style>@font-face { src: url("https://example.org/a.woff2") }</style>', "from outside"),
    ('<img src="gone.png" alt="a">', "which is not there"),
    ('<a href="gone.html">a</a>', "which is not there"),
    ('<a href="#gone">a</a>', "which is not there"),
    ('<a href="page.html#gone">a</a>', "which is not there"),
])
def test_a_fault_is_named(tmp_path, body, said):
    found = faults(tmp_path, body=body)
    assert len(found) == 1 and said in found[0] and found[0].startswith("page.html")


def test_an_outside_stylesheet_is_a_fault_and_a_canonical_link_is_none(tmp_path):
    assert faults(tmp_path, head='<link rel="stylesheet" href="https://example.org/a.css">')
    assert not faults(tmp_path, head='<link rel="canonical" href="https://example.org/page.html">')


def test_a_sound_page_has_no_fault(tmp_path):
    assert faults(tmp_path, body='<img src="here.png" alt="a"><a href="#top">a</a><a href="page.html#top">a</a>'
                                 '<a href="https://example.org">a reader may leave</a>') == []


def test_no_page_is_a_fault(tmp_path):
    assert "run make html" in check_html.faults(tmp_path)[0]
