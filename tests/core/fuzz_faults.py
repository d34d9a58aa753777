"""What counts as a fault: the classes of exceptions that bad input may get, with each exception
from that rule; and how a call is described without asking its arguments."""

import os
import pickle
import traceback
import types
from pathlib import Path

import numpy as np
from fuzz_hostile import Planted

import minigrad as mg

# The classes that bad input may get. IndexError: indexing only, see INDEXING. AttributeError: when
# an attribute is read or set.
ALLOWED = (TypeError, ValueError, IndexError, MemoryError, OSError, RuntimeError, Planted)
NEVER = (RecursionError,)  # though subclasses of an allowed class
INDEXING = (
    "getitem",
    "setitem",
    "mbedding",
    "cross_entropy",
    "nll",
    "accuracy",
    "nats_per_symbol",
    "fit",
    "accumulate",
    "gradcheck",
    "backward",
    "vjp",
    "jvp",
    "hvp",
    "jacobian",
    "hessian",
    "generator",
    "scene",
)
# Exceptions of other classes that are right: part of the call's name, classes, reason.
EXCEPTIONS = (
    ("__int__", (OverflowError,), "int() of an infinity is an OverflowError in Python and NumPy"),
    ("__reduce_ex__", (OverflowError,), "Python's own: a protocol beyond C's int"),
    (
        "__deepcopy__",
        (IndexError, KeyError),
        "a memo that is no dict is indexed, and says what it likes",
    ),
    ("Cell.step", (AttributeError,), "called once a step by what has checked: forward and unroll"),
    ("Cell.next_states", (AttributeError,), "the same"),
    (
        "State.detach",
        (AttributeError,),
        "a named tuple holds what it was given, and asks it to detach",
    ),
    (
        "__str__",
        (AttributeError,),
        "a module whose weight was replaced by something without a shape has no text",
    ),
    ("__repr__", (AttributeError,), "the same"),
    (
        "scene pickles",
        (AttributeError, pickle.PicklingError),
        "the same; and Python's own word that a local function has no pickle",
    ),
    ("__getnewargs__", (AttributeError,), "Python's own, of tuples"),
    (
        "checks.",
        (IndexError, AttributeError, RecursionError),
        "op, name and ends are constants of minigrad's code",
    ),
    ("__rmul__", (OverflowError,), "Python's own, of tuples: repeated more often than C counts"),
)


def named_exception(name, error):
    """See EXCEPTIONS."""
    return any(part in name and isinstance(error, kinds) for part, kinds, _ in EXCEPTIONS)


def planted_below(error):
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, Planted):
            return True
        error = error.__cause__ or error.__context__
    return False


FILES = {path.name for path in Path(__file__).parent.glob("fuzz*.py")}


def raised_by_ours(error):
    """Did it arise in these files or inside NumPy's or Python's handling of an object of ours,
    not in minigrad's own lines?"""
    if planted_below(error):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return (
        bool(frames)
        and os.path.basename(frames[-1].filename) in FILES
        and frames[-1].name not in ("<lambda>", "attempt", "run", "call_member")
    )


def described(value, depth=0):
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes):
        text = repr(value)
        return text if len(text) < 60 else text[:57] + "..."
    if kind is np.ndarray:
        flags = "" if value.flags.c_contiguous else " strided"
        flags += "" if value.flags.writeable else " read-only"
        flags += "" if value.flags.aligned else " misaligned"
        return f"ndarray{value.shape} {value.dtype}{flags}"
    if isinstance(value, mg.Tensor):
        try:
            base = mg.Tensor.shape.__get__(value)
            node = mg.Tensor.grad_fn.__get__(value)
            wanted = " requires_grad" if mg.Tensor.requires_grad.__get__(value) else ""
            made_by = f" of {node!r}" if node is not None else ""
            return f"{kind.__name__}{base} {mg.Tensor.dtype.__get__(value)}{wanted}{made_by}"
        except Exception:
            return f"{kind.__name__} without data"
    if kind in (list, tuple) and depth < 2:
        inner = ", ".join(described(v, depth + 1) for v in value[:6]) + (
            ", ..." if len(value) > 6 else ""
        )
        return f"[{inner}]" if kind is list else f"({inner})"
    if kind is dict and depth < 2:
        return (
            "{"
            + ", ".join(
                f"{described(k, 2)}: {described(v, depth + 1)}" for k, v in list(value.items())[:6]
            )
            + "}"
        )
    if kind is slice:
        parts = (value.start, value.stop, value.step)
        return f"slice({', '.join(described(part, 2) for part in parts)})"
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__}"
    if isinstance(value, type):
        return f"class {value.__name__}"
    return f"<{kind.__module__}.{kind.__name__}>"
