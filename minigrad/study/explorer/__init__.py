"""The explorer: a graph with its values and gradients as one HTML file, to be opened in a browser.

model.py gathers what is shown, page.py writes it down, explorer.js shows it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from minigrad.core.tensor import Tensor
from minigrad.study.explorer.model import Model, model_of_graph, model_of_recording
from minigrad.study.explorer.page import page
from minigrad.study.names import names_of_leaves
from minigrad.study.recording import Recording

__all__ = ["explore"]

MOST = 100_000  # vertices for which the page is promised to be fast


def explore(
    graph: Tensor | Recording,
    path: str | os.PathLike[str],
    names: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write an HTML file that shows a graph: layers in rows, time steps in columns, the values and
    the gradients, how these grow or vanish over time, and the order of both passes. It needs no
    network and no server: open it in a browser.

    Of a loss, the gradients come from a backward pass aside: no ``grad`` changes, and the graph
    stays. Fused layers are opened, so that their time steps can be seen. Values of all ops, lines
    of code and names of modules are known if the loss was made inside of
    ``mg.study.record(values="strips")``.

    Args:
        graph: a loss, of one element; or a Recording, for what ran inside of it, with the gradients
            of a backward pass inside of it.
        path: the file to write. One that is there is replaced.
        names: names of leaves, such as ``dict(module.named_parameters())``. Default: None.

    Returns:
        The path.

    Raises:
        TypeError: `graph` is neither, or `names` does not map names to Tensors.
        RuntimeError: the loss has no graph, is no scalar, or its graph was freed.
        ValueError: nothing was recorded.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import minigrad as mg
    >>> layer = mg.nn.LSTM(2, 3)
    >>> with mg.study.record(values="strips") as rec:
    ...     loss = layer(mg.ones((10, 1, 2)))[0][-1].sum()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = mg.study.explore(loss, Path(folder, "lstm.html"), dict(layer.named_parameters()))
    ...     "<title>The graph of sum, " in path.read_text(encoding="utf-8")
    True
    """
    known = names_of_leaves("explore", names)
    if isinstance(graph, Recording):
        if not graph.entries:
            raise ValueError("explore: nothing was recorded: run ops inside of the recording")
        model = model_of_recording(graph, known)
        subject = "a recording"
    elif isinstance(graph, Tensor):
        if not graph.requires_grad or graph.grad_fn is None:
            raise RuntimeError(
                "explore: the tensor has no graph: compute it from tensors with "
                "requires_grad=True, outside of no_grad, and explore it before backward"
            )
        model = model_of_graph(graph, known)
        subject = graph.grad_fn.name
    else:
        raise TypeError(
            f"explore: graph must be a Tensor or a Recording, got {type(graph).__name__}"
        )
    target = Path(path)
    title = f"The graph of {subject}, {len(model.vertices):,} vertices"
    target.write_text(page(model, title, _note(model)), encoding="utf-8")
    return target


def _note(model: Model) -> str:
    """What a reader has to know of this graph."""
    notes = []
    if len(model.vertices) > MOST:
        notes.append(
            f"This graph has more than {MOST:,} vertices: steps stay folded until you open them, "
            "and the page may be slow."
        )
    if not any(vertex.gradient is not None for vertex in model.vertices):
        notes.append("No backward pass ran inside of the recording: there are no gradients.")
    if not any(vertex.values is not None for vertex in model.vertices if vertex.kind == "op"):
        notes.append(
            "Values of ops are not known: make the loss inside of mg.study.record(values='strips')."
        )
    return " ".join(notes)
