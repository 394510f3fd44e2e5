"""Attention variants beside those of the paper: one file of this folder each, found by its name like a method.

A variant `some-name` is the module `some_name.py` with

    def build(options: Options) -> nn.Module

whose module maps query (B, Q, C), pixels (B, N, C) and mask (B, Q, N) in [0, 1] to (B, Q, C), as
`hodor.attention.SoftMaskedAttention` does. A row takes it with `options: {attention: some-name}`. The code of a variant
counts for the rows that use it and for no other. No torch here: the workflow asks for the names at every start.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

BUILT_IN = ("none", "hard", "soft")
"""The masking modes of the paper's table 1, which are in hodor/attention.py."""


@cache
def names() -> tuple[str, ...]:
    """All values of the option `attention`."""
    found = (path.stem.replace("_", "-") for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    return (*BUILT_IN, *sorted(found))


def module_of(name: str) -> str | None:
    """The module of a variant; None for those of the paper, whose code every row of HODOR runs."""
    return None if name in BUILT_IN else f"{__name__}.{name.replace('-', '_')}"


def build(name: str, options: Any) -> Any:
    """The attention of an encoder layer by a variant's own file; see the head of this module."""
    module = module_of(name)
    assert module is not None, name
    return import_module(module).build(options)
