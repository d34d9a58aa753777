"""Dynamics of trained networks: how results are shown and drawn, and what each function refuses."""

import sys

import numpy as np
import pytest
from dynamics_networks import LENGTHS, H, network, sequence

import minigrad as mg

dynamics = mg.study.dynamics


# ---------------------------------------------------------------- how results are shown


def test_results_are_readable():
    made, x = network("LSTM"), sequence()
    J = dynamics.jacobians(made, x)
    assert repr(dynamics.singular_values(J)).startswith(
        "SingularValues of the products of 5 steps, from the first to each step: 3 rows, n = 8\n"
    )
    assert repr(dynamics.lyapunov(J, warm=1)).startswith(
        "Lyapunov: 8 exponents of 3 rows, per step, over 4 steps\n  mean of the rows: "
    )
    assert repr(dynamics.memory(made, x)).startswith(
        "Memory: 5 output steps, 5 input steps, 3 rows\n  step 4 looks "
    )
    lines = repr(dynamics.gates(made, x)).splitlines()
    assert lines[:2] == ["Gates of 4 units", "  gate    mean   < 0.1   > 0.9"] and len(lines) == 6
    assert repr(dynamics.trajectories(made, x, components=1)).startswith(
        "Trajectories: 5 steps, 3 rows, n = 8\n  variance along 1 axis: "
    )
    points = dynamics.fixed_points(made, np.zeros((1, 8)), tolerance=0)
    assert repr(points) == str(points)
    assert (
        repr(points) == "FixedPoints: 0 points, 0 stable, n = 8, from 1 start state (1 left over)"
    )
    assert str(dynamics.memory(made, sequence(steps=0))) == (
        "Memory: 0 output steps, 0 input steps, 3 rows"
    )


@pytest.mark.slow
def test_plots():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    made, x = network("GRU"), sequence()
    J = dynamics.jacobians(made, x)
    points = dynamics.fixed_points(made, np.zeros((2, H)))
    path = dynamics.trajectories(made, x, lengths=LENGTHS)
    for draw in (
        dynamics.singular_values(J).plot,
        dynamics.singular_values(J, backward=True).plot,
        dynamics.lyapunov(J).plot,
        dynamics.memory(made, x, lengths=LENGTHS).plot,
        dynamics.memory(made, x, steps=[1, 4]).plot,
        dynamics.gates(made, x).plot,
        lambda ax: dynamics.gates(made, x).plot(ax, unit=1),
        points.plot,
        path.plot,
        lambda ax: path.plot(ax, points=points),
    ):
        figure.clear()
        ax = draw(figure.add_subplot())
        assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title()
    figure.clear()
    ax = path.plot(figure.add_subplot(projection="3d"), points=points, rows=2)
    assert ax.get_zlabel().startswith("axis 3 (") and len(ax.lines) == 2
    figure.savefig("path.png")


def test_plots_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="plot: a plot needs matplotlib: pip install matplotlib"):
        dynamics.lyapunov(np.ones((3, 1, 1, 1))).plot()


# ---------------------------------------------------------------- what is refused

MADE, X = network("LSTM"), sequence()
GOOD = np.ones((3, 2, 4, 4))
LOOKS = ("jacobians", "memory", "gates", "trajectories")


def refuses(error, message, name, *arguments, **options):
    with pytest.raises(error) as raised:
        getattr(dynamics, name)(*arguments, **options)
    assert str(raised.value) == message


@pytest.mark.parametrize("name", (*LOOKS, "fixed_points"))
def test_networks_that_cannot_be_looked_at(name):
    refuses(
        TypeError,
        f"{name}: network must be an RNN, an LSTM or a GRU, got Linear",
        name,
        mg.nn.Linear(2, 3),
        X,
    )
    message = (
        f"{name}: network has {{}} = 0.5 and is in training mode, where each call draws a new "
        "mask: call network.eval() first"
    )
    made = network("GRU", recurrent_dropout=0.5)
    refuses(ValueError, message.format("recurrent_dropout"), name, made, X)
    refuses(
        ValueError, message.format("dropout"), name, network("GRU", num_layers=2, dropout=0.5), X
    )
    made.eval()
    getattr(dynamics, name)(made, np.zeros((1, H)) if name == "fixed_points" else X)


@pytest.mark.parametrize("name", [look for look in (*LOOKS, "fixed_points") if look != "memory"])
def test_places_that_are_not_there(name):
    second = X if name in LOOKS else np.zeros((1, 2 * H))
    for error, message, options in (
        (ValueError, "layer must be at most 0, got 1", {"layer": 1}),
        (ValueError, "layer must be at least 0, got -1", {"layer": -1}),
        (TypeError, "layer must be an int, got str", {"layer": "first"}),
        (ValueError, "direction must be 'forward', got 'backward'", {"direction": "backward"}),
        (TypeError, "direction must be 'forward', got NoneType", {"direction": None}),
    ):
        refuses(error, f"{name}: {message}", name, MADE, second, **options)
    both = network("LSTM", bidirectional=True)
    message = f"{name}: direction must be 'forward' or 'backward', got 'up'"
    refuses(ValueError, message, name, both, second, direction="up")


@pytest.mark.parametrize("name", LOOKS)
def test_what_the_network_refuses(name):
    """Its own checks, in its own words."""
    for error, message, arguments, options in (
        (
            ValueError,
            "LSTM: x must have shape (T, B, 2) = (time, batch, input_size), got (5, 3, 7)",
            (np.zeros((5, 3, 7)),),
            {},
        ),
        (
            TypeError,
            "LSTM: state must be (h0, c0), each of shape "
            "(num_layers * directions, batch, hidden_size), got int",
            (X, 3),
            {},
        ),
        (ValueError, "LSTM: lengths must be from 0 to 5", (X,), {"lengths": [1, 2, 9]}),
        (ValueError, "LSTM: reset must have shape (5, 3)", (X,), {"reset": np.zeros((5, 2), bool)}),
    ):
        with pytest.raises(error) as raised:
            getattr(dynamics, name)(MADE, *arguments, **options)
        assert str(raised.value).startswith(message[:30]), str(raised.value)


@pytest.mark.parametrize("name", ["singular_values", "lyapunov"])
def test_jacobians_that_are_none(name):
    shape = f"{name}: J must have shape (T, B, n, n) = (time, batch, state, state), got "
    bad = GOOD.copy()
    bad[1, 1, 0, 2] = np.nan
    for error, message, J in (
        (TypeError, f"{name}: J must be an array, got list", [[1.0]]),
        (TypeError, f"{name}: J must hold real numbers, got complex128", GOOD + 0j),
        (ValueError, shape + "(2, 4, 4)", GOOD[0]),
        (ValueError, shape + "(3, 2, 4, 3)", GOOD[..., :3]),
        (ValueError, shape + "(3, 2, 0, 0)", GOOD[..., :0, :0]),
        (ValueError, f"{name}: J must be finite, got NaN or infinity in J[1, 1]", bad),
    ):
        refuses(error, message, name, J)


@pytest.mark.parametrize(
    "error, message, name, arguments, options",
    [
        (
            TypeError,
            "singular_values: backward must be a bool, got int",
            "singular_values",
            (GOOD,),
            {"backward": 1},
        ),
        (
            ValueError,
            "lyapunov: count must be at most 4, got 5",
            "lyapunov",
            (GOOD,),
            {"count": 5},
        ),
        (
            ValueError,
            "lyapunov: warm must be below the number of steps, 3, so that at least one is left, "
            "got 3",
            "lyapunov",
            (GOOD,),
            {"warm": 3},
        ),
        (
            ValueError,
            "lyapunov: warm must be below the number of steps, 0, so that at least one is left, "
            "got 0",
            "lyapunov",
            (GOOD,),
            {"lengths": [3, 0]},
        ),
        (
            ValueError,
            "memory: steps must be at most 4, got 5",
            "memory",
            (MADE, X),
            {"steps": [0, 5]},
        ),
        (
            ValueError,
            "memory: threshold must be above 0 and at most 1, got 0",
            "memory",
            (MADE, X),
            {"threshold": 0},
        ),
        (
            TypeError,
            "gates: network must be an LSTM or a GRU, an RNN has no gates",
            "gates",
            (network("RNN"), X),
            {},
        ),
        (
            ValueError,
            "gates: there is no step to look at: (T, B) = (0, 3)",
            "gates",
            (MADE, sequence(steps=0)),
            {},
        ),
        (
            ValueError,
            "trajectories: there is no step to look at: (T, B) = (5, 3)",
            "trajectories",
            (MADE, X),
            {"lengths": [0, 0, 0]},
        ),
        (
            ValueError,
            "trajectories: components must be at most 8, got 9",
            "trajectories",
            (MADE, X),
            {"components": 9},
        ),
    ],
)
def test_options_that_cannot_be(error, message, name, arguments, options):
    refuses(error, message, name, *arguments, **options)


@pytest.mark.parametrize(
    "error, message, states, options",
    [
        (ValueError, "states must have shape (..., 8) = (..., state), got (3, 4)", (3, 4), {}),
        (ValueError, "states must hold at least one state, got (0, 8)", (0, 8), {}),
        (
            ValueError,
            "states must be finite, got NaN or infinity",
            np.array([[np.nan] + [0.0] * 7]),
            {},
        ),
        (
            ValueError,
            "states must hold at least one state, got (2, 8)",
            np.full((2, 8), np.nan),
            {},
        ),
        (TypeError, "states must hold real numbers, got complex128", np.zeros((1, 8), complex), {}),
        (
            ValueError,
            "input must have shape (2,) = (features of the layer's input,), got (3,)",
            (1, 8),
            {"input": np.zeros(3)},
        ),
        (
            ValueError,
            "input must be finite, got NaN or infinity",
            (1, 8),
            {"input": np.array([0, np.inf])},
        ),
        (TypeError, "input must hold real numbers, got <U1", (1, 8), {"input": ["a", "b"]}),
        (ValueError, "count must be at least 1, got 0", (1, 8), {"count": 0}),
        (ValueError, "iterations must be at least 1, got 0", (1, 8), {"iterations": 0}),
        (ValueError, "noise must be at least 0 and finite, got -1", (1, 8), {"noise": -1}),
        (
            ValueError,
            "tolerance must be at least 0 and finite, got nan",
            (1, 8),
            {"tolerance": np.nan},
        ),
        (TypeError, "distance must be a number, got str", (1, 8), {"distance": "small"}),
        (TypeError, "rng must be a numpy.random.Generator, got int", (1, 8), {"rng": 3}),
    ],
)
def test_start_states_that_cannot_be(error, message, states, options):
    states = np.zeros(states) if isinstance(states, tuple) else states
    refuses(error, f"fixed_points: {message}", "fixed_points", MADE, states, **options)


@pytest.mark.slow
def test_plots_that_cannot_be():
    pytest.importorskip("matplotlib")
    J = dynamics.jacobians(MADE, X)
    path = dynamics.trajectories(MADE, X, components=1)
    for error, message, draw in (
        (
            ValueError,
            "plot: row must be at most 2, got 3",
            lambda: dynamics.lyapunov(J).plot(row=3),
        ),
        (
            ValueError,
            "plot: unit must be at most 3, got 4",
            lambda: dynamics.gates(MADE, X).plot(unit=4),
        ),
        (TypeError, "plot: points must be a FixedPoints, got int", lambda: path.plot(points=3)),
        (
            ValueError,
            "project: states must have shape (..., 8) = (..., state), got (2,)",
            lambda: path.project(np.zeros(2)),
        ),
    ):
        with pytest.raises(error) as raised:
            draw()
        assert str(raised.value) == message
    figure = pytest.importorskip("matplotlib.figure").Figure()
    with pytest.raises(ValueError, match="needs as many components, got 1: call trajectories with"):
        path.plot(figure.add_subplot())
