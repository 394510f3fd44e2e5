"""Damaged and hostile files of every kind that is read: a right result, or a HodorError of one line, in bounds."""

import functools
import hashlib
import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import save

from hodor.data.archives import find_damage
from hodor.data.coco import load_coco
from hodor.data.davis import load_davis, load_davis2016
from hodor.data.extract import extract_all
from hodor.data.images import DAVIS_PALETTE, read_labels, read_rgb, read_size
from hodor.inference.video_io import open_frames
from hodor.inference.weights import load_method
from hodor.models.base import build_method
from tests.data.datasets import SIZE, labels_with, write_davis, write_frame
from tests.fuzz.damage import EXTREMES, damaged, damaged_json, with_checksums
from tests.narrow import NARROW


def image(mode: str, ending: str, **options) -> bytes:
    """An image file of labels 0, 1 and 2, or of their colours."""
    picture = Image.fromarray(labels_with(1, 2))
    if mode == "P":
        picture.putpalette(DAVIS_PALETTE.tobytes())
    buffer = io.BytesIO()
    (picture if mode in "LP" else picture.convert(mode)).save(buffer, ending, **options)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
IMAGES = [
    image("P", "PNG"),
    image("P", "PNG", bits=2),
    image("L", "PNG"),
    image("LA", "PNG"),
    image("RGB", "PNG", exif=EXIF),
    image("RGB", "JPEG", exif=EXIF),
    image("RGB", "JPEG", progressive=True),
]


@given(st.sampled_from(IMAGES).flatmap(lambda content: damaged(content, early=True)), st.booleans())
def test_images(bounded, place, content, checksums):
    path = place / "image.png"
    path.write_bytes(with_checksums(content) if checksums and content[:4] == b"\x89PNG" else content)
    size = bounded(read_size, path)
    pixels, labels = bounded(read_rgb, path), bounded(read_labels, path)
    for found in (pixels, labels):
        assert found is None or (found.dtype == np.uint8 and found.shape[:2] == size)


def coco(root, segmentation) -> dict:
    """A COCO data set of one image in `root`; returns its JSON."""
    write_frame(root / "train2017" / "000000000001.jpg")
    polygon = [4, 4, 12, 4, 12, 12, 4, 12]
    common = {"image_id": 1, "category_id": 3, "area": 64.0, "bbox": [4, 4, 8, 8], "iscrowd": 0}
    (root / "annotations").mkdir(exist_ok=True)
    return {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "segmentation": [polygon], **common},
            {"id": 2, "segmentation": segmentation, **common},
        ],
    }


def open_coco(root, content: str) -> list[np.ndarray] | None:
    (root / "annotations" / "instances_train2017.json").write_text(content, encoding="utf-8", errors="surrogatepass")
    return [item.mask(found.height, found.width) for found in load_coco(root, "train2017") for item in found.objects]


RUNS = {"size": list(SIZE), "counts": [100, 60, SIZE[0] * SIZE[1] - 160]}


@given(st.data())
def test_coco_json(bounded, place, data):
    content = coco(place, RUNS)
    if data.draw(st.booleans()):
        text = json.dumps(data.draw(damaged_json(content)))
    else:
        text = data.draw(damaged(json.dumps(content).encode())).decode("latin-1")
    for mask in bounded(open_coco, place, text) or ():
        assert mask.dtype == bool and mask.shape == SIZE


def test_deeply_nested_json(bounded, place):
    coco(place, RUNS)
    assert bounded(open_coco, place, "[" * 200_000) is None


@given(st.data())
def test_run_lengths(bounded, place, data):
    plain = data.draw(st.booleans())
    if plain:
        counts = data.draw(st.lists(st.one_of(st.integers(-2, SIZE[0] * SIZE[1]), EXTREMES), max_size=4))
        if data.draw(st.booleans()) and all(type(run) is int for run in counts):
            counts.append(SIZE[0] * SIZE[1] - sum(counts))
    else:
        mask = np.asfortranarray(labels_with(*range(1, data.draw(st.integers(1, 6)))) > 0, np.uint8)
        text = coco_mask.encode(mask)["counts"]
        counts = data.draw(st.one_of(damaged(text), st.binary(max_size=12))).decode("latin-1")
    content = coco(place, {"size": list(SIZE), "counts": counts})
    masks = bounded(open_coco, place, json.dumps(content))
    if masks and plain:
        drawn = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(SIZE[::-1]).T
        assert (masks[1] == drawn).all()
    elif masks:  # every pixel is of a run, whatever was in the memory before
        again = coco_mask.decode(coco_mask.encode(np.asfortranarray(masks[1], np.uint8)))
        assert (again == masks[1]).all() and (open_coco(place, json.dumps(content))[1] == masks[1]).all()


NAMES = st.one_of(
    st.sampled_from(["one", "two", "", "..", "/", "one\0", "x" * 300, "\ufeffone", "one/../two"]), st.text(max_size=8)
)
LISTED = "/JPEGImages/480p/{0}/00000.jpg /Annotations/480p/{0}/00000.png"


@given(st.lists(NAMES, max_size=4), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]), st.booleans())
def test_lists_of_davis(bounded, place, names, encoding, year_2016):
    base = place / "davis" / "DAVIS"
    if not base.is_dir():
        write_davis(place / "davis", "val", dict.fromkeys(("one", "two"), [labels_with(1)]))
    path = base / "ImageSets" / ("480p" if year_2016 else "2017") / "val.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(map(LISTED.format, names) if year_2016 else names).encode(encoding, "replace"))
    videos = bounded(load_davis2016 if year_2016 else load_davis, place / "davis", "val")
    assert videos is None or {video.name for video in videos} <= {"one", "two"}


FILES = {"DAVIS/a.txt": b"abc" * 50, "DAVIS/b/c.txt": bytes(300)}


def packed(kind: str, names: dict[str, str] | None = None) -> bytes:
    """FILES in an archive, under other names where `names` gives them."""
    buffer, names = io.BytesIO(), names or {}
    if kind == ".zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in FILES.items():
                archive.writestr(names.get(name, name), content)
    else:
        mode = "w:gz" if kind == ".tar.gz" else "w"
        with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:
            for name, content in FILES.items():
                entry = tarfile.TarInfo(names.get(name, name))
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@given(st.data(), st.sampled_from([".zip", ".tar", ".tar.gz"]))
def test_archives(bounded, place, data, kind):
    if data.draw(st.integers(0, 3)):
        content = data.draw(damaged(packed(kind), early=kind == ".tar"))
    else:
        unsafe = st.sampled_from(["../a", "/a", "a\\b", "a/../../b", "C:a", "a" * 300])
        name = data.draw(st.one_of(st.text(max_size=20).map("a".__add__), unsafe))
        content = packed(kind, {"DAVIS/a.txt": name.encode("utf-8", "replace").decode()})
    path, out = place / f"archive{kind}", place / "archives" / "out"
    path.write_bytes(content)
    shutil.rmtree(out.parent, ignore_errors=True)
    bounded(find_damage, path, path.name)
    digests = bounded(extract_all, [path], out)
    if digests is None:
        return
    files = {found.relative_to(out).as_posix(): found for found in out.parent.rglob("*") if found.is_file()}
    assert set(files) == set(digests)
    for name, file in files.items():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digests[name]
        if kind != ".tar":  # a tar has no checksums
            assert file.read_bytes() in FILES.values()


@pytest.fixture(scope="session")
def network() -> tuple[dict[str, torch.Tensor], dict]:
    """Weights and metadata of a narrow HODOR."""
    method = build_method("hodor", NARROW)
    return method.state_dict(), {"method": "hodor", "options": method.options.model_dump(mode="json")}


def as_safetensors(weights: dict, record) -> bytes:
    return save({name: value.clone() for name, value in weights.items()}, {"model": json.dumps(record)})


@given(data=st.data())
@settings(max_examples=max(10, settings().max_examples // 2))
def test_models(bounded, place, network, data):
    weights, record = network
    if data.draw(st.booleans()):
        content = data.draw(damaged(as_safetensors(weights, record), early=True))
    else:
        content = as_safetensors(weights, data.draw(damaged_json(record)))
    path = place / "model.safetensors"
    path.write_bytes(content)
    found = bounded(load_method, path)
    assert found is None or all(torch.isfinite(value).all() for value in found[1].state_dict().values())


@given(data=st.data(), legacy=st.booleans())
def test_checkpoints(bounded, place, network, data, legacy):
    buffer = io.BytesIO()
    entries = dict(list(network[0].items())[:4]) | {"_encoder.weight": torch.zeros(2)}
    torch.save({"model": entries}, buffer, _use_new_zipfile_serialization=not legacy)
    path = place / "model.pth"
    path.write_bytes(data.draw(damaged(buffer.getvalue(), early=legacy)))
    bounded(load_method, path)


@pytest.fixture(scope="session")
def video(place):
    """Ending and content of a short video, by its number from 0 to 2; a function, so that a failure does not show them all."""
    av = pytest.importorskip("av")

    @functools.cache
    def make(number: int) -> tuple[str, bytes]:
        ending = ("mp4", "mkv", "avi")[number]
        path = place / f"whole.{ending}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=12)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for t in range(6):
                pixels = np.full((32, 48, 3), 30 * t, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return ending, path.read_bytes()

    return make


def play(path) -> list[tuple[int, ...]]:
    source = open_frames(path)
    return [(*frame.shape, *source.size) for _, (_, frame) in zip(range(100), source.frames(), strict=False)]


@given(data=st.data())
def test_videos(bounded, place, video, data):
    ending, content = video(data.draw(st.integers(0, 2)))
    path = place / f"video.{ending}"
    path.write_bytes(data.draw(damaged(content, early=True)))
    for height, width, channels, *size in bounded(play, path) or ():
        assert [height, width] == size and channels == 3
