"""Converting between original checkpoints and our files, strictly: every name has its place or is an error.

What a file of a format must hold is what `Format.to_original` makes of an untrained network, so that one table of
names serves both directions and the check.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hodor.errors import HodorError
from hodor.models.base import build_method
from hodor.models.original.format import Entries, Format, Options, Report


def convert_to_ours(format: Format, entries: Mapping[str, Tensor]) -> tuple[Entries, Options, Report]:
    """Our entries of an original checkpoint.

    Args:
        format: the kind of checkpoint.
        entries: as read, without the release's wrapper.

    Returns:
        Our entries, empty where the report has a fault; the options of the network that they are of; the report.
        `require` turns a fault into an error.
    """
    report = Report(format.name)
    entries = without_prefix(entries, format.prefix)
    options = format.options(entries)
    fresh = untrained(format, options)
    expected = format.to_original(fresh)
    dead = format.neutral(options)
    live: Entries = {}
    for name, value in entries.items():
        if name in expected:
            live[name] = value
        elif name in dead:
            report.dead.append(name)
        elif name.startswith(format.unused):
            report.unused.append(name)
        else:
            report.unexpected.append(name)
    for name in expected.keys() - live.keys():
        if name.endswith(format.constant):
            live[name] = expected[name]
            report.filled.append(name)
        else:
            report.missing.append(name)
    for name, value in live.items():
        report.misfit += _misfit(name, value, expected[name], name.endswith(format.constant))
    _sort(report)
    if report.fault():
        return {}, options, report
    _count(report, live)
    return format.to_ours({name: live[name] for name in expected}, fresh), options, report


def convert_to_original(format: Format, weights: Mapping[str, Tensor], options: Options) -> tuple[Entries, Report]:
    """Original entries of our weights, dead ones with neutral values: the reverse of `convert_to_ours`.

    `options` are those of the network that the weights are of; weights of another size than the release's are a fault.
    """
    report = Report(format.name, written=True)
    options = {key: value for key, value in options.items() if key in format.variants}
    fresh = untrained(format, options)
    for name in weights.keys() - fresh.keys():
        report.unexpected.append(f"{name} (of ours)")
    for name in fresh.keys() - weights.keys():
        report.missing.append(f"{name} (of ours)")
    for name in fresh.keys() & weights.keys():
        constant = not fresh[name].is_floating_point()
        report.misfit += [f"{text} (of ours)" for text in _misfit(name, weights[name], fresh[name], constant)]
    _sort(report)
    if report.fault():
        return {}, report
    live = format.to_original({name: weights[name] for name in fresh})
    neutral = format.neutral(options)
    report.dead = sorted(neutral)
    _count(report, live)
    return {format.prefix + name: value for name, value in (live | neutral).items()}, report


def require(report: Report, source: object) -> None:
    """HodorError naming `source` where the report has a fault."""
    if fault := report.fault():
        raise HodorError(f"{source}: no checkpoint of format {report.format} as it must be: {fault}; nothing written")


def without_prefix(entries: Mapping[str, Tensor], prefix: str) -> Entries:
    """The entries without `prefix`, or without the `module.` of parallel training, where all names have it."""
    for start in filter(None, (prefix, "module.")):
        if entries and all(name.startswith(start) for name in entries):
            return {name[len(start) :]: value for name, value in entries.items()}
    return dict(entries)


def untrained(format: Format, options: Options) -> Entries:
    """Our entries of an untrained network of a format."""
    if format.method is None:
        return format.fresh(options)
    return dict(build_method(format.method, options).state_dict())


def _misfit(name: str, value: Tensor, expected: Tensor, constant: bool) -> list[str]:
    """What is wrong with an entry, as a list of no or one line."""
    if value.shape != expected.shape:
        return [f"{name}: shape {tuple(value.shape)}, expected {tuple(expected.shape)}"]
    if value.dtype != expected.dtype:
        return [f"{name}: type {_kind(value)}, expected {_kind(expected)}"]
    if constant and not torch.equal(value, expected):
        return [f"{name}: differs from the values that it has by definition"]
    if value.is_floating_point() and not torch.isfinite(value).all():
        return [f"{name}: holds values that are not finite"]
    return []


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _sort(report: Report) -> None:
    for names in (report.dead, report.unused, report.filled, report.missing, report.unexpected, report.misfit):
        names.sort()


def _count(report: Report, live: Entries) -> None:
    report.converted = sorted(live.keys() - set(report.filled))
    report.values = sum(live[name].numel() for name in report.converted)
