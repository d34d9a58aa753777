"""A step of each optimiser, and clipping by norm, beside PyTorch's three forms (when installed).

    python benchmarks/optim.py                      about a minute
    python benchmarks/optim.py --threads 2

Every line is measured in one interleaved run, with parameters in float32: those of a character
LSTM, many small ones, one large.
"""

from timing import begin, interleave, table

options, torch = begin(__doc__, seconds=2.0, threads="")

import numpy as np  # noqa: E402

import minigrad as mg  # noqa: E402

SHAPES = {
    "char LSTM": [(90, 64), (64, 768), (192, 768), (768,), (192, 90), (90,), (192, 256)],
    "60 small": [(100,)] * 60,
    "one large": [(2000, 2000)],
}
KINDS = {
    "SGD momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "RMSprop": ("RMSprop", {"lr": 1e-3}),
    "Adam": ("Adam", {"lr": 1e-3}),
    "AdamW": ("AdamW", {"lr": 1e-3}),
    "Adagrad": ("Adagrad", {"lr": 1e-3}),
}
FORMS = {"foreach": {"foreach": True}, "fused": {"fused": True}, "loop": {"foreach": False}}
rng = np.random.default_rng(0)


def numbers(shapes):
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def line(name, contestants):
    """Microseconds of each, and how many times as long as minigrad's each form of PyTorch takes."""
    found = interleave(contestants, options.seconds)
    row = [name, f"{found['minigrad'] * 1e6:,.1f}"]
    for form in FORMS if torch else ():
        row += [
            f"{found[form] * 1e6:,.1f} ({found[form] / found['minigrad']:.2f})"
            if form in found
            else "-"
        ]
    return row


def main() -> None:
    header = ["microseconds a step", "minigrad", *(f"torch {form}" for form in FORMS if torch)]
    for size, shapes in SHAPES.items():
        rows, data, gradients = [], numbers(shapes), numbers(shapes)
        for name, (kind, arguments) in KINDS.items():
            ours = [mg.Tensor(a, requires_grad=True) for a in data]
            for p, g in zip(ours, gradients, strict=True):
                p.grad = mg.Tensor(g)
            contestants = {"minigrad": getattr(mg.optim, kind)(ours, **arguments).step}
            for form, choice in FORMS.items() if torch else ():
                theirs = [torch.tensor(a, requires_grad=True) for a in data]
                for p, g in zip(theirs, gradients, strict=True):
                    p.grad = torch.tensor(g)
                if not (form == "fused" and kind == "RMSprop"):  # PyTorch has none
                    contestants[form] = getattr(torch.optim, kind)(
                        theirs, **arguments, **choice
                    ).step
            rows.append(line(name, contestants))
        ours = [mg.zeros(shape, requires_grad=True) for shape in shapes]
        for p, g in zip(ours, gradients, strict=True):
            p.grad = mg.Tensor(g)
        contestants = {"minigrad": lambda p=ours: mg.optim.clip_grad_norm_(p, 1e-3)}
        for form, foreach in (("foreach", True), ("loop", False)) if torch else ():
            theirs = [torch.zeros(shape, requires_grad=True) for shape in shapes]
            for p, g in zip(theirs, gradients, strict=True):
                p.grad = torch.tensor(g)
            contestants[form] = lambda p=theirs, f=foreach: torch.nn.utils.clip_grad_norm_(
                p, 1e-3, foreach=f
            )
        rows.append(line("clip_grad_norm_", contestants))
        print(
            f"\n{size}: {len(shapes)} parameters, {sum(a.size for a in data):,} numbers; in brackets: times minigrad's"
        )
        print(table(header, rows))


main()
