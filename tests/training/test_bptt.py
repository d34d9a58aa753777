"""Truncated BPTT against brute force, and gradients accumulated over several batches."""

import numpy as np
import pytest
from lines import same

import minigrad as mg
from minigrad.training.bptt import TruncatedBPTT, accumulate

# ---------------------------------------------------------------- truncated BPTT


B, I, H = 2, 3, 4


class Net(mg.nn.Module):
    """A recurrent layer and a head: out of every step."""

    def __init__(self, kind="LSTM", dtype=np.float64, layers=1, dropout=0.0):
        rng = np.random.default_rng(0)
        self.layer = getattr(mg.nn, kind)(I, H, layers, dropout=dropout, dtype=dtype, rng=rng)
        self.head = mg.nn.Linear(H, 2, dtype=dtype, rng=rng)

    def forward(self, x, state=None):
        out, state = self.layer(x, state)
        return self.head(out), state


def series(T, dtype=np.float64):
    rng = np.random.default_rng(T)
    return mg.Tensor(rng.standard_normal((T, B, I)).astype(dtype)), mg.Tensor(
        rng.standard_normal((T, B, 2)).astype(dtype)
    )


def gradients(net):
    found = {name: p.grad.numpy().copy() for name, p in net.named_parameters()}
    net.zero_grad()
    return found


def total(net, x, y, k1, k2):
    """The sum of the windows' gradients, their losses, and the object."""
    bptt, losses = TruncatedBPTT(net, lambda out, y: ((out - y) ** 2).sum(), k1, k2), []
    for loss in bptt.over(x, y):
        loss.backward()
        losses.append(loss.item())
    return gradients(net), losses, bptt


def brute_force(net, x, y, k1, k2):
    """Each step gets its own copies of the weights, so that the gradient of a step's loss with
    respect to the copies of another step is that step's share. Windows are then sums over a table
    of shares [loss of step t, copies of step j]."""
    T, cell, head = len(x), net.layer.cells[0], net.head
    names = [name for name, _ in net.named_parameters()]
    owners = {id(p): name for name, p in net.named_parameters()}
    copies, outs = [], []
    state = None
    for t in range(T):
        weights = [
            None if w is None else mg.Tensor(w.numpy(), requires_grad=True) for w in cell.weights()
        ]
        W, b = (mg.Tensor(p.numpy(), requires_grad=True) for p in (head.weight, head.bias))
        out, state = mg.nn.unroll(cell, x[t : t + 1], state, weights=type(cell.weights())(*weights))
        outs.append(out @ W + b)
        own = {
            owners[id(p)]: copy
            for p, copy in zip(cell.weights(), weights, strict=True)
            if p is not None
        }
        copies.append(own | {owners[id(head.weight)]: W, owners[id(head.bias)]: b})
    shares = []
    for t in range(T):
        ((outs[t] - y[t : t + 1]) ** 2).sum().backward(retain_graph=True)
        shares.append(
            [
                {n: 0 if c[n].grad is None else c[n].grad.numpy().copy() for n in names}
                for c in copies
            ]
        )
        for c in copies:
            for tensor in c.values():
                tensor.grad = None
    found = {n: np.zeros(p.shape) for n, p in net.named_parameters()}
    for begin in range(0, T, k1):
        end = min(begin + k1, T)
        for t in range(begin, end):
            for j in range(begin if k1 == k2 else max(0, end - k2), t + 1):
                for n in names:
                    found[n] += shares[t][j][n]
    return found


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "k1, k2, T",
    [
        (1, 1, 5),
        (1, 3, 7),
        (2, 2, 7),
        (2, 3, 9),
        (2, 5, 11),
        (3, 4, 10),
        (3, 7, 10),
        (4, 9, 9),
        (5, 50, 12),
        (7, 7, 7),
        (9, 9, 7),
    ],
)
def test_windows_are_those_of_brute_force(kind, k1, k2, T):
    net, (x, y) = Net(kind), series(T)
    found, expected = total(net, x, y, k1, k2)[0], brute_force(net, x, y, k1, k2)
    for name in expected:
        assert np.abs(found[name] - expected[name]).max() <= 1e-12 * max(
            1, np.abs(expected[name]).max()
        ), name


def test_brute_force_tells_windows_apart():
    """The check above would see a window that is one step longer or shorter."""
    net, (x, y) = Net(), series(9)
    for k1, k2 in ((2, 4), (3, 3)):
        right, wrong = brute_force(net, x, y, k1, k2), brute_force(net, x, y, k1, k2 + 1)
        assert max(np.abs(right[n] - wrong[n]).max() for n in right) > 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_k1_is_k2_is_the_plain_form_to_the_bit(dtype):
    net, (x, y) = Net(dtype=dtype, layers=2), series(11, dtype)
    found, losses, bptt = total(net, x, y, 4, 4)
    state, plain = None, []
    for at in (0, 4, 8):
        out, state = net(x[at : at + 4], state)
        state = state.detach()
        loss = ((out - y[at : at + 4]) ** 2).sum()
        loss.backward()
        plain.append(loss.item())
    assert losses == plain
    same(found, gradients(net))
    same(bptt.state._asdict(), state._asdict())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_window_of_the_whole_sequence_is_the_full_gradient_to_the_bit(dtype):
    net, (x, y) = Net(dtype=dtype, layers=2), series(11, dtype)
    found, losses, _ = total(net, x, y, 11, 11)
    loss = ((net(x)[0] - y) ** 2).sum()
    loss.backward()
    assert losses == [loss.item()]
    same(found, gradients(net))


@pytest.mark.parametrize("k1", [1, 2, 5])
def test_k2_of_the_whole_sequence_cuts_nothing(k1):
    """Also with several windows the losses' gradients add up to the full one; the outputs, hence
    the losses, have its bits."""
    net, (x, y) = Net(), series(11)
    found, losses, _ = total(net, x, y, k1, 11)
    out = net(x)[0]
    assert losses == [
        ((out[at : at + k1] - y[at : at + k1]) ** 2).sum().item() for at in range(0, 11, k1)
    ]
    ((out - y) ** 2).sum().backward()
    for name, expected in gradients(net).items():
        assert np.abs(found[name] - expected).max() <= 1e-13 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("k1, k2", [(2, 2), (2, 3), (3, 7), (4, 4)])
def test_the_state_that_is_carried_has_the_bits_of_one_run(k1, k2):
    net, (x, y) = Net(dtype=np.float32, layers=2), series(12, np.float32)
    _, losses, bptt = total(net, x, y, k1, k2)
    out, _ = net(x)
    assert losses == [
        ((out[at : at + k1] - y[at : at + k1]) ** 2).sum().item() for at in range(0, 12, k1)
    ]
    begin = 12 + k1 - k2
    assert (bptt.past is None) == (begin == 12) and (
        bptt.past is None or len(bptt.past) == 12 - begin
    )
    same(bptt.state._asdict(), net(x[:begin])[1]._asdict())
    assert not bptt.state.h.requires_grad


def test_a_window_uses_the_weights_of_now():
    """Weights that change between chunks: each gradient is that of the window from its carried
    state with the present weights."""
    net, (x, y) = Net("GRU"), series(12)
    bptt = TruncatedBPTT(net, mg.mse, 2, 5)
    for end in range(2, 13, 2):
        state, begin = bptt.state, max(0, end - 5)
        bptt(x[end - 2 : end], y[end - 2 : end]).backward()
        found = gradients(net)
        mg.mse(net(x[begin:end], state)[0][-2:], y[end - 2 : end]).backward()
        for name, expected in gradients(net).items():
            assert np.abs(found[name] - expected).max() <= 1e-13
        with mg.no_grad():
            for p in net.parameters():
                p[...] = p.numpy() * 0.9


def test_tokens_and_calls_with_chunks():
    """x may be an array of whole numbers; a sequence may come in several calls of `over`."""

    class Model(mg.nn.Module):
        def __init__(self):
            self.embed, self.net = (
                mg.nn.Embedding(5, I, rng=np.random.default_rng(1)),
                Net(dtype=np.float32),
            )

        def forward(self, x, state):
            return self.net(self.embed(x), state)

    model, rng = Model(), np.random.default_rng(2)
    x, y = rng.integers(0, 5, (8, B)), rng.integers(0, 2, (8, B))
    whole, parts = (TruncatedBPTT(model, mg.cross_entropy, 2, 4) for _ in range(2))
    expected = [loss.item() for loss in whole.over(x, y)]
    assert expected == [
        loss.item() for at in (0, 4) for loss in parts.over(x[at : at + 4], y[at : at + 4])
    ]
    parts.reset()
    assert expected == [loss.item() for loss in parts.over(x, y)]


def test_bad_windows():
    with pytest.raises(ValueError, match="TruncatedBPTT: k2 must be at least k1 = 3, .* got 2"):
        TruncatedBPTT(Net(), mg.mse, 3, 2)
    with pytest.raises(ValueError, match="TruncatedBPTT: k1 must be at least 1, got 0"):
        TruncatedBPTT(Net(), mg.mse, 0)
    with pytest.raises(TypeError, match="TruncatedBPTT: k1 must be an int, got float"):
        TruncatedBPTT(Net(), mg.mse, 2.5)
    bptt, (x, y) = TruncatedBPTT(Net(), mg.mse, 3, 5), series(6)
    bptt(x[:3], y[:3])
    before = bptt.state_dict()
    for bad_x, bad_y, message in (
        (x[:4], y[:4], "must both have 1 to k1 = 3 steps, got 4 and 4"),
        (x[:0], y[:0], "got 0 and 0"),
        (x[:3], y[:2], "got 3 and 2"),
        (x[:3, :1], y[:3, :1], "steps of shape .2, 3. as before"),
    ):
        with pytest.raises(ValueError, match=message):
            bptt(bad_x, bad_y)
    after = bptt.state_dict()
    same(dict(enumerate(after["state"])), dict(enumerate(before["state"])))
    same({"past": after["past"]}, {"past": before["past"]})


# ---------------------------------------------------------------- gradients over several batches


@pytest.mark.parametrize("parts", [(6,), (3, 3), (1, 5), (2, 1, 3), (1,) * 6])
def test_accumulated_is_the_whole_batch(parts):
    """Parts of any sizes, sequences of any lengths: the mean is over all steps that count."""
    net, rng = Net(), np.random.default_rng(3)
    x, lengths = rng.standard_normal((7, 6, I)), np.array([7, 1, 4, 0, 6, 2])
    y = np.where(np.arange(7)[:, None] < lengths, rng.integers(0, 2, (7, 6)), -100)

    def loss(rows, reduction):
        return mg.cross_entropy(
            net.head(net.layer(mg.Tensor(x[:, rows]), lengths=lengths[rows])[0]),
            y[:, rows],
            reduction=reduction,
        )

    whole = loss(slice(0, 6), "mean")
    whole.backward()
    expected = gradients(net)
    ends = np.cumsum(parts)
    value = accumulate(
        (loss(slice(end - n, end), "sum") for n, end in zip(parts, ends, strict=True)),
        count=lengths.sum(),
    )
    assert abs(value - whole.item()) <= 1e-13
    found = gradients(net)
    for name in expected:
        assert np.abs(found[name] - expected[name]).max() <= 1e-13, name
    if len(parts) == 1:
        same(found, expected)


def test_accumulate_refuses():
    for count in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="accumulate: count must be above 0"):
            accumulate([], count)
