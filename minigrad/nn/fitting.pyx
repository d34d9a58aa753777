# cython: language_level=3, initializedcheck=False
"""Do the tensors of a fused layer have the shapes and dtypes that C relies on? Asked at each call,
since weights can be replaced at any time."""
cimport numpy as cnp
from minigrad.core.tensor cimport Tensor

cnp.import_array()


cdef object shape_of(Tensor t):
    return "a tensor without data" if t._array is None else (<object>t._array).shape


cdef bint fits(
    Tensor t, int typenum, int nd, Py_ssize_t d0, Py_ssize_t d1, Py_ssize_t d2
) noexcept:
    """Has t this dtype and these dimensions?"""
    cdef cnp.ndarray a = t._array
    return (a is not None and cnp.PyArray_NDIM(a) == nd and cnp.PyArray_TYPE(a) == typenum
            and cnp.PyArray_DIM(a, 0) == d0
            and (nd < 2 or cnp.PyArray_DIM(a, 1) == d1)
            and (nd < 3 or cnp.PyArray_DIM(a, 2) == d2))


cdef int misfit(Tensor t, object x, str op, str name, tuple shape, str meaning) except -1:
    """The error for a tensor that does not fit."""
    if t._array is not None and (<object>t._array).shape == shape:
        raise TypeError(
            f"{op}: {name} has dtype {t.dtype}, x has {x.dtype}: both must have one dtype")
    raise ValueError(f"{op}: {name} must have shape {shape} = {meaning}, got {shape_of(t)}")


cdef int check_tensors(
    str op, const mg_cell_kind *kind, Tensor x, Tensor h0, Tensor c0, Tensor W, Tensor U, Tensor b,
    Tensor p
) except -1:
    """Everything that C will read has the shape and the dtype that it relies on."""
    cdef Py_ssize_t B, I, H, G = kind.gates, biases = kind.biases
    cdef int typenum
    if (x._array is None or cnp.PyArray_NDIM(x._array) != 3
            or cnp.PyArray_DIM(x._array, 2) == 0):
        raise ValueError(f"{op}: x must have shape (T, B, I) = (time, batch, input_size), "
                         f"got {shape_of(x)}")
    if (U._array is None or cnp.PyArray_NDIM(U._array) != 2
            or cnp.PyArray_DIM(U._array, 0) == 0):
        raise ValueError(f"{op}: U must have shape (H, {G} * H) = "
                         f"(hidden_size, gates * hidden_size), got {shape_of(U)}")
    typenum = cnp.PyArray_TYPE(x._array)
    B = cnp.PyArray_DIM(x._array, 1)
    I = cnp.PyArray_DIM(x._array, 2)
    H = cnp.PyArray_DIM(U._array, 0)
    if not fits(U, typenum, 2, H, G * H, 0):
        misfit(U, x, op, "U", (H, G * H), "(hidden_size, gates * hidden_size)")
    if not fits(W, typenum, 2, I, G * H, 0):
        misfit(W, x, op, "W", (I, G * H), "(input_size, gates * hidden_size)")
    if b is not None and not fits(b, typenum, 1, biases * H, 0, 0):
        misfit(b, x, op, "b", (biases * H,), "(biases * hidden_size,)")
    # A cell with a cell state is the LSTM, which also has the peepholes.
    if p is not None:
        if not kind.has_c:
            raise ValueError(f"{op}: p must be None: only the LSTM has peepholes")
        if not fits(p, typenum, 2, 3, H, 0):
            misfit(p, x, op, "p", (3, H), "(3, hidden_size)")
    if c0 is not None and not kind.has_c:
        raise ValueError(f"{op}: c0 must be None: only the LSTM has a cell state")
    if h0 is not None and not fits(h0, typenum, 2, B, H, 0):
        misfit(h0, x, op, "h0", (B, H), "(batch, hidden_size)")
    if c0 is not None and not fits(c0, typenum, 2, B, H, 0):
        misfit(c0, x, op, "c0", (B, H), "(batch, hidden_size)")
    return 0


cdef int check_out(str op, Tensor out, cnp.ndarray x, Py_ssize_t H) except -1:
    """out takes (T, B, H), with its rows in one piece each and at equal distances, and nobody has
    used it."""
    cdef cnp.ndarray a = out._array
    cdef Py_ssize_t T = cnp.PyArray_DIM(x, 0), B = cnp.PyArray_DIM(x, 1)
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(x)
    if not fits(out, cnp.PyArray_TYPE(x), 3, T, B, H):
        raise ValueError(f"{op}: out must have shape {(T, B, H)} and dtype {(<object>x).dtype}, "
                         f"got {shape_of(out)}")
    if T == 0 or B == 0:
        return 0
    step, row, unit = (<object>a).strides
    if (out.requires_grad or not cnp.PyArray_ISWRITEABLE(a) or (H > 1 and unit != item)
            or row < H * item or row % item != 0 or (T > 1 and step != B * row)):
        raise ValueError(f"{op}: out must be a half from allocate_directions")
    return 0
