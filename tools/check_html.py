"""Can everybody read the built book, without a network?

Every image has alt text, nothing is fetched from outside, every link within the book leads somewhere.

    python tools/check_html.py [_build/html]
"""

from __future__ import annotations

import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements whose address the browser fetches by itself; a link that a reader follows may lead outside.
FETCHED = {"script": "src", "img": "src", "source": "src", "video": "src", "audio": "src", "iframe": "src",
           "embed": "src", "object": "data", "link": "href"}
NOT_FETCHED_LINKS = {"canonical", "next", "prev", "search", "index", "author", "license"}


class Page(HTMLParser):
    """What one page holds: images, addresses that are fetched, links, ids, and the text of its styles."""

    def __init__(self, text: str):
        super().__init__()
        self.images, self.fetched, self.links, self.ids, self.styles = [], [], [], set(), []
        self.in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, pairs) -> None:
        attributes = {key: value or "" for key, value in pairs}
        self.ids.update(attributes[key] for key in ("id", "name") if key in attributes)
        self.styles.append(attributes.get("style", ""))
        self.in_style = tag == "style"
        if tag == "img":
            self.images.append(attributes)
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag in FETCHED and FETCHED[tag] in attributes and not (
                tag == "link" and NOT_FETCHED_LINKS & set(attributes.get("rel", "").split())):
            self.fetched.append(attributes[FETCHED[tag]])

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.styles.append(data)


def faults(site: Path) -> list[str]:
    """Every fault of every page, one sentence each."""
    pages = sorted(site.rglob("*.html"))
    if not pages:
        return [f"{site}: no page; run make html"]
    return [f"{path.relative_to(site)}: {fault}" for path in pages if "_static" not in path.relative_to(site).parts
            for fault in page_faults(path)]


def page_faults(path: Path) -> list[str]:
    page = read(path)
    found = [f"image {image.get('src', '')[-40:]} has no alt text" for image in page.images
             if not image.get("alt", "").strip()]
    found += [f"fetches {address} from outside" for address in page.fetched if is_outside(address)]
    found += [f"a style fetches {address} from outside" for style in page.styles
              for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", style) if is_outside(address)]
    found += [f"asks for {address}, which is not there" for address in page.fetched
              if not is_outside(address) and not leads_somewhere(path, address, fragments=False)]
    found += [f"links to {address}, which is not there" for address in page.links
              if not is_outside(address) and not leads_somewhere(path, address, fragments=True)]
    return found


@cache
def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def is_outside(address: str) -> bool:
    return bool(re.match(r"(https?:)?//", address))


def leads_somewhere(page: Path, address: str, *, fragments: bool) -> bool:
    parts = urlsplit(address)
    if parts.scheme:  # mailto:, data:, javascript:
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return False
    if not (fragments and parts.fragment and target.suffix == ".html"):
        return True
    return unquote(parts.fragment) in read(target).ids


def main() -> None:
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html")
    found = faults(site)
    print(*(found or [f"{site}: images described, nothing fetched from outside, links lead somewhere"]), sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
