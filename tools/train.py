#!/usr/bin/env python
"""Train the model of a config.

tools/train.py configs/lvis_maskrcnn_pe_g14.py                            single GPU
torchrun --nproc_per_node=8 tools/train.py CONFIG --launcher pytorch      multiple GPUs
torchrun ... tools/train.py CONFIG --launcher pytorch --fsdp              multiple GPUs, fully sharded (FSDP)
tools/train.py mmdet::dino/dino-4scale_r50_8xb2-12e_coco --tower PE-Spatial-L14-448    any config of mmdet or mmseg
"""

import argparse

from pe_dense.engine.arguments import ConfigOptions, add_acceleration, number, text, whole_number
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=text, help="config file")
    parser.add_argument(
        "--work-dir", type=text, help="folder for logs and checkpoints (work_dirs/<config name>[_<tower>])"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        type=text,
        const="auto",
        metavar="CHECKPOINT",
        help="resume from a checkpoint (default: the last one in the work dir)",
    )
    parser.add_argument(
        "--tower",
        type=text,
        metavar="NAME",
        help="backbone to put under the config: a PE tower (PE-Spatial-L14-448) or timm/<model name>; the config may "
        "be any of mmdet's and mmseg's: a path, mmdet::<folder>/<name> or mmseg::<folder>/<name>",
    )
    parser.add_argument(
        "--keep-optimizer",
        action="store_true",
        help="with --tower: keep the config's optimizer instead of AdamW with layer-wise learning-rate decay",
    )
    parser.add_argument(
        "--lora",
        type=whole_number(1, 4096),
        metavar="RANK",
        help="train low-rank adapters (LoRA) of this rank in the backbone instead of its weights; heads train as usual",
    )
    parser.add_argument(
        "--amp", action="store_true", help="enable bfloat16 mixed precision (GPU, or CPU with AMX or AVX512-BF16)"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument(
        "--fsdp", action="store_true", help="shard parameters, gradients and optimizer state across GPUs (FSDP)"
    )
    parser.add_argument(
        "--ema",
        nargs="?",
        type=number(0, 1),
        const=0.0002,
        metavar="MOMENTUM",
        help="evaluate and save an exponential moving average (EMA) of the weights with this momentum (0.0002, an "
        "average over about 5000 iterations; use a larger value for short runs)",
    )
    parser.add_argument(
        "--track",
        choices=["tensorboard", "wandb", "mlflow"],
        help="send metrics, learning rates and pictures of predictions to a tracker, too",
    )
    parser.add_argument(
        "--show-parameter-groups",
        action="store_true",
        help="print the learning rate of each parameter group and exit; requires neither data nor weights",
    )
    add_acceleration(parser, dtype=False)
    parser.add_argument("--data", type=text, metavar="FOLDER", help="folder of custom data; its format is recognized")
    parser.add_argument(
        "--train-ann", type=text, metavar="FILE", help="annotation file of the training images, with --data"
    )
    parser.add_argument(
        "--val-ann", type=text, metavar="FILE", help="annotation file of the validation images, with --data"
    )
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
        help="override config values: data_root=FOLDER, image_size=512, model.backbone.with_cp=False, ...",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    from pe_dense.utils.errors import ConfigError
    from pe_dense.utils.signals import STOP, StopRun

    with STOP.handled(), one_line_errors():
        from pe_dense.engine.acceleration import accelerate
        from pe_dense.engine.build_runner import training_runner, work_dir_of
        from pe_dense.engine.config import load_config
        from pe_dense.engine.distributed import destroy_distributed
        from pe_dense.engine.preflight import check_read

        if args.compile and args.fsdp:
            raise ConfigError("--compile does not go with --fsdp: leave one of them out")
        config = load_config(
            args.config,
            args.cfg_options,
            tower=args.tower,
            keep_optimizer=args.keep_optimizer,
            distributed=args.launcher != "none",
        )
        if args.lora is not None:
            from pe_dense.engine.lora_option import use_lora

            use_lora(config, args.lora)
        if args.track is not None:
            from pe_dense.engine.tracking_option import use_tracker

            use_tracker(config, args.track)
        check_read(config, "train", vars(args))
        if args.data or args.train_ann or args.val_ann or args.images or args.depth_scale:
            from pe_dense.apis.custom_data import use_data

            use_data(
                config,
                args.data,
                work_dir=None if args.show_parameter_groups else work_dir_of(config, args.work_dir),
                checkpoint=args.resume,
                train_ann=args.train_ann,
                val_ann=args.val_ann,
                images=args.images,
                depth_scale=args.depth_scale,
            )
        if args.show_parameter_groups:
            from pe_dense.engine.optimizers.layer_decay import describe, parameter_groups

            print(describe(parameter_groups(config)))
            return
        runner = training_runner(
            config,
            work_dir=args.work_dir,
            resume=args.resume,
            amp=args.amp,
            launcher=args.launcher,
            fsdp=args.fsdp,
            ema=args.ema,
        )
        accelerate(runner.model, compiled=args.compile)
        try:
            runner.train()
        except StopRun:
            destroy_distributed()
            raise
        destroy_distributed()
    print(f"Checkpoints: {runner.work_dir}\nLogs: {runner.log_dir}")


if __name__ == "__main__":
    run_main(main)
