"""Reading and writing videos of users: order, names, orientation, damage; overlays."""

import random
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from hodor.data.images import DAVIS_PALETTE
from hodor.errors import HodorError
from hodor.inference.video_io import VideoWriter, open_frames, overlay, upright
from tests.refused import refused
from tests.videos import frames


def save(folder, *names, size=(64, 96), **options):
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), 10 * value, np.uint8)).save(folder / name, **options)
    return folder


def frames_of(path) -> list[np.ndarray]:
    return [frame for _, frame in open_frames(path).frames()]


def read_until_broken(path) -> tuple[int, str]:
    """Return the number of good frames and the error after them."""
    done = 0
    with pytest.raises(HodorError) as error:
        for _ in open_frames(path).frames():
            done += 1
    return done, str(error.value)


# Folders of images


def test_a_folder_is_read_in_natural_order(tmp_path):
    save(tmp_path / "v", "shot2.jpg", "shot10.jpg", "shot9.jpeg", "shot100.JPG", "shot1.jpg")
    for name in ("Thumbs.db", ".hidden.png"):
        (tmp_path / "v" / name).write_text("x")
    source = open_frames(tmp_path / "v")
    assert source.names == ("shot1", "shot2", "shot9", "shot10", "shot100") and source.count == 5
    assert [int(frame[0, 0, 0]) for _, frame in source.frames()] == [40, 0, 20, 10, 30]
    assert source.size == (64, 96) and source.rate == 24


@pytest.mark.parametrize(
    ("names", "odd"),
    [
        (["0.jpg", "1.jpg", "0_mask.png"], "0_mask.png"),
        (["0.png", "1.png", "0_mask.png", "1_mask.png"], "0_mask.png"),
        (["0.jpg", "1.jpg", "2.webp"], "2.webp"),
        (["0.jpg", "0.png"], "two files of one frame"),
        (["1.jpg", "0001.jpg"], "two files of one frame"),
    ],
)
def test_files_that_are_no_frames_are_named(names, odd, tmp_path):
    refused(odd, open_frames, save(tmp_path / "v", *names))


def test_a_link_to_an_absent_frame_is_no_shorter_video(tmp_path):
    folder = save(tmp_path / "v", "0.jpg", "1.jpg")
    (folder / "2.jpg").symlink_to("gone.jpg")
    refused(r"2\.jpg: not a file, or a link to an absent one", open_frames, folder)


def test_side_data_that_pyav_does_not_know():
    class Frame:
        rotation = -90  # as FFmpeg counts, anticlockwise

        def to_ndarray(self, format):
            return frames(1)[0]

        @property
        def side_data(self):
            raise ValueError("31 is not a valid Type")

    assert np.array_equal(upright(Frame()), np.rot90(frames(1)[0], -1))


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder := tmp_path / "v").mkdir()
    Image.fromarray(frames(1)[0]).save(folder / "0.jpg", exif=exif)
    source = open_frames(folder)
    upright = np.rot90(frames(1)[0], -1)
    assert source.size == (96, 64) and np.abs(next(source.frames())[1].astype(int) - upright).mean() < 12


@pytest.mark.parametrize(
    ("names", "key", "found"),
    [
        ([5, 7, 10], "00007", 1),
        ([5, 7, 10], "2", 2),
        ([5, 7, 10], "x", "has no frame 'x'"),
        ([5, 7, 10], "3", "has no frame 3, only 3 frames"),
        ([5, 7, 10], "7", "may be the frame 00007"),
        ([1, 2, 3], "2", "2 may be the frame 00002 or the frame number 2 from 0; write .* 00002 or 00003"),
        ([1, 2, 3], "0", 0),
    ],
)
def test_frames_by_name_or_number(names, key, found, tmp_path):
    source = open_frames(save(tmp_path / "v", *(f"{name:05d}.jpg" for name in names)))
    if isinstance(found, int):
        assert source.index(key) == found
        return
    refused(found, source.index, key)


# Video files


def test_frames_of_a_video_file(tmp_path, write_video, monkeypatch):
    """The path is relative and contains a colon."""
    shown = frames(9)
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "at 9:30.mp4", shown)
    source = open_frames("at 9:30.mp4")
    assert (source.size, source.rate, source.count) == ((64, 96), 12, 9)
    got = list(source.frames())
    assert [name for name, _ in got] == [f"{t:05d}" for t in range(9)]
    assert all(np.abs(a.astype(int) - b).mean() < 12 for (_, a), b in zip(got, shown, strict=True))
    assert source.index("00003") == source.index("3") == 3
    refused("only 9 frames", source.index, "9")


# Display matrix (a, b, c, d) -> displayed position of the upper left corner; FFmpeg counts degrees anticlockwise.
UPPER, LOWER, LEFT, RIGHT = slice(0, 16), slice(-16, None), slice(0, 16), slice(-16, None)
MATRICES = {
    (0, -1, 1, 0): (LOWER, LEFT),
    (-1, 0, 0, -1): (LOWER, RIGHT),
    (0, 1, -1, 0): (UPPER, RIGHT),
    (-1, 0, 0, 1): (UPPER, RIGHT),
    (1, 0, 0, -1): (LOWER, LEFT),
    (0, 1, 1, 0): (UPPER, LEFT),
    (0, -1, -1, 0): (LOWER, RIGHT),
}


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_the_display_matrix_is_applied(matrix, tmp_path, write_video):
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:16, :16] = 255
    path = write_video(tmp_path / "v.mp4", [frame] * 3)
    content = path.read_bytes()
    plain = [1 << 16, 0, 0, 0, 1 << 16]
    turned = [matrix[0] << 16, matrix[1] << 16, 0, matrix[2] << 16, matrix[3] << 16]
    first, last = (b"".join(v.to_bytes(4, "big", signed=True) for v in values) for values in (plain, turned))
    at = content.index(first, content.index(b"tkhd"))
    path.write_bytes(content[:at] + last + content[at + len(last) :])
    source = open_frames(path)
    shown = next(source.frames())[1]
    assert shown.shape[:2] == source.size == ((64, 96) if matrix[0] else (96, 64))
    assert shown[MATRICES[matrix]].mean() > 200 and shown.mean() < 40


def test_a_video_that_was_trimmed_without_encoding_again(tmp_path):
    """Trimmed as by `ffmpeg -ss ... -c copy` and phones: the file contains frames that its edit list hides."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "whole.mp4"), "w") as whole:
        stream = whole.add_stream("mpeg4", rate=25, options={"g": "10", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 64, 96, "yuv420p", 2_000_000
        for frame in frames(30):
            whole.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        whole.mux(stream.encode())
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(tmp_path / "v.mp4"), "w") as trimmed:
        stream = whole.streams.video[0]
        target = trimmed.add_stream_from_template(stream)
        first = int(Fraction(16, 25) / stream.time_base)  # the key frame before it is frame 10
        for packet in whole.demux(stream):
            if packet.dts is not None and packet.pts * stream.time_base * 25 >= 10:
                packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, target
                trimmed.mux(packet)
    source = open_frames(tmp_path / "v.mp4")
    assert source.count == 20
    assert [name for name, _ in source.frames()] == [f"{t:05d}" for t in range(14)]


def test_paths_without_a_video(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "zero.mp4").touch()
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    for name, message in (
        ("none.mp4", "no such video"),
        ("empty", "no image here"),
        ("text.mp4", "not a video that FFmpeg reads"),
        ("zero.mp4", "not a video that FFmpeg reads"),
        ("sound.wav", "has no video stream"),
    ):
        refused(rf"{name}: {message}", open_frames, tmp_path / name)


def test_damage_in_the_middle_is_found_and_named(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", frames(40, (128, 192)))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    # A decoder conceals a little damage by itself, but not this much.
    length = len(content) // 6
    content[middle : middle + length] = random.Random(0).randbytes(length)
    path.write_bytes(content)
    done, message = read_until_broken(path)
    assert 0 < done < 39 and f"v.mp4: damaged or cut off at frame {done:05d} of 40" in message


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("kept", [0.75, 0.99])
def test_a_video_that_was_cut_off_is_found(ending, kept, tmp_path, write_video):
    """A shortened mp4 with its index in front, as for streaming, still opens."""
    options = {"movflags": "faststart"} if ending == "mp4" else {}
    path = write_video(tmp_path / f"v.{ending}", frames(40), **options)
    assert len(frames_of(path)) == 40
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    done, message = read_until_broken(path)
    assert 0 < done <= 40 and f"damaged or cut off at frame {done:05d}" in message


def test_frames_that_the_recorder_of_an_avi_dropped(tmp_path, write_video):
    """Such frames are counted in the header and have no data."""
    av = pytest.importorskip("av")
    write_video(tmp_path / "all.avi", frames(6))
    with av.open(str(tmp_path / "all.avi")) as whole, av.open(str(tmp_path / "v.avi"), "w") as dropped:
        target = dropped.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(whole.streams.video[0]):
            if packet.dts is not None:
                packet.stream = target
                packet.pts, packet.dts = (time + (4 if time > 2 else 0) for time in (packet.pts, packet.dts))
                dropped.mux(packet)
    with av.open(str(tmp_path / "v.avi")) as container:
        assert container.streams.video[0].frames == 10
    assert len(frames_of(tmp_path / "v.avi")) == 6


# Overlays


def test_written_videos_play_also_after_an_error(tmp_path):
    """Odd sides are extended by one row and column; without frames nothing is written."""
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "o.mp4", (63, 95), Fraction(30000, 1001)) as writer:
        for frame in frames(7, (63, 95)):
            writer.write(frame)
        raise RuntimeError
    source = open_frames(tmp_path / "o.mp4")
    assert source.size == (64, 96) and source.rate == Fraction(30000, 1001)
    assert len(list(source.frames())) == 7
    with VideoWriter(tmp_path / "none.mp4", (64, 96), Fraction(24)):
        pass
    assert not (tmp_path / "none.mp4").exists()


def test_overlay_tints_objects_and_draws_their_outline():
    frame = np.full((64, 96, 3), 100, np.uint8)
    frame[20, 15:20] = np.arange(15).reshape(5, 3)  # odd and even sums
    labels = np.zeros((64, 96), np.uint8)
    labels[10:30, 10:30] = 2
    labels[10:30, 30:50] = 7  # touches it
    shown = overlay(frame, labels)
    assert shown.dtype == np.uint8 and (shown[labels == 0] == 100).all() and frame[10, 10, 0] == 100
    assert (shown[20, 15:20] == (0.5 * DAVIS_PALETTE[2] + 0.5 * frame[20, 15:20]).round()).all()
    for row, column in ((10, 20), (20, 10), (20, 29), (20, 30), (29, 40)):
        assert (shown[row, column] == 255).all(), "there is an outline around each object, between two as well"
    assert (shown[20, 11] == DAVIS_PALETTE[2]).all()
    assert np.array_equal(overlay(frame, np.zeros_like(labels)), frame)
