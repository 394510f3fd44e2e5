"""Settings of a training step that takes a second."""

import pytest

from tests.training.small import make_stamp


@pytest.fixture
def stamp():
    """Makes the stamp of a training step; keywords replace settings of the stage."""
    return make_stamp
