"""Description of a kind of original checkpoint (`Format`) and the report of a conversion (`Report`).

The instances are in `releases` (whole networks) and `backbones` (initial weights).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hodor.models.base import build_method, differences

Entries = dict[str, Tensor]
Options = dict[str, Any]


def batch_counters(names: Iterable[str]) -> Entries:
    """Return the update counters of batch norms, which frozen norms never read and older files lack."""
    norms = [name.removesuffix("running_mean") for name in names if name.endswith(".running_mean")]
    return {f"{name}num_batches_tracked": torch.zeros((), dtype=torch.long) for name in norms}


def _empty(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Format:
    """One kind of original checkpoint.

    Attributes:
        name: what `--format` calls it.
        about: the files of this kind, in a few words.
        mark: prefix of names that every such file and no file of another format contains.
        rename: our name -> original name, without `prefix`.
        method: id of the method; None: initial weights of a part of a network.
        fresh: for initial weights, options -> our entries of an untrained network.
        options: original entries, possibly incomplete -> options of the method or of `fresh`.
        variants: the options in which files of the release differ.
        split: our name -> original names with their input channels in ours.
        wrapper: key of the entries in a file of the release; None: the file holds only entries.
        prefix: prefix of all names in a file of the release, such as `module.`; optional when reading.
        neutral: options -> entries that the release creates but never uses, with neutral values. They are dropped when
            reading, may be absent, and are written with these values, like the update counters of batch norms.
        unused: prefixes of other names that a file may contain, which are dropped and never written.
        constants: original entries with defined values that our networks do not have.
        constant: suffixes of names with defined values, which are checked, and filled in if absent.
    """

    name: str
    about: str
    mark: str
    rename: Callable[[str], str] = str
    method: str | None = None
    fresh: Callable[[Options], Entries] = _empty
    options: Callable[[Mapping[str, Tensor]], Options] = _empty
    variants: tuple[str, ...] = ()
    split: Mapping[str, tuple[tuple[str, slice], ...]] = field(default_factory=dict)
    wrapper: str | None = None
    prefix: str = ""
    neutral: Callable[[Options], Entries] = _empty
    unused: tuple[str, ...] = ()
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    constant: tuple[str, ...] = ()

    def to_original(self, weights: Mapping[str, Tensor]) -> Entries:
        """Rename our entries to live original entries, without `prefix`."""
        out = dict(self.constants)
        for name, value in weights.items():
            if name in self.split:
                out |= {theirs: value[:, channels].clone() for theirs, channels in self.split[name]}
            else:
                out[self.rename(name)] = value
        return out

    def to_ours(self, entries: Mapping[str, Tensor], names: Iterable[str]) -> Entries:
        """Rename live original entries to our entries `names`."""
        return {
            name: torch.cat([entries[theirs] for theirs, _ in self.split[name]], dim=1)
            if name in self.split
            else entries[self.rename(name)]
            for name in names
        }

    def untrained(self, options: Options) -> Entries:
        """Return our entries of an untrained network."""
        return dict(build_method(self.method, options).state_dict()) if self.method else self.fresh(options)


@dataclass
class Report:
    """Result of a conversion for every entry, by original name.

    Attributes:
        format: name of the format.
        recognised: whether the format was recognised from the entries.
        written: whether original entries were written, not read.
        converted: converted entries.
        values: number of values in them.
        dead: entries that the release never uses: dropped, or (`written`) written with neutral values.
        unused: entries of parts without a counterpart (heads of a detector, a classifier), dropped.
        filled: absent constants, filled in.
        missing, unexpected: faulty names.
        misfit: `name: fault of its shape, type or values`.
        notes: further lines.
    """

    format: str
    recognised: bool = False
    written: bool = False
    converted: list[str] = field(default_factory=list)
    values: int = 0
    dead: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misfit: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Format the report: counts, and all names except those of converted entries."""
        out = [f"format {self.format}" + (" (recognised from the entries)" if self.recognised else "")]
        if self.converted:
            out.append(f"converted: {len(self.converted)} entries, {self.values:,} values")
        dead = "dead, written with neutral values" if self.written else "dead, dropped"
        for what, names in (
            (dead, self.dead),
            ("without a counterpart, dropped", self.unused),
            ("absent constants, filled in", self.filled),
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape, type or value", self.misfit),
        ):
            if names:
                out += [f"{what}: {len(names)}", *(f"  {name}" for name in names)]
        return out + self.notes

    def fault(self) -> str | None:
        """Summarise the faults in one line; None without faults."""
        faults = differences(missing=self.missing, unexpected=self.unexpected, of_another_shape_or_kind=self.misfit)
        return faults or None
