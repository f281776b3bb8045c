"""PETower against recordings of the published implementations."""

import torch
from helpers.recorded_tower import recorded_tower
from helpers.recordings import Recording, by_recording

from pe_dense.backbones import PETower
from pe_dense.backbones.checkpoint import adapt_backbone_state, extract_backbone_state
from pe_dense.backbones.pos_embed import resample_patch_embedding, resample_positions
from pe_dense.necks import SimpleFeaturePyramid

TOLERANCE = dict(atol=1e-5, rtol=0)


@by_recording("tower_*.npz", exclude=["tower_sam3*"])
@torch.no_grad()
def test_golden_tower(path):
    golden = Recording(path)
    tower = PETower(golden.config, out_indices=range(golden.config["layers"])).eval()
    tower.load_state_dict(adapt_backbone_state(tower, extract_backbone_state(golden.state)))

    inputs = sorted({name.split("/")[0] for name in golden.names if name.startswith("in")})
    assert inputs
    for name in inputs:
        recorded = golden.subset(f"{name}/")
        image = recorded.pop("image")
        maps = tower(image)
        for index in range(golden.config["layers"]):
            tokens = tower.forward_features(image, layer_idx=index)
            torch.testing.assert_close(tokens, recorded.pop(f"layer{index}"), **TOLERANCE)
            patches = tokens[:, 1:] if golden.config["use_cls_token"] else tokens
            torch.testing.assert_close(maps[index].flatten(2).transpose(1, 2), patches, **TOLERANCE)
        torch.testing.assert_close(tower.forward_features(image, norm=True), recorded.pop("last_normed"), **TOLERANCE)
        if "pooled" in recorded:
            torch.testing.assert_close(tower.embed(image), recorded.pop("pooled"), **TOLERANCE)
        assert not recorded, f"nothing compared with {sorted(recorded)}"


@by_recording("tower_*.npz", exclude=["tower_sam3*"])
def test_golden_state_is_written_back_unchanged(path):
    golden = Recording(path)
    tower = PETower(golden.config)
    tower.load_state_dict(adapt_backbone_state(tower, golden.state))
    state = tower.state_dict()
    assert set(state) == set(golden.state)
    assert all(torch.equal(state[key], value) for key, value in golden.state.items())


@by_recording("resample*.npz")
def test_golden_resample(path):
    golden = Recording(path)
    for kind, resample in (("conv1.weight", resample_patch_embedding), ("positional_embedding", resample_positions)):
        recorded = golden.subset(f"{kind}/")
        sources = [size for size in recorded if golden.is_half(f"{kind}/{size}")]
        assert len(sources) == 1
        source = recorded.pop(sources[0])
        assert recorded
        for size, expected in recorded.items():
            result = resample(source, int(size))
            torch.testing.assert_close(result, expected.view_as(result), **TOLERANCE)


def detection_tower(config):
    """Build the tower of a Mask R-CNN recording, whose config uses the names of the published detectors."""
    options = recorded_tower(config)
    arch = dict(options.pop("arch"), use_ln_post=False, pool_type="none")
    return PETower(arch, **options, with_cls_token=False)


@by_recording("maskrcnn_*.npz")
@torch.no_grad()
def test_golden_detection_tower_and_pyramid(path):
    golden = Recording(path)
    size = golden.config["img_size"]
    tower = detection_tower(golden.config).eval()
    tower.load_state_dict(adapt_backbone_state(tower, extract_backbone_state(golden.state)))
    pyramid = SimpleFeaturePyramid(golden.config["vit"]["embed_dim"], golden.config["fpn_channels"])
    levels = {k.removeprefix("backbone."): v for k, v in golden.state.items() if k.startswith("backbone.simfp_")}
    pyramid.load_state_dict(levels)

    image = (golden["image"].float() - 127) / 127
    image = torch.nn.functional.pad(image, (0, size - image.shape[2], 0, size - image.shape[1]))[None]
    maps = tower(image)
    torch.testing.assert_close(maps[-1], golden["net_last"], **TOLERANCE)
    outputs = pyramid(maps)
    assert len(outputs) == 5
    for number, output in enumerate(outputs, start=2):
        torch.testing.assert_close(output, golden[f"pyramid/p{number}"], **TOLERANCE)
