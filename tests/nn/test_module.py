"""Modules: parameters by name, train and eval, states, what repr shows, and what containers
hold."""

import collections
import copy
import dataclasses
import functools
import pickle
import types
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
from modules import Net, draw, randomised

import minigrad as mg

nn = mg.nn
NAMES = ["scale", "embed.weight", "layers.0.weight", "layers.0.bias", "layers.2.weight"]

# ---------------------------------------------------------------- parameters


def test_a_parameter_is_a_leaf_with_a_copy_of_its_data():
    data = np.ones(3, np.float32)
    p = nn.Parameter(data)
    data[0] = 5
    assert (
        isinstance(p, mg.Tensor)
        and p.requires_grad
        and p.is_leaf
        and p.numpy().tolist() == [1, 1, 1]
    )
    assert nn.Parameter([1.0], np.float64).dtype == np.float64


def test_parameters_have_names_in_the_order_of_assignment():
    net = Net()
    named = list(net.named_parameters())
    assert [name for name, _ in named] == NAMES
    assert named[2][1] is net.layers[0].weight and [p for _, p in named] == list(net.parameters())
    assert [name for name, _ in net.children()] == ["embed", "layers.0", "layers.1", "layers.2"]
    assert list(net.modules()) == [net, net.embed, *net.layers]


def test_shared_parameters_come_once():
    class Tied(nn.Module):
        def __init__(self):
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.again = self.a

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    assert list(tied.state_dict()) == ["a.weight", "a.bias", "b.bias"]
    assert "15 parameters" in repr(tied).splitlines()[0]


def test_a_replaced_or_removed_parameter_is_seen():
    layer = nn.Linear(2, 2)
    layer.weight = new = nn.Parameter(np.zeros((2, 2), np.float32))
    layer.bias = None
    assert list(layer.named_parameters()) == [("weight", new)]


def test_zero_grad():
    net = Net()
    net([0, 1]).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_module_needs_a_forward():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)


# ---------------------------------------------------------------- train and eval


def test_train_and_eval_reach_all_modules():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    assert not net.train(False).layers[1].training
    with pytest.raises(TypeError, match="train: mode must be a bool, got int"):
        net.train(1)


def test_eval_switches_dropout_off():
    net = Net()
    calls = [net([0, 1, 2, 3]).numpy() for _ in range(4)]
    assert any(not np.array_equal(calls[0], c) for c in calls[1:])
    net.eval()
    assert np.array_equal(net([0, 1, 2, 3]).numpy(), net([0, 1, 2, 3]).numpy())


def test_eval_switches_the_dropout_of_layers_off():
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5, recurrent_dropout=0.5)
    x = mg.Tensor(draw(5, 2, 3, dtype=np.float32))
    assert not np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    layer.eval()
    assert np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())


# ---------------------------------------------------------------- states


def test_a_state_is_a_copy_and_comes_back():
    net, other = randomised(Net(), 1), randomised(Net(), 2)
    state = net.state_dict()
    assert list(state) == NAMES and all(type(a) is np.ndarray for a in state.values())
    arrays = [p.numpy() for p in other.parameters()]
    other.load_state_dict(state)
    for name, p in other.named_parameters():
        assert (
            np.array_equal(p.numpy(), state[name])
            and p.requires_grad
            and not np.shares_memory(p.numpy(), state[name])
        )
    assert all(
        np.shares_memory(a, p.numpy()) for a, p in zip(arrays, other.parameters(), strict=True)
    )
    state["scale"][...] = 99
    assert net.scale.item() != 99 and other.scale.item() != 99


def test_a_state_of_tensors_and_of_any_layout():
    net, other = randomised(Net(), 1), randomised(Net(), 2)
    state = {k: mg.Tensor(np.asfortranarray(v)) for k, v in net.state_dict().items()}
    other.load_state_dict(state)
    assert all(
        np.array_equal(p.numpy(), state[name].numpy()) for name, p in other.named_parameters()
    )


def test_all_that_does_not_fit_is_one_error_and_changes_nothing():
    net = randomised(Net())
    before = net.state_dict()
    state = {k: v + 1 for k, v in before.items()} | {
        "scale": np.ones(2, np.float32),
        "embed.weight": np.ones((5, 3)),
        "other": np.ones(1),
        7: np.ones(1),
    }
    del state["layers.0.bias"]
    with pytest.raises(ValueError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "load_state_dict: Net does not fit the state: missing: layers.0.bias; unexpected: other; "
        "unexpected: 7; "
        "scale must have shape (1,), got (2,); embed.weight must have dtype float32, got float64"
    )
    assert all(np.array_equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize("value", [None, "text", [1.0, None], [[1.0], [1.0, 2.0]], {}, object()])
def test_values_that_are_no_arrays_change_nothing(value):
    net = randomised(Net())
    before = net.state_dict()
    with pytest.raises(
        ValueError, match="load_state_dict: Net does not fit the state: layers.2.weight must"
    ):
        net.load_state_dict({k: v + 1 for k, v in before.items()} | {"layers.2.weight": value})
    assert all(np.array_equal(before[k], v) for k, v in net.state_dict().items())


def test_weights_can_be_swapped():
    net = nn.RNN(3, 3)
    cell = net.cells[0]
    W, U = cell.W.numpy().copy(), cell.U.numpy().copy()
    net.load_state_dict(
        net.state_dict() | {"cells.0.W": cell.U.numpy(), "cells.0.U": cell.W.numpy()}
    )
    assert np.array_equal(cell.W.numpy(), U) and np.array_equal(cell.U.numpy(), W)


def test_a_masked_array_is_no_state():
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="weight must not be a masked array"):
        layer.load_state_dict(layer.state_dict() | {"weight": np.ma.ones((2, 2), np.float32)})


@pytest.mark.parametrize("state", [None, [], "text", 3])
def test_a_state_is_a_dict(state):
    with pytest.raises(
        TypeError,
        match=f"load_state_dict: state must be a dict of arrays, got {type(state).__name__}",
    ):
        Net().load_state_dict(state)


def test_loading_spoils_a_graph_that_still_needs_the_old_weights():
    net = Net().eval()
    loss = (net([0, 1]) ** 2).sum()
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        loss.backward()


# ---------------------------------------------------------------- repr


def test_repr_counts_parameters():
    assert (
        repr(Net())
        == """\
Net(                                     # 48 parameters
  embed: Embedding(5, 3)                 # 15 parameters
  layers.0: Linear(3, 4)                 # 16 parameters
  layers.1: Dropout(0.5)                 # 0 parameters
  layers.2: Linear(4, 4, bias=False)     # 16 parameters
)"""
    )
    assert repr(nn.Linear(1000, 2000)) == "Linear(1000, 2000)     # 2,002,000 parameters"
    assert "LSTMCell(3, 4)" in repr(nn.LSTM(3, 4))
    assert repr(nn.GRUCell(2, 3, reset_after=True)).startswith("GRUCell(2, 3, reset_after=True) ")


# ------------------------------------------------------------- containers, and what is out of reach


class Pair(NamedTuple):
    """Two things side by side."""

    left: object
    right: object


class Held(nn.Module):
    """Holds one thing as an attribute."""

    def __init__(self, thing):
        self.thing = thing

    def forward(self, x):
        return x


def parameter(k=1.0):
    return nn.Parameter(np.full(2, k, np.float32))


@pytest.mark.parametrize(
    "make, names",
    [
        (lambda: [parameter(), parameter()], ["thing.0", "thing.1"]),
        (lambda: (nn.Linear(1, 2), parameter()), ["thing.1", "thing.0.weight", "thing.0.bias"]),
        (
            lambda: {"a": nn.Linear(1, 2), "b": parameter()},
            ["thing.b", "thing.a.weight", "thing.a.bias"],
        ),
        (lambda: [[parameter()], {"a": [nn.Embedding(2, 2)]}], ["thing.0.0", "thing.1.a.0.weight"]),
        (
            lambda: OrderedDict(a=parameter(), b=[1, "x", None, parameter()]),
            ["thing.a", "thing.b.3"],
        ),
        (lambda: Pair(parameter(), [nn.Linear(1, 2, bias=False)]), ["thing.0", "thing.1.0.weight"]),
        (lambda: Held(Held([parameter()])), ["thing.thing.thing.0"]),
    ],
    ids=["list", "tuple", "dict", "nested", "ordered", "named", "modules"],
)
def test_what_containers_hold_is_found_everywhere(make, names):
    net = Held(make())
    assert (
        sorted(name for name, _ in net.named_parameters())
        == sorted(names)
        == sorted(net.state_dict())
    )
    assert [name for name, _ in net.named_parameters()] == names
    assert f"{sum(p.size for p in net.parameters())} parameters" in repr(net)
    assert not any(module.training for module in net.eval().modules())
    copied, pickled = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    for p in net.parameters():
        p.grad = mg.ones(p.shape)
    other = Held(make())
    with mg.no_grad():
        for p in other.parameters():
            p[...] = np.arange(p.size, dtype=np.float32).reshape(p.shape)
    for target in (net, copied, pickled):
        assert [name for name, _ in target.named_parameters()] == names
        target.load_state_dict(other.state_dict())
        assert all(
            np.array_equal(a.numpy(), b.numpy())
            for a, b in zip(target.parameters(), other.parameters(), strict=True)
        )
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


class Plain:
    """An object that is no module."""


def attribute_of(thing, kind=Plain):
    holder = kind()
    holder.inside = thing
    return holder


@dataclasses.dataclass
class Data:
    """A dataclass that is no module."""

    weight: object


HIDDEN = {
    "set": lambda p: {p},
    "frozenset": lambda p: frozenset([p]),
    "deque": lambda p: collections.deque([p]),
    "object": attribute_of,
    "dataclass": Data,
    "closure": lambda p: lambda x: x * p,
    "default": lambda p: lambda x, w=p: x * w,
    "partial": lambda p: functools.partial(max, p),
    "object array": lambda p: np.array([p, None], object)[:1],
    "int keys": lambda p: {0: p},
    "generator": lambda p: (q for q in [p]),
    "keys": lambda p: {p: 1},
    "method": lambda p: attribute_of(p).__eq__,
    "list in an object": lambda p: attribute_of([p]),
    "object in a list": lambda p: [1, attribute_of(p)],
    "view": lambda p: {"a": p}.values(),
    "mapping": lambda p: types.MappingProxyType({"a": p}),
    "map": lambda p: map(abs, [p]),
}


@pytest.mark.parametrize("thing", [parameter, lambda: nn.Dropout(0.5)], ids=["parameter", "module"])
@pytest.mark.parametrize("kind", HIDDEN)
def test_what_is_out_of_reach_is_an_error(kind, thing):
    held = HIDDEN[kind](thing())
    for use in (
        lambda net: net(1),
        lambda net: list(net.parameters()),
        lambda net: net.state_dict(),
        lambda net: net.eval(),
        lambda net: net.zero_grad(),
        lambda net: list(net.children()),
        lambda net: net.load_state_dict({}),
        lambda net: list(net.modules()),
        repr,
        lambda net: Held([net])(1),
    ):
        with pytest.raises(
            TypeError,
            match=r"Held: (thing\.0\.)?thing holds a .* where it is neither trained nor saved",
        ):
            use(Held(held))


@pytest.mark.parametrize("kind", HIDDEN)
def test_what_is_reached_in_another_way_too_is_no_error(kind):
    p = parameter()
    net = Held(HIDDEN[kind](p))
    net.also = [p]
    assert net(1) == 1 and [name for name, _ in net.named_parameters()] == ["also.0"]


def test_class_attributes_and_slots():
    class Shared(Held):
        weight = parameter()

    class Slotted(Held):
        __slots__ = ("inside",)

    with pytest.raises(TypeError, match="weight holds a Parameter in a class attribute"):
        Shared(1)(1)
    net = Slotted(1)
    net.inside = parameter()
    with pytest.raises(TypeError, match="inside holds a Parameter"):
        net(1)


def test_a_module_may_change_between_calls():
    net = Held([parameter()])
    net(1)
    net.thing.append(parameter(2.0))
    assert [name for name, _ in net.named_parameters()] == ["thing.0", "thing.1"]
    net.more = {parameter()}
    with pytest.raises(TypeError, match="more holds a Parameter in a set"):
        net(1)
    del net.more
    net.thing[0] = net
    net(1)
    assert [name for name, _ in net.named_parameters()] == ["thing.1"]


def test_two_things_of_one_name():
    net = Held({"a": parameter()})
    setattr(net, "thing.a", parameter())
    for use in (lambda: net(1), lambda: list(net.parameters()), lambda: net.state_dict()):
        with pytest.raises(
            ValueError, match=r"Held: two parameters or modules have the name thing\.a"
        ):
            use()


def test_cycles():
    net = Held([parameter()])
    net.thing.append(net.thing)
    net.child = Held([net, parameter()])
    assert [name for name, _ in net.named_parameters()] == ["thing.0", "child.thing.1"]
    assert list(net.modules()) == [net, net.child] and net.eval().child.training is False
    assert "Held(...)" in repr(net)
    duplicate = copy.deepcopy(net)
    assert duplicate.child.thing[0] is duplicate and len(list(duplicate.parameters())) == 2


def test_a_parameter_replaced_by_a_tensor_is_not_forgotten_silently():
    layer = nn.Linear(2, 2)
    layer.weight = layer.weight * 2.0
    assert layer(mg.ones((1, 2))).shape == (1, 2)
    for use in (lambda: list(layer.parameters()), layer.state_dict, layer.zero_grad):
        with pytest.raises(TypeError, match="Linear: weight was a Parameter and is a Tensor now"):
            use()
    layer.weight = None
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


# ---------------------------------------------------------------- states from elsewhere


class Unreadable:
    """Has __array__, but no array."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("call detach first")


def test_load_state_dict_takes_all_or_nothing(tmp_path):
    layer = nn.Linear(2, 2)
    before = layer.state_dict()
    mg.save(tmp_path / "model", before)
    with pytest.raises(
        TypeError,
        match=r"got tuple: load returns \(arrays, extra\), so use "
        r"load_state_dict\(mg.load\(path\)\[0\]\)",
    ):
        layer.load_state_dict(mg.load(tmp_path / "model"))
    layer.load_state_dict(mg.load(tmp_path / "model")[0])
    with pytest.raises(TypeError, match=r"got Linear: use load_state_dict\(other.state_dict\(\)\)"):
        layer.load_state_dict(layer)
    new = {"weight": np.ones((2, 2), np.float32)}
    for bad, message in (
        (np.zeros(2), "bias must have dtype float32, got float64"),
        ({"a": 1}, "bias must be an array, got dict"),
        (Unreadable(), "NumPy cannot read"),
        (None, "bias must be an array, got NoneType"),
        ("x", "got str"),
        (np.zeros((2, 1), np.float32), r"bias must have shape \(2,\), got \(2, 1\)"),
        ([[1], [1, 2]], "nested lists"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.load_state_dict(new | {"bias": bad})
    with pytest.raises(ValueError, match="missing: bias; unexpected: weight_ih_l0; unexpected: 0"):
        layer.load_state_dict(new | {"weight_ih_l0": np.zeros(2), 0: 1})
    assert all(np.array_equal(before[name], p.numpy()) for name, p in layer.named_parameters())
    layer.load_state_dict({"weight": layer.weight.numpy().T, "bias": layer.weight.numpy()[0]})
    assert np.array_equal(layer.weight.numpy(), before["weight"].T) and np.array_equal(
        layer.bias.numpy(), before["weight"][0]
    )


def test_lists_nested_deeper_than_python_recurses():
    inside = [mg.nn.Linear(2, 3)]
    for _ in range(5000):
        inside = [inside]
    net = mg.nn.Module()
    net.layers = inside
    assert [p.shape for p in net.parameters()] == [(2, 3), (3,)]
    (name, _), *_ = net.named_parameters()
    assert name == "layers" + ".0" * 5001 + ".weight"
    itself = [mg.nn.Parameter([1.0])]
    itself.append(itself)
    net.layers = itself
    assert [name for name, _ in net.named_parameters()] == ["layers.0"]


def test_a_module_without_its_weight_has_a_text():
    layer = nn.Linear(2, 3)
    layer.weight = None
    assert repr(layer).startswith("Linear(weight=None)")
