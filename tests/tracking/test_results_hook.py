"""Images and videos of tracked objects."""

import av
import cv2
import numpy as np
import pytest
from helpers.video_folder import squares

from pe_dense.tracking.results_hook import overlay, strip
from pe_dense.utils.image import write_picture
from pe_dense.utils.video import write_video

FRAME = np.full((32, 48, 3), 200, np.uint8)


def test_small_frames_are_enlarged_large_ones_are_not():
    assert overlay(FRAME, squares(0)).shape == (480, 720, 3)  # 32 px to 480, by 15
    large = np.zeros((500, 600, 3), np.uint8)
    assert overlay(large, np.zeros((500, 600), np.uint8)).shape == large.shape


def test_objects_have_their_colors_and_white_edges():
    drawn = overlay(FRAME, squares(0))
    assert drawn[8, 8].tolist() == [200, 200, 200]  # background
    # 0.55 * 200 of the frame and 0.45 * 128 of the first object's red
    assert drawn[8 * 15, 8 * 15].tolist() == pytest.approx([168, 110, 110], abs=1)
    assert drawn[24 * 15, 16 * 15].tolist() == pytest.approx([110, 168, 110], abs=1)
    assert drawn[4 * 15, 8 * 15].tolist() == [255, 255, 255]


def test_without_objects_the_frame_stays():
    large = np.full((480, 500, 3), 77, np.uint8)
    np.testing.assert_array_equal(overlay(large, np.zeros((480, 500), np.uint8)), large)


def test_strip_fills_its_rows():
    picture = strip([FRAME] * 4, 3)
    assert picture.shape == (2 * 32 + 8, 3 * 48 + 2 * 8, 3)
    assert (picture[40:, 56:] == 255).all()  # the fifth and sixth place
    assert (picture[40:, :48] == 200).all()


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_videos_have_all_frames_at_their_rate(tmp_path, size):
    pictures = [np.full((*size, 3), 20 * number, np.uint8) for number in range(7)]
    write_video(tmp_path / "a.mp4", pictures, fps=12)
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == 12
    assert len(frames) == 7
    assert frames[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert [int(np.median(frame)) for frame in frames] == pytest.approx([20 * number for number in range(7)], abs=4)


def test_nothing_is_overwritten(tmp_path):
    write_picture(tmp_path / "a.jpg", FRAME)
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == FRAME.shape
    with pytest.raises(FileExistsError):
        write_picture(tmp_path / "a.jpg", FRAME)
    (tmp_path / "a.mp4").write_text("precious")
    with pytest.raises(FileExistsError):
        write_video(tmp_path / "a.mp4", [FRAME], fps=12)
    assert (tmp_path / "a.mp4").read_text() == "precious"
