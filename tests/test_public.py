"""What is public is named, documented and typed: each module has __all__, each name a docstring
with an example that runs, each compiled one a stub."""

import ast
import builtins
import doctest
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad.study import explorer, profiling, recording, stepping

PACKAGE = Path(mg.__file__).parent
STUBS = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.pyx")
)


# These offer what is written in them; mg and mg.nn offer what they import.
MODULES = (
    mg.data,
    mg.metrics,
    mg.optim,
    mg.optim.schedule,
    mg.study.dynamics,
    explorer,
    profiling,
    recording,
    stepping,
    mg.training,
)


def public(module):
    """What a module offers: neither its private names nor what it imported from elsewhere."""
    home = module.__name__ if module in MODULES else "minigrad"
    return {
        name: thing
        for name, thing in vars(module).items()
        if name in module.__all__
        and not inspect.ismodule(thing)
        and getattr(thing, "__module__", "").startswith(home)
    }


NAMES = {
    f"{module.__name__}.{name}": thing
    for module in (mg, mg.nn, *MODULES)
    for name, thing in public(module).items()
}
PYTHON_MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.stat().st_size > 200  # what is shorter holds nothing but a docstring
)
COMPILED = {
    name: thing
    for name, thing in NAMES.items()
    if getattr(thing, "__module__", "").removeprefix("minigrad.") in STUBS
}


@pytest.mark.parametrize("name", PYTHON_MODULES)
def test_all(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert {given for given in module.__all__ if not hasattr(module, given)} == set()


def test_import_of_all_hides_no_builtin():
    names = {}
    exec("from minigrad import *", names)
    assert "Tensor" in names
    assert {name for name in names if hasattr(builtins, name) and not name.startswith("_")} == set()


@pytest.mark.parametrize("name", NAMES)
def test_docstring_has_an_example_that_runs(name):
    thing = NAMES[name]
    text = inspect.getdoc(thing if callable(thing) else type(thing))
    test = doctest.DocTestParser().get_doctest(text or "", {"np": np}, name, None, None)
    assert test.examples, f"{name} has no example"
    report = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def documented(thing):
    return [
        name
        for name, member in vars(thing).items()
        if not name.startswith("_")
        and (callable(member) or isinstance(member, (property, staticmethod, classmethod)))
    ]


# Objects of these are made by functions that describe them, not by users.
NOT_MADE_BY_USERS = {"Expansion", "Profile", "Recording", "Row", "Step", "Steps"}


def entries(text):
    """The names in the section Args of a docstring; of a result's class, in Attributes."""
    sections = re.findall(r"^(?:Args|Attributes):\n((?: +.*\n)+)", text + "\n", re.MULTILINE)
    lines = re.findall(r"^ {4}\*?(\w+(?:, \w+)*): ", "".join(sections), re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


def arguments_of(thing):
    if thing is mg.Tensor:  # a compiled class: its stub has the signature
        init = next(
            node for node in stub_of("core.tensor")["Tensor"].body if node.name == "__init__"
        )
        return [name for name, _ in parameters_of_stub(init)[1:]]
    try:
        parameters = inspect.signature(thing).parameters
    except (TypeError, ValueError):  # an exception
        return []
    return [name for name in parameters if name not in ("self", "cls") and name[0] != "_"]


def arguments_not_told(name, thing, sentence_will_do=False):
    """The arguments that have no entry in the docstring. For a method with no more than one, and
    for those that take any number, a sentence with the name will do."""
    if not callable(thing) or name.rpartition(".")[2] in NOT_MADE_BY_USERS:
        return []
    text = inspect.getdoc(thing) or ""
    arguments = arguments_of(thing)
    told = entries(text)
    if sentence_will_do and len(arguments) == 1 or name.startswith("minigrad.Function."):
        told |= set(re.findall(r"\w+", text))
    return [f"{name}: {argument}" for argument in arguments if argument not in told]


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_name_each_argument(name):
    thing = NAMES[name]
    if name == "minigrad.nn.Module":  # its arguments are those of the class that derives from it
        return
    silent = arguments_not_told(name, thing)
    for method in documented(thing) if isinstance(thing, type) else ():
        member = vars(thing)[method]
        if not isinstance(member, property):
            its_own = thing is not mg.Tensor
            silent += arguments_not_told(f"{name}.{method}", getattr(thing, method), its_own)
    assert silent == []


@pytest.mark.parametrize(
    "name",
    [name for name, thing in NAMES.items() if isinstance(thing, type) and thing is not mg.Function],
)
def test_methods_have_docstrings(name):
    bare = [
        method
        for method in documented(NAMES[name])
        if not inspect.getdoc(getattr(NAMES[name], method))
    ]
    assert bare == []


# ---------------------------------------------------------------- stubs


def stub_of(module):
    """The functions and classes of a stub: name -> syntax tree."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.pyi").read_text(encoding="utf-8"))
    return {
        node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }


def parameters_of_stub(function):
    """Pairs (name, has a default), stars included in the name."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [False] * (len(positional) - len(arguments.defaults)) + [True] * len(
        arguments.defaults
    )
    found = [(a.arg, default) for a, default in zip(positional, defaults, strict=True)]
    found += [("*" + arguments.vararg.arg, False)] if arguments.vararg else []
    return found + [
        (a.arg, default is not None)
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]


def parameters(function):
    return [
        (("*" if p.kind == p.VAR_POSITIONAL else "") + p.name, p.default is not p.empty)
        for p in inspect.signature(function).parameters.values()
    ]


def typed(function):
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return function.returns is not None and all(
        a.annotation is not None or a.arg == "self" for a in arguments
    )


@pytest.mark.parametrize("name", COMPILED)
def test_stub(name):
    thing = COMPILED[name]
    found = stub_of(thing.__module__.removeprefix("minigrad.")).get(thing.__name__)
    assert found is not None, f"{name} is in no stub"
    if isinstance(found, ast.FunctionDef):
        assert parameters_of_stub(found) == parameters(thing) and typed(found)


def test_stub_of_tensor():
    """Every method, wherever it is installed from, with its parameters; every property."""
    members = {}
    for node in stub_of("core.tensor")["Tensor"].body:
        if isinstance(node, ast.FunctionDef):
            members.setdefault(node.name, node)  # of a property and its setter the first
            assert typed(node), node.name
    names = {name for name in dir(mg.Tensor) if not name.startswith("_")}
    assert {name for name in members if not name.startswith("_")} == names
    for name in names:
        member = getattr(mg.Tensor, name)
        if callable(member):
            assert [p for p in parameters_of_stub(members[name])][1:] == parameters(member)[1:], (
                name
            )
        else:
            assert ast.unparse(members[name].decorator_list[0]) == "property", name


def test_stubs_say_nothing_that_is_not_there():
    for module in STUBS:
        there = vars(__import__(f"minigrad.{module}", fromlist=["_"]))
        assert {name for name in stub_of(module) if name not in there} == set(), module
