"""Which results are up to date by their own record, so that their data need not be there.

Every result names the digest of the stamp that it was made with. Where that is the present one, the step asks for no
data set: archives and data sets can then be deleted, fetched or extracted again without anything being trained again,
and checkpoints that came from elsewhere need none. (Snakemake's own word for such an input, `ancient`, stops it from
looking at any step further down: its issue 4166.) The inputs of a step thus change with its state; profiles/default
therefore lets only contents and time stamps decide what runs, never the list of inputs.
"""

from functools import cache
from pathlib import Path

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.errors import HodorError
from hodor.provenance import read_json, sha256_json
from hodor.stamps import Stamps


class Records:
    """The records below a working directory (`folder`) against the present stamps."""

    def __init__(self, stamps: Stamps, folder: Path = Path()) -> None:
        self.stamps = stamps
        self.folder = folder
        self.trained = cache(self._trained)

    def train_data(self, row: str, seed: int | str) -> list[Path]:
        """What training a row has to wait for: manifests and folders of its data sets and packs; none once trained."""
        if self.trained(row, int(seed)):
            return []
        scale, packs = self.stamps.scale, self.stamps.config.packs(row)
        packed = [path for name in packs for path in (paths.packed_manifest(scale, name), paths.packed(scale, name))]
        return [*self._data(*self.stamps.config.plain(row)), *packed]

    def pack_data(self, name: str) -> list[Path]:
        """What packing training data has to wait for; nothing where the pack is there."""
        scale = self.stamps.scale
        made = self._made_with(paths.packed_manifest(scale, name), f"pack-{name}")
        if made and (self.folder / paths.packed(scale, name)).is_dir():
            return []
        return self._data(self.stamps.config.packs(*self.stamps.config.needed())[name].dataset)

    def segment_data(self, row: str, seed: int | str, benchmark: str) -> list[Path]:
        """What segmenting a benchmark has to wait for, besides the weights; nothing where the masks are there."""
        if self.segmented(row, int(seed), benchmark):
            return []
        return self._data(get_benchmark(benchmark).dataset)

    def score_data(self, row: str, seed: int | str, benchmark: str) -> list[Path]:
        """What scoring has to wait for, besides the masks; nothing where the scores are there."""
        record = paths.prediction(self.stamps.scale, row, seed, benchmark) / "score.json"
        if self.segmented(row, int(seed), benchmark) and self._made_with(record, f"score-{benchmark}"):
            return []
        return self._data(get_benchmark(benchmark).dataset)

    def segmented(self, row: str, seed: int, benchmark: str) -> bool:
        """Whether the masks of a row are there and made with the present settings, code and weights."""
        folder = paths.prediction(self.stamps.scale, row, seed, benchmark)
        made = self._made_with(folder / "masks.json", f"segment-{row}-seed{seed}-{benchmark}")
        return made and (self.folder / folder / "masks").is_dir() and self.trained(row, seed)

    def _trained(self, row: str, seed: int) -> bool:
        folder = paths.run(self.stamps.scale, row, seed)
        entry = self.stamps.config.rows.get(row)  # none: an authors' checkpoint
        parent = entry.init if entry else None
        made = self._made_with(folder / "train.json", f"train-{row}-seed{seed}")
        here = made and (self.folder / folder / "model.safetensors").is_file()
        return here and (parent is None or self.trained(parent, seed))

    def _made_with(self, record: Path, stamp: str) -> bool:
        try:
            return read_json(self.folder / record).get("stamp") == sha256_json(self.stamps.contents[stamp])
        except HodorError:
            return False

    def _data(self, *datasets: str) -> list[Path]:
        scale = self.stamps.scale
        return [path for name in datasets for path in (paths.manifest(scale, name), paths.dataset(scale, name))]
