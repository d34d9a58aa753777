"""The layout of the source: which package may import which, and how long files, functions and lines
may be.

Imports are read from the text of every .py, .pyx, .pxd and .pyi file, so that a `cimport` and an
import inside a function count as well.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "minigrad" / "core").is_dir(), reason="reads the source of a clone"
)

# A module imports from its own floor or a lower one. `minigrad/__init__.py` stands on top.
FLOORS = (
    "_version",
    "core",
    "checks",
    "ops",
    "random",
    "nn",
    "optim",
    "data",
    "metrics",
    "training",
    "study",
)
CODE = (".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".inc")

# The limits. They have no exceptions, but see wrappable_lines.
FILE_LINES = 700
FUNCTION_LINES = {".py": 60, ".pyx": 60, ".c": 80, ".h": 80, ".inc": 80}  # without docstrings
COLUMNS = 100


def sources(*suffixes, folders=("minigrad", "csrc", "tests", "examples", "benchmarks", "docs")):
    """The files of the project with these suffixes, without what Cython generated."""
    found = [
        path
        for folder in folders
        for suffix in suffixes
        for path in sorted((ROOT / folder).rglob(f"*{suffix}"))
    ]
    found += [path for path in sorted(ROOT.glob("*.*")) if path.suffix in suffixes]
    return [
        path for path in found if not (path.suffix == ".c" and path.parts[-3:][0] == "minigrad")
    ]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


# ---------------------------------------------------------------- imports


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULE_FILES = sources(".py", ".pyx", ".pxd", ".pyi", folders=("minigrad",))
MODULE_FILES = [path for path in MODULE_FILES if path.is_relative_to(ROOT / "minigrad")]
MODULES = {module_of(path) for path in MODULE_FILES}

FROM = re.compile(r"^\s*from\s+(minigrad[\w.]*)\s+c?import\s+(\([^)]*\)|.+)", re.MULTILINE)
PLAIN = re.compile(r"^\s*c?import\s+(minigrad[\w.]*)", re.MULTILINE)


def without_docstrings(text):
    return re.sub(r'[rR]?"""(.|\n)*?"""', '""', text)


def imported_modules(path):
    """The modules of minigrad that a file imports, at its top or inside a function."""
    text = without_docstrings(path.read_text(encoding="utf-8"))
    found = set(PLAIN.findall(text))
    for package, names in FROM.findall(text):
        for name in re.findall(r"\w+", re.sub(r"#.*|\s+as\s+\w+", "", names)):
            submodule = f"{package}.{name}"
            found.add(submodule if submodule in MODULES else package)
    return found


def floor_of(module):
    parts = module.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 else len(FLOORS)


IMPORTS = {}
for _path in MODULE_FILES:
    IMPORTS.setdefault(module_of(_path), set()).update(imported_modules(_path))


def test_each_module_has_a_floor():
    unknown = {
        module for module in MODULES if module != "minigrad" and module.split(".")[1] not in FLOORS
    }
    assert unknown == set()


def test_every_module_of_the_ops_is_read():
    """A guard of this test itself: the patterns above do find cimports."""
    assert "minigrad.core.kernels" in IMPORTS["minigrad.ops.reduce"]
    assert "minigrad.ops.join" in IMPORTS["minigrad.ops.derivatives"]
    assert "minigrad.optim.step" in IMPORTS["minigrad.optim.clip"]


def test_imports_run_down():
    upward = {
        (module, target)
        for module, targets in IMPORTS.items()
        for target in targets
        if floor_of(target) > floor_of(module)
    }
    assert upward == set()


def without_what_has_no_imports(graph):
    """Remove modules whose imports are all removed, until nothing changes: cycles remain."""
    left = {module: set(targets) for module, targets in graph.items()}
    while True:
        free = {module for module, targets in left.items() if not targets & left.keys()}
        if not free:
            return left
        left = {module: targets for module, targets in left.items() if module not in free}


def test_imports_have_no_cycle():
    graph = {module: targets - {module} for module, targets in IMPORTS.items()}
    assert without_what_has_no_imports(graph) == {}


def test_a_cycle_is_found():
    assert without_what_has_no_imports({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}).keys() == {
        "a",
        "b",
        "c",
    }


# ---------------------------------------------------------------- lengths


def test_length_of_files():
    code = sources(*CODE)
    lengths = {name_of(path): path.read_text(encoding="utf-8").count("\n") for path in code}
    too_long = {name: length for name, length in lengths.items() if length > FILE_LINES}
    assert too_long == {}


def python_functions(path):
    """Pairs (name, lines of code without the docstring)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                length -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, length


CYTHON_FUNCTION = re.compile(r"^( *)(?!cdef class)(?:def|cdef|cpdef)\b[^=\n]*?(\w+)\(")


def blocks(lines, starts, ends):
    """Pairs (name, lines) of blocks: a name where `starts` finds one, up to the last line that is
    not empty before `ends` holds."""
    name, depth, begin, last = None, 0, 0, 0
    for number, line in enumerate(lines):
        if name is not None and ends(line, depth):
            yield name, last - begin + 1
            name = None
        if name is None and (found := starts(line)):
            depth, name = found
            begin = number
        if line.strip():
            last = number
    if name is not None:
        yield name, last - begin + 1


def cython_functions(path):
    """As python_functions, by indentation."""
    text = without_docstrings(path.read_text(encoding="utf-8"))

    def starts(line):
        found = CYTHON_FUNCTION.match(line)
        return (len(found[1]), found[2]) if found else None

    def ends(line, depth):
        indented = len(line) - len(line.lstrip())
        return line.strip() and indented <= depth and not line.lstrip().startswith(")")

    yield from blocks(text.splitlines(), starts, ends)


C_FUNCTION = re.compile(r"^[a-zA-Z][^;={]*?(\w+)\s*\([^;]*$")


def c_functions(path):
    """Functions begin and end in the first column."""
    name = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        found = C_FUNCTION.match(line)
        if found and not line.startswith("typedef"):
            name, begin = found[1], number
        if line.startswith("}") and name is not None:
            yield name, number - begin + 1
            name = None


def functions(path):
    reader = {".py": python_functions, ".pyx": cython_functions}.get(path.suffix, c_functions)
    return reader(path)


def test_length_of_functions():
    too_long = {
        (name_of(path), name): length
        for path in sources(*FUNCTION_LINES)
        for name, length in functions(path)
        if length > FUNCTION_LINES[path.suffix]
    }
    assert too_long == {}


def wrappable_lines(path):
    """Pairs (number, line): all but what nobody can wrap, the rows of a table and the output of a
    program in a page."""
    is_page, in_output = path.suffix == ".md", False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if is_page and line.startswith("```"):
            in_output = line == "```text"
        is_row = is_page and line.startswith("|")
        if not (is_row or in_output):
            yield number, line


def test_length_of_lines():
    files = sources(*CODE) + sources(".py", ".md", folders=("docs",)) + [ROOT / "Makefile"]
    too_long = [
        f"{name_of(path)}:{number}"
        for path in sorted(set(files))
        for number, line in wrappable_lines(path)
        if len(line) > COLUMNS
    ]
    assert too_long == []


def test_only_rows_and_output_may_be_long(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n| row |\n```text\noutput\n```\nmore\n```python\ncode\n```\n")
    assert [line for _, line in wrappable_lines(page)] == [
        "text",
        "```",
        "more",
        "```python",
        "code",
        "```",
    ]
