"""Read and write videos."""

import re

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from pe_dense.utils.video import frame_rate, read_video, write_video


def frames(count=6, height=33, width=47):
    """A bright square that moves to the right; sides are odd."""
    for number in range(count):
        picture = np.full((height, width, 3), 40, np.uint8)
        picture[8:24, 4 * number : 4 * number + 16] = (220, 60, 40)
        yield picture


def test_round_trip(tmp_path):
    write_video(tmp_path / "a.mp4", frames(), fps=12.5)
    read = list(read_video(tmp_path / "a.mp4"))
    assert len(read) == 6
    assert frame_rate(tmp_path / "a.mp4") == 12.5
    for mine, theirs in zip(frames(), read, strict=True):
        assert theirs.shape == (34, 48, 3)
        assert np.abs(theirs[:33, :47].astype(int) - mine).mean() < 4


def test_nothing_is_replaced_silently_and_nothing_half_written_stays_under_the_name(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, frames(2), fps=5)
    with pytest.raises(FileExistsError, match=r"a\.mp4 exists"):
        write_video(path, frames(3), fps=5)
    write_video(path, frames(3), fps=5, overwrite=True)
    assert len(list(read_video(path))) == 3

    def broken():
        yield from frames(2)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_video(path, broken(), fps=5, overwrite=True)
    assert len(list(read_video(path))) == 3
    with pytest.raises(ValueError, match="no pictures"):
        write_video(tmp_path / "b.mp4", [], fps=5)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.skipif(not hasattr(VideoStream, "set_display_rotation"), reason="this PyAV writes no rotation")
@pytest.mark.parametrize(
    ("rotation", "shape", "bright"),
    [(90, (48, 32, 3), np.s_[24:]), (180, (32, 48, 3), np.s_[:, 24:]), (-90, (48, 32, 3), np.s_[:24])],
)
def test_rotation_is_honored(tmp_path, rotation, shape, bright):
    """Phones store frames as captured by the sensor, with a rotation, here counterclockwise."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24] = 255  # the left is bright
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.set_display_rotation(rotation)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    frame = next(read_video(tmp_path / "a.mp4")).astype(int)
    assert frame.shape == shape
    assert frame[bright].mean() > 240
    assert frame.mean() == pytest.approx(127, abs=5)


def write_noise(path, codec, count=40, options=None):
    """Frames of about equal size, so that a file cut to 60 % has about 60 % of them."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(count):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.mp4", r"Only (\d+) of 40 declared frames of .*a\.mp4 can be read: the file is cut short"),
        ("a.avi", r"Only (\d+) of 40 declared frames of .*a\.avi can be read: the file is cut short"),
        ("a.mkv", r"Only (\d+) frames, up to (2\.\d|1\.\d) of 4\.0 declared seconds, of .*a\.mkv can be read"),
    ],
)
def test_files_that_are_cut_short_are_named_once(tmp_path, monkeypatch, name, message):
    """FFmpeg's decoder of MPEG-4 ends such a file as if it were whole."""
    messages = []
    monkeypatch.setattr("pe_dense.utils.video.print_log", lambda text, *args: messages.append(text))
    path = write_noise(tmp_path / name, "mpeg4", options=dict(movflags="faststart") if name == "a.mp4" else None)
    assert len(list(read_video(path))) == 40 and not messages
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    count = len(list(read_video(path)))
    assert 10 < count < 30 and count == len(list(read_video(path)))
    assert len(messages) == 1 and int(re.match(message, messages[0])[1]) == count
    next(read_video(path))  # a reader that wants no more frames


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="this FFmpeg has no encoder for H.264")
def test_a_decoder_that_fails_within_the_file(tmp_path):
    path = write_noise(tmp_path / "a.mp4", "libx264", options=dict(movflags="faststart"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(ValueError, match=r"a\.mp4 is damaged or cut short: only \d+ of 40 frames can be read"):
        list(read_video(path))


def test_unreadable_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4 does not exist"):
        next(read_video(tmp_path / "absent.mp4"))
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"a\.mp4 is not a readable video \(Invalid data"):
        next(read_video(tmp_path / "a.mp4"))
