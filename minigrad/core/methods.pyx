# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Methods of Tensor that no operator of Python needs, so that they can stand outside of the class:
its part in the graph, hooks, the way out to NumPy and Python's numbers, and copies."""
cimport numpy as cnp
from minigrad.core.tensor cimport (
    DETACHED,
    OWN,
    RETAIN,
    Slot,
    Tensor,
    array_of,
    slot_of,
    version_of,
    wrap,
)

import math
import reprlib
import weakref
from copy import deepcopy

import numpy as np

from minigrad.core.hooks import HookHandle
from minigrad.core.tensor import install

cnp.import_array()

cdef unsigned long hook_numbers = 0


# ---------------------------------------------------------------- the graph

def requires_grad_(Tensor self not None, requires_grad=True) -> Tensor:
    """Say whether a gradient is wanted for this leaf; return the tensor itself.

    Args:
        requires_grad: Whether it is. Default: True.

    Raises:
        RuntimeError: The tensor is not a leaf, and False was given.
    """
    if self.node is not None and not requires_grad:
        raise RuntimeError(
            "requires_grad_: only a leaf can stop requiring a gradient; use detach()")
    cdef bint begins = requires_grad and not self._requires_grad
    if begins and self.version is not None and self.seen == OWN:
        self.version.recorded += 1          # views that were taken before are recorded anew
    self._requires_grad = bool(requires_grad)
    return self


def detach(Tensor self not None) -> Tensor:
    """A tensor with the same memory that is not part of the graph."""
    cdef Tensor t = wrap(self._array)
    t.version = version_of(self)
    t.seen = DETACHED
    return t


# ---------------------------------------------------------------- hooks

def register_hook(Tensor self not None, hook) -> HookHandle:
    """Call a function with this tensor's gradient, as soon as that is complete.

    The gradient is a copy for this hook. The hook may keep it, or change it in place: what goes
    on is then what it has become. Nothing is recorded while a hook runs, unless backward was
    called with create_graph=True. A hook may go backward itself, through the same tensors too.
    If it raises, no ``grad`` changes.

    Args:
        hook: A function of the gradient, a Tensor. What it returns, if not None, is a Tensor that
            replaces the gradient.

    Returns:
        A handle, whose remove() takes the hook away.

    Raises:
        TypeError: The hook cannot be called.
        RuntimeError: The tensor does not require a gradient.
    """
    global hook_numbers
    if not self._requires_grad:
        raise RuntimeError("register_hook: the tensor does not require grad")
    if not callable(hook):
        raise TypeError(f"register_hook: hook must be callable, got {type(hook).__name__}")
    cdef Slot slot = slot_of(self)
    if slot.hooks is None:
        slot.hooks = {}
    hook_numbers += 1
    handle = HookHandle(slot.hooks, hook_numbers)
    slot.hooks[hook_numbers] = hook
    return handle


def retain_grad(Tensor self not None) -> None:
    """Keep the gradient of this tensor, though it is not a leaf, in ``grad``: what its hooks
    have left of it, whenever they were registered, and if the tensor is assigned to, the
    gradient of its last value."""
    if not self._requires_grad:
        raise RuntimeError("retain_grad: the tensor does not require grad")
    if self.node is None:
        return
    if self.node.hooks is None:
        self.node.hooks = {}
    self.node.hooks[RETAIN] = weakref.ref(self)


# ---------------------------------------------------------------- out to NumPy and Python

def numpy(Tensor self not None) -> np.ndarray:
    """A read-only view of the data. To change a tensor, assign to it: ``x[...] = value``."""
    view = self._array.view()
    view.flags.writeable = False
    return view


def __array__(Tensor self not None, dtype=None, copy=None):
    if dtype is not None:
        try:
            dtype = np.dtype(dtype)
        except MemoryError:
            raise
        except Exception as error:      # its attributes may raise what they like
            raise TypeError(f"__array__: dtype must be one of NumPy's, "
                            f"got {type(dtype).__name__}") from error
    if copy:
        return np.array(self._array, dtype=dtype)
    if dtype is None or dtype == self.dtype:
        return numpy(self)
    return self._array.astype(dtype)


def item(Tensor self not None) -> float:
    """The value of a tensor with one element, as a Python float."""
    if cnp.PyArray_SIZE(self._array) != 1:
        raise ValueError(f"item: only a tensor of one element can be converted to a number, "
                         f"this has shape {self.shape}")
    return self._array.item()


def tolist(Tensor self not None):
    """The data as nested lists."""
    return self._array.tolist()


def __trunc__(Tensor self not None):
    value = item(self)
    if not math.isfinite(value):
        raise ValueError(f"int: {value} cannot be converted to an int")
    return int(value)


def __round__(Tensor self not None, digits=None):
    """The value of a tensor with one element, rounded as Python rounds it: to a float, or to an
    int without `digits`."""
    value = item(self)
    if digits is not None:
        return round(value, digits)
    if not math.isfinite(value):
        raise ValueError(f"int: {value} cannot be converted to an int")
    return round(value)


def __format__(Tensor self not None, spec):
    """As str(), or the value of a tensor with one element with a format for numbers:
    f"{loss:.3f}"."""
    if not isinstance(spec, str):
        raise TypeError(f"format: the format must be a str, got {type(spec).__name__}")
    if not spec:
        return str(self)
    if cnp.PyArray_SIZE(self._array) != 1:
        raise TypeError(f"format: only a tensor of one element takes a format such as {spec!r}, "
                        f"this has shape {self.shape}")
    return format(item(self), spec)


# ---------------------------------------------------------------- copies
#
# A copy has the values and requires_grad; one of a Parameter, or of another subclass, its gradient
# and attributes too, so that the copy of a model is in the same state. Hooks stay with the
# original.

def __reduce__(Tensor self not None):
    if self.node is not None:
        raise RuntimeError(f"pickle, deepcopy: only leaf tensors can be copied, this was made by "
                           f"{self.node.name} and its graph cannot come along: "
                           f"copy tensor.detach()")
    gradient = None
    if self._grad is not None and type(self) is not Tensor:
        gradient = detach(self._grad)
    attributes = getattr(self, "__dict__", None) or None
    array = np.array(self._array)
    return _rebuild, (type(self), array, self._requires_grad, gradient, attributes)


def __copy__(Tensor self not None):
    return __deepcopy__(self, {})


def __deepcopy__(Tensor self not None, memo):
    cdef Tensor made
    make, (kind, array, requires_grad, gradient, attributes) = __reduce__(self)
    memo[id(self)] = made = make(kind, array, requires_grad)
    if gradient is not None:
        if id(self._grad) not in memo:
            memo[id(self._grad)] = deepcopy(gradient)
        made._grad = memo[id(self._grad)]
    if attributes:
        made.__dict__.update(deepcopy(attributes, memo))
    return made


def _rebuild(kind, array, requires_grad, Tensor gradient=None, dict attributes=None):
    """Make a pickled or copied tensor again."""
    cdef Tensor t
    if not isinstance(kind, type) or not issubclass(kind, Tensor):
        raise TypeError(f"pickle: kind must be Tensor or a subclass, got {reprlib.repr(kind)}")
    t = kind.__new__(kind)
    t._array = array_of(array, None, False, "pickle")
    t._requires_grad = requires_grad
    t.grad = gradient
    if attributes:
        t.__dict__.update(attributes)
    return t


for _function in (
    requires_grad_, detach, register_hook, retain_grad, numpy, __array__, item, tolist,
    __trunc__, __round__, __format__, __reduce__, __copy__, __deepcopy__,
):
    install(_function.__name__, _function)
