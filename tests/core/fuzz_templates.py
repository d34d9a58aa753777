"""Calls that are right, and how one or two of their arguments are spoilt."""

import contextlib

import numpy as np
from fuzz_values import ready

import minigrad as mg


def tensors(d):
    """A function that draws tensors of a shape."""

    def t(*shape, grad=True):
        return mg.Tensor(d.plain(shape, np.float32), requires_grad=grad and d.chance(0.7))

    return t


def templates(d):
    """Calls that are right, with arguments that the parts below the public names take too: name,
    function, arguments."""
    t = tensors(d)
    cell = d.pick(
        (("rnn_tanh", 1), ("rnn_relu", 1), ("lstm", 4), ("gru", 3), ("gru_reset_after", 3))
    )
    gates = cell[1] * 4
    kind = cell[0] if cell[0] in mg.nn.fused.CELLS else d.pick(list(mg.nn.fused.CELLS))
    x, h, c = t(4, 2, 3), t(2, 4), t(2, 4) if kind == "lstm" else None
    options = {
        "mask": np.ones((2, 4), np.float32),
        "lengths": np.array([4, 2]),
        "reset": np.zeros((4, 2), bool),
        "reverse": True,
        "checkpoint": True,
        "clip": 0.5,
        "trace": True,
        "composed": d.hook(),
    }
    options = {k: v for k, v in options.items() if d.chance(0.3)}
    loss = d.pick((mg.mse, mg.huber, mg.binary_cross_entropy_with_logits))
    classes = d.pick((mg.cross_entropy, mg.nll))
    lstm, gru = (
        mg.nn.LSTM(3, 4, num_layers=2, bidirectional=d.chance(0.5)),
        mg.nn.GRU(3, 4, checkpoint=d.pick((None, "sqrt"))),
    )
    lstm_cell, gru_cell = mg.nn.LSTMCell(3, 4), mg.nn.GRUCell(3, 4)
    sequences = [d.plain((n, 2), np.float32) for n in (4, 2, 3)]
    made = {
        "recurrent.sequence": (
            mg.nn.fused.sequence,
            (
                kind,
                x,
                h,
                c,
                t(3, gates),
                t(4, gates),
                t(gates),
                t(3, 4) if c is not None and d.chance(0.3) else None,
            ),
            options,
        ),
    }
    made |= optimizer_steps(d)
    made |= parts_of_layers(d, x, h, lstm_cell, gru_cell)
    made |= losses_and_layers(d, x, h, loss, classes, lstm, gru, lstm_cell, gru_cell)
    made |= ops(d)
    made |= data_and_training(d, sequences, lstm_cell)
    made |= derivatives(d)
    return made


def optimizer_steps(d):
    """One step of each optimizer."""
    t = tensors(d)
    a = np.zeros((2, 3), np.float32)

    def updates():
        u = mg.optim.step.Updates("SGD", 2)
        p = t(2, 3)
        p.requires_grad_(True)
        p.grad = t(2, 3, grad=False)
        return u, p

    def step(kernel, **fields):
        u, p = updates()
        arrays = [(field, field, array) for field, array in fields.items()]

        def add_and_run(*a):
            try:
                u.add(*a)
            except OverflowError as error:  # Python's own: an int that no C double holds
                raise ValueError(str(error)) from error
            u.run()

        return add_and_run, (p, kernel, arrays, 0.1, 0.0, 0.0, 0.9)

    return {
        "update.sgd": (*step("sgd", v=a), {}),
        "update.adam": (*step("adam", m=a, v=a.copy()), {}),
        "update.rmsprop": (*step("rmsprop", v=a, extra=a.copy()), {}),
        "update.adagrad": (*step("adagrad", v=a), {}),
    }


def parts_of_layers(d, x, h, lstm_cell, gru_cell):
    """What the layers are made of."""
    t = tensors(d)
    return {
        "kernels.PackedProduct": (
            lambda b, a: mg.core.kernels.PackedProduct(b)(a),
            (d.plain((3, 5)), d.plain((2, 3))),
            {},
        ),
        "sequence.unroll": (
            mg.nn.unroll,
            (lstm_cell, x, (h, t(2, 4))),
            {
                "lengths": np.array([4, 2]),
                "reset": np.zeros((4, 2), bool),
                "mask": np.ones((2, 4), np.float32),
            },
        ),
        "sequence.bidirectional": (
            mg.nn.bidirectional,
            (gru_cell, mg.nn.GRUCell(3, 4), x),
            {"lengths": np.array([3, 4])},
        ),
        "shape.adjoin": (
            lambda w, parts: mg.ops.join.adjoin(w, parts),
            (t(2, 8, grad=False), [t(2, 4), t(2, 4)]),
            {},
        ),
    }


def losses_and_layers(d, x, h, loss, classes, lstm, gru, lstm_cell, gru_cell):
    t = tensors(d)
    return {
        "loss": (
            loss,
            (t(4, 3), d.plain((4, 3), np.float32)),
            {"weight": np.ones(3, np.float32), "reduction": d.pick(("mean", "sum", "none"))},
        ),
        "class loss": (
            classes,
            (t(4, 3), np.array([0, 1, 2, -100])),
            {"weight": np.ones(3, np.float32), "ignore_index": -100},
        ),
        "lstm": (
            lstm,
            (x,),
            {"lengths": np.array([4, 2]), "reset": np.zeros((4, 2), bool), "trace": False},
        ),
        "gru": (gru, (x, t(1, 2, 4)), {"lengths": np.array([0, 2])}),
        "lstm cell": (lstm_cell, (t(2, 3), (h, t(2, 4))), {}),
        "gru cell": (gru_cell, (t(2, 3), h), {}),
    }


def ops(d):
    t = tensors(d)
    return {
        "embedding": (mg.embedding, (t(5, 3), np.array([[0, 4], [1, 1]])), {}),
        "addmm": (mg.addmm, (t(4), t(2, 3), t(3, 4)), {}),
        "matmul": (mg.matmul, (t(2, 2, 3), t(3, 2)), {}),
        "where": (mg.where, (np.ones((2, 3), bool), t(2, 3), t(3)), {}),
        "pad": (mg.pad, (t(2, 3), ((1, 0), (0, 2))), {"value": 0.0}),
        "concatenate": (mg.concatenate, ([t(2, 3), t(1, 3)], 0), {}),
        "split": (mg.split, (t(4, 3), [1, 3]), {}),
        "stack": (mg.stack, ([t(2, 3), t(2, 3)],), {}),
        "clip": (mg.clip, (t(2, 3), -1.0, 1.0), {}),
        "getitem": (lambda x, i: mg.Tensor.__getitem__(x, i), (t(4, 3), d.index()), {}),
        "setitem": (mg.Tensor.__setitem__, (t(4, 3, grad=False) * 1.0, d.index(), t(3)), {}),
    }


def data_and_training(d, sequences, lstm_cell):
    """Ops and losses of the user, data, metrics, and what trains."""
    t = tensors(d)
    return {
        "record": (
            mg.record,
            (
                "op",
                np.ones((2, 3), np.float32),
                (t(2, 3), None),
                lambda dy, *s: (dy, None),
                (t(2, 3),),
            ),
            {},
        ),
        "Batches": (
            lambda *a, **k: list(mg.data.Batches(*a, **k)),
            (sequences, [0, 1, 2]),
            {"batch_size": 2, "shuffle": True, "bucket": True},
        ),
        "Stream": (lambda *a: list(mg.data.Stream(*a)), (np.arange(40), 2, 5), {}),
        "windows": (mg.data.windows, (d.plain((20, 2)), 5), {"horizon": 2, "step": 1}),
        "Scaler": (
            lambda a, b: mg.data.Scaler().fit(a).transform(b),
            (d.plain((5, 2)), d.plain((3, 2))),
            {},
        ),
        "data.pad": (mg.data.pad, (sequences,), {}),
        "accuracy": (
            mg.metrics.accuracy,
            (d.plain((4, 2, 3)), d.np_rng.integers(0, 3, (4, 2)), np.array([4, 2])),
            {},
        ),
        "frame_nll": (
            mg.metrics.frame_nll,
            (d.plain((4, 2, 3)), np.ones((4, 2, 3)), np.array([4, 2])),
            {},
        ),
        "mase": (mg.metrics.mase, (np.ones(4), np.zeros(4), np.arange(9.0)), {"season": 2}),
        "clip_grad_norm_": (
            mg.optim.clip_grad_norm_,
            (list(lstm_cell.parameters()), 1.0),
            {"norm_type": 2.0},
        ),
        "backward": (
            mg.Tensor.backward,
            (t(2, 3) * mg.Tensor(d.plain((2, 3), np.float32), requires_grad=True), t(2, 3)),
            {"retain_graph": True},
        ),
        "scheduled": (
            lambda o, s, g: mg.optim.schedule.StepLR(o, s, g).step(),
            (d.optimizer(), 3, 0.5),
            {},
        ),
    }


def derivatives(d):
    t = tensors(d)
    return {
        "gradcheck": (
            mg.gradcheck,
            (lambda x: mg.tanh(x), [mg.Tensor(d.plain((2,), np.float64), requires_grad=True)]),
            {},
        ),
        "vjp": (mg.vjp, (lambda x: x * x, t(3), t(3)), {"create_graph": True}),
        "jvp": (mg.jvp, (lambda x: x * x, t(3), t(3)), {"create_graph": True}),
        "hvp": (mg.hvp, (lambda x: (x**3).sum(), t(3), t(3)), {"create_graph": True}),
        "hessian": (mg.hessian, (lambda x: (x**3).sum(), t(3)), {"create_graph": True}),
    }


def spoilt(d, value):
    """A value that fits, changed so that it may not."""
    if isinstance(value, (list, tuple)) and value and d.chance(0.7):
        k = d.rng.randrange(len(value))
        parts = list(value)
        parts[k] = spoilt(d, parts[k])
        return type(value)(parts) if type(value) in (list, tuple) else tuple(parts)
    array, make = value, lambda a: a
    if isinstance(value, mg.Tensor) and ready(value) and d.chance(0.9):
        array = np.array(value)
        make = lambda a: mg.Tensor(a, requires_grad=True, copy=d.chance(0.5))  # noqa: E731
    if not isinstance(array, np.ndarray):
        return d.value()
    kind = d.rng.randrange(14)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if kind == 0:
            return make(np.concatenate([array, array]))
        if kind == 1:
            return make(array[:-1])
        if kind == 2:
            return make(array[None])
        if kind == 3:
            return make(array.astype(np.float64 if array.dtype == np.float32 else np.float32))
        if kind == 4:
            return make(np.ascontiguousarray(array.T).T)
        if kind == 5:
            return make(np.broadcast_to(array[:1], array.shape))
        if kind == 6:
            return make(array[..., 1:])
        if kind == 7:
            return array.astype(np.float16)
        if kind == 8:
            return np.ma.masked_array(array, True)
        if kind == 9:
            frozen = array.copy()
            frozen.flags.writeable = False
            return make(frozen)
        if kind == 10:
            return make(
                np.full_like(array, d.pick((10**6, -1, 127)))
                if array.dtype.kind in "iu"
                else array * np.nan
            )
        if kind == 11:
            return array.astype(d.pick((">f4", ">i8", np.uint8, bool, object)))
        if kind == 12:
            return make(array[::-1])
    return d.value()
