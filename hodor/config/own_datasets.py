"""Data sets of the user in DAVIS or YouTube-VOS layout: the entries of `config/own_datasets.yaml`.

`declare` adds them to the registries of data sets and benchmarks. It is called with the configuration when that is read, and
by each step of the workflow with the entries in its stamp. Each split is a benchmark `<data set>-<split>`.
"""

from collections.abc import Mapping
from glob import glob
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from hodor.config.benchmarks import BENCHMARKS, Benchmark
from hodor.config.datasets import ARCHIVES, FOLDERS, SOURCES, SPLITS
from hodor.config.validation import Strict, read_yaml, validate
from hodor.errors import HodorError
from hodor.provenance import sha256_file, sha256_json

FILE = "own_datasets.yaml"
META = "meta.json"
PLACE, SHOWN = ("folder", "archives"), ("title", "source", "licence")
"""Keys of an entry that only its preparation uses, and that only tables and pages show."""
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
_FOLDERS = {"davis": ("JPEGImages/480p", "Annotations/480p"), "youtube-vos": ("JPEGImages", "Annotations")}
_RESERVED = ("all", "archives", "weights")  # a folder of data/<scale>, and groups of `hodor fetch`


class OwnDataset(Strict):
    """One entry: where the videos are, how their folders are named, and the protocol of their scores."""

    layout: Literal["davis", "youtube-vos"] = Field(
        description="davis: each split is a text file with a video a line; youtube-vos: each split is a folder"
    )
    folder: str = Field("", description="read in place; absolute or relative to the repository")
    archives: list[str] = Field([], description="instead of `folder`: zip or tar files in MIRROR/<data set>/")
    frames: str = Field("", description="folder of <video>/<frame>.jpg; youtube-vos: in the folder of each split")
    masks: str = Field("", description="folder of <video>/<frame>.png, as `frames`")
    splits: dict[_Name, str] = Field(min_length=1, description="split -> its text file, or its folder")
    protocol: Literal["davis", "youtube-vos"] | None = Field(
        None,
        description="davis: objects of the first frame, scored on all frames but the first and the last; youtube-vos: "
        "objects from the first mask that shows them; null: that of the layout",
    )
    title: str = Field("", description="name in tables; default: that of the entry")
    source: str = Field("", description="where it is from, shown with its scores")
    licence: str = Field("", description="its terms of use, shown with its scores")

    @model_validator(mode="after")
    def _complete(self) -> "OwnDataset":
        for key, default in zip(("frames", "masks"), _FOLDERS[self.layout], strict=True):
            setattr(self, key, getattr(self, key) or default)
        self.protocol = self.protocol or self.layout
        for path in (self.frames, self.masks, *self.splits.values()):
            if PurePath(path).is_absolute() or ".." in PurePath(path).parts or path in ("", "."):
                raise ValueError(f"{path!r} must be relative to the data set's folder, without `..`")
        if any(PurePath(name).name != name for name in self.archives):
            raise ValueError("`archives` must be file names without folders")
        return self

    def place(self) -> Path:
        """Return the absolute path of `folder`; HodorError if it is absent."""
        path = Path(self.folder).expanduser().resolve()
        if not path.is_dir():
            raise HodorError(f"config/{FILE}: folder {self.folder}: no such folder ({path}); correct the entry")
        return path

    def parts(self) -> list[str]:
        """Return the folders and files that belong to the data set, relative to it."""
        if self.layout == "davis":
            return [self.frames, self.masks, *self.splits.values()]
        return [f"{top}/{part}" for top in self.splits.values() for part in (self.frames, self.masks, META)]

    def files(self) -> list[str]:
        """Return the files of the data set in `folder`, relative to it and sorted."""
        place = self.place()
        below = ((part, name) for part in self.parts() for name in glob("**", root_dir=place / part, recursive=True))
        found = {PurePath(*names).as_posix() for names in (*below, *zip(self.parts()))}
        return sorted(name for name in found if (place / name).is_file())

    def identity(self) -> str:
        """Return a hash of what determines the content: the archives; of a folder all names and sizes, and all lists."""
        found: dict[str, int | str] = {}
        for name in self.files() if self.folder else ():
            path = self.place() / name
            found[name] = sha256_file(path) if path.suffix in (".txt", ".json") else path.stat().st_size
        return sha256_json(self.model_dump(exclude={"folder", *SHOWN}) | {"files": found})


class OwnDatasets(Strict):
    """config/own_datasets.yaml."""

    datasets: dict[_Name, OwnDataset] = Field({}, description="name -> entry")

    @model_validator(mode="after")
    def _places(self) -> "OwnDatasets":
        ids: list[str] = []
        for name, entry in self.datasets.items():
            if name in _RESERVED or name in SOURCES and name not in OWN:
                raise ValueError(f"datasets.{name}: the project uses this name itself; choose another one")
            if bool(entry.folder) == bool(entry.archives):
                raise ValueError(f"datasets.{name}: give either `folder` or `archives`")
            ids += [f"{name}-{split}" for split in entry.splits]
        for id in ids:
            if ids.count(id) > 1 or id in BENCHMARKS and not BENCHMARKS[id].own:
                raise ValueError(f"datasets: two benchmarks would be named {id}; rename a data set or split")
        return self


OWN: dict[str, OwnDataset] = {}
"""Name -> entry of the declared data sets; `declare` alone changes it."""


def declare(entries: Mapping[str, OwnDataset | dict[str, Any]]) -> None:
    """Add data sets of the user to the registries, in place of those declared before."""
    for name in OWN:
        for registry in (ARCHIVES, SOURCES, FOLDERS, SPLITS):
            del registry[name]
    for id in [id for id, benchmark in BENCHMARKS.items() if benchmark.own]:
        del BENCHMARKS[id]
    OWN.clear()
    for name, found in entries.items():
        OWN[name] = entry = OwnDataset.model_validate(found)
        ARCHIVES[name] = SOURCES[name] = tuple(entry.archives)
        FOLDERS[name], SPLITS[name] = tuple({part.split("/")[0] for part in entry.parts()}), tuple(entry.splits)
        for split in entry.splits:
            id, title = f"{name}-{split}", f"{entry.title or name} {split}"
            source = "".join(f", {text}" for text in (entry.source, entry.licence) if text)
            BENCHMARKS[id] = Benchmark(id, name, split, title, own=True, source=source)


def load_own(folder: Path) -> dict[str, OwnDataset]:
    """Read config/own_datasets.yaml, which may be absent, and declare its data sets; HodorError names every fault."""
    path, name = folder / FILE, f"{folder.name}/{FILE}"
    entries = validate(OwnDatasets, read_yaml(path, name), name).datasets if path.is_file() else {}
    declare(entries)
    return entries
