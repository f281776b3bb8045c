"""Image preprocessing of PE Core, and the frames that stand for a video."""

from __future__ import annotations

from torchvision import transforms
from torchvision.transforms import InterpolationMode

from pe_dense.utils.errors import InputError
from pe_dense.utils.image import as_rgb

VIDEO_FRAMES = 8


def get_image_transform(
    image_size: int, center_crop: bool = False, interpolation: InterpolationMode = InterpolationMode.BILINEAR
) -> transforms.Compose:
    """Preprocessing from a PIL image to a normalized tensor (3, S, S).

    The image is resized to a square without keeping its aspect ratio ("squash"), with antialiasing, and normalized by
    ``(x / 255 - 0.5) / 0.5``. Unlike the published transform it is converted to RGB before it is resized, so that
    palettes and transparency are resolved first; results for RGB images are the same.

    Args:
        image_size: side S in pixels, ``model.image_size``.
        center_crop: keep the aspect ratio, resize the short side and crop the center instead.
        interpolation: of the resizing.

    Raises:
        ValueError: if the size is not a positive integer.
    """
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size <= 0:
        raise InputError(f"image_size is a positive number of whole pixels, got {image_size!r}")
    if center_crop:
        resize = [transforms.Resize(image_size, interpolation), transforms.CenterCrop(image_size)]
    else:
        resize = [transforms.Resize((image_size, image_size), interpolation)]
    return transforms.Compose(
        [as_rgb, *resize, transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    )


def video_frame_indices(num_frames: int, count: int = VIDEO_FRAMES) -> list[int]:
    """Numbers of the frames that stand for a video: evenly spaced, the first and the last among them.

    Args:
        num_frames: frames of the video.
        count: frames to take; the middle one if it is 1. Frames repeat where the video has fewer.

    Raises:
        ValueError: if a number is not positive.
    """
    if num_frames < 1 or count < 1:
        raise InputError(f"cannot take {count} frames of a video of {num_frames}")
    if count == 1:
        return [num_frames // 2]
    return [int(i * (num_frames - 1) / (count - 1)) for i in range(count)]
