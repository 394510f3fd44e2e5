"""Convert between original checkpoints and our weights, strictly: an entry without a counterpart is an error.

A file of a format must hold exactly the entries that `Format.to_original` makes of an untrained network, so that one
table of names serves both directions and the check.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hodor.errors import HodorError
from hodor.models.checkpoints.formats import Entries, Format, Options, Report, batch_counters


def convert_to_ours(format: Format, entries: Mapping[str, Tensor]) -> tuple[Entries, Options, Report]:
    """Convert an original checkpoint.

    Args:
        format: the kind of checkpoint.
        entries: as read, without the release's wrapper.

    Returns:
        Our entries, empty if the report has a fault; the options of their network; and the report, whose faults `require`
        raises.
    """
    report = Report(format.name)
    entries = without_prefix(entries, format.prefix)
    options = format.options(entries)
    fresh = format.untrained(options)
    expected = format.to_original(fresh)
    dead = format.neutral(options) | batch_counters(expected)
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
    """Convert our weights to original entries, with neutral values for dead ones: the reverse of `convert_to_ours`.

    `options` are those of the network; weights of another size than the release's are a fault.
    """
    report = Report(format.name, written=True)
    options = {key: value for key, value in options.items() if key in format.variants}
    fresh = format.untrained(options)
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
    neutral = format.neutral(options) | batch_counters(live)
    report.dead = sorted(neutral)
    _count(report, live)
    return {format.prefix + name: value for name, value in (live | neutral).items()}, report


def require(report: Report, source: object) -> None:
    """Raise a HodorError that names `source` if the report has a fault."""
    if fault := report.fault():
        raise HodorError(f"{source}: not a valid checkpoint of format {report.format}: {fault}; nothing written")


def without_prefix(entries: Mapping[str, Tensor], prefix: str) -> Entries:
    """Remove `prefix`, or the `module.` of parallel training, if all names have it."""
    for start in filter(None, (prefix, "module.")):
        if entries and all(name.startswith(start) for name in entries):
            return {name[len(start) :]: value for name, value in entries.items()}
    return dict(entries)


def _misfit(name: str, value: Tensor, expected: Tensor, constant: bool) -> list[str]:
    """Return the fault of an entry, as a list of at most one line."""
    if value.shape != expected.shape:
        return [f"{name}: shape {tuple(value.shape)}, expected {tuple(expected.shape)}"]
    if value.dtype != expected.dtype:
        found, wanted = (str(x.dtype).removeprefix("torch.") for x in (value, expected))
        return [f"{name}: type {found}, expected {wanted}"]
    if constant and not torch.equal(value, expected):
        return [f"{name}: differs from its defined values"]
    if value.is_floating_point() and not torch.isfinite(value).all():
        return [f"{name}: holds values that are not finite"]
    return []


def _sort(report: Report) -> None:
    for names in (report.dead, report.unused, report.filled, report.missing, report.unexpected, report.misfit):
        names.sort()


def _count(report: Report, live: Entries) -> None:
    report.converted = sorted(live.keys() - set(report.filled))
    report.values = sum(live[name].numel() for name in report.converted)
