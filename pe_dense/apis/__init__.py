"""Public Python API: load a model, predict typed results, convert released detectors."""

from pe_dense.apis.model import Model, load

__all__ = ["Model", "load"]
