"""Stepping through a backward pass: it stops before the rule of each node, where gradients can be
looked at and changed.

The sweep itself is in core/stepping.pyx and core/sweep.pyx; the prompt of
``python -m minigrad.study`` is in __main__.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from minigrad.core.facts import output_index
from minigrad.core.modes import enable_grad
from minigrad.core.stepping import Stepper
from minigrad.core.tensor import Node, Tensor
from minigrad.nn.fused import expansion
from minigrad.study.names import names_of_leaves
from minigrad.study.recording import Recording

if TYPE_CHECKING:
    from types import TracebackType

    from minigrad.core.rules import Rule
    from minigrad.core.tensor import Operand, Slot

__all__ = ["INPUTS_OF_LAYER", "Expansion", "Step", "Steps", "steps"]

# A fused layer, op by op: a function of its inputs, these inputs, and the bound of clip_state_grad.
FusedLayer: TypeAlias = tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor | None, ...], float]
FEW = 8  # values of a gradient that are printed with a step

Gradient: TypeAlias = Tensor | tuple[Tensor | None, ...]


class Step:
    """One stop of a backward pass, before the rule of `node` runs; `mg.study.steps` gives them.

    What belongs to the moment (`dy`, `saved`, `dx`, `so_far`) can be asked for until the pass goes
    on; later it is a RuntimeError.

    >>> import minigrad as mg
    >>> x = mg.Tensor([3.0], requires_grad=True)
    >>> step = next(mg.study.steps(x * x))
    >>> print(step.name, "|", step.rule)
    mul | z = a b   da = dz b, db = dz a
    >>> step.dy, step.saved, step.dx
    (Tensor([1.]), (Tensor([3.]), Tensor([3.])), (Tensor([3.]), Tensor([3.])))
    """

    def __init__(self, owner: Steps, node: Node, number: int) -> None:
        self._owner = owner
        self.node = node
        self.number = number

    @property
    def name(self) -> str:
        """The op's name; for one output of an op with several, with the output's number: lstm[0].
        The op itself comes after those of its outputs that got a gradient."""
        index = output_index(self.node)
        return self.node.name if index is None else f"{self.node.name}[{index}]"

    @property
    def inputs(self) -> tuple[Slot | None, ...]:
        """What the rule gives gradients to: a Node, a leaf Tensor, or None for a constant."""
        return self.node.inputs

    @property
    def rule(self) -> Rule | None:
        """The comment that stands above the rule in its source, with `file` and `line`; None if
        there is no source."""
        return self.node.rule

    @property
    def where(self) -> str | None:
        """The user's line that made the node, if that was inside of `mg.study.record`."""
        return self._owner._where_of(self.node)

    @property
    def scope(self) -> str | None:
        """The modules that were running then, as `Node.scope` tells."""
        return self._owner._scope_of(self.node)

    @property
    def t(self) -> int | None:
        """The step of `nn.unroll` in which the node was made, as `Node.t` tells."""
        return self.node.t

    @property
    def shape(self) -> tuple[Any, ...]:
        """The shape of `dy`; of an op with several outputs, a tuple of them, None for those that
        got no gradient."""
        dy = self.dy
        if isinstance(dy, Tensor):
            return dy.shape
        return tuple(None if part is None else part.shape for part in dy)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of `dy`."""
        dy = self.dy
        if isinstance(dy, Tensor):
            return dy.dtype
        return next(part.dtype for part in dy if part is not None)

    @property
    def dy(self) -> Gradient:
        """The gradient of the op's output, after its hooks: a read-only copy. Of an op with several
        outputs, a tuple, with None for those that got none.

        Assign to it, and the pass goes on with what was assigned, as if the last hook had returned
        it. It must have the same shape and dtype.
        """
        return self._now().dy

    @dy.setter
    def dy(self, value: Gradient) -> None:
        self._now().dy = value
        self._owner._edited = True

    @property
    def saved(self) -> tuple[Tensor | None, ...]:
        """The tensors that the rule will read, as read-only aliases; None for one that was not
        saved, since no input wants the gradient that needs it."""
        self._now()
        return self.node.saved

    @property
    def dx(self) -> tuple[Tensor | None, ...]:
        """What the rule gives each input, or None: it is run aside, and nothing changes. If the
        rule was written in Python, that function is called once more.

        Assign to it, and the inputs get what was assigned in place of what the rule gives; until
        `dy` is assigned, of which the rule makes them again.
        """
        return self._now().dx

    @dx.setter
    def dx(self, value: tuple[Tensor | None, ...]) -> None:
        self._now().dx = value
        self._owner._edited = True

    @property
    def so_far(self) -> tuple[Tensor | None, ...]:
        """What has arrived at each input before this rule runs, or None."""
        return self._now().so_far

    def expand(self, values: Literal["strips", "full"] | None = None) -> Expansion:
        """Step through time inside a fused layer: the same sequence, run anew by its cell, op by
        op, from the layer's inputs, and a backward pass through that which starts from `dy`.

        It stands aside: no ``grad`` changes. When it has run to its end, `Expansion.dx` holds what
        came out: the bits of `dx`, but for the sign of zeros. If something was edited inside, that
        becomes this step's `dx`, so that this pass goes on with it. Left before its end, or after
        this pass has gone on, it changes nothing.

        What is edited equals the same edit by a hook in the op-by-op form. Where a weight has
        gathered a gradient from another call before, the two are added, which rounds once more.

        Args:
            values: what `Expansion.recording` keeps of the values, as `mg.study.record` says.
                Default: None.

        Returns:
            An `Expansion`. Its steps know `t`; its leaves are called x, h0, c0, W, U, b and p.

        Raises:
            RuntimeError: The op is no fused layer, the pass has left it, or what the layer saved
                was changed in place.
            TypeError, ValueError: `values` is none of these.

        >>> import minigrad as mg
        >>> layer = mg.nn.LSTM(2, 3)
        >>> out, _ = layer(mg.ones((5, 1, 2)))
        >>> step = mg.study.steps((out * out).sum()).run(until="lstm")
        >>> with step.expand() as inside:
        ...     at = inside.run(until=lambda step: step.t == 2)
        ...     print(at.name, at.t, at.dy.shape)
        ...     _ = inside.run()
        mul 2 (1, 3)
        >>> all((a == b).all() for a, b in zip(inside.dx, step.dx) if a is not None)
        True
        """
        _ = self.saved  # reads them: are they as they were?
        fused = expansion(self.node)
        if fused is None and output_index(self.node) is not None:
            raise RuntimeError(
                f"steps: {self.name} is an output of an op: go on to {self.node.name} itself"
            )
        if fused is None:
            raise RuntimeError(f"steps: only a fused layer can be expanded, {self.name} is none")
        return Expansion(self, fused, values)

    def _is_now(self) -> bool:
        return self._owner._stepper.node is self.node and self._owner._count == self.number

    def _now(self) -> Stepper:
        if not self._is_now():
            raise RuntimeError(
                f"steps: the backward pass has left step {self.number}, {self.name}: look at a "
                f"step before going on"
            )
        return self._owner._stepper

    def __repr__(self) -> str:
        return f"<Step {self.number} {self.name}>"

    def __str__(self) -> str:
        names = [self._owner.label(slot) for slot in self.inputs]
        lines = [f"{self.number} {self.name} of {', '.join(names)}"]
        made = [self.scope, None if self.t is None else f"t = {self.t}", self.where]
        if any(made):
            lines.append("    " + ", ".join(part for part in made if part))
        if self.rule is not None:
            lines.append(f"    {self.rule}")
        if self._is_now():
            lines.append(f"    dy = {_brief(self.dy)}")
        return "\n".join(lines)


Until: TypeAlias = Node | str | Callable[[Step], object] | None


class Steps(Iterator[Step]):
    """A backward pass under way, as `mg.study.steps` makes it: an iterator over its stops, and a
    context in which it is given up at the end unless it has run to the end.

    >>> import minigrad as mg
    >>> x = mg.Tensor([3.0], requires_grad=True)
    >>> with mg.study.steps(mg.tanh(x) * 2.0) as pass_:
    ...     print(next(pass_).name, pass_.run(until="tanh").name, pass_.pending)
    mul tanh (<Node tanh>,)
    >>> print(x.grad)
    None
    """

    def __init__(
        self,
        roots: list[Tensor],
        gradients: list[Operand | None],
        retain_graph: bool,
        create_graph: bool,
        names: Mapping[str, Tensor] | None,
        inputs: list[Tensor] | None = None,
    ) -> None:
        self._names = names_of_leaves("steps", names)
        self._stepper = Stepper(roots, gradients, retain_graph, create_graph, inputs)
        self._count = 0
        self._edited = False

    @property
    def step(self) -> Step | None:
        """Where the pass stands; None before the first step and after the last."""
        node = self._stepper.node
        return None if node is None else Step(self, node, self._count)

    @property
    def pending(self) -> tuple[Node, ...]:
        """The nodes that have been given a gradient and wait for their turn, the next one first."""
        return self._stepper.pending

    @property
    def gradients(self) -> dict[Tensor, Tensor]:
        """What has arrived at each leaf and is not committed yet."""
        return self._stepper.gradients

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> Step:
        """Run the rule of the node where the pass stands, and stop before the next one."""
        self._advance()
        step = self.step
        if step is None:
            raise StopIteration
        return step

    def run(self, until: Until = None) -> Step | None:
        """Go on, at least by one node, and return the Step where it stopped; None at the end, where
        the gradients have been committed.

        Args:
            until: Where to stop. A Node, such as ``h.grad_fn``; the name of an op; a function that
                is given each Step and returns whether to stop; or "nonfinite": before the first
                node whose `dy`, or a gradient that its rule makes of it, is not finite. Default:
                None, run to the end.

        Raises:
            TypeError: `until` is none of these.
            RuntimeError: The pass was given up before its end.
        """
        if until is None:
            while self._advance():
                pass
            return None
        holds = condition(until)
        for step in self:
            if holds(step):
                return step
        return None

    def close(self) -> None:
        """Give the pass up, unless it has run to the end: no ``grad`` has changed. Without
        retain_graph the nodes that it passed have let go of what they saved."""
        self._stepper.close()

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def label(self, slot: Slot | None) -> str:
        """How a slot is shown: the name and shape of a leaf, the name of an op."""
        if slot is None:
            return "a constant"
        if isinstance(slot, Tensor):
            return f"{self._names.get(id(slot), 'leaf')} {slot.shape}"
        assert isinstance(slot, Node)
        return self._names.get(id(slot), slot.name)

    def _where_of(self, node: Node) -> str | None:
        """What `Step.where` tells."""
        return node.where

    def _scope_of(self, node: Node) -> str | None:
        """What `Step.scope` tells."""
        return node.scope

    def _advance(self) -> bool:
        if self._stepper.over and not self._stepper.committed:
            raise RuntimeError(
                "steps: this backward pass was given up before its end. Begin another one; if the "
                "graph is to serve for both, begin the first with retain_graph=True"
            )
        self._count += 1
        return self._stepper.advance()


INPUTS_OF_LAYER = ("x", "h0", "c0", "W", "U", "b", "p")


class Expansion(Steps):
    """A backward pass through the time steps of a fused layer, as `Step.expand` makes it.

    Attributes:
        points: the layer's inputs x, h0, c0, W, U, b and p, which the steps were computed from;
            None for those that it has not.
        recording: what was noted of the steps' ops.

    >>> import minigrad as mg
    >>> out, _ = mg.nn.GRU(2, 3)(mg.ones((4, 1, 2)))
    >>> inside = mg.study.steps(out.sum()).run(until="gru").expand()
    >>> next(inside).name, inside.run() is None
    ('stack', True)
    >>> [None if dx is None else dx.shape for dx in inside.dx]
    [None, None, None, (2, 9), (3, 9), (9,), None]
    """

    def __init__(
        self, outer: Step, fused: FusedLayer, values: Literal["strips", "full"] | None
    ) -> None:
        composed, inputs, clip = fused
        outside = outer._now()
        dys = outside.dy
        create_graph = outside.create_graph
        self._outer = outer
        self._wanted = [slot is not None for slot in outer.inputs]
        self.recording = Recording(values, False, alone=True)  # it knows the time step of each op
        with enable_grad(), self.recording:
            self.points = [
                _point(x, wanted, create_graph)
                for x, wanted in zip(inputs, self._wanted, strict=True)
            ]
            outputs = composed(*self.points, bound=clip)
        roots: list[Tensor] = []
        gradients: list[Operand | None] = []
        for y, dy in zip(outputs, dys, strict=True):
            if isinstance(dy, Tensor) and y.requires_grad:
                roots.append(y)
                gradients.append(dy)
        names = {
            name: point
            for name, point in zip(INPUTS_OF_LAYER, self.points, strict=True)
            if point is not None
        }
        targets = [
            point
            for point, wanted in zip(self.points, self._wanted, strict=True)
            if point is not None and wanted
        ]
        super().__init__(roots, gradients, False, create_graph, names, targets)
        for name, point in names.items():
            if point.grad_fn is not None:
                self._names[id(point.grad_fn)] = name

    @property
    def dx(self) -> tuple[Tensor | None, ...]:
        """At the end of the pass: the gradient of each input of the layer, or None, in the order x,
        h0, c0, W, U, b, p."""
        if not self._stepper.committed:
            raise RuntimeError("steps: the expanded pass has not run to its end: call run()")
        found = iter(self._stepper.found)
        return tuple(next(found) if wanted else None for wanted in self._wanted)

    def _where_of(self, node: Node) -> str | None:
        return self._outer.where

    def _scope_of(self, node: Node) -> str | None:
        return "/".join(part for part in (self._outer.scope, node.scope) if part)

    def _advance(self) -> bool:
        going = super()._advance()
        if not going and self._edited and self._outer._is_now():
            self._outer.dx = self.dx
        return going


def _point(x: Tensor | None, wanted: bool, create_graph: bool) -> Tensor | None:
    """An input of the layer, for the steps inside to be computed from: apart from the graph that
    it belongs to; or a node on it, if the gradients are to be differentiated again."""
    if x is None:
        return None
    if not wanted:
        return x.detach()
    return x.reshape(x.shape) if create_graph else x.detach().requires_grad_()


def steps(
    loss: Tensor,
    gradient: Operand | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
    names: Mapping[str, Tensor] | None = None,
) -> Steps:
    """A backward pass that stops before the rule of each node: an iterator of `Step`; a context.

    It computes what ``loss.backward()`` does, to the bit. When it has run to the end, the gradients
    are added to ``grad``; when it is left earlier, no ``grad`` has changed. Hooks run as in
    backward, those of a node before the pass stops there.

    Args:
        loss: The Tensor to begin from.
        gradient: The gradient of `loss`, of its shape; may be left out for a scalar. Default: None.
        retain_graph: Whether the graph is kept for another backward pass. Default: False.
        create_graph: Whether the gradients can be differentiated again. Default: False.
        names: Names of leaves to be shown, such as ``dict(module.named_parameters())``. Default:
            None.

    Returns:
        A `Steps`: ``next`` goes on by one node, ``run(until=...)`` to a place; ``pending`` and
        ``gradients`` tell what waits.

    Raises:
        TypeError: `loss` is not a Tensor, or another argument has the wrong type.
        ValueError: `gradient` has another shape than `loss`.
        RuntimeError: `loss` does not require grad, its graph was freed, or it is not a scalar and
            no `gradient` was given.

    >>> import minigrad as mg
    >>> a = mg.Tensor([2.0], requires_grad=True)
    >>> b = mg.Tensor([0.5], requires_grad=True)
    >>> for step in mg.study.steps(mg.tanh(a * b) + a, names={"a": a, "b": b}):
    ...     print(step)
    1 add of tanh, a (1,)
        z = a + b   da = dz, db = dz
        dy = Tensor([1.])
    2 tanh of mul
        y = tanh x   dx = dy (1 - y^2)
        dy = Tensor([1.])
    3 mul of a (1,), b (1,)
        z = a b   da = dz b, db = dz a
        dy = Tensor([0.41997433])
    >>> print(a.grad, b.grad)
    Tensor([1.2099872]) Tensor([0.83994865])
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"steps: loss must be a Tensor, got {type(loss).__name__}")
    if not loss.requires_grad:
        raise RuntimeError(
            "steps: loss has no graph: it must be computed from tensors with requires_grad=True, "
            "and outside of no_grad"
        )
    return Steps([loss], [gradient], retain_graph, create_graph, names)


def _brief(dy: Gradient) -> str:
    """A gradient in a few words; with its values, if they are few."""
    if isinstance(dy, tuple):
        return f"({', '.join('None' if part is None else _brief(part) for part in dy)})"
    if dy.size <= FEW:
        return str(dy)
    norm = float(np.linalg.norm(dy.numpy()))
    return f"{dy.dtype} of shape {dy.shape} and norm {norm:.3g}"


def condition(until: Until) -> Callable[[Step], object]:
    """Does a pass that runs `until` this stop at a step?

    >>> import minigrad as mg
    >>> from minigrad.study.stepping import condition
    >>> condition("mul")(next(mg.study.steps(mg.zeros((), requires_grad=True) * 2.0)))
    True
    """
    if isinstance(until, Node):
        return lambda step: step.node is until
    if until == "nonfinite":
        return _is_nonfinite
    if isinstance(until, str):
        return lambda step: step.name == until
    if callable(until):
        return until
    raise TypeError(
        "steps: until must be a Node, the name of an op, a function or 'nonfinite', got "
        f"{type(until).__name__}"
    )


def _is_nonfinite(step: Step) -> bool:
    dy = step.dy
    gradients = [*(dy if isinstance(dy, tuple) else (dy,)), *step.dx]
    return not all(np.isfinite(part.numpy()).all() for part in gradients if part is not None)
