# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The dimensions that an argument `axis` names.

An axis is an int, where negative ones count from the end. Some ops take several, as a tuple, or
None for all dimensions. An axis that is no int is a TypeError, one that does not exist or comes
twice a ValueError.
"""
from cpython.object cimport PyObject
from minigrad.core.array cimport as_int

import reprlib

cdef extern from "Python.h":
    Py_ssize_t PyNumber_AsSsize_t(object number, PyObject *error) except? -1


cdef int one_axis(object axis, int nd, str op) except -1:
    """An axis as a number from 0 to nd - 1."""
    cdef object number = axis
    if type(axis) is not int:
        number = axis_number(axis)
        if number is None:
            raise TypeError(f"{op}: axis must be an int, got {type(axis).__name__}")
    if nd == 0:
        raise ValueError(f"{op}: a 0-d input has no axis, got axis {number}")
    return from_start(number, nd, axis, op)


cdef object plain_axis(object axis, str op):
    """None, one axis, or a tuple of several, with Python's own ints: what was given may change
    before backward."""
    cdef object number, one
    if axis is None or type(axis) is int:
        return axis
    axes = []
    for one in <tuple>axis if type(axis) is tuple else (axis,):
        number = axis_number(one)
        if number is None:
            raise TypeError(f"{op}: axis must be None, an int or a tuple of ints, "
                            f"got {reprlib.repr(axis)}")
        axes.append(number)
    return tuple(axes) if type(axis) is tuple else axes[0]


cdef int mark_axes(bint *marked, object axis, int nd, str op) except -1:
    """Mark the dimensions, of nd, that plain_axis has found; return how many they are."""
    cdef int d
    for d in range(nd):
        marked[d] = axis is None
    if axis is None:
        return nd
    if type(axis) is not tuple:
        marked[from_start(axis, nd, axis, op)] = True
        return 1
    for one in <tuple>axis:
        d = from_start(one, nd, axis, op)
        if marked[d]:
            raise ValueError(f"{op}: axis must not name a dimension twice, "
                             f"got {reprlib.repr(axis)}")
        marked[d] = True
    return len(<tuple>axis)


cdef object axis_number(object axis):
    """Python's own int; None for what is no int, or is a bool."""
    return None if isinstance(axis, bool) else as_int(axis)


cdef int from_start(object axis, int nd, object given, str op) except -1:
    """An int as a number from 0 to nd - 1."""
    cdef Py_ssize_t number = PyNumber_AsSsize_t(axis, NULL)     # the nearest, if it is too large
    if not -nd <= number < nd:
        if nd == 0:
            raise ValueError(f"{op}: axis must be None for a 0-d input, got {reprlib.repr(given)}")
        raise ValueError(f"{op}: axis must be from {-nd} to {nd - 1} for an input of {nd} "
                         f"dimensions, got {reprlib.repr(given)}")
    return number + nd if number < 0 else number
