"""What the tests of mg.save and mg.load share."""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        array = np.asarray(array)
        native = array.astype(array.dtype.newbyteorder("="))
        assert found[name].dtype == native.dtype and found[name].shape == native.shape, name
        assert found[name].tobytes() == native.tobytes(), name


@contextlib.contextmanager
def a_folder_as_no_root():
    """A folder, and rights that end where its mode says so: root becomes another user."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        try:
            if user == 0:
                os.chown(folder, 65534, -1)
                os.seteuid(65534)
            yield Path(folder)
        finally:
            os.seteuid(user)
