"""Reference implementation of soft-NMS as a loop, and boxes to test it."""

import torch
from torchvision.ops import box_iou


def soft_nms_loop(boxes, scores, labels, iou_threshold=0.7, min_score=0.0, quad_scale=0.5):
    """Reference implementation of :func:`pe_dense.detection.deta.soft_nms`."""
    boxes = boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]
    scores, rest = scores.clone(), torch.arange(len(boxes))
    kept, kept_scores = [], []
    while len(rest):
        best = int(scores.argmax())
        kept.append(int(rest[best]))
        kept_scores.append(float(scores[best]))
        overlaps = box_iou(boxes[best][None], boxes)[0]
        decay = torch.ones_like(scores)
        near = overlaps > iou_threshold
        decay[near] = (1 - overlaps[near]) ** quad_scale
        scores = scores * decay
        stays = scores > min_score
        stays[best] = False
        boxes, scores, rest = boxes[stays], scores[stays], rest[stays]
    return torch.tensor(kept, dtype=torch.long), torch.tensor(kept_scores)


def crowded_boxes(count, classes, objects, seed=0):
    """Boxes in px around random objects, as many queries find them: (N, 4), scores (N,) and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(objects, 2, generator=generator) * torch.tensor([640.0, 480.0])
    sizes = torch.rand(objects, 2, generator=generator) * 150 + 10
    shown = torch.randint(objects, (count,), generator=generator)
    jitter = torch.randn(count, 4, generator=generator) * 0.05
    center = centers[shown] + jitter[:, :2] * sizes[shown]
    size = sizes[shown] * jitter[:, 2:].exp()
    boxes = torch.cat([center - size / 2, center + size / 2], dim=1)
    labels = (shown % classes + torch.randint(2, (count,), generator=generator)) % classes
    return boxes, torch.rand(count, generator=generator), labels
