"""The build's last words when something is missing, and what the environment variables do at
import."""

import os
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import minigrad

ROOT = Path(__file__).parents[1]
pytest.importorskip("setuptools", reason="setup.py needs setuptools")
require_compiler = runpy.run_path(str(ROOT / "setup.py"))["require_compiler"]


def test_no_compiler():
    with pytest.raises(SystemExit) as left:
        require_compiler("nonexistent-cc", "CC", [])
    assert str(left.value).splitlines() == [
        "minigrad builds from source and needs a C11 compiler. Tried: 'nonexistent-cc' (from CC): "
        "not found.",
        "Debian/Ubuntu: apt-get install build-essential python3-dev",
        "Fedora: dnf install gcc python3-devel",
        "macOS: xcode-select --install",
        "Set CC to use another compiler.",
    ]


def test_no_headers(tmp_path):
    compiler = os.environ.get("CC", "gcc")
    if subprocess.run([compiler, "--version"], capture_output=True).returncode:
        pytest.skip(f"no {compiler} here")
    with pytest.raises(SystemExit, match="needs the Python headers") as left:
        require_compiler(compiler, "CC", [str(tmp_path)])
    assert str(left.value).endswith("Set CC to use another compiler.")
    require_compiler(compiler, "CC", [sysconfig.get_paths()["include"]])


def start(**environment):
    """Import minigrad in a new interpreter with these variables set."""
    code = "import minigrad; minigrad.show_config()"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("isa", minigrad.core.kernels._usable())
def test_isa_is_chosen_by_the_environment(isa):
    done = start(MINIGRAD_ISA=isa)
    assert f"(in use: {isa})" in done.stdout and done.returncode == 0


def test_unknown_isa_is_an_import_error():
    done = start(MINIGRAD_ISA="foo")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "ImportError: MINIGRAD_ISA: 'foo' is not one of "
    )


@pytest.mark.parametrize("threads", ["abc", "0", "-1", "1000000000", "1.5"])
def test_bad_number_of_threads_is_an_import_error(threads):
    done = start(MINIGRAD_NUM_THREADS=threads)
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1]
        == f"ImportError: MINIGRAD_NUM_THREADS: must be a whole number from 1 to 1024, got "
        f"{threads!r}"
    )


def test_number_of_threads_is_set_by_the_environment():
    assert "threads: 3" in start(MINIGRAD_NUM_THREADS="3").stdout


@pytest.mark.parametrize(
    "n, error",
    [(0, ValueError), (1025, ValueError), (True, TypeError), (2.0, TypeError), ("2", TypeError)],
)
def test_set_num_threads_refuses(n, error):
    before = minigrad.get_num_threads()
    with pytest.raises(error, match="set_num_threads: n must be"):
        minigrad.set_num_threads(n)
    assert minigrad.get_num_threads() == before


def test_import_leaves_subnormals_alone():
    code = (
        "import minigrad, numpy as np; x = np.float32(1e-40); assert x * np.float32(1) == x != 0;"
        "assert (minigrad.Tensor(x) * 1.0).item() == float(x)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_loads_only_what_it_needs():
    """Every program pays for it; these are loaded by what uses them."""
    code = (
        "import numpy, sys; before = set(sys.modules); import minigrad; "
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "minigrad.nn" in loaded
    of_others = {name.partition(".")[0] for name in loaded} & {
        *("IPython", "PIL", "ipykernel", "matplotlib", "nbformat", "onnx", "safetensors", "tqdm")
    }
    late = {
        *("difflib", "html", "numpy.ma", "numpy.random", "pathlib", "secrets", "textwrap"),
        *("minigrad.study.dynamics", "minigrad.study.picture", "minigrad.study.profiling"),
        *("minigrad.study.recording", "minigrad.study.reference", "minigrad.study.stepping"),
    }
    assert of_others | late & loaded == set()
