"""The stamp of a training step as a fixture."""

import pytest

from tests.training.small import make_stamp


@pytest.fixture
def stamp():
    """Return the function `make_stamp`."""
    return make_stamp
