"""Where the archives of each data set come from: the table `config/datasets.csv` and its slice in a stamp.

The table has one row per archive and edition. `official` archives have an address (with a log-in for YouTube-VOS) and,
where known, size and checksums. A `subset` has no address: the user has it and names a mirror. `generated` archives
are in no table. Light on imports, because the workflow reads the table at every start.
"""

import csv
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hodor.errors import HodorError

EDITIONS = ("generated", "subset", "official")


class StillImages(NamedTuple):
    """A further data set of still images with masks.

    module: whose `load(root, split)` returns its `hodor.data.readers.StillImage`s. archives: in every edition.
    splits: all of them are checked by `prepare`. instances: whether an image holds several distinguished objects.
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
"""Archives of a data set in every edition. `youtube-vos` is the 2019 version, which rows train on; of 2018 there are
the videos of valid (benchmark ytvos2018-val)."""

WEIGHT_SETS = {
    "swin-tiny-mask-rcnn-3x": {"mask_rcnn_swin_tiny_patch4_window7.pth": "swin"},
    "swin-tiny-imagenet": {"swin_tiny_patch4_window7_224.pth": "swin"},
    "resnet-imagenet": {"resnet50-0676ba61.pth": "resnet50", "resnet18-f37072fd.pth": "resnet18"},
}
"""Starting weights from elsewhere, which a scale lists, fetches and prepares like a data set: archive -> the name of the
file that it becomes, without its ending. They exist in no generated edition."""

ARCHIVES |= {name: tuple(files) for name, files in WEIGHT_SETS.items()}
ARCHIVES |= {name: entry.archives for name, entry in STILL_IMAGES.items()}

RELEASED = {
    "hodor-released": ("static_image.pth", "video_sparse.pth", "video_dense.pth"),
    "stcn-released": ("stcn_s0.pth",),
    "stm-released": ("STM_weights.pth",),
}
"""The authors' checkpoints, to be scored beside ours: no step trains from them, and no scale lists them."""

UNREAD = {
    "youtube-vos-2018-train": ("train.zip",),
    "youtube-vos-all-frames": ("train_all_frames.zip", "valid_all_frames.zip"),
    "youtube-vos-2018-all-frames": ("valid_all_frames.zip",),
    "duts": ("DUTS-TR.zip", "DUTS-TE.zip"),
    "fss-1000": ("fewshot_data.zip",),
    "hrsod": ("HRSOD.zip",),
    "big": ("BIG.zip",),
}
"""Sources that no step reads: what `stcn-static` was made from, and other versions of YouTube-VOS. They are in the table
for their terms and citations, and `hodor fetch` brings them."""

SOURCES = ARCHIVES | RELEASED | UNREAD
"""Every data set of the table and its archives."""

RECORD = "archives.json"
"""Name of the file beside the archives that lists them: the declared result of `fetch`."""

COLUMNS = (
    "dataset",
    "edition",
    "version",
    "archive",
    "address",
    "size_bytes",
    "sha256",
    "md5",
    "licence",
    "terms",
    "log_in",
    "note",
    "citation",
)


@dataclass(frozen=True)
class Source:
    """One archive of one edition.

    Attributes:
        dataset, edition, archive: what it is; `archive` is a file name.
        address: http(s) address, with `log_in` the page that leads to it; None where only a mirror has it.
        size: bytes, sha256 and md5: hexadecimal; None where unknown.
        log_in: whether a person must log in, or use a browser, to download it.
        terms: address of the terms of use or "".
        note: what a person who downloads it must know, or "".
        version, licence, citation: for people.
    """

    dataset: str
    edition: str
    archive: str
    address: str | None = None
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    log_in: bool = False
    terms: str = ""
    note: str = ""
    version: str = ""
    licence: str = ""
    citation: str = ""


def read_table(path: str | Path) -> list[Source]:
    """Reads and checks `config/datasets.csv`; HodorError names the line that is wrong."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise HodorError(f"{path}: the columns must be {','.join(COLUMNS)}")
            sources = [_row(path, reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise HodorError(f"{path}: no such file; it lists the sources of the data sets") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HodorError(f"{path}: cannot be read as CSV ({error})") from error
    keys = [(source.dataset, source.edition, source.archive) for source in sources]
    for key in keys:
        if keys.count(key) > 1:
            raise HodorError(f"{path}: {' '.join(key)} is listed twice; remove one line")
    for dataset, edition in sorted({key[:2] for key in keys}):
        listed = {key[2] for key in keys if key[:2] == (dataset, edition)}
        if listed != set(SOURCES[dataset]):
            raise HodorError(f"{path}: {dataset} {edition} must list exactly {', '.join(SOURCES[dataset])}")
    return sources


def archives(path: str | Path, dataset: str, edition: str) -> list[dict]:
    """The list for `settings["archives"]` of a fetch stamp, in the table's order; empty for generated data.

    Licence and citation are left out: another wording must not fetch anything again.
    """
    if edition == "generated":
        return []
    rows = [row for row in read_table(path) if row.dataset == dataset and row.edition == edition]
    if not rows:
        raise HodorError(f"{path}: no archive of data set {dataset!r} in edition {edition!r}; add its lines")
    keys = ("archive", "address", "size", "sha256", "md5", "log_in", "terms", "note")
    return [{key: getattr(row, key) for key in keys} for row in rows]


def from_settings(settings: dict) -> list[Source]:
    """The sources in the settings of a fetch stamp; HodorError where the stamp is incomplete."""
    dataset, edition = settings.get("dataset"), settings.get("edition")
    if dataset not in SOURCES or edition not in EDITIONS:
        raise HodorError(
            f"stamp: data set {dataset!r} in edition {edition!r} is unknown; there are {', '.join(SOURCES)} in "
            f"editions {', '.join(EDITIONS)}"
        )
    if edition == "generated":
        return [Source(dataset, edition, archive) for archive in SOURCES[dataset]]
    known = {field.name for field in dataclasses.fields(Source)} - {"dataset", "edition"}
    sources = []
    for entry in settings.get("archives") or []:
        values = {key: value for key, value in entry.items() if key in known and value not in ("", None)}
        if "archive" not in values:
            raise HodorError(f"stamp: an archive of {dataset} has no name")
        sources.append(Source(dataset, edition, **values))
    missing = sorted(set(SOURCES[dataset]) - {source.archive for source in sources})
    if missing:
        raise HodorError(f"stamp: {dataset} needs {missing[0]}, which the stamp does not list; run the workflow again")
    return sources


def _row(path: Path, line: int, row: dict[str, str]) -> Source:
    def fail(what: str) -> HodorError:
        return HodorError(f"{path}, line {line}: {what}")

    if None in row or None in row.values():
        raise fail(f"{len(COLUMNS)} cells are needed")
    if row["dataset"] not in SOURCES:
        raise fail(f"unknown data set {row['dataset']!r}; there are {', '.join(SOURCES)}")
    if row["edition"] not in ("official", "subset"):
        raise fail(f"edition {row['edition']!r} must be official or subset")
    if row["address"] and not row["address"].startswith(("http://", "https://")):
        raise fail("address must start with http:// or https://")
    if row["edition"] == "official" and not row["address"]:
        raise fail("an official archive needs an address")
    if row["size_bytes"] and not row["size_bytes"].isdecimal():
        raise fail("size_bytes must be a whole number or empty")
    for name, digits in (("sha256", 64), ("md5", 32)):
        if row[name] and not re.fullmatch(f"[0-9a-f]{{{digits}}}", row[name]):
            raise fail(f"{name} must be {digits} hexadecimal digits in lower case or empty")
    if row["log_in"] not in ("yes", "no"):
        raise fail("log_in must be yes or no")
    return Source(
        dataset=row["dataset"],
        edition=row["edition"],
        archive=row["archive"],
        address=row["address"] or None,
        size=int(row["size_bytes"]) if row["size_bytes"] else None,
        sha256=row["sha256"] or None,
        md5=row["md5"] or None,
        log_in=row["log_in"] == "yes",
        terms=row["terms"],
        note=row["note"],
        version=row["version"],
        licence=row["licence"],
        citation=row["citation"],
    )
