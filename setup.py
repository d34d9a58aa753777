"""Builds minigrad: plain setuptools and Cython. pyproject.toml holds everything that is not compiled.

One extension, `kernels`, holds the C files of csrc/; the other Cython modules reach them through it. No flag depends on the
machine: which instruction set runs is decided at import.
"""
import os
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WARN = ["-Wall", "-Wextra"]
DEBUG = os.environ.get("MINIGRAD_DEBUG") == "1"         # line numbers and frames for debuggers and sanitizers, nothing stripped
C_FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-g0"]
# Cython's own code is generated: its warnings are not ours, and -O2 compiles it in half the time.
CYTHON_FLAGS = ["-O2", "-ffp-contract=off", "-fvisibility=hidden", "-g0", "-Wno-unused-function", "-Wno-unused-parameter"]

if DEBUG:
    C_FLAGS, CYTHON_FLAGS = ([*(f for f in flags if f not in ("-O3", "-O2", "-g0")), "-O1", "-g", "-fno-omit-frame-pointer"]
                             for flags in (C_FLAGS, CYTHON_FLAGS))

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
        command = [
            *compiler,
            "-std=c11",
            *[f"-I{folder}" for folder in include],
            "-c",
            str(path),
            "-o",
            str(path.with_suffix(".o")),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            return "not found" if isinstance(error, FileNotFoundError) else str(error)
        return None if done.returncode == 0 else done.stderr.strip()[-300:] or f"exit status {done.returncode}"


def require_compiler(compiler: str, origin: str, include: list[str]) -> None:
    """Leave with ADVICE, as the build's last words, if there is no working compiler or no Python.h."""
    failure = probe([compiler], "int main(void) { return 0; }\n", [])
    if failure:
        sys.exit(ADVICE.format(what="a C11 compiler", tried=f"{compiler!r} (from {origin}): {failure}"))
    failure = probe([compiler], "#include <Python.h>\nint main(void) { return 0; }\n", include)
    if failure:
        sys.exit(ADVICE.format(what="the Python headers (Python.h)", tried=f"{compiler!r} (from {origin}): {failure}"))


class BuildExt(build_ext):
    """Checks first that there is a compiler and Python's headers, then compiles as many extensions at a time as there are
    CPUs."""

    def build_extensions(self):
        require_compiler(
            self.compiler.compiler_so[0], "CC" if os.environ.get("CC") else "Python's default", self.compiler.include_dirs
        )
        self.parallel = self.parallel or os.cpu_count()
        super().build_extensions()


def extensions():
    import numpy
    from Cython.Build import cythonize

    def module(name, c_files=(), flags=CYTHON_FLAGS):
        return Extension(
            f"minigrad.{name}",
            [f"minigrad/{name}.pyx", *c_files],
            include_dirs=["csrc", numpy.get_include()],
            depends=glob("csrc/*") if c_files else ["csrc/kernels.h"],
            extra_compile_args=[*flags, *WARN],
            extra_link_args=["-Wl,-s"] if sys.platform == "linux" and not DEBUG else [],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_1_22_API_VERSION")],
        )

    names = sorted(Path(path).stem for path in glob("minigrad/*.pyx"))
    modules = [module("kernels", sorted(glob("csrc/*.c")), C_FLAGS)]
    modules += [module(name) for name in names if name != "kernels"]
    return cythonize(
        modules,
        nthreads=0 if sys.platform == "darwin" else os.cpu_count(),
        # Without auto_pickle: the __setstate__ that Cython would write sets the C attributes to what it is given, by anybody.
        compiler_directives={"language_level": 3, "annotation_typing": False, "auto_pickle": False},
    )


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
