"""A fixture for the tests of the reference engine."""

import pytest
from engines import compiled_function

from minigrad.study import reference


@pytest.fixture
def same_functions(monkeypatch):
    """The reference engine gets the compiled engine's functions."""
    for name in reference.functions:
        monkeypatch.setitem(reference.functions, name, compiled_function(name))
