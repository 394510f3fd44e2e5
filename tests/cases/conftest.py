"""The small network of the tests of inference."""

from tests.inference.conftest import networks, small_weights  # noqa: F401
