"""Convert between original checkpoints and our weights, strictly: an entry without a counterpart is an error.

A file must contain exactly the entries that `Format.to_original` creates from an untrained network: one table of names
serves both directions and the check.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hodor.errors import HodorError
from hodor.models.base import build_method, differences

Entries = dict[str, Tensor]
Options = dict[str, Any]


def _empty(*_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Format:
    """One kind of original checkpoint.

    Attributes:
        name: its id, as in `--format`.
        mark: prefix of names that every file of this format and no other contains.
        rename: our name -> original name, without `prefix`.
        method: id of the method; None: initial weights of a part of a network.
        fresh: for initial weights, options -> our entries of an untrained network.
        options: original entries, possibly none -> the options in which files of the format differ.
        split: our name -> original names with their input channels in ours.
        wrapper: key of the entries in a file of the release; None: the file contains only entries.
        prefix: prefix of all names in a file of the release, such as `module.`; optional when reading.
        neutral: entries that the release creates but never uses, with neutral values: optional and dropped when reading,
            written with these values. The update counters of batch norms are treated alike.
        unused: prefixes of other names that a file may contain, which are dropped and never written.
        constants: original entries with defined values that our networks do not have. Like entries of integers, they are
            checked, and filled in if absent.
    """

    name: str
    mark: str
    rename: Callable[[str], str] = str
    method: str | None = None
    fresh: Callable[[Options], Entries] = _empty
    options: Callable[[Mapping[str, Tensor]], Options] = _empty
    split: Mapping[str, tuple[tuple[str, slice], ...]] = field(default_factory=dict)
    wrapper: str | None = None
    prefix: str = ""
    neutral: Callable[[], Entries] = _empty
    unused: tuple[str, ...] = ()
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    def to_original(self, weights: Mapping[str, Tensor]) -> Entries:
        """Rename our entries to the original entries that the release uses, without `prefix`."""
        out = dict(self.constants)
        for name, value in weights.items():
            if name in self.split:
                out |= {theirs: value[:, channels].clone() for theirs, channels in self.split[name]}
            else:
                out[self.rename(name)] = value
        return out

    def to_ours(self, entries: Mapping[str, Tensor], names: Iterable[str]) -> Entries:
        """Rename original entries to our entries `names`."""
        return {
            name: torch.cat([entries[theirs] for theirs, _ in self.split[name]], dim=1)
            if name in self.split
            else entries[self.rename(name)]
            for name in names
        }

    def untrained(self, options: Options) -> Entries:
        """Return our entries of an untrained network."""
        return dict(build_method(self.method, options).state_dict()) if self.method else self.fresh(options)

    def dead(self, live: Iterable[str]) -> Entries:
        """Return the unused entries beside `live`: `neutral`, and update counters, which frozen batch norms never read."""
        norms = [name.removesuffix("running_mean") for name in live if name.endswith(".running_mean")]
        return self.neutral() | {f"{name}num_batches_tracked": torch.zeros((), dtype=torch.long) for name in norms}


@dataclass
class Report:
    """Result of a conversion: the names of the entries by what happened to them."""

    format: str
    converted: int = 0  # number of converted entries
    values: int = 0  # number of values in them
    dead: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # such as the heads of a detector
    filled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misfit: list[str] = field(default_factory=list)  # `name: fault of its shape, type or values`

    def lines(self) -> list[str]:
        """Format the report: counts, and all names except those of converted entries."""
        out = [f"format {self.format}"]
        if self.converted:
            out.append(f"converted: {self.converted} entries, {self.values:,} values")
        for what, names in (
            ("dead: dropped, or written with neutral values", self.dead),
            ("without a counterpart, dropped", self.unused),
            ("absent constants, filled in", self.filled),
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape, type or value", self.misfit),
        ):
            if names:
                out += [f"{what}: {len(names)}", *(f"  {name}" for name in names)]
        return out

    def fault(self) -> str:
        """Summarise the faults in one line, empty if there are none."""
        faults = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape, type or value": self.misfit,
        }
        return differences(faults)

    def require(self, source: object) -> None:
        """Raise a HodorError that names `source` if there is a fault."""
        if fault := self.fault():
            raise HodorError(f"{source}: not a valid checkpoint of format {self.format}: {fault}; nothing written")

    def count(self, entries: Entries) -> None:
        """Count the converted entries."""
        self.converted, self.values = len(entries), sum(value.numel() for value in entries.values())


def convert_to_ours(format: Format, entries: Mapping[str, Tensor]) -> tuple[Entries, Options, Report]:
    """Convert the entries of an original checkpoint.

    Returns:
        Our entries, empty if the report has a fault; the options of their network; the report.
    """
    report = Report(format.name)
    for prefix in filter(None, (format.prefix, "module.")):  # DataParallel writes the latter
        if entries and all(name.startswith(prefix) for name in entries):
            entries = {name.removeprefix(prefix): value for name, value in entries.items()}
            break
    options = format.options(entries)
    fresh = format.untrained(options)
    expected = format.to_original(fresh)
    constant = {name for name, value in expected.items() if name in format.constants or not value.is_floating_point()}
    dead, live = format.dead(expected), {}
    for name in sorted(entries):
        if name in expected:
            live[name] = entries[name]
            report.misfit += _misfit(name, entries[name], expected[name], name in constant)
        elif name in dead:
            report.dead.append(name)
        elif name.startswith(format.unused):
            report.unused.append(name)
        else:
            report.unexpected.append(name)
    absent = expected.keys() - live.keys()
    report.filled, report.missing = sorted(absent & constant), sorted(absent - constant)
    if report.fault():
        return {}, options, report
    report.count(live)
    return format.to_ours(expected | live, fresh), options, report


def convert_to_original(format: Format, weights: Mapping[str, Tensor], options: Options) -> tuple[Entries, Report]:
    """Convert our weights, of a network with `options`, to original entries: the reverse of `convert_to_ours`.

    Weights of another size than the release's are a fault.
    """
    report = Report(format.name)
    fresh = format.untrained({key: options[key] for key in format.options({}) if key in options})
    report.unexpected = sorted(f"{name} (of ours)" for name in weights.keys() - fresh.keys())
    report.missing = sorted(f"{name} (of ours)" for name in fresh.keys() - weights.keys())
    for name in sorted(fresh.keys() & weights.keys()):
        constant = not fresh[name].is_floating_point()
        report.misfit += [f"{text} (of ours)" for text in _misfit(name, weights[name], fresh[name], constant)]
    if report.fault():
        return {}, report
    live = format.to_original({name: weights[name] for name in fresh})  # in the order of the release
    dead = format.dead(live)
    report.dead = sorted(dead)
    report.count(live)
    return {format.prefix + name: value for name, value in (live | dead).items()}, report


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
        return [f"{name}: contains values that are not finite"]
    return []
