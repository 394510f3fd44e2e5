"""Reading and writing people's videos: streams, names, orientation, damage."""

import random
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from hodor.data.images import DAVIS_PALETTE
from hodor.errors import HodorError
from hodor.inference.overlay import overlay
from hodor.inference.video_files import VideoWriter, open_frames


def save(folder, *names, size=(64, 96)):
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), 10 * value, np.uint8)).save(folder / name)
    return folder


def test_a_folder_is_read_in_natural_order(tmp_path):
    names = ["shot2.png", "shot10.jpg", "shot9.jpeg", "shot100.JPG", "shot1.png"]
    source = open_frames(save(tmp_path / "v", *names))
    (tmp_path / "v" / "Thumbs.db").write_text("x")
    assert source.names == ("shot1", "shot2", "shot9", "shot10", "shot100") and source.count == 5
    assert [int(frame[0, 0, 0]) for _, frame in source.frames()] == [40, 0, 20, 10, 30]
    assert source.size == (64, 96) and source.rate == 24


def test_a_video_file_gives_its_frames(tmp_path, moving, write_video):
    frames = list(moving(9))
    source = open_frames(write_video(tmp_path / "v.mp4", frames))
    assert (source.size, source.rate, source.count) == ((64, 96), 12, 9)
    got = list(source.frames())
    assert [name for name, _ in got] == [f"{t:05d}" for t in range(9)]
    assert all(np.abs(a.astype(int) - b).mean() < 12 for (_, a), b in zip(got, frames, strict=True))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_video_of_a_phone_stands_upright(rotation, tmp_path, write_video):
    """FFmpeg: the display matrix turns the frame counterclockwise by so many degrees."""
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:16, :16] = 255  # upper left
    source = open_frames(write_video(tmp_path / "v.mp4", [frame] * 3, rotation=rotation))
    shown = next(source.frames())[1]
    assert shown.shape[:2] == source.size == ((64, 96) if rotation == 180 else (96, 64))
    corner = {90: (slice(-16, None), slice(0, 16)), 180: (slice(-16, None), slice(-16, None))}
    where = corner.get(rotation, (slice(0, 16), slice(-16, None)))
    assert shown[where].mean() > 200 and shown.mean() < 40


def test_a_video_that_was_trimmed_without_encoding_anew(tmp_path, moving):
    """As `ffmpeg -ss ... -c copy` and phones trim: the file holds frames that its edit list hides."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "whole.mp4"), "w") as whole:
        stream = whole.add_stream("mpeg4", rate=25, options={"g": "10", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 64, 96, "yuv420p", 2_000_000
        for frame in moving(30):
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


@pytest.mark.parametrize(("key", "number"), [("00007", 1), ("2", 2), ("x", None), ("3", None), ("7", None)])
def test_a_frame_is_named_or_counted(key, number, tmp_path):
    source = open_frames(save(tmp_path / "v", "00005.jpg", "00007.jpg", "00010.jpg"))
    if number is not None:
        assert source.index(key) == number
        return
    told = {"x": "has no frame 'x'", "3": "has no frame 3, only 3 frames", "7": "may be the frame 00007"}
    with pytest.raises(HodorError, match=told[key]):
        source.index(key)


def test_a_number_that_means_two_frames_is_refused(tmp_path):
    source = open_frames(save(tmp_path / "v", "00001.jpg", "00002.jpg", "00003.jpg"))
    with pytest.raises(
        HodorError, match="2 may be the frame 00002 or the frame number 2 from 0; write .* 00002 or 00003"
    ):
        source.index("2")
    assert source.index("00002") == 1 and source.index("0") == 0


def test_frames_of_a_video_file_are_counted(tmp_path, moving, write_video):
    source = open_frames(write_video(tmp_path / "v.mp4", moving(5)))
    assert source.index("00003") == source.index("3") == 3
    with pytest.raises(HodorError, match="only 5 frames"):
        source.index("5")


def test_nothing_to_read(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "zero.mp4").touch()
    for name, told in (
        ("none.mp4", "no such video"),
        ("empty", "no image here"),
        ("text.mp4", "no video that FFmpeg can read"),
        ("zero.mp4", "no video that FFmpeg can read"),
    ):
        with pytest.raises(HodorError, match=rf"{name}: {told}"):
            open_frames(tmp_path / name)
    save(tmp_path / "double", "a.jpg", "a.png")
    with pytest.raises(HodorError, match="two images of one frame"):
        open_frames(tmp_path / "double")


def test_sound_alone_is_no_video(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(HodorError, match="has no video stream"):
        open_frames(tmp_path / "a.wav")


def read_until_broken(path) -> tuple[int, str]:
    """Number of good frames and the error after them."""
    done = 0
    with pytest.raises(HodorError) as error:
        for _ in open_frames(path).frames():
            done += 1
    return done, str(error.value)


def test_damage_in_the_middle_is_found_and_named(tmp_path, moving, write_video):
    path = write_video(tmp_path / "v.mp4", moving(40, (128, 192)))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    # A decoder mends a little by itself; this much it cannot.
    length = len(content) // 6
    content[middle : middle + length] = random.Random(0).randbytes(length)
    path.write_bytes(content)
    done, told = read_until_broken(path)
    assert 0 < done < 39 and f"v.mp4: damaged or cut off at frame {done:05d} of 40" in told


def test_a_video_that_was_cut_off_is_found(tmp_path, moving, write_video):
    """With its index in front, as for streaming, a shortened file still opens."""
    path = write_video(tmp_path / "v.mp4", moving(40), movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    done, told = read_until_broken(path)
    assert 0 < done < 40 and f"frame {done:05d} of 40" in told


def test_a_frame_of_another_size_in_a_folder(tmp_path):
    save(tmp_path / "v", "0.jpg", "1.jpg")
    save(tmp_path / "v", "2.jpg", size=(64, 90))
    done, told = read_until_broken(tmp_path / "v")
    assert done == 2 and "2.jpg: 90x64 pixels" in told


def test_written_videos_play_also_after_an_error(tmp_path, moving):
    """Odd sides get one more row and column."""
    with pytest.raises(RuntimeError):
        with VideoWriter(tmp_path / "o.mp4", (63, 95), Fraction(30000, 1001)) as writer:
            for frame in moving(7, (63, 95)):
                writer.write(frame)
            raise RuntimeError
    source = open_frames(tmp_path / "o.mp4")
    assert source.size == (64, 96) and source.rate == Fraction(30000, 1001)
    assert len(list(source.frames())) == 7


def test_a_writer_without_frames_writes_nothing(tmp_path):
    with VideoWriter(tmp_path / "o.mp4", (64, 96), Fraction(24)):
        pass
    assert not (tmp_path / "o.mp4").exists()


def test_overlay_tints_objects_and_draws_their_outline():
    frame = np.full((64, 96, 3), 100, np.uint8)
    labels = np.zeros((64, 96), np.uint8)
    labels[10:30, 10:30] = 2
    labels[10:30, 30:50] = 7  # touches it
    shown = overlay(frame, labels)
    assert (shown[labels == 0] == 100).all() and (frame == 100).all()
    assert (shown[20, 20] == (0.5 * DAVIS_PALETTE[2] + 50).round()).all()
    for row, column in ((10, 20), (20, 10), (20, 29), (20, 30), (29, 40)):
        assert (shown[row, column] == 255).all(), "an outline around each object, also between two"
    assert (shown[20, 11] == DAVIS_PALETTE[2]).all()
    assert np.array_equal(overlay(frame, np.zeros_like(labels)), frame)
