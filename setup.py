"""Builds minigrad: plain setuptools and Cython. pyproject.toml holds everything that is not
compiled.

One extension, `core.kernels`, holds the C files of csrc/; the other Cython modules reach them
through it. No flag depends on the
machine: which instruction set runs is decided at import. C files are compiled side by side, and
only those that are older than something they include. MINIGRAD_DEBUG=1 builds for debuggers and
sanitizers: -O0 -g, not stripped.
"""

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("MINIGRAD_DEBUG") == "1"
WARN = ["-Wall", "-Wextra"]
ALWAYS = ["-ffp-contract=off", "-fvisibility=hidden"]
DEBUGGABLE = ["-O0", "-g", "-fno-omit-frame-pointer"]
# C has no exceptions: tables to unwind the stack by only make the files larger.
SMALL = ["-g0", "-fno-asynchronous-unwind-tables"]
C_FLAGS = [
    "-std=c11",
    "-fno-math-errno",
    "-fno-trapping-math",
    *(DEBUGGABLE if DEBUG else ["-O3", *SMALL]),
]
# Cython's own code is generated: its warnings are not ours, and -O2 compiles it in half the time.
CYTHON_FLAGS = [
    "-Wno-unused-function",
    "-Wno-unused-parameter",
    *(DEBUGGABLE if DEBUG else ["-O2", *SMALL]),
]
# These modules do little beside each call into C or NumPy: -Os halves the time once more, and makes
# them small.
SELDOM = {
    "minigrad.core.facts",
    "minigrad.core.methods",
    "minigrad.core.recording",
    "minigrad.core.stepping",
    "minigrad.nn.fitting",
    "minigrad.nn.fused",
    "minigrad.ops.assign",
    "minigrad.ops.bounds",
    "minigrad.ops.losses",
    "minigrad.ops.shape",
    "minigrad.ops.special",
    "minigrad.optim.step",
}

ADVICE = """minigrad builds from source and needs {what}. Tried: {tried}.
Debian/Ubuntu: apt-get install build-essential python3-dev
Fedora: dnf install gcc python3-devel
macOS: xcode-select --install
Set CC to use another compiler."""


def probe(compiler: list[str], source: str, include: list[str]) -> str | None:
    """Try to compile `source`; return what went wrong, or None."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.c")
        path.write_text(source)
        folders = [f"-I{folder}" for folder in include]
        command = [
            *compiler,
            "-std=c11",
            *folders,
            "-c",
            str(path),
            "-o",
            str(path.with_suffix(".o")),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            return "not found"
        except OSError as error:
            return str(error)
        if done.returncode == 0:
            return None
        return done.stderr.strip()[-300:] or f"exit status {done.returncode}"


def require_compiler(compiler: str, origin: str, include: list[str]) -> None:
    """Leave with ADVICE, as the build's last words, if there is no working compiler or no
    Python.h."""
    failure = probe([compiler], "int main(void) { return 0; }\n", [])
    if failure:
        tried = f"{compiler!r} (from {origin}): {failure}"
        sys.exit(ADVICE.format(what="a C11 compiler", tried=tried))
    failure = probe([compiler], "#include <Python.h>\nint main(void) { return 0; }\n", include)
    if failure:
        tried = f"{compiler!r} (from {origin}): {failure}"
        sys.exit(ADVICE.format(what="the Python headers (Python.h)", tried=tried))


def with_includes(source: Path) -> set[Path]:
    """A C file and all that it includes in quotes, directly or not."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        names = re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE)
        places = [folder / name for name in names for folder in (Path("csrc"), path.parent)]
        waiting += [place for place in places if place.is_file()]
    return found


def is_older(target: Path, sources: set[Path]) -> bool:
    """Must `target` be made again?"""
    if not target.exists():
        return True
    made = target.stat().st_mtime
    return any(path.stat().st_mtime > made for path in sources)


class BuildExt(build_ext):
    """Checks first that there is a compiler and Python's headers, then compiles several files at a
    time, and only what changed."""

    def build_extensions(self):
        origin = "CC" if os.environ.get("CC") else "Python's default"
        require_compiler(self.compiler.compiler_so[0], origin, self.compiler.include_dirs)
        if DEBUG:
            self.build_temp += "-debug"
        self.parallel = self.parallel or os.cpu_count()
        self.pool = ThreadPoolExecutor(self.parallel)
        self.compile_one = self.compiler.compile
        self.compiler.compile = self.compile_changed
        super().build_extensions()

    def compile_changed(self, sources, output_dir=None, **options):
        """What the compiler's `compile` does, for the sources that changed, side by side."""
        objects = self.compiler.object_filenames(sources, output_dir=output_dir or "")
        waiting = []
        for source, target in zip(sources, objects, strict=True):
            needs = {Path(__file__), *with_includes(Path(source))}
            if self.force or is_older(Path(target), needs):
                waiting.append(
                    self.pool.submit(self.compile_one, [source], output_dir=output_dir, **options)
                )
        for compiled in waiting:
            compiled.result()
        return objects


def extensions():
    """The Extension of each .pyx; that of core/kernels.pyx holds all of csrc/."""
    import numpy
    from Cython.Build import cythonize

    c_files = sorted(str(path) for path in Path("csrc").rglob("*.c"))
    c_parts = sorted(str(path) for path in Path("csrc").rglob("*.*"))
    headers = sorted(str(path) for path in Path("csrc").rglob("*.h"))

    def module(path: Path) -> Extension:
        name = ".".join(path.with_suffix("").parts)
        holds_kernels = name == "minigrad.core.kernels"
        flags = C_FLAGS if holds_kernels else CYTHON_FLAGS
        if name in SELDOM and not DEBUG:
            flags = [*flags, "-Os"]
        return Extension(
            name,
            [str(path), *(c_files if holds_kernels else [])],
            include_dirs=["csrc", numpy.get_include()],
            depends=c_parts if holds_kernels else headers,
            extra_compile_args=[*flags, *ALWAYS, *WARN],
            extra_link_args=["-Wl,-s"] if sys.platform == "linux" and not DEBUG else [],
            define_macros=[
                ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
                ("NPY_TARGET_VERSION", "NPY_1_22_API_VERSION"),
            ],
        )

    return cythonize(
        [module(path) for path in sorted(Path("minigrad").rglob("*.pyx"))],
        nthreads=0 if sys.platform == "darwin" else os.cpu_count(),
        # Without auto_pickle: the __setstate__ that Cython would write lets anybody set C
        # attributes.
        compiler_directives={"language_level": 3, "annotation_typing": False, "auto_pickle": False},
    )


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
