"""Compiles recurrent_check.c with the kernels and runs it: the recurrent kernels against their
specification, to the bit."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_kernels_equal_their_specification(tmp_path):
    compiler = os.environ.get("CC", "cc").split()
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler {compiler[0]!r}")
    program = tmp_path / "check"
    sources = [ROOT / "tests/csrc/recurrent_check.c", *sorted((ROOT / "csrc").rglob("*.c"))]
    flags = [
        "-std=c11",
        "-O1",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
        f"-I{ROOT / 'csrc'}",
    ]
    subprocess.run(
        [*compiler, *flags, *map(str, sources), "-o", str(program), "-lpthread", "-lm"], check=True
    )
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
