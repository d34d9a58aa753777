# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""What is noted of the ops that a thread records: for `mg.study.record`, and the user's line for
anomaly mode.

While a Recorder is open, each op that goes on the tape gets an Entry in it. The entries belong to
the Recorder; no Node knows of them. Closed, all of this costs nothing: the tape asks for both this
and anomaly mode by one flag.
"""
cimport numpy as cnp
from libc.math cimport isfinite, sqrt
from minigrad.core.modes cimport Mode, last_mode, studying_flag
from minigrad.core.tensor cimport Node, Output, Tensor, original

import linecache
import os
import sys
import weakref

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #include <time.h>
    static long long mg_nanoseconds(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    """
    long long mg_nanoseconds() noexcept

cdef str package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
cdef Py_ssize_t STRIP = 48          # numbers of a strip

# All that are open, in any thread: what is empty nearly always is asked for by Module and unroll.
open_recorders = []
known = weakref.WeakSet()           # all that are alive, for Node.where and the like


cdef long long nanoseconds() noexcept:
    return mg_nanoseconds()


# ---------------------------------------------------------------- the user's line

cdef dict of_user = {}              # file name -> is it outside of the package?


cdef bint is_of_user(str path) except -1:
    found = of_user.get(path)
    if found is None:
        found = path.startswith("<") or not os.path.realpath(path).startswith(package + os.sep)
        of_user[path] = found
    return found


cdef object user_frame():
    """(file, line number) of the innermost frame outside of the package; None if there is none."""
    frame = sys._getframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if is_of_user(path):
            return path, frame.f_lineno
        frame = frame.f_back
    return None


cdef str line_of(object place):
    """file:number: source."""
    if place is None:
        return "an unknown line"
    path, number = place
    return f"{path}:{number}: {linecache.getline(path, number).strip()}"


# ---------------------------------------------------------------- what is kept of an array

cdef class Summary:
    """An array in short: its least and largest number, mean and norm of those that are finite, how
    many are not, and a few of them, evenly spaced, as `strip`."""
    cdef readonly tuple shape
    cdef readonly double least, largest, mean, norm
    cdef readonly Py_ssize_t nonfinite
    cdef readonly object strip
    cdef readonly object full           # a copy of the array, if all was to be kept

    def __repr__(self):
        bad = f", {self.nonfinite} not finite" if self.nonfinite else ""
        return (f"<{self.shape}: {self.least:.3g} to {self.largest:.3g}, mean {self.mean:.3g}, "
                f"norm {self.norm:.3g}{bad}>")


ctypedef fused real:
    float
    double


cdef int sum_up(real *x, Py_ssize_t n, Summary found) noexcept:
    cdef double total = 0, squares = 0, least = 0, largest = 0, v
    cdef Py_ssize_t i, finite = 0
    for i in range(n):
        v = x[i]
        if not isfinite(v):
            continue
        if finite == 0 or v < least:
            least = v
        if finite == 0 or v > largest:
            largest = v
        total += v
        squares += v * v
        finite += 1
    found.least, found.largest = least, largest
    found.mean = total / finite if finite else 0
    found.norm = sqrt(squares)
    found.nonfinite = n - finite
    return 0


cdef Summary summary(cnp.ndarray x, bint full):
    cdef Summary found = Summary.__new__(Summary)
    cdef cnp.ndarray flat = np.ascontiguousarray(x).reshape(-1)
    cdef Py_ssize_t n = flat.shape[0]
    found.shape = (<object>x).shape
    if cnp.PyArray_TYPE(flat) == cnp.NPY_FLOAT:
        sum_up(<float *>cnp.PyArray_DATA(flat), n, found)
    else:
        sum_up(<double *>cnp.PyArray_DATA(flat), n, found)
    if n > STRIP:
        found.strip = flat[np.arange(STRIP) * n // STRIP].astype(np.float32)
    else:
        found.strip = flat.astype(np.float32)
    if full:
        found.full = np.array(x)
        found.full.flags.writeable = False
    return found


def summarised(cnp.ndarray x not None) -> Summary:
    """An array of float32 or float64 in short."""
    return summary(x, False)


# ---------------------------------------------------------------- entries

cdef class Source:
    """An input of a recorded op: made by another one (`serial`), a leaf (`leaf`), or a constant."""
    cdef readonly object serial         # of the node that made it, or None
    cdef readonly Tensor leaf           # or None
    cdef readonly tuple shape
    cdef readonly Summary values        # of a leaf or constant, if values are kept

    @property
    def kind(self):
        """"node", "leaf" or "constant"."""
        if self.serial is not None:
            return "node"
        return "constant" if self.leaf is None else "leaf"

    def __repr__(self):
        return f"<{self.kind} {self.shape}>"


cdef class Entry:
    """One op of a recording.

    Attributes:
        serial: Its rank in the order of creation; `Source.serial` of others leads here.
        name: The op's name; for one output of an op with several, with its number: lstm[0].
        scope: Names of the modules that were running, and of `mg.study.scope`, joined by "/".
        t: The step that `nn.unroll` was at; None outside of it.
        inputs: A Source for each input.
        shape: Of the output; of an op with several outputs, a tuple of their shapes.
        dtype: Of the output.
        saved_bytes: The memory of the tensors that its rule will read.
        ns: Nanoseconds since the op before it was noted, if times are kept; else None.
        backward_ns: Nanoseconds that its rule took in backward passes since, or None.
        values: A Summary of the output, if values are kept; else None.
        gradient: The same of the gradient that arrived in the last backward pass inside of the
            recording; None if none did.
    """
    cdef readonly unsigned long long serial
    cdef readonly str name
    cdef readonly str scope
    cdef readonly object t
    cdef object place
    cdef readonly tuple inputs
    cdef readonly tuple shape
    cdef readonly object dtype
    cdef readonly Py_ssize_t saved_bytes
    cdef readonly object ns
    cdef readonly object backward_ns
    cdef readonly Summary values
    cdef readonly Summary gradient

    @property
    def where(self):
        """The user's line: file, line number, source."""
        return line_of(self.place)

    @property
    def line(self):
        """(file, line number) of it, or None."""
        return self.place

    def __repr__(self):
        return f"<Entry {self.serial} {self.name} {self.shape}>"


cdef class Recorder:
    """The entries of one recording, which is open in the thread that opened it."""
    cdef object __weakref__
    cdef readonly list entries
    cdef dict by_serial
    cdef bint strips, full, times
    cdef bint alone                     # the recordings around it note nothing while it is open
    cdef list names                     # the scopes that are open
    cdef list modules                   # the modules among them, with the paths of those inside
    cdef str scope
    cdef public object t
    cdef list waiting                   # nodes that save what their rules need after they are noted
    cdef long long clock
    cdef readonly long long between     # nanoseconds of backward passes between two rules
    cdef readonly long long own         # those that taking notes itself has cost

    def __cinit__(self, bint strips, bint full, bint times, bint alone=False):
        self.entries, self.by_serial, self.waiting = [], {}, []
        self.names, self.modules = [], []
        self.scope = ""
        self.strips, self.full, self.times, self.alone = strips, full, times, alone
        known.add(self)

    def find(self, serial):
        """The entry with this serial, or None."""
        return self.by_serial.get(serial)

    def open(self):
        """Note this thread's ops from here on."""
        Mode.enter(Mode.__new__(Mode), studying_flag(), 1, self)
        open_recorders.append(self)
        self.clock = nanoseconds()

    def close(self):
        """Stop. False if another thread opened it."""
        cdef Mode mode = last_mode()
        while mode is not None and mode.owner is not self:
            mode = mode.outer
        if mode is None:
            return False
        self.finish()
        mode.leave()
        for i, recorder in enumerate(open_recorders):
            if recorder is self:
                del open_recorders[i]
                break
        return True

    def tick(self):
        """Nanoseconds since the last op, rule or tick."""
        cdef long long now = nanoseconds(), passed = now - self.clock
        self.clock = now
        return passed

    def push(self, str name not None, module=None, paths=None):
        """Begin a scope; of a module, with the paths of those inside by their id()."""
        self.names.append(name)
        self.modules.append((module, paths))
        self.scope = "/".join(self.names)

    def pop(self):
        self.names.pop()
        self.modules.pop()
        self.scope = "/".join(self.names)

    @property
    def depth(self):
        """How many scopes are open."""
        return len(self.names)

    def leave_to(self, Py_ssize_t depth):
        """End scopes until so many are open, if there are more."""
        del self.names[depth:], self.modules[depth:]
        self.scope = "/".join(self.names)

    def path_of(self, module):
        """How the innermost running module that holds `module` calls it; or None."""
        for _, paths in reversed(self.modules):
            if paths is not None and id(module) in paths:
                return paths[id(module)]
        return None

    cdef int finish(self) except -1:
        """The ops before have saved by now what their rules need."""
        cdef Node node
        for node in self.waiting:
            (<Entry>self.by_serial[node.serial]).saved_bytes = saved_bytes(node)
        self.waiting.clear()
        return 0

    cdef Entry note(self, Node node, Tensor y, object place, tuple inputs, long long now):
        cdef Entry entry = Entry.__new__(Entry)
        entry.serial, entry.name = node.serial, node.name
        entry.scope, entry.t, entry.place = self.scope, self.t, place
        entry.shape, entry.dtype = (<object>y._array).shape, y._array.dtype
        entry.inputs = inputs
        if self.strips:
            entry.values = summary(y._array, self.full)
        if self.times:
            entry.ns = now - self.clock
        self.entries.append(entry)
        self.by_serial[entry.serial] = entry
        self.waiting.append(node)
        if self.times:
            self.clock = nanoseconds()
            self.own += self.clock - now
        return entry


cdef Py_ssize_t saved_bytes(Node node) except -1:
    cdef Tensor x
    cdef Py_ssize_t total = 0
    if node.saved0 is not None:
        total += cnp.PyArray_NBYTES(node.saved0._array)
    if node.saved1 is not None:
        total += cnp.PyArray_NBYTES(node.saved1._array)
    if node.saved_further is not None:
        for x, _ in node.saved_further:
            total += cnp.PyArray_NBYTES(x._array)
    return total


cdef tuple sources(Node node, tuple inputs, bint values, bint full):
    """What the inputs are: of `inputs` the tensors, of node.slots where they come from."""
    cdef Source source
    cdef Tensor x
    cdef Py_ssize_t i
    found = []
    for i in range(len(inputs)):
        x = <Tensor>inputs[i]
        source = Source.__new__(Source)
        slot = node.slots[i]
        if x is not None:
            source.shape = (<object>x._array).shape
        if isinstance(slot, Node):
            source.serial = (<Node>slot).serial
        elif slot is not None:
            source.leaf = <Tensor>slot
        if values and source.serial is None and x is not None:
            source.values = summary(x._array, full)
        found.append(source)
    return tuple(found)


cdef list recorders():
    """Those that are open in this thread, the innermost first, up to one that is alone."""
    cdef Mode mode = last_mode()
    found = []
    while mode is not None:
        if mode.flag == studying_flag() and type(mode.owner) is Recorder:
            found.append(mode.owner)
            if (<Recorder>mode.owner).alone:
                break
        mode = mode.outer
    return found


def recorders_here() -> list:
    """The recorders that are open in this thread, the innermost first."""
    return recorders()


cdef int note_op(Node node, Tensor y, tuple inputs) except -1:
    """An op is on the tape; the caller saves what its rule needs afterwards."""
    cdef Recorder recorder
    cdef long long now = nanoseconds()
    place = user_frame()
    for recorder in recorders():
        recorder.finish()
        recorder.note(node, y, place, sources(node, inputs, recorder.strips, recorder.full), now)
    return 0


cdef int note_output(Output output, Tensor y) except -1:
    """One output of an op with several, which has been noted itself."""
    cdef Recorder recorder
    cdef Entry entry, main
    cdef Source source
    cdef long long now = nanoseconds()
    place = user_frame()
    for recorder in recorders():
        source = Source.__new__(Source)
        source.serial = output.main.serial
        entry = recorder.note(output, y, place, (source,), now)
        entry.name = f"{output.name}[{output.index}]"
        main = recorder.by_serial.get(output.main.serial)
        if main is not None:
            main.shape = (entry.shape,) if output.index == 0 else (*main.shape, entry.shape)
            source.shape = entry.shape
    return 0


cdef int note_rule(Node node, Tensor dy, long long start) except -1:
    """A node's rule has run in a backward pass, since `start`; dy is None for an op with several
    outputs. Where the rule is written in Python and its lines are timed, only what is left of it
    is the rule's."""
    cdef Recorder recorder
    cdef Entry entry
    cdef long long end = nanoseconds(), begin
    for recorder in recorders():
        recorder.finish()
        entry = recorder.by_serial.get(original(node).serial)
        if entry is None:
            continue
        begin = start if recorder.clock < start else recorder.clock
        if recorder.times:
            entry.backward_ns = (entry.backward_ns or 0) + end - begin
            recorder.between += begin - recorder.clock
        if recorder.strips and dy is not None:
            entry.gradient = summary(dy._array, recorder.full)
        recorder.clock = nanoseconds()
        recorder.own += recorder.clock - end
    return 0


def entry_of(Node node not None):
    """What a recording that is still there knows of a node; or None."""
    for recorder in known:
        entry = recorder.find(original(node).serial)
        if entry is not None:
            return entry
    return None
