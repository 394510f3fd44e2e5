"""What is known of one kind of original checkpoint: its names, how they map to ours, and what nobody reads.

A module of this package describes a kind by a `Format`; `formats.py` lists them all.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hodor.models.base import differences

Entries = dict[str, Tensor]
Options = dict[str, Any]


def _nothing(options: Options) -> Entries:
    return {}


def _defaults(entries: Mapping[str, Tensor]) -> Options:
    return {}


def renaming(
    original_name: Callable[[str], str],
) -> tuple[Callable[[Entries], Entries], Callable[[Entries, Iterable[str]], Entries]]:
    """`to_original` and `to_ours` of a format that differs from ours in names alone; `original_name` of our name."""

    def to_original(weights: Entries) -> Entries:
        return {original_name(name): value for name, value in weights.items()}

    def to_ours(entries: Entries, names: Iterable[str]) -> Entries:
        return {name: entries[original_name(name)] for name in names}

    return to_original, to_ours


def batch_counters(names: Iterable[str]) -> Entries:
    """Counters of batch norms' updates, which frozen statistics never read and older files lack, for live `names`."""
    norms = [name.removesuffix("running_mean") for name in names if name.endswith(".running_mean")]
    return {f"{name}num_batches_tracked": torch.zeros((), dtype=torch.long) for name in norms}


@dataclass(frozen=True)
class Format:
    """One kind of original checkpoint.

    Attributes:
        name: what `--format` calls it.
        about: the files that it is for, in a few words.
        mark: start of a name that every such file holds and no file of another format does.
        to_ours: live entries under their original names, and our names -> our entries. It is called with exactly the
            original names and shapes that `to_original` gives for an untrained network.
        to_original: our entries -> live entries under their original names (without `prefix`).
        method: id of the method whose model it becomes; None: starting weights of a part of a network.
        fresh: for starting weights, options -> our entries of an untrained network (a method is built instead).
        options: original entries -> the method options (or choices of `fresh`) that they need; told from the entries,
            of which any may be missing.
        variants: the options in which files of the release differ; all others have one value there.
        wrapper: key under which a file of the release holds its entries; None: the file holds nothing else.
        prefix: start of all names in a file of the release, such as `module.`; it may be absent when reading.
        neutral: options -> entries that the release creates and never uses, with values that do nothing. They are
            dropped when reading, may be absent, and are written with these values.
        unused: starts of names that a file may hold besides, which are dropped and never written.
        constant: ends of original names whose values are defined, not learned: checked, and filled in where absent.
    """

    name: str
    about: str
    mark: str
    to_ours: Callable[[Entries, Iterable[str]], Entries]
    to_original: Callable[[Entries], Entries]
    method: str | None = None
    fresh: Callable[[Options], Entries] = _nothing
    options: Callable[[Mapping[str, Tensor]], Options] = _defaults
    variants: tuple[str, ...] = ()
    wrapper: str | None = None
    prefix: str = ""
    neutral: Callable[[Options], Entries] = _nothing
    unused: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()


@dataclass
class Report:
    """What became of every entry of a checkpoint, by original name.

    Attributes:
        format: name of the format, `recognised` whether it was told from the entries.
        converted: entries that were carried over.
        values: numbers in them.
        dead: entries that the release never uses: dropped, or (`written`) written with neutral values.
        unused: entries of parts that have no place here (heads of a detector, a classifier); dropped.
        filled: constants that the file lacks, which were filled in.
        missing, unexpected: names; any of them is an error, as is any of
        misfit: `name: what is wrong with its shape, type or values`.
        notes: further lines for a person.
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
        """The report for a person: counts, and every name but those of converted entries."""
        out = [f"format {self.format}" + (" (recognised from the entries)" if self.recognised else "")]
        if self.converted:
            out.append(f"converted: {len(self.converted)} entries, {self.values:,} values")
        dead = "dead, written with neutral values" if self.written else "dead, dropped"
        for what, names in (
            (dead, self.dead),
            ("of no use here, dropped", self.unused),
            ("absent constants, filled in", self.filled),
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape, type or value", self.misfit),
        ):
            if names:
                out += [f"{what}: {len(names)}", *(f"  {name}" for name in names)]
        return out + self.notes

    def fault(self) -> str | None:
        """The faults in one line, or None where there is none."""
        told = differences(missing=self.missing, unexpected=self.unexpected, of_another_shape_or_kind=self.misfit)
        return told or None
