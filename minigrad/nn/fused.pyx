# cython: language_level=3, initializedcheck=False
"""The op behind the fused recurrent layers: a whole sequence through one layer in one direction, by
one call into C.

csrc/recurrent/ has the formulas, a file for each cell. Here are the memory that backward needs,
checkpointing, and the composed form for second order; fitting.pyx checks what C relies on. The
layers that users see are in fused_stack.py; the op-by-op specification is in rnn.py, lstm.py,
gru.py and sequence.py.
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
from minigrad.nn.fitting cimport check_out, check_tensors, shape_of

import math

import numpy as np

from minigrad.checks import choice
from minigrad.core.rules import RULE_FUNCTIONS
from minigrad.core.sweep import grad
from minigrad.nn.arguments import Steps, checked_clip, checked_mask, no_second_order
from minigrad.nn.telemetry import Place, Rows, Telemetry, first_in_backward, first_in_forward

cnp.import_array()

CELLS = {}          # name of a cell -> its number in C
cdef dict GATES = {}            # -> the names of its gates
cdef dict SUMS = {}             # -> the names of the parts of its bias: the gates, then others


cdef int list_cells() except -1:
    """Read the table of cells; what differs from cell to cell is in it, or a fact of its kind."""
    cdef const mg_cell_kind *kind
    cdef size_t number, part
    for number in range(mg_cell_count):
        kind = K64.cells[number]
        name = kind.name.decode()
        sums = []
        for part in range(kind.biases):
            sums.append(kind.names[part].decode())
        CELLS[name] = number
        SUMS[name] = tuple(sums)
        GATES[name] = tuple(sums[:kind.gates])
    return 0

list_cells()
RULE_FUNCTIONS.update(dict.fromkeys(CELLS, "sequence_rule"))


cdef extern from "Python.h":
    # The exception that it sets is raised by raise_pending, after C has returned.
    int PyErr_CheckSignals() noexcept


cdef int ask_for_signals() noexcept with gil:
    """Between blocks of work: has Ctrl-C been pressed?"""
    return PyErr_CheckSignals() != 0


cdef int raise_pending() except -1:
    return -1


cdef int check_status(int status, str op, tuple sizes) except -1:
    """Raise what a call into C reports; sizes: (T, B, H)."""
    if status == MG_NO_MEMORY:
        raise MemoryError(
            f"{op}: cannot allocate the working memory for (T, B, H) = {sizes}")
    if status == MG_INTERRUPTED:
        raise_pending()
    return 0


cdef object read_only(object array):
    """An array as others may see it; None for None."""
    if array is None:
        return None
    view = array.view()
    view.flags.writeable = False
    return view


cdef class Sequence:
    """The arrays of one call: kept by the node for backward. All arrays are C-contiguous and of one
    dtype."""
    cdef mg_recurrent call
    cdef const mg_cell_kind *kind
    cdef str cell
    cdef str op                 # how messages name what was called
    cdef cnp.ndarray x, W, U, b, p, h0, c0, mask, lengths, reset
    cdef cnp.ndarray h, h_T, c_T, gates, cells
    cdef list starts            # checkpointing: the steps of each chunk, and the state before it
    cdef object telemetry
    cdef object composed
    cdef double clip
    cdef bint found_forward     # the telemetry names a place of the forward pass

    cdef int fill(self) except -1:
        """Point the C struct at the arrays."""
        cdef mg_recurrent *r = &self.call
        r.T = self.x.shape[0]
        r.B = self.x.shape[1]
        r.I = self.x.shape[2]
        r.H = self.U.shape[0]
        r.x = data(self.x)
        r.w = data(self.W)
        r.u = data(self.U)
        r.b = data(self.b)
        r.p = data(self.p)
        r.mask = data(self.mask)
        r.h0 = data(self.h0)
        r.c0 = data(self.c0)
        r.lengths = <int64_t *>data(self.lengths)
        r.reset = <uint8_t *>data(self.reset)
        r.h_row = row_length(self.h)
        r.h = data(self.h)
        r.h_T = data(self.h_T)
        r.c_T = data(self.c_T)
        r.gates = data(self.gates)
        r.cells = data(self.cells)
        r.interrupted = ask_for_signals
        return 0

    cdef int take(self, tuple tensors) except -1:
        """The arrays of x, h0, c0, W, U, b, p."""
        x, h0, c0, W, U, b, p = tensors
        self.x = array_of(x)
        self.h0 = array_of(h0)
        self.c0 = array_of(c0)
        self.W = array_of(W)
        self.U = array_of(U)
        self.b = array_of(b)
        self.p = array_of(p)
        return 0

    cdef int take_steps(self, object steps, Py_ssize_t T, Py_ssize_t B) except -1:
        """The lengths and reset of a Steps, or none for None."""
        if steps is None:
            return 0
        if type(steps) is not Steps or (steps.T, steps.B) != (T, B):
            raise ValueError(
                f"{self.op}: steps must be a Steps for (T, B) = {(T, B)}, got {steps!r}")
        self.lengths = steps.lengths
        self.reset = None if steps.reset is None else steps.reset.view(np.uint8)
        return 0

    cdef int record(self, tuple inputs, tuple outputs) except -1:
        """Make the node for backward."""
        cdef Node node = recordn(<Tensor>outputs[0], sequence_rule, self.cell, inputs)
        record_outputs(node, outputs)
        node.extra = (self, inputs, save_all(node, <Tensor>outputs[0], inputs))
        return 0

    def details(self):
        """What `Node.details` tells of the layer."""
        cdef mg_recurrent *r = &self.call
        return {
            "cell": self.cell,
            "T": r.T,
            "B": r.B,
            "I": r.I,
            "H": r.H,
            "reverse": bool(r.reverse),
            "lengths": read_only(self.lengths),
            "reset": None if self.reset is None else read_only(self.reset.view(np.bool_)),
            "mask": read_only(self.mask),
            "checkpoint": "sqrt" if self.starts is not None else None,
            "clip_state_grad": self.clip or None,
        }

    def own_bytes(self):
        """The memory that backward reads and only this object knows: for `Entry.saved_bytes`."""
        kept = [self.gates, self.cells, self.mask, self.lengths, self.reset]
        if self.starts is not None:
            for _, *states in self.starts[1:]:      # the first are h0 and c0
                kept += states
        return sum(array.nbytes for array in kept if array is not None)

    cdef dict trace(self):
        """What was kept, by name: read-only arrays (T, B, H)."""
        kept = {}
        if self.gates is not None:
            names = GATES[self.cell]
            kept.update(zip(names, np.split(self.gates, len(names), axis=2)))
        if self.kind.has_c:
            kept["c"] = self.cells
        for array in kept.values():
            array.flags.writeable = False
        return kept

    cdef cnp.ndarray new(self, tuple shape):
        return array_of_shape(shape, cnp.PyArray_TYPE(self.U), False)

    cdef int allocate(self, Py_ssize_t T) except -1:
        """Memory for what backward reads again, for T steps."""
        B, H = self.x.shape[1], self.U.shape[0]
        if self.kind.saves_gates:
            self.gates = self.new((T, B, self.U.shape[1]))
        if self.kind.saves_cells:
            self.cells = self.new((T, B, H))
        return 0

    cdef int run(self) except -1:
        cdef int status
        cdef const mg_kernels *K = kernels_of(self.U)
        self.fill()
        with nogil:
            status = csrc.recurrent_forward(K, &self.call)
        return check_status(status, self.op, (self.x.shape[0], self.x.shape[1], self.U.shape[0]))

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
        s.cell = self.cell
        s.op = self.op
        s.kind = self.kind
        s.call.cell = self.call.cell
        s.call.reverse = self.call.reverse
        s.clip = self.clip
        s.x = self.x[first:last]
        s.W = self.W
        s.U = self.U
        s.b = self.b
        s.p = self.p
        s.mask = self.mask
        s.h0 = h0
        s.c0 = c0
        if self.lengths is not None:
            s.lengths = np.clip(self.lengths - first, 0, last - first)
        if self.reset is not None:
            s.reset = self.reset[first:last]
        s.h = self.h[first:last]
        s.h_T = np.empty_like(self.h_T)
        s.c_T = None if self.c_T is None else np.empty_like(self.c_T)
        if saving:
            s.allocate(last - first)
        s.run()
        return s

    cdef int forward(self, bint saving, bint checkpoint) except -1:
        T = self.x.shape[0]
        if checkpoint and T >= 4:
            self.forward_in_chunks(saving)
        else:
            if saving:
                self.allocate(T)
            self.run()
        self.telemetry.nonfinite = None
        self.found_forward = False
        if not self.finite():
            place = self.first_place()
            if place is not None:
                self.found_forward = True
                self.telemetry.found("forward", *place)
        return 0

    cdef int forward_in_chunks(self, bint saving) except -1:
        """Keep the states between chunks of sqrt(T) steps, and of the steps nothing but h."""
        cdef Sequence s
        self.starts = []
        h, c = self.h0, self.c0
        for span in self.chunks(math.isqrt(self.x.shape[0])):
            if saving:
                self.starts.append((span, h, c))
            s = self.part(span, h, c, False)
            h, c = s.h_T, s.c_T
        self.h_T[...] = h
        if c is not None:
            self.c_T[...] = c
        return 0

    # -- values that are not finite

    cdef bint finite(self) except -1:
        """Is all that came in and all of h finite? Padding is looked at too: a no is to be looked
        into by first_place."""
        cdef const mg_kernels *K = kernels_of(self.U)
        cdef Py_ssize_t H = self.U.shape[0], h_row = row_length(self.h)
        cdef Py_ssize_t i, rows = self.x.shape[0] * self.x.shape[1]
        cdef const char *h = <const char *>cnp.PyArray_DATA(self.h)
        if not (all_finite(self.x) and all_finite(self.W) and all_finite(self.U)
                and all_finite(self.b) and all_finite(self.p)
                and all_finite(self.h0) and all_finite(self.c0)):
            return False
        if h_row == H:
            return K.nonfinite(rows * H, h) == <size_t>(rows * H)
        for i in range(rows):
            if K.nonfinite(H, h + i * h_row * <Py_ssize_t>K.itemsize) < <size_t>H:
                return False
        return True

    cdef object rows(self):
        """Which rows take part in which steps."""
        T, B = self.x.shape[0], self.x.shape[1]
        ends = np.full(B, T) if self.lengths is None else self.lengths
        return Rows(T, ends, bool(self.call.reverse))

    cdef object first_place(self):
        """The place of the first value of the forward pass that is not finite, or None. Slow."""
        states = {"h0": self.h0, "c0": self.c0}
        weights = {"W": self.W, "U": self.U, "b": self.b, "p": self.p}
        place = first_in_forward(self.rows(), self.h, self.x, states, weights, self.reset)
        if place is None or place.step is None:
            return place
        return Place(place.step, place.row, self.gate_at(place.step, place.row, place.gate))

    cdef object gate_at(self, Py_ssize_t step, Py_ssize_t row, str name):
        """The first gate that is not finite in a row of a step, or "c" in place of "h", or `name`.
        Where the gates were not saved, the chunk of that step runs again."""
        cdef Sequence s = self
        cdef Py_ssize_t offset = 0, H = self.U.shape[0]
        names = GATES[self.cell]
        if self.gates is None and self.kind.saves_gates:
            h, c = self.h0, self.c0
            for first, last in self.chunks(max(math.isqrt(self.x.shape[0]), 1)):
                s, offset = self.part((first, last), h, c, first <= step < last), first
                if first <= step < last:
                    break
                h, c = s.h_T, s.c_T
        if s.gates is None:
            return name
        values = s.gates[step - offset, row].reshape(len(names), H)
        for gate in np.flatnonzero(~np.isfinite(values).all(axis=1)):
            return names[gate]
        if name == "h" and self.kind.has_c and not np.isfinite(s.cells[step - offset, row]).all():
            return "c"
        return name

    cdef int check_gradients(
        self, object dh, cnp.ndarray norms, object dx, dict states, list buffers
    ) except -1:
        """Every gate's gradient is finite. Are those of the outputs, and those made of them?"""
        cdef size_t T = cnp.PyArray_DIM(norms, 1)
        cdef bint finite = K64.nonfinite(T, cnp.PyArray_DATA(norms)) == T and all_finite(dx)
        for gradient in (*states.values(), *buffers[:4]):
            finite = finite and all_finite(gradient)
        if finite:
            return 0
        weights = dict(zip(("W", "U", "b", "p"), buffers))
        place = first_in_backward(self.rows(), dh, norms[0], dx, states, weights)
        if place is not None:
            self.telemetry.found("backward", *place)
        return 0

    # -- backward

    cdef list weight_buffers(self, Node node):
        """Where the gradients of W, U, b and p are accumulated, and the low parts of b's and p's;
        None for those that are not wanted."""
        buffers = []                    # no comprehensions of objects: tensor.pyx says why
        for i, weight in ((3, self.W), (4, self.U), (5, self.b), (6, self.p)):
            buffer = None
            if weight is not None and node.wants(i):
                shape = (<object>weight).shape
                buffer = node.buffer(i, shape, cnp.PyArray_TYPE(weight))._array
            buffers.append(buffer)
        for i, weight in ((5, self.b), (6, self.p)):
            low = None
            if weight is not None and node.wants(i):
                low = node.low_part(i, weight)
            buffers.append(low)
        return buffers

    cdef int backward(self, Node node, list dys) except -1:
        """Give the gradients of all inputs; dys are those of h, h_T and (LSTM) c_T, or None."""
        dh, dh_T, dc_T = (*dys, None)[:3]
        dh, dh_T, dc_T = rows_of(dh), array_of(dh_T), array_of(dc_T)
        dx = self.new((<object>self.x).shape) if node.wants(0) else None
        buffers = self.weight_buffers(node)
        wants_state = node.wants(1) or node.wants(2)
        norms = array_of_shape((2, self.x.shape[0]), cnp.NPY_DOUBLE, True)
        if not self.found_forward:
            self.telemetry.nonfinite = None
        if self.starts is None:
            dh0, dc0 = self.sweep(dh, dh_T, dc_T, dx, buffers, norms, wants_state, 0)
        else:
            dh0, dc0 = self.sweep_chunks(dh, dh_T, dc_T, dx, buffers, norms)
        self.telemetry.dh_norm = np.sqrt(norms[0])
        self.telemetry.dc_norm = np.sqrt(norms[1]) if self.kind.has_c else None
        if self.telemetry.nonfinite is None:
            states = {"h0": dh0, "c0": dc0} if wants_state else {}
            self.check_gradients(dh, norms, dx, states, buffers)
        if dx is not None:
            node.give(0, wrap(dx), True)
        if node.wants(1):
            node.give(1, wrap(dh0), True)
        if node.wants(2):
            node.give(2, wrap(dc0), True)
        return 0

    cdef tuple sweep_chunks(
        self, object dh, object dh_T, object dc_T, object dx, list buffers, cnp.ndarray norms
    ):
        """As sweep, chunk by chunk, each run forward again before."""
        cdef Sequence s
        for span, h, c in reversed(self.starts):
            first, last = span
            s = self.part(span, h, c, True)
            s.telemetry = self.telemetry
            s.found_forward = self.found_forward
            dh_part = None if dh is None else dh[first:last]
            dx_part = None if dx is None else dx[first:last]
            dh_T, dc_T = s.sweep(dh_part, dh_T, dc_T, dx_part, buffers, norms, True, first)
        return dh_T, dc_T

    cdef tuple sweep(
        self, object dh, object dh_T, object dc_T, object dx, list buffers, cnp.ndarray norms,
        bint wants_state, Py_ssize_t first
    ):
        """Backward through this call's steps, those from `first` on of the whole sequence; return
        dh0 and dc0. norms: (2, T), of the whole sequence, for the squared norms of dh and dc."""
        cdef mg_recurrent_grads g
        cdef mg_nonfinite where
        cdef const mg_kernels *K = kernels_of(self.U)
        cdef Py_ssize_t T = self.x.shape[0]
        cdef int status
        cdef double *norm2 = <double *>cnp.PyArray_DATA(norms) + first
        self.fill()
        dh0 = np.empty_like(self.h_T) if wants_state else None
        dc0 = np.empty_like(self.h_T) if wants_state and self.kind.has_c else None
        g.dh = data(dh)
        g.dh_row = row_length(dh)
        g.dc = NULL
        g.dh_T = data(dh_T)
        g.dc_T = data(dc_T)
        g.dx = data(dx)
        g.dh0 = data(dh0)
        g.dc0 = data(dc0)
        g.dw = data(buffers[0])
        g.du = data(buffers[1])
        g.db = data(buffers[2])
        g.dp = data(buffers[3])
        g.db_low = <double *>data(buffers[4])
        g.dp_low = <double *>data(buffers[5])
        g.clip = self.clip
        g.dh_norm2 = norm2
        g.dc_norm2 = norm2 + cnp.PyArray_DIM(norms, 1) if self.kind.has_c else NULL
        g.nonfinite = &where
        where.step = T
        with nogil:
            status = csrc.recurrent_backward(K, &self.call, &g)
        check_status(status, self.op, (T, self.x.shape[1], self.U.shape[0]))
        if <Py_ssize_t>where.step < T and not self.found_forward:
            self.note_nonfinite(where, first)
        return dh0, dc0

    cdef int note_nonfinite(self, mg_nonfinite where, Py_ssize_t first) except -1:
        """Note the place of a gate's gradient, or if the forward values are not finite, theirs.
        Chunks come from the last one: an earlier one has the first place."""
        if self.telemetry.nonfinite is None:
            name = SUMS[self.cell][where.gate]
            self.telemetry.found("backward", first + where.step, where.row, name)
        if csrc.recurrent_scan(kernels_of(self.U), &self.call, &where):
            name = (GATES[self.cell] + ("c", "h"))[where.gate]
            self.telemetry.found("forward", first + where.step, where.row, name)
        return 0


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
    _, B, H = dy.shape
    over_t, over_b, over_h = (<object>dy._array).strides
    item = (<object>dy._array).itemsize
    if over_h == item and over_b >= H * item and over_b % item == 0 and over_t == B * over_b:
        return dy._array
    return contiguous(dy)


cdef cnp.ndarray array_of(object tensor):
    return None if tensor is None else contiguous(<Tensor>tensor)


def allocate_directions(Tensor x not None, Py_ssize_t H):
    """A new Tensor (T, B, 2 H), not yet filled, and its two halves (T, B, H): x (T, B, I) runs into
    them, one direction into each."""
    if x._array is None or x.ndim != 3:
        raise ValueError(f"allocate_directions: x must have shape (T, B, I) = "
                         f"(time, batch, input_size), got {shape_of(x)}")
    if not 1 <= H < 2**31:
        raise ValueError(f"allocate_directions: H must be from 1 to {2**31 - 1}, got {H}")
    shape = (x.shape[0], x.shape[1], 2 * H)
    cdef Tensor half, whole = wrap(array_of_shape(shape, cnp.PyArray_TYPE(x._array), False))
    halves = [wrap(whole._array[:, :, :H]), wrap(whole._array[:, :, H:])]
    for half in halves:
        mark_view(half, whole)
    return whole, halves


# ---------------------------------------------------------------- the op

def sequence(
    str cell not None, Tensor x not None, Tensor h0, Tensor c0, Tensor W not None,
    Tensor U not None, Tensor b, Tensor p, *, str op not None="sequence", mask=None, steps=None,
    bint reverse=False, bint checkpoint=False, clip=None, telemetry=None, composed=None,
    bint trace=False, Tensor out=None
):
    """Run x (T, B, I) through one layer in one direction; return h (T, B, H), h_T (B, H), and for
    the LSTM c_T (B, H).

    cell: a key of CELLS. h0, c0 (B, H) or None for zeros; W (I, G H), U (H, G H), b, and p (3, H)
    or None, as in csrc/recurrent/recurrent.h. op: how messages name what was called. mask: array
    (B, H) of x's dtype or None. steps: lengths and reset as a Steps for these T and B, or None.
    clip: bound of the state's gradient, None for none. composed: the same computation made of ops,
    as a function of the seven tensors, for second order. out: where h goes and what is returned for
    it, a half from allocate_directions, or None. With trace=True the last value returned is a dict
    of arrays over time: the gates by name, and "c".

    Everything is checked here at each call, since weights can be replaced. With T = 0, B = 0 or all
    lengths 0 the final state is the initial one, h0 and c0 get the whole gradient of the final
    state, and all weights and x get a gradient of zeros.
    """
    cdef Sequence s = Sequence.__new__(Sequence)
    cdef Tensor t
    cdef Py_ssize_t T, B, H
    cdef bint saving = False
    cdef int number
    if type(cell) is not str or cell not in CELLS:
        cell = choice(op, "cell", cell, tuple(CELLS))
    number = CELLS[cell]
    s.cell = cell
    s.op = op
    s.call.cell = <mg_cell>number
    s.kind = K64.cells[number]
    check_tensors(op, s.kind, x, h0, c0, W, U, b, p)
    if telemetry is not None and not isinstance(telemetry, Telemetry):
        raise TypeError(
            f"{op}: telemetry must be a Telemetry or None, got {type(telemetry).__name__}")
    if composed is not None and not callable(composed):
        raise TypeError(
            f"{op}: composed must be a function or None, got {type(composed).__name__}")
    T = cnp.PyArray_DIM(x._array, 0)
    B = cnp.PyArray_DIM(x._array, 1)
    H = cnp.PyArray_DIM(U._array, 0)
    inputs = (x, h0, c0, W, U, b, p)
    if recording():
        for t in inputs:
            saving = saving or (t is not None and t.requires_grad)
    if saving:
        kept = []
        for t in inputs:
            kept.append(None if t is None else savable(t))
        inputs = tuple(kept)
    s.take(inputs)
    s.call.reverse = reverse
    s.clip = checked_clip(op, "clip", clip)
    s.mask = None if mask is None else checked_mask(op, mask, (<object>s.x).dtype, B, H)
    s.take_steps(steps, T, B)
    if out is None:
        out = wrap(s.new((T, B, H)))
    else:
        check_out(op, out, s.x, H)
    s.h = out._array
    s.h_T = s.new((B, H))
    s.c_T = s.new((B, H)) if s.kind.has_c else None
    s.telemetry = Telemetry() if telemetry is None else telemetry
    s.composed = composed
    s.forward(saving or trace, checkpoint and not trace)
    outputs = (out, wrap(s.h_T)) if s.c_T is None else (out, wrap(s.h_T), wrap(s.c_T))
    if saving:
        s.record(inputs, outputs)
    return (*outputs, s.trace()) if trace else outputs


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


# h, ... = the cell, step by step over x       dx, dh0, dc0, dW, dU, db, dp = the cell's rule, from
# the last step back to the first: the rule of each cell is in csrc/recurrent

def expansion(Node node not None):
    """How the op of a fused layer is computed by its cell, op by op: (function, inputs, clip), for
    ``function(*inputs, bound=clip)``. None for other ops."""
    if node.rule != sequence_rule or node.freed:
        return None
    cdef Sequence s = (<tuple>node.extra)[0]
    return None if s.composed is None else (s.composed, (<tuple>node.extra)[1], s.clip)


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
        raise RuntimeError(f"{node.name}: cannot be differentiated twice, "
                           f"since sequence was called without composed=")
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
