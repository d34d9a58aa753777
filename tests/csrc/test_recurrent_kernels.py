"""Compiles recurrent_check.c, links it with the kernels and runs it: the recurrent kernels against
their specification, to the bit."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = "-std=c11 -O2 -ffp-contract=off -fno-math-errno -fno-trapping-math".split()


def built_kernels():
    """The objects that the last build of minigrad left in build/, if they are of today's source."""
    newest = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*") if path.is_file())
    names = {path.stem for path in (ROOT / "csrc").rglob("*.c")}
    for folder in (ROOT / "build").glob("temp.*/csrc"):
        objects = [path for path in folder.rglob("*.o") if path.stat().st_mtime > newest]
        if {path.stem for path in objects} == names:
            return objects
    return []


@pytest.mark.slow
def test_the_kernels_equal_their_specification(tmp_path):
    compiler = os.environ.get("CC", "cc").split()
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler {compiler[0]!r}")

    def compiled(source):
        target = tmp_path / f"{source.stem}.o"
        command = [*compiler, *FLAGS, f"-I{ROOT / 'csrc'}", "-c", source, "-o", target]
        subprocess.run(command, check=True)
        return target

    kernels = built_kernels()
    sources = [] if kernels else sorted((ROOT / "csrc").rglob("*.c"))
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        objects = list(workers.map(compiled, [ROOT / "tests/csrc/recurrent_check.c", *sources]))
    program = tmp_path / "check"
    command = [*compiler, *objects, *kernels, "-o", program, "-lpthread", "-lm"]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
