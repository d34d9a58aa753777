# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The modes of a thread: is it recording, does it look for the first non-finite value, does
`mg.study.record` note its ops, and is a scope open that names them?"""
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from *:
    """
    static _Thread_local int mg_recording = 1;
    static _Thread_local int mg_anomaly = 0;
    static _Thread_local int mg_studying = 0;
    static _Thread_local int mg_scope = 0;
    /* The last change of one of them: a Mode, owned. */
    static _Thread_local PyObject *mg_modes = NULL;
    """
    int mg_recording
    int mg_anomaly
    int mg_studying
    int mg_scope
    PyObject *mg_modes


cdef bint recording() noexcept:
    return mg_recording


cdef int checking() noexcept:
    return mg_anomaly | mg_studying << 1


cdef int *recording_flag() noexcept:
    return &mg_recording


cdef int *studying_flag() noexcept:
    return &mg_studying


cdef int *scope_flag() noexcept:
    return &mg_scope


cdef Mode last_mode():
    return <Mode>mg_modes if mg_modes != NULL else None


cdef class Mode:
    """One change of a mode of this thread for as long as it lasts.

    The changes of a thread are a linked list, the last one first. They end in any order: contexts
    that are open in generators do. The one that ends leaves the list; if a later change of the same
    mode is still in force, that one inherits what comes back in the end.
    """

    cdef int enter(self, int *flag, int value, object owner) except -1:
        global mg_modes
        self.flag = flag
        self.before = flag[0]
        self.owner = owner
        if mg_modes != NULL:
            self.outer = <Mode>mg_modes
            Py_DECREF(self.outer)       # of the two references, one was the list's
        flag[0] = value
        Py_INCREF(self)
        mg_modes = <PyObject *>self
        return 0

    cdef void leave(self) noexcept:
        global mg_modes
        cdef Mode mode = <Mode>mg_modes, later = None, above = None
        while mode is not self:
            above = mode
            if mode.flag == self.flag:
                later = mode
            mode = mode.outer
        if later is None:
            self.flag[0] = self.before
        else:
            later.before = self.before
        if above is not None:
            above.outer = self.outer
            self.outer = None
            return
        if self.outer is None:
            mg_modes = NULL
        else:
            Py_INCREF(self.outer)
            mg_modes = <PyObject *>self.outer
        self.outer = None
        Py_DECREF(self)


class _Context:
    """Changes a mode of this thread for a `with` block, or for what is decorated: a function, a
    generator function, an async function. May be used again, inside of itself too, and by several
    threads."""

    def __new__(cls, function=None):
        context = super().__new__(cls)
        return context if function is None else context(function)

    def __enter__(self):
        cdef Mode mode = Mode.__new__(Mode)
        if self._anomaly:
            mode.enter(&mg_anomaly, 1, self)
        else:
            mode.enter(&mg_recording, self._recording, self)
        return self

    def __exit__(self, *exception):
        """End the last change that this context made in this thread. (None, if a generator that
        holds the context open is ended by another thread.)"""
        cdef Mode mode = <Mode>mg_modes if mg_modes != NULL else None
        while mode is not None and mode.owner is not self:
            mode = mode.outer
        if mode is not None:
            mode.leave()

    def __call__(self, function):
        from minigrad.core.decorate import in_context
        return in_context(type(self), function)


class detect_anomaly(_Context):
    """A context, or decorator, in which each op that this thread records is checked, forward and
    backward; the first non-finite value is a RuntimeError that names the op and the user's line.
    Buffers that were saved are checksummed too. Slow: for finding a fault.

    Args:
        function: What `@mg.detect_anomaly` decorates. Default: None.

    Raises:
        TypeError: `function` is a class or cannot be called.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0, 0.0], requires_grad=True)
    >>> with mg.detect_anomaly():           # doctest: +ELLIPSIS
    ...     y = mg.log(x)
    Traceback (most recent call last):
    RuntimeError: anomaly: log made the first non-finite value, of shape (2,), at ...y = mg.log(x)
    """
    _anomaly = True


class no_grad(_Context):
    """A context, or decorator, in which this thread records nothing.

    As a decorator it is written with or without brackets, ``@mg.no_grad()`` or ``@mg.no_grad``,
    before a function, a generator function or an async function; a class is a TypeError.

    Args:
        function: What `@mg.no_grad` decorates. Default: None.

    Raises:
        TypeError: `function` is a class or cannot be called.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0], requires_grad=True)
    >>> with mg.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """
    _anomaly, _recording = False, 0


class enable_grad(_Context):
    """The opposite of no_grad: records again inside of it.

    Args:
        function: What `@mg.enable_grad` decorates. Default: None.

    Raises:
        TypeError: `function` is a class or cannot be called.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0], requires_grad=True)
    >>> with mg.no_grad():
    ...     with mg.enable_grad():
    ...         print((x * 2).requires_grad)
    True
    """
    _anomaly, _recording = False, 1


def is_grad_enabled() -> bool:
    """Is recording on in this thread?

    >>> import minigrad as mg
    >>> with mg.no_grad():
    ...     mg.is_grad_enabled()
    False
    """
    return bool(mg_recording)
