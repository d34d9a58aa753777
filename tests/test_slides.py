"""docs/slides.md cannot rot: every line of code that it quotes stands in its file, every test and
figure exists, the lecture's terms come in the lecture's order. And the claims of the lecture that
no other test checks."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "slides.md").read_text(encoding="utf-8")
CODE = re.findall(r"^- code: \[`(.+?)`\]\(\.\./(.+?)\):\s+`(.+)`$", PAGE, re.MULTILINE)
TESTS = re.findall(r"^- test: \[`(.+?)`\]\(\.\./(.+?)\):\s+`(\w+)`$", PAGE, re.MULTILINE)
FIGURES = re.findall(r"^- figure: !\[[^\]]+\]\((figures/.+)\)$", PAGE, re.MULTILINE)
TERMS = [
    "Рекуррентные сети",
    "нейронная сеть",
    "сложная дифференцируемая функция",
    "линейный слой",
    "x ↦ xW + b",
    "функция активации",
    "вычислительный граф",
    "применение",
    "не позволяют сохранять информацию",
    "временная компонента",
    "рекуррентная нейронная сеть",
    "цепочка блоков",
    "скрытое состояние",
    "h_n = tanh(h_{n-1} W1 + x_n W2)",
    "many-to-many",
    "выходной сигнал",
    "y_n = h_n W3",
    "одинаковы на всех итерациях",
    "двунаправленная",
    "конкатенация",
    "y_n = [h_n, g_n] w + b",
    "усреднение",
    "взрыв и затухание градиента",
    "L_n = L(y_n, ŷ_n)",
    "∇h_{i-1} L =",
    "собственные значения",
    "Gradient clipping",
    "порог",
    "сеть с долговременной и кратковременной памятью",
    "частично",
    "внутренняя, закрытая информация",
    "вентили",
    "вентиль забывания",
    "f_t = σ(h_{t-1} W1f + x_t W2f + bf)",
    "c̃_t = tanh(h_{t-1} W1c + x_t W2c + bc)",
    "вентиль входного состояния",
    "i_t = σ(h_{t-1} W1i + x_t W2i + bi)",
    "новое состояние блока",
    "c_t = f_t · c_{t-1} + i_t · c̃_t",
    "вентиль выходного состояния",
    "o_t = σ(h_{t-1} W1o + x_t W2o + bo)",
    "выходное значение",
    "h_t = o_t · tanh(c_t)",
    "объединяет input gate и forget gate в один update gate",
    "меньше параметров",
    "быстрее учится",
    "сопоставимое качество",
]


def test_every_reference_is_understood():
    """A reference that the patterns above do not match would go unchecked."""
    assert (
        len(CODE) + len(TESTS) + len(FIGURES) == len(re.findall(r"^- ", PAGE, re.MULTILINE))
        and len(CODE) > 30
    )
    assert all(shown == path for shown, path, _ in CODE + TESTS)


def plain(code):
    """Code without what a formatter may change: spaces, line breaks, trailing commas, kinds of
    quotes."""
    return re.sub(r",([)\]}])", r"\1", re.sub(r"\s+", "", code).replace("'", '"'))


@pytest.mark.parametrize("path, line", [(path, line) for _, path, line in CODE])
def test_the_quoted_line_is_in_the_file(path, line):
    assert plain(line) in plain((ROOT / path).read_text(encoding="utf-8")), (
        f"{path} has no line {line}"
    )


@pytest.mark.parametrize("path, name", sorted({(path, name) for _, path, name in TESTS}))
def test_the_named_test_exists(path, name):
    assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("figure", FIGURES)
def test_the_figure_exists_is_small_and_made_by_make(figure):
    path = ROOT / "docs" / figure
    assert 0 < path.stat().st_size < 100_000
    assert f"docs/{figure}" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_no_figure_is_left_over():
    pages = [
        path.read_text(encoding="utf-8")
        for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    ]
    for path in (ROOT / "docs" / "figures").iterdir():
        assert any(f"figures/{path.name}" in page for page in pages), path.name


def test_the_lectures_terms_come_in_its_order():
    text = " ".join(PAGE.split())
    at = 0
    for term in TERMS:
        found = text.find(term, at)
        assert found >= 0, f"{term} is missing, or stands before what the lecture says before it"
        at = found


# ---------------------------------------------------------------- claims


def rnn_by_hand(T=6, B=2, I=3, H=4):
    """The slide's network, its hidden states kept: (W1, W2, x, [h_1, ..., h_T])."""
    rng = np.random.default_rng(0)
    W1, W2 = (
        mg.Tensor(rng.standard_normal(shape), requires_grad=True) for shape in [(H, H), (I, H)]
    )
    x, hs = mg.Tensor(rng.standard_normal((T, B, I))), [mg.zeros((B, H), np.float64)]
    for x_n in x:
        hs.append(mg.tanh(hs[-1] @ W1 + x_n @ W2))
        hs[-1].retain_grad()
    return W1, W2, x, hs


def test_the_gradient_of_one_step():
    """The slide: grad h_{i-1} = (grad h_i * tanh'(h_{i-1} W1 + x_i W2)) W1^T, where the loss looks
    at the last state alone."""
    W1, W2, x, hs = rnn_by_hand()
    (hs[-1] * mg.Tensor(np.random.default_rng(1).standard_normal((2, 4)))).sum().backward()
    for i in range(2, len(hs)):
        a = hs[i - 1].numpy() @ W1.numpy() + x.numpy()[i - 1] @ W2.numpy()
        expected = (hs[i].grad.numpy() / np.cosh(a) ** 2) @ W1.numpy().T
        np.testing.assert_allclose(hs[i - 1].grad.numpy(), expected, rtol=1e-10)


def test_shared_weights_get_the_sum_over_the_steps():
    """dL/dW1 is the sum over n of h_{n-1}^T (grad h_n * tanh')."""
    W1, W2, x, hs = rnn_by_hand()
    (hs[-1] ** 2).sum().backward()
    expected = sum(
        hs[n - 1].numpy().T @ (hs[n].grad.numpy() * (1 - hs[n].numpy() ** 2))
        for n in range(1, len(hs))
    )
    np.testing.assert_allclose(W1.grad.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_last_output_depends_on_every_hidden_state(kind):
    layer = getattr(mg.nn, kind)(3, 4, dtype=np.float64)
    out, _ = layer(mg.Tensor(np.random.default_rng(0).standard_normal((9, 2, 3))))
    out[-1].sum().backward()
    assert (layer.telemetry[0].dh_norm > 0).all()


@pytest.mark.parametrize("I, H", [(1, 1), (64, 128), (88, 36)])
def test_gru_has_three_quarters_of_the_weights(I, H):
    count = {
        kind: sum(p.size for p in getattr(mg.nn, kind)(I, H).parameters())
        for kind in ("RNN", "LSTM", "GRU")
    }
    assert count["RNN"] * 3 == count["GRU"] and count["GRU"] * 4 == count["LSTM"] * 3


@pytest.mark.slow
def test_text_comparison_has_equal_numbers_of_weights(tmp_path, monkeypatch):
    """benchmarks/text.py in a few steps; its counts are those of the networks, and equal within 1
    %."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("text_benchmark", ROOT / "benchmarks" / "text.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for kind in ("RNN", "LSTM", "GRU"):
        network = module.Network(kind, 50, 20)
        assert module.weights(kind, 50, 20) == sum(p.size for p in network.parameters())
    (tmp_path / "text.txt").write_text(
        "the quick brown fox jumps over the lazy dog. " * 500, encoding="utf-8"
    )
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "text.py",
            *"--text text.txt --steps 60 --hidden 32 --seeds 0".split(),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    sizes, losses = [int(row[3].replace(",", "")) for row in rows], [float(row[5]) for row in rows]
    assert len(rows) == 3 and max(sizes) < 1.02 * min(sizes) and max(losses) < np.log(28), (
        done.stdout
    )
