"""Checks the web pages that `make docs` has built: every public name stands in the reference, and
every link within the pages leads to a page, a file or a heading that is there.

    python docs/check.py build/docs
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import minigrad

MODULES = {
    "minigrad": minigrad,
    "minigrad.nn": minigrad.nn,
    "minigrad.nn.init": minigrad.nn.init,
    "minigrad.optim": minigrad.optim,
    "minigrad.optim.schedule": minigrad.optim.schedule,
    "minigrad.data": minigrad.data,
    "minigrad.metrics": minigrad.metrics,
    "minigrad.training": minigrad.training,
    "minigrad.study": minigrad.study,
}


class Page(HTMLParser):
    """The links of a page, and the ids in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links = []
        self.ids = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def dead_links(folder: Path, pages: dict[Path, Page]) -> list[str]:
    """The links that lead nowhere, as "page: link"."""
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
            known = pages.get(target)
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and known and anchor not in known.ids):
                dead.append(f"{path.relative_to(folder)}: {link}")
    return dead


def public_names(module: ModuleType) -> list[str]:
    """The names that a module offers: its __all__, or what is defined in it."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def anchors(module_name: str, module: ModuleType, name: str) -> set[str]:
    """The ids that a description of a public name may have."""
    thing = getattr(module, name)
    if isinstance(thing, ModuleType):
        return {f"module-{thing.__name__}"}
    defined_in = getattr(thing, "__module__", module_name)
    return {f"{module_name}.{name}", f"{defined_in}.{name}"}


def missing_names(pages: dict[Path, Page]) -> list[str]:
    """The public names that no page of the reference describes."""
    described = set()
    for page in pages.values():
        described |= page.ids
    missing = []
    for module_name, module in MODULES.items():
        for name in public_names(module):
            if not described & anchors(module_name, module, name):
                missing.append(f"{module_name}.{name}")
    return missing


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        sys.exit(f"{folder} has no pages")
    wrong = [f"dead link in {link}" for link in dead_links(folder, pages)]
    wrong += [f"not in the reference: {name}" for name in missing_names(pages)]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(pages)} pages: every link leads somewhere, every public name is there")


if __name__ == "__main__":
    main()
