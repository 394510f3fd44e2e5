"""Frames and label maps are decoded completely and with plausible ids, or refused with the file's name."""

import io

import numpy as np
import pytest
from PIL import Image

from hodor.data import images, transforms
from hodor.data.images import DAVIS_PALETTE, VOID, encode_labels, read_labels, read_rgb, read_size, write_labels
from tests.refused import refused


def smooth(height=60, width=90) -> np.ndarray:
    """A picture that JPEG keeps well: a different slope in each channel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2, y * 3, 200 - x - y], axis=-1).astype(np.uint8)


def encoded(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
LABELS = np.random.default_rng(0).integers(0, 4, (50, 70)).astype(np.uint8)


@pytest.mark.parametrize("pixels, error", [(smooth(), 6), (smooth()[..., 0], 3)], ids=["colour", "grey"])
def test_jpegs_become_rgb(tmp_path, pixels, error):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(pixels, format="JPEG", quality=98, subsampling=0))
    found = read_rgb(path, size=(60, 90))
    wanted = pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, -1)
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - wanted).max() <= error
    found[0, 0] = 0  # writable: augmentation works in place


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_frames_and_masks_alike(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1)}
    turn |= {6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}
    frame, mask = tmp_path / "a.jpg", tmp_path / "a.png"
    frame.write_bytes(encoded(smooth(), format="JPEG", quality=98, subsampling=0, exif=exif))
    Image.open(io.BytesIO(encode_labels(LABELS))).save(mask, exif=exif)
    upright = turn[orientation](smooth())
    assert np.abs(read_rgb(frame).astype(int) - upright).max() <= 6 and read_size(frame) == upright.shape[:2]
    assert np.array_equal(read_labels(mask), turn[orientation](LABELS)) and read_size(mask) == read_labels(mask).shape
    # COCO's annotations refer to the stored pixels.
    assert read_rgb(frame, upright=False).shape == (60, 90, 3) and read_size(frame, upright=False) == (60, 90)


WHOLE = {
    "baseline": (encoded(NOISE, format="JPEG"), read_rgb),
    "progressive": (encoded(NOISE, format="JPEG", progressive=True), read_rgb),
    "mask": (encode_labels(LABELS), read_labels),
}


# Lost there: everything, the header's end, half of the pixels, the last rows, the end marker.
@pytest.mark.parametrize("kept", [0, 1, 20, 100, 0.5, 0.99, -40, -13, -12, -4, -2, -1])
@pytest.mark.parametrize("whole, read", WHOLE.values(), ids=WHOLE)
def test_truncated_files_are_refused(tmp_path, kept, whole, read):
    path = tmp_path / "cut"
    path.write_bytes(whole)
    read(path)
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    refused("cut: ", read, path)


def test_truncation_that_decoders_miss_is_refused(tmp_path):
    """Lost bytes became zeros (a full disk), or the end marker of a thumbnail hides that the image has none."""
    path, whole = tmp_path / "a.jpg", encoded(NOISE, format="JPEG")
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    refused(r"a\.jpg: truncated JPEG", read_rgb, path)
    thumbnail = b"Exif\0\0" + encoded(smooth(8, 8), format="JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path.write_bytes(whole[:2] + segment + whole[2:])
    read_rgb(path)
    path.write_bytes(whole[:2] + segment + whole[2:-2])
    refused("a.jpg", read_rgb, path)


def test_flipped_bit_in_a_mask_is_refused(tmp_path):
    whole, path = encode_labels(LABELS), tmp_path / "flipped.png"
    # The palette, the pixels, the checksum behind them (which decoders skip), the end chunk's checksum.
    for place in (50, len(whole) // 2 + 400, len(whole) - 30, len(whole) - 13, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(broken)
        refused("flipped.png", read_labels, path)


# Writing


def test_labels_survive_writing(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "new folder" / "a.png"
    write_labels(path, labels)
    assert (read_labels(path, size=(16, 16)) == labels).all(), "void 255 and every id must come back"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


def test_written_mask_is_an_eight_bit_palette_png_with_davis_colours():
    content = encode_labels(LABELS)
    assert content[24] == 8 and content[25] == 3 and encode_labels(LABELS) == content
    image = Image.open(io.BytesIO(content))
    assert image.mode == "P" and image.getpalette() == DAVIS_PALETTE.ravel().tolist()
    assert DAVIS_PALETTE[[0, 1, 2, 22, 255]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0]),
        *([0, 192, 128], [224, 224, 192]),
    ]


def test_killed_writer_leaves_the_old_mask(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_labels(path, np.zeros((4, 4), np.uint8))
    monkeypatch.setattr(images.Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_labels(path, np.ones((4, 4), np.uint8))
    assert not read_labels(path).any() and len(list(tmp_path.iterdir())) == 1


# What a mask means


def save(path, labels: np.ndarray, kind: str, bits: int, palette: np.ndarray = DAVIS_PALETTE) -> None:
    """Write a grey or palette PNG of 1, 2, 4 or 8 bits, which Pillow does not do for grey."""
    import struct
    import zlib

    weights = 2 ** np.arange(bits)[::-1]
    rows = np.packbits(((labels[..., None] & weights) > 0).reshape(len(labels), -1), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *labels.shape[::-1], bits, {"grey": 0, "palette": 3}[kind], 0, 0, 0))]
    if kind == "palette":
        chunks.append((b"PLTE", palette[: 2**bits].tobytes()))
    chunks += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("kind", ["grey", "palette"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_are_as_stored_at_every_depth(tmp_path, kind, bits):
    labels = np.repeat(np.repeat(np.arange(min(2**bits, 12), dtype=np.uint8)[None], 6, 1), 6, 0)
    save(tmp_path / "a.png", labels, kind, bits)
    assert np.array_equal(read_labels(tmp_path / "a.png"), labels)


def test_an_opaque_alpha_channel_is_ignored_and_another_is_not(tmp_path):
    """The official DAVIS-2016 archive holds one such mask."""
    grey = np.where(LABELS > 1, 255, 0).astype(np.uint8)
    for alpha in (np.full_like(grey, 255), grey):
        Image.fromarray(np.stack([grey, alpha], -1), "LA").save(tmp_path / "a.png")
        if alpha is grey:
            refused("a LA image", read_labels, tmp_path / "a.png")
        else:
            assert np.array_equal(read_labels(tmp_path / "a.png"), grey)


TURNED = DAVIS_PALETTE[[0, 2, 1, *range(3, 256)]]
WHITE_VOID = np.concatenate([TURNED[:VOID], [[255] * 3]]).astype(np.uint8)
OTHER = np.concatenate([[[0] * 3], np.random.default_rng(0).integers(1, 60, (255, 3))]).astype(np.uint8)


@pytest.mark.parametrize(
    "ids, palette, message",
    [
        ((0, 1), DAVIS_PALETTE[[1, 0]], r"index 0 is the background, but its colour \(128, 0, 0\)"),
        ((0, 1, 2), TURNED, "index 1 has the DAVIS colour of label 2"),
        ((0, 1, 2, VOID), WHITE_VOID, "index 1 has the DAVIS colour of label 2"),
        ((1, 2), np.array([[9, 9, 9], [0, 0, 0], [3, 200, 100]], np.uint8), "index 1 is black"),
        # Colours of another map say nothing about the indices: YouTube-VOS has its own; 128 is the grey of label 7.
        ((0, 1, 2, VOID), OTHER, None),
        ((128, 2), np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1), None),
    ],
)
def test_a_palette_that_contradicts_the_indices_is_refused(tmp_path, ids, palette, message):
    labels = np.array([ids], np.uint8).repeat(6, 1).repeat(6, 0)
    save(tmp_path / "a.png", labels, "palette", 8, palette)
    if message:
        refused(rf"a\.png: {message}", read_labels, tmp_path / "a.png")
    else:
        assert np.array_equal(read_labels(tmp_path / "a.png"), labels)


@pytest.mark.parametrize("side", [8193, 16000])  # Pillow refuses the second by itself
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, side):
    Image.fromarray(np.zeros((side, side), bool)).save(tmp_path / "a.png")
    for read in (read_size, read_labels, read_rgb):
        refused(r"a\.png: .*pixels, more than the 67,108,864", read, tmp_path / "a.png")


@pytest.mark.parametrize("smoothing", [2, 4, 16])
@pytest.mark.parametrize("form", ["L", "P"])
def test_an_anti_aliased_mask_is_refused(tmp_path, smoothing, form):
    y, x = np.mgrid[: 60 * smoothing, : 60 * smoothing] / smoothing
    disk = (np.hypot(y - 30, x - 28) < 17.3) * 255
    soft = disk.reshape(60, smoothing, 60, smoothing).mean((1, 3)).astype(np.uint8)
    Image.fromarray(soft).convert(form).save(tmp_path / "soft.png")
    refused(r"soft\.png: .*anti-aliased.*threshold", read_labels, tmp_path / "soft.png")
    if smoothing == 16:  # enlarged, so that each of many levels fills blocks
        Image.fromarray(soft.repeat(2, 0).repeat(2, 1)).convert(form).save(tmp_path / "wide.png")
        refused(r"wide\.png: .*anti-aliased", read_labels, tmp_path / "wide.png")
    Image.fromarray(np.where(soft > 127, 255, 0).astype(np.uint8)).convert(form).save(tmp_path / "hard.png")
    assert set(np.unique(read_labels(tmp_path / "hard.png"))) == {0, 255}


def test_grey_ids_with_void_are_no_anti_aliasing_and_a_faint_edge_is(tmp_path):
    labels = np.zeros((40, 60), np.uint8)
    for i in range(1, 6):
        labels[5:15, 10 * i : 10 * i + 6] = i
    labels[4, 9:], labels[0, 0] = 255, 6
    Image.fromarray(labels).save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png"), labels)
    labels[:] = 0
    labels[8:32, 8:32], labels[8, 8:17] = 200, range(100, 190, 10)
    Image.fromarray(labels).save(tmp_path / "a.png")
    refused("9 grey levels between 0 and 200", read_labels, tmp_path / "a.png")


def test_colours_and_jpegs_are_no_masks(tmp_path):
    Image.open(io.BytesIO(encode_labels(LABELS))).convert("RGB").save(tmp_path / "rgb.png")
    refused(r"rgb\.png: a RGB image where a palette PNG is needed", read_labels, tmp_path / "rgb.png")
    (tmp_path / "lossy.png").write_bytes(encoded(LABELS, format="JPEG"))
    refused("lossy.png", read_labels, tmp_path / "lossy.png")


def test_wrong_sizes_and_missing_files_are_named(tmp_path):
    write_labels(tmp_path / "a.png", np.zeros((4, 6), np.uint8))
    for read in (read_labels, read_rgb):
        refused(r"a\.png: 6x4 pixels \(width x height\) where 5x4 are expected", read, tmp_path / "a.png", size=(4, 5))
        refused(r"gone\.png: no such file", read, tmp_path / "gone.png")


# Operations on label maps


@pytest.mark.parametrize("order", ["C", "F"])
def test_later_masks_cover_earlier_ones(order):
    masks = [np.asarray(np.random.default_rng(i).random((20, 30)) < 0.3, order=order) for i in range(5)]
    before = [mask.copy() for mask in masks]
    wanted = np.max([np.where(mask, i + 1, 0) for i, mask in enumerate(masks)], axis=0)
    found = transforms.draw_labels(iter(masks), (20, 30))
    assert np.array_equal(found, wanted) and found.dtype == np.uint8 and found.flags.c_contiguous
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(masks, before, strict=True))
    assert (
        transforms.draw_labels(iter([]), (4, 6)).shape == (4, 6) and not transforms.draw_labels(iter([]), (4, 6)).any()
    )


def test_labels_are_counted_and_renamed():
    labels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    where = labels % 3 == 0
    for found, wanted in (
        (transforms.count_labels(labels[5:9, 7:31]), labels[5:9, 7:31]),
        (transforms.count_labels(labels, where), labels[where]),
    ):
        assert np.array_equal(found, np.bincount(wanted.ravel(), minlength=256))
    few = np.array([[0, 3, 7, 9, 255]], np.uint8)
    assert transforms.chosen_labels(few, np.array([7, 3])).tolist() == [[0, 2, 1, 0, 0]]
    assert transforms.chosen_labels(few, np.array([9]), keep=255).tolist() == [[0, 0, 0, 1, 255]]
