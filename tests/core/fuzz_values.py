"""Draws plain values: numbers, arrays, tensors, axes, indices, sizes, texts, paths."""

import contextlib
import os
import random
import warnings

import numpy as np
from fuzz_hostile import (
    ArrayOnce,
    EvilArray,
    EvilAttributes,
    EvilBool,
    EvilFloat,
    EvilFloatNumber,
    EvilIndex,
    EvilInt,
    EvilIterator,
    EvilLength,
    EvilString,
    EvilTensor,
    EvilTuple,
    LyingTensor,
)

import minigrad as mg

FLOATS = (np.float32, np.float64)
OTHER_TYPES = (
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
SCALARS = (
    np.float32(2),
    np.float64(0.5),
    np.int64(3),
    np.bool_(True),
    np.array(None),
    np.array("x"),
)
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


class Values:
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
            return a.astype(self.pick(OTHER_TYPES) if a.size else np.int64, casting="unsafe")
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
            return self.pick(SCALARS)
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


def ready(tensor):
    try:
        mg.Tensor.shape.__get__(tensor)
        return True
    except Exception:
        return False
