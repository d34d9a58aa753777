"""Draws what holds other values: hooks, functions, modules, optimizers, states, batches."""

import contextlib
import gc
import threading

import numpy as np
from fuzz_hostile import (
    ArrayOnce,
    EvilAttributes,
    EvilCall,
    EvilFunction,
    EvilIndex,
    EvilIterator,
    EvilLength,
    EvilModule,
    Net,
    Planted,
    PlantedKeyError,
    Square,
)
from fuzz_values import Values

import minigrad as mg


class Objects(Values):
    """Values, and objects that are made of them."""

    def hook(self):
        """A function of the gradient that does what it should not."""
        kind, drawer = self.rng.randrange(14), self
        if kind == 0:
            return lambda *a: None
        if kind == 1:
            return lambda g, *a: g * 2.0
        if kind == 2:
            return lambda *a: drawer.inside()
        if kind == 3:

            def raises(*a):
                raise drawer.pick((Planted, PlantedKeyError))("hook")

            return raises
        if kind == 4:
            return lambda *a: gc.collect() and None
        if kind == 5:

            def changes(g, *a):
                g[...] = 0.0

            return changes
        if kind == 6:
            return lambda *a: drawer.value()
        if kind == 7:
            old = self.tensor()

            def uses(g, *a):
                return g * mg.sigmoid(old).sum() if g.dtype == old.dtype else None

            return uses
        if kind < 12:
            return self.busy_hook(kind)
        if kind == 12:
            return EvilCall(self)
        return lambda *a: drawer.main.change_constants()

    def busy_hook(self, kind):
        """A hook that goes on with other graphs, empties the pool, starts a thread or adds
        hooks."""
        drawer = self
        if kind == 8:

            def again(*a):
                t = drawer.tensor()
                t.backward(np.ones(t.shape, t.dtype), retain_graph=drawer.chance(0.5))

            return again
        if kind == 9:

            def drops(*a):
                with contextlib.suppress(IndexError):
                    for _ in range(30):
                        drawer.main.pool.pop()
                gc.collect()

            return drops
        if kind == 10:

            def other_thread(*a):
                thread = threading.Thread(
                    target=lambda: (mg.ones(3, requires_grad=True) * 2.0).sum().backward(),
                    daemon=True,
                )
                thread.start()
                thread.join(0.2)

            return other_thread

        def hooks_more(g, *a):
            t = drawer.live(mg.Tensor)
            if t is not None and t.requires_grad:
                t.register_hook(lambda g: None)

        return hooks_more

    def function(self):
        """A function of tensors, as vjp, gradcheck, a loss or a model take it."""
        drawer = self
        return self.pick(
            (
                lambda *x: (x[0] * x[0]).sum(),
                lambda *x: x[0] * 2.0,
                lambda *x: drawer.value(),
                lambda *x: x,
                lambda *x: None,
                lambda *x: drawer.tensor().sum(),
                self.hook(),
                mg.mse,
                mg.tanh,
                mg.add,
                EvilCall(self),
                None,
                "f",
                lambda x, s=None: (x, s),
                lambda *x: x[0].numpy(),
                Net(),
                Square.apply,
                EvilFunction.apply,
            )
        )

    def module(self):
        found = self.live(mg.nn.Module) if self.chance(0.6) else None
        if found is None:
            make = self.pick(
                (
                    lambda: mg.nn.LSTM(3, 4),
                    lambda: mg.nn.GRU(3, 4, bidirectional=True),
                    lambda: mg.nn.RNN(3, 4, num_layers=2),
                    lambda: mg.nn.Linear(3, 2),
                    lambda: mg.nn.LSTMCell(3, 4),
                    lambda: mg.nn.GRUCell(3, 4),
                    Net,
                    EvilModule,
                    lambda: mg.nn.Embedding(5, 3),
                    lambda: mg.nn.RNNCell(3, 4),
                    lambda: mg.nn.Dropout(0.5),
                    lambda: mg.nn.LSTM(
                        3, 4, checkpoint="sqrt", dropout=0.2, recurrent_dropout=0.2, num_layers=2
                    ),
                )
            )
            found = make()
            self.main.keep(self, found)
        return found

    def optimizer(self):
        found = self.live(mg.optim.Optimizer) if self.chance(0.7) else None
        if found is None:
            make = self.pick(
                (mg.optim.SGD, mg.optim.Adam, mg.optim.AdamW, mg.optim.RMSprop, mg.optim.Adagrad)
            )
            module = self.module()
            parameters = (
                list(module.parameters())
                if self.chance(0.7) and not isinstance(module, EvilModule)
                else []
            )
            found = make(parameters or [mg.ones((2, 3), requires_grad=True)], lr=0.01)
            self.main.keep(self, found)
        return found

    def parameters(self):
        kind = self.rng.randrange(7)
        if kind < 3:
            return list(self.module().parameters())
        if kind == 3:
            return [self.tensor() for _ in range(self.rng.randrange(4))]
        if kind == 4:
            return [{"params": [self.tensor()], "lr": self.number()}]
        if kind == 5:
            return [("w", self.tensor()), ("v", self.tensor())]
        return self.value()

    def state(self):
        kind = self.rng.randrange(6)
        h = mg.Tensor(self.plain((1, 2, 4), np.float32), requires_grad=self.chance(0.5))
        if kind == 0:
            return None
        if kind == 1:
            return h
        if kind == 2:
            return (h, h)
        if kind == 3:
            return mg.Tensor(self.plain((2, 4), np.float32))
        if kind == 4:
            return (self.tensor(), self.tensor())
        return self.value()

    def saved_state(self):
        """A state_dict of something, perhaps spoilt."""
        thing = self.own()
        with contextlib.suppress(Exception):
            state = thing.state_dict()
            if isinstance(state, dict) and state and self.chance(0.5):
                key = self.pick(list(state))
                if self.chance(0.3):
                    del state[key]
                else:
                    state[key] = self.value()
            return state
        return {"a": self.value()}

    def sequences(self):
        kind = self.rng.randrange(5)
        if kind < 2:
            return [self.plain((n, 3), np.float32) for n in (4, 2, 0, 3)]
        if kind == 2:
            return [self.integers((n,)) for n in (4, 2, 3)]
        if kind == 3:
            return [self.value() for _ in range(3)]
        return self.value()

    def batches(self):
        x = mg.Tensor(self.plain((4, 2, 3), np.float32))
        return self.pick(
            (
                [(x, x)],
                [(x,), (x,)],
                [],
                None,
                [x],
                iter([(x, x)]),
                [self.value()],
                EvilIterator(self),
                self.live(mg.data.Batches) or [(x, x)],
            )
        )

    def lengths(self):
        return self.pick(
            (
                None,
                np.array([4, 2]),
                np.array([0, 4]),
                [4, 1],
                np.array([5, 1]),
                np.array([-1, 2]),
                np.array([1.0, 2.0]),
                np.array([2**40, 1]),
                np.array([1, 2], np.uint8),
                [EvilIndex(self), 2],
                ArrayOnce(self),
                "ab",
                np.array([3]),
                np.array([2, 4], ">i8"),
                self.main.changing,
                EvilLength(self),
            )
        )

    def reset(self):
        return self.pick(
            (
                None,
                np.zeros((4, 2), bool),
                np.ones((4, 2), bool),
                np.ones((4, 3), bool),
                np.ones((4, 2)),
                ArrayOnce(self),
                np.zeros((2, 4), bool).T,
                self.value(),
            )
        )

    def generator(self):
        return self.pick(
            (
                None,
                np.random.default_rng(3),
                mg.Generator(3),
                3,
                "x",
                self.live(mg.Generator),
                EvilAttributes(self),
            )
        )
