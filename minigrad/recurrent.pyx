# cython: language_level=3, initializedcheck=False
"""The op behind the fused recurrent layers: a whole sequence through one layer in one direction, by one call into C.

csrc/recurrent.h has the formulas. Here are the checks of arrays that C relies on, the memory that backward needs, checkpointing, the telemetry, and
the composed form for second order. The layers that users see are in rnn.py; the op-by-op specification is in cells.py and sequence.py.
"""
cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t
from minigrad.kernels cimport *
from minigrad.tensor cimport Node, Tensor, contiguous, kernels_of, mark_view, record_outputs, recording, recordn, wrap

import math

import numpy as np

from minigrad.tensor import grad

cnp.import_array()

CELLS = {"rnn_tanh": MG_RNN_TANH, "rnn_relu": MG_RNN_RELU, "lstm": MG_LSTM, "gru": MG_GRU, "gru_after": MG_GRU_AFTER}
GATES = {"rnn_tanh": ("a",), "rnn_relu": ("a",), "lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n"), "gru_after": ("r", "z", "n")}


class Telemetry:
    """What one layer and direction tells about its last backward pass.

    layer, direction: which one, e.g. 0 and "forward". dh_norm, dc_norm: arrays (T,), the norm of the loss's gradient with respect to h_t and
    (LSTM) c_t over all rows, for each step; None before backward. nonfinite: where the first value that is not finite arose, e.g.
    ``{"pass": "backward", "layer": 0, "direction": "forward", "step": 3, "row": 0, "gate": "f"}``, or None.
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
    """The arrays of one call: kept by the node for backward. All arrays are C-contiguous and of one dtype."""
    cdef mg_recurrent call
    cdef str cell
    cdef cnp.ndarray x, wx, wh, bias, peephole, h0, c0, mask, lengths, reset
    cdef cnp.ndarray h, h_T, c_T, gates, cells
    cdef list starts            # checkpointing: the first step of each chunk, and the state before it
    cdef object telemetry
    cdef object composed
    cdef double clip
    cdef object dtype

    cdef int fill(self, Py_ssize_t first, Py_ssize_t last) except -1:
        """Point the C struct at the steps first to last - 1."""
        cdef mg_recurrent *r = &self.call
        cdef Py_ssize_t T = last - first, item = self.dtype.itemsize, B = self.x.shape[1], I = self.x.shape[2], H = self.wh.shape[0]
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
            status = recurrent_forward(K, &self.call)
        return check_status(status, self.cell, (last - first, self.x.shape[1], self.wh.shape[0]))

    cdef list chunks(self, Py_ssize_t size):
        """(first, last) of the chunks of `size` steps in the order of processing."""
        T = self.x.shape[0]
        spans = [(first, min(first + size, T)) for first in range(0, T, size)]
        return spans[::-1] if self.call.reverse else spans

    cdef Sequence part(self, object span, object h0, object c0, bint saving):
        """The same call for the steps of one chunk, with the state before it given."""
        cdef Sequence s = Sequence.__new__(Sequence)
        first, last = span
        s.cell, s.dtype, s.call.reverse, s.clip = self.cell, self.dtype, self.call.reverse, self.clip
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
            return self.run(0, T)
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
        return 0

    cdef int backward(self, Node node, list dys) except -1:
        """Give the gradients of all inputs; dys are those of h, h_T and (LSTM) c_T, or None."""
        cdef Sequence s
        dh, dh_T, dc_T = (*dys, None)[:3]
        dh, dh_T, dc_T = rows_of(dh), array_of(dh_T), array_of(dc_T)
        dx = self.new((<object>self.x).shape) if node.wants(0) else None
        buffers = [None if weight is None or not node.wants(i) else
                   node.buffer(i, (<object>weight).shape, cnp.PyArray_TYPE(weight))._array
                   for i, weight in ((3, self.wx), (4, self.wh), (5, self.bias), (6, self.peephole))]
        buffers += [None if weight is None or not node.wants(i) else node.low_part(i, (<object>weight).shape)
                    for i, weight in ((5, self.bias), (6, self.peephole))]
        wants_state = node.wants(1) or node.wants(2)
        T = self.x.shape[0]
        norms = np.zeros((2, T))
        self.telemetry.nonfinite = None
        if self.starts is None:
            dh0, dc0 = self.sweep(dh, dh_T, dc_T, dx, buffers, norms, wants_state, 0)
        else:
            dh0, dc0 = dh_T, dc_T
            for span, h, c in reversed(self.starts):
                first, last = span
                s = self.part(span, h, c, True)
                s.telemetry = self.telemetry
                dh0, dc0 = s.sweep(None if dh is None else dh[first:last], dh0, dc0, None if dx is None else dx[first:last],
                                   buffers, norms[:, first:last], True, first)
        self.telemetry.dh_norm = np.sqrt(norms[0])
        self.telemetry.dc_norm = np.sqrt(norms[1]) if self.cell == "lstm" else None
        if dx is not None:
            node.give(0, wrap(dx), True)
        if node.wants(1):
            node.give(1, wrap(dh0), True)
        if node.wants(2):
            node.give(2, wrap(dc0), True)
        return 0

    cdef tuple sweep(self, object dh, object dh_T, object dc_T, object dx, list buffers, object norms, bint wants_state, Py_ssize_t first):
        """Backward through this call's steps; return dh0 and dc0."""
        cdef mg_recurrent_grads g
        cdef mg_nonfinite where
        cdef const mg_kernels *K = kernels_of(self.wh)
        cdef Py_ssize_t T = self.x.shape[0]
        cdef int status
        cdef cnp.ndarray dh_norm2 = np.zeros(T), dc_norm2 = np.zeros(T)
        self.fill(0, T)
        dh0 = np.empty_like(self.h_T) if wants_state else None
        dc0 = np.empty_like(self.h_T) if wants_state and self.cell == "lstm" else None
        g.dh, g.dc, g.dh_T, g.dc_T, g.dx, g.dh0, g.dc0 = data(dh), NULL, data(dh_T), data(dc_T), data(dx), data(dh0), data(dc0)
        g.dh_row = row_length(dh)
        g.dwx, g.dwh, g.dbias, g.dpeephole = data(buffers[0]), data(buffers[1]), data(buffers[2]), data(buffers[3])
        g.dbias_low, g.dpeephole_low = <double *>data(buffers[4]), <double *>data(buffers[5])
        g.clip = self.clip
        g.dh_norm2, g.nonfinite = <double *>cnp.PyArray_DATA(dh_norm2), &where
        g.dc_norm2 = <double *>cnp.PyArray_DATA(dc_norm2) if self.cell == "lstm" else NULL
        where.step = T
        with nogil:
            status = recurrent_backward(K, &self.call, &g)
        check_status(status, self.cell, (T, self.x.shape[1], self.wh.shape[0]))
        norms[0], norms[1] = dh_norm2, dc_norm2
        if <Py_ssize_t>where.step < T and self.telemetry.nonfinite is None:
            self.telemetry.found("backward", first + where.step, where.row, (GATES[self.cell] + ("u",))[where.gate])
            if recurrent_scan(K, &self.call, &where):
                self.telemetry.found("forward", first + where.step, where.row, (GATES[self.cell] + ("c", "h"))[where.gate])
        return dh0, dc0


cdef void *data(object array):
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef Py_ssize_t row_length(cnp.ndarray array):
    """Elements from a row of (T, B, H) to the next."""
    return 0 if array is None else cnp.PyArray_STRIDE(array, 1) // cnp.PyArray_ITEMSIZE(array)


cdef cnp.ndarray rows_of(Tensor dy):
    """dy (T, B, H) as an array with rows at equal distances, each in one piece: its own, also where it is a part of wider rows,
    as with the two directions of a layer, or a copy. None for None."""
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
    """A new Tensor (T, B, 2 H), not yet filled, and its two halves (T, B, H): x (T, B, I) runs into them, one direction into each."""
    cdef Tensor half, whole = wrap(array_of_shape((x.shape[0], x.shape[1], 2 * H), cnp.PyArray_TYPE(x._array), False))
    halves = [wrap(whole._array[:, :, :H]), wrap(whole._array[:, :, H:])]
    for half in halves:
        mark_view(half, whole)
    return whole, halves


def sequence(str cell not None, Tensor x not None, Tensor h0, Tensor c0, Tensor wx not None, Tensor wh not None, Tensor bias,
             Tensor peephole, *, mask=None, lengths=None, reset=None, bint reverse=False, bint checkpoint=False,
             double clip=0, telemetry=None, composed=None, bint trace=False, Tensor out=None):
    """Run x (T, B, I) through one layer in one direction; return h (T, B, H), h_T (B, H), and for the LSTM c_T (B, H).

    cell: a key of CELLS. h0, c0 (B, H) or None for zeros; wx (I, G H), wh (H, G H), bias, peephole (3, H) or None, as in csrc/recurrent.h. mask:
    ndarray (B, H) or None. lengths: int64 (B,) or None. reset: bool (T, B) or None. clip: bound of the state's gradient, 0 for none.
    composed: the same computation made of ops, as a function of the eight tensors, for second order. out: where h goes and what is returned
    for it, a half from room_for_directions, or None. With trace=True the last value returned is a dict of arrays over time: the gates by name, and "c".
    The caller has checked the shapes.
    """
    cdef Sequence s = Sequence.__new__(Sequence)
    cdef Node node
    T, B, H = x.shape[0], x.shape[1], wh.shape[0]
    inputs = (x, h0, c0, wx, wh, bias, peephole)
    s.cell, s.dtype, s.call.reverse, s.clip = cell, x.dtype, reverse, clip
    s.x, s.wx, s.wh, s.bias, s.peephole = array_of(x), array_of(wx), array_of(wh), array_of(bias), array_of(peephole)
    s.h0, s.c0 = array_of(h0), array_of(c0)
    s.mask = None if mask is None else np.ascontiguousarray(mask, x.dtype)
    s.lengths = None if lengths is None else np.ascontiguousarray(lengths, np.int64)
    s.reset = None if reset is None else np.ascontiguousarray(reset, np.uint8)
    s.h_T, s.c_T = s.new((B, H)), s.new((B, H)) if cell == "lstm" else None
    if out is None:
        out = wrap(s.new((T, B, H)))
    s.h = out._array
    s.telemetry = Telemetry() if telemetry is None else telemetry
    s.composed = composed
    saving = recording() and any([t is not None and t.requires_grad for t in inputs])
    s.forward(saving or trace, checkpoint and not trace)
    outputs = (out, *[wrap(array) for array in (s.h_T, s.c_T) if array is not None])
    if saving:
        node = recordn(<Tensor>outputs[0], sequence_rule, cell, inputs)
        record_outputs(node, outputs)
        node.extra = (s, inputs, guard(inputs + (outputs[0],)))
    if trace:
        kept = {} if s.gates is None else dict(zip(GATES[cell], np.split(s.gates, len(GATES[cell]), axis=2)))
        if cell == "lstm":
            kept["c"] = s.cells
        for array in kept.values():
            array.flags.writeable = False
        outputs += (kept,)
    return outputs


cdef list guard(tuple tensors):
    """The tensors' versions now, and the memory they count for."""
    return [None if t is None else mark(<Tensor>t) for t in tensors]

cdef tuple mark(Tensor t):
    cdef Tensor alias = t.detach()
    return alias, alias.version.count

cdef int check_guard(list marks, str name) except -1:
    cdef Tensor alias
    for entry in marks:
        if entry is not None:
            alias = entry[0]
            if alias.version.count != entry[1]:
                raise RuntimeError(f"{name}: one of the tensors needed for gradient computation has been modified by an in-place operation: "
                                   f"a {alias.dtype} tensor of shape {alias.shape} is at version {alias.version.count}; "
                                   f"expected version {entry[1]} instead. Hint: assign after backward, or give the layer a copy")


cdef int sequence_rule(Node node, Tensor _) except -1:
    cdef Sequence s
    s, inputs, marks = node.extra
    check_guard(marks, node.name)
    if not node.run.create_graph:
        return s.backward(node, node.outputs)
    # Second order: run the sequence again, op by op, from aliases of the inputs, and differentiate that.
    wanted = [i for i in range(len(inputs)) if node.wants(i)]
    aliases = [t.reshape(t.shape) if i in wanted else t for i, t in enumerate(inputs)]
    pairs = [(y, dy) for y, dy in zip(s.composed(*aliases), node.outputs) if dy is not None]
    gradients = grad([y for y, _ in pairs], [aliases[i] for i in wanted], [dy for _, dy in pairs], create_graph=True, allow_unused=True)
    for i, gradient in zip(wanted, gradients):
        if gradient is not None:
            node.give(i, <Tensor>gradient, False)
    return 0
