"""Work dirs of training runs, written without training: a config and a checkpoint, with random weights in heads."""

import torch
from mmengine.registry import MODELS, init_default_scope

from helpers.exported import CLASSES, tiny_detector
from helpers.shapes_probe import small_config
from helpers.tiny_run import two_blocks
from helpers.tool_runs import ROOT
from pe_dense.engine.config import load_config

COLORS = [(20 * number, 100, 200) for number in range(len(CLASSES))]


def write_run(folder, name="shapes_maskrcnn_pe_tiny", classes=CLASSES):
    """Write the run of a config into ``folder / "run"``; a probe's frozen tower is PE-Mini-Spatial.

    The data that the config names do not exist.
    """
    run = folder / "run"
    run.mkdir(parents=True)
    path = ROOT / "configs" / f"{name}.py"
    if "maskrcnn" in name:
        config = load_config(path, {"data_root": str(folder / "absent")})
        config.model.backbone = two_blocks()
        model = tiny_detector(name)
    else:
        config = small_config(name, folder)
        init_default_scope(config.get("default_scope", "mmseg"))
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()  # the checkpoint has the hash of the frozen tower
    config.dump(run / f"{name}.py")
    meta = dict(dataset_meta=dict(classes=classes, palette=COLORS[: len(classes)])) if classes else {}
    torch.save(dict(state_dict=model.state_dict(), meta=meta), run / "iter_4.pth")
    (run / "last_checkpoint").write_text(str(run / "iter_4.pth"))
    return run
