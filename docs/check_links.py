"""Check the built site: every internal link, anchor and image leads somewhere.

    python docs/check_links.py docs/_build/html

Nothing may be loaded from elsewhere when a page is read: scripts, styles, fonts and pictures are
files of the site. What links lead to outside is asked by `make linkcheck`.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}


class Page(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag points to, and its name."""
        known = {name: value for name, value in attrs if value}
        self.anchors.update(known[name] for name in ("id", "name") if name in known)
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
        if tag == "link" and known.get("rel") == "canonical":
            return
        if tag in _LOADED and _LOADED[tag] in known:
            self.loaded.append(known[_LOADED[tag]])


def pages_of(site: Path) -> list[Path]:
    """Return the pages of a site; what is in _static is material of the theme."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def faults(site: Path) -> list[str]:
    """Return what is wrong on the pages of a site, one line for each fault."""
    pages = {path.resolve(): Page(path) for path in pages_of(site)}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for url in page.loaded:
            if urlsplit(url).scheme not in ("", "data") or url.startswith("//"):
                found.append(f"{name} loads {url}")
        for url in page.links + page.loaded:
            parts = urlsplit(url)
            if parts.scheme or url.startswith("//"):
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if not target.is_file():
                found.append(f"{name} leads to {url}, which is not there")
            elif parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].anchors and not anchor.startswith(":~:"):
                    found.append(f"{name} leads to {url}, which has no such place")
    return found


def main() -> None:
    """Print what is wrong; the status is 1 if there is anything."""
    site = Path(sys.argv[1])
    pages = len(pages_of(site))
    if not pages:
        sys.exit(f"{site} has no pages: run make docs")
    found = faults(site)
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.stdout.write(f"sdegen: {pages} pages, {len(found)} dead internal links\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
