"""The derivative of a step with respect to the state before it, in closed form.

A step is a function of the state s before it, a row of n numbers: h, or h and c. Its Jacobian is

    J[i, j] = d new_s[i] / d s[j]            row: output, column: input, as in mg.jacobian

so that a small change ds of the state becomes J ds, that of several steps is the product
J_t ... J_2 J_1, and a gradient goes back as J^T. The formulas below are the derivatives of those in
the docstrings of RNNCell, LSTMCell and GRUCell. They are written in two pieces:

    d (v U)_i / d v_j = U[j, i]       so that an activation of h U with the derivative d gives
                                      d_i U[j, i]: `through(d, U)`
    an elementwise factor v           gives v_i where i = j: `diagonal(v)`

sigmoid' = s (1 - s), tanh' = 1 - tanh^2, relu' = 1 where its value is above 0.
"""

from typing import Any

import numpy as np

from minigrad.nn.gated import GatedCell
from minigrad.study.dynamics.run import Array, Values, run

__all__ = ["closed_form", "diagonal", "jacobians", "through"]


def jacobians(
    network: Any,
    x: Any,
    state: Any = None,
    lengths: Any = None,
    reset: Any = None,
    *,
    layer: int = 0,
    direction: str = "forward",
) -> Array:
    """The Jacobian of each step of a layer: how the state after it depends on the state before it.

    Args:
        network: an RNN, an LSTM or a GRU.
        x: the input of the network, (T, B, input_size).
        state: the state to start from, as the network takes it. Default: zeros.
        lengths: (B,) ints from 0 to T. Past its length the state of a row stands still: J is the
            identity. Default: T for all.
        reset: bool (T, B). Where true the state is set to zero before the step, and nothing of
            what was before it remains: J is 0. Default: nowhere.
        layer: which layer, from 0 up to num_layers - 1. Default: 0, the first one.
        direction: "forward" (default) or, in a network of both directions, "backward". There the
            state before step t is that of step t + 1, so the steps follow each other as J[::-1].

    Returns:
        An array J (T, B, n, n) of float64: J[t, b, i, j] is the derivative of element i of the
        state after step t with respect to element j of the state before it, in row b. n is H for
        RNN and GRU. For the LSTM it is 2 H: first h, then c.

    Raises:
        TypeError: network is no recurrent layer, or an argument has the wrong type or dtype.
        ValueError: an argument has the wrong shape or is outside its range, or the network is in
            training mode with dropout.

    >>> import minigrad as mg
    >>> J = mg.study.dynamics.jacobians(mg.nn.LSTM(3, 4), mg.ones((5, 2, 3)))
    >>> J.shape
    (5, 2, 8, 8)
    """
    seen = run("jacobians", network, x, state, lengths, reset, layer, direction)
    J = closed_form(seen.cell, seen.values, seen.before)
    J[seen.reset] = 0
    J[~seen.alive] = np.eye(J.shape[-1])
    return J


def closed_form(cell: GatedCell[Any], values: Values, before: Values) -> Array:
    """The Jacobians (..., n, n) of steps of a cell.

    Args:
        cell: the weights.
        values: gates by name and the states after the steps, each (..., H).
        before: the states before the steps, each (..., H).
    """
    U = dict(zip(cell.gates, _parts(cell.U.numpy(), len(cell.gates)), strict=True))
    if cell.kind in ("rnn_tanh", "rnn_relu"):
        return _rnn(cell.kind, U, values)
    if cell.kind == "gru":
        return _gru(U, values, before)
    if cell.kind == "gru_after":
        b_u = 0.0 if cell.b is None else _parts(cell.b.numpy(), 4)[3]
        return _gru_after(U, b_u, values, before)
    peepholes = np.zeros((3, cell.hidden_size)) if cell.p is None else cell.p.numpy()
    return _lstm(U, peepholes.astype(np.float64), values, before)


def _parts(weights: Any, count: int) -> list[Array]:
    return np.split(weights.astype(np.float64), count, axis=-1)


def through(d: Array, U: Array) -> Array:
    """The Jacobians of an elementwise function of h U with the derivatives d: d_i U[j, i]."""
    d = np.asarray(d)
    return np.asarray(d[..., :, None] * np.asarray(U).T)


def diagonal(v: Array) -> Array:
    """v_i where i = j, else 0."""
    v = np.asarray(v)  # a np.matrix of three axes makes NumPy write past its memory
    return np.asarray(v[..., :, None] * np.eye(v.shape[-1]))


def _rnn(kind: str, U: Values, values: Values) -> Array:
    """h' = f(x W + h U + b)."""
    h = values["h"]
    return through(1 - h**2 if kind == "rnn_tanh" else (h > 0).astype(np.float64), U["h"])


def _gru(U: Values, values: Values, before: Values) -> Array:
    """h' = (1 - z) n + z h, n = tanh(x W + (r h) U_n + b): r h depends on h twice."""
    r, z, n, h = values["r"], values["z"], values["n"], before["h"]
    d_rh = diagonal(r) + through(h * r * (1 - r), U["r"])
    dn = (1 - n**2)[..., :, None] * (U["n"].T @ d_rh)
    dz = through(z * (1 - z), U["z"])
    return np.asarray((1 - z)[..., :, None] * dn + (h - n)[..., :, None] * dz + diagonal(z))


def _gru_after(U: Values, b_u: Array | float, values: Values, before: Values) -> Array:
    """h' = (1 - z) n + z h, n = tanh(x W + b + r u), u = h U_n + b_u."""
    r, z, n, h = values["r"], values["z"], values["n"], before["h"]
    u = h @ U["n"] + b_u
    dn = (1 - n**2)[..., :, None] * (through(r, U["n"]) + through(u * r * (1 - r), U["r"]))
    dz = through(z * (1 - z), U["z"])
    return np.asarray((1 - z)[..., :, None] * dn + (h - n)[..., :, None] * dz + diagonal(z))


def _lstm(U: Values, p: Array, values: Values, before: Values) -> Array:
    """c' = f c + i g, h' = o tanh c'; i and f also see p_i c and p_f c, o sees p_o c'.

    The state is (h, c): of its four blocks the lower two are the derivatives of c', and the upper
    two follow from them, since h' depends on c' in tanh c' and, by the peephole, in o.
    """
    i, f, g, o = (values[name] for name in "ifgo")
    c, tanh_c = before["c"], np.tanh(values["c"])
    d_i, d_f, d_g, d_o = g * i * (1 - i), c * f * (1 - f), i * (1 - g**2), tanh_c * o * (1 - o)

    dc_dh = through(d_i, U["i"]) + through(d_f, U["f"]) + through(d_g, U["g"])
    dc_dc = diagonal(f + d_i * p[0] + d_f * p[1])
    dh_dc_new = (o * (1 - tanh_c**2) + d_o * p[2])[..., :, None]
    dh_dh = dh_dc_new * dc_dh + through(d_o, U["o"])
    dh_dc = dh_dc_new * dc_dc
    return np.block([[dh_dh, dh_dc], [dc_dh, dc_dc]])
