"""Load the results of one scale, and select by rule the sequences and objects that its pages show.

Masks are those of DAVIS-2017 val and of the first seed of a row; scores of rows are means over seeds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from hodor.config.benchmarks import BENCHMARKS, get_benchmark
from hodor.data.davis import load_davis
from hodor.data.video import Video
from hodor.reporting.formats import benchmark_title
from hodor.reporting.runs import Prediction, Run, provenance, read_csv, read_run, run_folder

STRIPS = "davis2017-val"
"""Benchmark whose masks are shown: its ground truth is public, and every scale has it."""


@dataclass(frozen=True)
class System:
    """A row of a table with its runs, one for each seed; none if it was not run."""

    row: str
    label: str
    data: str
    attention: str | None
    note: str
    runs: list[Run]

    @property
    def shown(self) -> Prediction | None:
        """Masks of the first seed, or None."""
        return self.runs[0].predictions.get(STRIPS) if self.runs else None

    def masks(self, video: Video) -> Path:
        """Return the folder of the masks of a sequence."""
        return self.shown.folder / "masks" / video.name

    def objects(self, benchmark: str = STRIPS) -> pd.Series:
        """Return "<sequence>_<object>" -> J&F in points, the mean over seeds."""
        return pd.concat([run.predictions[benchmark].object_scores() for run in self.runs], axis=1).mean(axis=1)

    def region(self, sequence: str) -> dict[tuple[int, str], float]:
        """Return (object, frame) -> J in 0..1 of a sequence; the first and the last frame are not scored."""
        frames = self.shown.frames()
        frames = frames[frames["sequence"] == sequence]
        return dict(zip(zip(frames["object"].map(int), frames["frame"]), frames["J"], strict=True))


@dataclass(frozen=True)
class Strip:
    """A sequence with the systems whose masks are shown. `why`: the rule that selected it."""

    why: str
    video: Video
    systems: list[System]

    @property
    def scores(self) -> dict[str, float]:
        """Row -> J&F in points on the sequence."""
        return {system.row: system.shown.sequence_scores()[self.video.name] for system in self.systems}


@dataclass(frozen=True)
class Failure:
    """An object that one system tracks and another loses.

    scores: row -> J&F in points on the object. frame: the frame on which their J differs most, by `gap` (0..1).
    """

    video: Video
    object_id: int
    better: System
    worse: System
    scores: dict[str, float]
    frame: str
    gap: float


@dataclass(frozen=True)
class Report:
    """The results of one scale, from its folders of tables, of runs and of data sets."""

    results: Path
    runs: Path
    data: Path

    def table(self, name: str) -> pd.DataFrame:
        """Read a CSV file ("<table>_table", "costs" or "released_weights") as text; HodorError if it is absent."""
        return read_csv(self.results / f"{name}.csv", step="tabulate")

    def released(self) -> pd.DataFrame:
        """Read released_weights.csv; an empty table if it is absent."""
        if not (self.results / "released_weights.csv").is_file():
            return pd.DataFrame(columns=["row", "benchmark", "released_J&F"])
        return self.table("released_weights")

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Table -> lines of its CSV."""
        return {table: self.table(f"{table}_table") for table in ("ablation", "comparison", "extended")}

    @cached_property
    def systems(self) -> dict[str, list[System]]:
        """Table -> its rows, each once, in order."""
        known: dict[str, System] = {}
        for lines in self.tables.values():
            for line in lines.drop_duplicates("row").to_dict("records"):
                if line["row"] not in known:
                    runs = [read_run(run_folder(self.runs, line["row"], int(seed))) for seed in line["seeds"].split()]
                    about = (line["row"], line["label"], line["training_data"], line["attention"] or None, line["note"])
                    known[line["row"]] = System(*about, runs)
        return {table: [known[row] for row in lines["row"].unique()] for table, lines in self.tables.items()}

    def all_systems(self) -> list[System]:
        """Return the rows of all tables that were run, each once, in the order of the tables."""
        found = {system.row: system for systems in self.systems.values() for system in systems if system.runs}
        return list(found.values())

    @cached_property
    def videos(self) -> dict[str, Video]:
        """Name -> sequence whose masks are shown."""
        benchmark = get_benchmark(STRIPS)
        return {video.name: video for video in load_davis(self.data / benchmark.dataset, benchmark.split)}

    def provenance(self, rows: Iterable[str] | None = None) -> dict[str, str]:
        """Return the provenance of the numbers of some rows, or of all (`hodor.reporting.runs.provenance`), and the data."""
        systems = self.all_systems() if rows is None else [s for s in self.all_systems() if s.row in set(rows)]
        runs = [run for system in systems for run in system.runs]
        scored = {(b, str(p.score.get("truth"))[:12]) for run in runs for b, p in run.predictions.items()}
        source = {id: benchmark.source for id, benchmark in BENCHMARKS.items()}.get
        data = [f"{benchmark_title(b)} ({b}{source(b, '')}, manifest sha256 {d})" for b, d in sorted(scored)]
        trained = dict.fromkeys(system.data for system in systems)
        return provenance(runs, sorted({run.seed for run in runs})) | {
            "data": "; ".join(data) or "nothing was scored",
            "trained on": "; ".join(trained) or "nothing was trained",
        }

    def notes(self, table: str) -> str:
        """Return the notes of the rows of a table on one line."""
        return "; ".join(f"{system.row}: {system.note}" for system in self.systems[table] if system.note)

    def groups(self, table: str, *, scored: bool = False) -> dict[str, list[System]]:
        """Return training data -> rows of a table that were run. `scored`: only those whose masks can be shown."""
        run = [system for system in self.systems[table] if system.runs]
        kept = [system for system in run if system.shown or not scored]
        groups = {system.data: [of for of in kept if of.data == system.data] for system in run}
        return {data: of for data, of in groups.items() if of}

    def soft_runs(self) -> dict[str, Run]:
        """Return row -> first run, of the rows with soft masking in the ablation table."""
        return {s.row: s.runs[0] for s in self.systems["ablation"] if s.attention == "soft" and s.runs}

    def strips(self, table: str) -> list[Strip]:
        """Select the sequence of median score, and the one on which the rows of a table differ most.

        If no row of the table was run, the rows are those of the extended table.
        """
        of = [s for s in self.systems[table] if s.runs] or [s for s in self.systems["extended"] if s.runs]
        of = [system for system in of if system.shown]
        if not of:
            return []
        scores = pd.DataFrame({system.row: system.shown.sequence_scores() for system in of}).loc[list(self.videos)]
        chosen = {median(scores.mean(axis=1)): "the sequence of median score"}
        if len(of) > 1:
            spread = scores.max(axis=1) - scores.min(axis=1)
            chosen.setdefault(spread.idxmax(), "the sequence on which the rows differ most")
        return [Strip(why, self.videos[name], of) for name, why in chosen.items()]

    def soft_against(self) -> list[tuple[str, System, System]]:
        """Return (training data, row without soft masking, row with it) for no masking, then for hard masking."""
        pairs = []
        for data, systems in self.groups("ablation", scored=True).items():
            of = {system.attention: system for system in systems}
            pairs += [(data, of[other], of["soft"]) for other in ("none", "hard") if other in of and "soft" in of]
        return pairs

    def failures(self, table: str = "ablation", count: int = 3) -> list[Failure]:
        """Select the objects on which two rows with the same training data differ most, each of another sequence."""
        found: list[tuple[float, str, System, System]] = []
        for group in self.groups(table, scored=True).values():
            # The training of external masks is not known.
            for pair in combinations([system for system in group if system.runs[0].train], 2):
                ours, theirs = (system.shown.object_scores() for system in pair)
                for name, difference in (ours - theirs).items():
                    better, worse = pair if difference >= 0 else pair[::-1]
                    found.append((-abs(difference), name, better, worse))
        chosen: dict[str, Failure] = {}
        for difference, name, better, worse in sorted(found, key=lambda case: (*case[:2], case[2].row, case[3].row)):
            sequence, _, object_id = name.rpartition("_")
            if difference < 0 and sequence not in chosen:
                chosen[sequence] = _failure(self.videos[sequence], int(object_id), better, worse)
            if len(chosen) == count:
                break
        return list(chosen.values())

    def most_absent(self) -> tuple[Video, dict[int, list[bool]]] | None:
        """Select the sequence whose objects are out of sight in most frames, and return it with their `presence`."""
        seen = {name: presence(video) for name, video in self.videos.items()}
        if not seen:
            return None
        name = min(seen, key=lambda name: (-sum(shown.count(False) for shown in seen[name].values()), name))
        return self.videos[name], seen[name]


def median(scores: pd.Series) -> str:
    """Return the name with the median score; of an even number, with the lower one."""
    ranked = sorted(scores.index, key=lambda name: (scores[name], name))
    return ranked[(len(ranked) - 1) // 2]


def presence(video: Video) -> dict[int, list[bool]]:
    """Return, for each object of the first frame, whether the ground truth of each frame shows it."""
    found: dict[int, list[bool]] = {k: [] for k, first in video.first_seen.items() if first == video.frames[0]}
    for frame in video.frames:
        shown = np.bincount(video.labels(frame).ravel(), minlength=256) > 0
        for k, seen in found.items():
            seen.append(bool(shown[k]))
    return found


def largest_object(video: Video) -> int | None:
    """Return the object with the largest mask on the first frame; None if there is no object."""
    first = video.labels(video.frames[0])
    areas = {k: int(np.count_nonzero(first == k)) for k, frame in video.first_seen.items() if frame == video.frames[0]}
    return max(areas, key=lambda k: (areas[k], -k)) if areas else None


def _failure(video: Video, object_id: int, better: System, worse: System) -> Failure:
    ours, theirs = (system.region(video.name) for system in (better, worse))
    gaps = {frame: ours[k, frame] - theirs[k, frame] for k, frame in ours if k == object_id}
    frame = max(gaps, key=gaps.get)
    name = f"{video.name}_{object_id}"
    scores = {system.row: system.shown.object_scores()[name] for system in (better, worse)}
    return Failure(video, object_id, better, worse, scores, frame, gaps[frame])
