"""The settings of Sphinx for `make docs`: the pages of this folder, README.md, CONTRIBUTING.md and
CHANGELOG.md, and the reference of the public names, made from their docstrings."""

import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import minigrad  # noqa: E402

project = "minigrad"
copyright = "2026, The minigrad authors"
release = minigrad.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/*.rst",
    "docs/course/*.md",
]
html_theme = "furo"
html_title = f"minigrad {release}"
myst_heading_anchors = 3
default_role = "code"  # docstrings write `code` in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True  # attributes that a class lists may be properties with a text of their own
smartquotes = False


def whole_text(app, what, name, obj, options, lines):
    """Napoleon reads the first line of a property as "type: description", but it is text. So an
    empty comment comes first."""
    if what in ("property", "attribute"):
        lines[:0] = ["..", ""]


def plain(app, what, name, obj, options, lines):
    """Names such as clip_grad_norm_ are no references, nor are |x| and * marks of emphasis."""
    in_example = False
    for k, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and line.strip() != "")
        if in_example:
            continue
        parts = re.split(r"(``?[^`]+``?)", line)  # what is in backticks stays as it is
        parts[::2] = [
            re.sub(r"(?<!\\)((?<=\w)_(?!\w)|\||(?<!\*)\*(?!\*)|(?<=\w)\*\*(?=\w))", r"\\\1", part)
            for part in parts[::2]
        ]
        lines[k] = "".join(parts)


def signature(app, what, name, obj, options, given, result):
    """The arguments of a class are those of its __init__; types are left to the docstring."""
    if what != "class":
        return None
    try:
        found = inspect.signature(obj)
    except ValueError:  # a compiled class: its docstring begins with the arguments
        return None
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    text = str(found.replace(parameters=bare, return_annotation=found.empty))
    return re.sub(r"<class 'numpy\.(\w+)'>", r"\1", text), None


def setup(app):
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", whole_text, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", plain)
