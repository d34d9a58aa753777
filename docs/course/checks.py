"""What the exercises of the course are checked for: a list of functions for each exercise. A check
raises Wrong with what was expected, what came, and a hint. Oracles are independent of the code that
the course shows: complex steps, differences, and minigrad itself."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import engine
import numpy as np

import minigrad as mg


class Wrong(Exception):
    """What is wrong, in words for the student."""


def wrong(expected, came, hint):
    with np.printoptions(precision=4, threshold=20, suppress=True):
        return Wrong(f"expected: {expected}\ncame:     {came}\nhint: {hint}")


def close(a, b, tolerance=1e-8):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance)


def the(names, name):
    """What the student has defined under a name."""
    if name not in names:
        raise Wrong(f"hint: define {name}, as the stub does")
    return names[name]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def is_one_of(came, candidates):
    """The hint of the first known mistake whose result came out, or None."""
    return next((hint for value, hint in candidates if close(came, value)), None)


# ---------------------------------------------------------------- 1: the graph


def small_graph():
    a, b = engine.Node(2.0), engine.Node(3.0)
    m = engine.Node(6.0, (a, b))
    s = engine.Node(8.0, (m, a))
    return a, b, m, s


def order_has_all(names):
    """every node is listed once"""
    a, b, m, s = small_graph()
    found = the(names, "order")(s)
    if not isinstance(found, list):
        raise wrong("a list", type(found).__name__, "return a list of Nodes")
    if len(found) > 4:
        raise wrong(
            "4 nodes",
            f"{len(found)} nodes",
            "a is used twice, but it is one node: remember which nodes you have listed",
        )
    if len(found) < 4 or {id(x) for x in found} != {id(x) for x in (a, b, m, s)}:
        raise wrong(
            "the 4 nodes of s = a b + a",
            f"{len(found)} nodes",
            "go to all inputs of a node, not only to the first, and list leaves too",
        )


def order_is_right(names):
    """inputs come before what is made of them"""
    *_, s = small_graph()
    found = the(names, "order")(s)
    place = {id(node): k for k, node in enumerate(found)}
    for node in found:
        for x in node.inputs:
            if place[id(x)] > place[id(node)]:
                raise wrong(
                    "inputs first",
                    "a node before one of its inputs",
                    "put a node into the list only when all its inputs are in it",
                )


def order_of_a_long_chain(names):
    """a chain of 20,000 nodes"""
    node = engine.Node(0.0)
    for _ in range(20_000):
        node = engine.Node(0.0, (node,))
    if len(the(names, "order")(node)) != 20_001:
        raise Wrong("hint: the chain has 20,001 nodes")


def order_of_many_ways(names):
    """60 nodes that are each used twice by the next"""
    node = engine.Node(0.0)
    for _ in range(60):
        node = engine.Node(0.0, (node, node))
    if len(the(names, "order")(node)) != 61:
        raise Wrong("hint: the graph has 61 nodes: remember which nodes you have listed")


# ---------------------------------------------------------------- 2: recording


def gradient_by_complex_step(f, x, k):
    step = [np.asarray(value, complex) for value in x]
    step[k] = step[k] + 1e-30j
    return f(*step).imag / 1e-30


def recorded(names, name, f, arguments, hints):
    """Value, tape and rule of an op."""
    engine.tape.clear()
    nodes = [engine.Node(x) for x in arguments]
    z = the(names, name)(*nodes)
    if not isinstance(z, engine.Node):
        raise wrong("a Node", type(z).__name__, "return what record returns")
    if not close(z.value, f(*arguments)):
        raise wrong(f(*arguments), z.value, f"this is not the value of {name}")
    if engine.tape != [z]:
        raise wrong("one node on the tape", len(engine.tape), "put the op on the tape by record")
    if z.inputs != tuple(nodes):
        raise wrong("the arguments as inputs", z.inputs, "hand the inputs to record, in order")
    dz = np.array([0.5, -2.0, 3.0])
    gradients = z.rule(dz)
    if not isinstance(gradients, list) or len(gradients) != len(nodes):
        raise wrong("a list with a gradient for each input", gradients, "a rule returns a list")
    for k, came in enumerate(gradients):
        expected = dz * gradient_by_complex_step(f, arguments, k)
        if not close(came, expected):
            hint = is_one_of(came, hints(dz, arguments, k)) or "check the derivative"
            raise wrong(expected, came, hint)


def records_mul(names):
    """mul: value, node and rule"""

    def hints(dz, x, k):
        return [
            (dz * x[k], "the gradient of a factor is dz times the OTHER factor"),
            (x[1 - k], "by the chain rule, multiply by dz, what arrives from above"),
            (dz, "this is the rule of a sum"),
        ]

    recorded(names, "mul", lambda a, b: a * b, (random(3), random(3, seed=1)), hints)


def records_tanh(names):
    """tanh: value, node and rule"""

    def hints(dz, x, k):
        y = np.tanh(x[0])
        return [
            (dz * (1 - y), "the derivative is 1 - y², with the square"),
            (dz * (1 - x[0] ** 2), "y in 1 - y² is the value of tanh, not its argument"),
            (1 - y**2, "by the chain rule, multiply by dz, what arrives from above"),
        ]

    recorded(names, "tanh", np.tanh, (random(3),), hints)


# ---------------------------------------------------------------- 3: the sweep


def mul(a, b):
    return engine.record(a.value * b.value, (a, b), lambda dz: [dz * b.value, dz * a.value])


def add(a, b):
    return engine.record(a.value + b.value, (a, b), lambda dz: [dz, dz])


def swept(names, z):
    found = the(names, "sweep")(z, list(engine.tape))
    if not isinstance(found, dict):
        raise wrong("a dict: Node -> gradient", type(found).__name__, "return a dict")
    return found


def sweeps_a_line(names):
    """one op after the other"""
    engine.tape.clear()
    a, b, c = engine.Node(2.0), engine.Node(3.0), engine.Node(4.0)
    z = mul(mul(a, b), c)
    found = swept(names, z)
    for node, expected, name in ((a, 12.0, "a"), (b, 8.0, "b"), (c, 6.0, "c"), (z, 1.0, "z")):
        came = found.get(node)
        if came is None or not close(came, expected):
            hint = "the gradient of z with respect to itself is 1: begin with that"
            if name != "z" and close(found.get(z, 0), 1.0):
                hint = "go from the newest node of the tape to the oldest"
            raise wrong(f"{expected} for {name} of z = a b c", came, hint)


def sweeps_the_diamond(names):
    """a node that is used twice"""
    engine.tape.clear()
    a, b = engine.Node(2.0), engine.Node(3.0)
    z = add(mul(a, b), mul(a, a))
    came = swept(names, z).get(a)
    if came is None or not close(came, 7.0):
        hint = "check each rule by hand"
        if came is not None and (close(came, 4.0) or close(came, 2.0) or close(came, 3.0)):
            hint = "several ways lead to a: a gradient that arrives is ADDED to what is there"
        raise wrong("7.0 for a of z = a b + a a", came, hint)


def sweeps_only_what_counts(names):
    """nodes that the result was not made of"""
    engine.tape.clear()
    a, b = engine.Node(2.0), engine.Node(3.0)
    z = mul(a, b)
    other = mul(z, z)
    try:
        found = swept(names, z)
    except (KeyError, TypeError) as error:
        raise Wrong(
            f"came:     {type(error).__name__}: {error}\nhint: a node of the tape without a "
            "gradient does not count for z: skip it"
        ) from None
    if other in found and not close(found[other], 0.0):
        raise wrong(
            "no gradient for a later node", found[other], "begin at z, not at the last node"
        )


def sweeps_many_ways(names):
    """2⁶⁰ ways through 60 nodes"""
    engine.tape.clear()
    a = z = engine.Node(1.0)
    for _ in range(60):
        z = add(z, z)
    came = swept(names, z).get(a)
    if came is None or not close(came, 2.0**60):
        raise wrong(2.0**60, came, "visit each node of the tape once")


def sweep_keeps_gradients(names):
    """gradients that arrive are not changed"""
    engine.tape.clear()
    a, b = engine.Node([1.0, 2.0]), engine.Node([3.0, 4.0])
    s = add(a, b)
    z = add(s, a)
    found = swept(names, z)
    if not (close(found.get(a), [2.0, 2.0]) and close(found.get(b), [1.0, 1.0])):
        raise wrong(
            "[2 2] for a and [1 1] for b of z = (a + b) + a",
            (found.get(a), found.get(b)),
            "add in a new array, not by +=: the rule of a sum gives both inputs the SAME array",
        )


# ---------------------------------------------------------------- 4: broadcasting


def unbroadcasts(names):
    """shapes of one to three dimensions"""
    cases = [((4, 3), (3,)), ((4, 3), (4, 1)), ((4, 3), (1, 3)), ((2, 4, 3), (4, 3)), ((4, 3), ())]
    for big, small in [*cases, ((2, 4, 3), (1, 4, 1)), ((4, 3), (4, 3))]:
        dz = random(*big)
        came = the(names, "unbroadcast")(dz.copy(), small)
        x = mg.Tensor(np.zeros(small), requires_grad=True)
        (x * mg.ones(big, "float64")).backward(mg.Tensor(dz))
        expected = x.grad.numpy()
        if not close(came, expected):
            shape = np.shape(came)
            hint = "sum over the axes that were repeated, and over no others"
            if shape != small:
                hint = "the result has the shape of what was broadcast: axes of length 1 stay"
            elif close(came, expected * np.prod(small or 1) / np.prod(big)):
                hint = "each copy was used: the gradients are summed, not averaged"
            raise wrong(f"{expected} for {big} to {small}", came, hint)


# ---------------------------------------------------------------- 5: the linear layer


def linear_gradients(names):
    """dx, dW and db of y = x W + b"""
    x, W, dy = random(5, 4), random(4, 4, seed=1), random(5, 4, seed=2)
    leaves = [mg.Tensor(v, requires_grad=True) for v in (x, W, np.zeros(4))]
    (leaves[0] @ leaves[1] + leaves[2]).backward(mg.Tensor(dy))
    found = the(names, "linear_backward")(dy, x, W)
    if not isinstance(found, tuple) or len(found) != 3:
        raise wrong("(dx, dW, db)", type(found).__name__, "return three arrays")
    hints = {
        "dx": [(dy @ W, "dx = dy Wᵀ: transpose W")],
        "dW": [
            (dy.T @ x, "dW has the shape of W, (inputs, outputs): xᵀ dy, not dyᵀ x"),
            (x.T @ dy / 5, "rows of a batch add up: there is no mean in the layer itself"),
        ],
        "db": [
            (dy, "b was broadcast over the batch: sum dy over the rows"),
            (dy.mean(0), "rows of a batch add up: there is no mean in the layer itself"),
            (dy.sum(1), "sum over the batch, axis 0, not over the outputs"),
        ],
    }
    for name, came, leaf in zip(hints, found, leaves, strict=True):
        expected = leaf.grad.numpy()
        if not close(came, expected):
            hint = is_one_of(came, hints[name]) or "compare the shapes with those of x, W and b"
            raise wrong(f"{name} = {expected}", came, hint)


# ---------------------------------------------------------------- 6: BPTT


def rnn_case():
    T, B, I, H = 5, 2, 3, 4
    x, W, U = random(T, B, I), random(I, H, seed=1), random(H, H, seed=2) * 0.5
    dh = random(T, B, H, seed=3)
    leaves = [mg.Tensor(v, requires_grad=True) for v in (x, W, U, np.zeros(H))]
    h, states = mg.zeros((B, H), "float64"), []
    for t in range(T):
        h = mg.tanh(leaves[0][t] @ leaves[1] + h @ leaves[2] + leaves[3])
        states.append(h)
    mg.stack(states).backward(mg.Tensor(dh))
    return x, W, U, dh, np.stack([s.numpy() for s in states]), [v.grad.numpy() for v in leaves]


def bptt(names):
    """the gradients of x, W, U and b"""
    x, W, U, dh, h, expected = rnn_case()
    found = the(names, "rnn_backward")(dh.copy(), x, h, W, U)
    if not isinstance(found, tuple) or len(found) != 4:
        raise wrong("(dx, dW, dU, db)", type(found).__name__, "return four arrays")
    alone = dh * (1 - h**2)
    last_only = np.einsum("tbi,tbh->ih", x, alone)
    if close(found[1], last_only):
        raise wrong(
            expected[1],
            found[1],
            "h_t goes into step t + 1 too: add what comes back from there, dh_next, to dh[t]",
        )
    for name, came, value in zip(("dx", "dW", "dU", "db"), found, expected, strict=True):
        if not close(came, value):
            raise wrong(f"{name} = {value}", came, hint_of_bptt(name, came, x, W, U, dh, h))


def backward_with(dh, x, h, W, U, order, slope, recurrent, before):
    """BPTT with choices, to know a mistake by its result."""
    da_next, dW, dU, db = 0.0, 0.0, 0.0, 0.0
    dx = np.zeros_like(x)
    for t in order(range(len(x))):
        da = (dh[t] + da_next) * slope(h[t])
        dx[t] = da @ W.T
        dW = dW + x[t].T @ da
        dU = dU + before(h, t).T @ da
        db = db + da.sum(0)
        da_next = da @ recurrent(U)
    return dx, dW, dU, db


def hint_of_bptt(name, came, x, W, U, dh, h):
    def previous(h, t):
        return h[t - 1] if t else np.zeros_like(h[0])

    right = {
        "order": reversed,
        "slope": lambda y: 1 - y**2,
        "recurrent": lambda U: U.T,
        "before": previous,
    }
    mistakes = [
        ({"order": iter}, "go back in time: from the last step to the first"),
        ({"slope": lambda y: 1.0}, "the gradient goes through tanh: times 1 - h²"),
        ({"recurrent": lambda U: U}, "to the state before: da Uᵀ, with the transpose"),
        ({"before": lambda h, t: h[t]}, "U was multiplied by the state BEFORE the step, h_{t-1}"),
    ]
    k = ("dx", "dW", "dU", "db").index(name)
    for change, hint in mistakes:
        if close(came, backward_with(dh, x, h, W, U, **(right | change))[k]):
            return hint
    return "compare your formula with those of the chapter, step by step"


# ---------------------------------------------------------------- 7: vanishing


def norms_over_time(names):
    """|dL/dh_t| for each step"""
    x, W, U, dh, h, _ = rnn_case()
    last = dh[-1]
    expected, gradient = [np.linalg.norm(last)], last
    for t in range(len(h) - 1, 0, -1):
        gradient = (gradient * (1 - h[t] ** 2)) @ U.T
        expected.append(np.linalg.norm(gradient))
    expected = np.array(expected[::-1])
    came = the(names, "gradient_norms")(last.copy(), h, U)
    if not close(came, expected):

        def walk(slope, matrix, shift=0):
            norms, g = [np.linalg.norm(last)], last
            for t in range(len(h) - 1, 0, -1):
                g = (g * slope(h[t - shift])) @ matrix
                norms.append(np.linalg.norm(g))
            return np.array(norms[::-1])

        def slope(y):
            return 1 - y**2

        hints = [
            (expected[::-1], "the list begins with step 0: turn it round"),
            (expected**2, "the norm is the root of the sum of squares"),
            (walk(lambda y: 1.0, U.T), "each step goes through tanh: times 1 - h²"),
            (walk(slope, U), "back in time the matrix is Uᵀ"),
            (walk(slope, U.T, 1), "from h_t back to h_{t-1} the slope is that at h_t"),
        ]
        raise wrong(expected, came, is_one_of(came, hints) or "one factor for each step back")


# ---------------------------------------------------------------- 8: clipping


def clips(names):
    """gradients whose common norm is too large"""
    grads = [random(3, 4), random(4, seed=1) * 3]
    total = np.sqrt(sum((g**2).sum() for g in grads))
    bound = 2.0
    came = the(names, "clip_norm")([g.copy() for g in grads], bound)
    expected = [g * (bound / total) for g in grads]
    if not isinstance(came, list) or len(came) != 2:
        raise wrong("a list of two arrays", type(came).__name__, "return the clipped arrays")
    sum_of_norms = sum(np.linalg.norm(g) for g in grads)
    makers = [
        (lambda g: g * bound / np.linalg.norm(g), "ONE norm for all gradients together"),
        (lambda g: np.clip(g, -bound, bound), "this clips values: here the norm is to be clipped"),
        (lambda g: g / total, "the new norm is the bound, not 1: times bound / norm"),
        (
            lambda g: g * bound / sum_of_norms,
            "the root of the sum of ALL squares",
        ),
        (lambda g: g * bound / total**2, "divide by the norm, not by its square"),
    ]
    for a, b in zip(came, expected, strict=True):
        if not close(a, b):
            hints = [(make(g), hint) for make, hint in makers for g in grads]
            raise wrong(b, a, is_one_of(a, hints) or "all gradients keep their direction")


def leaves_small_ones(names):
    """gradients whose norm is small enough"""
    grads = [random(3, 4) * 0.01]
    (came,) = the(names, "clip_norm")([grads[0].copy()], 2.0)
    if not close(came, grads[0]):
        raise wrong(grads[0], came, "a norm below the bound stays as it is: scale only if above")


# ---------------------------------------------------------------- 9 and 10: cells


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def lstm_cell(names):
    """one step of an LSTM"""
    cell = mg.nn.LSTMCell(3, 4, dtype="float64")
    rng = np.random.default_rng(5)
    W, U, b = (rng.normal(size=p.shape) for p in (cell.W, cell.U, cell.b))
    x, h, c = random(2, 3), random(2, 4, seed=1), random(2, 4, seed=2)
    i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=1)
    si, sf, so = sigmoid(i), sigmoid(f), sigmoid(o)
    new_c = sf * c + si * np.tanh(g)
    found = the(names, "lstm_step")(x, h, c, W, U, b)
    if not isinstance(found, tuple) or len(found) != 2:
        raise wrong("(h, c)", type(found).__name__, "return both states")
    hints = [
        (
            si * c + sf * np.tanh(g),
            "f keeps c, i takes the candidate: they are swapped",
        ),
        (sf * c + si * sigmoid(g), "the candidate g is made by tanh, not by the sigmoid"),
        (si * np.tanh(g), "the old state is kept: f c + i g"),
        (c + si * np.tanh(g), "the forget gate multiplies the old state"),
    ]
    if not close(found[1], new_c):
        raise wrong(new_c, found[1], is_one_of(found[1], hints) or "the gates stand as i, f, g, o")
    new_h = so * np.tanh(new_c)
    hints = [
        (so * np.tanh(c), "the output shows the NEW state"),
        (so * new_c, "h = o tanh(c): the state goes through tanh"),
        (np.tanh(new_c), "the output gate multiplies tanh(c)"),
    ]
    if not close(found[0], new_h):
        raise wrong(new_h, found[0], is_one_of(found[0], hints) or "h = o tanh(c)")


def gru_cell(names):
    """one step of a GRU"""
    cell = mg.nn.GRUCell(3, 4, dtype="float64")
    rng = np.random.default_rng(6)
    W, U, b = (rng.normal(size=p.shape) for p in (cell.W, cell.U, cell.b))
    x, h, H = random(2, 3), random(2, 4, seed=1), 4
    a = x @ W + b

    def step(first, second, product):
        n = np.tanh(product)
        return first * n + second * h

    r = sigmoid(a[:, :H] + h @ U[:, :H])
    z = sigmoid(a[:, H : 2 * H] + h @ U[:, H : 2 * H])
    before = a[:, 2 * H :] + (r * h) @ U[:, 2 * H :]
    expected = step(1 - z, z, before)
    came = the(names, "gru_step")(x, h, W, U, b)
    hints = [
        (step(z, 1 - z, before), "z is what is KEPT of the old state: (1 - z) n + z h"),
        (
            step(1 - z, z, a[:, 2 * H :] + r * (h @ U[:, 2 * H :])),
            "here the reset gate comes BEFORE the product: (r h) U",
        ),
        (step(1 - z, z, a[:, 2 * H :] + h @ U[:, 2 * H :]), "the reset gate multiplies h"),
        (
            step(1 - r, r, a[:, 2 * H :] + (z * h) @ U[:, 2 * H :]),
            "the gates stand as r, z, n: r and z are swapped",
        ),
    ]
    if not close(came, expected):
        raise wrong(expected, came, is_one_of(came, hints) or "compare with the formula")


def rule_in_c(names):
    """the rule of tanh in C"""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise Wrong(
            "hint: there is no C compiler. Debian and Ubuntu: apt-get install build-essential; "
            "or set CC to the one you have"
        )
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "rule.c"), Path(folder, "rule.so")
        source.write_text(the(names, "SOURCE"))
        command = [compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Wrong(f"{done.stderr[:800]}\nhint: the compiler does not take it yet")
        rule = ctypes.CDLL(str(library)).tanh_rule
    y, dy = np.tanh(random(1000)), random(1000, seed=1)
    dx = np.full(1001, 7.0)
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (dy, y, dx)]
    rule(*pointers, ctypes.c_long(1000))
    expected = dy * (1 - y * y)
    hints = [
        (dy * (1 - y), "the derivative is 1 - y², with the square"),
        (1 - y * y, "by the chain rule, multiply by dy"),
        (np.append(expected[:-1], 7.0), "the last element is missing: i goes from 0 to n - 1"),
        (np.append([7.0], expected[1:]), "the first element is missing: begin at 0"),
    ]
    if dx[1000] != 7.0:
        raise Wrong("hint: it writes behind the end of the array: i < n, not i <= n")
    if not close(dx[:1000], expected, 1e-14):
        raise wrong(
            expected[:4], dx[:4], is_one_of(dx[:1000], hints) or "dx[i] = dy[i] (1 - y[i]²)"
        )


CHECKS = {
    1: [order_has_all, order_is_right, order_of_many_ways, order_of_a_long_chain],
    2: [records_mul, records_tanh],
    3: [
        sweeps_a_line,
        sweeps_the_diamond,
        sweep_keeps_gradients,
        sweeps_only_what_counts,
        sweeps_many_ways,
    ],
    4: [unbroadcasts],
    5: [linear_gradients],
    6: [bptt],
    7: [norms_over_time],
    8: [clips, leaves_small_ones],
    9: [lstm_cell],
    10: [gru_cell, rule_in_c],
}
