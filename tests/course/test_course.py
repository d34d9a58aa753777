"""The course: its pages run, the stubs are to do, the solutions are right, and each planted mistake
gets its own hint."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import run_blocks

ROOT = Path(__file__).parents[2]
COURSE = ROOT / "docs" / "course"
SOLUTIONS = Path(__file__).parent / "solutions"
CHAPTERS = sorted(COURSE.glob("[01]*.md"))

# For each exercise: what is changed in the solution, into what, and words of the hint. The change
# is a mistake that students make.
MISTAKES = {
    1: [
        ("if id(top) not in listed:", "if True:", "remember which nodes you have listed"),
        ("for x in top.inputs if", "for x in top.inputs[:1] if", "not only to the first"),
        ("return found", "return found[::-1]", "only when all its inputs are in it"),
        (
            "    found, listed, stack = [], set(), [node]",
            "    found = []\n    for x in node.inputs:\n        found += [y for y in order(x) if y "
            "not in found]\n    return [*found, node]\n    stack, listed = [], set()",
            "visited once",
        ),
        (
            "    found, listed, stack = [], set(), [node]",
            "    return visit(node, [], set())\n    stack, listed, found = [], set(), []",
            "use a loop and a list",
        ),
        ("return found", "return tuple(found)", "return a list of Nodes"),
    ],
    2: [
        ("[dz * b.value, dz * a.value]", "[dz * a.value, dz * b.value]", "the OTHER factor"),
        ("[dz * b.value, dz * a.value]", "[b.value, a.value]", "multiply by dz"),
        ("[dz * b.value, dz * a.value]", "[dz, dz]", "the rule of a sum"),
        ("(1 - y**2)", "(1 - y)", "with the square"),
        ("(1 - y**2)", "(1 - x.value**2)", "not its argument"),
        ("[dy * (1 - y**2)]", "dy * (1 - y**2)", "a rule returns a list"),
    ],
    3: [
        ("grads[x] + dx if x in grads else dx", "dx", "is ADDED"),
        ("reversed(tape)", "tape", "from the newest node"),
        ("np.ones_like(z.value)", "z.value", "begin with that"),
        ("        if node not in grads:\n            continue\n", "", "skip it"),
        (
            "            grads[x] = grads[x] + dx if x in grads else dx",
            "            if x in grads:\n                grads[x] += dx\n            else:\n"
            "                grads[x] = np.asarray(dx)",
            "the SAME array",
        ),
        ("    return grads", "    return list(grads)", "return a dict"),
    ],
    4: [
        ("keepdims=True", "keepdims=False", "axes of length 1 stay"),
        ("np.sum(dz, axis=repeated", "np.mean(dz, axis=repeated", "not averaged"),
        ("    dz = dz.sum(axis=tuple(range(lead)))\n", "", "has the shape"),
        ("return np.sum(dz, axis=repeated, keepdims=True)", "return dz", "axes of length 1 stay"),
        (
            "return np.sum(dz, axis=repeated, keepdims=True)",
            "return np.full(shape, dz.sum())",
            "over no others",
        ),
    ],
    5: [
        ("dy @ W.T", "dy @ W", "transpose W"),
        ("x.T @ dy", "dy.T @ x", "not dyᵀ x"),
        ("x.T @ dy", "x.T @ dy / len(x)", "no mean"),
        ("dy.sum(axis=0)", "dy", "sum dy over the rows"),
        ("dy.sum(axis=0)", "dy.sum(axis=1)", "axis 0"),
        ("dy.sum(axis=0)", "dy.mean(axis=0)", "no mean"),
    ],
    6: [
        ("(dh[t] + dh_next)", "dh[t]", "add what comes back from there"),
        ("reversed(range(len(x)))", "range(len(x))", "go back in time"),
        (" * (1 - h[t] ** 2)", "", "times 1 - h²"),
        ("da @ U.T", "da @ U", "with the transpose"),
        ("before = h[t - 1] if t > 0 else np.zeros_like(h[0])", "before = h[t]", "BEFORE the step"),
    ],
    7: [
        ("norms[::-1]", "norms", "turn it round"),
        (" * (1 - h[t] ** 2)", "", "times 1 - h²"),
        ("@ U.T", "@ U", "the matrix is Uᵀ"),
        ("h[t] ** 2", "h[t - 1] ** 2", "the slope is that at h_t"),
        ("return np.array(norms[::-1])", "return np.array(norms[::-1]) ** 2", "the root"),
    ],
    8: [
        (
            "[g * (bound / norm) for g in grads]",
            "[g * bound / np.linalg.norm(g) for g in grads]",
            "ONE norm",
        ),
        (
            "[g * (bound / norm) for g in grads]",
            "[np.clip(g, -bound, bound) for g in grads]",
            "the norm is to be clipped",
        ),
        ("    if norm <= bound:\n        return grads\n", "", "scale only if above"),
        ("(bound / norm)", "(1 / norm)", "times bound / norm"),
        (
            "np.sqrt(sum((g**2).sum() for g in grads))",
            "sum(np.linalg.norm(g) for g in grads)",
            "ALL",
        ),
        ("(bound / norm)", "(bound / norm**2)", "not by its square"),
    ],
    9: [
        ("i, f, g, o =", "f, i, g, o =", "they are swapped"),
        ("np.tanh(g)", "sigmoid(g)", "made by tanh"),
        ("sigmoid(f) * c +", "c +", "the forget gate multiplies"),
        ("sigmoid(f) * c + ", "", "the old state is kept"),
        ("sigmoid(o) * np.tanh(c)", "sigmoid(o) * c", "goes through tanh"),
        ("sigmoid(o) * np.tanh(c)", "np.tanh(c)", "the output gate multiplies"),
    ],
    10: [
        ("(1 - z) * n + z * h", "z * n + (1 - z) * h", "what is KEPT"),
        ("(r * h) @ U[:, 2 * H :]", "r * (h @ U[:, 2 * H :])", "BEFORE the product"),
        ("(r * h)", "h", "the reset gate multiplies h"),
        ("(1 - y[i] * y[i])", "(1 - y[i])", "with the square"),
        ("i < n", "i <= n", "behind the end"),
        ("i < n", "i < n - 1", "the last element is missing"),
        ("long i = 0", "long i = 1", "the first element is missing"),
        ("dy[i] * (1", "(1", "multiply by dy"),
        ("i < n; i++)", "i < n; i++", "the compiler does not take it"),
    ],
}
RECURSIVE = """

def visit(node, found, listed):
    for x in node.inputs:
        if id(x) not in listed:
            visit(x, found, listed)
    if id(node) not in listed:
        listed.add(id(node))
        found.append(node)
    return found
"""


def check(number, path, *options):
    return subprocess.run(
        [sys.executable, str(COURSE / "check.py"), str(number), str(path), *options],
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_ten_chapters():
    assert [page.name[:2] for page in CHAPTERS] == [f"{k:02}" for k in range(1, 11)]
    for page in CHAPTERS:
        text = page.read_text(encoding="utf-8")
        number = int(page.name[:2])
        assert f"check.py {number} my.py" in text and "](figures/" in text.replace("../", "")
        assert f"exercises/{number:02}.py" in text
    assert sorted(MISTAKES) == list(range(1, 11)) and min(map(len, MISTAKES.values())) >= 5


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.name)
def test_chapter(page, monkeypatch):
    monkeypatch.syspath_prepend(str(COURSE))
    run_blocks(page)


@pytest.mark.slow
@pytest.mark.parametrize("number", MISTAKES)
def test_stub_and_solution(number):
    stub = check(number, COURSE / "exercises" / f"{number:02}.py")
    assert stub.returncode != 0 and "hint: replace the raise" in stub.stderr
    solution = check(number, SOLUTIONS / f"{number:02}.py")
    assert solution.returncode == 0, solution.stdout + solution.stderr
    assert f"exercise {number} is solved" in solution.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", MISTAKES)
def test_each_mistake_gets_its_hint(number, tmp_path):
    right = (SOLUTIONS / f"{number:02}.py").read_text(encoding="utf-8")
    for k, (old, new, hint) in enumerate(MISTAKES[number]):
        assert right.count(old) >= 1, old
        path = tmp_path / f"mistake{k}.py"
        path.write_text(right.replace(old, new) + RECURSIVE * ("visit(" in new), encoding="utf-8")
        # Only what may run without end needs the process that stops it.
        done = check(number, path, *([] if "order(x)" in new else ["--inside"]))
        assert done.returncode != 0, new
        told = done.stdout + done.stderr
        assert "hint: " in told and hint in told, (new, told)


@pytest.mark.slow
def test_files_that_cannot_be_checked(tmp_path):
    path = tmp_path / "my.py"
    path.write_text("def sweep(z, tape:\n    pass\n")
    assert f"{path}:1: this is not Python yet" in check(3, path).stderr
    path.write_text("x = 1\n")
    assert "define sweep, as the stub does" in check(3, path).stderr
    path.write_text("def sweep(z, tape):\n    return {z: q}\n")
    assert f"{path}:2: NameError" in check(3, path).stderr
    path.write_text("import nothing_like_this\n")
    assert f"{path}:1: ModuleNotFoundError" in check(3, path).stderr
    assert "there is no file" in check(3, tmp_path / "none.py").stderr
    path.write_text("def sweep(z, tape):\n    while True:\n        pass\n")
    done = check(3, path)
    assert done.returncode != 0 and "does a loop never end" in done.stderr
