"""The whole extension, the suite and the fuzz of the public names under the sanitizers of addresses
and undefined behaviour.

    python tests/sanitized.py [gcc clang-14] [--calls 100000] [--no-suite]

For each compiler: builds minigrad into build/asan-<compiler>, makes sure that the build sees faults
that were planted (asan_check.c), runs the tests in processes into which the sanitizer's runtime is
loaded, then the fuzz, once with Python's memory from malloc and once from Python's debugging
allocator. Reports go to files, so that those of the tests' own subprocesses count too. The last
line is the sum; the exit status is 0 only without reports, failing tests and faults. Leaks are not
looked for.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of undefined behaviour all but the checks of every pointer's arithmetic, with which each file of
# kernels compiles for minutes; what such a pointer then reads or writes is seen by the sanitizer of
# addresses.
FLAGS = (
    "-fsanitize=address,undefined -fno-sanitize=null,pointer-overflow,object-size "
    "-fno-sanitize-recover=undefined"
)

# Tests that cannot run here, each with its reason.
LEFT_OUT = {
    "test_build.py": "builds the package again, without sanitizers",
    "test_large.py": "needs 14 GB, and the shadow memory beside it",
    "test_example": "trains for minutes; what it calls is called by the other tests",
    "test_docs.py": "runs the examples and measures",
    "test_public_fuzz.py": "run below, on its own",
}
LEFT_OUT_BY_NAME = {
    "ctrl_c_is_answered": "measures time, and this build is many times slower",
    "cost_linear_time": "the same",
    "text_comparison": "trains for minutes here, and has a limit of time",
    "what_is_kept_is_little": "reads the resident memory, which holds the sanitizer's shadow too",
    "limit": "limits the address space, of which the sanitizer's shadow takes terabytes",
    "nomemory": "lets malloc fail, which the runtime answers itself",
}


class Build:
    def __init__(self, compiler):
        self.compiler = compiler
        self.folder = ROOT / "build" / f"asan-{compiler}"
        self.library, self.reports = self.folder / "lib", self.folder / "reports"
        clang = "clang" in compiler
        names = ["libclang_rt.asan-x86_64.so"] if clang else ["libasan.so", "libubsan.so"]
        self.runtime = [self.output([compiler, f"-print-file-name={name}"]) for name in names]
        self.link = FLAGS + (" -shared-libasan" if clang else "")
        rules = (
            "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=6000:"
            "handle_segv=1:abort_on_error=0"
        )
        paths = f"log_path={self.reports}/report"
        if clang:
            paths += f":external_symbolizer_path={self.folder}/llvm-symbolizer"
        self.environment = os.environ | {
            "LD_PRELOAD": " ".join(self.runtime),
            "ASAN_OPTIONS": f"{rules}:{paths}",
            "PYTHONPATH": str(self.library),
            "UBSAN_OPTIONS": f"print_stacktrace=1:{paths}",
            "PYTHONMALLOC": "malloc",
            "MINIGRAD_SANITIZED": "1",
        }

    @staticmethod
    def output(command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def build(self):
        environment = os.environ | {
            "CC": self.compiler,
            "LDSHARED": f"{self.compiler} -shared",
            "CFLAGS": FLAGS,
            "LDFLAGS": self.link,
            "MINIGRAD_DEBUG": "1",
        }
        command = [
            sys.executable,
            "setup.py",
            "-q",
            "build",
            "--build-base",
            str(self.folder),
            "--build-lib",
            str(self.library),
        ]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        for path in self.library.rglob("*.so"):
            if b"__asan_report" not in path.read_bytes():
                sys.exit(f"asan: {path} was built without the sanitizer")
        self.reports.mkdir(exist_ok=True)
        self.write_symbolizer()
        self.planted = self.folder / "planted.so"
        command = [
            self.compiler,
            "-shared",
            "-fPIC",
            "-O1",
            "-g",
            *self.link.split(),
            str(ROOT / "tests" / "csrc" / "asan_check.c"),
            "-o",
            str(self.planted),
        ]
        subprocess.run(command, check=True)

    def write_symbolizer(self):
        """Clang's runtime starts a program that names the lines of a report. It must not inherit
        the sanitizer, with which it waits forever."""
        name = self.compiler.replace("clang", "llvm-symbolizer")
        script = self.folder / "llvm-symbolizer"
        script.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {name} "$@"\n')
        script.chmod(0o755)

    def found(self):
        """The files that hold a report; a warning that an absurd size was refused, as some calls
        want, is none."""
        files = sorted(self.reports.glob("report*"))
        return [
            path
            for path in files
            if re.search(r"ERROR: |runtime error: ", path.read_text(errors="replace"))
        ]

    def clear(self):
        for path in self.reports.glob("report*"):
            path.unlink()

    def prove(self):
        """Each planted fault is seen in a process of its own, and without one there is no
        report."""
        preface = (
            f"import ctypes, numpy as np, minigrad as mg\nc = ctypes.CDLL({str(self.planted)!r})\n"
            "a = mg.ones(1000).numpy()\nc.read_beyond.argtypes = [ctypes.c_void_p, "
            "ctypes.c_size_t]\n"
        )
        inside = f"assert mg.__file__.startswith({str(self.library)!r}), mg.__file__"
        faults = {
            inside: None,
            "c.read_beyond(a.ctypes.data, 999)": None,
            "c.read_beyond(a.ctypes.data, 1000)": "heap-buffer-overflow",
            "c.read_beyond_malloc(10)": "heap-buffer-overflow",
            "c.read_after_free(10)": "heap-use-after-free",
            "c.overflow(1)": "signed integer overflow",
        }
        for fault, words in faults.items():
            self.clear()
            done = subprocess.run(
                [sys.executable, "-c", preface + fault],
                env=self.environment,
                cwd=self.folder,
                capture_output=True,
                text=True,
            )
            text = done.stderr + "".join(path.read_text(errors="replace") for path in self.found())
            if words is None and (done.returncode or self.found()):
                sys.exit(f"asan: {self.compiler}: a report without a fault\n{text}")
            if words is not None and words not in text:
                sys.exit(f"asan: {self.compiler}: the planted fault {fault} was not seen\n{text}")
        self.clear()

    def suite(self):
        """Number of tests that passed, of failures. Each file in a process of its own: an abort
        hides only what is behind it."""
        files = [
            path
            for path in sorted((ROOT / "tests").rglob("test_*.py"))
            if not any(name in path.name for name in LEFT_OUT)
        ]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            counts = list(pool.map(self.test, files))
        return sum(passed for passed, _ in counts), sum(wrong for _, wrong in counts)

    def test(self, path):
        deselect = " and ".join(f"not {name}" for name in LEFT_OUT_BY_NAME)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--rootdir",
            str(ROOT),
            "-c",
            str(ROOT / "pyproject.toml"),
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            deselect,
            str(path),
        ]
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        count = {
            word: int(number)
            for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)
        }
        wrong = count.get("failed", 0) + count.get("error", 0) + (done.returncode not in (0, 1, 5))
        if wrong:
            print(f"{self.compiler}: {path.name}:\n{done.stdout[-6000:]}", flush=True)
        return count.get("passed", 0), wrong

    def fuzz(self, calls):
        """Number of calls made, of faults."""
        made = faults = 0
        for allocator in ("malloc", "debug"):
            report = self.folder / "fuzz.json"
            report.unlink(missing_ok=True)
            environment = self.environment | {
                "PYTHONMALLOC": allocator,
                "MINIGRAD_FUZZ_CALLS": str(calls // 2),
                "MINIGRAD_FUZZ_SEED": {"malloc": "20000", "debug": "40000"}[allocator],
                "MINIGRAD_FUZZ_REPORT": str(report),
            }
            command = [
                sys.executable,
                "-m",
                "pytest",
                "--rootdir",
                str(ROOT),
                "-c",
                str(ROOT / "pyproject.toml"),
                "-q",
                "-p",
                "no:cacheprovider",
                "-m",
                "long",
                str(ROOT / "tests/core/test_public_fuzz.py"),
            ]
            done = subprocess.run(
                command, env=environment, cwd=self.folder, text=True, stdout=subprocess.PIPE
            )
            if done.returncode:
                print(done.stdout[-20000:], flush=True)
            told = json.loads(report.read_text()) if report.exists() else {"calls": 0, "faults": 1}
            failed = told["faults"] or int(done.returncode != 0)
            made, faults = made + told["calls"], faults + failed
        return made, faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("compilers", nargs="*", default=["gcc", "clang-14"])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--no-suite", action="store_true")
    options = parser.parse_args()
    tests = calls = failed = reports = 0
    for compiler in options.compilers:
        if shutil.which(compiler) is None:
            sys.exit(f"asan: there is no {compiler}")
        build = Build(compiler)
        build.build()
        build.prove()
        print(f"asan: {compiler}: built, the planted faults were seen", flush=True)
        if not options.no_suite:
            passed, wrong = build.suite()
            tests, failed = tests + passed, failed + wrong
        made, wrong = build.fuzz(options.calls)
        calls, failed = calls + made, failed + wrong
        for path in build.found():
            print(f"---- {path}\n{path.read_text(errors='replace')[:4000]}", flush=True)
        reports += len(build.found())
    print(
        f"asan: {' and '.join(options.compilers)}, {tests} tests, {calls} calls, {failed} "
        f"failures, {reports} reports"
    )
    return 1 if failed or reports else 0


if __name__ == "__main__":
    sys.exit(main())
