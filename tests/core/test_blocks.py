"""The memory of large arrays (csrc/runtime/blocks.h): reused, never shared by two arrays, little
more than was once in use."""

import os
import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg

LARGE = 1 << 20  # elements: far above the size from which blocks are kept


def address(tensor):
    return tensor.numpy().__array_interface__["data"][0]


def test_a_freed_block_is_used_again_and_a_living_one_is_not():
    x = mg.Tensor(np.ones(LARGE, np.float32))
    first, second = x + 1, x + 2
    kept = address(first)
    assert address(second) != kept and kept % 64 == 0
    del first
    third = x + 3
    assert address(third) == kept
    assert (second.numpy() == 3).all() and (third.numpy() == 4).all()


def test_a_view_keeps_its_block():
    view = (mg.Tensor(np.ones(LARGE, np.float32)) + 1).numpy()[::2]
    others = [mg.Tensor(np.zeros(LARGE, np.float32)) + i for i in range(5)]
    assert (view == 2).all() and len(others) == 5


def test_arrays_from_blocks_are_arrays_of_numpy_like_any_other():
    y = (mg.Tensor(np.ones(LARGE, np.float32)) * 2).numpy()
    assert y.copy().sum() == 2 * LARGE and np.concatenate([y, y]).shape == (2 * LARGE,)
    assert mg.zeros(LARGE).numpy().any() == False  # noqa: E712


KEPT = """
import os, numpy as np, minigrad as mg
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
large = 1 << 20             # elements of 4 bytes: 4 MB
x = mg.Tensor(np.ones(large, np.float32))
before = resident()
for n in range(40):         # 40 different sizes, one after another: none of them stays
    y = mg.concatenate([x, mg.Tensor(np.ones(4096 * n, np.float32))])
    del y
print(resident() - before)
many = [x + i for i in range(16)]
peak = resident()
del many
print(peak - resident())
for n in range(16):
    y = [mg.concatenate([x, mg.Tensor(np.ones(4096 * n, np.float32))]) for _ in range(10)]
    del y
print(resident() - peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_kept_is_little_more_than_was_in_use():
    run = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    sizes, given_back, again = map(float, run.stdout.split())
    assert sizes < 12  # two blocks, not forty
    assert given_back < 4  # 16 blocks wait for their next use
    assert (
        again < 16 + 4
    )  # and make room for other sizes: at most a quarter more than 16 blocks of 4 MB


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_blocks_of_its_own():
    x = mg.Tensor(np.ones(LARGE, np.float32))
    del x
    y = mg.Tensor(np.ones(LARGE, np.float32)) + 1
    child = os.fork()
    if child == 0:
        z = mg.Tensor(np.ones(LARGE, np.float32)) + 5
        os._exit(0 if (z.numpy() == 6).all() and (y.numpy() == 2).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (y.numpy() == 2).all()
