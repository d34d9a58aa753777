# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""What a Node tells of itself: what it saved, what its rule computes, the op's parameters; and what
a recording (recording.pyx) knows of it."""
cimport numpy as cnp
from minigrad.core.tape cimport already_freed, changed_since, python_rule
from minigrad.core.tensor cimport DETACHED, Node, Output, Tensor, version_of, wrap

from minigrad.core.recording import entry_of
from minigrad.core.tensor import install

cnp.import_array()


cdef Tensor alias_of(Node node, Tensor x, long version):
    """A saved tensor as others may see it: the same memory, read-only, without its history."""
    if x is None:
        return None
    if x.version.count != version:
        raise changed_since(node, x, version)
    view = x._array.view()
    view.flags.writeable = False
    cdef Tensor alias = wrap(view)
    alias.version = version_of(x)
    alias.seen = DETACHED
    return alias


def saved_of(Node node not None) -> tuple:
    """The tensors that the rule will read, as read-only aliases; None for one that was left out,
    since no input wants the gradient that needs it."""
    cdef Tensor x
    cdef long version
    if node.freed:
        raise already_freed(node)
    found = [alias_of(node, node.saved0, node.version0), alias_of(node, node.saved1, node.version1)]
    if node.saved_further is not None:
        for x, version in node.saved_further:
            found.append(alias_of(node, x, version))
    while found and found[len(found) - 1] is None:
        found.pop()
    return tuple(found)


def rule_of(Node node not None):
    """What the rule computes, as a Rule with the fields text, file and line; None if its source is
    not there."""
    from minigrad.core.rules import rule_in_python, rule_named  # reads the source: only on demand
    if type(node) is Output:
        return rule_named("output_rule")
    if node.rule == python_rule and node.extra is not None:
        return rule_in_python((<tuple>node.extra)[0], node.name)
    return rule_named(node.name)


def output_index(Node node not None):
    """For one output of an op with several, its number; else None."""
    return (<Output>node).index if type(node) is Output else None


install("saved", property(saved_of, doc=saved_of.__doc__), Node)
install("rule", property(rule_of, doc=rule_of.__doc__), Node)


# ---------------------------------------------------------------- the op's parameters

# What the parts of Node.extra mean, by the op's name.
cdef dict PARAMETERS = {
    "index": ("index", "input_shape"),
    "split": ("index", "input_shape"),
    "embedding": ("rows", "weight_shape"),
    "put": ("index",),
    "assignment": ("index", "value_shape", None),
    "sum": ("input_shape", "axis"),
    "mean": ("input_shape", "axis", "count"),
    "spread": ("axis", "keepdims"),
    "var": ("axis", None),
    "prod": ("axis",),
    "max": ("axis",),
    "min": ("axis",),
    "logsumexp": ("axis",),
    "softmax": ("axis",),
    "softmax_grad": ("axis",),
    "log_softmax": ("axis",),
    "log_softmax_grad": ("axis",),
    "reshape": ("input_shape",),
    "squeeze": ("input_shape",),
    "unsqueeze": ("input_shape",),
    "broadcast_to": ("input_shape",),
    "transpose": ("axes", None),
    "swapaxes": ("axis1", "axis2"),
    "flip": ("axes",),
    "pad": ("inside",),
    "cumsum": ("axis",),
    "astype": ("input_dtype",),
    "concatenate": ("axis", "ends"),
    "stack": ("axis",),
    "where": ("a_shape", "b_shape", "condition"),
    "clip": ("within",),
    "addmm": ("start_shape",),
    "cross_entropy": ("target", None),
    "cross_entropy_grad": ("target", None),
    "chosen": ("target", "input_shape"),
    "placed": ("target",),
    "view": ("place",),
    "+=": ("place", "value_shape"),
    "-=": ("place", "value_shape"),
    "*=": ("place", "value_shape"),
    "/=": ("place", "value_shape"),
    "**=": ("place", "value_shape"),
    "@=": ("place", "value_shape"),
}
cdef tuple BROADCAST = ("a_shape", "b_shape")       # of pairs that were broadcast


cdef object seen_only(object value):
    """A parameter as others may see it: arrays read-only."""
    if isinstance(value, cnp.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    if type(value) is tuple:
        parts = []
        for part in value:
            parts.append(seen_only(part))
        return tuple(parts)
    return value


def details_of(Node node not None) -> dict:
    """The op's parameters by name, such as the axis of a sum, shapes that were broadcast, or the
    sizes and options of a recurrent layer; arrays are read-only. Empty where there are none. Of an
    op that was recorded from Python, what `mg.record` was given as details."""
    if node.freed:
        raise already_freed(node)
    extra = node.extra
    if node.rule == python_rule:
        return {} if extra is None or extra[3] is None else dict(extra[3])
    names = PARAMETERS.get(node.name, BROADCAST)
    if extra is None:
        return {"axis": None} if names == ("axis",) else {}
    if type(extra) is tuple and extra and hasattr(extra[0], "details"):
        return extra[0].details()
    values = extra if len(names) > 1 else (extra,)
    found = {}
    for name, value in zip(names, values):
        if name is not None:
            found[name] = seen_only(value)
    return found


# ---------------------------------------------------------------- what a recording knows

def where_of(Node node not None):
    """The user's line that made it: file, line number, source. Known of nodes that were made inside
    of `mg.study.record` or `mg.detect_anomaly`; else None."""
    if node.line is not None:
        return node.line
    entry = entry_of(node)
    return None if entry is None else entry.where


def scope_of(Node node not None):
    """The modules that were running when it was made, and names from `mg.study.scope`, joined by
    "/". Known of nodes that were made inside of `mg.study.record`; else None."""
    entry = entry_of(node)
    return None if entry is None else entry.scope


def time_of(Node node not None):
    """The step of `nn.unroll` in which it was made; None outside of one, and of nodes that were
    not made inside of `mg.study.record`."""
    entry = entry_of(node)
    return None if entry is None else entry.t


def own_output_of(Node node not None) -> Tensor:
    """The op's output as a read-only alias, where the node saved it for its rule; else None."""
    if node.own_outputs == 1 and node.outputs is None and not node.freed:
        return alias_of(node, node.saved0, node.version0)
    return None


def shape_of(Node node not None):
    """The shape of the op's output; of an op with several, a tuple of shapes. Known of nodes that
    saved their output, or were made inside of `mg.study.record`; else None."""
    entry = entry_of(node)
    if entry is not None:
        return entry.shape
    cdef Tensor y = own_output_of(node)
    return None if y is None else y.shape


def dtype_of(Node node not None):
    """The dtype of the op's output. Known of nodes that saved a tensor, or were made inside of
    `mg.study.record`; else None."""
    entry = entry_of(node)
    if entry is not None:
        return entry.dtype
    if node.rule == python_rule and node.own_outputs == 0:
        return None                     # what it saved may be of any dtype
    cdef Tensor x = node.saved0 if node.saved0 is not None else node.saved1
    return None if x is None else x._array.dtype


def install_all() -> None:
    """Give Node these properties."""
    for name, of in (("saved", saved_of), ("rule", rule_of), ("details", details_of),
                     ("where", where_of), ("scope", scope_of), ("t", time_of),
                     ("shape", shape_of), ("dtype", dtype_of)):
        install(name, property(of, doc=of.__doc__), Node)


install_all()
