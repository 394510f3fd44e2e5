"""Settings of STM (no torch here: the workflow reads them at every start)."""

from hodor.models.memory.options import MemoryOptions


class Options(MemoryOptions):
    """The defaults are the published network (baselines specification, section 1.1)."""
