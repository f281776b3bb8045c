"""Child registries of MMEngine's.

Their scope is ``pe_dense``: ``type='pe_dense.PETower'`` resolves in any config, whatever its default
scope, and the modules that fill a registry are imported on the first look-up, so a config needs no
``custom_imports``.
"""

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as _OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import RUNNERS as _RUNNERS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry("model", parent=_MODELS, scope="pe_dense", locations=["pe_dense.tower", "pe_dense.pyramid"])
DATASETS = Registry("dataset", parent=_DATASETS, scope="pe_dense", locations=["pe_dense.datasets"])
