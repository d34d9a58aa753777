"""Whole steps of training and of work with graphs, mostly of valid calls."""

import copy
import os
import pickle

import numpy as np
from fuzz_faults import described
from fuzz_hostile import Net, Square
from fuzz_names import HEAP_TYPE
from fuzz_templates import spoilt, templates
from fuzz_values import FLOATS

import minigrad as mg


def hooked(drawer, tensor):
    """A recorded tensor with hooks in one case of three."""
    if drawer.chance(0.35) and tensor.requires_grad:
        tensor.register_hook(drawer.hook())
        if drawer.chance(0.2):
            tensor.retain_grad()
    return tensor


def layer(drawer):
    """A sequence through a layer, perhaps with weights that were replaced, and back."""
    module = drawer.module()
    x = mg.Tensor(drawer.plain((4, 2, 3), np.float32), requires_grad=True)
    extra = {}
    if drawer.chance(0.4):
        extra["lengths"] = drawer.lengths()
    if drawer.chance(0.3):
        extra["reset"] = drawer.reset()
    if drawer.chance(0.3):
        extra["state"] = drawer.state()
    if not isinstance(module, (mg.nn.RNN, mg.nn.LSTM, mg.nn.GRU)):
        extra = {}
    out = module(x, **extra)
    first = out[0] if isinstance(out, tuple) else out
    hooked(drawer, hooked(drawer, first).sum() * 2.0).backward(
        retain_graph=drawer.chance(0.3), create_graph=drawer.chance(0.2)
    )
    return out


def cell_loop(drawer):
    """A cell step by step."""
    cell = drawer.pick((mg.nn.RNNCell, mg.nn.GRUCell, mg.nn.LSTMCell))(3, 4)
    state = None
    x = mg.Tensor(drawer.plain((3, 2, 3), np.float32), requires_grad=True)
    for t in range(3):
        state = cell(x[t], state)
        h = state[0] if isinstance(state, tuple) else state
        hooked(drawer, h)
    h.sum().backward()
    return [cell, h]


def chain(drawer):
    """Ops on each other's results, with hooks, assignments between, and a way back."""
    x = mg.Tensor(drawer.plain((2, 3), np.float32), requires_grad=True)
    y = x
    for _ in range(drawer.rng.randrange(1, 12)):
        op = drawer.pick(
            (
                lambda y: mg.tanh(y),
                lambda y: y * y,
                lambda y: y + x,
                lambda y: y @ mg.ones((3, 3)),
                lambda y: y[::-1],
                lambda y: y.T.T,
                lambda y: mg.softmax(y),
                lambda y: mg.concatenate([y, y])[:2],
                lambda y: mg.where(y > 0, y, x),
                lambda y: mg.cumsum(y, 0),
                lambda y: mg.pad(y, 1)[1:3, 1:4],
                lambda y: Square.apply(y),
                lambda y: y.reshape(3, 2).reshape(2, 3),
                lambda y: mg.stack([y, x]).sum(axis=0),
                lambda y: y * drawer.pick(drawer.main.constants)[1],
                lambda y: y[np.array([1, 0])],
                lambda y: mg.dropout(y, 0.5),
                lambda y: mg.maximum(y, 0.0),
            )
        )
        y = hooked(drawer, op(y))
        if drawer.chance(0.1):
            z = y * 1.0
            z[drawer.index()] = drawer.value()
            y = z
    y.sum().backward(create_graph=drawer.chance(0.2), retain_graph=drawer.chance(0.2))
    return [x, y]


def recording(drawer):
    """record with values, inputs and rules of all kinds."""
    x = drawer.tensor()
    rule = drawer.pick(
        (
            lambda dy, *s: dy,
            lambda *a: drawer.value(),
            drawer.hook(),
            lambda *a: (None,) * 9,
            lambda dy, *s: dy * 2.0,
        )
    )
    values = drawer.pick(
        (
            x.numpy() * 2,
            drawer.array(),
            drawer.value(),
            (x.numpy() * 2, x.numpy() + 1),
            (),
            (drawer.array(), drawer.array()),
        )
    )
    inputs = drawer.pick(((x,), (x, None), (x, x), (None,), (), drawer.value(), (drawer.value(),)))
    saved = drawer.pick(((), (x,), (None,), (drawer.value(),), [x], drawer.value()))
    y = mg.record(
        drawer.pick(("op", "op", drawer.text())), values, inputs, rule, saved, drawer.flag()
    )
    first = y[0] if isinstance(y, tuple) else y
    first.sum().backward(retain_graph=drawer.chance(0.3))
    return y


def optimise(drawer):
    """A few steps over parameters whose gradients were set by others."""
    optimizer = drawer.optimizer()
    for p in optimizer.parameters[:4]:
        if drawer.chance(0.5):
            g = drawer.pick(
                (
                    mg.ones(p.shape, p.dtype),
                    None,
                    mg.Tensor(np.broadcast_to(np.ones((), p.dtype), p.shape), copy=False),
                    drawer.tensor(),
                )
            )
            p.grad = g
        if drawer.chance(0.05):
            p.__init__(drawer.plain())
    if drawer.chance(0.3):
        mg.optim.clip_grad_norm_(optimizer.parameters, 1.0)
    if drawer.chance(0.2):
        mg.optim.clip_grad_value_(optimizer.parameters, 0.1)
    optimizer.step()
    if drawer.chance(0.3):
        optimizer.load_state_dict(drawer.pick((optimizer.state_dict(), drawer.saved_state())))
    if drawer.chance(0.3):
        optimizer.zero_grad()


def read_only_gradient(drawer):
    """.grad over memory that cannot be written, and a backward that adds to it."""
    array = drawer.pick([a for name, a in drawer.main.constants if name != "guarded"])
    w = mg.Tensor(np.array(array), requires_grad=True)
    w.grad = mg.Tensor(array, copy=False)
    (w * 2.0).sum().backward()
    mg.optim.SGD([w], lr=0.1).step()
    return w


def fitting(drawer):
    """A short training, saved and resumed."""
    net = Net()
    x, y = (
        mg.Tensor(drawer.plain((4, 2, 3), np.float32)),
        mg.Tensor(drawer.plain((4, 2, 2), np.float32)),
    )
    adam = mg.optim.Adam(net.parameters(), lr=0.01)
    path = os.path.join(drawer.main.folder, "fit.safetensors")
    options = {"epochs": 1, "save": path if drawer.chance(0.5) else None}
    if drawer.chance(0.3):
        options["after_step"] = [drawer.hook()]
    if drawer.chance(0.3):
        options["validate"] = drawer.pick((lambda: 1.0, lambda: float("nan"), drawer.hook()))
    if drawer.chance(0.2):
        options[drawer.pick(("patience", "clip", "steps", "line", "resume", "config", "parts"))] = (
            drawer.value()
        )
        options["steps"] = 2
    return mg.training.fit(net, adam, lambda x, y: mg.mse(net(x)[0], y), [(x, y)], **options)


def truncated(drawer):
    bptt = mg.training.TruncatedBPTT(Net(), mg.mse, drawer.size("k1"), drawer.pick((None, 2, 3)))
    for loss in bptt.over(
        mg.Tensor(drawer.plain((6, 2, 3), np.float32)),
        mg.Tensor(drawer.plain((6, 2, 2), np.float32)),
    ):
        loss.backward()
    state = bptt.state_dict()
    bptt.load_state_dict(drawer.pick((state, drawer.saved_state())))
    return bptt


def files(drawer):
    """Files of checkpoints that were written, and spoilt."""
    path = os.path.join(drawer.main.folder, "s.safetensors")
    mg.save(
        path,
        {"a": drawer.plain(), "b": drawer.pick((drawer.plain(), drawer.array()))},
        drawer.pick((None, {"x": 1}, drawer.value())),
    )
    if drawer.chance(0.6):
        with open(path, "r+b") as file:
            data = bytearray(file.read())
            for _ in range(drawer.rng.randrange(1, 4)):
                data[drawer.rng.randrange(min(len(data), 160))] = drawer.rng.randrange(256)
            file.seek(0)
            file.write(data[: drawer.pick((len(data), len(data), len(data) // 2, 8, 0))])
            file.truncate()
    arrays, extra = mg.load(path)
    return [mg.Tensor(a) for a in arrays.values() if a.dtype in FLOATS]


def pickles(drawer):
    thing = drawer.own() if drawer.chance(0.6) else drawer.tensor()
    return drawer.pick(
        (
            copy.deepcopy,
            copy.copy,
            lambda t: pickle.loads(pickle.dumps(t)),
            str,
            repr,
            lambda t: f"{t:.3f}",
        )
    )(thing)


def anomaly(drawer):
    """Anomaly mode around a program."""
    with mg.detect_anomaly():
        return drawer.pick((chain, layer, recording))(drawer)


def without_recording(drawer):
    context = drawer.pick((mg.no_grad, mg.enable_grad))()
    with context:
        if drawer.chance(0.3):
            with context:
                chain(drawer)
        return drawer.pick((chain, layer, optimise))(drawer)


def second_order(drawer):
    x = mg.Tensor(drawer.plain((2, 3), np.float32), requires_grad=True)
    y = drawer.pick(
        (
            lambda: mg.tanh(x),
            lambda: mg.softmax(x),
            lambda: mg.nn.GRU(3, 4)(mg.stack([x, x]))[0],
            lambda: x @ mg.ones((3, 2)),
            lambda: Square.apply(x),
            lambda: mg.logsumexp(x, axis=1),
            lambda: mg.prod(x, axis=0),
        )
    )()
    (dx,) = mg.grad(hooked(drawer, y).sum(), x, create_graph=True)
    hooked(drawer, dx)
    (dx * dx).sum().backward(retain_graph=drawer.chance(0.2))
    return [x, dx, y]


def changed_operand(drawer):
    """Operands, indices and masks that somebody else changes between forward and backward."""
    x = mg.Tensor(drawer.plain((4, 3), np.float32), requires_grad=True)
    a, k, bound, mask = (
        drawer.plain((4, 3), np.float32),
        np.array([0, 1]),
        np.array(1),
        np.ones((4, 3), bool),
    )
    y = drawer.pick(
        (
            lambda: x * a,
            lambda: x[k],
            lambda: x[bound:],
            lambda: x[:bound] * 2.0,
            lambda: mg.where(mask, x, a),
            lambda: x[mask],
            lambda: mg.embedding(x, k),
            lambda: x @ a.T,
            lambda: mg.cross_entropy(x, np.resize(k, 4)),
            lambda: mg.nn.GRU(3, 4)(a[None])[0],
        )
    )()
    a[...] = 7.0
    k[:] = drawer.pick((3, 10**6, -(10**6)))
    bound[...] = drawer.pick((0, 4, 10**6, -(10**6)))
    mask[...] = False
    y.sum().backward(retain_graph=drawer.chance(0.2))
    return [x, y]


def initialised_again(drawer):
    """A leaf, or the result of an op, that gets other data of another shape while it is in use."""
    x = mg.Tensor(drawer.plain((2, 3), np.float32), requires_grad=True)
    y = hooked(drawer, x * x)
    if drawer.chance(0.5):
        y.sum().backward(retain_graph=True)
    drawer.pick((x, y)).__init__(drawer.plain(), requires_grad=drawer.chance(0.7))
    y.sum().backward()
    return [x, y]


def never_initialised(drawer):
    """Instances that were made by __new__ alone."""
    kind = drawer.pick(
        [
            c
            for c in drawer.main.callables.values()
            if isinstance(c, type) and not c.__flags__ & HEAP_TYPE
        ]
    )
    thing = kind.__new__(kind)
    drawer.main.keep(drawer, thing)
    if isinstance(thing, mg.Tensor):
        mg.add(thing, drawer.tensor())
    return thing


def nodes(drawer):
    """The graph as users look at it."""
    node, t = drawer.tensor().grad_fn, drawer.tensor()
    found = []
    while node is not None and len(found) < 5:
        found.append(node)
        inputs = [n for n in (getattr(node, "inputs", None) or ()) if n is not None]
        node = drawer.pick(inputs) if inputs else None
    mg.draw(t, form=drawer.pick(("text", "dot", "svg")))
    for node in found:
        for name in dir(node):
            if not name.startswith("_"):
                getattr(node, name, None)
    return found


def installed(drawer):
    mg.core.tensor.install(drawer.pick(("fuzz_op", "fuzz_op", "\ud800")), drawer.function())
    getattr(drawer.tensor(), "fuzz_op", None)


def other_instruction_set(drawer):
    """The instruction set and the number of threads change between forward and backward."""
    before = mg.core.kernels.isa_in_use()
    x = mg.Tensor(drawer.plain((4, 2, 3), np.float32), requires_grad=True)
    y, _ = mg.nn.LSTM(3, 4)(x)
    mg.core.kernels._use_isa(drawer.pick(mg.core.kernels.isas_built()))
    try:
        mg.set_num_threads(drawer.pick((1, 2, 8)))
        y.sum().backward()
    finally:
        mg.core.kernels._use_isa(before)
        mg.set_num_threads(2)


def nearly_right(drawer):
    """A call that fits, but for one or two of its arguments; and back through what came of it."""
    made = templates(drawer)
    name = drawer.pick(list(made))
    function, args, options = made[name]
    args, options = (
        list(args),
        {k: v for k, v in options.items() if drawer.chance(0.6) or name == "Batches"},
    )
    for _ in range(drawer.pick((0, 1, 1, 1, 2))):
        k = drawer.rng.randrange(len(args) + len(options))
        if k < len(args):
            args[k] = spoilt(drawer, args[k])
        else:
            key = list(options)[k - len(args)]
            options[key] = spoilt(drawer, options[key])
    drawer.main.note(
        f"    {name}: "
        + ", ".join([*map(described, args), *(f"{k}={described(v)}" for k, v in options.items())])
    )
    drawer.main.last += f"{name}: " + ", ".join(
        [*map(described, args), *(f"{k}={described(v)}" for k, v in options.items())]
    )
    result = function(*args, **options)
    first = result
    while isinstance(first, (tuple, list)) and first:
        first = first[0]
    if isinstance(first, mg.Tensor) and first.requires_grad:
        hooked(drawer, first).sum().backward(
            retain_graph=drawer.chance(0.3), create_graph=drawer.chance(0.2)
        )
    return result


def config(drawer):
    mg.show_config()


SCENES = (
    layer,
    layer,
    layer,
    cell_loop,
    chain,
    chain,
    chain,
    recording,
    recording,
    optimise,
    optimise,
    read_only_gradient,
    fitting,
    truncated,
    files,
    pickles,
    anomaly,
    without_recording,
    second_order,
    changed_operand,
    changed_operand,
    initialised_again,
    never_initialised,
    nodes,
    installed,
    other_instruction_set,
    config,
    *(nearly_right,) * 14,
)
