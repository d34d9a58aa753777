"""Objects whose special methods lie, change between calls, raise, or go on fuzzing inside of the
call that asked them."""

import contextlib

import numpy as np

import minigrad as mg

# The Drawer of the process: who is called without one asks it.
RUN = None


class Planted(Exception):
    """Raised by hostile objects and hooks; it may come out of any call."""


class PlantedKeyError(Planted, KeyError):
    """One that code which catches KeyError for its own ends may swallow."""


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
