"""Exported files in onnxruntime against the models in PyTorch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.exported import WINDOWS, compare_detections, own_predictions, padded_images, tiny_detector
from helpers.tiny_clip import tiny_clip
from helpers.tiny_probe import build
from helpers.tiny_towers import ARCH, tiny_tower
from mmengine.registry import MODELS, init_default_scope

from pe_dense.export import export_graph, graph_of

TWO_BLOCKS = dict(ARCH, layers=2)


@pytest.fixture
def run(tmp_path):
    """Export a graph and return a function that runs the file on tensors."""

    def export(graph, **options):
        path = export_graph(graph, tmp_path / "model.onnx", **options)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, settings)
        names = [value.name for value in session.get_inputs()]
        run.operators = {node.op_type for node in onnx.load(path).graph.node}

        def call(*inputs):
            feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
            return [torch.from_numpy(value) for value in session.run(None, feeds)]

        return call

    run = export
    return run


def images(*shape, seed=0):
    return torch.randn(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(seed))


def assert_close(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


@torch.no_grad()
def test_tower_of_any_size_and_batch(run):
    """Rotary tables and positions depend on the size of the input, not on that of the export."""
    tower = tiny_tower(arch=dict(TWO_BLOCKS, use_cls_token=True), out_indices=(0, 1))
    call = run(graph_of(tower, size=(16, 24)), dynamic=("batch", "size"))
    for shape in ((1, 16, 24), (3, 32, 20)):
        assert_close(call(images(*shape)), tower(images(*shape)))


@torch.no_grad()
def test_windows_of_any_size(run):
    """Sizes are multiples of a window; learned positions are tiled."""
    tower = tiny_tower(arch=TWO_BLOCKS, **WINDOWS)
    call = run(graph_of(tower, size=(16, 24)), dynamic=("size",))
    for shape in ((1, 16, 24), (1, 40, 32)):
        assert_close(call(images(*shape)), tower(images(*shape)))


@torch.no_grad()
def test_padded_windows_of_a_fixed_size(run):
    tower = tiny_tower(arch=TWO_BLOCKS, **WINDOWS)
    call = run(graph_of(tower, size=(20, 28)), batch=2)
    assert_close(call(images(2, 20, 28)), tower(images(2, 20, 28)))


@torch.no_grad()
def test_resampled_tower(run):
    """Other patches and another grid than the weights, and positions resized bicubically."""
    tower = tiny_tower(arch=TWO_BLOCKS, patch_size=6, grid_size=5, pos_embed="bicubic")
    state = tiny_tower(arch=TWO_BLOCKS).state_dict()
    tower.load_state_dict(tower.adapt_state_dict(state, "file"))
    call = run(graph_of(tower, size=(24, 36), layers=[0, -1]))
    assert_close(call(images(1, 24, 36)), tower.forward_intermediates(images(1, 24, 36), [0, 1]))


@torch.no_grad()
def test_linear_probe(run):
    """Label maps equal on 99.9 % of the pixels, for two sizes."""
    model = build("segmentation", "Probe", (1,)).eval()
    call = run(graph_of(model), dynamic=("batch", "size"))
    for shape in ((1, 16, 16), (2, 64, 48)):
        (found,) = call(images(*shape))
        expected = model.encode_decode(images(*shape), [dict(img_shape=shape[1:])]).argmax(1)
        assert (found == expected).float().mean() >= 0.999
        assert expected.unique().numel() > 2


@torch.no_grad()
def test_linear_depth(run):
    model = build("depth", "Probe", (1,)).eval()
    expected = model.encode_decode(images(1, 16, 16), [dict(img_shape=(16, 16))])
    assert_close(run(graph_of(model))(images(1, 16, 16)), [expected[:, 0]])


@torch.no_grad()
def test_depth_probe(run):
    model = build("dpt", "Probe", (0,), test_cfg=dict(mode="whole", flip=True)).eval()
    call = run(graph_of(model, size=(24, 32)))
    expected = model.inference(images(1, 24, 32), [dict(img_shape=(24, 32), ori_shape=(24, 32))])
    assert_close(call(images(1, 24, 32)), [expected[:, 0]])


@torch.no_grad()
def test_clip(run):
    """Both towers, with a batch of any size."""
    model = tiny_clip()
    call = run(graph_of(model, "image"), dynamic=("batch",))
    assert_close(call(images(3, 32, 32)), [model.encode_image(images(3, 32, 32), normalize=True)])
    tokens = torch.randint(1, 49000, (3, 16), generator=torch.Generator().manual_seed(0))
    tokens[:, 9] = 49407
    call = run(graph_of(model, "text"), dynamic=("batch",), overwrite=True)
    assert_close(call(tokens), [model.encode_text(tokens, normalize=True)])


def test_deta(run):
    """Detections matched one to one, scores within 1e-3. tests/runtime does it for Mask R-CNN.

    A full DETA takes a minute to export: the graph has a part per level, layer and sampled point.
    """
    model = tiny_detector(
        "shapes_deta_pe_tiny", **{"model.num_levels": 3, "model.decoder_layers": 1, "model.num_queries": 40}
    )
    batch, sizes = padded_images((64, 50), side=64, seed=1)
    found = run(graph_of(model, size=(64, 64)))(batch, sizes)
    assert "GridSample" not in run.operators
    (expected,) = own_predictions(model, batch, sizes)
    compare_detections([value[0] for value in found], expected, 1e-3)


def mask_transformer(kind, head, classes, decoder="EoMTHead", **options):
    init_default_scope("mmseg")
    torch.manual_seed(0)
    normalization = dict(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)
    extra = dict(num_heads=2, interaction_indices=(1, -1)) if decoder == "PMTHead" else {}
    library = "SegDataPreProcessor" if kind.endswith("Segmentor") else "mmdet.DetDataPreprocessor"
    model = MODELS.build(
        dict(
            type=f"pe_dense.{kind}",
            data_preprocessor=dict(type=library, **normalization),
            backbone=dict(type="pe_dense.PETower", arch=dict(ARCH, layers=3), frozen=decoder == "PMTHead"),
            **{head: dict(type=f"pe_dense.{decoder}", num_queries=6, num_blocks=2, **classes, **extra)},
            **options,
        )
    ).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.2)
    if decoder == "PMTHead":  # or one class wins everywhere
        torch.nn.init.normal_(getattr(model, head).class_head.weight)
    return model


@pytest.mark.parametrize("decoder", ["EoMTHead", "PMTHead"])
@torch.no_grad()
def test_semantic_masks(run, decoder):
    """With the blocks masked, as after an unfinished training; for batches of two sizes."""
    classes = dict(num_things_classes=0, num_stuff_classes=5)
    model = mask_transformer("MaskTransformerSegmentor", "decode_head", classes, decoder)
    call = run(graph_of(model, size=(16, 24)), dynamic=("batch",))
    for count in (1, 3):
        (found,) = call(images(count, 16, 24))
        expected = model.encode_decode(images(count, 16, 24)).argmax(1)
        assert (found == expected).float().mean() >= 0.999
    assert expected.unique().numel() > 1
    assert model.decode_head.attn_mask_probs.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="its queries are upsampled and masked at one size"):
        graph_of(model, size=(16, 24)).dynamic_shapes(("size",))


@torch.no_grad()
def test_instance_masks(run):
    """For a batch of images with different padding."""
    model = mask_transformer(
        "MaskTransformerDetector",
        "panoptic_head",
        classes=dict(num_things_classes=5, num_stuff_classes=0),
        test_cfg=dict(panoptic_on=False, instance_on=True, max_per_image=12),
    )
    batch, sizes = padded_images((16, 12), (10, 16), (16, 16), side=16)
    boxes, scores, labels, found = run(graph_of(model, size=(16, 16)), dynamic=("batch",))(batch, sizes)
    classes, masks = model.extract_feat(batch)
    masks = model.panoptic_head.upsample(masks[-1], (16, 16))
    for index, (rows, columns) in enumerate(sizes.tolist()):
        expected = model.panoptic_fusion_head.instance_postprocess(classes[-1][index], masks[index, :, :rows, :columns])
        expected = expected[expected.scores.sort(descending=True).indices]
        assert (scores[index] - expected.scores).abs().max() < 1e-3
        assert torch.equal(labels[index], expected.labels)
        assert (found[index, :, :rows, :columns] == expected.masks).float().mean() >= 0.999
        assert not found[index, :, rows:].any() and not found[index, :, :, columns:].any()
        has_mask = expected.masks.flatten(1).any(1)
        assert has_mask.sum() > 3
        assert np.allclose(boxes[index][has_mask], expected.bboxes[has_mask])
