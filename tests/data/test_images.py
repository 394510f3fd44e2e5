import io

import numpy as np
import pytest
from PIL import Image

from hodor.data import images
from hodor.data.images import DAVIS_PALETTE, encode_labels, read_labels, read_rgb, read_size, write_labels
from hodor.errors import HodorError


def smooth(height=60, width=90) -> np.ndarray:
    """A picture that JPEG keeps well: a different slope in each channel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2, y * 3, 200 - x - y], axis=-1).astype(np.uint8)


def encoded(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def test_reads_rgb_in_rgb_order(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(smooth(), format="JPEG", quality=98, subsampling=0))
    pixels = read_rgb(path, size=(60, 90))
    assert pixels.dtype == np.uint8 and pixels.shape == (60, 90, 3)
    assert np.abs(pixels.astype(int) - smooth()).max() <= 6
    pixels[0, 0] = 0  # writable: augmentation works in place


def test_grayscale_jpeg_becomes_rgb(tmp_path):
    gray = smooth()[..., 0]
    path = tmp_path / "gray.jpg"
    path.write_bytes(encoded(gray, format="JPEG", quality=98))
    pixels = read_rgb(path)
    assert pixels.shape == (60, 90, 3)
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    assert np.abs(pixels[..., 0].astype(int) - gray).max() <= 3


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded(smooth(), format="JPEG", exif=exif))
    assert read_rgb(path).shape == (60, 90, 3) and read_size(path) == (60, 90)


# What a JPEG loses at these points: everything, the header's end, half the scan, the last rows, the end marker.
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, 0.99, -40, -3, -2, -1])
def test_truncated_jpeg_is_refused(tmp_path, kept, options):
    whole = encoded(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), format="JPEG", **options)
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole)
    read_rgb(path)
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(HodorError, match="cut.jpg"):
        read_rgb(path)


def test_jpeg_whose_tail_became_zeros_is_refused(tmp_path):
    """A disk that filled up; the decoder takes the zeros for picture data and is content."""
    whole = encoded(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8), format="JPEG")
    path = tmp_path / "zeros.jpg"
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    with pytest.raises(HodorError, match=r"zeros\.jpg: truncated JPEG"):
        read_rgb(path)


def test_thumbnail_end_marker_does_not_hide_truncation(tmp_path):
    """An EXIF thumbnail is a JPEG inside the JPEG, with an end marker of its own."""
    whole = encoded(smooth(), format="JPEG")
    thumbnail = b"Exif\0\0" + encoded(smooth(8, 8), format="JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "thumb.jpg"
    path.write_bytes(whole[:2] + segment + whole[2:])
    read_rgb(path)
    path.write_bytes(whole[:2] + segment + whole[2:-2])
    with pytest.raises(HodorError, match="thumb.jpg"):
        read_rgb(path)


def test_labels_survive_writing(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "new folder" / "a.png"
    write_labels(path, labels)
    assert (read_labels(path, size=(16, 16)) == labels).all(), "void 255 and every id must come back"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


def test_written_mask_is_an_eight_bit_palette_png_with_davis_colours(tmp_path):
    content = encode_labels(np.array([[0, 1], [2, 1]], np.uint8))
    assert content[24] == 8 and content[25] == 3, "bit depth 8 and colour type palette in the PNG header"
    image = Image.open(io.BytesIO(content))
    assert image.mode == "P" and image.getpalette() == DAVIS_PALETTE.ravel().tolist()
    assert DAVIS_PALETTE[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert DAVIS_PALETTE[[22, 255]].tolist() == [[0, 192, 128], [224, 224, 192]]
    assert encode_labels(np.array([[0, 1], [2, 1]], np.uint8)) == content


def test_killed_writer_leaves_the_old_mask(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_labels(path, np.zeros((4, 4), np.uint8))
    monkeypatch.setattr(images.Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_labels(path, np.ones((4, 4), np.uint8))
    assert not read_labels(path).any() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("labels", [np.zeros((4, 4), np.int64), np.zeros((4, 4, 3), np.uint8)])
def test_only_uint8_planes_can_be_written(labels):
    with pytest.raises(ValueError, match="uint8"):
        encode_labels(labels)


@pytest.mark.parametrize("kept", [0, 7, 20, 0.5, 0.95, -13, -12, -4, -1])
def test_truncated_mask_is_refused(tmp_path, kept):
    whole = encode_labels(np.random.default_rng(0).integers(0, 4, (50, 70)).astype(np.uint8))
    path = tmp_path / "cut.png"
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(HodorError, match="cut.png"):
        read_labels(path)


def test_flipped_bit_in_a_mask_is_refused(tmp_path):
    whole = bytearray(encode_labels(np.random.default_rng(0).integers(0, 4, (50, 70)).astype(np.uint8)))
    # The palette, the picture data, the checksum behind them (which decoders skip), the end chunk's checksum.
    for place in (50, len(whole) // 2 + 400, len(whole) - 30, len(whole) - 13, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 1
        path = tmp_path / "flipped.png"
        path.write_bytes(broken)
        with pytest.raises(HodorError, match="flipped.png"):
            read_labels(path)


def test_coloured_mask_is_refused(tmp_path):
    path = tmp_path / "rgb.png"
    Image.open(io.BytesIO(encode_labels(np.ones((4, 4), np.uint8)))).convert("RGB").save(path)
    with pytest.raises(HodorError, match=r"rgb\.png: a RGB image where a palette PNG is needed"):
        read_labels(path)


def test_grey_mask_is_read_as_ids(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((4, 4), 3, np.uint8)).save(path)
    assert (read_labels(path) == 3).all()


def test_jpeg_is_no_mask(tmp_path):
    path = tmp_path / "lossy.png"
    path.write_bytes(encoded(smooth()[..., 0], format="JPEG"))
    with pytest.raises(HodorError, match="lossy.png"):
        read_labels(path)


def test_wrong_size_names_both_sizes(tmp_path):
    path = tmp_path / "a.png"
    write_labels(path, np.zeros((4, 6), np.uint8))
    with pytest.raises(HodorError, match=r"a\.png: 6x4 pixels \(width x height\) where 5x4 are expected"):
        read_labels(path, size=(4, 5))
    Image.fromarray(smooth()).save(tmp_path / "b.jpg")
    with pytest.raises(HodorError, match=r"b\.jpg: 90x60 pixels .* where 60x90"):
        read_rgb(tmp_path / "b.jpg", size=(90, 60))


@pytest.mark.parametrize("read", [read_rgb, read_labels, read_size])
def test_missing_file_is_named(tmp_path, read):
    with pytest.raises(HodorError, match=r"gone\.png: no such file"):
        read(tmp_path / "gone.png")
