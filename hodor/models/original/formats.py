"""The formats that `hodor convert` knows, and which of them a file is."""

from collections.abc import Collection

from hodor.errors import HodorError
from hodor.models.original import hodor, resnet, stcn, stm, swin
from hodor.models.original.format import Format

FORMATS = {
    format.name: format
    for format in (
        hodor.FORMAT,
        swin.DETECTION,
        swin.IMAGENET,
        resnet.RESNET,
        stm.FORMAT,
        stcn.FORMAT,
    )
}
"""Id -> format. A further format is one further entry."""


def format_named(name: str) -> Format:
    """HodorError where no format has this name."""
    if name not in FORMATS:
        known = "; ".join(f"{format.name} ({format.about})" for format in FORMATS.values())
        raise HodorError(f"--format {name}: unknown format; there are {known}")
    return FORMATS[name]


def format_of_method(method: str) -> Format:
    """The format of a method's release; HodorError where there is none."""
    for format in FORMATS.values():
        if format.method == method:
            return format
    raise HodorError(f"method {method}: no release whose format could be written")


def recognise(names: Collection[str], source: object) -> Format:
    """The format of a checkpoint by the names of its entries.

    Raises:
        HodorError: no format has such names, or several have.
    """
    found = [
        format
        for format in FORMATS.values()
        if any(name.startswith((format.mark, f"module.{format.mark}")) for name in names)
    ]
    if len(found) != 1:
        what = "of several formats" if found else f"of no known format (its first entry is {min(names)})"
        raise HodorError(f"{source}: a checkpoint {what}; name it with --format, one of {', '.join(FORMATS)}")
    return found[0]
