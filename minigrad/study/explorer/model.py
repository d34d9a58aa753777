"""What the explorer shows: the vertices of a graph with what is known of each, and their places in
rows of layers and columns of time steps."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.core.facts import own_output_of
from minigrad.core.recording import Entry, Summary, entry_of, summarised
from minigrad.core.tensor import Node, Tensor
from minigrad.nn.fused import expansion
from minigrad.study.picture import steps_by_use
from minigrad.study.recording import Recording
from minigrad.study.stepping import INPUTS_OF_LAYER, Step, Steps, steps

__all__ = ["Model", "Vertex", "model_of_graph", "model_of_recording"]


@dataclass
class Vertex:
    """A leaf, a constant or an op.

    Args:
        name: of the op, or of the leaf.
        kind: "leaf", "constant" or "op".
        inputs: the numbers of the vertices that it was made of.
        shape: of its value, or None where that is not known.
        scope: the modules that were running.
        t: the time step, or None.
        where: the user's line.
        rule: what its rule computes.
        saved: bytes that it keeps for its rule.
        values: its value in short, or None.
        gradient: the gradient in short, or None if none arrived.
        visit: its place in the order of the backward pass, from 0; None if it is not visited.
    """

    name: str
    kind: str
    inputs: list[int] = field(default_factory=list)
    shape: tuple[int, ...] | None = None
    scope: str = ""
    t: int | None = None
    where: str = ""
    rule: str = ""
    saved: int = 0
    values: Summary | None = None
    gradient: Summary | None = None
    visit: int | None = None


class Model:
    """The vertices in the order in which they were made: inputs come first."""

    def __init__(self) -> None:
        self.vertices: list[Vertex] = []
        self.number: dict[Any, int] = {}  # serial of a node, or ("leaf", id) of a leaf
        self.visits = 0
        self.expanded: dict[str, int] = {}  # how many fused layers of a scope have been opened

    def add(self, vertex: Vertex, key: Any = None) -> int:
        """Put a vertex at the end; return its number."""
        self.vertices.append(vertex)
        if key is not None:
            self.number[key] = len(self.vertices) - 1
        return len(self.vertices) - 1

    def leaf(self, x: Tensor, names: dict[int, str]) -> int:
        """The number of a leaf, which is added when it is met first."""
        key = ("leaf", id(x))
        if key not in self.number:
            name = names.get(id(x), "leaf")
            self.add(Vertex(name, "leaf", shape=x.shape, values=summarised(x._array)), key)
        return self.number[key]

    def give_gradient(self, number: int, dy: Any) -> None:
        """A gradient has arrived; more of it may follow."""
        vertex = self.vertices[number]
        array = dy.numpy() if isinstance(dy, Tensor) else dy
        vertex.gradient = summarised(np.ascontiguousarray(array))

    def visit(self, number: int) -> None:
        """The backward pass comes to a vertex."""
        self.vertices[number].visit = self.visits
        self.visits += 1


# ---------------------------------------------------------------- from a loss


def model_of_graph(loss: Tensor, names: dict[int, str]) -> Model:
    """The graph behind a loss, with the gradients of a backward pass that is given up before its
    end: no ``grad`` changes. Fused layers are opened: their time steps stand in their place."""
    model = Model()
    arrived: dict[int, np.ndarray] = {}  # gradients of leaves, by id
    inside: dict[int, Steps] = {}
    nodes = _nodes(loss)
    with steps(loss, retain_graph=True) as run:
        stops = _collect(run, nodes, arrived, inside)
    # Expansions come in the order of the backward pass; the graph is shown as it was made.
    for node in nodes:
        if node.serial in inside:
            _add_expansion(model, node, inside[node.serial], names)
        else:
            _add_node(model, node, names)
    _name_steps(model)
    for key in stops:
        if key in model.number:
            number = model.number[key]
            model.visit(number)
            if stops[key] is not None:
                model.give_gradient(number, stops[key])
    for leaf, gradient in arrived.items():
        if ("leaf", leaf) in model.number:
            model.give_gradient(model.number["leaf", leaf], gradient)
    return model


def _nodes(loss: Tensor) -> list[Node]:
    """All nodes behind a tensor, in the order in which they were made."""
    found: dict[int, Node] = {}
    waiting = [loss.grad_fn] if loss.grad_fn is not None else []
    while waiting:
        node = waiting.pop()
        if node.serial in found:
            continue
        found[node.serial] = node
        waiting += [slot for slot in node.inputs if isinstance(slot, Node)]
    return [found[serial] for serial in sorted(found)]


def _collect(
    run: Steps, nodes: list[Node], arrived: dict[int, np.ndarray], inside: dict[int, Any]
) -> dict[Any, np.ndarray | None]:
    """Walk the backward pass: {key of a node: its gradient}, in the order of the visits. The last
    step is not left, since going on would commit."""
    stops: dict[Any, np.ndarray | None] = {}
    for step in run:
        node = step.node
        if expansion(node) is not None:
            inside[node.serial] = _walk_inside(step, stops)
        else:
            stops[node.serial] = step.dy.numpy() if isinstance(step.dy, Tensor) else None
        leads_on = any(isinstance(slot, Node) for slot in step.inputs)
        if not leads_on and len(run.pending) == 1:
            _gather_leaves(run, step, arrived)
            break
    return stops


def _gather_leaves(run: Steps, step: Step, arrived: dict[int, np.ndarray]) -> None:
    """What the leaves would have at the end: what has arrived, and what the last step gives."""
    for leaf, gradient in run.gradients.items():
        arrived[id(leaf)] = gradient.numpy()
    for slot, dx in zip(step.inputs, step.dx, strict=True):
        if isinstance(slot, Tensor) and dx is not None:
            arrived[id(slot)] = arrived.get(id(slot), 0.0) + dx.numpy()


def _walk_inside(step: Step, stops: dict[Any, np.ndarray | None]) -> Any:
    """The steps of a fused layer, opened: the pass through it and what it recorded."""
    expanded = step.expand(values="strips")
    with expanded as run:
        for inner in run:
            stops[inner.node.serial] = inner.dy.numpy() if isinstance(inner.dy, Tensor) else None
    return expanded


# ---------------------------------------------------------------- vertices


def _add_node(model: Model, node: Node, names: dict[int, str]) -> None:
    entry = entry_of(node)
    rule = node.rule
    vertex = Vertex(node.name, "op", rule="" if rule is None else str(rule))
    _describe(vertex, node, entry)
    for i, slot in enumerate(node.inputs):
        if isinstance(slot, Node):
            if slot.serial in model.number:
                vertex.inputs.append(model.number[slot.serial])
        elif isinstance(slot, Tensor):
            vertex.inputs.append(model.leaf(slot, names))
        else:
            source = None if entry is None else entry.inputs[i]
            if entry is not None and (source is None or source.shape is None):
                continue
            constant = Vertex("constant", "constant", scope=vertex.scope, t=vertex.t)
            if source is not None:
                constant.shape, constant.values = source.shape, source.values
            vertex.inputs.append(model.add(constant))
    model.add(vertex, node.serial)


def _short_line(entry: Entry) -> str:
    """The user's line, without the folders that its file is in."""
    if entry.line is None:
        return ""
    folder = os.path.dirname(entry.line[0])
    return entry.where.removeprefix(folder).lstrip(os.sep)


def _describe(vertex: Vertex, node: Node, entry: Entry | None) -> None:
    """What a recording, or the node itself, knows."""
    if entry is not None:
        vertex.name, vertex.scope, vertex.t = entry.name, entry.scope, entry.t
        vertex.where, vertex.shape = _short_line(entry), entry.shape
        vertex.saved, vertex.values = entry.saved_bytes, entry.values
    else:
        vertex.saved = sum(x.numpy().nbytes for x in node.saved if x is not None)
        output = own_output_of(node)
        if output is not None:
            vertex.shape, vertex.values = output.shape, summarised(output.numpy())


def _add_expansion(model: Model, node: Node, expanded: Any, names: dict[int, str]) -> None:
    """The ops of a fused layer's steps, with the layer's own inputs."""
    entry = entry_of(node)
    scope = node.name if entry is None or not entry.scope else entry.scope
    # The nodes of a layer come in the order of its cells.
    scope += f"/cells.{model.expanded.get(scope, 0)}"
    model.expanded[scope.rpartition("/")[0]] = int(scope.rpartition(".")[2]) + 1
    outer = {}
    for name, point, slot in zip(INPUTS_OF_LAYER, expanded.points, node.inputs, strict=True):
        if point is None:
            continue
        if isinstance(slot, Tensor):
            outer[id(point)] = model.leaf(slot, names)
        elif isinstance(slot, Node) and slot.serial in model.number:
            outer[id(point)] = model.number[slot.serial]
        else:
            constant = Vertex(name, "constant", shape=point.shape, scope=scope)
            constant.values = summarised(np.ascontiguousarray(point.numpy()))
            outer[id(point)] = model.add(constant)
    last = 0
    for inner in expanded.recording.entries:
        vertex = Vertex(inner.name, "op", shape=inner.shape, t=inner.t, values=inner.values)
        vertex.scope, vertex.saved = scope, inner.saved_bytes
        vertex.where = "" if entry is None else _short_line(entry)
        for source in inner.inputs:
            if source.serial is not None and source.serial in model.number:
                vertex.inputs.append(model.number[source.serial])
            elif source.leaf is not None and id(source.leaf) in outer:
                vertex.inputs.append(outer[id(source.leaf)])
            elif source.shape is not None:
                constant = Vertex("constant", "constant", shape=source.shape, scope=scope)
                constant.t, constant.values = inner.t, source.values
                vertex.inputs.append(model.add(constant))
        last = model.add(vertex, inner.serial)
    model.number[node.serial] = last  # what the graph goes on from


def _name_steps(model: Model) -> None:
    """Time steps by the uses of the recurrent weight, where nothing was recorded."""
    if any(vertex.t is not None for vertex in model.vertices):
        return
    inputs = [vertex.inputs for vertex in model.vertices]
    found = steps_by_use(inputs, [vertex.kind for vertex in model.vertices])
    for vertex, t in zip(model.vertices, found, strict=True):
        if vertex.kind == "op":
            vertex.t = t


# ---------------------------------------------------------------- from a recording


def model_of_recording(recording: Recording, names: dict[int, str]) -> Model:
    """What was recorded; gradients, if a backward pass ran inside of the block."""
    model = Model()
    for entry in recording.entries:
        vertex = Vertex(entry.name, "op", shape=entry.shape, scope=entry.scope, t=entry.t)
        vertex.where, vertex.saved = _short_line(entry), entry.saved_bytes
        vertex.values = entry.values
        for source in entry.inputs:
            if source.serial is not None:
                if source.serial in model.number:
                    vertex.inputs.append(model.number[source.serial])
            elif source.leaf is not None:
                vertex.inputs.append(model.leaf(source.leaf, names))
            elif source.shape is not None:
                constant = Vertex("constant", "constant", shape=source.shape, scope=entry.scope)
                constant.t, constant.values = entry.t, source.values
                vertex.inputs.append(model.add(constant))
        vertex.gradient = entry.gradient
        model.add(vertex, entry.serial)
    for number in range(len(model.vertices) - 1, -1, -1):  # the newest first, as the sweep goes
        if model.vertices[number].gradient is not None:
            model.visit(number)
    return model
