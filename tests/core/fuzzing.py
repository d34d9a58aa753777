"""Calls of everything public, with hostile arguments, in a process that may die: the child of
test_public_fuzz.py.

    python tests/core/fuzzing.py --seed 7 --calls 500 [--threads 3] [--interrupts] [--spoil] [--log calls.log]

Each call draws a callable that was found by introspection (functions, classes, methods, properties,
operators of live objects) and arguments that mostly fit, and sometimes do not at all. What a call
returns goes into a pool that later calls draw from, so that calls meet tensors changed in place,
freed graphs, replaced weights, objects that were never initialised. Beside single calls there are
whole steps of training (SCENES). The seed determines all of it; before a call is made its
description goes to the log, so that the last line tells what a crash was made by.

What is wrong is printed as one line of JSON beginning with "FAULT "; the last line of a run that
came to its end is "END". A fault is an exception outside of ALLOWED, an exception that Python could
not raise (sys.unraisablehook), memory that must not change and did, or a small training that gives
other bits than at the start. A hang is seen by the parent.
"""

import argparse
import contextlib
import copy
import faulthandler
import gc
import importlib
import inspect
import io
import itertools
import json
import mmap
import os
import pickle
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings

import numpy as np

import minigrad as mg


class Planted(Exception):
    """Raised by hostile objects and hooks; it may come out of any call."""


class PlantedKeyError(Planted, KeyError):
    """One that code which catches KeyError for its own ends may swallow."""


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
    "jacobian",
    "generator",
    "scene",
)

# What is not called, each with its reason. Everything else that introspection finds is.
NOT_CALLED = {
    "core.kernels.measure_peak": "measures for seconds",
    "core.tensor.install": "changes the class Tensor for the whole process; SCENES has it with a name of its own",
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

HEAP_TYPE = (
    1 << 9
)  # a class written in Python: without __init__ its instances have no attributes, and Python says so
MAX_LIVE, MAX_ELEMENTS = 160, 20_000
FLOATS = (np.float32, np.float64)


# ---------------------------------------------------------------- what there is to call


def discover():
    """Functions and classes of every module of minigrad that do not begin with an underscore, by
    "module.name"."""
    found = {}
    for info in pkgutil.walk_packages(mg.__path__, "minigrad."):
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


# ---------------------------------------------------------------- hostile objects


class Hostile:
    """Objects whose special methods lie, change between calls, raise, or go on fuzzing inside of
    the call that asked them."""

    def __init__(self, run):
        self.run, self.asked = run, 0

    def act(self):
        """What happens when the object is asked for something."""
        self.asked += 1
        self.run.inside()

    def __repr__(self):
        return f"<{type(self).__name__}>"


class ArrayOnce(Hostile):
    """Another array at each request."""

    def __array__(self, dtype=None, copy=None):
        self.act()
        return self.run.array()


class ArrayOther(Hostile):
    """Claims a shape and a dtype that its array has not."""

    shape, ndim, dtype, size = (2, 3), 2, np.dtype(np.float32), 6

    def __array__(self, dtype=None, copy=None):
        self.act()
        return self.run.array()


class ArrayNone(Hostile):
    def __array__(self, dtype=None, copy=None):
        self.act()
        return None


class EvilIndex(Hostile):
    def __index__(self):
        self.act()
        return self.run.pick((0, 1, 2, -1, 3, 100, 2**31, 2**63, -(2**63), 10**30))


class EvilFloat(Hostile):
    def __float__(self):
        self.act()
        return self.run.pick((0.5, float("nan"), float("inf"), -1e300, 0.0))


class EvilLength(Hostile):
    """A sequence that tells a wrong length."""

    def __len__(self):
        self.act()
        return self.run.pick((0, 1, 3, 1000, 2**40))

    def __getitem__(self, k):
        self.act()
        if isinstance(k, int) and not 0 <= k < 3:
            raise IndexError(k)
        return self.run.value()


class EvilIterator(Hostile):
    def __iter__(self):
        self.act()
        for _ in range(self.run.pick((0, 1, 2, 3, 5))):
            self.act()
            yield self.run.value()


class EvilBool(Hostile):
    def __bool__(self):
        self.act()
        return self.run.pick((True, False))


class EvilEqual(Hostile):
    __hash__ = Hostile.__hash__

    def __eq__(self, other):
        self.act()
        return self.run.pick((True, False, NotImplemented, None, np.zeros(3)))


class EvilHash(Hostile):
    def __hash__(self):
        self.act()
        return self.asked

    def __eq__(self, other):
        return True


class EvilAttributes(Hostile):
    """Has every attribute, of a nonsensical kind."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        self.act()
        return self.run.value()


class EvilCall(Hostile):
    def __call__(self, *args, **kwargs):
        self.act()
        return self.run.value()


class EvilDel(Hostile):
    def __del__(self):
        with contextlib.suppress(BaseException):
            self.act()


class EvilMapping(Hostile):
    def keys(self):
        self.act()
        return ["a", "b", self.run.value()]

    def __getitem__(self, key):
        self.act()
        return self.run.value()

    def items(self):
        self.act()
        return [("a", self.run.value()), self.run.value()]


class EvilString(str):
    __hash__ = str.__hash__

    def __eq__(self, other):
        return False

    def encode(self, *args):
        return b"\0"


class EvilInt(int):
    def __index__(self):
        return 3

    def __add__(self, other):
        return "3"

    __radd__ = __mul__ = __rmul__ = __add__


class EvilFloatNumber(float):
    def __mul__(self, other):
        return None

    __rmul__ = __add__ = __radd__ = __mul__


class EvilList(list):
    def __len__(self):
        return 7

    def __iter__(self):
        return iter(range(2))


class EvilTuple(tuple):
    def __len__(self):
        return 1

    def __iter__(self):
        return iter((None, 3.0, "x"))


class EvilArray(np.ndarray):
    """A subclass of ndarray whose attributes lie."""

    @property
    def shape(self):
        return (1000, 1000)

    @property
    def dtype(self):
        return np.dtype(np.float32)

    def astype(self, *args, **kwargs):
        return "no array"

    def __array_finalize__(self, other):
        pass


class EvilTensor(mg.Tensor):
    """A subclass of Tensor that was never initialised by its own __init__, or twice."""

    def __init__(self, *args):
        pass


class LyingTensor(mg.Tensor):
    """A subclass of Tensor that says things about itself that are not so."""

    @property
    def shape(self):
        return (7, 7)

    @property
    def dtype(self):
        return np.dtype(np.float16)

    def numpy(self):
        return np.zeros((7, 7), np.float16)

    def __len__(self):
        return 10**6


class Square(mg.Function):
    @staticmethod
    def forward(ctx, x, *rest):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * x * 2.0


class EvilFunction(mg.Function):
    """Returns anything, keeps anything."""

    @staticmethod
    def forward(ctx, *args):
        RUN.inside()
        with contextlib.suppress(TypeError):
            ctx.save_for_backward(*args)
        return RUN.value()

    @staticmethod
    def backward(ctx, *dys):
        RUN.inside()
        return RUN.value()


class EvilModule(mg.nn.Module):
    """A module that is not initialised, and whose forward gives anything."""

    def __init__(self):
        pass

    def forward(self, *args):
        RUN.inside()
        return RUN.value()


class Net(mg.nn.Module):
    """A well-behaved module that holds others."""

    def __init__(self):
        self.cell = mg.nn.LSTM(3, 4, rng=np.random.default_rng(0))
        self.head = mg.nn.Linear(4, 2, rng=np.random.default_rng(1))

    def forward(self, x, state=None):
        out, state = self.cell(x, state)
        return self.head(out), state


HOSTILE = (
    ArrayOnce,
    ArrayOther,
    ArrayNone,
    EvilIndex,
    EvilFloat,
    EvilLength,
    EvilIterator,
    EvilBool,
    EvilEqual,
    EvilHash,
    EvilAttributes,
    EvilCall,
    EvilDel,
    EvilMapping,
)


# ---------------------------------------------------------------- drawing arguments

SHAPES = (
    (),
    (1,),
    (2,),
    (3,),
    (2, 3),
    (3, 2),
    (3, 3),
    (2, 1),
    (1, 3),
    (0,),
    (0, 3),
    (2, 0),
    (4, 2, 3),
    (4, 2, 4),
    (2, 2, 2),
    (1, 2, 4),
    (2, 4),
    (3, 4),
    (4, 3),
    (3, 16),
    (4, 12),
    (3, 8),
    (4, 16),
    (4, 8),
    (16,),
    (12,),
    (4,),
    (5, 4),
    (1, 1, 1, 1),
)
HUGE = (
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    10**400,
    -1,
    -2,
    -(2**31),
    -(2**63),
    -(2**64),
)
WORK_LIMIT = {  # arguments that ask for that much work, and get it: no fault, only time
    "num_layers": 3,
    "n": 64,
    "epochs": 2,
    "steps": 3,
    "seed": None,
    "T": 50,
    "k1": None,
    "count": None,
}


class Drawer:
    """Draws values; one for each thread, all of them with the live objects and the constants of the
    run."""

    def __init__(self, seed, run):
        self.rng, self.main, self.depth = random.Random(seed), run, 0
        self.np_rng = np.random.default_rng(self.rng.getrandbits(60))

    def pick(self, values):
        return values[self.rng.randrange(len(values))]

    def chance(self, p):
        return self.rng.random() < p

    # -- arrays

    def shape(self):
        return self.pick(SHAPES)

    def plain(self, shape=None, dtype=None):
        shape = self.shape() if shape is None else shape
        dtype = self.pick((np.float32,) * 5 + (np.float64,)) if dtype is None else dtype
        return self.np_rng.standard_normal(shape).astype(dtype)

    def array(self):
        """Any ndarray."""
        kind = self.rng.randrange(20)
        a = self.plain()
        if kind < 5:
            return a
        if kind == 5:
            return a.astype(np.float16)
        if kind == 6:
            return (
                a.astype(
                    self.pick(
                        (
                            np.int64,
                            np.int32,
                            np.uint8,
                            np.bool_,
                            np.complex64,
                            np.longdouble,
                            object,
                            "S3",
                            "M8[s]",
                        )
                    ),
                    casting="unsafe",
                )
                if a.size
                else a.astype(np.int64)
            )
        if kind == 7:
            return np.ma.masked_array(a, a > 0)
        if kind == 8:  # misaligned
            raw = np.zeros(a.nbytes + 1, np.uint8)[1:]
            b = raw.view(a.dtype)[: a.size].reshape(a.shape)
            b[...] = a
            return b
        if kind == 9:
            a.flags.writeable = False
            return a
        if kind == 10:
            return a[..., ::-1] if a.ndim else a
        if kind == 11:
            return np.broadcast_to(a, (2, *a.shape))
        if kind == 12:
            return a.T
        if kind == 13:
            return a.astype(a.dtype.newbyteorder())
        if kind == 14:  # strides that are no multiple of the item
            record = np.zeros(a.shape, [("c", "i1"), ("x", a.dtype)])
            record["x"] = a
            return record["x"]
        if kind == 15:
            return a.view(EvilArray)
        if kind == 16:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return np.matrix(a.reshape(1, -1))
        if kind == 17:
            return self.pick(
                (
                    np.float32(2),
                    np.float64(0.5),
                    np.int64(3),
                    np.bool_(True),
                    np.array(None),
                    np.array("x"),
                )
            )
        return self.pick(self.main.constants)[1]

    def integers(self, shape=None, high=4):
        a = self.np_rng.integers(0, high, self.shape() if shape is None else shape)
        return a.astype(self.pick((np.int64, np.int64, np.int32, np.uint8)))

    # -- tensors

    def tensor(self, shape=None, dtype=None):
        if shape is None and self.chance(0.75):
            t = self.live(mg.Tensor)
            if t is not None:
                return t
        if shape is None and self.chance(0.05):
            return (
                LyingTensor
                if self.main.options.initialised
                else self.pick((EvilTensor, LyingTensor))
            )(self.plain())
        source = self.plain(shape, dtype)
        if shape is None and self.chance(0.1):
            source = self.pick(self.main.constants)[1]
        t = mg.Tensor(source, requires_grad=self.chance(0.6), copy=self.chance(0.8))
        self.main.keep(self, t)
        return t

    def live(self, kind):
        """One of the live objects of a class, or None."""
        pool = self.main.pool
        for _ in range(8):
            if not pool:
                return None
            with contextlib.suppress(IndexError):  # another thread may have shortened the pool
                found = pool[self.rng.randrange(len(pool))]
                if isinstance(found, kind):
                    return found
        return None

    def own(self):
        """A live object of ours, of any kind but a plain Tensor more often."""
        pool = self.main.pool
        for _ in range(3):
            with contextlib.suppress(IndexError, ValueError):
                found = pool[self.rng.randrange(len(pool))]
                if not isinstance(found, mg.Tensor):
                    return found
        return found if pool else self.tensor()

    # -- other things

    def axis(self):
        return self.pick(
            (
                None,
                0,
                1,
                -1,
                -2,
                2,
                0,
                -1,
                (0, 1),
                (),
                (0, 0),
                (-1, 0),
                5,
                True,
                "0",
                1.0,
                EvilIndex(self),
                [0, 1],
            )
        )

    def index(self):
        kind = self.rng.randrange(16)
        if kind < 3:
            return self.pick((0, 1, -1, 2, 7, -9, 2**63, True))
        if kind < 6:
            ends = (
                None,
                0,
                1,
                2,
                -1,
                9,
                -9,
                2**63,
                np.array(1),
                np.int64(1),
                EvilIndex(self),
                0.5,
                mg.ones(()),
            )
            return slice(
                self.pick(ends),
                self.pick(ends),
                self.pick((None, 1, 2, -1, 0, -2, np.array(1), EvilIndex(self))),
            )
        if kind < 9:
            return tuple(self.index() for _ in range(self.rng.randrange(4)))
        if kind == 9:
            return self.pick(
                (
                    None,
                    Ellipsis,
                    (),
                    (Ellipsis, Ellipsis),
                    (None, None),
                    [],
                    [0, 1],
                    [[0], [1]],
                    [True, False],
                )
            )
        if kind == 10:
            return self.integers()
        if kind == 11:
            return self.np_rng.random(self.shape()) < 0.5
        if kind == 12:
            t = self.tensor()
            with contextlib.suppress(Exception):
                return t > 0
        if kind == 13:
            return np.array([0, 1, 99, -99])
        return self.pick(
            (EvilIndex(self), ArrayOnce(self), self.array(), "x", 1.5, (0,) * 70, [EvilIndex(self)])
        )

    def number(self):
        return self.pick(
            (
                0.1,
                0.5,
                1.0,
                2.0,
                0,
                1,
                2,
                -1.0,
                1e-8,
                0.9,
                0.99,
                float("nan"),
                float("inf"),
                -float("inf"),
                1e308,
                1e-320,
                10**400,
                True,
                np.float32(0.5),
                np.float64(0.25),
                np.int64(2),
                np.array(0.5),
                "1",
                None,
                1j,
                EvilFloat(self),
                EvilFloatNumber(0.5),
                EvilInt(2),
                mg.ones(()),
                3,
                0.25,
            )
        )

    def size(self, name=""):
        limit = WORK_LIMIT.get(name, 0)
        if self.chance(0.85):
            return self.pick((1, 2, 3, 3, 4, 4, 2, 1))
        if limit:
            return self.pick(
                (
                    0,
                    -1,
                    True,
                    1.0,
                    "2",
                    None,
                    2**63,
                    10**30,
                    limit,
                    np.int64(2),
                    EvilFloat(self),
                    EvilInt(2),
                )
            )
        return self.pick(
            (
                0,
                True,
                1.0,
                2.5,
                "2",
                None,
                np.int64(2),
                np.array(2),
                EvilIndex(self),
                EvilFloat(self),
                EvilInt(2),
                *HUGE,
            )
        )

    def dims(self):
        if self.chance(0.8):
            return self.shape()
        return self.pick(
            (
                self.size(),
                (2, -1),
                (-1,),
                (-1, -1),
                (2**40, 2**30),
                (2**31, 2**31),
                (2**62, 4),
                (1,) * 65,
                (0, 2**63),
                "23",
                None,
                (2.0,),
                EvilLength(self),
                EvilIterator(self),
                (EvilIndex(self),),
                [2, 3],
                np.array([2, 3]),
                EvilTuple((2,)),
                (2**46,),
                (10**30, 0),
            )
        )

    def dtype(self):
        return self.pick(
            (
                np.float32,
                np.float32,
                np.float64,
                "float32",
                np.dtype("f8"),
                np.float16,
                int,
                "nonsense",
                None,
                complex,
                object,
                np.dtype(">f4"),
                np.dtype([("a", "f4")]),
                3,
                EvilAttributes(self),
                EvilString("float32"),
            )
        )

    def flag(self):
        return self.pick(
            (
                True,
                False,
                True,
                False,
                True,
                False,
                None,
                1,
                0,
                "yes",
                np.bool_(True),
                EvilBool(self),
                np.ones(2),
            )
        )

    def text(self):
        return self.pick(
            (
                "concat",
                "sum",
                "mean",
                "mul",
                "tanh",
                "relu",
                "sqrt",
                "lstm",
                "gru",
                "rnn",
                "min",
                "max",
                "rel",
                "abs",
                "text",
                "dot",
                "svg",
                "cos",
                "linear",
                "none",
                "",
                "x" * 1000,
                "\0",
                "\ud800",
                "é",
                "op {} %s",
                EvilString("sum"),
                None,
                3,
            )
        )

    def path(self):
        name = self.pick(
            (
                "a.safetensors",
                "b.safetensors",
                "c",
                "a.safetensors",
                "no/such/folder/a",
                "junk",
                "link",
            )
        )
        whole = os.path.join(self.main.folder, name)
        return self.pick(
            (
                whole,
                whole,
                whole,
                whole.encode(),
                None,
                3,
                "",
                "\0",
                EvilString(whole),
                self.main.folder,
                1.5,
                EvilAttributes(self),
            )
        )

    def hook(self):
        """A function of the gradient that does what it should not."""
        kind, drawer = self.rng.randrange(14), self
        if kind == 0:
            return lambda *a: None
        if kind == 1:
            return lambda g, *a: g * 2.0
        if kind == 2:
            return lambda *a: drawer.inside()
        if kind == 3:

            def raises(*a):
                raise drawer.pick((Planted, PlantedKeyError))("hook")

            return raises
        if kind == 4:
            return lambda *a: gc.collect() and None
        if kind == 5:

            def changes(g, *a):
                g[...] = 0.0

            return changes
        if kind == 6:
            return lambda *a: drawer.value()
        if kind == 7:
            old = self.tensor()

            def uses(g, *a):
                return g * mg.sigmoid(old).sum() if g.dtype == old.dtype else None

            return uses
        if kind == 8:

            def again(*a):
                t = drawer.tensor()
                t.backward(np.ones(t.shape, t.dtype), retain_graph=drawer.chance(0.5))

            return again
        if kind == 9:

            def drops(*a):
                with contextlib.suppress(IndexError):
                    for _ in range(30):
                        drawer.main.pool.pop()
                gc.collect()

            return drops
        if kind == 10:

            def other_thread(*a):
                thread = threading.Thread(
                    target=lambda: (mg.ones(3, requires_grad=True) * 2.0).sum().backward(),
                    daemon=True,
                )
                thread.start()
                thread.join(0.2)

            return other_thread
        if kind == 11:

            def hooks_more(g, *a):
                t = drawer.live(mg.Tensor)
                if t is not None and t.requires_grad:
                    t.register_hook(lambda g: None)

            return hooks_more
        if kind == 12:
            return EvilCall(self)
        return lambda *a: drawer.main.change_constants()

    def function(self):
        """A function of tensors, as vjp, gradcheck, a loss or a model take it."""
        drawer = self
        return self.pick(
            (
                lambda *x: (x[0] * x[0]).sum(),
                lambda *x: x[0] * 2.0,
                lambda *x: drawer.value(),
                lambda *x: x,
                lambda *x: None,
                lambda *x: drawer.tensor().sum(),
                self.hook(),
                mg.mse,
                mg.tanh,
                mg.add,
                EvilCall(self),
                None,
                "f",
                lambda x, s=None: (x, s),
                lambda *x: x[0].numpy(),
                Net(),
                Square.apply,
                EvilFunction.apply,
            )
        )

    def module(self):
        found = self.live(mg.nn.Module) if self.chance(0.6) else None
        if found is None:
            make = self.pick(
                (
                    lambda: mg.nn.LSTM(3, 4),
                    lambda: mg.nn.GRU(3, 4, bidirectional=True),
                    lambda: mg.nn.RNN(3, 4, num_layers=2),
                    lambda: mg.nn.Linear(3, 2),
                    lambda: mg.nn.LSTMCell(3, 4),
                    lambda: mg.nn.GRUCell(3, 4),
                    Net,
                    EvilModule,
                    lambda: mg.nn.Embedding(5, 3),
                    lambda: mg.nn.RNNCell(3, 4),
                    lambda: mg.nn.Dropout(0.5),
                    lambda: mg.nn.LSTM(
                        3, 4, checkpoint="sqrt", dropout=0.2, recurrent_dropout=0.2, num_layers=2
                    ),
                )
            )
            found = make()
            self.main.keep(self, found)
        return found

    def optimizer(self):
        found = self.live(mg.optim.Optimizer) if self.chance(0.7) else None
        if found is None:
            make = self.pick(
                (mg.optim.SGD, mg.optim.Adam, mg.optim.AdamW, mg.optim.RMSprop, mg.optim.Adagrad)
            )
            module = self.module()
            parameters = (
                list(module.parameters())
                if self.chance(0.7) and not isinstance(module, EvilModule)
                else []
            )
            found = make(parameters or [mg.ones((2, 3), requires_grad=True)], lr=0.01)
            self.main.keep(self, found)
        return found

    def parameters(self):
        kind = self.rng.randrange(7)
        if kind < 3:
            return list(self.module().parameters())
        if kind == 3:
            return [self.tensor() for _ in range(self.rng.randrange(4))]
        if kind == 4:
            return [{"params": [self.tensor()], "lr": self.number()}]
        if kind == 5:
            return [("w", self.tensor()), ("v", self.tensor())]
        return self.value()

    def state(self):
        kind = self.rng.randrange(6)
        h = mg.Tensor(self.plain((1, 2, 4), np.float32), requires_grad=self.chance(0.5))
        if kind == 0:
            return None
        if kind == 1:
            return h
        if kind == 2:
            return (h, h)
        if kind == 3:
            return mg.Tensor(self.plain((2, 4), np.float32))
        if kind == 4:
            return (self.tensor(), self.tensor())
        return self.value()

    def saved_state(self):
        """A state_dict of something, perhaps spoilt."""
        thing = self.own()
        with contextlib.suppress(Exception):
            state = thing.state_dict()
            if isinstance(state, dict) and state and self.chance(0.5):
                key = self.pick(list(state))
                if self.chance(0.3):
                    del state[key]
                else:
                    state[key] = self.value()
            return state
        return {"a": self.value()}

    def sequences(self):
        kind = self.rng.randrange(5)
        if kind < 2:
            return [self.plain((n, 3), np.float32) for n in (4, 2, 0, 3)]
        if kind == 2:
            return [self.integers((n,)) for n in (4, 2, 3)]
        if kind == 3:
            return [self.value() for _ in range(3)]
        return self.value()

    def batches(self):
        x = mg.Tensor(self.plain((4, 2, 3), np.float32))
        return self.pick(
            (
                [(x, x)],
                [(x,), (x,)],
                [],
                None,
                [x],
                iter([(x, x)]),
                [self.value()],
                EvilIterator(self),
                self.live(mg.data.Batches) or [(x, x)],
            )
        )

    def lengths(self):
        return self.pick(
            (
                None,
                np.array([4, 2]),
                np.array([0, 4]),
                [4, 1],
                np.array([5, 1]),
                np.array([-1, 2]),
                np.array([1.0, 2.0]),
                np.array([2**40, 1]),
                np.array([1, 2], np.uint8),
                [EvilIndex(self), 2],
                ArrayOnce(self),
                "ab",
                np.array([3]),
                np.array([2, 4], ">i8"),
                self.main.changing,
                EvilLength(self),
            )
        )

    def reset(self):
        return self.pick(
            (
                None,
                np.zeros((4, 2), bool),
                np.ones((4, 2), bool),
                np.ones((4, 3), bool),
                np.ones((4, 2)),
                ArrayOnce(self),
                np.zeros((2, 4), bool).T,
                self.value(),
            )
        )

    def generator(self):
        return self.pick(
            (
                None,
                np.random.default_rng(3),
                mg.Generator(3),
                3,
                "x",
                self.live(mg.Generator),
                EvilAttributes(self),
            )
        )

    def hostile(self):
        kind = self.rng.randrange(24)
        if kind < 8:
            return self.pick(HOSTILE)(self)
        if kind < 12:
            return self.array()
        if kind == 12:
            return self.pick(
                (
                    None,
                    None,
                    True,
                    "x",
                    b"x",
                    {},
                    [],
                    (),
                    set(),
                    object(),
                    type,
                    print,
                    NotImplemented,
                    Ellipsis,
                    1j,
                )
            )
        if kind == 13:
            return self.pick(HUGE)
        if kind == 14:
            return self.own()
        if kind == 15:
            return self.pick(list(self.main.callables.values()))
        if kind == 16 and not self.main.options.initialised:
            return EvilTensor.__new__(self.pick((EvilTensor, mg.Tensor)), *self.pick(((), (3,))))
        if kind == 17:
            nested = []
            for _ in range(self.pick((10, 70, 900, 5000))):
                nested = [nested]
            return nested
        if kind == 18:
            return self.pick(
                (
                    EvilList([1.0]),
                    EvilTuple((1.0, 2.0)),
                    EvilInt(5),
                    EvilString("a"),
                    EvilFloatNumber(1.5),
                )
            )
        if kind == 19:
            loop = [1.0]
            loop.append(loop)
            return loop
        if kind == 20:
            return self.hook()
        if kind == 21:
            return [self.tensor(), self.tensor()]
        if kind == 22:
            return (x for x in (self.value(), self.value()))
        return memoryview(bytearray(24)).cast("f")

    def value(self):
        """Anything: fitting or not."""
        self.depth += 1
        try:
            if self.depth > 3:
                return self.pick((None, 1.0, self.main.changing, mg.ones(3)))
            kind = self.rng.randrange(12)
            if kind < 4:
                return self.tensor()
            if kind == 4:
                return self.plain()
            if kind == 5:
                return self.number()
            if kind == 6:
                return self.size()
            if kind == 7:
                return self.pick(
                    (
                        [1.0, 2.0],
                        (1, 2),
                        [[1.0, 2.0], [3.0, 4.0]],
                        {"a": np.ones(3)},
                        [np.ones(3)],
                        "text",
                        (mg.ones(2),),
                    )
                )
            return self.hostile()
        finally:
            self.depth -= 1

    def inside(self):
        """Called by hostile objects in the middle of a call of minigrad."""
        kind = self.rng.randrange(12)
        if self.depth > 3 or kind > 6:
            return
        self.depth += 1
        try:
            if kind == 0:
                gc.collect()
            elif kind == 1:
                raise self.pick((Planted, Planted, PlantedKeyError))("inside")
            elif kind == 2:
                self.main.change_constants()
            elif kind == 3:
                t = self.live(mg.Tensor)
                if t is not None:
                    with contextlib.suppress(Exception):
                        t[...] = 0.0
            elif kind == 4:
                with contextlib.suppress(IndexError):
                    for _ in range(20):
                        self.main.pool.pop()
            elif kind == 5:
                self.main.action(self)
            else:
                t = self.live(mg.Tensor)
                if t is not None:
                    with contextlib.suppress(Exception):
                        t.__init__(self.plain())
        finally:
            self.depth -= 1

    # -- an argument by the name of its parameter

    BY_NAME = {
        "axis": "axis",
        "axis1": "axis",
        "axis2": "axis",
        "axes": "axis",
        "index": "index",
        "indices": "index",
        "shape": "dims",
        "dtype": "dtype",
        "path": "path",
        "save": "path",
        "resume": "path",
        "hook": "hook",
        "fn": "function",
        "function": "function",
        "loss": "function",
        "model": "module",
        "layer": "module",
        "cell": "module",
        "forward": "module",
        "backward": "module",
        "module": "module",
        "optimizer": "optimizer",
        "params": "parameters",
        "parameters": "parameters",
        "state": "state",
        "h": "state",
        "h0": "state",
        "lengths": "lengths",
        "reset": "reset",
        "rng": "generator",
        "generator": "generator",
        "sequences": "sequences",
        "batches": "batches",
        "losses": "sequences",
        "merge": "text",
        "form": "text",
        "mode": "text",
        "name": "text",
        "op": "text",
        "nonlinearity": "text",
        "checkpoint": "text",
        "validate": "function",
        "line": "function",
    }
    SIZES = {
        "input_size",
        "hidden_size",
        "num_layers",
        "in_features",
        "out_features",
        "k1",
        "k2",
        "epochs",
        "steps",
        "batch_size",
        "n",
        "parts",
        "count",
        "num_embeddings",
        "embedding_dim",
        "step_size",
        "T_max",
        "total_iters",
        "patience",
        "room",
        "season",
        "features",
        "ddof",
        "period",
        "total_steps",
        "cooldown",
        "window",
        "horizon",
        "stride",
        "context",
        "length",
        "width",
    }
    FLAGS = {
        "requires_grad",
        "keepdims",
        "copy",
        "retain_graph",
        "create_graph",
        "allow_unused",
        "bidirectional",
        "bias",
        "trace",
        "reverse",
        "training",
        "shuffle",
        "bucket",
        "nesterov",
        "maximize",
        "amsgrad",
        "centered",
        "reset_after",
        "save_value",
        "peephole",
        "drop_last",
    }

    def argument(self, parameter, owner=""):
        name = parameter.name
        if self.chance(0.12):
            return self.value()
        if name == "state" and "load" in owner:
            return self.saved_state()
        if name in self.BY_NAME:
            return getattr(self, self.BY_NAME[name])()
        if name in self.FLAGS or isinstance(parameter.default, bool):
            return self.flag()
        if name in self.SIZES or (
            isinstance(parameter.default, int) and not isinstance(parameter.default, bool)
        ):
            return self.size(name)
        if isinstance(parameter.default, float):
            return self.number()
        if name in ("targets", "y", "classes", "weight_index") and self.chance(0.6):
            return self.integers()
        if name in ("config", "extra"):
            return self.pick((None, {"a": 1}, {"a": (1, 2)}, {1: 2}, self.value(), [float("nan")]))
        if name in ("arrays", "state_dict", "saved"):
            return self.pick(
                (
                    {"a": self.plain()},
                    {"a": self.array()},
                    {"a": self.value()},
                    {3: self.plain()},
                    self.value(),
                    {"\ud800": self.plain()},
                    self.saved_state(),
                )
            )
        if name == "parts":
            return self.pick(
                (
                    {"m": self.module()},
                    {"m": self.value()},
                    {},
                    {"o": self.optimizer(), "m": self.module()},
                )
            )
        return self.tensor() if self.chance(0.7) else self.value()

    def arguments(self, parameters, owner=""):
        args, kwargs = [], {}
        if parameters is None:
            return [self.value() for _ in range(self.rng.randrange(4))], kwargs
        by_keyword = False
        for p in parameters:
            if p.name in ("self", "cls"):
                continue
            if p.kind == p.VAR_POSITIONAL:
                args += [self.argument(p, owner) for _ in range(self.rng.randrange(3))]
                by_keyword = True
            elif p.kind == p.VAR_KEYWORD:
                continue
            elif p.default is not p.empty and self.chance(0.6):
                by_keyword = True
            elif p.kind == p.POSITIONAL_ONLY or (
                p.kind == p.POSITIONAL_OR_KEYWORD and not by_keyword
            ):
                args.append(self.argument(p, owner))
            else:
                kwargs[p.name] = self.argument(p, owner)
        if self.chance(0.02):
            kwargs["no_such_option"] = 1
        if self.chance(0.02) and args:
            args.pop()
        return args, kwargs


# ---------------------------------------------------------------- a description that asks the object nothing


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
        return f"slice({described(value.start, 2)}, {described(value.stop, 2)}, {described(value.step, 2)})"
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__}"
    if isinstance(value, type):
        return f"class {value.__name__}"
    return f"<{kind.__module__}.{kind.__name__}>"


# ---------------------------------------------------------------- the run


class Stop(BaseException):
    """The run has made its calls."""


class Run:
    def __init__(self, options):
        self.options = options
        self.calls, self.lock = itertools.count(1), threading.Lock()
        self.done, self.outcomes, self.faults, self.reached = 0, {}, {}, set()
        self.pool, self.spoilt = [], False
        self.folder = tempfile.mkdtemp(prefix="minigrad-fuzz-")
        with open(os.path.join(self.folder, "junk"), "wb") as file:
            file.write(bytes(range(256)))
        self.callables = discover()
        self.public = public_names()
        self.classes = {
            thing.__name__ for thing in self.callables.values() if isinstance(thing, type)
        }
        self.public_classes = {
            thing.__name__
            for name, thing in self.callables.items()
            if name in self.public and isinstance(thing, type)
        }
        self.scenes = [
            scene for scene in SCENES if scene.__name__ not in options.without.split(",")
        ]
        self.log = (
            os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if options.log
            else None
        )
        self.make_constants()
        self.main = Drawer(options.seed, self)
        self.reference = self.small_training()

    # -- memory that must not change

    def make_constants(self):
        """Arrays between guards, over pages that cannot be written, and one that changes under the
        calls' hands."""
        rng = np.random.default_rng(self.options.seed)
        self.constants, self.guards, self.snapshots = [], [], []
        for k, shape in enumerate(((2, 3), (3,), (4, 2, 3), (3, 3), (1, 2, 4))):
            dtype = FLOATS[k == 3]
            n = int(np.prod(shape))
            whole = np.full(n + 32, 1234.5, dtype)
            inner = whole[16 : 16 + n].reshape(shape)
            inner[...] = rng.standard_normal(shape)
            self.guards.append((whole, n))
            self.constants.append(("guarded", inner))
            frozen = inner.copy()
            frozen.flags.writeable = False
            self.constants.append(("frozen", frozen))
            self.snapshots.append((frozen, frozen.copy()))
            path = os.path.join(self.folder, f"memory{k}")
            with open(path, "wb") as file:
                file.write(inner.tobytes().ljust(mmap.PAGESIZE, b"\0"))
            paged = np.memmap(path, dtype, "r", shape=shape)
            self.constants.append(("pages that cannot be written", paged))
            self.constants.append(("the same as a plain array", np.asarray(paged).view(np.ndarray)))
            self.snapshots.append((paged, np.array(paged)))
        self.changing = np.array([2, 1])

    def change_constants(self):
        """Somebody else writes to arrays that calls have been given."""
        self.changing[:] = [[4, 0], [2, 1], [100, -5]][self.main.rng.randrange(3)]
        for name, array in self.constants:
            if name == "guarded":
                array[...] = 0.5

    def check_memory(self):
        for whole, n in self.guards:
            if not ((whole[:16] == 1234.5).all() and (whole[16 + n :] == 1234.5).all()):
                self.fault("memory", "a guard zone around an array was written to", "")
                whole[:16] = whole[16 + n :] = 1234.5
        for array, before in self.snapshots:
            if not np.array_equal(array, before):
                self.fault("memory", "a read-only array was written to", "")
                before[...] = array

    def small_training(self):
        """Bits that depend on nothing but minigrad's own state."""
        with mg.enable_grad():
            rng = np.random.default_rng(5)
            layer = mg.nn.LSTM(3, 4, rng=rng)
            head = mg.Tensor(rng.standard_normal((4, 2)).astype(np.float32), requires_grad=True)
            adam = mg.optim.Adam([*layer.parameters(), head], lr=0.1)
            x = mg.Tensor(rng.standard_normal((5, 2, 3)).astype(np.float32))
            for _ in range(3):
                adam.zero_grad()
                out, _ = layer(x)
                loss = mg.tanh(out @ head).sum()
                loss.backward()
                adam.step()
        return (
            np.concatenate([p.numpy().ravel() for p in adam.parameters]).tobytes()
            + np.float64(loss.item()).tobytes()
        )

    # -- the pool

    def keep(self, drawer, thing, depth=0):
        if isinstance(thing, (list, tuple)) and depth < 2 and type(thing) in (list, tuple):
            for part in thing[:5]:
                self.keep(drawer, part, depth + 1)
            return
        if isinstance(thing, types.GeneratorType):
            with contextlib.suppress(Stop):
                self.attempt(drawer, "next(generator)", lambda: next(thing, None), "")
            return
        if isinstance(thing, tuple):
            for part in thing[:3]:
                self.keep(drawer, part, depth + 1)
        if not is_ours(thing) and not isinstance(thing, (Net, Square)):
            return
        if isinstance(thing, mg.Tensor):
            try:
                if mg.Tensor.size.__get__(thing) > MAX_ELEMENTS:
                    return
            except Exception:
                pass
        if len(self.pool) < MAX_LIVE:
            self.pool.append(thing)
        else:
            with contextlib.suppress(IndexError):
                self.pool[drawer.rng.randrange(MAX_LIVE)] = thing

    # -- one call

    def note(self, text):
        if self.log is not None:
            os.write(
                self.log,
                f"{threading.get_native_id()} {text}\n".encode("utf-8", "backslashreplace"),
            )

    def fault(self, name, what, where, trace=""):
        key = f"{name}|{what[:80]}|{where}"
        if key in self.faults:
            return
        self.faults[key] = True
        line = {
            "call": name,
            "what": what[:400],
            "where": where,
            "seed": self.options.seed,
            "n": self.done,
            "last": self.last[:1500],
            "trace": trace[-3000:],
        }
        os.write(1, ("FAULT " + json.dumps(line) + "\n").encode())

    last = ""

    def attempt(self, drawer, name, call, text, attribute=False):
        """Make a call and judge what comes of it."""
        nested = drawer.depth > 0
        if not nested:
            with self.lock:
                self.done = next(self.calls)
            if self.done > self.options.calls:
                raise Stop
        self.reached.add(name)
        line = f"{self.done}{'  ' * drawer.depth} {name} {text}"
        self.last = line
        self.note(line)
        try:
            result = call()
        except Stop:
            raise
        except BaseException as error:
            outcome = type(error).__name__
            self.judge(name, error, attribute)
            if nested and drawer.chance(0.3):
                raise
            result = None
        else:
            outcome = "ok"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        return result

    def judge(self, name, error, attribute):
        allowed = isinstance(error, ALLOWED) and not isinstance(error, NEVER)
        if isinstance(error, IndexError) and not any(part in name for part in INDEXING):
            # A subclass that tells a length of its own is iterated to that length.
            allowed = planted_below(error) or "LyingTensor" in self.last
        if attribute and isinstance(error, AttributeError):
            allowed = True
        if isinstance(error, StopIteration) and ("__next__" in name or "next(" in name):
            allowed = True
        if isinstance(error, (SystemError, AssertionError)):
            allowed = False
        elif (
            self.spoilt
            or not self.is_public(name)
            or (not allowed and (raised_by_ours(error) or named_exception(name, error)))
        ):
            allowed = True
        if not allowed:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "minigrad" in f.filename]
            where = f"{os.path.basename(ours[-1].filename)}:{ours[-1].lineno}" if ours else "?"
            text = "".join(traceback.format_exception(error))
            self.fault(name, f"{type(error).__name__}: {str(error)[:300]}", where, text)

    def is_public(self, name):
        """Are the classes of exceptions promised? What minigrad does not offer, but can be
        imported, must only not crash."""
        if name in self.callables:
            return name in self.public
        owner = name.partition(".")[0]
        return owner not in self.classes or owner in self.public_classes

    # -- actions

    def action(self, drawer):
        r = drawer.rng.random()
        if r < 0.34:
            name = drawer.pick(list(self.callables))
            self.call_name(drawer, name)
        elif r < 0.68:
            self.call_member(drawer)
        elif r < 0.78:
            self.backward(drawer)
        elif r < 0.83:
            self.set_attribute(drawer)
        elif r < 0.97:
            scene = drawer.pick(self.scenes)
            result = self.attempt(drawer, f"scene {scene.__name__}", lambda: scene(drawer), "")
            self.keep(drawer, result)
        elif r < 0.98:
            gc.collect()
        elif r < 0.985 and drawer.depth == 0:
            self.fork(drawer)
        else:
            with contextlib.suppress(IndexError, ValueError):
                for _ in range(drawer.rng.randrange(1, 20)):
                    self.pool.pop(drawer.rng.randrange(len(self.pool)))

    def call_name(self, drawer, name):
        thing = self.callables[name]
        parameters = parameters_of(thing)
        args, kwargs = drawer.arguments(parameters, name)
        if name.endswith("set_num_threads"):
            args = [a if not isinstance(a, (int, np.integer)) or a <= 8 else 8 for a in args]
            kwargs = {}
        text = ", ".join(
            [*map(described, args), *(f"{k}={described(v)}" for k, v in kwargs.items())]
        )
        result = self.attempt(drawer, name, lambda: thing(*args, **kwargs), text)
        self.keep(drawer, result)
        if name.endswith("set_num_threads") or drawer.chance(0.02):
            mg.set_num_threads(drawer.pick((1, 2, 3)))

    def call_member(self, drawer):
        thing = drawer.own() if drawer.chance(0.55) else drawer.tensor()
        kind = type(thing)
        names = [
            n
            for n in dir(kind)
            if n not in NOT_CALLED
            and "pyx" not in n
            and (n.startswith("__") or not n.startswith("_"))
        ]
        if not names:
            return
        name = drawer.pick(names)
        label = f"{kind.__name__}.{name}"
        member = inspect.getattr_static(kind, name)
        if not callable(member) and not isinstance(member, (staticmethod, classmethod)):
            result = self.attempt(
                drawer, label, lambda: getattr(thing, name), described(thing), attribute=True
            )
            self.keep(drawer, result)
            return
        if name == "__new__" and (kind.__flags__ & HEAP_TYPE or self.options.initialised):
            return
        if name == "__new__":
            result = self.attempt(drawer, label, lambda: kind.__new__(kind), "")
            self.keep(drawer, result)
            return
        bound = self.attempt(
            drawer, label, lambda: getattr(thing, name), described(thing), attribute=True
        )
        if bound is None:
            return
        if name == "__exit__":
            args, kwargs = (None, None, None), {}
        elif name in ("__getitem__", "__delitem__") and isinstance(thing, mg.Tensor):
            args, kwargs = [drawer.index()], {}
        elif name == "__setitem__" and isinstance(thing, mg.Tensor):
            args, kwargs = [drawer.index(), drawer.value()], {}
        elif name == "__call__" and isinstance(thing, mg.nn.Module):
            args, kwargs = drawer.arguments(parameters_of(thing.forward), "__call__")
        else:
            parameters = parameters_of(bound)
            args, kwargs = drawer.arguments(parameters, label)
        text = ", ".join(
            [
                described(thing),
                *map(described, args),
                *(f"{k}={described(v)}" for k, v in kwargs.items()),
            ]
        )
        result = self.attempt(
            drawer,
            label,
            lambda: bound(*args, **kwargs),
            text,
            attribute=name in ("__getattr__", "__format__"),
        )
        self.keep(drawer, result)
        if name == "__enter__" and drawer.chance(0.8):
            with contextlib.suppress(Planted):
                self.action(drawer)
            self.attempt(
                drawer, f"{kind.__name__}.__exit__", lambda: thing.__exit__(None, None, None), ""
            )

    def backward(self, drawer):
        t = drawer.tensor()
        if drawer.chance(0.2):
            other = drawer.tensor()
            text = f"{described(t)} {described(other)}"
            result = self.attempt(
                drawer,
                "grad",
                lambda: mg.grad(
                    mg.sum(t), other, create_graph=drawer.chance(0.4), allow_unused=True
                ),
                text,
            )
            self.keep(drawer, result)
            return
        seed = drawer.value() if drawer.chance(0.1) else None
        retain, create = drawer.chance(0.4), drawer.chance(0.25)

        def run():
            root = t if seed is not None else mg.sum(t)
            root.backward(seed, retain_graph=retain, create_graph=create)

        self.attempt(drawer, "backward", run, described(t))
        if drawer.chance(0.3):
            self.attempt(drawer, "read gradient", lambda: self.keep(drawer, t.grad), described(t))

    def set_attribute(self, drawer):
        """What users set: grad, requires_grad, weights of a module; with --spoil any attribute of
        anything."""
        thing = drawer.own() if drawer.chance(0.7) else drawer.tensor()
        if isinstance(thing, mg.Tensor):
            name = drawer.pick(("grad", "grad", "requires_grad", "grad"))
            frozen = mg.Tensor(drawer.pick(self.constants)[1], copy=False)
            value = drawer.pick((None, drawer.value(), drawer.tensor(), True, frozen))
            if type(thing) is mg.Tensor and ready(thing) and drawer.chance(0.2):
                value = mg.ones(thing.shape, thing.dtype)
        elif self.options.spoil:
            names = [
                *getattr(thing, "__dict__", {}),
                *(n for n in dir(type(thing)) if not n.startswith("__")),
            ]
            if not names:
                return
            name, value = drawer.pick(names), drawer.value()
            self.spoilt = True
        elif isinstance(thing, mg.nn.Module):
            names = [n for n, v in vars(thing).items() if isinstance(v, mg.Tensor)]
            if not names:
                cells = [c for c in getattr(thing, "cells", ()) if isinstance(c, mg.nn.Module)]
                if not cells:
                    return
                thing = drawer.pick(cells)
                names = [n for n, v in vars(thing).items() if isinstance(v, mg.Tensor)] or ["W"]
            name = drawer.pick(names)
            old = vars(thing).get(name)
            shape = (
                old.shape
                if drawer.chance(0.4) and old is not None and ready(old)
                else drawer.shape()
            )
            value = drawer.pick(
                (
                    mg.Tensor(drawer.plain(shape), requires_grad=drawer.chance(0.7)),
                    drawer.tensor(),
                    drawer.value(),
                )
            )
        else:
            return
        self.attempt(
            drawer,
            f"{type(thing).__name__}.{name} =",
            lambda: setattr(thing, name, value),
            f"{described(thing)} {described(value)}",
            attribute=True,
        )

    def fork(self, drawer):
        """A child goes on alone: it must neither crash nor hang, and compute the same."""
        self.note(f"{self.done} fork")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads
            child = os.fork()
        if child == 0:
            code = 77
            try:
                self.options.calls += 1000
                signal.alarm(60)
                for _ in range(5):
                    with contextlib.suppress(Planted):
                        self.action(drawer)
                code = 0 if self.small_training() == self.reference else 78
            finally:
                os._exit(code)
        end = time.monotonic() + 90
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                status = "hangs"
                break
            time.sleep(0.002)
        if status:
            self.fault("fork", f"the child of a fork ended with status {status}", "")

    def loop(self, drawer):
        interrupts = (
            self.options.interrupts and threading.current_thread() is threading.main_thread()
        )
        k = 0
        try:
            while not self.done > self.options.calls:
                k += 1
                try:
                    try:
                        if interrupts and drawer.chance(0.5):
                            signal.setitimer(
                                signal.ITIMER_REAL, drawer.rng.random() ** 3 * 0.003 + 1e-6
                            )
                        self.action(drawer)
                    finally:
                        if interrupts:
                            signal.setitimer(signal.ITIMER_REAL, 0)
                except (
                    Planted,
                    *ALLOWED,
                ):  # not of a call, which is judged: an argument could not be made
                    drawer.depth = 0
                except Exception:
                    drawer.depth = 0
                    if not self.spoilt:
                        self.fault(
                            "harness", traceback.format_exc(limit=-3), "", traceback.format_exc()
                        )
                if k % 40 == 0 and drawer is self.main:
                    self.check_memory()
                    mg.enable_grad().__enter__()  # contexts may have been entered and left alone
        except Stop:
            pass

    def everything(self):
        if self.options.interrupts:
            signal.signal(signal.SIGALRM, planted_alarm)
        if self.options.threads:
            drawers = [
                self.main,
                *(
                    Drawer(self.options.seed * 1000 + k, self)
                    for k in range(1, self.options.threads)
                ),
            ]
            threads = [threading.Thread(target=self.loop, args=(drawer,)) for drawer in drawers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            self.loop(self.main)
        self.pool.clear()
        gc.collect()
        self.check_memory()
        if not self.spoilt and self.small_training() != self.reference:
            self.fault("state", "a small training gives other bits after the calls than before", "")


def ready(tensor):
    try:
        mg.Tensor.shape.__get__(tensor)
        return True
    except Exception:
        return False


def planted_alarm(number, frame):
    raise Planted("signal")


def planted_below(error):
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, Planted):
            return True
        error = error.__cause__ or error.__context__
    return False


def raised_by_ours(error):
    """Did it arise in this file or inside NumPy's or Python's handling of an object of ours, not in
    minigrad's own lines?"""
    if planted_below(error):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return (
        bool(frames)
        and frames[-1].filename == __file__
        and frames[-1].name not in ("<lambda>", "attempt", "run", "call_member")
    )


def named_exception(name, error):
    """See EXCEPTIONS."""
    return any(part in name and isinstance(error, kinds) for part, kinds, _ in EXCEPTIONS)


# Exceptions of other classes that are right: part of the call's name, classes, reason.
EXCEPTIONS = (
    ("__int__", (OverflowError,), "int() of an infinity is an OverflowError in Python and NumPy"),
    ("__reduce_ex__", (OverflowError,), "Python's own: a protocol beyond C's int"),
    (
        "__deepcopy__",
        (IndexError, KeyError),
        "a memo that is no dict is indexed, and says what it likes",
    ),
    ("Cell.start", (AttributeError,), "called once a step by what has checked: forward and unroll"),
    ("Cell.step", (AttributeError,), "the same"),
    (
        "Cell.checked_sequence",
        (AttributeError,),
        "called by the layers with what they have checked",
    ),
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
    ("checks.number", (IndexError, AttributeError), "ends is a constant in minigrad's own code"),
    ("__rmul__", (OverflowError,), "Python's own, of tuples: repeated more often than C counts"),
)


# ---------------------------------------------------------------- scenes: whole steps, mostly of valid calls


def hooked(drawer, tensor):
    """A recorded tensor with hooks in one case of three."""
    if drawer.chance(0.35) and tensor.requires_grad:
        tensor.register_hook(drawer.hook())
        if drawer.chance(0.2):
            tensor.retain_grad()
    return tensor


def layer(drawer):
    """A sequence through a layer, perhaps with weights that were replaced, and back."""
    module = drawer.module()
    x = mg.Tensor(drawer.plain((4, 2, 3), np.float32), requires_grad=True)
    extra = {}
    if drawer.chance(0.4):
        extra["lengths"] = drawer.lengths()
    if drawer.chance(0.3):
        extra["reset"] = drawer.reset()
    if drawer.chance(0.3):
        extra["state"] = drawer.state()
    if not isinstance(module, (mg.nn.RNN, mg.nn.LSTM, mg.nn.GRU)):
        extra = {}
    out = module(x, **extra)
    first = out[0] if isinstance(out, tuple) else out
    hooked(drawer, hooked(drawer, first).sum() * 2.0).backward(
        retain_graph=drawer.chance(0.3), create_graph=drawer.chance(0.2)
    )
    return out


def cell_loop(drawer):
    """A cell step by step."""
    cell = drawer.pick((mg.nn.RNNCell, mg.nn.GRUCell, mg.nn.LSTMCell))(3, 4)
    state = None
    x = mg.Tensor(drawer.plain((3, 2, 3), np.float32), requires_grad=True)
    for t in range(3):
        state = cell(x[t], state)
        h = state[0] if isinstance(state, tuple) else state
        hooked(drawer, h)
    h.sum().backward()
    return [cell, h]


def chain(drawer):
    """Ops on each other's results, with hooks, assignments between, and a way back."""
    x = mg.Tensor(drawer.plain((2, 3), np.float32), requires_grad=True)
    y = x
    for _ in range(drawer.rng.randrange(1, 12)):
        op = drawer.pick(
            (
                lambda y: mg.tanh(y),
                lambda y: y * y,
                lambda y: y + x,
                lambda y: y @ mg.ones((3, 3)),
                lambda y: y[::-1],
                lambda y: y.T.T,
                lambda y: mg.softmax(y),
                lambda y: mg.concatenate([y, y])[:2],
                lambda y: mg.where(y > 0, y, x),
                lambda y: mg.cumsum(y, 0),
                lambda y: mg.pad(y, 1)[1:3, 1:4],
                lambda y: Square.apply(y),
                lambda y: y.reshape(3, 2).reshape(2, 3),
                lambda y: mg.stack([y, x]).sum(axis=0),
                lambda y: y * drawer.pick(drawer.main.constants)[1],
                lambda y: y[np.array([1, 0])],
                lambda y: mg.dropout(y, 0.5),
                lambda y: mg.maximum(y, 0.0),
            )
        )
        y = hooked(drawer, op(y))
        if drawer.chance(0.1):
            z = y * 1.0
            z[drawer.index()] = drawer.value()
            y = z
    y.sum().backward(create_graph=drawer.chance(0.2), retain_graph=drawer.chance(0.2))
    return [x, y]


def recording(drawer):
    """record with values, inputs and rules of all kinds."""
    x = drawer.tensor()
    rule = drawer.pick(
        (
            lambda dy, *s: dy,
            lambda *a: drawer.value(),
            drawer.hook(),
            lambda *a: (None,) * 9,
            lambda dy, *s: dy * 2.0,
        )
    )
    values = drawer.pick(
        (
            x.numpy() * 2,
            drawer.array(),
            drawer.value(),
            (x.numpy() * 2, x.numpy() + 1),
            (),
            (drawer.array(), drawer.array()),
        )
    )
    inputs = drawer.pick(((x,), (x, None), (x, x), (None,), (), drawer.value(), (drawer.value(),)))
    saved = drawer.pick(((), (x,), (None,), (drawer.value(),), [x], drawer.value()))
    y = mg.record(
        drawer.pick(("op", "op", drawer.text())), values, inputs, rule, saved, drawer.flag()
    )
    first = y[0] if isinstance(y, tuple) else y
    first.sum().backward(retain_graph=drawer.chance(0.3))
    return y


def optimise(drawer):
    """A few steps over parameters whose gradients were set by others."""
    optimizer = drawer.optimizer()
    for p in optimizer.parameters[:4]:
        if drawer.chance(0.5):
            g = drawer.pick(
                (
                    mg.ones(p.shape, p.dtype),
                    None,
                    mg.Tensor(np.broadcast_to(np.ones((), p.dtype), p.shape), copy=False),
                    drawer.tensor(),
                )
            )
            p.grad = g
        if drawer.chance(0.05):
            p.__init__(drawer.plain())
    if drawer.chance(0.3):
        mg.optim.clip_grad_norm_(optimizer.parameters, 1.0)
    if drawer.chance(0.2):
        mg.optim.clip_grad_value_(optimizer.parameters, 0.1)
    optimizer.step()
    if drawer.chance(0.3):
        optimizer.load_state_dict(drawer.pick((optimizer.state_dict(), drawer.saved_state())))
    if drawer.chance(0.3):
        optimizer.zero_grad()


def read_only_gradient(drawer):
    """.grad over memory that cannot be written, and a backward that adds to it."""
    array = drawer.pick([a for name, a in drawer.main.constants if name != "guarded"])
    w = mg.Tensor(np.array(array), requires_grad=True)
    w.grad = mg.Tensor(array, copy=False)
    (w * 2.0).sum().backward()
    mg.optim.SGD([w], lr=0.1).step()
    return w


def fitting(drawer):
    """A short training, saved and resumed."""
    net = Net()
    x, y = (
        mg.Tensor(drawer.plain((4, 2, 3), np.float32)),
        mg.Tensor(drawer.plain((4, 2, 2), np.float32)),
    )
    adam = mg.optim.Adam(net.parameters(), lr=0.01)
    path = os.path.join(drawer.main.folder, "fit.safetensors")
    options = {"epochs": 1, "save": path if drawer.chance(0.5) else None}
    if drawer.chance(0.3):
        options["after_step"] = [drawer.hook()]
    if drawer.chance(0.3):
        options["validate"] = drawer.pick((lambda: 1.0, lambda: float("nan"), drawer.hook()))
    if drawer.chance(0.2):
        options[drawer.pick(("patience", "clip", "steps", "line", "resume", "config", "parts"))] = (
            drawer.value()
        )
        options["steps"] = 2
    return mg.training.fit(net, adam, lambda x, y: mg.mse(net(x)[0], y), [(x, y)], **options)


def truncated(drawer):
    bptt = mg.training.TruncatedBPTT(Net(), mg.mse, drawer.size("k1"), drawer.pick((None, 2, 3)))
    for loss in bptt.over(
        mg.Tensor(drawer.plain((6, 2, 3), np.float32)),
        mg.Tensor(drawer.plain((6, 2, 2), np.float32)),
    ):
        loss.backward()
    state = bptt.state_dict()
    bptt.load_state_dict(drawer.pick((state, drawer.saved_state())))
    return bptt


def files(drawer):
    """Files of checkpoints that were written, and spoilt."""
    path = os.path.join(drawer.main.folder, "s.safetensors")
    mg.save(
        path,
        {"a": drawer.plain(), "b": drawer.pick((drawer.plain(), drawer.array()))},
        drawer.pick((None, {"x": 1}, drawer.value())),
    )
    if drawer.chance(0.6):
        with open(path, "r+b") as file:
            data = bytearray(file.read())
            for _ in range(drawer.rng.randrange(1, 4)):
                data[drawer.rng.randrange(min(len(data), 160))] = drawer.rng.randrange(256)
            file.seek(0)
            file.write(data[: drawer.pick((len(data), len(data), len(data) // 2, 8, 0))])
            file.truncate()
    arrays, extra = mg.load(path)
    return [mg.Tensor(a) for a in arrays.values() if a.dtype in FLOATS]


def pickles(drawer):
    thing = drawer.own() if drawer.chance(0.6) else drawer.tensor()
    return drawer.pick(
        (
            copy.deepcopy,
            copy.copy,
            lambda t: pickle.loads(pickle.dumps(t)),
            str,
            repr,
            lambda t: f"{t:.3f}",
        )
    )(thing)


def anomaly(drawer):
    """Anomaly mode around a program."""
    with mg.detect_anomaly():
        return drawer.pick((chain, layer, recording))(drawer)


def without_recording(drawer):
    context = drawer.pick((mg.no_grad, mg.enable_grad))()
    with context:
        if drawer.chance(0.3):
            with context:
                chain(drawer)
        return drawer.pick((chain, layer, optimise))(drawer)


def second_order(drawer):
    x = mg.Tensor(drawer.plain((2, 3), np.float32), requires_grad=True)
    y = drawer.pick(
        (
            lambda: mg.tanh(x),
            lambda: mg.softmax(x),
            lambda: mg.nn.GRU(3, 4)(mg.stack([x, x]))[0],
            lambda: x @ mg.ones((3, 2)),
            lambda: Square.apply(x),
            lambda: mg.logsumexp(x, axis=1),
            lambda: mg.prod(x, axis=0),
        )
    )()
    (dx,) = mg.grad(hooked(drawer, y).sum(), x, create_graph=True)
    hooked(drawer, dx)
    (dx * dx).sum().backward(retain_graph=drawer.chance(0.2))
    return [x, dx, y]


def changed_operand(drawer):
    """Operands, indices and masks that somebody else changes between forward and backward."""
    x = mg.Tensor(drawer.plain((4, 3), np.float32), requires_grad=True)
    a, k, bound, mask = (
        drawer.plain((4, 3), np.float32),
        np.array([0, 1]),
        np.array(1),
        np.ones((4, 3), bool),
    )
    y = drawer.pick(
        (
            lambda: x * a,
            lambda: x[k],
            lambda: x[bound:],
            lambda: x[:bound] * 2.0,
            lambda: mg.where(mask, x, a),
            lambda: x[mask],
            lambda: mg.embedding(x, k),
            lambda: x @ a.T,
            lambda: mg.cross_entropy(x, np.resize(k, 4)),
            lambda: mg.nn.GRU(3, 4)(a[None])[0],
        )
    )()
    a[...] = 7.0
    k[:] = drawer.pick((3, 10**6, -(10**6)))
    bound[...] = drawer.pick((0, 4, 10**6, -(10**6)))
    mask[...] = False
    y.sum().backward(retain_graph=drawer.chance(0.2))
    return [x, y]


def initialised_again(drawer):
    """A leaf, or the result of an op, that gets other data of another shape while it is in use."""
    x = mg.Tensor(drawer.plain((2, 3), np.float32), requires_grad=True)
    y = hooked(drawer, x * x)
    if drawer.chance(0.5):
        y.sum().backward(retain_graph=True)
    drawer.pick((x, y)).__init__(drawer.plain(), requires_grad=drawer.chance(0.7))
    y.sum().backward()
    return [x, y]


def never_initialised(drawer):
    """Instances that were made by __new__ alone."""
    kind = drawer.pick(
        [
            c
            for c in drawer.main.callables.values()
            if isinstance(c, type) and not c.__flags__ & HEAP_TYPE
        ]
    )
    thing = kind.__new__(kind)
    drawer.main.keep(drawer, thing)
    if isinstance(thing, mg.Tensor):
        mg.add(thing, drawer.tensor())
    return thing


def nodes(drawer):
    """The graph as users look at it."""
    node, t = drawer.tensor().grad_fn, drawer.tensor()
    found = []
    while node is not None and len(found) < 5:
        found.append(node)
        inputs = [n for n in (getattr(node, "inputs", None) or ()) if n is not None]
        node = drawer.pick(inputs) if inputs else None
    mg.draw(t, form=drawer.pick(("text", "dot", "svg")))
    for node in found:
        for name in dir(node):
            if not name.startswith("_"):
                getattr(node, name, None)
    return found


def installed(drawer):
    mg.core.tensor.install(drawer.pick(("fuzz_op", "fuzz_op", "\ud800")), drawer.function())
    getattr(drawer.tensor(), "fuzz_op", None)


def other_instruction_set(drawer):
    """The instruction set and the number of threads change between forward and backward."""
    before = mg.core.kernels.isa_in_use()
    x = mg.Tensor(drawer.plain((4, 2, 3), np.float32), requires_grad=True)
    y, _ = mg.nn.LSTM(3, 4)(x)
    mg.core.kernels._use_isa(drawer.pick(mg.core.kernels.isas_built()))
    try:
        mg.set_num_threads(drawer.pick((1, 2, 8)))
        y.sum().backward()
    finally:
        mg.core.kernels._use_isa(before)
        mg.set_num_threads(2)


def templates(d):
    """Calls that are right, with arguments that the parts below the public names take too: name,
    function, arguments."""

    def t(*shape, grad=True):
        return mg.Tensor(d.plain(shape, np.float32), requires_grad=grad and d.chance(0.7))

    def updates():
        u = mg.optim.step.Updates("SGD", 2)
        p = t(2, 3)
        p.requires_grad_(True)
        p.grad = t(2, 3, grad=False)
        return u, p

    def step(kernel, **fields):
        u, p = updates()
        arrays = [(field, field, array) for field, array in fields.items()]

        def add_and_run(*a):
            try:
                u.add(*a)
            except OverflowError as error:  # Python's own: an int that no C double holds
                raise ValueError(str(error)) from error
            u.run()

        return add_and_run, (p, kernel, arrays, 0.1, 0.0, 0.0, 0.9)

    a = np.zeros((2, 3), np.float32)
    cell = d.pick(
        (("rnn_tanh", 1), ("rnn_relu", 1), ("lstm", 4), ("gru", 3), ("gru_reset_after", 3))
    )
    gates = cell[1] * 4
    kind = cell[0] if cell[0] in mg.nn.fused.CELLS else d.pick(list(mg.nn.fused.CELLS))
    x, h, c = t(4, 2, 3), t(2, 4), t(2, 4) if kind == "lstm" else None
    options = {
        "mask": np.ones((2, 4), np.float32),
        "lengths": np.array([4, 2]),
        "reset": np.zeros((4, 2), bool),
        "reverse": True,
        "checkpoint": True,
        "clip": 0.5,
        "trace": True,
        "composed": d.hook(),
    }
    options = {k: v for k, v in options.items() if d.chance(0.3)}
    loss = d.pick((mg.mse, mg.huber, mg.binary_cross_entropy_with_logits))
    classes = d.pick((mg.cross_entropy, mg.nll))
    lstm, gru = (
        mg.nn.LSTM(3, 4, num_layers=2, bidirectional=d.chance(0.5)),
        mg.nn.GRU(3, 4, checkpoint=d.pick((None, "sqrt"))),
    )
    lstm_cell, gru_cell = mg.nn.LSTMCell(3, 4), mg.nn.GRUCell(3, 4)
    sequences = [d.plain((n, 2), np.float32) for n in (4, 2, 3)]
    return {
        "recurrent.sequence": (
            mg.nn.fused.sequence,
            (
                kind,
                x,
                h,
                c,
                t(3, gates),
                t(4, gates),
                t(gates),
                t(3, 4) if c is not None and d.chance(0.3) else None,
            ),
            options,
        ),
        "update.sgd": (*step("sgd", v=a), {}),
        "update.adam": (*step("adam", m=a, v=a.copy()), {}),
        "update.rmsprop": (*step("rmsprop", v=a, extra=a.copy()), {}),
        "update.adagrad": (*step("adagrad", v=a), {}),
        "kernels.PackedProduct": (
            lambda b, a: mg.core.kernels.PackedProduct(b)(a),
            (d.plain((3, 5)), d.plain((2, 3))),
            {},
        ),
        "sequence.unroll": (
            mg.nn.unroll,
            (lstm_cell, x, (h, t(2, 4))),
            {
                "lengths": np.array([4, 2]),
                "reset": np.zeros((4, 2), bool),
                "mask": np.ones((2, 4), np.float32),
            },
        ),
        "sequence.bidirectional": (
            mg.nn.bidirectional,
            (gru_cell, mg.nn.GRUCell(3, 4), x),
            {"lengths": np.array([3, 4])},
        ),
        "shape.adjoin": (
            lambda w, parts: mg.ops.shape.adjoin(w, parts),
            (t(2, 8, grad=False), [t(2, 4), t(2, 4)]),
            {},
        ),
        "loss": (
            loss,
            (t(4, 3), d.plain((4, 3), np.float32)),
            {"weight": np.ones(3, np.float32), "reduction": d.pick(("mean", "sum", "none"))},
        ),
        "class loss": (
            classes,
            (t(4, 3), np.array([0, 1, 2, -100])),
            {"weight": np.ones(3, np.float32), "ignore_index": -100},
        ),
        "lstm": (
            lstm,
            (x,),
            {"lengths": np.array([4, 2]), "reset": np.zeros((4, 2), bool), "trace": False},
        ),
        "gru": (gru, (x, t(1, 2, 4)), {"lengths": np.array([0, 2])}),
        "lstm cell": (lstm_cell, (t(2, 3), (h, t(2, 4))), {}),
        "gru cell": (gru_cell, (t(2, 3), h), {}),
        "embedding": (mg.embedding, (t(5, 3), np.array([[0, 4], [1, 1]])), {}),
        "addmm": (mg.addmm, (t(4), t(2, 3), t(3, 4)), {}),
        "matmul": (mg.matmul, (t(2, 2, 3), t(3, 2)), {}),
        "where": (mg.where, (np.ones((2, 3), bool), t(2, 3), t(3)), {}),
        "pad": (mg.pad, (t(2, 3), ((1, 0), (0, 2))), {"value": 0.0}),
        "concatenate": (mg.concatenate, ([t(2, 3), t(1, 3)], 0), {}),
        "split": (mg.split, (t(4, 3), [1, 3]), {}),
        "stack": (mg.stack, ([t(2, 3), t(2, 3)],), {}),
        "clip": (mg.clip, (t(2, 3), -1.0, 1.0), {}),
        "getitem": (lambda x, i: mg.Tensor.__getitem__(x, i), (t(4, 3), d.index()), {}),
        "setitem": (mg.Tensor.__setitem__, (t(4, 3, grad=False) * 1.0, d.index(), t(3)), {}),
        "record": (
            mg.record,
            (
                "op",
                np.ones((2, 3), np.float32),
                (t(2, 3), None),
                lambda dy, *s: (dy, None),
                (t(2, 3),),
            ),
            {},
        ),
        "Batches": (
            lambda *a, **k: list(mg.data.Batches(*a, **k)),
            (sequences, [0, 1, 2]),
            {"batch_size": 2, "shuffle": True, "bucket": True},
        ),
        "Stream": (lambda *a: list(mg.data.Stream(*a)), (np.arange(40), 2, 5), {}),
        "windows": (mg.data.windows, (d.plain((20, 2)), 5), {"horizon": 2, "step": 1}),
        "Scaler": (
            lambda a, b: mg.data.Scaler().fit(a).transform(b),
            (d.plain((5, 2)), d.plain((3, 2))),
            {},
        ),
        "data.pad": (mg.data.pad, (sequences,), {}),
        "accuracy": (
            mg.metrics.accuracy,
            (d.plain((4, 2, 3)), d.np_rng.integers(0, 3, (4, 2)), np.array([4, 2])),
            {},
        ),
        "frame_nll": (
            mg.metrics.frame_nll,
            (d.plain((4, 2, 3)), np.ones((4, 2, 3)), np.array([4, 2])),
            {},
        ),
        "mase": (mg.metrics.mase, (np.ones(4), np.zeros(4), np.arange(9.0)), {"season": 2}),
        "clip_grad_norm_": (
            mg.optim.clip_grad_norm_,
            (list(lstm_cell.parameters()), 1.0),
            {"norm_type": 2.0},
        ),
        "gradcheck": (
            mg.gradcheck,
            (lambda x: mg.tanh(x), [mg.Tensor(d.plain((2,), np.float64), requires_grad=True)]),
            {},
        ),
        "vjp": (mg.vjp, (lambda x: x * x, t(3), t(3)), {"create_graph": True}),
        "backward": (
            mg.Tensor.backward,
            (t(2, 3) * mg.Tensor(d.plain((2, 3), np.float32), requires_grad=True), t(2, 3)),
            {"retain_graph": True},
        ),
        "scheduled": (
            lambda o, s, g: mg.optim.schedule.StepLR(o, s, g).step(),
            (d.optimizer(), 3, 0.5),
            {},
        ),
    }


def spoilt(d, value):
    """A value that fits, changed so that it may not."""
    if isinstance(value, (list, tuple)) and value and d.chance(0.7):
        k = d.rng.randrange(len(value))
        parts = list(value)
        parts[k] = spoilt(d, parts[k])
        return type(value)(parts) if type(value) in (list, tuple) else tuple(parts)
    array, make = value, lambda a: a
    if isinstance(value, mg.Tensor) and ready(value) and d.chance(0.9):
        array = np.array(value)
        make = lambda a: mg.Tensor(a, requires_grad=True, copy=d.chance(0.5))  # noqa: E731
    if not isinstance(array, np.ndarray):
        return d.value()
    kind = d.rng.randrange(14)
    with contextlib.suppress(TypeError, ValueError):
        if kind == 0:
            return make(np.concatenate([array, array]))
        if kind == 1:
            return make(array[:-1])
        if kind == 2:
            return make(array[None])
        if kind == 3:
            return make(array.astype(np.float64 if array.dtype == np.float32 else np.float32))
        if kind == 4:
            return make(np.ascontiguousarray(array.T).T)
        if kind == 5:
            return make(np.broadcast_to(array[:1], array.shape))
        if kind == 6:
            return make(array[..., 1:])
        if kind == 7:
            return array.astype(np.float16)
        if kind == 8:
            return np.ma.masked_array(array, True)
        if kind == 9:
            frozen = array.copy()
            frozen.flags.writeable = False
            return make(frozen)
        if kind == 10:
            return make(
                np.full_like(array, d.pick((10**6, -1, 127)))
                if array.dtype.kind in "iu"
                else array * np.nan
            )
        if kind == 11:
            return array.astype(d.pick((">f4", ">i8", np.uint8, bool, object)))
        if kind == 12:
            return make(array[::-1])
    return d.value()


def nearly_right(drawer):
    """A call that fits, but for one or two of its arguments; and back through what came of it."""
    made = templates(drawer)
    name = drawer.pick(list(made))
    function, args, options = made[name]
    args, options = (
        list(args),
        {k: v for k, v in options.items() if drawer.chance(0.6) or name == "Batches"},
    )
    for _ in range(drawer.pick((0, 1, 1, 1, 2))):
        k = drawer.rng.randrange(len(args) + len(options))
        if k < len(args):
            args[k] = spoilt(drawer, args[k])
        else:
            key = list(options)[k - len(args)]
            options[key] = spoilt(drawer, options[key])
    drawer.main.note(
        f"    {name}: "
        + ", ".join([*map(described, args), *(f"{k}={described(v)}" for k, v in options.items())])
    )
    drawer.main.last += f"{name}: " + ", ".join(
        [*map(described, args), *(f"{k}={described(v)}" for k, v in options.items())]
    )
    result = function(*args, **options)
    first = result
    while isinstance(first, (tuple, list)) and first:
        first = first[0]
    if isinstance(first, mg.Tensor) and first.requires_grad:
        hooked(drawer, first).sum().backward(
            retain_graph=drawer.chance(0.3), create_graph=drawer.chance(0.2)
        )
    return result


def config(drawer):
    mg.show_config()


SCENES = (
    layer,
    layer,
    layer,
    cell_loop,
    chain,
    chain,
    chain,
    recording,
    recording,
    optimise,
    optimise,
    read_only_gradient,
    fitting,
    truncated,
    files,
    pickles,
    anomaly,
    without_recording,
    second_order,
    changed_operand,
    changed_operand,
    initialised_again,
    never_initialised,
    nodes,
    installed,
    other_instruction_set,
    config,
    *(nearly_right,) * 14,
)


# ---------------------------------------------------------------- the process

RUN = None


def main():
    global RUN
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--interrupts", action="store_true")
    parser.add_argument("--spoil", action="store_true")
    parser.add_argument(
        "--memory",
        type=int,
        default=4 << 30,
        help="bytes of address space; 0: no limit (sanitizers need terabytes)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=240.0,
        help="seconds until all threads' stacks are printed and the process ends",
    )
    parser.add_argument("--log")
    parser.add_argument(
        "--initialised", action="store_true", help="no Tensors that were made by __new__ alone"
    )
    parser.add_argument(
        "--without", default="", help="scenes that are left out, by name, with commas between"
    )
    options = parser.parse_args()
    if options.log:
        options.log = os.path.abspath(options.log)
    if options.memory:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (options.memory, options.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    faulthandler.dump_traceback_later(options.limit, exit=True)
    warnings.simplefilter("ignore")
    sys.stdout = io.StringIO()  # what calls print; faults are written to the descriptor
    mg.set_num_threads(2)
    run = Run(options)
    os.chdir(run.folder)  # paths that calls draw may be relative
    RUN = run.main

    def unraisable(report):
        ours = isinstance(report.exc_value, (Planted, Stop)) or planted_below(report.exc_value)
        frames = traceback.extract_tb(report.exc_traceback)
        # Python's logging releases its lock after each fork, also after one of two threads' that
        # forked at once.
        logging = bool(frames) and frames[-1].name == "_releaseLock"
        if not ours and not logging and not run.spoilt:
            text = "".join(traceback.format_exception(report.exc_value)) if report.exc_value else ""
            run.fault(
                "unraisable", f"{report.err_msg or 'ignored'}: {report.exc_value!r}", "", text
            )

    sys.unraisablehook = unraisable
    run.everything()
    total = sum(run.outcomes.values())
    os.write(
        1,
        f"END {json.dumps({'calls': total, 'outcomes': run.outcomes, 'reached': sorted(run.reached)})}\n".encode(),
    )
    shutil.rmtree(run.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
