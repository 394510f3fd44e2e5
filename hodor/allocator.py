"""Memory that the C library keeps for itself (no torch here)."""

import ctypes
import sys
from functools import cache


@cache
def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed instead of handing it back to the system; whether it could.

    A map of a frame is larger than what glibc keeps by default, so that each operation's result is fresh memory, which
    the system clears page by page: at paper size a seventh of the processor's time. For the whole process, for good; a
    matter of speed alone. Nothing is done where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    trim_threshold, largest_maps = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    return bool(mallopt(largest_maps, 0) and mallopt(trim_threshold, 2**31 - 1))
