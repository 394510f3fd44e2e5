"""Records of what every result was made with, and the chain of digests from weights to table cell.

Every step writes a record beside its result: the digest of its stamp, and those of the files that it read. `Records`
compares stamps only, in milliseconds, and decides for the workflow what is up to date. `verify_run` follows the whole chain,
with digests of files, before a number enters a table. docs/records.md lists every record.
"""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

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

    def train_data(self, row: str, seed: int | str, targets: Iterable[str] = ()) -> list[Path]:
        """Return the inputs of a training besides its stamp and weights; none if the row is trained.

        They include the data of all other steps for the `targets` of the workflow, so that a missing or damaged archive
        is found before the first training.
        """
        if self.trained(row, int(seed)):
            return []
        found = dict.fromkeys(self._own_data(row))
        for other in self._rows_of(targets) if targets else ():
            for of in self.config.lineage(other):
                for at in self.config.seeds_of(of):
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
        if self.segmented(row, int(seed), benchmark) and self._made_with(record, f"score-{benchmark}"):
            return []
        return self._data(get_benchmark(benchmark).dataset)

    def segmented(self, row: str, seed: int, benchmark: str) -> bool:
        """Return whether the masks of a row exist and were made with the current settings, recipes and weights."""
        folder = paths.prediction(self.stamps.scale, row, seed, benchmark)
        made = self._made_with(folder / "masks.json", f"segment-{row}-seed{seed}-{benchmark}")
        return made and (self.folder / folder / "masks").is_dir() and self.trained(row, seed)

    def date_stamps(self) -> None:
        """Make every stamp newer than a result made with another one.

        Snakemake compares times, and restored results, or those of a machine with a fast clock, would look up to date.
        """
        for row in self.config.needed():
            for seed in self.config.seeds_of(row):
                pairs = {}
                if not self.config.rows[row].masks:
                    pairs[paths.run(self.stamps.scale, row, seed) / "train.json"] = f"train-{row}-seed{seed}"
                for benchmark in self.config.benchmarks(row) if row in self.config.selected else ():
                    folder = paths.prediction(self.stamps.scale, row, seed, benchmark)
                    pairs[folder / "masks.json"] = f"segment-{row}-seed{seed}-{benchmark}"
                    pairs[folder / "score.json"] = f"score-{benchmark}"
                for record, name in pairs.items():
                    file, stamp = self.folder / record, self.folder / self.stamps.path(name)
                    if file.is_file() and not self._made_with(record, name):
                        made = file.stat().st_mtime
                        if stamp.stat().st_mtime <= made:
                            os.utime(stamp, (made + 1, made + 1))

    def _trained(self, row: str, seed: int) -> bool:
        if self.config.rows[row].masks:
            return True
        folder = paths.run(self.stamps.scale, row, seed)
        parent = self.config.rows[row].init
        made = self._made_with(folder / "train.json", f"train-{row}-seed{seed}")
        present = made and (self.folder / folder / "model.safetensors").is_file()
        return present and (parent is None or self.trained(parent, seed))

    def _made_with(self, record: Path, stamp: str) -> bool:
        try:
            return read_json(self.folder / record).get("stamp") == self.stamps.digest(stamp)
        except HodorError:
            return False

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


def verify_run(
    folder: Path,
    benchmarks: Sequence[str],
    stamps: dict[str, str],
    command: str,
    parent: Path | None = None,
) -> None:
    """Check one run against the current stamps and its own files; HodorError for the first difference.

    Args:
        folder: folder of the run, `<row>/seed<k>`.
        benchmarks: benchmarks of the table.
        stamps: "<row>/seed<k>/<step>" -> sha256 of the current stamp; steps are `train` (not of external masks) and, for
            each benchmark, `<benchmark>/segment` and `<benchmark>/score`.
        command: command that makes a deleted file again, for the message.
        parent: weights that the training had to start from.
    """
    link = _Link(folder, stamps, command)
    weights, trained = folder / "model.safetensors", folder / "train.json"
    train, model = {}, None
    if f"{link.name}/train" in stamps:  # external masks have none, and no weights
        train, model = read_json(trained), sha256_file(weights)
        link.stamp(trained, train, "train")
    if train.get("model") != model:
        raise link.broken(weights, f"not the weights that {trained} names", also=trained)
    if parent is not None and sha256_file(parent) not in train.get("inputs", {}).values():
        raise link.broken(trained, f"training did not start from the present {parent}")
    for benchmark in benchmarks:
        at = folder / benchmark / "masks.json"
        masks = read_json(at)
        link.stamp(at, masks, f"{benchmark}/segment")
        if masks.get("weights") != model:
            raise link.broken(at, f"the masks were not made with {weights}")
        digest, at = sha256_file(at), folder / benchmark / "score.json"
        score = read_json(at)
        link.stamp(at, score, f"{benchmark}/score")
        if score.get("masks") != digest:
            raise link.broken(at, f"not the scores of the masks in {folder / benchmark / 'masks.json'}")
        if score.get("truth") is None or score["truth"] != masks.get("data"):
            raise link.broken(at, "segmented and scored on different data")
        for name, recorded in score.get("files", {}).items():
            if sha256_file(folder / benchmark / name) != recorded:
                raise link.broken(folder / benchmark / name, f"not the numbers that {at} records", also=at)


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


class _Link:
    """Comparison of the stamps of one run, and its errors."""

    def __init__(self, folder: Path, stamps: dict[str, str], command: str) -> None:
        self.name, self.stamps, self.command = f"{folder.parent.name}/{folder.name}", stamps, command

    def stamp(self, path: Path, record: dict[str, Any], step: str) -> None:
        name = f"{self.name}/{step}"
        if name not in self.stamps:
            raise HodorError(f"{path}: the stamp of the table has no current stamp for {name}; run the workflow again")
        if record.get("stamp") != self.stamps[name]:
            raise self.broken(path, "made with other settings or recipe versions than the current ones")
        content = record.get("stamp_content")
        # The manifest shows this content as the resolved settings.
        if content is not None and sha256_json(content) != record["stamp"]:
            raise self.broken(path, "the settings in it are not those of its stamp")

    def broken(self, path: Path, what: str, also: Path | None = None) -> HodorError:
        return HodorError(f"{path}: {what}; {fix_with(self.command, *filter(None, [path, also]))}")
