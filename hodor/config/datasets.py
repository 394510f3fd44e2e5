"""Sources of the archives of each data set: the table `config/datasets.csv`, and options of the generated data.

The table has one row per archive and edition. `official` archives have an address (with a log-in for YouTube-VOS) and,
if known, size and checksums. Archives of the edition `subset` have no address, because the user has them and sets
`mirror`. `generated` archives are not in the table.
"""

import csv
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from hodor.config.benchmarks import HOLDOUT, REST
from hodor.config.validation import Strict, known_in, validate
from hodor.errors import HodorError

EDITIONS = ("generated", "subset", "official")


class StillImages(NamedTuple):
    """A further data set of still images with masks.

    module: has a function `load(root, split)` that returns a list of `hodor.data.readers.StillImage`. archives: names in
    every edition. splits: `prepare` checks all of them. instances: whether masks distinguish several objects.
    """

    module: str
    archives: tuple[str, ...]
    splits: tuple[str, ...]
    instances: bool = False


STILL_IMAGES: dict[str, StillImages] = {}
"""Data set -> its entry; docs/extending.md shows how to add one."""

ARCHIVES = {
    "coco": ("train2017.zip", "val2017.zip", "annotations_trainval2017.zip"),
    "coco-persons-small": ("val2017.zip", "annotations_trainval2017.zip"),
    "davis": ("DAVIS-2017-trainval-480p.zip", "DAVIS-2017-test-dev-480p.zip"),
    "davis2016": ("DAVIS-data.zip",),
    "youtube-vos": ("train.zip", "valid.zip"),
    "youtube-vos-2018": ("valid.zip",),
    "ecssd": ("images.zip", "ground_truth_mask.zip"),
    "msra10k": ("MSRA10K_Imgs_GT.zip",),
    "voc2012": ("VOCtrainval_11-May-2012.tar",),
    "sbd": ("benchmark.tgz",),
    "stcn-static": ("static_data.zip",),
}
"""Archives of a data set in every edition. `youtube-vos` is the 2019 version, `youtube-vos-2018` only its valid videos."""

WEIGHT_SETS = {
    "swin-tiny-mask-rcnn-3x": {"mask_rcnn_swin_tiny_patch4_window7.pth": "swin"},
    "swin-tiny-imagenet": {"swin_tiny_patch4_window7_224.pth": "swin"},
    "resnet-imagenet": {"resnet50-0676ba61.pth": "resnet50", "resnet18-f37072fd.pth": "resnet18"},
}
"""Published starting weights, which a scale lists, fetches and prepares like a data set: archive -> name of the prepared
file, without its ending. They exist in no generated edition."""

ARCHIVES |= {name: tuple(files) for name, files in WEIGHT_SETS.items()}
ARCHIVES |= {name: entry.archives for name, entry in STILL_IMAGES.items()}

SPLITS: dict[str, tuple[str, ...]] = {
    "coco": ("train2017", "val2017"),
    "coco-persons-small": ("val2017",),
    "davis": ("train", "val", "test-dev"),
    "davis2016": ("train", "val"),
    "youtube-vos": ("train", "valid", HOLDOUT, REST),
    "youtube-vos-2018": ("valid",),
    "ecssd": ("all",),
    "msra10k": ("all",),
    "voc2012": ("train", "val", "trainval"),
    "sbd": ("train", "val"),
    "stcn-static": ("fss", "DUTS-TR", "DUTS-TE", "ecssd", "BIG_small", "HRSOD_small"),
    **{name: entry.splits for name, entry in STILL_IMAGES.items()},
}
"""Data set -> splits of its reader."""

RELEASED = {
    "hodor-released": ("static_image.pth", "video_sparse.pth", "video_dense.pth"),
    "stcn-released": ("stcn_s0.pth",),
    "stm-released": ("STM_weights.pth",),
}
"""The authors' checkpoints, which are scored beside ours. No step trains from them, and no scale lists them."""

UNREAD = {
    "youtube-vos-2018-train": ("train.zip",),
    "youtube-vos-all-frames": ("train_all_frames.zip", "valid_all_frames.zip"),
    "youtube-vos-2018-all-frames": ("valid_all_frames.zip",),
    "duts": ("DUTS-TR.zip", "DUTS-TE.zip"),
    "fss-1000": ("fewshot_data.zip",),
    "hrsod": ("HRSOD.zip",),
    "big": ("BIG.zip",),
}
"""Sources that no step reads: those of `stcn-static`, and other versions of YouTube-VOS. `hodor fetch` downloads them."""

SOURCES = ARCHIVES | RELEASED | UNREAD
"""Every data set of the table and its archives."""

RECORD = "archives.json"
"""Name of the file that lists the archives beside it, the output of `fetch`."""

FOLDERS = {
    "coco": ("train2017", "val2017", "annotations"),
    "coco-persons-small": ("val2017", "annotations"),
    "davis": ("DAVIS",),
    "davis2016": ("DAVIS",),
    "youtube-vos": ("train", "valid", "valid_truth"),
    "youtube-vos-2018": ("valid", "valid_truth"),
    "ecssd": ("images", "ground_truth_mask"),
    "msra10k": ("MSRA10K_Imgs_GT",),
    "voc2012": ("VOCdevkit",),
    "sbd": ("benchmark_RELEASE",),
    "stcn-static": ("fss", "DUTS-TR", "DUTS-TE", "BIG_small", "HRSOD_small"),
}
"""Top-level folders in the archives of a data set."""


@dataclass(frozen=True)
class Source:
    """One archive of one edition: a row of the table.

    Attributes:
        dataset, edition, archive: ids and file name.
        address: http(s) address, of a member of a zip with `#` and a pattern of the end of its path (of several members the
            last counts); with `log_in` that of the download page; None if only a mirror has the archive.
        size: bytes, or None.
        sha256, md5: hexadecimal, or None.
        log_in: whether the download needs a log-in or a browser.
        terms: address of the terms of use, or "".
        note: advice for the download, or "".
        version, licence, citation: documentation.
    """

    dataset: known_in(SOURCES)
    edition: str
    archive: str
    address: Annotated[str, Field(pattern="^https?://")] | None = None
    size: Annotated[int, Field(ge=0)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    log_in: bool = False
    terms: str = ""
    note: str = ""
    version: str = ""
    licence: str = ""
    citation: str = ""


COLUMNS = "dataset,edition,version,archive,address,size_bytes,sha256,md5,licence,terms,log_in,note,citation"


def read_table(path: str | Path) -> list[Source]:
    """Read and check `config/datasets.csv`; HodorError names the wrong line."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if ",".join(reader.fieldnames or ()) != COLUMNS:
                raise HodorError(f"{path}: the columns must be {COLUMNS}")
            sources = [_row(f"{path}, line {reader.line_num}", row) for row in reader]
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; it lists the sources of the data sets") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HodorError(f"{path}: cannot be read as CSV ({error})") from error
    listed: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        names = listed.setdefault((source.dataset, source.edition), [])
        if source.archive in names:
            raise HodorError(f"{path}: {source.dataset} {source.edition} {source.archive} is listed twice; remove one")
        names.append(source.archive)
    for (dataset, edition), names in listed.items():
        if set(names) != set(SOURCES[dataset]):
            raise HodorError(f"{path}: {dataset} {edition} must list exactly {', '.join(SOURCES[dataset])}")
    return sources


def archives(path: str | Path, dataset: str, edition: str) -> list[dict]:
    """Return the list `settings["archives"]` of a fetch stamp, in the table's order; an empty list for generated data.

    Licence and citation are not part of it, because rewording them must not fetch anything again.
    """
    if edition == "generated":
        return []
    if edition == "own":  # `hodor.config.own_datasets`
        rows = [Source(dataset, edition, archive) for archive in ARCHIVES[dataset]]
    elif not (rows := [row for row in read_table(path) if row.dataset == dataset and row.edition == edition]):
        raise HodorError(f"{path}: no archive of data set {dataset!r} in edition {edition!r}; add its lines")
    keys = ("archive", "address", "size", "sha256", "md5", "log_in", "terms", "note")
    return [{key: getattr(row, key) for key in keys} for row in rows]


def from_settings(settings: dict) -> list[Source]:
    """Return the sources in the settings of a fetch stamp."""
    origin = {"dataset": settings["dataset"], "edition": settings["edition"]}
    if settings["edition"] == "generated":
        return [Source(**origin, archive=archive) for archive in SOURCES[settings["dataset"]]]
    return [Source(**entry, **origin) for entry in settings["archives"]]


def _row(where: str, row: dict[str, Any]) -> Source:
    if None in row or None in row.values():
        raise HodorError(f"{where}: {COLUMNS.count(',') + 1} cells are needed")
    source = validate(Source, {key.removesuffix("_bytes"): cell for key, cell in row.items() if cell}, where)
    if source.edition not in ("official", "subset"):
        raise HodorError(f"{where}: edition {source.edition!r} must be official or subset")
    if source.edition == "official" and not source.address:
        raise HodorError(f"{where}: an official archive needs an address")
    return source


_Count = Annotated[int, Field(ge=1, le=100_000)]
_Length = Annotated[int, Field(ge=2, le=1000)]
_Side = Annotated[int, Field(ge=48, le=2048)]
_Size = tuple[_Side, _Side]
_Sizes = Annotated[list[_Size], Field(min_length=1)]
_Objects = Annotated[int, Field(ge=1, le=8)]


class GeneratedOptions(Strict):
    """Sizes of the generated data sets; the defaults are those of scale mini."""

    seed: int = Field(0, ge=0, description="seed of all random numbers; the same seed gives the same bytes")
    coco_train: _Count = Field(500, description="images of COCO train2017")
    coco_val: _Count = Field(40, description="images of COCO val2017")
    davis_train: _Count = Field(12, description="sequences of DAVIS train (2017, 2016)")
    davis_val: _Count = Field(10, description="sequences of DAVIS val (2017, 2016)")
    davis_test_dev: _Count = Field(3, description="sequences of DAVIS-2017 test-dev")
    youtube_train: _Count = Field(48, description="videos of YouTube-VOS train")
    youtube_valid: _Count = Field(6, description="videos of YouTube-VOS valid")
    coco_sizes: _Sizes = Field(
        [(120, 160), (160, 120), (128, 160), (112, 168)], description="(height, width) of the images, used in turn"
    )
    davis_size: _Size = Field((120, 208), description="(height, width) of the DAVIS frames")
    youtube_sizes: _Sizes = Field(
        [(120, 208), (112, 176), (128, 160), (160, 112)],
        description="(height, width) of the YouTube-VOS videos, in turn",
    )
    davis_frames: _Length = Field(24, description="frames of a DAVIS sequence")
    youtube_frames: _Length = Field(12, description="stored frames of a YouTube-VOS video, 6 a second")
    objects: tuple[_Objects, _Objects] = Field((1, 3), description="fewest and most objects of a video")
    coco_objects: tuple[_Objects, _Objects] = Field((1, 4), description="fewest and most objects of an image")

    @model_validator(mode="after")
    def _ranges(self) -> "GeneratedOptions":
        for name in ("objects", "coco_objects"):
            fewest, most = getattr(self, name)
            if fewest > most:
                raise ValueError(f"`{name}` must be [fewest, most] with fewest <= most, not [{fewest}, {most}]")
        return self
