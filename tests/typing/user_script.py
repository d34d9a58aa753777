"""What a user writes, with types: `mypy --strict` and pyright in strict mode must find no error
here.

The lines with `assert_type` say what a checker must know of the public names.
"""

import os
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import minigrad as mg
from minigrad import Tensor, nn, optim
from minigrad.data import Batches, Scaler, Stream, windows
from minigrad.training import History, TruncatedBPTT, fit

if TYPE_CHECKING:
    from typing_extensions import assert_type


class Forecaster(nn.Module):
    """An LSTM, dropout, and one number for each sequence."""

    def __init__(self, inputs: int, hidden: int, rng: np.random.Generator) -> None:
        self.recurrent = nn.LSTM(inputs, hidden, num_layers=2, dropout=0.1, rng=rng)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(hidden, 1, rng=rng)

    def forward(self, x: Tensor, lengths: npt.NDArray[np.int64] | None = None) -> Tensor:
        """x (T, B, inputs) -> (B, 1)."""
        _, state = self.recurrent(x, lengths=lengths)
        if TYPE_CHECKING:
            assert_type(state, nn.CellState)
            assert_type(state.c, Tensor)
        return self.head(self.dropout(state.h[-1]))


class Square(mg.Function):
    """An op with its own backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.detach() * x.detach()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx: Tensor = 2 * dy * x
        return dx


def ops(x: Tensor, w: Tensor) -> Tensor:
    """Operators, functions and methods."""
    y = mg.tanh(x @ w + 1.0) * mg.sigmoid(2 - x.sum(axis=-1, keepdims=True))
    y = mg.concatenate([y, mg.relu(-y)], axis=-1).reshape(-1)
    if TYPE_CHECKING:
        assert_type(y, Tensor)
        assert_type(y.shape, tuple[int, ...])
        assert_type(mg.max(y), Tensor)
        assert_type(y.item(), float)
    with mg.no_grad():
        y[0] = 0.0
    value, (dx,) = mg.vjp(mg.exp, x, mg.ones(x.shape))
    mg.gradcheck(mg.exp, mg.ones(2, dtype=np.float64, requires_grad=True))
    square: Tensor = Square.apply(value)
    return mg.mean(y) + square.mean() + mg.where(dx.numpy() > 0, dx, 0.0).sum()


@mg.no_grad()
def predict(model: Forecaster, x: npt.NDArray[np.float32]) -> float:
    """A number out of a model."""
    return float(model(Tensor(x)).mean())


def train(series: npt.NDArray[np.float64]) -> History:
    """Data, layers, an optimiser and the training loop."""
    scaler = Scaler().fit(series)
    x, y = windows(scaler.transform(series).astype(np.float32), 8, 1)
    batches = Batches(np.moveaxis(x, 1, 0), y[0], batch_size=4, shuffle=True, per_step=False)
    model = Forecaster(1, 4, np.random.default_rng(0))
    adam = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    schedule = optim.schedule.CosineAnnealingLR(adam, 10)

    def loss(x: Any, lengths: Any, target: Any) -> Tensor:
        out: Tensor = model(Tensor(x), lengths)
        return mg.mse(out, Tensor(target).reshape(out.shape))

    history = fit(model, adam, loss, batches, epochs=1, clip=1.0, after_step=[schedule])
    print(f"{predict(model, x[0][:, None]):.2f}", history.step)
    return history


def stream(tokens: npt.NDArray[np.int64]) -> float:
    """Truncated backpropagation through a language model."""
    layer, embedding = nn.GRU(4, 4), nn.Embedding(3, 4)
    sgd = optim.SGD([*layer.parameters(), *embedding.parameters()], lr=0.1, momentum=0.9)

    def model(x: Any, state: nn.HiddenState | None) -> tuple[Tensor, nn.HiddenState]:
        return layer(embedding(x), state)

    bptt = TruncatedBPTT(model, mg.cross_entropy, k1=2)
    loss = mg.zeros(())
    for x, y in Stream(tokens, 2, 2):
        loss = bptt(x, y)
        sgd.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(layer.parameters(), 1.0)
        sgd.step()
    return loss.item()


def recurrent(x: Tensor) -> Tensor:
    """Layers in their forms, and the cells that they are made of."""
    layer = nn.RNN(3, 4, bidirectional=True, merge="sum", nonlinearity="relu")
    outputs, state, traces = layer(x, lengths=[2, 1], trace=True)
    cell = nn.LSTMCell(3, 4, peepholes=True)
    h, c = cell(x[0])
    unrolled, (h_n, c_n) = nn.unroll(cell, x, (h, c), reverse=True)
    both = nn.bidirectional(nn.GRUCell(3, 4), nn.GRUCell(3, 4), x, merge="mean")
    if TYPE_CHECKING:
        assert_type(outputs, Tensor)
        assert_type(state, nn.HiddenState)
        assert_type(traces[0]["h"], npt.NDArray[Any])
        assert_type(nn.LSTM(3, 4)(x), tuple[Tensor, nn.CellState])
        assert_type(nn.GRU(3, 4)(x, state), tuple[Tensor, nn.HiddenState])
        assert_type(nn.GRUCell(3, 4)(x[0], h), Tensor)
        assert_type((h_n, c_n), tuple[Tensor, Tensor])
        assert_type(both, Tensor)
    return mg.stack([outputs, unrolled, both])[..., ::2].sum((0, 1))[-1] + state.detach().h[0, 0, 0]


def stepping(model: nn.Module, loss: Tensor) -> list[str]:
    """A backward pass that stops, with an edit."""
    names = dict(model.named_parameters())
    with mg.study.steps(loss, names=names) as run:
        found = [step.name for step in run if step.number < 3]
        step = run.run(until="tanh")
        if step is not None and isinstance(step.dy, Tensor):
            step.dy = step.dy * 2.0
            if TYPE_CHECKING:
                assert_type(step.dx, tuple[Tensor | None, ...])
                assert_type(run.gradients, dict[Tensor, Tensor])
    return found


def files(model: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """Weights to a file and back; the derivative of a derivative."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        mg.save(path, model.state_dict(), extra={"epoch": 1})
        arrays, _ = mg.load(path)
    model.load_state_dict(arrays)
    w = mg.Tensor([1.0, 2.0], requires_grad=True)
    (dw,) = mg.grad((w**3).sum(), w, create_graph=True)
    if TYPE_CHECKING:
        assert_type(dw, Tensor)
        assert_type(model.eval(), nn.Module)
        assert_type(mg.jacobian(mg.exp, w), Tensor)
        assert_type(mg.hessian(mg.mean, w), Tensor)
        assert_type(mg.hvp(mg.mean, w, w), tuple[Tensor, tuple[Tensor, ...]])
    return arrays


if __name__ == "__main__":
    print(stepping(nn.RNN(2, 3), mg.ones((), requires_grad=True) * 2.0))
    print(recurrent(mg.ones((2, 2, 3))).shape, len(files(nn.Linear(2, 3).eval())))
    print(ops(mg.ones((2, 3), requires_grad=True), mg.ones((3, 4))).item())
    train(np.sin(np.arange(64.0))[:, None])
    print(stream(np.arange(24) % 3))
