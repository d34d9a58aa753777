"""A net in float64, its batches, and a fit of it whose output is kept."""

import contextlib
import io

import numpy as np

import minigrad as mg
from minigrad.training.loop import fit

RNG = np.random.default_rng(3)
BATCHES = [
    (mg.Tensor(RNG.standard_normal((4, 2, 3))), mg.Tensor(RNG.standard_normal((4, 2, 2))))
    for _ in range(4)
]


class Net(mg.nn.Module):
    """A recurrent layer, dropout and a head, in float64."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.layer = mg.nn.GRU(3, 4, dtype=np.float64, rng=rng)
        self.drop = mg.nn.Dropout(0.2)
        self.head = mg.nn.Linear(4, 2, dtype=np.float64, rng=rng)

    def forward(self, x):
        return self.head(self.drop(self.layer(x)[0]))


class Run:
    """A net, its optimizer and what a fit of them has printed."""

    def __init__(self, optimizer=None, **options):
        mg.manual_seed(4)
        self.net = Net()
        self.optimizer = (
            mg.optim.SGD(self.net.parameters(), **({"lr": 0.1} | options))
            if optimizer is None
            else optimizer(self.net)
        )
        self.seen, self.out = [], ""

    def loss(self, x, y):
        return mg.mse(self.net(x), y)

    def fit(self, loss=None, batches=BATCHES, **options):
        out = io.StringIO()
        mg.manual_seed(4)
        see = [lambda history: self.seen.append(history)]
        options = {"steps": 8} | options
        options["after_step"] = see + list(options.get("after_step", []))
        try:
            with contextlib.redirect_stdout(out):
                return fit(self.net, self.optimizer, loss or self.loss, batches, **options)
        finally:
            self.out = out.getvalue()

    def weights(self):
        return {name: array.tobytes() for name, array in self.net.state_dict().items()}


def rates(run, **options):
    found = []
    run.fit(
        after_step=[
            *options.pop("after_step", []),
            lambda: found.append(run.optimizer.param_groups[0]["lr"]),
        ],
        **options,
    )
    return found
