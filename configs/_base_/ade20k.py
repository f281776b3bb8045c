"""ADE20k's 150 classes. All paths start from `data_root`.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

data_root = "data/ade20k"
data_source = dict(
    name="ADE20k (scene parsing, 2016)",
    url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    layout="images/{training,validation}/*.jpg and annotations/{training,validation}/*.png",
)
num_classes = 150


def probe_of(tower, image_size):
    """Return changes of the model for another tower and image size."""
    return dict(
        data_preprocessor=dict(size=(image_size, image_size)),
        backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}")),
        test_cfg=dict(crop_size=(image_size, image_size)),
    )


def ade20k_data(segmentation_data, image_size):
    """Create data loaders of training and validation, and the pipeline of `--tta`.

    Args:
        segmentation_data: of `segmentation_data.py`.
        image_size: see there.
    """
    return segmentation_data(
        image_size,
        dict(type="ADE20KDataset", data_root=data_root),
        dict(data_prefix=dict(img_path="images/training", seg_map_path="annotations/training")),
        dict(data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation")),
        num_classes,
    )
