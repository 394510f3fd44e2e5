"""Two sizes of the search, what every case must keep to, and the ways in which files are damaged."""

import os
import resource
import signal

import pytest
from hypothesis import HealthCheck, settings

from hodor.errors import HodorError

# HYPOTHESIS_PROFILE=long searches longer; both sizes try the same cases in every run.
# Without a deadline of its own: `bounded` has one that also ends what hangs.
COMMON = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=200, **COMMON)
settings.register_profile("long", max_examples=2000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

SECONDS = 10
MEMORY = 1 << 30


class Hang(BaseException):
    """No `Exception`, so that no reader takes it for a damaged file."""


@pytest.fixture(scope="session")
def bounded():
    """Calls a function: returns its result, or None after a HodorError of one line; anything else fails."""

    def stop(*_):
        raise Hang(f"more than {SECONDS} s")

    def call(function, *arguments):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        previous = signal.signal(signal.SIGALRM, stop)
        signal.alarm(SECONDS)
        try:
            return function(*arguments)
        except HodorError as error:
            assert str(error) and "\n" not in str(error), str(error)
            return None
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
            assert grown < MEMORY, f"{grown >> 20} MiB more"

    return call


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder for the files of all cases, each of which replaces those of the one before."""
    return tmp_path_factory.mktemp("fuzz")
