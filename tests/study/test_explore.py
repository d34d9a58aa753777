"""mg.study.explore: what the page holds. How it behaves in a browser is checked by
`make explorer` (tests/explorer)."""

import base64
import json
import re

import numpy as np
import pytest

import minigrad as mg
from minigrad.study import explore, record
from minigrad.study.explorer.model import model_of_graph
from minigrad.study.explorer.page import places_of


def diamond():
    x = mg.Tensor([1.0, 2.0], requires_grad=True)
    w = mg.Tensor([0.5, -1.0], requires_grad=True)
    a = x * w
    return (mg.tanh(a) * mg.sigmoid(a) + 3.0).sum(), {"x": x, "w": w}


def data_of(path):
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    return json.loads(found.group(1)), text


def gradients_by_backward(loss, names):
    loss.backward()
    return {name: np.linalg.norm(leaf.grad.numpy()) for name, leaf in names.items()}


@pytest.mark.parametrize("recorded", [False, True])
def test_a_small_graph(tmp_path, recorded):
    if recorded:
        with record(values="strips") as rec:
            loss, names = diamond()
        assert len(rec.entries) == 6
    else:
        loss, names = diamond()
    path = explore(loss, tmp_path / "page.html", names)
    data, text = data_of(path)
    told = [data["facts"][i] for i in data["fact"]]
    assert [fact[0] for fact in told if fact[0] not in ("x", "w", "constant")] == [
        "mul",
        "tanh",
        "sigmoid",
        "mul",
        "add",
        "sum",
    ]
    assert data["kind"] == "lloooocoo" and data["open"]
    assert "<title>The graph of sum, 9 vertices</title>" in text
    rules = {fact[0]: fact[4] for fact in told}
    assert rules["tanh"] == "y = tanh x   dx = dy (1 - y^2)"
    if recorded:
        assert told[2][3].startswith("test_explore.py:") and "a = x * w" in told[2][3]
        assert told[6][2] == "()" and data["value"][6][3] == 3
    else:
        assert "Values of ops are not known" not in text  # tanh and sigmoid save theirs
    assert all(leaf.grad is None for leaf in names.values())
    expected = gradients_by_backward(loss, names)  # the graph is still there
    for k, name in enumerate(("x", "w")):
        assert told[k][0] == name
        assert data["gradient"][k][3] == pytest.approx(expected[name], rel=1e-3)
    # the newest op is visited first
    order = sorted((k for k in range(9) if data["visit"][k] >= 0), key=lambda k: data["visit"][k])
    assert order == [8, 7, 5, 4, 3, 2]
    strips = base64.b64decode(data["gradientStrips"])
    assert len(strips) == 9 * data["stripWidth"] and max(strips) == 255


def test_inputs_come_first_and_columns_go_on():
    with record(values="strips") as rec:
        loss, names = diamond()
    model = model_of_graph(loss, {id(t): n for n, t in names.items()})
    places = places_of(model)
    for k, vertex in enumerate(model.vertices):
        assert all(source < k for source in vertex.inputs)
        assert all(places.column[source] < places.column[k] for source in vertex.inputs)
    assert places.columns[0]["leaves"] and len(rec.entries) == 6


def test_time_steps_of_a_loop(tmp_path):
    cell = mg.nn.LSTMCell(2, 3)
    with record(values="strips") as rec:
        out, _ = mg.nn.unroll(cell, mg.ones((5, 1, 2)))
        loss = (out * out).sum()
    data, _ = data_of(explore(loss, tmp_path / "loop.html", dict(cell.named_parameters())))
    assert len(rec.entries) > 60
    names = [column["name"] for column in data["columns"]]
    assert names == ["weights", *(f"t = {t}" for t in range(5)), "after"]
    assert "LSTMCell" in data["rows"] and not data["open"]
    told = [data["facts"][i][0] for i in data["fact"]]
    assert all(data["column"][k] == 0 for k, name in enumerate(told) if name in ("W", "U", "b"))
    assert [data["t"][k] for k, name in enumerate(told) if name == "tanh"] == [
        t for t in range(5) for _ in range(2)
    ]


@pytest.mark.parametrize("recorded", [False, True])
def test_fused_layers_are_opened(tmp_path, recorded):
    layer = mg.nn.LSTM(2, 3, 2, bidirectional=True)
    names = dict(layer.named_parameters())
    recording = record(values="strips")
    if recorded:
        with recording:
            loss = (layer(mg.ones((6, 2, 2)), lengths=[6, 3])[0] ** 2).sum()
    else:
        loss = (layer(mg.ones((6, 2, 2)), lengths=[6, 3])[0] ** 2).sum()
    data, _ = data_of(explore(loss, tmp_path / "fused.html", names))
    top = "LSTM" if recorded else "lstm"
    assert [row for row in data["rows"] if "cells" in row] == [f"{top}/cells.{k}" for k in range(4)]
    assert {data["t"][k] for k in range(len(data["t"]))} >= set(range(6))
    assert all(p.grad is None for p in layer.parameters())
    told = [data["facts"][i] for i in data["fact"]]
    gates = [k for k, fact in enumerate(told) if fact[0] == "sigmoid"]
    assert len(gates) == 4 * 6 * 3 and all(data["gradient"][k] for k in gates)
    expected = gradients_by_backward(loss, names)
    for k, fact in enumerate(told):
        if fact[0] in expected:
            assert data["gradient"][k][3] == pytest.approx(expected[fact[0]], rel=2e-3)


def test_a_recording_with_a_backward_pass(tmp_path):
    with record(values="strips") as rec:
        loss, names = diamond()
        loss.backward()
    data, text = data_of(explore(rec, tmp_path / "rec.html", names))
    assert sum(1 for g in data["gradient"] if g) == 6 and "there are no gradients" not in text
    assert "<title>The graph of a recording, 9 vertices</title>" in text
    with record() as rec:
        diamond()
    _, text = data_of(explore(rec, tmp_path / "rec.html"))
    assert "No backward pass ran inside of the recording" in text
    assert "Values of ops are not known" in text


def test_hostile_names(tmp_path):
    x = mg.Tensor([1.0], requires_grad=True)
    name = "</script><script>alert(1)</script><!-- {{DATA}} {{"
    data, text = data_of(explore((x * 2.0).sum(), tmp_path / "x.html", {name: x}))
    assert text.count("</script>") == 2 and text.count("<script") == 2
    assert data["facts"][data["fact"][0]][0] == name
    assert "&lt;/script&gt;" in text  # in the static table


def test_nothing_is_fetched(tmp_path):
    loss, names = diamond()
    text = explore(loss, tmp_path / "x.html", names).read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)|(https?://[^"\s<]*)', text)
    assert {next(filter(None, link)) for link in links} <= {
        "data:,",
        "#head",
        "#arrow",
        "http://www.w3.org/2000/svg",
    }


def test_not_finite(tmp_path):
    x = mg.Tensor([0.0, 1.0], requires_grad=True)
    with record(values="strips") as rec:
        loss = (mg.log(x) * 2.0).sum()
    data, _ = data_of(explore(loss, tmp_path / "x.html"))
    assert [v[4] for v in data["value"] if v and len(v) > 4] == [1, 1, 1] and len(rec.entries) == 3


def test_script_is_no_longer_than_promised():
    from importlib.resources import files

    script = files("minigrad.study.explorer").joinpath("explorer.js").read_text(encoding="utf-8")
    assert len(script.splitlines()) <= 600
    assert max(map(len, script.splitlines())) <= 100


def test_what_is_refused(tmp_path):
    loss, names = diamond()
    path = tmp_path / "x.html"
    with pytest.raises(TypeError, match="explore: graph must be a Tensor or a Recording, got list"):
        explore([loss], path)
    with pytest.raises(RuntimeError, match="explore: the tensor has no graph"):
        explore(mg.ones(1), path)
    with pytest.raises(RuntimeError, match="only for a scalar"):
        explore(names["x"] * 2.0, path)
    with pytest.raises(TypeError, match="explore: names must map to Tensors, got int for 'x'"):
        explore(loss, path, {"x": 1})
    with pytest.raises(OSError):
        explore(loss, tmp_path / "no" / "folder.html")
    with record() as rec:
        pass
    with pytest.raises(ValueError, match="explore: nothing was recorded"):
        explore(rec, path)
    assert not path.exists()
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        explore(loss, path)
