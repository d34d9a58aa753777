"""The layout of the source: which package may import which, and how long files, functions and lines
may be.

Imports are read from the text of every .py, .pyx, .pxd and .pyi file, so that a `cimport` and an
import inside a function count as well. The exceptions below only ever get fewer: remove an entry
once its file or function obeys the rule.
"""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "minigrad" / "core").is_dir(), reason="reads the source of a clone"
)

# A module imports from its own floor or a lower one. `minigrad/__init__.py` stands on top.
FLOORS = (
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
FILE_LINES = 700
FUNCTION_LINES = {".py": 60, ".pyx": 60, ".c": 80, ".h": 80, ".inc": 80}
COLUMNS = 100

# (module, imported module): why the import runs up or closes a circle.
UPWARD_IMPORTS = {
    ("minigrad.core.kernels", "minigrad"): "show_config() prints the version, when called",
}

# File -> its present number of lines.
LONG_FILES = {}

# Function -> its present number of lines, wherever it is defined.
LONG_FUNCTIONS = {
    # The library.
    # Scripts.
    "main": 109,
    # Tests: tables of cases, and one kernel written out as its formulas.
}

# (folder, suffix) -> the present number of lines above 100 columns: formulas, docstrings and tables
# that nobody has wrapped yet.
LONG_LINES = {
    ("minigrad", ".pyx"): 74,
    ("csrc", ".c"): 25,
    ("csrc", ".h"): 7,
    ("csrc", ".inc"): 47,
    ("docs", ".md"): 53,
    ("tests", ".c"): 40,
    ("tests", ".h"): 24,
}


def sources(*suffixes, folders=("minigrad", "csrc", "tests", "examples", "benchmarks")):
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
    assert "minigrad.ops.join" in IMPORTS["minigrad.ops.function"]
    assert "minigrad.optim.step" in IMPORTS["minigrad.optim.clip"]


def test_imports_run_down():
    upward = {
        (module, target)
        for module, targets in IMPORTS.items()
        for target in targets
        if floor_of(target) > floor_of(module)
    }
    assert upward <= UPWARD_IMPORTS.keys(), sorted(upward - UPWARD_IMPORTS.keys())


def without_what_has_no_imports(graph):
    """Remove modules whose imports are all removed, until nothing changes: cycles remain."""
    left = {module: set(targets) for module, targets in graph.items()}
    while True:
        free = {module for module, targets in left.items() if not targets & left.keys()}
        if not free:
            return left
        left = {module: targets for module, targets in left.items() if module not in free}


def test_imports_have_no_cycle():
    graph = {
        module: {
            target
            for target in targets
            if target != module and (module, target) not in UPWARD_IMPORTS
        }
        for module, targets in IMPORTS.items()
    }
    assert without_what_has_no_imports(graph) == {}


def test_a_cycle_is_found():
    assert without_what_has_no_imports({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}).keys() == {
        "a",
        "b",
        "c",
    }


# ---------------------------------------------------------------- lengths


def test_length_of_files():
    code = sources(".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".inc")
    lengths = {name_of(path): path.read_text(encoding="utf-8").count("\n") for path in code}
    too_long = {
        name: length
        for name, length in lengths.items()
        if length > max(FILE_LINES, LONG_FILES.get(name, 0))
    }
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
        if length > max(FUNCTION_LINES[path.suffix], LONG_FUNCTIONS.get(name, 0))
    }
    assert too_long == {}


def is_prose_or_code(line):
    """A table's row, a picture or an address cannot be wrapped."""
    return not line.lstrip().startswith(("|", "!")) and "://" not in line


def test_length_of_lines():
    code = sources(".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".inc")
    docs = sources(".md", folders=("docs",))
    counts = Counter()
    for path in code + docs:
        lines = path.read_text(encoding="utf-8").splitlines()
        group = (path.relative_to(ROOT).parts[0], path.suffix)
        counts[group] += sum(len(line) > COLUMNS and is_prose_or_code(line) for line in lines)
    too_many = {group: n for group, n in counts.items() if n > LONG_LINES.get(group, 0)}
    assert too_many == {}
