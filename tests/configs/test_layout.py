"""Style of the configs: names, depth of inheritance, no patches by list position, no repeated number."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.py"))
FILES = sorted(FOLDER.rglob("*.py"))


def name_of(path):
    return str(path.relative_to(FOLDER))


@cache
def bases(path):
    """List the files that a config inherits from directly."""
    found = set()
    for block in ast.parse(path.read_text()).body:
        for node in block.body if isinstance(block, ast.With) else ():
            folder = path.parents[node.level - 1]
            found.add(folder.joinpath(*node.module.split(".")).with_suffix(".py"))
    return frozenset(found)


@cache
def depth(path):
    return 1 + max(map(depth, bases(path)), default=0)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_depth(path):
    """At most three levels: a config, its bases and their bases."""
    assert depth(path) <= 3, [name_of(base) for base in bases(path)]


def test_depth_counts_files():
    assert depth(FOLDER / "_base_/runtime.py") == 1
    assert depth(FOLDER / "_base_/coco_maskrcnn.py") == 2
    assert depth(FOLDER / "lvis_maskrcnn_pe_g14.py") == depth(FOLDER / "coco_deta_pe_g14_1824_tta.py") == 3


def patches_by_position(source):
    """Find lines that change an item of a list by its position."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.Delete):
            changed = node.targets
        elif isinstance(node, ast.AugAssign):
            changed = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            changed = [node.func]
        else:
            continue
        for part in (part for target in changed for part in ast.walk(target)):
            if isinstance(part, ast.Subscript) and not isinstance(getattr(part.slice, "value", None), str):
                lines.append(ast.unparse(node))
    return lines


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_patch_by_list_position(path):
    assert not patches_by_position(path.read_text())


@pytest.mark.parametrize(
    "line",
    [
        "train_dataloader.dataset.pipeline[3].image_size = 5",
        "param_scheduler[1].merge(dict(end=5))",
        "tta_pipeline[1].transforms[0] = []",
        "custom_hooks[-1].update(interval=5)",
        "del pipeline[0]",
    ],
)
def test_patches_by_list_position_are_found(line):
    assert patches_by_position(line)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_only_plain_values_stay(path):
    """MMEngine does not drop functions: it dumps a config with one as code that cannot be read."""
    assert not [name for name, value in Config.fromfile(path).to_dict().items() if callable(value)]


DATA = "ade20k|coco|coco_panoptic|davis|images|lvis|nyu|objects365|shapes|shapes_lvis|shapes_panoptic|shards"
DATA += "|cityscapes|kitti|mose|ytvos|cocoobject|cocostuff|context59|context60|voc20|voc21"
METHOD = "align|depth|depth_linear|depth_sweep|deta|distill|dpt|linear|maskrcnn|propagation|propagation_sweep|sweep"
METHOD += "|cascade|clip|clip_crops|clip_forms|dino|dinov3_linear|dinov3_propagation|dinov3_sweep|eomt|lit|mask2former"
METHOD += "|pmt|upernet|words|words_lit"


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_name(path):
    """Names are <data>_<method>_pe_<size>[_<variant>]; sweeps without a size are for any tower, training on captions
    without <data> is for captions of the user's own.
    """
    any_tower = ("ade20k_sweep_pe", "davis_sweep_pe", "nyu_sweep_pe", "davis_dinov3_propagation_pe")
    any_tower += ("ade20k_dinov3_linear_pe", "ade20k_dinov3_sweep_pe")
    any_tower += ("cityscapes_dinov3_linear_pe", "cocostuff_dinov3_linear_pe", "voc21_dinov3_linear_pe")
    any_tower += ("kitti_dinov3_linear_pe", "nyu_dinov3_linear_pe")
    any_tower += ("mose_dinov3_propagation_pe", "ytvos_dinov3_propagation_pe")
    size = "" if path.stem in any_tower else "_(g14|l14|b16|s16|t16|mini|tiny)"
    assert re.fullmatch(rf"(({DATA})_({METHOD})|clip|lit)_pe(_core|_spatial|_frozen)?{size}(_\d+)?(_tta)?", path.stem)


@pytest.mark.parametrize(
    "number",
    [
        118_287,  # training images of COCO
        184_375,  # iterations of 100 epochs of Mask R-CNN
        163_889,
        177_546,
        1_742_289,  # training images of Objects365
        24_231,  # training images of NYUv2
        24_000,  # updates of spatial alignment
        12_288,  # images of each
        1203,  # classes of LVIS
        38_400,  # iterations of DINOv2's depth recipe
    ],
)
def test_sizes_of_data_and_schedules_are_written_once(number):
    values = [
        node.value for path in FILES for node in ast.walk(ast.parse(path.read_text())) if type(node) is ast.Constant
    ]
    assert values.count(number) == 1
