"""PE-Mini, whose weights come with the package: names, loading and what it recognizes."""

import pytest
import torch
from safetensors import safe_open

from pe_dense.backbones.build import build_pretrained, load_tower
from pe_dense.backbones.pe_configs import spatial_name
from pe_dense.datasets.synthetic import write_forms
from pe_dense.language import load_clip
from pe_dense.language.zero_shot import evaluate_classification
from pe_dense.utils import read_checkpoint
from pe_dense.utils.package_weights import FILES, find_package_weights, published_weights


def test_names():
    core = find_package_weights("pe-mini://core")
    assert core == find_package_weights("hf://facebook/PE-Mini-Core") and core.name == "pe_mini_core.safetensors"
    assert find_package_weights("hf://facebook/PE-Core-B16-224") is None and find_package_weights("core.pt") is None
    assert published_weights("PE-Mini-Spatial") == "pe-mini://spatial"
    assert published_weights("PE-Core-B16-224") == "hf://facebook/PE-Core-B16-224"
    assert (spatial_name("PE-Mini-Core"), spatial_name("PE-Core-L14-336")) == ("PE-Mini-Spatial", "PE-Spatial-L14-448")
    assert spatial_name("PE-Spatial-L14-448") is spatial_name("PE-Lang-L14-448") is spatial_name("a file") is None
    with pytest.raises(
        ValueError, match="pe-mini://lang: weights in the package are pe-mini://core, pe-mini://spatial$"
    ):
        read_checkpoint("pe-mini://lang")


@pytest.mark.parametrize("name", FILES)
def test_files(name):
    with safe_open(find_package_weights(f"pe-mini://{name}"), "pt") as file:
        assert file.metadata()["license"] == "Apache-2.0" and "docs/miniature.md" in file.metadata()["training"]
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
    tower = load_tower(f"PE-Mini-{name.title()}")
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.float32}
    frozen = build_pretrained(dict(type="pe_dense.PETower", arch=f"PE-Mini-{name.title()}"), f"pe-mini://{name}")
    assert {parameter.dtype for parameter in frozen.parameters()} == {torch.float32}
    assert sum(find_package_weights(f"pe-mini://{other}").stat().st_size for other in FILES) < 16e6


def test_recognizes_forms_of_unseen_images(tmp_path):
    """Zero-shot, on scenes of another seed than those of training and validation."""
    root = write_forms(tmp_path / "forms", num_images=80, seed=77)
    scores = evaluate_classification(load_clip("PE-Mini-Core"), root / "labels.csv", ["a photo of a {}.", "a {}"])
    assert scores["top1"] >= 0.75
