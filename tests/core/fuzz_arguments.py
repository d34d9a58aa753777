"""Draws the arguments of a call: mostly what fits the names of its parameters, and sometimes
anything."""

import contextlib
import gc

import numpy as np
from fuzz_hostile import (
    HOSTILE,
    EvilFloatNumber,
    EvilInt,
    EvilList,
    EvilString,
    EvilTensor,
    EvilTuple,
    Planted,
    PlantedKeyError,
)
from fuzz_objects import Objects
from fuzz_values import HUGE

import minigrad as mg


class Drawer(Objects):
    """Draws everything that a call may get."""

    def hostile(self):
        kind = self.rng.randrange(24)
        if kind < 8:
            return self.pick(HOSTILE)(self)
        if kind < 12:
            return self.array()
        if kind == 12:
            return self.pick(
                (
                    None,
                    None,
                    True,
                    "x",
                    b"x",
                    {},
                    [],
                    (),
                    set(),
                    object(),
                    type,
                    print,
                    NotImplemented,
                    Ellipsis,
                    1j,
                )
            )
        if kind == 13:
            return self.pick(HUGE)
        if kind == 14:
            return self.own()
        if kind == 15:
            return self.pick(list(self.main.callables.values()))
        if kind == 16 and not self.main.options.initialised:
            return EvilTensor.__new__(self.pick((EvilTensor, mg.Tensor)), *self.pick(((), (3,))))
        if kind == 17:
            nested = []
            for _ in range(self.pick((10, 70, 900, 5000))):
                nested = [nested]
            return nested
        if kind == 18:
            return self.pick(
                (
                    EvilList([1.0]),
                    EvilTuple((1.0, 2.0)),
                    EvilInt(5),
                    EvilString("a"),
                    EvilFloatNumber(1.5),
                )
            )
        if kind == 19:
            loop = [1.0]
            loop.append(loop)
            return loop
        if kind == 20:
            return self.hook()
        if kind == 21:
            return [self.tensor(), self.tensor()]
        if kind == 22:
            return (x for x in (self.value(), self.value()))
        return memoryview(bytearray(24)).cast("f")

    def value(self):
        """Anything: fitting or not."""
        self.depth += 1
        try:
            if self.depth > 3:
                return self.pick((None, 1.0, self.main.changing, mg.ones(3)))
            kind = self.rng.randrange(12)
            if kind < 4:
                return self.tensor()
            if kind == 4:
                return self.plain()
            if kind == 5:
                return self.number()
            if kind == 6:
                return self.size()
            if kind == 7:
                return self.pick(
                    (
                        [1.0, 2.0],
                        (1, 2),
                        [[1.0, 2.0], [3.0, 4.0]],
                        {"a": np.ones(3)},
                        [np.ones(3)],
                        "text",
                        (mg.ones(2),),
                    )
                )
            return self.hostile()
        finally:
            self.depth -= 1

    def inside(self):
        """Called by hostile objects in the middle of a call of minigrad."""
        kind = self.rng.randrange(12)
        if self.depth > 3 or kind > 6:
            return
        self.depth += 1
        try:
            if kind == 0:
                gc.collect()
            elif kind == 1:
                raise self.pick((Planted, Planted, PlantedKeyError))("inside")
            elif kind == 2:
                self.main.change_constants()
            elif kind == 3:
                t = self.live(mg.Tensor)
                if t is not None:
                    with contextlib.suppress(Exception):
                        t[...] = 0.0
            elif kind == 4:
                with contextlib.suppress(IndexError):
                    for _ in range(20):
                        self.main.pool.pop()
            elif kind == 5:
                self.main.action(self)
            else:
                t = self.live(mg.Tensor)
                if t is not None:
                    with contextlib.suppress(Exception):
                        t.__init__(self.plain())
        finally:
            self.depth -= 1

    # -- an argument by the name of its parameter

    BY_NAME = {
        "axis": "axis",
        "axis1": "axis",
        "axis2": "axis",
        "axes": "axis",
        "index": "index",
        "indices": "index",
        "shape": "dims",
        "dtype": "dtype",
        "path": "path",
        "save": "path",
        "resume": "path",
        "hook": "hook",
        "fn": "function",
        "function": "function",
        "loss": "function",
        "model": "module",
        "layer": "module",
        "cell": "module",
        "forward": "module",
        "backward": "module",
        "module": "module",
        "optimizer": "optimizer",
        "params": "parameters",
        "parameters": "parameters",
        "state": "state",
        "h": "state",
        "h0": "state",
        "lengths": "lengths",
        "reset": "reset",
        "rng": "generator",
        "generator": "generator",
        "sequences": "sequences",
        "batches": "batches",
        "losses": "sequences",
        "merge": "text",
        "form": "text",
        "mode": "text",
        "name": "text",
        "op": "text",
        "nonlinearity": "text",
        "checkpoint": "text",
        "validate": "function",
        "line": "function",
    }
    SIZES = {
        "input_size",
        "hidden_size",
        "num_layers",
        "in_features",
        "out_features",
        "k1",
        "k2",
        "epochs",
        "steps",
        "batch_size",
        "n",
        "parts",
        "count",
        "num_embeddings",
        "embedding_dim",
        "step_size",
        "T_max",
        "total_iters",
        "patience",
        "season",
        "features",
        "ddof",
        "period",
        "total_steps",
        "cooldown",
        "window",
        "horizon",
        "stride",
        "context",
        "length",
        "width",
    }
    FLAGS = {
        "requires_grad",
        "keepdims",
        "copy",
        "retain_graph",
        "create_graph",
        "allow_unused",
        "bidirectional",
        "bias",
        "trace",
        "reverse",
        "training",
        "shuffle",
        "bucket",
        "nesterov",
        "maximize",
        "amsgrad",
        "centered",
        "reset_after",
        "save_value",
        "peephole",
        "drop_last",
    }

    def argument(self, parameter, owner=""):
        name = parameter.name
        if self.chance(0.12):
            return self.value()
        if name == "state" and "load" in owner:
            return self.saved_state()
        if name in self.BY_NAME:
            return getattr(self, self.BY_NAME[name])()
        if name in self.FLAGS or isinstance(parameter.default, bool):
            return self.flag()
        if name in self.SIZES or (
            isinstance(parameter.default, int) and not isinstance(parameter.default, bool)
        ):
            return self.size(name)
        if isinstance(parameter.default, float):
            return self.number()
        if name in ("targets", "y", "classes", "weight_index") and self.chance(0.6):
            return self.integers()
        if name in ("config", "extra"):
            return self.pick((None, {"a": 1}, {"a": (1, 2)}, {1: 2}, self.value(), [float("nan")]))
        if name in ("arrays", "state_dict", "saved"):
            return self.pick(
                (
                    {"a": self.plain()},
                    {"a": self.array()},
                    {"a": self.value()},
                    {3: self.plain()},
                    self.value(),
                    {"\ud800": self.plain()},
                    self.saved_state(),
                )
            )
        if name == "parts":
            return self.pick(
                (
                    {"m": self.module()},
                    {"m": self.value()},
                    {},
                    {"o": self.optimizer(), "m": self.module()},
                )
            )
        return self.tensor() if self.chance(0.7) else self.value()

    def arguments(self, parameters, owner=""):
        args, kwargs = [], {}
        if parameters is None:
            return [self.value() for _ in range(self.rng.randrange(4))], kwargs
        by_keyword = False
        for p in parameters:
            if p.name in ("self", "cls"):
                continue
            if p.kind == p.VAR_POSITIONAL:
                args += [self.argument(p, owner) for _ in range(self.rng.randrange(3))]
                by_keyword = True
            elif p.kind == p.VAR_KEYWORD:
                continue
            elif p.default is not p.empty and self.chance(0.6):
                by_keyword = True
            elif p.kind == p.POSITIONAL_ONLY or (
                p.kind == p.POSITIONAL_OR_KEYWORD and not by_keyword
            ):
                args.append(self.argument(p, owner))
            else:
                kwargs[p.name] = self.argument(p, owner)
        if self.chance(0.02):
            kwargs["no_such_option"] = 1
        if self.chance(0.02) and args:
            args.pop()
        return args, kwargs
