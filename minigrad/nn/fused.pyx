# cython: language_level=3, initializedcheck=False
"""The op behind the fused recurrent layers: a whole sequence through one layer in one direction, by
one call into C.

csrc/recurrent/recurrent.h has the formulas. Here are the checks of arrays that C relies on, the
memory that backward needs, checkpointing, the telemetry, and the composed form for second order.
The layers that users see are in rnn.py; the op-by-op specification is in cells.py and sequence.py.
"""
cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t
from minigrad.core.kernels cimport *
from minigrad.core.array cimport kernels_of
from minigrad.core.modes cimport recording
from minigrad.core.tape cimport (
    mark_view,
    record_outputs,
    recordn,
    savable,
    save,
    save_output,
    saved,
)
from minigrad.core.tensor cimport Node, Tensor, contiguous, wrap

import math
import reprlib

import numpy as np

from minigrad.core.array import check_data
from minigrad.core.sweep import grad

cnp.import_array()

CELLS = {"rnn_tanh": MG_RNN_TANH, "rnn_relu": MG_RNN_RELU, "lstm": MG_LSTM, "gru": MG_GRU, "gru_after": MG_GRU_AFTER}
OPS = {"rnn_tanh": "rnn", "rnn_relu": "rnn", "lstm": "lstm", "gru": "gru", "gru_after": "gru"}     # as messages name them
GATES = {"rnn_tanh": ("a",), "rnn_relu": ("a",), "lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n"), "gru_after": ("r", "z", "n")}


class Telemetry:
    """What one layer and direction tells about its last forward and backward pass.

    layer, direction: which one, e.g. 0 and "forward".
    dh_norm, dc_norm: arrays (T,), the norm of the loss's gradient with respect to h_t and (LSTM)
    c_t over all rows, for each step; None before backward. A backward pass with create_graph=True
    leaves them as they are.
    nonfinite: where the first value that is not finite arose, known after forward and again after
    backward, e.g. ``{"pass": "backward", "layer": 0, "direction": "forward", "step": 3, "row": 0,
    "gate": "f"}``, or None. The gate is one of the cell's gates, "c" or "h"; or "x", "h0", "c0",
    "W", "U", "b", "p" for what came in, or for its gradient, where no gate shows
    it: an infinite input behind a saturated gate, say. Step and row are those where the value is
    first used; both are None for the gradient of a weight, and the step is None for the state of a
    row of length 0.
    """

    def __init__(self, layer=0, direction="forward"):
        self.layer, self.direction = layer, direction
        self.dh_norm = self.dc_norm = self.nonfinite = None

    def found(self, run, step, row, gate):
        """Note the place of the first value that is not finite."""
        self.nonfinite = {"pass": run, "layer": self.layer, "direction": self.direction, "step": step, "row": row, "gate": gate}

    def __repr__(self):
        return (f"Telemetry(layer={self.layer}, direction={self.direction!r}, dh_norm={self.dh_norm}, dc_norm={self.dc_norm}, "
                f"nonfinite={self.nonfinite})")


cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept       # the exception that it sets is raised by raise_pending, after C has returned


cdef int ask_for_signals() noexcept with gil:
    """Between blocks of work: has Ctrl-C been pressed?"""
    return PyErr_CheckSignals() != 0

cdef int raise_pending() except -1:
    return -1

cdef int check_status(int status, str what, object shape) except -1:
    if status == MG_NO_MEMORY:
        raise MemoryError(f"{what}: cannot allocate the working memory for (T, B, H) = {shape}")
    if status == MG_INTERRUPTED:
        raise_pending()
    return 0


cdef class Sequence:
    """The arrays of one call: kept by the node for backward. All arrays are C-contiguous and of one
    dtype."""
    cdef mg_recurrent call
    cdef str cell
    cdef cnp.ndarray x, wx, wh, bias, peephole, h0, c0, mask, lengths, reset
    cdef cnp.ndarray h, h_T, c_T, gates, cells
    cdef list starts            # checkpointing: the first step of each chunk, and the state before it
    cdef object telemetry
    cdef object composed
    cdef double clip
    cdef bint found_forward     # the telemetry names a place of the forward pass

    cdef int fill(self, Py_ssize_t first, Py_ssize_t last) except -1:
        """Point the C struct at the steps first to last - 1."""
        cdef mg_recurrent *r = &self.call
        cdef Py_ssize_t T = last - first, item = cnp.PyArray_ITEMSIZE(self.x)
        cdef Py_ssize_t B = self.x.shape[1], I = self.x.shape[2], H = self.wh.shape[0]
        r.cell, r.T, r.B, r.I, r.H = CELLS[self.cell], T, B, I, H
        r.x = <const char *>cnp.PyArray_DATA(self.x) + first * B * I * item
        r.wx, r.wh = cnp.PyArray_DATA(self.wx), cnp.PyArray_DATA(self.wh)
        r.bias, r.peephole, r.mask = data(self.bias), data(self.peephole), data(self.mask)
        r.h0, r.c0 = data(self.h0), data(self.c0)
        r.lengths = <int64_t *>data(self.lengths)
        r.reset = NULL
        if self.reset is not None:
            r.reset = <uint8_t *>cnp.PyArray_DATA(self.reset) + first * B
        r.h_row = row_length(self.h)
        r.h = <char *>cnp.PyArray_DATA(self.h) + first * B * <Py_ssize_t>r.h_row * item
        r.h_T, r.c_T = data(self.h_T), data(self.c_T)
        r.gates, r.cells = data(self.gates), data(self.cells)
        r.interrupted = ask_for_signals
        return 0

    cdef cnp.ndarray new(self, tuple shape):
        return array_of_shape(shape, cnp.PyArray_TYPE(self.wh), False)

    cdef int allocate(self, Py_ssize_t T) except -1:
        """Memory for what backward reads again, for T steps."""
        B, H = self.x.shape[1], self.wh.shape[0]
        if not self.cell.startswith("rnn"):
            self.gates = self.new((T, B, self.wh.shape[1]))
        if self.cell in ("lstm", "gru_after"):
            self.cells = self.new((T, B, H))
        return 0

    cdef int run(self, Py_ssize_t first, Py_ssize_t last) except -1:
        cdef int status
        cdef const mg_kernels *K = kernels_of(self.wh)
        self.fill(first, last)
        with nogil:
            status = csrc.recurrent_forward(K, &self.call)
        return check_status(status, self.cell, (last - first, self.x.shape[1], self.wh.shape[0]))

    cdef list chunks(self, Py_ssize_t size):
        """(first, last) of the chunks of `size` steps in the order of processing."""
        T = self.x.shape[0]
        spans = []
        for first in range(0, T, size):
            spans.append((first, min(first + size, T)))
        return spans[::-1] if self.call.reverse else spans

    cdef Sequence part(self, object span, object h0, object c0, bint saving):
        """The same call for the steps of one chunk, with the state before it given."""
        cdef Sequence s = Sequence.__new__(Sequence)
        first, last = span
        s.cell, s.call.reverse, s.clip = self.cell, self.call.reverse, self.clip
        s.x, s.wx, s.wh, s.bias, s.peephole, s.mask = self.x[first:last], self.wx, self.wh, self.bias, self.peephole, self.mask
        s.h0, s.c0 = h0, c0
        s.lengths = None if self.lengths is None else np.clip(self.lengths - first, 0, last - first)
        s.reset = None if self.reset is None else self.reset[first:last]
        s.h = self.h[first:last]
        s.h_T, s.c_T = np.empty_like(self.h_T), None if self.c_T is None else np.empty_like(self.c_T)
        if saving:
            s.allocate(last - first)
        s.run(0, last - first)
        return s

    cdef int forward(self, bint saving, bint checkpoint) except -1:
        cdef Sequence s
        T = self.x.shape[0]
        if not checkpoint or T < 4:
            if saving:
                self.allocate(T)
            self.run(0, T)
        else:
            self.starts = []
            h, c = self.h0, self.c0
            for span in self.chunks(math.isqrt(T)):
                if saving:
                    self.starts.append((span, h, c))
                s = self.part(span, h, c, False)
                h, c = s.h_T, s.c_T
            self.h_T[...] = h
            if c is not None:
                self.c_T[...] = c
        self.telemetry.nonfinite = None
        self.found_forward = False
        if not self.finite():
            place = self.first_place()
            if place is not None:
                self.found_forward = True
                self.telemetry.found("forward", *place)
        return 0

    cdef bint finite(self) except -1:
        """Is all that came in and all of h finite? Padding is looked at too: a no is to be looked
        into by first_place."""
        cdef const mg_kernels *K = kernels_of(self.wh)
        cdef Py_ssize_t i, H = self.wh.shape[0], h_row = row_length(self.h), rows = self.x.shape[0] * self.x.shape[1]
        cdef const char *h = <const char *>cnp.PyArray_DATA(self.h)
        if not (all_finite(self.x) and all_finite(self.wx) and all_finite(self.wh) and all_finite(self.bias)
                and all_finite(self.peephole) and all_finite(self.h0) and all_finite(self.c0)):
            return False
        if h_row == H:
            return K.nonfinite(rows * H, h) == <size_t>(rows * H)
        for i in range(rows):
            if K.nonfinite(H, h + i * h_row * <Py_ssize_t>K.itemsize) < <size_t>H:
                return False
        return True

    cdef object first_place(self):
        """(step, row, gate) of the first value of the forward pass that is not finite, in the order
        of processing, or None. Slow."""
        cdef Sequence s
        T, B, H = self.x.shape[0], self.x.shape[1], self.wh.shape[0]
        names = GATES[self.cell]
        ends = np.full(B, T) if self.lengths is None else self.lengths
        alive = np.arange(T)[:, None] < ends
        first_step = ends - 1 if self.call.reverse else np.zeros(B, np.int64)
        places = []                 # (number in the order of processing, row, rank in the step, step, name)

        def note(bad, rank, name):
            steps, rows = np.nonzero(bad & alive)
            order = T - 1 - steps if self.call.reverse else steps
            if len(order):
                k = np.lexsort((rows, order))[0]
                places.append((order[k], rows[k], rank, steps[k], name))

        note(~np.isfinite(self.h).all(axis=2), len(names) + 1, "h")
        note(~np.isfinite(self.x).all(axis=2), len(names) + 2, "x")
        used = np.zeros((T, B), bool)           # where the state that came in is used
        rows = np.flatnonzero(ends > 0)
        used[first_step[rows], rows] = True
        if self.reset is not None:
            used &= self.reset == 0
        for rank, (name, state) in enumerate((("h0", self.h0), ("c0", self.c0)), len(names) + 3):
            if state is not None:
                note(used & ~np.isfinite(state).all(axis=1), rank, name)
        for rank, (name, weight) in enumerate((("W", self.wx), ("U", self.wh), ("b", self.bias), ("p", self.peephole)), len(names) + 5):
            if weight is not None and not np.isfinite(weight).all():
                note(alive, rank, name)
        if not places:
            for name, state in (("h0", self.h0), ("c0", self.c0)):
                if state is not None:
                    for row in np.flatnonzero(~np.isfinite(state).all(axis=1) & (ends == 0)):
                        return None, int(row), name
            return None
        _, row, _, step, name = min(places)
        s, offset = self, 0
        if self.gates is None and len(names) > 1:
            h, c = self.h0, self.c0
            for first, last in self.chunks(max(math.isqrt(T), 1)):
                s, offset = self.part((first, last), h, c, first <= step < last), first
                if first <= step < last:
                    break
                h, c = s.h_T, s.c_T
        if s.gates is not None:
            values = s.gates[step - offset, row].reshape(len(names), H)
            for gate in np.flatnonzero(~np.isfinite(values).all(axis=1)):
                return int(step), int(row), names[gate]
            if self.cell == "lstm" and not np.isfinite(s.cells[step - offset, row]).all() and name == "h":
                name = "c"
        return int(step), int(row), name

    cdef int backward(self, Node node, list dys) except -1:
        """Give the gradients of all inputs; dys are those of h, h_T and (LSTM) c_T, or None."""
        cdef Sequence s
        dh, dh_T, dc_T = (*dys, None)[:3]
        dh, dh_T, dc_T = rows_of(dh), array_of(dh_T), array_of(dc_T)
        dx = self.new((<object>self.x).shape) if node.wants(0) else None
        buffers = []                    # no comprehensions of objects: tensor.pyx says why
        for i, weight in ((3, self.wx), (4, self.wh), (5, self.bias), (6, self.peephole)):
            buffer = None
            if weight is not None and node.wants(i):
                buffer = node.buffer(i, (<object>weight).shape, cnp.PyArray_TYPE(weight))._array
            buffers.append(buffer)
        for i, weight in ((5, self.bias), (6, self.peephole)):
            low = None
            if weight is not None and node.wants(i):
                low = node.low_part(i, (<object>weight).shape)
            buffers.append(low)
        wants_state = node.wants(1) or node.wants(2)
        T = self.x.shape[0]
        norms = array_of_shape((2, T), cnp.NPY_DOUBLE, True)
        if not self.found_forward:
            self.telemetry.nonfinite = None
        if self.starts is None:
            dh0, dc0 = self.sweep(dh, dh_T, dc_T, dx, buffers, norms, wants_state, 0)
        else:
            dh0, dc0 = dh_T, dc_T
            for span, h, c in reversed(self.starts):
                first, last = span
                s = self.part(span, h, c, True)
                s.telemetry, s.found_forward = self.telemetry, self.found_forward
                dh0, dc0 = s.sweep(None if dh is None else dh[first:last], dh0, dc0, None if dx is None else dx[first:last],
                                   buffers, norms, True, first)
        self.telemetry.dh_norm = np.sqrt(norms[0])
        self.telemetry.dc_norm = np.sqrt(norms[1]) if self.cell == "lstm" else None
        if self.telemetry.nonfinite is None:
            self.check_gradients(dh, norms, dx, dh0 if wants_state else None, dc0 if wants_state else None, buffers)
        if dx is not None:
            node.give(0, wrap(dx), True)
        if node.wants(1):
            node.give(1, wrap(dh0), True)
        if node.wants(2):
            node.give(2, wrap(dc0), True)
        return 0

    cdef int check_gradients(self, object dh, cnp.ndarray norms, object dx, object dh0, object dc0, list buffers) except -1:
        """Every gate's gradient is finite. Are those of the outputs, of which relu may have dropped
        some, and those made of them?"""
        if (K64.nonfinite(cnp.PyArray_DIM(norms, 1), cnp.PyArray_DATA(norms)) == <size_t>cnp.PyArray_DIM(norms, 1)
                and all_finite(dx) and all_finite(dh0) and all_finite(dc0) and all_finite(buffers[0])
                and all_finite(buffers[1]) and all_finite(buffers[2]) and all_finite(buffers[3])):
            return 0
        ends = np.full(self.x.shape[1], self.x.shape[0]) if self.lengths is None else self.lengths
        doubtful = np.flatnonzero(~np.isfinite(norms[0]))
        for step in doubtful if self.call.reverse else doubtful[::-1]:
            bad = (step < ends) & ~np.isfinite(dh[step]).all(axis=1) if dh is not None else np.zeros(0, bool)
            if bad.any():
                self.telemetry.found("backward", int(step), int(np.flatnonzero(bad)[0]), "h")
                return 0
        if not all_finite(dx):
            steps, rows = np.nonzero(~np.isfinite(dx).all(axis=2))
            order = steps if self.call.reverse else -steps
            k = np.lexsort((rows, order))[0]
            self.telemetry.found("backward", int(steps[k]), int(rows[k]), "x")
            return 0
        for name, gradient in (("h0", dh0), ("c0", dc0)):
            if not all_finite(gradient):
                row = int(np.flatnonzero(~np.isfinite(gradient).all(axis=1))[0])
                step = int(ends[row]) - 1 if self.call.reverse else 0
                self.telemetry.found("backward", None if ends[row] == 0 else step, row, name)
                return 0
        for name, gradient in zip(("W", "U", "b", "p"), buffers):
            if not all_finite(gradient):
                self.telemetry.found("backward", None, None, name)
                return 0
        return 0

    cdef tuple sweep(self, object dh, object dh_T, object dc_T, object dx, list buffers, cnp.ndarray norms, bint wants_state,
                     Py_ssize_t first):
        """Backward through this call's steps, those from `first` on of the whole sequence; return
        dh0 and dc0. norms: (2, T), of the whole sequence, for the squared norms of dh and dc."""
        cdef mg_recurrent_grads g
        cdef mg_nonfinite where
        cdef const mg_kernels *K = kernels_of(self.wh)
        cdef Py_ssize_t T = self.x.shape[0]
        cdef int status
        cdef double *norm2 = <double *>cnp.PyArray_DATA(norms) + first
        self.fill(0, T)
        dh0 = np.empty_like(self.h_T) if wants_state else None
        dc0 = np.empty_like(self.h_T) if wants_state and self.cell == "lstm" else None
        g.dh, g.dc, g.dh_T, g.dc_T, g.dx, g.dh0, g.dc0 = data(dh), NULL, data(dh_T), data(dc_T), data(dx), data(dh0), data(dc0)
        g.dh_row = row_length(dh)
        g.dwx, g.dwh, g.dbias, g.dpeephole = data(buffers[0]), data(buffers[1]), data(buffers[2]), data(buffers[3])
        g.dbias_low, g.dpeephole_low = <double *>data(buffers[4]), <double *>data(buffers[5])
        g.clip = self.clip
        g.dh_norm2, g.nonfinite = norm2, &where
        g.dc_norm2 = norm2 + cnp.PyArray_DIM(norms, 1) if self.cell == "lstm" else NULL
        where.step = T
        with nogil:
            status = csrc.recurrent_backward(K, &self.call, &g)
        check_status(status, self.cell, (T, self.x.shape[1], self.wh.shape[0]))
        if <Py_ssize_t>where.step < T and not self.found_forward:
            if self.telemetry.nonfinite is None:
                self.telemetry.found("backward", first + where.step, where.row, (GATES[self.cell] + ("u",))[where.gate])
            if csrc.recurrent_scan(K, &self.call, &where):       # chunks come from the last one: an earlier one has the first place
                self.telemetry.found("forward", first + where.step, where.row, (GATES[self.cell] + ("c", "h"))[where.gate])
        return dh0, dc0


cdef bint all_finite(cnp.ndarray array) noexcept:
    """For a contiguous array; yes for None."""
    cdef size_t n
    if array is None:
        return True
    n = cnp.PyArray_SIZE(array)
    return kernels_of(array).nonfinite(n, cnp.PyArray_DATA(array)) == n


cdef void *data(object array):
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef Py_ssize_t row_length(cnp.ndarray array):
    """Elements from a row of (T, B, H) to the next."""
    return 0 if array is None else cnp.PyArray_STRIDE(array, 1) // cnp.PyArray_ITEMSIZE(array)


cdef cnp.ndarray rows_of(Tensor dy):
    """dy (T, B, H) as an array with rows at equal distances, each in one piece: its own, also where
    it is a part of wider rows, as with the two directions of a layer, or a copy. None for None."""
    if dy is None:
        return None
    T, B, H = dy.shape
    over_t, over_b, over_h = (<object>dy._array).strides
    if over_h == (<object>dy._array).itemsize and over_b >= H * over_h and over_b % over_h == 0 and over_t == B * over_b:
        return dy._array
    return contiguous(dy)


cdef cnp.ndarray array_of(object tensor):
    return None if tensor is None else contiguous(<Tensor>tensor)


def room_for_directions(Tensor x not None, Py_ssize_t H):
    """A new Tensor (T, B, 2 H), not yet filled, and its two halves (T, B, H): x (T, B, I) runs into
    them, one direction into each."""
    if x._array is None or x.ndim != 3:
        raise ValueError(f"room_for_directions: x must have shape (T, B, I) = (time, batch, input_size), got {shape_of(x)}")
    if not 1 <= H < 2**31:
        raise ValueError(f"room_for_directions: H must be from 1 to {2**31 - 1}, got {H}")
    cdef Tensor half, whole = wrap(array_of_shape((x.shape[0], x.shape[1], 2 * H), cnp.PyArray_TYPE(x._array), False))
    halves = [wrap(whole._array[:, :, :H]), wrap(whole._array[:, :, H:])]
    for half in halves:
        mark_view(half, whole)
    return whole, halves


# ---------------------------------------------------------------- checks of what a sequence is called with

cdef object shape_of(Tensor t):
    return "a tensor without data" if t._array is None else (<object>t._array).shape


cdef bint fits(Tensor t, int typenum, int nd, Py_ssize_t d0, Py_ssize_t d1, Py_ssize_t d2) noexcept:
    """Has t this dtype and these dimensions?"""
    cdef cnp.ndarray a = t._array
    return (a is not None and cnp.PyArray_NDIM(a) == nd and cnp.PyArray_TYPE(a) == typenum and cnp.PyArray_DIM(a, 0) == d0
            and (nd < 2 or cnp.PyArray_DIM(a, 1) == d1) and (nd < 3 or cnp.PyArray_DIM(a, 2) == d2))


cdef int misfit(Tensor t, object x, str op, str name, tuple shape, str meaning) except -1:
    """The error for a tensor that does not fit."""
    if t._array is not None and (<object>t._array).shape == shape:
        raise TypeError(f"{op}: {name} has dtype {t.dtype}, x has {x.dtype}: both must have one dtype")
    raise ValueError(f"{op}: {name} must have shape {shape} = {meaning}, got {shape_of(t)}")


cdef int check_tensors(str op, str cell, Tensor x, Tensor h0, Tensor c0, Tensor wx, Tensor wh, Tensor bias, Tensor peephole) except -1:
    """Everything that C will read has the shape and the dtype that it relies on."""
    cdef Py_ssize_t B, I, H, G = len(GATES[cell]), biases = G + (cell == "gru_after")
    cdef int typenum
    if x._array is None or cnp.PyArray_NDIM(x._array) != 3 or cnp.PyArray_DIM(x._array, 2) == 0:
        raise ValueError(f"{op}: x must have shape (T, B, I) = (time, batch, input_size), got {shape_of(x)}")
    if wh._array is None or cnp.PyArray_NDIM(wh._array) != 2 or cnp.PyArray_DIM(wh._array, 0) == 0:
        raise ValueError(f"{op}: U must have shape (H, {G} * H) = (hidden_size, gates * hidden_size), got {shape_of(wh)}")
    typenum = cnp.PyArray_TYPE(x._array)
    B, I, H = cnp.PyArray_DIM(x._array, 1), cnp.PyArray_DIM(x._array, 2), cnp.PyArray_DIM(wh._array, 0)
    if not fits(wh, typenum, 2, H, G * H, 0):
        misfit(wh, x, op, "U", (H, G * H), "(hidden_size, gates * hidden_size)")
    if not fits(wx, typenum, 2, I, G * H, 0):
        misfit(wx, x, op, "W", (I, G * H), "(input_size, gates * hidden_size)")
    if bias is not None and not fits(bias, typenum, 1, biases * H, 0, 0):
        misfit(bias, x, op, "b", (biases * H,), "(biases * hidden_size,)")
    if peephole is not None:
        if cell != "lstm":
            raise ValueError(f"{op}: p must be None: only the LSTM has peepholes")
        if not fits(peephole, typenum, 2, 3, H, 0):
            misfit(peephole, x, op, "p", (3, H), "(3, hidden_size)")
    if c0 is not None and cell != "lstm":
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
    cdef Py_ssize_t T = cnp.PyArray_DIM(x, 0), B = cnp.PyArray_DIM(x, 1), item = cnp.PyArray_ITEMSIZE(x)
    if not fits(out, cnp.PyArray_TYPE(x), 3, T, B, H):
        raise ValueError(f"{op}: out must have shape {(T, B, H)} and dtype {(<object>x).dtype}, got {shape_of(out)}")
    if T == 0 or B == 0:
        return 0
    step, row, unit = (<object>a).strides
    if out.requires_grad or not cnp.PyArray_ISWRITEABLE(a) or (H > 1 and unit != item) or row < H * item or row % item != 0 \
            or (T > 1 and step != B * row):
        raise ValueError(f"{op}: out must be a half from room_for_directions")
    return 0


cdef cnp.ndarray checked_mask(str op, object mask, cnp.ndarray x, Py_ssize_t H):
    """A copy of the mask (B, H) that nobody else can change."""
    if isinstance(mask, np.ma.MaskedArray):
        raise TypeError(f"{op}: mask must not be a masked array, the mask would be lost: use mask.filled(value)")
    array = np.array(mask)
    shape = (x.shape[1], H)
    if array.dtype != (<object>x).dtype:
        raise TypeError(f"{op}: mask has dtype {array.dtype}, x has {(<object>x).dtype}: both must have one dtype")
    if array.shape != shape:
        raise ValueError(f"{op}: mask must have shape {shape} = (batch, hidden_size), got {array.shape}")
    return np.ascontiguousarray(array, (<object>x).dtype)


def checked_lengths(str op not None, lengths, Py_ssize_t T, Py_ssize_t B) -> np.ndarray:
    """lengths as B int64 from 0 to T, in memory of their own: copied first, then checked, so that
    nobody changes them in between."""
    array = owned(op, "lengths", lengths)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{op}: lengths must be integers, got {array.dtype}")
    if array.shape != (B,):
        raise ValueError(f"{op}: lengths must have shape ({B},) = (batch,), got {array.shape}")
    for index in np.flatnonzero((array < 0) | (array > T))[:1]:
        raise ValueError(f"{op}: lengths must be from 0 to T = {T}, got {array[index]} at index {index}")
    return array.astype(np.int64)


def checked_reset(str op not None, reset, Py_ssize_t T, Py_ssize_t B) -> np.ndarray:
    """reset as an array of bool (T, B), in memory of its own."""
    array = owned(op, "reset", reset)
    if array.dtype != np.bool_:
        raise TypeError(f"{op}: reset must be an array of bool, got {array.dtype}")
    if array.shape != (T, B):
        raise ValueError(f"{op}: reset must have shape ({T}, {B}) = (time, batch), got {array.shape}")
    return array


cdef object owned(str op, str name, object value):
    """A copy of `value` as an array in C order."""
    check_data(value, op, name)
    try:
        return np.array(value, order="C", copy=True, subok=False)
    except ValueError:
        raise ValueError(f"{op}: {name} must be an array, got nested lists of different lengths") from None


def checked_clip(str op not None, str name not None, clip) -> float:
    """The bound of the state's gradient as a float above 0; 0.0, which is none, for None."""
    if clip is None:
        return 0.0
    if isinstance(clip, (bool, np.bool_)) or not isinstance(clip, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: {name} must be a number or None, got {type(clip).__name__}")
    if not clip > 0:
        raise ValueError(f"{op}: {name} must be above 0, got {clip}")
    try:
        return float(clip)
    except OverflowError:               # an int beyond float: no bound for any number
        return math.inf


def no_second_order(str op not None) -> RuntimeError:
    """The error where a clipped gradient is to be differentiated again.

    What the later sweep brings back to the layer is the sum of two kinds of gradients: those of the
    loss, which are to be clipped, and those that come from the derivative of the first sweep, which
    must not be. A layer or an op above that is not linear adds them up.
    """
    return RuntimeError(f"{op}: with clip_state_grad a gradient cannot be differentiated again (create_graph=True): a clipped gradient "
                        f"is not the derivative of a value, and the second sweep could not tell what is to be clipped from what is not. "
                        f"Make the layer without clip_state_grad")


def sequence(str cell not None, Tensor x not None, Tensor h0, Tensor c0, Tensor wx not None, Tensor wh not None, Tensor bias,
             Tensor peephole, *, mask=None, lengths=None, reset=None, bint reverse=False, bint checkpoint=False,
             clip=None, telemetry=None, composed=None, bint trace=False, Tensor out=None):
    """Run x (T, B, I) through one layer in one direction; return h (T, B, H), h_T (B, H), and for
    the LSTM c_T (B, H).

    cell: a key of CELLS. h0, c0 (B, H) or None for zeros; wx (I, G H), wh (H, G H), bias, peephole
    (3, H) or None, as in csrc/recurrent/recurrent.h. mask: array (B, H) of x's dtype or None.
    lengths: B ints or None. reset: bool (T, B) or None. clip: bound of the state's gradient, None
    for none.
    composed: the same computation made of ops, as a function of the seven tensors, for second
    order. out: where h goes and what is returned for it, a half from room_for_directions, or None.
    With trace=True the last value returned is a dict of arrays over time: the gates by name, and
    "c".

    Everything is checked here at each call, since weights can be replaced. With T = 0, B = 0 or all
    lengths 0 the final state is the initial one, h0 and c0 get the whole gradient of the final
    state, and all weights and x get a gradient of zeros.
    """
    cdef Sequence s = Sequence.__new__(Sequence)
    cdef Node node
    cdef Tensor t
    cdef Py_ssize_t T, B, H
    cdef bint saving = False
    cdef str op = OPS.get(cell)
    if op is None:
        raise ValueError(f"sequence: cell must be one of {', '.join(CELLS)}, got {reprlib.repr(cell)}")
    check_tensors(op, cell, x, h0, c0, wx, wh, bias, peephole)
    if telemetry is not None and not isinstance(telemetry, Telemetry):
        raise TypeError(f"{op}: telemetry must be a Telemetry or None, got {type(telemetry).__name__}")
    if composed is not None and not callable(composed):
        raise TypeError(f"{op}: composed must be a function or None, got {type(composed).__name__}")
    T, B, H = cnp.PyArray_DIM(x._array, 0), cnp.PyArray_DIM(x._array, 1), cnp.PyArray_DIM(wh._array, 0)
    inputs = (x, h0, c0, wx, wh, bias, peephole)
    if recording():
        for t in inputs:
            saving = saving or (t is not None and t.requires_grad)
    if saving:
        x, h0, c0, wx = savable(x), savable_or_none(h0), savable_or_none(c0), savable(wx)
        wh, bias, peephole = savable(wh), savable_or_none(bias), savable_or_none(peephole)
        inputs = (x, h0, c0, wx, wh, bias, peephole)
    s.cell, s.call.reverse, s.clip = cell, reverse, checked_clip(op, "clip", clip)
    s.x, s.wx, s.wh, s.bias, s.peephole = array_of(x), array_of(wx), array_of(wh), array_of(bias), array_of(peephole)
    s.h0, s.c0 = array_of(h0), array_of(c0)
    s.mask = None if mask is None else checked_mask(op, mask, s.x, H)
    s.lengths = None if lengths is None else checked_lengths(op, lengths, T, B)
    s.reset = None if reset is None else checked_reset(op, reset, T, B).view(np.uint8)
    if out is None:
        out = wrap(s.new((T, B, H)))
    else:
        check_out(op, out, s.x, H)
    s.h_T, s.c_T = s.new((B, H)), s.new((B, H)) if cell == "lstm" else None
    s.h = out._array
    s.telemetry = Telemetry() if telemetry is None else telemetry
    s.composed = composed
    s.forward(saving or trace, checkpoint and not trace)
    outputs = (out, wrap(s.h_T)) if s.c_T is None else (out, wrap(s.h_T), wrap(s.c_T))
    if saving:
        node = recordn(<Tensor>outputs[0], sequence_rule, cell, inputs)
        record_outputs(node, outputs)
        node.extra = (s, inputs, save_all(node, out, inputs))
    if trace:
        kept = {} if s.gates is None else dict(zip(GATES[cell], np.split(s.gates, len(GATES[cell]), axis=2)))
        if cell == "lstm":
            kept["c"] = s.cells
        for array in kept.values():
            array.flags.writeable = False
        outputs += (kept,)
    return outputs


cdef Py_ssize_t save_all(Node node, Tensor out, tuple inputs) except -1:
    """Save the outputs and all inputs, whose memory the rule reads; return how many they are."""
    cdef Tensor t
    cdef Py_ssize_t count = 1
    save_output(node, 0, out)
    for t in inputs:
        if t is not None:
            save(node, count, t)
            count += 1
    return count


cdef Tensor savable_or_none(Tensor t):
    return None if t is None else savable(t)


cdef int sequence_rule(Node node, Tensor _) except -1:
    cdef Sequence s
    cdef Py_ssize_t i, count
    s, inputs, count = node.extra
    for i in range(count):              # is all as it was when the layer ran?
        saved(node, i)
    if not node.run.create_graph:
        return s.backward(node, node.outputs)
    # Second order: run the sequence again, op by op, from aliases of the inputs, and differentiate
    # that.
    if s.clip:
        raise no_second_order(node.name)
    if s.composed is None:
        raise RuntimeError(f"{node.name}: cannot be differentiated twice, since sequence was called without composed=")
    wanted, aliases, ys, dys = [], [], [], []
    for i, t in enumerate(inputs):
        if node.wants(i):
            wanted.append(i)
        aliases.append(t.reshape(t.shape) if i in wanted else t)
    for y, dy in zip(s.composed(*aliases), node.outputs):
        if dy is not None and y.requires_grad:
            ys.append(y)
            dys.append(dy)
    points = list(map(aliases.__getitem__, wanted))
    gradients = grad(ys, points, dys, create_graph=True, allow_unused=True)
    for i, gradient in zip(wanted, gradients):
        if gradient is not None:
            node.give(i, <Tensor>gradient, False)
    return 0
