# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""What is noted of the ops that a thread records: for `mg.study.record`, and the user's line for
anomaly mode.

While a Recorder is open, each op that goes on the tape gets an Entry in it. The entries belong to
the Recorder; no Node knows of them. Closed, all of this costs nothing: the tape asks for both this
and anomaly mode by one flag.

Recorders and scopes are Modes of a thread. They may be nested, and end in any order, as those do
that are open in generators.
"""
cimport cython
cimport numpy as cnp
from cpython.object cimport PyObject
from libc.math cimport fabs, fmax, isfinite, sqrt
from minigrad.core.array cimport PyArray_CHKFLAGS
from minigrad.core.modes cimport Mode, last_mode, scope_flag, studying_flag
from minigrad.core.tensor cimport Node, Output, Tensor, Version, original

import itertools
import linecache
import os
import sys
import threading
import weakref

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

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *) noexcept
    int PyObject_GC_IsTracked(PyObject *) noexcept

cdef str package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
cdef Py_ssize_t STRIP = 48          # numbers of a strip
# Between these, a sum of squares has lost nothing to overflow or to subnormal numbers.
cdef double TINY = 1e-280, HUGE = 1e300

# All that are open, in any thread: what is empty nearly always is asked for by Module and unroll.
open_recorders = []
# All that are alive, in the order in which they were made, for Node.where and the like.
known = weakref.WeakValueDictionary()
cdef object numbers = itertools.count()


cdef long long nanoseconds() noexcept:
    return mg_nanoseconds()


# ---------------------------------------------------------------- the user's line

cdef dict of_user = {}              # file name -> is it outside of the package?
cdef dict places = {}               # (file name, line number) -> itself: one tuple for each line


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
            place = path, frame.f_lineno
            return places.setdefault(place, place)
        frame = frame.f_back
    return None


cdef str line_of(object place):
    """file:number: source."""
    if place is None:
        return "an unknown line"
    path, number = place
    return f"{path}:{number}: {linecache.getline(path, number).strip()}"


# ---------------------------------------------------------------- what is kept of an array

@cython.no_gc
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


cdef void sum_up(real *x, Py_ssize_t n, Summary found) noexcept:
    cdef double total = 0, squares = 0, least = 0, largest = 0, v, size
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
    found.nonfinite = n - finite
    found.mean = total / finite if finite else 0
    found.norm = sqrt(squares)
    size = fmax(fabs(least), fabs(largest))
    if size > 0 and not TINY < squares < HUGE:
        sum_up_scaled(x, n, finite, size, found)


cdef void sum_up_scaled(real *x, Py_ssize_t n, Py_ssize_t finite, double size,
                        Summary found) noexcept:
    """Mean and norm where squares overflow or vanish: those of x / size, times size."""
    cdef double total = 0, squares = 0, v
    cdef Py_ssize_t i
    for i in range(n):
        if isfinite(x[i]):
            v = x[i] / size
            total += v
            squares += v * v
    found.mean = size * (total / finite)
    found.norm = size * sqrt(squares)


cdef void pick(real *x, Py_ssize_t n, real *strip, Py_ssize_t width) noexcept:
    """`width` of n numbers, evenly spaced."""
    cdef Py_ssize_t i
    for i in range(width):
        strip[i] = x[i * n // width]


cdef Summary summary(cnp.ndarray x, bint full):
    cdef Summary found = Summary.__new__(Summary)
    cdef cnp.ndarray flat = x
    if not PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS):
        flat = cnp.PyArray_GETCONTIGUOUS(x)
    cdef cnp.npy_intp n = cnp.PyArray_SIZE(flat), width = min(n, STRIP)
    cdef int typenum = cnp.PyArray_TYPE(flat)
    cdef cnp.ndarray strip = cnp.PyArray_SimpleNew(1, &width, typenum)
    cdef void *numbers = cnp.PyArray_DATA(flat)
    cdef void *picked = cnp.PyArray_DATA(strip)
    found.shape = (<object>x).shape
    if typenum == cnp.NPY_FLOAT:
        sum_up(<float *>numbers, n, found)
        pick(<float *>numbers, n, <float *>picked, width)
    else:
        sum_up(<double *>numbers, n, found)
        pick(<double *>numbers, n, <double *>picked, width)
    found.strip = strip
    if full:
        found.full = cnp.PyArray_NewCopy(x, cnp.NPY_CORDER)
        cnp.PyArray_CLEARFLAGS(found.full, cnp.NPY_ARRAY_WRITEABLE)
    return found


def summarised(cnp.ndarray x not None) -> Summary:
    """An array of float32 or float64 in short."""
    return summary(x, False)


# ---------------------------------------------------------------- entries
#
# Of a long recording, most entries cannot be part of a reference cycle. These are not tracked by
# Python's collector, which would go through all of them again and again. A leaf can be: its hooks
# may hold anything.

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
        serial: Its rank in the order of creation; `Source.serial` of others leads here, and
            `Recording.entry` from there.
        name: The op's name; for one output of an op with several, with its number: lstm[0].
        scope: Names of the modules that were running, and of `mg.study.scope`, joined by "/"; ""
            outside of all.
        t: The step that `nn.unroll` was at; None outside of it.
        inputs: A Source for each input.
        shape: Of the output; of an op with several outputs, a tuple of their shapes.
        dtype: Of the output.
        saved_bytes: The memory of the arrays that its rule will read: what is in `Node.saved`, and
            others, such as the gates of a fused layer. What several ops save is counted in each.
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


cdef class Scope(Mode):
    """A name that what is recorded meanwhile is given, and a time step, for as long as it is open
    in its thread."""
    cdef str name
    cdef object module          # the module that runs, or None
    cdef dict paths             # of the modules inside of it, by id(): made when one is looked up
    cdef str path               # all names that are open, the outermost first: made when asked for
    cdef object t               # the time step, or None: that of the scope around it

    cdef int end(self) except -1:
        """Close it. Nothing, in another thread."""
        cdef Mode mode = last_mode()
        while mode is not None and mode is not self:
            mode = mode.outer
        if mode is not None:
            forget_paths(self)
            self.leave()
        return 0

    cdef object path_inside(self, module):
        """How the module that runs here calls another one that it holds; else None."""
        if self.module is None:
            return None
        if self.paths is None:
            self.paths = self.module._paths_inside()
        return self.paths.get(id(module))


cdef Scope new_scope(str name, object owner, object module):
    cdef Scope scope = Scope.__new__(Scope)
    scope.name, scope.module = name, module
    scope.enter(scope_flag(), 1, owner)
    return scope


def open_scope(str name not None, owner) -> None:
    """Begin a scope of this thread, until `close_scope` of the same owner."""
    new_scope(name, owner, None)


def close_scope(owner) -> None:
    """Close the last scope that `owner` has opened in this thread, if there is one."""
    cdef Mode mode = last_mode()
    while mode is not None and not (type(mode) is Scope and mode.owner is owner):
        mode = mode.outer
    if mode is not None:
        (<Scope>mode).end()


cdef class OpenScope:
    """A scope of this thread that is open until `end`; or, where Ctrl-C comes in between, for as
    long as this object is there."""
    cdef Scope scope

    def __init__(self, str name not None, module=None):
        self.scope = new_scope(name, None, module)

    def __dealloc__(self):
        if self.scope is not None:
            self.scope.end()

    def note_time(self, t):
        """What is recorded from here on belongs to this step."""
        self.made().t = t

    def end(self):
        self.made().end()

    cdef Scope made(self):
        if self.scope is None:
            raise RuntimeError("OpenScope was made without __init__")
        return self.scope


cdef void forget_paths(Mode gone) noexcept:
    """The paths of the scopes inside of what is about to end are no longer what they were."""
    cdef Mode mode = last_mode()
    while mode is not gone:
        if type(mode) is Scope:
            (<Scope>mode).path = None
        mode = mode.outer


def name_of_module(module) -> str:
    """How the innermost running module that holds it calls it; or the name of its class."""
    cdef Mode mode = last_mode()
    while mode is not None and not is_alone(mode):
        if type(mode) is Scope:
            path = (<Scope>mode).path_inside(module)
            if path is not None:
                return path
        mode = mode.outer
    return type(module).__name__


def is_studied() -> bool:
    """Is a recording open in this thread?"""
    return studying_flag()[0]


cdef class Recorder:
    """The entries of one recording, which is open in the thread that opened it."""
    cdef object __weakref__
    cdef list noted
    cdef dict by_serial
    cdef bint strips, full, times
    cdef bint alone                     # the recordings around it note nothing while it is open
    cdef dict leaves                    # id() -> changes of its memory, its Source
    cdef list waiting                   # nodes that save what their rules need after they are noted
    cdef object thread                  # the one that opened it last
    cdef long long clock
    cdef readonly long long between     # nanoseconds of backward passes between two rules
    cdef readonly long long own         # those that taking notes itself has cost

    def __cinit__(self, bint strips, bint full, bint times, bint alone=False):
        self.noted, self.by_serial, self.waiting, self.leaves = [], {}, [], {}
        self.strips, self.full, self.times, self.alone = strips, full, times, alone
        known[next(numbers)] = self

    @property
    def entries(self):
        """All of them, in the order in which the ops ran."""
        if self.waiting and self.thread == threading.get_ident():
            self.finish()
        return self.noted

    def find(self, serial):
        """The entry with this serial, or None."""
        if self.waiting and self.thread == threading.get_ident():
            self.finish()
        return self.by_serial.get(serial)

    def open(self):
        """Note this thread's ops from here on."""
        Mode.enter(Mode.__new__(Mode), studying_flag(), 1, self)
        open_recorders.append(self)
        self.thread = threading.get_ident()
        self.clock = nanoseconds()

    def close(self):
        """Stop. False if another thread opened it."""
        cdef Mode mode = last_mode()
        while mode is not None and mode.owner is not self:
            mode = mode.outer
        if mode is None:
            return False
        self.finish()
        forget_paths(mode)
        mode.leave()
        open_recorders.remove(self)
        return True

    def tick(self):
        """Nanoseconds since the last op, rule or tick."""
        cdef long long now = nanoseconds(), passed = now - self.clock
        self.clock = now
        return passed

    cdef int finish(self) except -1:
        """The ops before have saved by now what their rules need."""
        cdef Node node
        for node in self.waiting:
            (<Entry>self.by_serial[node.serial]).saved_bytes = saved_bytes(node)
        self.waiting.clear()
        return 0

    cdef Source source_of_leaf(self, Tensor leaf, Tensor x):
        """The Source of a leaf, x as the op sees it. A leaf that is read again, such as the weights
        of a cell, has the same one unless it has changed; entries keep it alive, and so its id().
        """
        cdef Version version = x.version
        cdef Source source
        count = 0 if version is None else version.count
        known_count, source = self.leaves.get(id(leaf), (None, None))
        if source is not None and (
                not self.strips or known_count == count and not (version and version.foreign)):
            return source
        source = Source.__new__(Source)
        source.shape, source.leaf = (<object>x._array).shape, leaf
        if self.strips:
            source.values = summary(x._array, self.full)
        self.leaves[id(leaf)] = (count, source)
        return source

    cdef Entry note(self, Node node, Tensor y, Here here, tuple inputs, long long now):
        cdef Entry entry = Entry.__new__(Entry)
        entry.serial, entry.name = node.serial, node.name
        entry.scope, entry.t, entry.place = here.scope, here.t, here.line
        entry.shape, entry.dtype = (<object>y._array).shape, y._array.dtype
        entry.inputs = inputs
        if not PyObject_GC_IsTracked(<PyObject *>inputs):
            PyObject_GC_UnTrack(<PyObject *>entry)
        if self.strips:
            entry.values = summary(y._array, self.full)
        if self.times:
            entry.ns = now - self.clock
        self.noted.append(entry)
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
    if node.outputs is not None and hasattr(type(node.extra[0]), "own_bytes"):
        return total + node.extra[0].own_bytes()        # a fused layer
    return total if node.extra is None else total + bytes_in(node.extra)


cdef Py_ssize_t bytes_in(object extra) except -1:
    """The memory of the arrays in Node.extra."""
    cdef Py_ssize_t total = 0
    if isinstance(extra, cnp.ndarray):
        return cnp.PyArray_NBYTES(extra)
    if isinstance(extra, Tensor):
        return cnp.PyArray_NBYTES((<Tensor>extra)._array)
    if type(extra) is tuple:
        for part in <tuple>extra:
            total += bytes_in(part)
    return total


cdef tuple sources(Recorder recorder, Node node, tuple inputs):
    """What the inputs are: of `inputs` the tensors, of node.slots where they come from."""
    cdef Tensor x
    cdef Py_ssize_t i
    cdef bint leaves = False
    found = []
    for i in range(len(inputs)):
        x = <Tensor>inputs[i]
        slot = node.slots[i]
        if slot is None or isinstance(slot, Node):
            found.append(source_of(recorder, <Node>slot, x))
        else:
            leaves = True
            found.append(recorder.source_of_leaf(<Tensor>slot, x))
    made = tuple(found)
    if not leaves:
        PyObject_GC_UnTrack(<PyObject *>made)
    return made


cdef Source source_of(Recorder recorder, Node node, Tensor x):
    """The Source of what a node made; of a constant, if it is None."""
    cdef Source source = Source.__new__(Source)
    PyObject_GC_UnTrack(<PyObject *>source)
    if x is not None:
        source.shape = (<object>x._array).shape
    if node is not None:
        source.serial = node.serial
    elif recorder.strips and x is not None:
        source.values = summary(x._array, recorder.full)
    return source


# ---------------------------------------------------------------- where a thread is

cdef inline bint is_recorder(Mode mode) noexcept:
    return type(mode.owner) is Recorder


cdef inline bint is_alone(Mode mode) noexcept:
    return is_recorder(mode) and (<Recorder>mode.owner).alone


@cython.no_gc
@cython.freelist(4)
cdef class Here:
    """What is open in this thread, up to a recorder that is alone: recorders, the innermost first;
    the path of the scopes; the time step; the user's line."""
    cdef list recorders
    cdef str scope
    cdef object t
    cdef object line


cdef Here here():
    cdef Here found = Here.__new__(Here)
    cdef Mode mode = last_mode()
    cdef Scope inner = None
    found.recorders = []
    while mode is not None:
        if type(mode) is Scope:
            if inner is None:
                inner = <Scope>mode
            if found.t is None:
                found.t = (<Scope>mode).t
        elif is_recorder(mode):
            found.recorders.append(mode.owner)
            if (<Recorder>mode.owner).alone:
                break
        mode = mode.outer
    found.scope = "" if inner is None else path_of(inner)
    return found


cdef str path_of(Scope scope):
    """The names of the scopes that are open, joined by "/"."""
    if scope.path is not None:
        return scope.path
    cdef Mode mode = scope
    names = []
    while mode is not None and not is_alone(mode):
        if type(mode) is Scope:
            names.append((<Scope>mode).name)
        mode = mode.outer
    scope.path = "/".join(names[::-1])
    return scope.path


cdef int note_op(Node node, Tensor y, tuple inputs) except -1:
    """An op is on the tape; the caller saves what its rule needs afterwards."""
    cdef Recorder recorder
    cdef long long now = nanoseconds()
    cdef Here place = here()
    place.line = user_frame()
    for recorder in place.recorders:
        recorder.finish()
        recorder.note(node, y, place, sources(recorder, node, inputs), now)
    return 0


cdef int note_output(Output output, Tensor y) except -1:
    """One output of an op with several, which has been noted itself."""
    cdef Recorder recorder
    cdef Entry entry, main
    cdef Source source
    cdef long long now = nanoseconds()
    cdef Here place = here()
    place.line = user_frame()
    for recorder in place.recorders:
        source = source_of(recorder, output.main, None)
        inputs = (source,)
        PyObject_GC_UnTrack(<PyObject *>inputs)
        entry = recorder.note(output, y, place, inputs, now)
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
    for recorder in here().recorders:
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
    """What the newest recording that is still there knows of a node; or None."""
    for ref in reversed(known.valuerefs()):
        recorder = ref()
        entry = None if recorder is None else recorder.find(original(node).serial)
        if entry is not None:
            return entry
    return None
