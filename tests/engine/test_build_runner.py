"""What runs are built with."""

from mmengine.config import Config
from mmengine.registry import DefaultScope

from pe_dense.engine import build_runner


def test_scope_is_the_configs(monkeypatch):
    """Two runners of one second have one name, under which MMEngine keeps the scope of the first."""
    for name, scope in (("same_20260101_000000", "mmseg"), ("between", "mmdet")):
        DefaultScope.get_instance(name, scope_name=scope)

    class Runners:
        @staticmethod
        def build(config):
            DefaultScope.get_instance("same_20260101_000000", scope_name=config.default_scope)
            return DefaultScope.get_current_instance().scope_name

    monkeypatch.setattr(build_runner, "RUNNERS", Runners)
    assert build_runner._build(Config(dict(default_scope="mmseg")), "test") == "mmseg"
