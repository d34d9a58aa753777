"""What there is to call in minigrad, found by introspection."""

import importlib
import inspect
import pkgutil

import minigrad as mg

# What is not called, each with its reason. Everything else that introspection finds is.
NOT_CALLED = {
    "core.kernels.measure_peak": "measures for seconds",
    "core.tensor.install": "changes the class Tensor for the whole process; SCENES has it with "
    "a name of its own",
    "core.kernels.show_config": "prints; called once in SCENES",
    "__getattribute__": "Python's own",
    "__setattr__": "done as an action of its own",
    "__delattr__": "Python's own",
    "__class__": "Python's own",
    "__init_subclass__": "Python's own",
    "__subclasshook__": "Python's own",
    "__dir__": "Python's own",
    "__del__": "Python's own",
    "__weakref__": "Python's own",
    "__dict__": "Python's own",
    "__getstate__": "Python's own",
    "__sizeof__": "Python's own",
    "__doc__": "Python's own",
    "__module__": "Python's own",
    "__abstractmethods__": "Python's own",
    "__annotations__": "Python's own",
    "__orig_bases__": "Python's own",
    "__parameters__": "Python's own",
    "__class_getitem__": "Python's own",
    "__match_args__": "Python's own",
    "__replace__": "Python's own",
}
# The flag of a class written in Python: without __init__ its instances have no attributes, and
# Python says so.
HEAP_TYPE = 1 << 9


NOT_CALLED_MODULES = {
    "minigrad.study.reference": "a text to read: it checks no arguments",
}


def discover():
    """Functions and classes of every module of minigrad that do not begin with an underscore, by
    "module.name"."""
    found = {}
    for info in pkgutil.walk_packages(mg.__path__, "minigrad."):
        if info.name in NOT_CALLED_MODULES:
            continue
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            home = getattr(thing, "__module__", None) or ""
            if name.startswith("_") or not callable(thing) or not home.startswith("minigrad"):
                continue
            key = f"{home.removeprefix('minigrad.')}.{name}"
            if key not in NOT_CALLED and not (
                isinstance(thing, type) and issubclass(thing, BaseException)
            ):
                found[key] = thing
    return dict(sorted(found.items()))


def public_names():
    """The names of `discover` that minigrad offers: those of its public namespaces, under any of
    which they may be found."""
    offered = set()
    for module in (mg, mg.nn, mg.optim, mg.optim.schedule, mg.training, mg.data, mg.metrics):
        offered |= {
            id(thing)
            for name, thing in vars(module).items()
            if not name.startswith("_") and callable(thing)
        }
    return {name for name, thing in discover().items() if id(thing) in offered}


def parameters_of(function):
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def is_ours(thing):
    """An instance of a class of minigrad, or an iterator over its data."""
    return (type(thing).__module__ or "").startswith("minigrad")
