"""Calls of everything public, with hostile arguments, in a process that may die: the child of
test_public_fuzz.py.

    python tests/core/fuzzing.py --seed 7 --calls 500
        [--threads 3] [--interrupts] [--spoil] [--log calls.log]

Each call draws a callable that was found by introspection (functions, classes, methods, properties,
operators of live objects) and arguments that mostly fit, and sometimes do not at all. What a call
returns goes into a pool that later calls draw from, so that calls meet tensors changed in place,
freed graphs, replaced weights, objects that were never initialised. Beside single calls there are
whole steps of training (SCENES). The seed determines all of it; before a call is made its
description goes to the log, so that the last line tells what a crash was made by.

What is wrong is printed as one line of JSON beginning with "FAULT "; the last line of a run that
came to its end is "END". A fault is an exception outside of ALLOWED, an exception that Python could
not raise (sys.unraisablehook), memory that must not change and did, or a small training that gives
other bits than at the start. A hang is seen by the parent.
"""

import argparse
import faulthandler
import io
import json
import os
import shutil
import sys
import traceback
import warnings

import fuzz_hostile
from fuzz_faults import planted_below
from fuzz_hostile import Planted
from fuzz_run import Run, Stop

import minigrad as mg


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--interrupts", action="store_true")
    parser.add_argument("--spoil", action="store_true")
    parser.add_argument(
        "--memory",
        type=int,
        default=4 << 30,
        help="bytes of address space; 0: no limit (sanitizers need terabytes)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=240.0,
        help="seconds until all threads' stacks are printed and the process ends",
    )
    parser.add_argument("--log")
    parser.add_argument(
        "--initialised", action="store_true", help="no Tensors that were made by __new__ alone"
    )
    parser.add_argument(
        "--without", default="", help="scenes that are left out, by name, with commas between"
    )
    return parser.parse_args()


def main():
    options = parse_arguments()
    if options.log:
        options.log = os.path.abspath(options.log)
    if options.memory:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (options.memory, options.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    faulthandler.dump_traceback_later(options.limit, exit=True)
    warnings.simplefilter("ignore")
    sys.stdout = io.StringIO()  # what calls print; faults are written to the descriptor
    mg.set_num_threads(2)
    run = Run(options)
    os.chdir(run.folder)  # paths that calls draw may be relative
    fuzz_hostile.RUN = run.main

    def unraisable(report):
        ours = isinstance(report.exc_value, (Planted, Stop)) or planted_below(report.exc_value)
        frames = traceback.extract_tb(report.exc_traceback)
        # Python's logging releases its lock after each fork, also after one of two threads' that
        # forked at once.
        logging = bool(frames) and frames[-1].name == "_releaseLock"
        # A thread whose start() was interrupted is told so by threading itself.
        starting = bool(frames) and frames[-1].name == "_bootstrap_inner" and options.interrupts
        if not ours and not logging and not starting and not run.spoilt:
            text = "".join(traceback.format_exception(report.exc_value)) if report.exc_value else ""
            run.fault(
                "unraisable", f"{report.err_msg or 'ignored'}: {report.exc_value!r}", "", text
            )

    sys.unraisablehook = unraisable
    run.everything()
    total = sum(run.outcomes.values())
    end = {"calls": total, "outcomes": run.outcomes, "reached": sorted(run.reached)}
    os.write(1, f"END {json.dumps(end)}\n".encode())
    shutil.rmtree(run.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
