#!/usr/bin/env python
"""Evaluate a checkpoint on a config's test set: tools/test.py CONFIG CHECKPOINT"""

import argparse

from pe_dense.engine.arguments import ConfigOptions, add_acceleration, number, text
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=text, help="config file")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=text,
        help="path, work dir (its last checkpoint), or hf://<owner>/<repo>/<file>; training-free methods accept "
        "any checkpoint with a backbone (default: the config's)",
    )
    parser.add_argument("--work-dir", type=text, help="output folder (work_dirs/<config name>[_<tower>])")
    parser.add_argument(
        "--tower",
        type=text,
        metavar="NAME",
        help="backbone to put under the config, as in training: a PE tower or timm/<model name>; the config may be any "
        "of mmdet's and mmseg's: a path, mmdet::<folder>/<name> or mmseg::<folder>/<name>",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation: multi-scale and horizontal flip")
    add_acceleration(parser)
    parser.add_argument(
        "--data", type=text, metavar="FOLDER", help="folder of custom data, used instead of the config's"
    )
    parser.add_argument("--val-ann", type=text, metavar="FILE", help="annotation file of the test images, with --data")
    parser.add_argument("--images", type=text, metavar="FOLDER", help="image folder, with --data")
    parser.add_argument(
        "--depth-scale",
        type=number(1e-9, 1e6),
        metavar="METERS",
        help="meters per unit of integer depth maps, with --data (0.001, or that of depth.json)",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        metavar="NAME=VALUE",
        help="override config values: data_root=FOLDER, image_size=512, ...",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    from pe_dense.utils.signals import STOP

    with STOP.handled(), one_line_errors():
        from pe_dense.engine.acceleration import accelerate
        from pe_dense.engine.build_runner import testing_runner, work_dir_of
        from pe_dense.engine.config import load_config
        from pe_dense.engine.distributed import destroy_distributed
        from pe_dense.engine.preflight import check_read

        config = load_config(args.config, args.cfg_options, tower=args.tower, distributed=args.launcher != "none")
        check_read(config, "test", vars(args))
        if args.data or args.val_ann or args.images or args.depth_scale:
            from pe_dense.apis.custom_data import use_data

            use_data(
                config,
                args.data,
                ("test",),
                work_dir=work_dir_of(config, args.work_dir),
                checkpoint=args.checkpoint,
                val_ann=args.val_ann,
                images=args.images,
                depth_scale=args.depth_scale,
            )
        runner = testing_runner(config, args.checkpoint, work_dir=args.work_dir, launcher=args.launcher, tta=args.tta)
        accelerate(runner.model, compiled=args.compile, dtype=args.dtype)
        runner.test()
        destroy_distributed()
    print(f"Metrics and logs: {runner.log_dir}")


if __name__ == "__main__":
    run_main(main)
