"""Imports of the MM libraries and torchvision that are postponed until they are needed.

``import mmengine.runner`` and ``import mmdet.datasets`` import transformers, PEFT, matplotlib, SciPy, imgaug, numba and
``torch._dynamo`` for a few functions that most runs never call, which takes longer than PyTorch itself. An import hook
runs the modules of :data:`LATE` with an ``__import__`` of their own, which gives them placeholders for such packages. A
placeholder imports its object on first use. All other modules import as usual.
"""

import builtins
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pkgutil import resolve_name

# Modules, and the packages that they use inside of functions only.
LATE = {
    "lvis.vis": ("cv2", "matplotlib"),
    "mmdet.datasets.transforms.generate_line": ("imgaug", "scipy"),
    "mmdet.datasets.transforms.text_transformers": ("transformers",),
    "mmdet.datasets.transforms.transforms": ("albumentations", "imagecorruptions"),
    "mmdet.evaluation.metrics.crowdhuman_metric": ("scipy",),
    "mmdet.evaluation.metrics.culane_metric": ("scipy", "shapely"),
    "mmdet.models.dense_heads.atss_vlfusion_head": ("transformers",),
    "mmdet.models.dense_heads.clr_head.clr_head": ("matplotlib",),
    "mmdet.models.dense_heads.clr_head.lane": ("scipy",),
    "mmdet.models.dense_heads.paa_head": ("sklearn",),
    "mmdet.models.language_models.bert": ("transformers",),
    "mmdet.models.task_modules.assigners.hungarian_assigner": ("scipy",),
    "mmdet.models.task_modules.assigners.topk_hungarian_assigner": ("scipy",),
    "mmdet.models.task_modules.tracking.aflink": ("scipy",),
    "mmdet.models.task_modules.tracking.kalman_filter": ("scipy",),
    "mmdet.models.task_modules.tracking.interpolation": ("sklearn",),
    "mmdet.models.trackers.sort_tracker": ("scipy",),
    "mmdet.utils.mot_error_visualize": ("matplotlib",),
    "mmdet.visualization.local_visualizer": ("matplotlib",),
    "mmseg.datasets.transforms.transforms": ("albumentations", "scipy"),
    "mmseg.models.assigners.hungarian_assigner": ("scipy",),
    "mmseg.models.backbones.beit": ("scipy",),
    "mmseg.models.backbones.timm_backbone": ("timm",),
    "mmseg.models.losses.huasdorff_distance_loss": ("scipy",),
    "mmseg.models.text_encoder.clip_text_encoder": ("mmseg.utils",),
    "mmseg.utils": ("mmseg.utils.tokenizer",),
    "torchvision.ops.roi_align": ("torch._dynamo",),
}
_OPTIMIZERS = "mmengine.optim.optimizer.builder"  # it registers transformers' Adafactor
_GLIP = "mmdet.models.utils.vlfuse_helper"  # it has base classes of transformers before 5; later ones lack a function


class Late:
    """Placeholder of an object that is imported on first use.

    Args:
        name: of the object, with its module.
        module: the module of the import statement.
        state: whether the module that imports it still runs: ``{"running": bool}``.
    """

    def __init__(self, name: str, module: str, state: dict):
        self._name, self._module, self._state = name, module, state

    def _object(self):
        import_module(self._module)
        return resolve_name(self._name)

    def __getattr__(self, name: str):
        if self._state["running"]:  # `from package import name`, not a use
            return Late(f"{self._name}.{name}", self._module, self._state)
        return getattr(self._object(), name)

    def __call__(self, *args, **kwargs):
        return self._object()(*args, **kwargs)

    def __instancecheck__(self, instance) -> bool:
        return isinstance(instance, self._object())

    def __mro_entries__(self, bases) -> tuple:
        return (self._object(),)


class LateLoader(SourceFileLoader):
    """Loader of a module with postponed imports."""

    def exec_module(self, module) -> None:
        """Run the module."""
        state = dict(running=True)
        late, missing = LATE.get(module.__name__, ()), module.__name__ in (_OPTIMIZERS, _GLIP)
        import_ = partial(_import, state, late, ("transformers",) if missing else ())
        module.__builtins__ = {**vars(builtins), "__import__": import_}
        try:
            super().exec_module(module)
        finally:
            state["running"] = False
        if module.__name__ == _OPTIMIZERS and find_spec("transformers"):
            module.OPTIMIZERS.register_module(name="Adafactor", module=adafactor)
            module.TRANSFORMERS_OPTIMIZERS.append("Adafactor")


def adafactor(*args, **kwargs):
    """Create transformers' ``Adafactor``, which MMEngine has in its registry."""
    return import_module("transformers").Adafactor(*args, **kwargs)


def _import(state, late, missing, name, globals=None, locals=None, fromlist=(), level=0):
    if state["running"]:
        full = name
        if level:
            full = ".".join(filter(None, [globals["__package__"].rsplit(".", level - 1)[0], name]))
        top = full.partition(".")[0]
        if _is_of(full, missing):
            raise ModuleNotFoundError(f"the import of {full} is postponed", name=full)
        if _is_of(full, late) and find_spec(top):
            return Late(full if fromlist else top, full, state)
    return builtins.__import__(name, globals, locals, fromlist, level)


def _is_of(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


class LateFinder(MetaPathFinder):
    """Meta path finder of the modules with postponed imports."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        """Return the module's spec with :class:`LateLoader`, or None for any other module."""
        if fullname not in LATE and fullname != _OPTIMIZERS and not (fullname == _GLIP and _glip_fails()):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = LateLoader(fullname, spec.loader.path)
        return spec


def _glip_fails() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return int(version("transformers").partition(".")[0]) >= 5
    except PackageNotFoundError:
        return True
