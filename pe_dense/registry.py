"""Child registries of MMEngine's.

Their scope is ``pe_dense``: ``type='pe_dense.PETower'`` resolves in any config, whatever its default scope, and the
modules that fill a registry are imported on look-up, so a config needs no ``custom_imports``.
"""

from importlib import import_module

from mmengine import registry as mmengine


class Registry(mmengine.Registry):
    """MMEngine's registry, which imports its modules one after the other until one has the name that is looked up."""

    def import_from_location(self) -> None:
        """Do nothing: :meth:`get` imports."""

    def get(self, key: str) -> type | None:
        """Return the object of a name, see MMEngine's registry."""
        scope, name = self.split_scope_key(key)
        if scope in (None, self.scope):
            for module in self._locations:
                if name in self.module_dict:
                    break
                import_module(module)
        return super().get(key)


MODELS = Registry(
    "model",
    parent=mmengine.MODELS,
    scope="pe_dense",
    locations=[
        "pe_dense.backbones",
        "pe_dense.necks",
        "pe_dense.detection",
        "pe_dense.detection.deta",
        "pe_dense.probing",
        "pe_dense.segmentation",
        "pe_dense.depth",
        "pe_dense.tracking",
        "pe_dense.distillation",
        "pe_dense.language.registered",
        "pe_dense.engine.hooks",
    ],
)
DATASETS = Registry(
    "dataset",
    parent=mmengine.DATASETS,
    scope="pe_dense",
    locations=["pe_dense.datasets", "pe_dense.datasets.synthetic"],
)
DATA_SAMPLERS = Registry(
    "data sampler",
    parent=mmengine.DATA_SAMPLERS,
    scope="pe_dense",
    locations=["pe_dense.datasets"],
)
HOOKS = Registry(
    "hook",
    parent=mmengine.HOOKS,
    scope="pe_dense",
    locations=[
        "pe_dense.engine.hooks",
        "pe_dense.detection",
        "pe_dense.probing",
        "pe_dense.tracking",
        "pe_dense.language.registered",
        "pe_dense.segmentation",
        "pe_dense.visualization",
    ],
)
INFERENCERS = Registry(
    "inferencer",
    parent=mmengine.INFERENCERS,
    scope="pe_dense",
    locations=["pe_dense.detection", "pe_dense.segmentation", "pe_dense.depth", "pe_dense.language.registered"],
)
METRICS = Registry(
    "metric",
    parent=mmengine.METRICS,
    scope="pe_dense",
    locations=[
        "pe_dense.detection.metrics",
        "pe_dense.probing",
        "pe_dense.segmentation",
        "pe_dense.depth",
        "pe_dense.tracking",
        "pe_dense.language.registered",
    ],
)
OPTIMIZERS = Registry(
    "optimizer", parent=mmengine.OPTIMIZERS, scope="pe_dense", locations=["pe_dense.engine.optimizers.lamb"]
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=mmengine.OPTIM_WRAPPER_CONSTRUCTORS,
    scope="pe_dense",
    locations=["pe_dense.engine.optimizers", "pe_dense.detection.deta", "pe_dense.probing", "pe_dense.segmentation"],
)
PARAM_SCHEDULERS = Registry(
    "parameter scheduler",
    parent=mmengine.PARAM_SCHEDULERS,
    scope="pe_dense",
    locations=["pe_dense.segmentation", "pe_dense.probing"],
)
RUNNERS = Registry("runner", parent=mmengine.RUNNERS, scope="pe_dense", locations=["pe_dense.engine.runner"])
TASK_UTILS = Registry(
    "task util",
    parent=mmengine.TASK_UTILS,
    scope="pe_dense",
    locations=["pe_dense.detection", "pe_dense.detection.deta"],
)
TRANSFORMS = Registry(
    "transform",
    parent=mmengine.TRANSFORMS,
    scope="pe_dense",
    locations=[
        "pe_dense.datasets",
        "pe_dense.detection",
        "pe_dense.detection.deta",
        "pe_dense.depth",
        "pe_dense.tracking",
        "pe_dense.datasets.torchvision_transforms",
    ],
)
VISBACKENDS = Registry(
    "vis_backend", parent=mmengine.VISBACKENDS, scope="pe_dense", locations=["pe_dense.engine.hooks"]
)
