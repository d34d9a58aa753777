"""A run of calls: the pool of live objects, the memory that must not change, what is called next,
and what came of it."""

import contextlib
import faulthandler
import gc
import inspect
import itertools
import json
import mmap
import os
import signal
import tempfile
import threading
import time
import traceback
import types
import warnings

import numpy as np
from fuzz_arguments import Drawer
from fuzz_faults import (
    ALLOWED,
    INDEXING,
    NEVER,
    described,
    named_exception,
    planted_below,
    raised_by_ours,
)
from fuzz_hostile import Net, Planted, Square
from fuzz_names import HEAP_TYPE, NOT_CALLED, discover, is_ours, parameters_of, public_names
from fuzz_scenes import SCENES
from fuzz_values import FLOATS, ready

import minigrad as mg

MAX_LIVE, MAX_ELEMENTS = 160, 20_000
JUDGED = "judged by the fuzz"  # an attribute of exceptions that were raised again


class Stop(BaseException):
    """The run has made its calls."""


class Run:
    def __init__(self, options):
        self.options = options
        self.calls, self.lock = itertools.count(1), threading.Lock()
        self.done, self.outcomes, self.faults, self.reached = 0, {}, {}, set()
        self.pool, self.spoilt = [], False
        self.folder = tempfile.mkdtemp(prefix="minigrad-fuzz-")
        with open(os.path.join(self.folder, "junk"), "wb") as file:
            file.write(bytes(range(256)))
        self.callables = discover()
        self.public = public_names()
        self.classes = {
            thing.__name__ for thing in self.callables.values() if isinstance(thing, type)
        }
        self.public_classes = {
            thing.__name__
            for name, thing in self.callables.items()
            if name in self.public and isinstance(thing, type)
        }
        self.scenes = [
            scene for scene in SCENES if scene.__name__ not in options.without.split(",")
        ]
        self.log = (
            os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if options.log
            else None
        )
        self.make_constants()
        self.main = Drawer(options.seed, self)
        self.reference = self.small_training()

    # -- memory that must not change

    def make_constants(self):
        """Arrays between guards, over pages that cannot be written, and one that changes under the
        calls' hands."""
        rng = np.random.default_rng(self.options.seed)
        self.constants, self.guards, self.snapshots = [], [], []
        for k, shape in enumerate(((2, 3), (3,), (4, 2, 3), (3, 3), (1, 2, 4))):
            dtype = FLOATS[k == 3]
            n = int(np.prod(shape))
            whole = np.full(n + 32, 1234.5, dtype)
            inner = whole[16 : 16 + n].reshape(shape)
            inner[...] = rng.standard_normal(shape)
            self.guards.append((whole, n))
            self.constants.append(("guarded", inner))
            frozen = inner.copy()
            frozen.flags.writeable = False
            self.constants.append(("frozen", frozen))
            self.snapshots.append((frozen, frozen.copy()))
            path = os.path.join(self.folder, f"memory{k}")
            with open(path, "wb") as file:
                file.write(inner.tobytes().ljust(mmap.PAGESIZE, b"\0"))
            paged = np.memmap(path, dtype, "r", shape=shape)
            self.constants.append(("pages that cannot be written", paged))
            self.constants.append(("the same as a plain array", np.asarray(paged).view(np.ndarray)))
            self.snapshots.append((paged, np.array(paged)))
        self.changing = np.array([2, 1])

    def change_constants(self):
        """Somebody else writes to arrays that calls have been given."""
        self.changing[:] = [[4, 0], [2, 1], [100, -5]][self.main.rng.randrange(3)]
        for name, array in self.constants:
            if name == "guarded":
                array[...] = 0.5

    def check_memory(self):
        for whole, n in self.guards:
            if not ((whole[:16] == 1234.5).all() and (whole[16 + n :] == 1234.5).all()):
                self.fault("memory", "a guard zone around an array was written to", "")
                whole[:16] = whole[16 + n :] = 1234.5
        for array, before in self.snapshots:
            if not np.array_equal(array, before):
                self.fault("memory", "a read-only array was written to", "")
                before[...] = array

    def small_training(self):
        """Bits that depend on nothing but minigrad's own state."""
        with mg.enable_grad():
            rng = np.random.default_rng(5)
            layer = mg.nn.LSTM(3, 4, rng=rng)
            head = mg.Tensor(rng.standard_normal((4, 2)).astype(np.float32), requires_grad=True)
            adam = mg.optim.Adam([*layer.parameters(), head], lr=0.1)
            x = mg.Tensor(rng.standard_normal((5, 2, 3)).astype(np.float32))
            for _ in range(3):
                adam.zero_grad()
                out, _ = layer(x)
                loss = mg.tanh(out @ head).sum()
                loss.backward()
                adam.step()
        return (
            np.concatenate([p.numpy().ravel() for p in adam.parameters]).tobytes()
            + np.float64(loss.item()).tobytes()
        )

    # -- the pool

    def keep(self, drawer, thing, depth=0):
        if isinstance(thing, (list, tuple)) and depth < 2 and type(thing) in (list, tuple):
            for part in thing[:5]:
                self.keep(drawer, part, depth + 1)
            return
        if isinstance(thing, types.GeneratorType):
            with contextlib.suppress(Stop):
                self.attempt(drawer, "next(generator)", lambda: next(thing, None), "")
            return
        if isinstance(thing, tuple):
            for part in thing[:3]:
                self.keep(drawer, part, depth + 1)
        if not is_ours(thing) and not isinstance(thing, (Net, Square)):
            return
        if isinstance(thing, mg.Tensor):
            try:
                if mg.Tensor.size.__get__(thing) > MAX_ELEMENTS:
                    return
            except Exception:
                pass
        if len(self.pool) < MAX_LIVE:
            self.pool.append(thing)
        else:
            with contextlib.suppress(IndexError):
                self.pool[drawer.rng.randrange(MAX_LIVE)] = thing

    # -- one call

    def note(self, text):
        if self.log is not None:
            os.write(
                self.log,
                f"{threading.get_native_id()} {text}\n".encode("utf-8", "backslashreplace"),
            )

    def fault(self, name, what, where, trace=""):
        key = f"{name}|{what[:80]}|{where}"
        if key in self.faults:
            return
        self.faults[key] = True
        line = {
            "call": name,
            "what": what[:400],
            "where": where,
            "seed": self.options.seed,
            "n": self.done,
            "last": self.last[:1500],
            "trace": trace[-3000:],
        }
        os.write(1, ("FAULT " + json.dumps(line) + "\n").encode())

    last = ""

    def attempt(self, drawer, name, call, text, attribute=False):
        """Make a call and judge what comes of it."""
        nested = drawer.depth > 0
        if not nested:
            with self.lock:
                self.done = next(self.calls)
            if self.done > self.options.calls:
                raise Stop
        self.reached.add(name)
        line = f"{self.done}{'  ' * drawer.depth} {name} {text}"
        self.last = line
        self.note(line)
        try:
            result = call()
        except Stop:
            raise
        except BaseException as error:
            outcome = type(error).__name__
            if JUDGED not in error.__dict__:  # else it comes out of a call inside of this one
                self.judge(name, error, attribute)
            if nested and drawer.chance(0.3):
                error.__dict__[JUDGED] = True
                raise
            result = None
        else:
            outcome = "ok"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        return result

    def judge(self, name, error, attribute):
        allowed = isinstance(error, ALLOWED) and not isinstance(error, NEVER)
        if isinstance(error, IndexError) and not any(part in name for part in INDEXING):
            # A subclass that tells a length of its own is iterated to that length.
            allowed = planted_below(error) or "LyingTensor" in self.last
        # With threads, one may replace a weight between another's check and its use.
        if (attribute or self.options.threads > 1) and isinstance(error, AttributeError):
            allowed = True
        if isinstance(error, StopIteration) and ("__next__" in name or "next(" in name):
            allowed = True
        if isinstance(error, (SystemError, AssertionError)):
            allowed = False
        elif (
            self.spoilt
            or not self.is_public(name)
            or (not allowed and (raised_by_ours(error) or named_exception(name, error)))
        ):
            allowed = True
        if not allowed:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "minigrad" in f.filename]
            where = f"{os.path.basename(ours[-1].filename)}:{ours[-1].lineno}" if ours else "?"
            text = "".join(traceback.format_exception(error))
            self.fault(name, f"{type(error).__name__}: {str(error)[:300]}", where, text)

    def is_public(self, name):
        """Are the classes of exceptions promised? What minigrad does not offer, but can be
        imported, must only not crash."""
        if name in self.callables:
            return name in self.public
        owner = name.partition(".")[0]
        return owner not in self.classes or owner in self.public_classes

    # -- actions

    def action(self, drawer):
        r = drawer.rng.random()
        if r < 0.34:
            name = drawer.pick(list(self.callables))
            self.call_name(drawer, name)
        elif r < 0.68:
            self.call_member(drawer)
        elif r < 0.78:
            self.backward(drawer)
        elif r < 0.83:
            self.set_attribute(drawer)
        elif r < 0.97:
            scene = drawer.pick(self.scenes)
            result = self.attempt(drawer, f"scene {scene.__name__}", lambda: scene(drawer), "")
            self.keep(drawer, result)
        elif r < 0.98:
            gc.collect()
        elif r < 0.985 and drawer.depth == 0:
            self.fork(drawer)
        else:
            with contextlib.suppress(IndexError, ValueError):
                for _ in range(drawer.rng.randrange(1, 20)):
                    self.pool.pop(drawer.rng.randrange(len(self.pool)))

    def call_name(self, drawer, name):
        thing = self.callables[name]
        parameters = parameters_of(thing)
        args, kwargs = drawer.arguments(parameters, name)
        if name.endswith("set_num_threads"):
            args = [a if not isinstance(a, (int, np.integer)) or a <= 8 else 8 for a in args]
            kwargs = {}
        text = ", ".join(
            [*map(described, args), *(f"{k}={described(v)}" for k, v in kwargs.items())]
        )
        result = self.attempt(drawer, name, lambda: thing(*args, **kwargs), text)
        self.keep(drawer, result)
        if name.endswith("set_num_threads") or drawer.chance(0.02):
            mg.set_num_threads(drawer.pick((1, 2, 3)))

    def member_arguments(self, drawer, thing, name, bound, label):
        if name == "__exit__":
            return (None, None, None), {}
        if name in ("__getitem__", "__delitem__") and isinstance(thing, mg.Tensor):
            return [drawer.index()], {}
        if name == "__setitem__" and isinstance(thing, mg.Tensor):
            return [drawer.index(), drawer.value()], {}
        if name == "__call__" and isinstance(thing, mg.nn.Module):
            return drawer.arguments(parameters_of(thing.forward), "__call__")
        return drawer.arguments(parameters_of(bound), label)

    def call_member(self, drawer):
        thing = drawer.own() if drawer.chance(0.55) else drawer.tensor()
        kind = type(thing)
        names = [
            n
            for n in dir(kind)
            if n not in NOT_CALLED
            and "pyx" not in n
            and (n.startswith("__") or not n.startswith("_"))
        ]
        if not names:
            return
        name = drawer.pick(names)
        label = f"{kind.__name__}.{name}"
        member = inspect.getattr_static(kind, name)
        if not callable(member) and not isinstance(member, (staticmethod, classmethod)):
            result = self.attempt(
                drawer, label, lambda: getattr(thing, name), described(thing), attribute=True
            )
            self.keep(drawer, result)
            return
        if name == "__new__" and (kind.__flags__ & HEAP_TYPE or self.options.initialised):
            return
        if name == "__new__":
            result = self.attempt(drawer, label, lambda: kind.__new__(kind), "")
            self.keep(drawer, result)
            return
        bound = self.attempt(
            drawer, label, lambda: getattr(thing, name), described(thing), attribute=True
        )
        if bound is None:
            return
        args, kwargs = self.member_arguments(drawer, thing, name, bound, label)
        text = ", ".join(
            [
                described(thing),
                *map(described, args),
                *(f"{k}={described(v)}" for k, v in kwargs.items()),
            ]
        )
        result = self.attempt(
            drawer,
            label,
            lambda: bound(*args, **kwargs),
            text,
            attribute=name in ("__getattr__", "__format__"),
        )
        self.keep(drawer, result)
        if name == "__enter__" and drawer.chance(0.8):
            with contextlib.suppress(Planted):
                self.action(drawer)
            self.attempt(
                drawer, f"{kind.__name__}.__exit__", lambda: thing.__exit__(None, None, None), ""
            )

    def backward(self, drawer):
        t = drawer.tensor()
        if drawer.chance(0.2):
            other = drawer.tensor()
            text = f"{described(t)} {described(other)}"
            result = self.attempt(
                drawer,
                "grad",
                lambda: mg.grad(
                    mg.sum(t), other, create_graph=drawer.chance(0.4), allow_unused=True
                ),
                text,
            )
            self.keep(drawer, result)
            return
        seed = drawer.value() if drawer.chance(0.1) else None
        retain, create = drawer.chance(0.4), drawer.chance(0.25)

        def run():
            root = t if seed is not None else mg.sum(t)
            root.backward(seed, retain_graph=retain, create_graph=create)

        self.attempt(drawer, "backward", run, described(t))
        if drawer.chance(0.3):
            self.attempt(drawer, "read gradient", lambda: self.keep(drawer, t.grad), described(t))

    def set_attribute(self, drawer):
        """What users set: grad, requires_grad, weights of a module; with --spoil any attribute of
        anything."""
        thing = drawer.own() if drawer.chance(0.7) else drawer.tensor()
        if isinstance(thing, mg.Tensor):
            name = drawer.pick(("grad", "grad", "requires_grad", "grad"))
            frozen = mg.Tensor(drawer.pick(self.constants)[1], copy=False)
            value = drawer.pick((None, drawer.value(), drawer.tensor(), True, frozen))
            if type(thing) is mg.Tensor and ready(thing) and drawer.chance(0.2):
                value = mg.ones(thing.shape, thing.dtype)
        elif self.options.spoil:
            names = [
                *getattr(thing, "__dict__", {}),
                *(n for n in dir(type(thing)) if not n.startswith("__")),
            ]
            if not names:
                return
            name, value = drawer.pick(names), drawer.value()
            self.spoilt = True
        elif isinstance(thing, mg.nn.Module):
            names = [n for n, v in vars(thing).items() if isinstance(v, mg.Tensor)]
            if not names:
                cells = [c for c in getattr(thing, "cells", ()) if isinstance(c, mg.nn.Module)]
                if not cells:
                    return
                thing = drawer.pick(cells)
                names = [n for n, v in vars(thing).items() if isinstance(v, mg.Tensor)] or ["W"]
            name = drawer.pick(names)
            old = vars(thing).get(name)
            shape = (
                old.shape
                if drawer.chance(0.4) and old is not None and ready(old)
                else drawer.shape()
            )
            value = drawer.pick(
                (
                    mg.Tensor(drawer.plain(shape), requires_grad=drawer.chance(0.7)),
                    drawer.tensor(),
                    drawer.value(),
                )
            )
        else:
            return
        self.attempt(
            drawer,
            f"{type(thing).__name__}.{name} =",
            lambda: setattr(thing, name, value),
            f"{described(thing)} {described(value)}",
            attribute=True,
        )

    def fork(self, drawer):
        """A child goes on alone: it must neither crash nor hang, and compute the same."""
        self.note(f"{self.done} fork")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads
            child = os.fork()
        if child == 0:
            code = 77
            try:
                self.options.calls += 1000
                signal.alarm(60)
                faulthandler.register(signal.SIGALRM, chain=True)  # where does it hang?
                for _ in range(5):
                    with contextlib.suppress(Exception):  # of an argument that cannot be made
                        self.action(drawer)
                # Where attributes are spoilt, those of classes too, a training may refuse to run.
                same = self.spoilt or self.small_training() == self.reference
                code = 0 if same else 78
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        end = time.monotonic() + 90
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                status = "hangs"
                break
            time.sleep(0.002)
        if status:
            self.fault("fork", f"the child of a fork ended with status {status}", "")

    def loop(self, drawer):
        interrupts = (
            self.options.interrupts and threading.current_thread() is threading.main_thread()
        )
        k = 0
        try:
            while not self.done > self.options.calls:
                k += 1
                try:
                    try:
                        if interrupts and drawer.chance(0.5):
                            signal.setitimer(
                                signal.ITIMER_REAL, drawer.rng.random() ** 3 * 0.003 + 1e-6
                            )
                        self.action(drawer)
                    finally:
                        if interrupts:
                            signal.setitimer(signal.ITIMER_REAL, 0)
                except (
                    Planted,
                    *ALLOWED,
                ):  # not of a call, which is judged: an argument could not be made
                    drawer.depth = 0
                except Exception as error:
                    drawer.depth = 0
                    if not self.spoilt and JUDGED not in error.__dict__:
                        self.fault(
                            "harness", traceback.format_exc(limit=-3), "", traceback.format_exc()
                        )
                if k % 40 == 0 and drawer is self.main:
                    self.check_memory()
                    mg.enable_grad().__enter__()  # contexts may have been entered and left alone
        except Stop:
            pass

    def everything(self):
        if self.options.interrupts:
            signal.signal(signal.SIGALRM, planted_alarm)
        if self.options.threads:
            drawers = [
                self.main,
                *(
                    Drawer(self.options.seed * 1000 + k, self)
                    for k in range(1, self.options.threads)
                ),
            ]
            threads = [threading.Thread(target=self.loop, args=(drawer,)) for drawer in drawers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            self.loop(self.main)
        self.pool.clear()
        gc.collect()
        self.check_memory()
        if not self.spoilt and self.small_training() != self.reference:
            self.fault("state", "a small training gives other bits after the calls than before", "")


def planted_alarm(number, frame):
    raise Planted("signal")
