"""Child registries of MMEngine's.

Their scope is ``pe_dense``: ``type='pe_dense.PETower'`` resolves in any config, whatever its default scope, and the
modules that fill a registry are imported on the first look-up, so a config needs no ``custom_imports``.
"""

from mmengine import registry as mmengine
from mmengine.registry import Registry

MODELS = Registry(
    "model",
    parent=mmengine.MODELS,
    scope="pe_dense",
    locations=[
        "pe_dense.tower",
        "pe_dense.pyramid",
        "pe_dense.detection.models",
        "pe_dense.detection.deta",
        "pe_dense.probing",
        "pe_dense.segmentation",
        "pe_dense.depth",
        "pe_dense.video",
        "pe_dense.alignment",
    ],
)
DATASETS = Registry(
    "dataset",
    parent=mmengine.DATASETS,
    scope="pe_dense",
    locations=[
        "pe_dense.datasets.coco_dataset",
        "pe_dense.datasets.lvis_dataset",
        "pe_dense.datasets.shapes_dataset",
        "pe_dense.video",
        "pe_dense.datasets.shapes_maps",
        "pe_dense.datasets.image_folder",
        "pe_dense.datasets.web_images",
    ],
)
DATA_SAMPLERS = Registry(
    "data sampler",
    parent=mmengine.DATA_SAMPLERS,
    scope="pe_dense",
    locations=["pe_dense.datasets.repeat_factor"],
)
HOOKS = Registry(
    "hook",
    parent=mmengine.HOOKS,
    scope="pe_dense",
    locations=[
        "pe_dense.detection.class_check",
        "pe_dense.visual.hook",
        "pe_dense.probing.hook",
        "pe_dense.video",
        "pe_dense.alignment",
    ],
)
INFERENCERS = Registry(
    "inferencer",
    parent=mmengine.INFERENCERS,
    scope="pe_dense",
    locations=["pe_dense.detection.prediction", "pe_dense.segmentation.prediction", "pe_dense.depth.prediction"],
)
METRICS = Registry(
    "metric",
    parent=mmengine.METRICS,
    scope="pe_dense",
    locations=[
        "pe_dense.detection.metrics",
        "pe_dense.probing.metric",
        "pe_dense.segmentation",
        "pe_dense.depth",
        "pe_dense.video",
    ],
)
OPTIMIZERS = Registry("optimizer", parent=mmengine.OPTIMIZERS, scope="pe_dense", locations=["pe_dense.optim.lamb"])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=mmengine.OPTIM_WRAPPER_CONSTRUCTORS,
    scope="pe_dense",
    locations=["pe_dense.optim", "pe_dense.detection.deta.learning_rates", "pe_dense.probing.optimizer"],
)
RUNNERS = Registry("runner", parent=mmengine.RUNNERS, scope="pe_dense", locations=["pe_dense.engine.runner"])
TASK_UTILS = Registry(
    "task util",
    parent=mmengine.TASK_UTILS,
    scope="pe_dense",
    locations=["pe_dense.detection.models", "pe_dense.detection.deta"],
)
TRANSFORMS = Registry(
    "transform",
    parent=mmengine.TRANSFORMS,
    scope="pe_dense",
    locations=[
        "pe_dense.detection.deta.jitter",
        "pe_dense.datasets.maps",
        "pe_dense.video",
        "pe_dense.datasets.torchvision_transforms",
    ],
)
