"""A mirror of the edition `subset` in one file of at most 60 MiB, for a machine without network (subset_ablation.py).

    bundle.json                              what was changed, and the sha256 of every archive that it was made from
    coco/..., coco-persons-small/...         images of at most twice a clip's pixels, annotations scaled with them
    davis/DAVIS-2017-*-480p.zip              val: frames of full size, compressed harder, and the truth as it was;
                                             train and test-dev, which nothing scores: at a short side of 240

The file is a tar; unpacked it is a mirror. The same archives give the same bytes with the same version of OpenCV.
"""

import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from hodor.config.datasets import ARCHIVES
from hodor.data.images import encode_labels
from hodor.errors import HodorError
from hodor.provenance import json_text, sha256_file

LIMIT_MIB = 60
# Twice the 40,960 pixels of a clip of the scale: a clip is cut from a larger picture, as it is from the archives.
IMAGE_PIXELS = 81920
IMAGE_QUALITY = 82
VAL_QUALITY = 80
# 1.25 times the short side of the scale's clips from videos.
OTHER_SIDE = 240
OTHER_QUALITY = 80
RECORD = "bundle.json"
ABOUT = (
    f"Packed by benchmarks/subset_bundle.py: images of at most {IMAGE_PIXELS:,} pixels (JPEG {IMAGE_QUALITY}), frames "
    f"of val in full size (JPEG {VAL_QUALITY}) with their own truth, other videos at short side "
    f"{OTHER_SIDE}; scores differ a little from those on the archives."
)


def write(mirror: Path, out: Path) -> None:
    """Packs the archives of a mirror.

    Args:
        mirror: folder with <data set>/<archive> of coco, coco-persons-small and davis.
        out: the tar.

    Raises:
        HodorError: an archive is missing or damaged, or the bundle would be larger than LIMIT_MIB.
    """
    converters = {"coco": _coco, "coco-persons-small": _coco, "davis": _davis}
    archives = {f"{dataset}/{name}": dataset for dataset in converters for name in ARCHIVES[dataset]}
    if missing := [name for name in archives if not (mirror / name).is_file()]:
        raise HodorError(f"{mirror / missing[0]}: no such file; a mirror of the edition `subset` has it")
    record = {"about": ABOUT, "made_from": {name: sha256_file(mirror / name) for name in archives}}
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder)
        for name, dataset in archives.items():
            (packed / dataset).mkdir(exist_ok=True)
            try:
                converters[dataset](mirror / name, packed / name)
            except (zipfile.BadZipFile, KeyError, ValueError, cv2.error) as error:
                raise HodorError(f"{mirror / name}: not an archive of this data set ({error})") from error
        (packed / RECORD).write_text(json_text(record))
        size = sum((packed / name).stat().st_size for name in archives) / 2**20
        if size > LIMIT_MIB - 1:  # the tar's own blocks
            raise HodorError(
                f"the bundle would have {size:.1f} MiB, more than {LIMIT_MIB}: lower the qualities or sizes"
            )
        part = out.with_name(f".{out.name}.part")
        with tarfile.open(part, "w") as tar:
            for name in (RECORD, *archives):
                entry = tarfile.TarInfo(name)  # no date, no owner
                entry.size = (packed / name).stat().st_size
                with (packed / name).open("rb") as file:
                    tar.addfile(entry, file)
        part.replace(out)
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, sha256 {sha256_file(out)}")


def unpack(bundle: Path, folder: Path) -> Path:
    """The mirror in a bundle, unpacked into a folder unless it is there; HodorError where it is no bundle."""
    digest = sha256_file(bundle)
    out = folder / f"bundle-{digest[:16]}"
    if not (out / RECORD).is_file():
        try:
            with tarfile.open(bundle) as tar:
                # The record says that all is there: it comes last.
                members = sorted(tar.getmembers(), key=lambda member: member.name == RECORD)
                tar.extractall(out, members, filter="data")
        except (tarfile.TarError, OSError) as error:
            raise HodorError(f"{bundle}: not a bundle ({error}); make it with --bundle") from error
    if not (out / RECORD).is_file():
        raise HodorError(f"{bundle}: not a bundle, it has no {RECORD}; make it with --bundle")
    return out


def about(mirror: Path) -> str:
    """What must be said of results from this mirror; empty for the archives themselves."""
    record = mirror / RECORD
    return json.loads(record.read_text())["about"] if record.is_file() else ""


def _coco(source: Path, target: Path) -> None:
    """Images, or annotations scaled by the same rule."""

    def convert(name: str, content: bytes) -> bytes:
        if name.endswith(".json"):
            return _annotations(json.loads(content))
        image = _decode(content)
        size = _image_size(*image.shape[:2])
        smaller = _jpeg(_shrunk(image, size), IMAGE_QUALITY)
        # One that has the size already is compressed again only where that makes it smaller.
        return content if size == image.shape[:2] and len(content) <= len(smaller) else smaller

    _convert(source, target, convert)


def _annotations(content: dict) -> bytes:
    scales = {}
    for image in content["images"]:
        old = image["height"], image["width"]
        image["height"], image["width"] = _image_size(*old)
        scales[image["id"]] = old, (image["height"], image["width"])
    for entry in content["annotations"]:
        (height, width), new = scales[entry["image_id"]]
        down, across = new[0] / height, new[1] / width
        entry["area"] = round(entry["area"] * down * across, 4)
        entry["bbox"] = [round(side * (across, down)[i % 2], 3) for i, side in enumerate(entry["bbox"])]
        if isinstance(entry["segmentation"], dict):
            entry["segmentation"] = _runs(entry["segmentation"], (height, width), new)
        else:
            entry["segmentation"] = [
                [round(value * (across, down)[i % 2], 3) for i, value in enumerate(polygon)]
                for polygon in entry["segmentation"]
            ]
    return json.dumps(content, separators=(",", ":")).encode()


def _runs(runs: dict, old: tuple[int, int], new: tuple[int, int]) -> dict:
    """The mask of a crowd at another size, as COCO's compressed run lengths."""
    if isinstance(runs["counts"], list):
        runs = coco_mask.frPyObjects(runs, *old)
    mask = cv2.resize(coco_mask.decode(runs), new[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(new), "counts": encoded["counts"].decode()}


def _davis(source: Path, target: Path) -> None:
    """Frames, truth and lists."""
    with zipfile.ZipFile(source) as archive:
        lists = [name for name in archive.namelist() if name.endswith("/val.txt")]
        scored = {line for name in lists for line in archive.read(name).decode().split()}

    def convert(name: str, content: bytes) -> bytes:
        path = Path(name)
        if path.suffix not in (".jpg", ".png"):
            return content
        whole = path.parent.name in scored
        if path.suffix == ".png":
            return content if whole else _small_mask(content)
        image = _decode(content)
        size = image.shape[:2] if whole else _video_size(*image.shape[:2])
        return _jpeg(_shrunk(image, size), VAL_QUALITY if whole else OTHER_QUALITY)

    _convert(source, target, convert)


def _small_mask(content: bytes) -> bytes:
    labels = np.array(Image.open(io.BytesIO(content)))
    size = _video_size(*labels.shape)
    return encode_labels(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))


def _convert(source: Path, target: Path, convert: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as out:
        for name, content in _files(archive):
            packed = zipfile.ZIP_STORED if name.endswith((".jpg", ".png")) else zipfile.ZIP_DEFLATED
            # An entry made from a name alone has no date of today.
            out.writestr(zipfile.ZipInfo(name), convert(name, content), packed, 9)


def _files(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    for entry in archive.infolist():
        if not entry.is_dir():
            yield entry.filename, archive.read(entry)


def _image_size(height: int, width: int) -> tuple[int, int]:
    return _scaled(height, width, (IMAGE_PIXELS / (height * width)) ** 0.5)


def _video_size(height: int, width: int) -> tuple[int, int]:
    return _scaled(height, width, OTHER_SIDE / min(height, width))


def _scaled(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width after scaling, but never larger."""
    return (height, width) if scale >= 1 else (max(1, round(height * scale)), max(1, round(width * scale)))


def _shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _decode(content: bytes) -> np.ndarray:
    # As the readers of hodor.data do: a turn that a camera noted is not applied, for no annotation follows it.
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("a picture cannot be decoded")
    return image


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    return cv2.imencode(".jpg", image, flags)[1].tobytes()
