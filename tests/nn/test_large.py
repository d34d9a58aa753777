"""More than 2^31 numbers in one array. Needs some 14 GB of memory and half a minute: `make
large`."""

import os

import numpy as np
import pytest

import minigrad as mg

pytestmark = pytest.mark.skipif(
    os.environ.get("MINIGRAD_LARGE") != "1", reason="needs 14 GB: make large"
)


def test_a_layer_with_more_than_2_to_the_31_gate_values_has_the_bits_of_a_row_alone():
    """T B 4 H > 2^31 (the gates that backward keeps): outputs, state and gradients of the last row,
    which lies beyond that."""
    B, H = 64, 64
    T = 2**31 // (B * 4 * H) + 100
    rng = np.random.default_rng(0)
    layer = mg.nn.LSTM(1, H, rng=rng)
    numbers = rng.standard_normal((T, B, 1)).astype(np.float32)
    found = []
    for rows in (slice(0, B), slice(B - 1, B)):
        x = mg.Tensor(numbers[:, rows], requires_grad=True)
        out, state = layer(x)
        assert rows.start or T * B * 4 * H > 2**31
        (state.h[0, -1].sum() + state.c[0, -1].sum()).backward()
        found.append(
            (
                out.numpy()[-5:, -1].copy(),
                state.c.numpy()[0, -1].copy(),
                x.grad.numpy()[:, -1].copy(),
            )
        )
        del out, state, x
    for whole, alone in zip(*found, strict=True):
        assert np.array_equal(whole, alone)
    assert np.abs(found[0][2][-50:]).max() > 1e-3
