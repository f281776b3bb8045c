"""Number the objects of a video, so that an object has the same number in all frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from mmdet.models.trackers import ByteTracker
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from pe_dense.runtime.results import Detections

_LOW = 0.1  # lowest score of objects that continue a track
_NEW = 0.1  # by which the score of a new track is above the threshold; both as in the published code
_LOST_SECONDS = 1.0  # for which an object may be hidden
_KEPT = 4  # last entries of a track; the tracker confirms a track with three


class ObjectTracker:
    """Number the detections of a video by ByteTrack (arXiv 2110.06864), in mmdet's implementation.

    Objects are followed by their boxes and classes. Those of high scores are matched first; those of low scores
    continue tracks only.

    Args:
        threshold: score of objects that are matched first; a new track needs 0.1 more.
        fps: frames per second; an object that was hidden for less than a second keeps its number.
    """

    def __init__(self, threshold: float = 0.5, fps: float = 25.0):
        self._tracker = ByteTracker(
            motion=dict(type="mmdet.KalmanFilter"),  # models of mmseg have another default scope
            obj_score_thrs=dict(high=threshold, low=min(_LOW, threshold)),
            init_track_thr=min(threshold + _NEW, 0.99),
            num_frames_retain=max(round(_LOST_SECONDS * fps), 1),
        )
        self._frame = 0

    def update(self, found: Detections) -> Detections:
        """Return the objects of the next frame with their numbers in ``ids``, from 1; 0 for those without a track."""
        indices = torch.arange(len(found))
        objects = InstanceData(
            bboxes=torch.from_numpy(np.asarray(found.boxes, np.float32).reshape(-1, 4)),
            scores=torch.from_numpy(np.asarray(found.scores, np.float32)),
            labels=torch.from_numpy(np.asarray(found.labels, np.int64)),
            masks=indices[:, None, None],  # reordered like masks, they say which object a track is
        )
        sample = DetDataSample(metainfo=dict(frame_id=self._frame), pred_instances=objects)
        tracked = self._tracker.track(sample)
        self._frame += 1
        ids = np.zeros(len(found), np.int64)
        ids[tracked.masks.flatten().numpy()] = tracked.instances_id.numpy() + 1
        self._forget()
        return replace(found, ids=ids)

    def _forget(self) -> None:
        """Drop old entries of tracks, which the tracker would keep for the whole video."""
        for track in self._tracker.tracks.values():
            for name in self._tracker.memo_items:
                del track[name][:-_KEPT]
