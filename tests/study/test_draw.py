"""Drawing the graph: the three forms say the same; shared parts come once; a million nodes in a
small stack."""

import gc
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from running import in_small_thread

import minigrad as mg


def recurrent(T=3):
    """The slide's network: h = tanh(h W1 + x W2), y = h W3."""
    names = {
        "W1": mg.ones((4, 4), requires_grad=True),
        "W2": mg.ones((2, 4), requires_grad=True),
        "W3": mg.ones((4, 1), requires_grad=True),
    }
    h = mg.zeros((1, 4))
    for n in range(T):
        names[f"x{n + 1}"] = mg.ones((1, 2), requires_grad=True)
        h = mg.tanh(h @ names["W1"] + names[f"x{n + 1}"] @ names["W2"])
    return h @ names["W3"], names


def edges(text):
    """Of the text form: (label of the source, label of the op), op by op."""
    rows = [line.split(" ", 2) for line in text.splitlines()]
    found = []
    for row in rows:
        if len(row) == 3 and row[2][0].isdigit():
            found += [(rows[int(k)][1], row[1]) for k in row[2].split()]
    return found


def test_text_of_the_slides_network():
    y, names = recurrent(2)
    assert mg.draw(y, names).splitlines() == [
        "0 constant",
        "1 W1 (4, 4)",
        "2 matmul 0 1",
        "3 x1 (1, 2)",
        "4 W2 (2, 4)",
        "5 matmul 3 4",
        "6 add 2 5",
        "7 tanh 6",
        "8 matmul 7 1",
        "9 x2 (1, 2)",
        "10 matmul 9 4",
        "11 add 8 10",
        "12 tanh 11",
        "13 W3 (4, 1)",
        "14 matmul 12 13",
    ]


def test_inputs_come_first_and_shared_parts_once():
    x = mg.Tensor([0.5], requires_grad=True)
    y = x
    for _ in range(60):  # 2^60 ways from the root to the leaf
        y = y * y
    lines = mg.draw(y).splitlines()
    assert lines[:3] == ["0 (1,)", "1 mul 0 0", "2 mul 1 1"] and len(lines) == 61


def test_dot_has_the_same_edges():
    y, names = recurrent()
    dot = mg.draw(y, names, form="dot")
    labels = dict(re.findall(r'^    (\d+) \[label="([^"]*)"', dot, re.MULTILINE))
    found = [
        (labels[a], labels[b]) for a, b in re.findall(r"^    (\d+) -> (\d+)$", dot, re.MULTILINE)
    ]
    assert [(a.split(" ")[0], b) for a, b in found] == edges(mg.draw(y, names)) and len(found) == 23
    assert dot.startswith("digraph {") and dot.endswith("}") and dot.count("shape=box") == 7


def test_dot_escapes_names():
    x = mg.ones(1, requires_grad=True)
    assert r'label="a\"b\\ (1,)"' in mg.draw(x * 2, {'a"b\\': x}, form="dot")


def boxes_of(root):
    """(x, y, width, height) of each box; they lie inside the picture and do not overlap."""
    boxes = [
        tuple(float(e.attrib[k]) for k in ("x", "y", "width", "height"))
        for e in root
        if e.tag.endswith("rect")
    ]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for k, (x, top, w, h) in enumerate(boxes):
        assert 0 <= x and x + w <= width and 0 <= top and top + h <= height
        assert all(
            x + w <= a or a + c <= x or top + h <= b or b + d <= top for a, b, c, d in boxes[:k]
        ), "boxes overlap"
    return boxes


def ends_of(root):
    """The first and the last point of each line."""
    for path in (e.attrib["d"] for e in root if e.tag.endswith("path")):
        start, end = (
            tuple(map(float, point.split(" ")[-2:]))
            for point in path[1:].replace("C", "|").split("|")
        )
        yield start, end


def test_svg_is_a_picture_of_the_same_graph():
    y, names = recurrent(2)
    root = ElementTree.fromstring(mg.draw(y, names | {"<&>": mg.ones(1)}, form="svg"))
    kinds = [element.tag.split("}")[1] for element in root]
    text = mg.draw(y, names)
    assert kinds.count("path") == len(edges(text)) and kinds.count("rect") == kinds.count(
        "text"
    ) == len(text.splitlines())
    boxes = boxes_of(root)
    for start, end in ends_of(root):
        assert start[1] < end[1]  # from top to bottom, along the time of making
        assert any(
            abs(top + h - start[1]) <= 1 and x <= start[0] <= x + w for x, top, w, h in boxes
        )
        assert any(abs(top - end[1]) <= 1 and x <= end[0] <= x + w for x, top, w, h in boxes)


def test_time_steps_are_columns_no_wider_than_a_page():
    """By the uses of W1; and by the steps of unroll, if they were recorded."""
    y, names = recurrent(12)
    cell = mg.nn.LSTMCell(2, 3)
    with mg.study.record() as rec:  # kept: it knows the steps
        out, _ = mg.nn.unroll(cell, mg.ones((12, 1, 2)))
        total = out.sum()
    assert rec.entry(total).t is None
    for tensor, known, heads in (
        (y, names, ["shared", *(f"t = {t}" for t in range(12))]),
        (total, dict(cell.named_parameters()), ["shared", *(f"t = {t}" for t in range(12))]),
    ):
        svg = mg.draw(tensor, known, form="svg")
        root = ElementTree.fromstring(svg)
        bold = [e.text for e in root if e.attrib.get("font-weight") == "bold"]
        assert bold[: len(heads)] == heads
        assert float(root.attrib["width"]) <= 920 and float(root.attrib["font-size"]) >= 11
        boxes = boxes_of(root)
        assert len(boxes) == len(mg.draw(tensor, known).splitlines())
        assert len({x for x, *_ in boxes}) < 13  # they wrap
        for point in (point for ends in ends_of(root) for point in ends):
            assert any(
                x - 1 <= point[0] <= x + w + 1 and top - 1 <= point[1] <= top + h + 1
                for x, top, w, h in boxes
            )


def test_a_graph_without_steps_has_no_columns():
    x = mg.ones(2, requires_grad=True)
    y = x * x + x * 3.0  # x is used three times, but there is no loop
    assert "t = 0" not in mg.draw(y, form="svg") and "shared" not in mg.draw(y, form="svg")


def test_constants():
    x, w = mg.ones((2, 3), requires_grad=True), mg.ones(3)
    assert mg.draw(x * w + 1.0).splitlines() == [
        "0 (2, 3)",
        "1 constant",
        "2 mul 0 1",
        "3 constant",
        "4 add 2 3",
    ]
    with mg.study.record() as rec:
        y = x * w
    assert "1 constant (3,)" in mg.draw(y) and len(rec.entries) == 1
    assert "#ececec" in mg.draw(y, form="svg") and "shape=box" in mg.draw(y, form="dot")


def test_values_and_gradients():
    a = mg.Tensor([2.0], requires_grad=True)
    b = mg.Tensor([0.5], requires_grad=True)
    with mg.study.record(values="full") as rec:
        y = (mg.tanh(a * b) + a * 3.0).sum()
    names = {"a": a, "b": b}
    assert mg.draw(y, names, values=True, gradients=True).splitlines() == [
        "0 a (1,)  = 2  d 3.21",
        "1 b (1,)  = 0.5  d 0.84",
        "2 mul 0 1  = 1  d 0.42",
        "3 tanh 2  = 0.762  d 1",
        "4 constant ()  = 3",
        "5 mul 0 4  = 6  d 1",
        "6 add 3 5  = 6.76  d 1",
        "7 sum 6  = 6.76  d 1",
    ]
    assert len(rec.entries) == 5 and a.grad is None and b.grad is None
    svg = mg.draw(y, names, "svg", values=True, gradients=True)
    assert ">= 0.762<" in svg and ">d 3.21<" in svg
    large = mg.ones((3, 4), requires_grad=True)
    assert mg.draw(mg.tanh(large).sum(), values=True).splitlines() == [
        "0 (3, 4)  = norm 3.46",
        "1 tanh 0  = norm 2.64",
        "2 sum 1",
    ]
    y.backward()  # the graph was not freed
    assert a.grad.item() == pytest.approx(3.21, abs=0.01)
    with pytest.raises(RuntimeError, match="a second time"):
        mg.draw(y, gradients=True)
    with pytest.raises(RuntimeError, match="only for a scalar"):
        mg.draw(large * 2.0, gradients=True)
    with pytest.raises(TypeError, match="draw: values must be a bool, got int"):
        mg.draw(large * 2.0, values=1)


def test_svg_escapes_names():
    x = mg.ones(1, requires_grad=True)
    assert "&lt;&amp;&gt; (1,)" in mg.draw(x * 2, {"<&>": x}, form="svg")


def test_an_op_with_several_outputs_is_one_vertex():
    _, (h, c) = mg.nn.LSTM(3, 4, bias=False)(mg.ones((5, 2, 3)))
    assert mg.draw(h * c).splitlines() == [
        "0 constant",
        "1 (3, 16)",
        "2 (4, 16)",
        "3 lstm 0 1 2",
        "4 stack 3",
        "5 stack 3",
        "6 mul 4 5",
    ]


def test_a_fused_layer_with_the_names_of_its_parameters():
    layer = mg.nn.LSTM(3, 4)
    out, _ = layer(mg.ones((5, 2, 3)))
    assert mg.draw(out, dict(layer.named_parameters())).splitlines() == [
        "0 constant",
        "1 cells.0.W (3, 16)",
        "2 cells.0.U (4, 16)",
        "3 cells.0.b (16,)",
        "4 lstm 0 1 2 3",
    ]


@pytest.mark.parametrize("form", ["text", "dot", "svg"])
def test_a_leaf_alone(form):
    assert "x (2,)" in mg.draw(mg.ones(2, requires_grad=True), None, form).replace("(2,)", "x (2,)")
    leaf = mg.ones(2)
    assert "x (2,)" in mg.draw(leaf, {"x": leaf}, form)


def test_drawing_changes_nothing():
    y, names = recurrent()
    before = mg.draw(y, names)
    assert mg.draw(y, names) == before
    y.sum().backward()
    assert names["W1"].grad is not None
    assert mg.draw(y, names) == "0 matmul (freed)"  # by the sweep


def test_a_retained_graph_is_not_freed():
    x = mg.ones(2, requires_grad=True)
    y = (x * x).sum()
    before = mg.draw(y)
    y.backward(retain_graph=True)
    assert mg.draw(y) == before and "freed" not in before


@pytest.mark.parametrize("form", ["text", "dot", "svg"])
def test_notebooks_show_a_picture(form):
    y, names = recurrent()
    drawing = mg.draw(y, names, form)
    assert isinstance(drawing, str)
    assert drawing._repr_svg_() == mg.draw(y, names, "svg")


def test_notebooks_show_the_text_of_a_graph_too_large_for_a_picture():
    y = mg.ones(1, requires_grad=True)
    for _ in range(1000):
        y = -y
    assert mg.draw(y)._repr_svg_() is None


def test_each_line_of_the_picture_is_an_arrow():
    y, names = recurrent()
    root = ElementTree.fromstring(mg.draw(y, names, form="svg"))
    (marker,) = root.iter("{http://www.w3.org/2000/svg}marker")
    lines = [element for element in root if element.tag.endswith("path")]
    assert {e.attrib["marker-end"] for e in lines} == {f"url(#{marker.attrib['id']})"}


@pytest.mark.slow
def test_a_million_nodes_in_a_small_stack():
    def work():
        x = y = mg.ones(1, requires_grad=True)
        gc.disable()  # it looks again and again through what will not go away
        for _ in range(10**6):
            y = -y
        lines = mg.draw(y, {"x": x}).splitlines()
        gc.enable()
        return lines

    lines = in_small_thread(work)
    assert len(lines) == 10**6 + 1 and lines[-1] == "1000000 neg 999999"


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: mg.draw(np.ones(2)), TypeError, "draw: tensor must be a Tensor, got ndarray"),
        (
            lambda: mg.draw(mg.ones(2), {"x": 1.0}),
            TypeError,
            "draw: names must map to Tensors, got float for 'x'",
        ),
        (
            lambda: mg.draw(mg.ones(2), 3),
            TypeError,
            "draw: names must map names to Tensors, got int",
        ),
        (
            lambda: mg.draw(mg.ones(2), form="png"),
            ValueError,
            "draw: form must be 'text', 'dot' or 'svg', got 'png'",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
