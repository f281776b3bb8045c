"""Reading and writing videos."""

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
    """Telephones write frames as the sensor has them, and how to turn them, here counterclockwise."""
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


def test_unreadable_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4 does not exist"):
        next(read_video(tmp_path / "absent.mp4"))
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"a\.mp4 is not a readable video \(Invalid data"):
        next(read_video(tmp_path / "a.mp4"))
