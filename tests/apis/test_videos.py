"""Videos: results of frames, the drawn video and its lines."""

import json

import numpy as np
import pytest
from helpers.tool_runs import call_tool
from PIL import Image

from pe_dense.apis.videos import Video, track_video, write_predictions
from pe_dense.runtime import Detections, LabelMap
from pe_dense.utils.errors import InputError
from pe_dense.utils.video import frame_rate, read_video, write_video


class _Sample(dict):
    def cpu(self):
        return self


class Follower:
    """Finds the bright square; counts the frames that it holds at once."""

    def __init__(self, interrupt_at=None):
        self.interrupt_at, self.batches = interrupt_at, []

    def prepare(self, pixels, index):
        if index == self.interrupt_at:
            raise KeyboardInterrupt
        return pixels, pixels

    def predict(self, batch):
        self.batches.append(len(batch))
        return [_Sample(pixels=pixels) for pixels in batch]

    def result(self, sample):
        bright = sample["pixels"][..., 0] > 130
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
        return Detections(
            box, np.array([0.9], np.float32), np.array([0]), ("square",), classes=("square",), size=bright.shape
        )


class Labeler(Follower):
    """Label maps whose number of classes changes from frame to frame."""

    def result(self, sample):
        bright = sample["pixels"][..., 0] > 130
        labels = bright * (1 + np.arange(bright.shape[1]) % (2 + bright.argmax() % 3))
        return LabelMap(labels, tuple("abcdef"), palette=[(40 * i, 0, 0) for i in range(6)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Nine frames of 64 x 96 px, 12.5 per second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    pictures = [np.full((64, 96, 3), 40, np.uint8) for _ in range(9)]
    for number, picture in enumerate(pictures):
        picture[20:40, 6 * number : 6 * number + 20] = 220
    write_video(path, pictures, 12.5)
    return path


def test_video_of_predictions(clip, tmp_path):
    counts, follower = [], Follower()
    video = Video.open(clip)
    assert (video.fps, video.count) == (12.5, 9)
    assert write_predictions(follower, video, tmp_path / "out", 4, on_frame=counts.append) == 9
    assert follower.batches == [4, 4, 1] and counts == list(range(1, 10))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(9)) and lines[5]["time"] == 0.4
    assert {line["objects"][0]["id"] for line in lines} == {1}
    assert abs(lines[8]["objects"][0]["bbox"][0] - 48) <= 1
    drawn = list(read_video(tmp_path / "out.mp4"))
    assert len(drawn) == 9 and drawn[0].shape == (320, 480, 3)  # enlarged by 5
    assert frame_rate(tmp_path / "out.mp4") == 12.5
    with pytest.raises(FileExistsError, match="out.mp4 exists"):
        write_predictions(follower, video, tmp_path / "out")


def test_frames_without_legends_have_one_size(clip, tmp_path):
    assert write_predictions(Labeler(), Video.open(clip), tmp_path / "out") == 9
    assert len({picture.shape for picture in read_video(tmp_path / "out.mp4")}) == 1


def test_an_interruption_keeps_what_is_done(clip, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_predictions(Follower(interrupt_at=5), Video.open(clip), tmp_path / "out")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5
    assert len(list(read_video(tmp_path / "out.mp4"))) == 5
    with pytest.raises(KeyboardInterrupt):
        write_predictions(Follower(interrupt_at=0), Video.open(clip), tmp_path / "none")
    assert not list(tmp_path.glob("none*"))


def test_folders_of_frames(clip, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, pixels in enumerate(read_video(clip)):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    video = Video.open(folder, 5)
    assert (video.fps, video.count) == (5, 9)
    assert [one.source.frame for one in track_video(Follower(), video)] == list(range(9))
    Image.new("RGB", (50, 50), "white").save(folder / "other.png")
    with pytest.raises(InputError, match=r"other.png has 50 x 50 px, the frames before it 96 x 64"):
        list(Video.open(folder).frames())


def test_model_and_command(detector, run, clip, tmp_path):
    found = list(detector.track(clip, batch_size=4, score_thr=0))
    assert [one.source.frame for one in found] == list(range(9))
    assert all(len(one.ids) == len(one) for one in found)
    arguments = (run, clip, "--device", "cpu", "--batch-size", "4", "--score-thr", "0.1")
    done = call_tool("predict", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Video and JSON lines of 9 frames: {tmp_path / 'out'}/clip.mp4" in done.stdout.replace("\n", "")
    lines = (tmp_path / "out" / "clip.jsonl").read_text().splitlines()
    assert len(json.loads(lines[3])["objects"]) == len(found[3])
    refused = call_tool("predict", *arguments, "--out", tmp_path / "x", "--tile", "64")
    assert "clip.mp4 is a video: --tile and --format are for images" in refused.stderr
    url = call_tool("predict", run, "https://example.org/a.jpg", "--out", tmp_path / "x")
    assert "https://example.org/a.jpg is a URL: download the image and pass its path" in url.stderr
