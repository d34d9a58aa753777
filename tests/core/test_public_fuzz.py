"""Everything public called with hostile arguments, in processes that may die: fuzzing.py says how,
and what counts as a fault.

A crash, a hang or a fault fails with the seed and the last call. The same processes run again with

    python tests/core/fuzzing.py --seed SEED --calls CALLS ... --log calls.log

The fast tier always runs; `pytest -m long tests/core/test_public_fuzz.py` makes 100,000 calls
(MINIGRAD_FUZZ_CALLS: another number,
MINIGRAD_FUZZ_SEED: other seeds).
"""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzzing.py")
CALLS = int(os.environ.get("MINIGRAD_FUZZ_CALLS", "100000"))
SEED = int(os.environ.get("MINIGRAD_FUZZ_SEED", "0"))
SANITIZED = (
    os.environ.get("MINIGRAD_SANITIZED") == "1"
)  # set by `make asan`: no limit of memory, more time
PER_PROCESS = 500  # a crash hides what comes after it
WORKERS = min(2, os.cpu_count() or 1)

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the fuzz forks and limits its memory, as Unix can"
)

# How the processes differ: options of fuzzing.py and environment.
KINDS = (
    ((), {}),
    ((), {"PYTHONMALLOC": "debug", "MALLOC_PERTURB_": "165"}),
    (("--interrupts",), {"MALLOC_PERTURB_": "90"}),
    (("--threads", "3"), {"PYTHONMALLOC": "debug"}),
    (("--spoil",), {}),
)


def run_process(seed, calls, kind):
    """One process: (what went wrong, its report)."""
    options, environment = KINDS[kind]
    log = Path(f"calls-{seed}-{kind}.log").resolve()
    command = [
        sys.executable,
        str(SCRIPT),
        "--seed",
        str(seed),
        "--calls",
        str(calls),
        "--log",
        str(log),
        *options,
    ]
    if SANITIZED:
        command += ["--memory", "0", "--limit", "1200"]
        environment = {k: v for k, v in environment.items() if k == "PYTHONMALLOC"}
    environment = os.environ | environment | {"PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            out, errors = child.communicate(timeout=1500 if SANITIZED else 300)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, errors = child.communicate()
    lines = out.decode("utf-8", "replace").splitlines()
    wrong = [json.loads(line.removeprefix("FAULT ")) for line in lines if line.startswith("FAULT ")]
    ended = bool(lines) and lines[-1].startswith("END ")
    if child.returncode != 0 or not ended:
        last = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
        wrong.append(
            {
                "call": "crash or hang",
                "what": f"exit status {child.returncode}",
                "last": " || ".join(last),
                "seed": seed,
                "trace": errors.decode("utf-8", "replace")[-3000:],
            }
        )
    for one in wrong:
        one["replay"] = " ".join(command[1:])
        one["environment"] = KINDS[kind][1]
        # The child of a fork prints its own trace, and where it hangs.
        one["trace"] = one.get("trace") or errors.decode("utf-8", "replace")[-3000:]
    log.unlink(missing_ok=True)
    return wrong, json.loads(lines[-1].removeprefix("END ")) if ended else {
        "calls": 0,
        "outcomes": {},
        "reached": [],
    }


def run_all(seeds, calls):
    """Processes of all kinds, one for each seed: everything that went wrong, calls made, names
    reached."""
    wrong, made, outcomes, reached = [], 0, {}, set()
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for found, report in pool.map(
            lambda seed: run_process(seed, calls, seed % len(KINDS)), seeds
        ):
            wrong += found
            made += report["calls"]
            reached |= set(report["reached"])
            for name, count in report["outcomes"].items():
                outcomes[name] = outcomes.get(name, 0) + count
    return wrong, made, outcomes, reached


def told(wrong):
    """The faults as text, each kind once."""
    kinds = {}
    for one in wrong:
        kinds.setdefault((one["call"], one["what"][:60], one.get("where", "")), one)
    parts = [f"{len(kinds)} kinds of faults"]
    for one in list(kinds.values())[:40]:
        parts.append(
            "\n".join(
                f"{key}: {one[key]}"
                for key in ("call", "what", "where", "last", "environment", "replay", "trace")
                if key in one
            )
        )
    return "\n\n".join(parts)


def check(seeds, calls):
    wrong, made, outcomes, reached = run_all(seeds, calls)
    if target := os.environ.get("MINIGRAD_FUZZ_REPORT"):
        Path(target).write_text(
            json.dumps({"calls": made, "faults": len(wrong), "outcomes": outcomes, "wrong": wrong})
        )
    print(f"fuzz: {made} calls, {len(reached)} names, {len(wrong)} faults")
    assert not wrong, told(wrong)
    # An alarm between a call and its entry loses the entry.
    assert made >= 0.98 * len(seeds) * calls
    assert outcomes["ok"] > made / 4, f"most arguments should fit, or little is reached: {outcomes}"
    return reached


@pytest.mark.slow
def test_two_thousand_calls():
    check(range(SEED, SEED + 5), 400)


@pytest.mark.slow
@pytest.mark.long
def test_a_hundred_thousand_calls():
    processes = -(-CALLS // PER_PROCESS)
    reached = check(range(SEED + 1000, SEED + 1000 + processes), PER_PROCESS)
    if CALLS >= 100_000:
        from fuzz_names import discover

        assert set(discover()) <= reached, "names that were never called"
