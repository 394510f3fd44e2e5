"""Records of what every result was made with, and the chain of digests from weights to table cell.

Every step writes a record beside its result: the digest of its stamp, and those of the files that it read. `Records`
compares stamps and manifests of data sets, in milliseconds, and decides for the workflow what is up to date. `verify_run`
follows the whole chain, with digests of files, before a number enters a table. docs/records.md lists every record.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.errors import HodorError
from hodor.provenance import read_json, sha256_file, sha256_json
from hodor.stamps import Stamps


class Records:
    """Comparison of the records below a working directory with the current stamps.

    A step whose result is up to date has no data among its inputs, so that archives and data sets can be deleted or made
    again without training anything. (With Snakemake's `ancient` no earlier step would be checked, its issue 4166.) The
    list of inputs thus depends on the state of a step, and profiles/default excludes it from what makes a step run again.

    Args:
        stamps: stamps of the current configuration.
        folder: working directory.
    """

    def __init__(self, stamps: Stamps, folder: Path = Path()) -> None:
        self.stamps = stamps
        self.config = stamps.config
        self.folder = folder
        self.trained = cache(self._trained)
        self._manifest_digest = cache(self._hash_manifest)

    def train_data(self, row: str, seed: int | str, targets: Iterable[str] = ()) -> list[Path]:
        """Return the inputs of a training besides its stamp and weights; none if the row is trained.

        They include the data of all other steps for the `targets` of the workflow, so that a missing or damaged archive
        is found before the first training.
        """
        if self.trained(row, int(seed)):
            return []
        found = dict.fromkeys(self._own_data(row))
        for other in self._rows_of(targets) if targets else ():
            for of, at in self.config.runs(self.config.lineage(other)):
                found |= dict.fromkeys([] if self.trained(of, at) else self._own_data(of))
            for at in self.config.seeds_of(other):
                for benchmark in self.config.benchmarks(other):
                    found |= dict.fromkeys(self.score_data(other, at, benchmark))
        return list(found)

    def segment_data(self, row: str, seed: int | str, benchmark: str) -> list[Path]:
        """Return the data of a segmentation; none if the masks are up to date."""
        if self.segmented(row, int(seed), benchmark):
            return []
        return self._data(get_benchmark(benchmark).dataset)

    def score_data(self, row: str, seed: int | str, benchmark: str) -> list[Path]:
        """Return the data of a scoring; none if the scores are up to date."""
        record = paths.prediction(self.stamps.scale, row, seed, benchmark) / "score.json"
        if self.segmented(row, int(seed), benchmark) and self._made_with(record, f"score-{benchmark}", benchmark):
            return []
        return self._data(get_benchmark(benchmark).dataset)

    def segmented(self, row: str, seed: int, benchmark: str) -> bool:
        """Return whether the masks of a row exist and were made with the current settings, recipes and weights."""
        folder = paths.prediction(self.stamps.scale, row, seed, benchmark)
        made = self._made_with(folder / "masks.json", f"segment-{row}-seed{seed}-{benchmark}", benchmark)
        return made and (self.folder / folder / "masks").is_dir() and self.trained(row, seed)

    def date_stamps(self) -> None:
        """Make every stamp newer than the results made with another one, and otherwise old if a result was made with it.

        Snakemake compares times. Restored results, or those of a machine with a fast clock, would look up to date, and
        imported ones out of date.
        """
        results: dict[Path, dict[Path, bool]] = {}  # stamp -> record -> whether it was made with the stamp

        def add(record: Path, *made: str) -> None:
            if (self.folder / record).is_file():
                results.setdefault(self.folder / self.stamps.path(made[0]), {})[record] = self._made_with(record, *made)

        for row, seed in self.config.runs(self.config.needed()):
            if not self.config.rows[row].masks:
                add(paths.run(self.stamps.scale, row, seed) / "train.json", f"train-{row}-seed{seed}")
            for benchmark in self.config.benchmarks(row) if row in self.config.selected else ():
                folder = paths.prediction(self.stamps.scale, row, seed, benchmark)
                add(folder / "masks.json", f"segment-{row}-seed{seed}-{benchmark}", benchmark)
                add(folder / "score.json", f"score-{benchmark}", benchmark)
        for stamp, made_with in results.items():
            others = [(self.folder / record).stat().st_mtime for record, same in made_with.items() if not same]
            at, date = stamp.stat().st_mtime, max(others, default=0) + 1
            if at < date or at > date and any(made_with.values()):
                os.utime(stamp, (date, date))

    def _trained(self, row: str, seed: int) -> bool:
        if self.config.rows[row].masks:
            return True
        folder = paths.run(self.stamps.scale, row, seed)
        parent = self.config.rows[row].init
        made = self._made_with(folder / "train.json", f"train-{row}-seed{seed}")
        present = made and (self.folder / folder / "model.safetensors").is_file()
        return present and (parent is None or self.trained(parent, seed))

    def _made_with(self, record: Path, stamp: str, benchmark: str | None = None) -> bool:
        """Return whether a record is of the current stamp and, if the benchmark's data set is present, of that data set.

        An archive without a published checksum may be replaced, say by a more complete one, under the same stamp.
        """
        try:
            content = read_json(self.folder / record)
        except HodorError:
            return False
        data = content.get("truth", content.get("data"))
        present = self._manifest_digest(get_benchmark(benchmark).dataset) if benchmark else None
        return content.get("stamp") == self.stamps.digest(stamp) and (None in (data, present) or data == present)

    def _hash_manifest(self, dataset: str) -> str | None:
        path = self.folder / paths.manifest(self.stamps.scale, dataset)
        return sha256_file(path) if path.is_file() else None

    def _own_data(self, row: str) -> list[Path]:
        return self._data(*self.config.datasets(row))

    def _data(self, *datasets: str) -> list[Path]:
        scale = self.stamps.scale
        return [path for name in datasets for path in (paths.manifest(scale, name), paths.dataset(scale, name))]

    def _rows_of(self, targets: Iterable[str]) -> tuple[str, ...]:
        """Return the selected rows that targets of the workflow need: rules, rows or files."""
        chosen: set[str] = set()
        for target in map(Path, targets):
            tables = [name for name in ("ablation", "comparison", "extended") if target.stem == f"{name}_table"]
            tables += [name for name in ("costs", "claims") if target.stem == name]
            rows = [part for part in target.parts if part in self.config.rows]
            if not tables and not rows:  # for example `all`, or a page
                return self.config.selected
            chosen.update(rows, *(self.config.tabulated(table) for table in tables))
        return tuple(row for row in self.config.selected if row in chosen)


class Fault(NamedTuple):
    """A file of a run that is not what a record says.

    Attributes:
        text: `FILE: what is wrong`.
        files: files to delete, so that the workflow makes them again.
    """

    text: str
    files: tuple[Path, ...]


def run_faults(
    folder: Path,
    benchmarks: Iterable[str],
    differs: Callable[[str, dict, dict], str] = lambda *_: "",
    parent: Path | None = None,
    *,
    deep: bool = False,
) -> Iterator[Fault]:
    """Yield the differences between the files of one run, its records and the current stamps; an absent file has none.

    Args:
        folder: folder of the run, `<row>/seed<k>`.
        benchmarks: benchmarks to check.
        differs: function of a step (`train`, `<benchmark>/segment`, `<benchmark>/score`), its record and the record with
            the content of its stamp; returns how the stamp differs from the current one, or an empty text.
        parent: weights that the training had to start from.
        deep: read every mask and the training log too.
    """
    records: dict[Path, dict] = {}
    trained, weights = folder / "train.json", folder / "model.safetensors"
    steps = [folder / id / f"{step}.json" for id in benchmarks for step in ("masks", "segment", "score")]
    for path in filter(Path.is_file, (trained, *steps)):
        try:
            records[path] = read_json(path)
        except HodorError as error:
            yield Fault(str(error).partition("; ")[0], (path,))

    def stamp(step: str, path: Path, source: Path) -> Iterator[Fault]:
        content = records.get(source, {}).get("stamp_content")
        if text := differs(step, records[path], records.get(source, {})):
            yield Fault(f"{path}: {text}", (path,))
        # The manifest shows this content as the resolved settings.
        elif content is not None and sha256_json(content) != records[path].get("stamp"):
            yield Fault(f"{source}: the settings in it are not those of its stamp", (source,))

    def compare(record: Path, what: str, digests: Mapping[str, str | None]) -> Iterator[Fault]:
        for path, digest in ((record.parent / name, digest) for name, digest in digests.items()):
            if not path.is_file():
                yield Fault(f"{path}: missing, but {record} lists it", (record,))
            elif sha256_file(path) != digest:
                yield Fault(f"{path}: not the {what} that {record} records", (path, record))

    segmented = [
        records[path].get("stamp_content") or {} for path in steps if path.stem == "segment" and path in records
    ]
    external = any("masks" in content.get("settings", {}) for content in segmented)
    train = None if external else records.get(trained)
    if train is not None:
        yield from stamp("train", trained, trained)
        if weights.is_file():
            yield from compare(trained, "weights", {weights.name: train.get("model")})
        # Results of earlier versions have no `log`.
        if deep and train.get("log") and (folder / "train.jsonl").is_file():
            yield from compare(trained, "training log", {"train.jsonl": train["log"]})
        if parent is not None and sha256_file(parent) not in train.get("inputs", {}).values():
            yield Fault(f"{trained}: training did not start from the present {parent}", (trained,))
        settings = (train.get("stamp_content") or {}).get("settings", {})
        if settings.get("init", "") is None and "init" in train.get("inputs", {}):
            yield Fault(f"{trained}: training started from weights, but its row starts from no other", (trained,))
    for benchmark in benchmarks:
        at, segment, path = (folder / benchmark / f"{step}.json" for step in ("masks", "segment", "score"))
        masks, score = records.get(at), records.get(path)
        if masks is not None:
            yield from stamp(f"{benchmark}/segment", at, segment)
            if train is not None and masks.get("weights") != train.get("model"):
                yield Fault(f"{at}: the masks were not made with {weights}", (at,))
            if deep and (at.parent / "masks").is_dir():
                yield from compare(at, "mask", {f"masks/{name}": digest for name, digest in masks["masks"].items()})
        if score is not None:
            yield from stamp(f"{benchmark}/score", path, path)
            if masks is not None and score.get("masks") != sha256_file(at):
                yield Fault(f"{path}: not the scores of the masks in {at}", (path,))
            if masks is not None and (score.get("truth") is None or score["truth"] != masks.get("data")):
                yield Fault(f"{path}: segmented and scored on different data", (path,))
            yield from compare(path, "numbers", score.get("files", {}))


def verify_run(
    folder: Path,
    benchmarks: Sequence[str],
    stamps: dict[str, str],
    command: str,
    parent: Path | None = None,
) -> None:
    """Check one run against the current stamps and its own files; HodorError for the first difference.

    Args:
        folder, benchmarks, parent: as of `run_faults`.
        stamps: "<row>/seed<k>/<step>" -> sha256 of the current stamp; steps are `train` (not of external masks) and, for
            each benchmark, `<benchmark>/segment` and `<benchmark>/score`.
        command: command that makes a deleted file again, for the message.
    """

    def differs(step: str, record: dict, _: dict) -> str:
        name = f"{folder.parent.name}/{folder.name}/{step}"
        if name not in stamps:
            raise HodorError(
                f"{folder}: the stamp of the table has no current stamp for {name}; run the workflow again"
            )
        same = record.get("stamp") == stamps[name]
        return "" if same else "made with other settings or recipe versions than the current ones"

    for fault in run_faults(folder, benchmarks, differs, parent):
        raise HodorError(f"{fault.text}; {fix_with(command, *fault.files)}")


def verify_same_ground_truth(folders: Iterable[Path], benchmark: str, command: str) -> None:
    """Raise HodorError if two of these runs were scored against different ground truth."""
    first = None
    for path in (folder / benchmark / "score.json" for folder in folders):
        if not path.is_file():
            continue
        truth = read_json(path).get("truth")
        if first is None:
            first = (path, truth)
        elif truth != first[1]:
            raise HodorError(f"{path}: scored on other data than {first[0]}; {fix_with(command, path)}")


def fix_with(command: str, *files: Path) -> str:
    """Return the end of a message: how to make files again."""
    return f"fix it with: rm -f {' '.join(file.as_posix() for file in files)} && {command}"
